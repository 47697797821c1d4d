//! Answers of external certificate authorities.
#![no_main]

use std::sync::LazyLock;

use brig_pki::ca::RootCa;
use brig_pki::csr::NodeKey;
use brig_pki::identity::NodeIdentity;
use brig_pki::token::NodeRole;
use brig_types::id::NodeId;
use libfuzzer_sys::fuzz_target;

static ASKED: LazyLock<(RootCa, Vec<u8>, NodeIdentity)> = LazyLock::new(|| {
    brig_pki::install_provider();
    let root = RootCa::generate().expect("a root");
    let csr = NodeKey::generate().and_then(|key| key.csr_pem()).expect("a request");
    let cluster = "cluster".to_owned();
    let identity = NodeIdentity { cluster, role: NodeRole::Worker, node: NodeId::generate() };
    (root, csr, identity)
});

fuzz_target!(|body: &[u8]| {
    let (root, csr, identity) = &*ASKED;
    brig_swarm::fuzz_answer(root, csr, identity, body);
});
