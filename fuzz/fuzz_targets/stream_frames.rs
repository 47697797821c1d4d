//! The frames of a multiplexed stream.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut decoder = brig_api::stream::FrameDecoder::new();
    for piece in data.chunks(7) {
        decoder.push(piece);
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
});
