//! What takes findings back: ignore files and OpenVEX documents.
#![no_main]

use brig_scan::matching::{IgnoreFile, Vex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut vex = Vex::default();
    let _ = vex.add(data);
    let _ = vex.add(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = IgnoreFile::parse(text);
    }
});
