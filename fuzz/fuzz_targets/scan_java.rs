//! Java archives, those inside them, and Python's eggs.
#![no_main]

use brig_scan::parse::{ReadAt, java};
use libfuzzer_sys::fuzz_target;

/// So that a slice can be handed over as something with a size.
struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(buf, offset)
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = java::archive(&Bytes(data), "opt/app/a-b-1.0.jar");
    let _ = java::member(&Bytes(data), "EGG-INFO/PKG-INFO");
});
