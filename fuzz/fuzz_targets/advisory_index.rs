//! A database file that somebody else made: an error or an answer, whatever is in it.
#![no_main]

use brig_scan::db::Index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(index) = Index::from_bytes(bytes.to_vec()) else { return };
    let _ = index.verify();
    let _ = index.find("CVE-2026-1");
    for space in index.spaces().unwrap_or_default() {
        for name in space.package_names().unwrap_or_default() {
            for row in space.rows(name, &mut 0).unwrap_or_default() {
                let _ = index.intervals(&row);
                let _ = index.vulnerability(row.flaw);
            }
        }
    }
});
