//! Image references: what parses must print and parse to the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = brig_types::reference::Reference::parse(text) {
        let again = brig_types::reference::Reference::parse(&reference.to_string());
        assert_eq!(again, Ok(reference));
    }
});
