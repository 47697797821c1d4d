//! A layer's archive, with everything that its files hold, and what merging makes of it.
#![no_main]

use brig_scan::inventory::layer::read_layer;
use brig_scan::inventory::{Limits, merge::merge};
use brig_scan::package::{ImageFacts, Layer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits { entries: 10_000, ..Limits::default() };
    let Ok(found) = read_layer(data, &limits) else { return };
    let Ok(diff_id) = format!("sha256:{}", "0".repeat(64)).parse() else { return };
    let facts = Layer { diff_id, created_by: None, created: None, size: 0 };
    let inventory = merge(&[(facts.clone(), &found), (facts, &found)], ImageFacts::default());
    let written = brig_scan::sbom::cyclonedx::write(&inventory);
    let back = brig_scan::sbom::read(&written).expect("what was written is read");
    assert_eq!(back.packages.len(), inventory.packages.len());
});
