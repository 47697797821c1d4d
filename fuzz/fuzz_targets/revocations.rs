//! The operator's list of revoked certificates.
#![no_main]

use brig_pki::engine::Revocations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(revoked) = Revocations::parse(bytes) {
        // What cannot be read as a certificate is never let in.
        assert!(revoked.contains(b"not a certificate"));
    }
});
