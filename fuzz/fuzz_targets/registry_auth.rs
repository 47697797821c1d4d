//! The X-Registry-Auth header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = brig_api::auth::RegistryAuth::from_header(text);
});
