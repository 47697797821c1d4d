//! The cluster store's log, as a crash or a bad disk may leave it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| brig_store::fuzz_log(data));
