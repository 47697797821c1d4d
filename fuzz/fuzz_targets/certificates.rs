//! Certificates, chains, roots and keys in PEM.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    brig_pki::install_provider();
    let _ = brig_pki::identity::CertInfo::from_pem(data);
    let _ = brig_pki::identity::NodeIdentity::from_chain_pem(data);
    let _ = brig_pki::identity::NodeIdentity::from_cert_der(data);
    let _ = brig_pki::ca::RootCa::from_pem(data, None);
    let _ = brig_pki::ca::check_bundle(data);
    let _ = brig_pki::csr::NodeKey::from_pem(data);
});
