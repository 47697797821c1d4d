//! What brigd reads of a Dockerfile: the images it builds on.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let arguments = BTreeMap::from([("A".to_owned(), "value".to_owned())]);
    for name in brigd::build::dockerfile::base_images(text, &arguments) {
        let _ = brig_types::reference::Reference::parse(&name);
    }
});
