//! Packets that containers send to their name server.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    brig_network::fuzz_packet(packet);
});
