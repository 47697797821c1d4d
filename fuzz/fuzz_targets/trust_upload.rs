//! An upload to the trust server: its parts, and each of them as metadata.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (kind, body) = input;
    let body = Bytes::copy_from_slice(body);
    let _ = brig_trust_server::read_upload(kind, &body);
    let _ = brig_trust_server::read_upload("multipart/form-data; boundary=B", &body);
});
