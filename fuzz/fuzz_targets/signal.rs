//! Signal names and numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(signal) = brig_types::signal::Signal::parse(text) {
        assert!((1..=64).contains(&signal.number()));
    }
});
