//! Records of every publisher's format, and the index that is made of them.
#![no_main]

use brig_scan::db::{Collector, Index, import};
use libfuzzer_sys::fuzz_target;

/// A name of each format that is told by its name; the others are told by their content.
const NAMES: [&str; 6] =
    ["a.json", "a.yaml", "DSA/list", "debian.csv", "security-support-ended.deb12", "a.md"];

fuzz_target!(|input: (u8, &[u8])| {
    let (name, bytes) = input;
    let name = NAMES[usize::from(name) % NAMES.len()];
    let mut into = Collector::new();
    let _ = import::import_document(&mut into, name, bytes);
    let index = Index::from_bytes(into.to_bytes("now").unwrap()).unwrap();
    index.verify().unwrap();
});
