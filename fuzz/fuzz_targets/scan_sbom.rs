//! Bills of materials of strangers: what is read can be written, in both formats, and says the same
//! when it is read again.
#![no_main]

use brig_scan::sbom::{self, cyclonedx, spdx};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(inventory) = sbom::read(data) else { return };
    for written in [cyclonedx::write(&inventory), spdx::write(&inventory)] {
        let again = sbom::read(&written).expect("what was written is read");
        let names = |of: &brig_scan::package::Inventory| {
            let mut names: Vec<_> = of
                .packages
                .iter()
                .map(|package| (package.ecosystem, package.name.clone(), package.version.clone()))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(&again), names(&inventory));
    }
});
