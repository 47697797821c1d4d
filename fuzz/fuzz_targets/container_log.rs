//! Log files as they may lie on the disk after a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|log: &[u8]| {
    brig_engine::fuzz_log(log);
});
