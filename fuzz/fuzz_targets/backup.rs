//! Backups: the header, and what is behind the encryption, which whoever has a recipient's name can
//! write.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| brig_swarm::fuzz_backup(data));
