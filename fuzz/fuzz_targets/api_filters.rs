//! The filters of a query, in both encodings.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = brig_api::filters::Filters::parse(text);
});
