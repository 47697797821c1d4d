//! Keys of SSH, codes, and the register of identities.
#![no_main]

use brig_pki::enrol::Code;
use brigd::access::enrol::register;
use brigd::access::enrol::ssh::PublicKey;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut access) = brig_proto::brig::Access::decode(bytes) {
        let known = register::known(&access).len();
        register::forget(&mut access, std::time::SystemTime::now().into());
        assert!(register::known(&access).len() <= known);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(code) = Code::parse(text) {
        assert_eq!(Code::parse(&code.to_string()), Some(code));
    }
    if let Ok(key) = PublicKey::parse(text) {
        assert_eq!(PublicKey::parse(&key.data()).unwrap().fingerprint(), key.fingerprint());
    }
});
