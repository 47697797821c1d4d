//! Manifests and indexes of registries and archives.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = brig_image::manifest::Manifest::parse(data, None);
});
