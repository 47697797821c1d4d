//! Certificates, chains, roots and keys, as PEM and as the DER inside.
#![no_main]

use std::sync::OnceLock;

use brig_pki::csr::NodeKey;
use libfuzzer_sys::fuzz_target;

fn key() -> &'static NodeKey {
    static KEY: OnceLock<NodeKey> = OnceLock::new();
    KEY.get_or_init(|| NodeKey::generate().expect("a key"))
}

fn read(data: &[u8]) {
    let _ = brig_pki::identity::CertInfo::from_pem(data);
    let _ = brig_pki::identity::NodeIdentity::from_chain_pem(data);
    let _ = brig_pki::identity::NodeIdentity::from_cert_der(data);
    let _ = brig_pki::ca::RootCa::from_pem(data, None);
    let _ = brig_pki::ca::check_bundle(data);
    let _ = NodeKey::from_pem(data);
    let _ = brig_pki::identity::verify_issued_chain(data, data, key());
    let _ = brig_pki::tls::TlsCredentials::new(data, data, key());
    let _ = brig_pki::tls::Connector::anonymous(data, "swarm-ca");
}

fuzz_target!(|data: &[u8]| {
    brig_pki::install_provider();
    read(data);
    read(brig_fuzz::pem("CERTIFICATE", data).as_bytes());
});
