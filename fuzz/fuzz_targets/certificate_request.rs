//! Certificate signing requests, as PEM and as the DER inside, up to the certificate that is
//! issued for one: it carries the identity that the authority chose and nothing of the request.
#![no_main]

use std::sync::OnceLock;

use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
use brig_pki::identity::NodeIdentity;
use brig_pki::token::NodeRole;
use brig_types::id::NodeId;
use libfuzzer_sys::fuzz_target;

struct Authority {
    root: RootCa,
    identity: NodeIdentity,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        brig_pki::install_provider();
        let node = NodeId::generate();
        Authority {
            root: RootCa::generate().expect("a root"),
            identity: NodeIdentity { cluster: "cluster".into(), role: NodeRole::Worker, node },
        }
    })
}

fn issue(request: &[u8]) {
    let Authority { root, identity } = authority();
    if let Ok(chain) = root.issue(request, identity, DEFAULT_NODE_EXPIRY) {
        let named = NodeIdentity::from_chain_pem(&chain).expect("an issued chain is readable");
        assert_eq!(&named, identity);
    }
}

fuzz_target!(|data: &[u8]| {
    issue(data);
    issue(brig_fuzz::pem("CERTIFICATE REQUEST", data).as_bytes());
});
