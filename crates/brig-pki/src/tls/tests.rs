//! Handshakes over an in-memory pipe.

use brig_types::id::NodeId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::ca::{DEFAULT_NODE_EXPIRY, RootCa};
use crate::token::NodeRole;

fn credentials(root: &RootCa, role: NodeRole) -> TlsCredentials {
    let (chain, key) = pair(root, role);
    TlsCredentials::new(root.cert_pem(), &chain, &key).unwrap()
}

fn pair(root: &RootCa, role: NodeRole) -> (Vec<u8>, NodeKey) {
    let key = NodeKey::generate().unwrap();
    let who = NodeIdentity { cluster: "cluster".into(), role, node: NodeId::generate() };
    let csr = key.csr_pem().unwrap();
    (root.issue(&csr, &who, DEFAULT_NODE_EXPIRY).unwrap(), key)
}

type Both = (io::Result<ServerStream<DuplexStream>>, io::Result<ClientStream<DuplexStream>>);

/// Handshakes and one byte each way: with TLS 1.3 a client learns of a refused certificate late.
async fn meet(
    server: &TlsCredentials,
    client: impl AsyncFnOnce(DuplexStream) -> io::Result<ClientStream<DuplexStream>>,
) -> Both {
    let (near, far) = duplex(1 << 16);
    let serve = async {
        let mut stream = server.accept(far).await?;
        stream.write_all(b"s").await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    let ask = async {
        let mut stream = client(near).await?;
        stream.read_u8().await?;
        stream.write_all(b"c").await?;
        Ok(stream)
    };
    tokio::join!(serve, ask)
}

#[tokio::test]
async fn nodes_know_each_other() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let worker = credentials(&root, NodeRole::Worker);
    let (served, asked) =
        meet(&manager, async |io| worker.connect("swarm-manager", io).await).await;
    let (served, asked) = (served.unwrap(), asked.unwrap());
    assert_eq!(peer(&served).unwrap().unwrap().identity, worker.identity());
    assert_eq!(server_identity(&asked).unwrap().unwrap(), manager.identity());
    assert_eq!(served.get_ref().1.alpn_protocol(), Some(ALPN_H2));
    assert_eq!(served.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // What is recorded today stays closed to the quantum computers of tomorrow.
    for group in [
        served.get_ref().1.negotiated_key_exchange_group(),
        asked.get_ref().1.negotiated_key_exchange_group(),
    ] {
        assert_eq!(group.map(|group| group.name()), Some(rustls::NamedGroup::X25519MLKEM768));
    }
}

#[tokio::test]
async fn a_worker_cannot_play_manager() {
    let root = RootCa::generate().unwrap();
    let impostor = credentials(&root, NodeRole::Worker);
    let worker = credentials(&root, NodeRole::Worker);
    for name in ["swarm-manager", "swarm-ca"] {
        let (_, asked) = meet(&impostor, async |io| worker.connect(name, io).await).await;
        assert!(asked.is_err(), "{name}");
    }
}

#[tokio::test]
async fn strangers_are_refused_and_anonymous_clients_are_not() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let stranger = RootCa::generate().unwrap();
    let (chain, key) = pair(&stranger, NodeRole::Manager);
    // Trusts our root, but comes with another cluster's certificate.
    let foreign = TlsCredentials::new(root.cert_pem(), &chain, &key).unwrap();
    let (served, _) = meet(&manager, async |io| foreign.connect("swarm-manager", io).await).await;
    assert!(served.is_err());

    let joining = Connector::anonymous(root.cert_pem(), "swarm-ca").unwrap();
    let (served, asked) = meet(&manager, async |io| joining.connect(io).await).await;
    assert_eq!(peer(&served.unwrap()).unwrap(), None);
    asked.unwrap();

    let misled = Connector::anonymous(stranger.cert_pem(), "swarm-ca").unwrap();
    let (_, asked) = meet(&manager, async |io| misled.connect(io).await).await;
    assert!(asked.is_err());
}

#[tokio::test]
async fn the_bundle_can_be_fetched_without_trust_by_address() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let fetch = Connector::insecure_for_pinned_content("192.0.2.7").unwrap();
    let (served, asked) = meet(&manager, async |io| fetch.connect(io).await).await;
    assert_eq!(served.unwrap().get_ref().1.server_name(), None);
    asked.unwrap();
}

#[tokio::test]
async fn clients_without_alpn_are_served() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let mut plain = Connector::anonymous(root.cert_pem(), "swarm-manager").unwrap();
    Arc::make_mut(&mut plain.config).alpn_protocols.clear();
    let (served, _) = meet(&manager, async |io| plain.connect(io).await).await;
    assert_eq!(served.unwrap().get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn replacing_takes_effect_for_new_connections() {
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let manager = credentials(&old, NodeRole::Manager);
    let (chain, key) = pair(&new, NodeRole::Manager);
    assert!(manager.replace(new.cert_pem(), &chain, &NodeKey::generate().unwrap()).is_err());
    assert_eq!(manager.roots_pem(), old.cert_pem());
    manager.replace(new.cert_pem(), &chain, &key).unwrap();
    let joining = Connector::anonymous(new.cert_pem(), "swarm-manager").unwrap();
    let (served, asked) = meet(&manager, async |io| joining.connect(io).await).await;
    served.unwrap();
    assert_eq!(server_identity(&asked.unwrap()).unwrap().unwrap(), manager.identity());
}

#[test]
fn the_provider_can_be_installed_again() {
    install_provider();
    install_provider();
    assert!(CryptoProvider::get_default().is_some());
}
