//! Handshakes over an in-memory pipe.

use brig_types::id::NodeId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::admission::{Fingerprint, NothingIssued};
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

type Both = (Result<Accepted<DuplexStream>, AcceptError>, io::Result<ClientStream<DuplexStream>>);

/// Handshakes and one byte each way: with TLS 1.3 a client learns of a refused certificate late.
async fn meet(
    server: &TlsCredentials,
    client: impl AsyncFnOnce(DuplexStream) -> io::Result<ClientStream<DuplexStream>>,
) -> Both {
    meet_with(server, Arc::new(NothingIssued), client).await
}

async fn meet_with(
    server: &TlsCredentials,
    register: Arc<dyn IssuedRegister>,
    client: impl AsyncFnOnce(DuplexStream) -> io::Result<ClientStream<DuplexStream>>,
) -> Both {
    let (near, far) = duplex(1 << 16);
    let serve = async {
        let mut accepted = server.accept(far, register).await?;
        accepted.stream.write_all(b"s").await.map_err(AcceptError::Handshake)?;
        accepted.stream.read_u8().await.map_err(AcceptError::Handshake)?;
        Ok(accepted)
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
    let (peer, root) = served.peer.unwrap();
    assert_eq!((peer.identity, root), (worker.identity(), Root::Present));
    assert_eq!(server_identity(&asked).unwrap().unwrap(), manager.identity());
    let (served, asked) = (served.stream.get_ref().1, asked.get_ref().1);
    assert_eq!(served.alpn_protocol(), Some(ALPN_H2));
    assert_eq!(served.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // What is recorded today stays closed to the quantum computers of tomorrow.
    for group in [served.negotiated_key_exchange_group(), asked.negotiated_key_exchange_group()] {
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
    let issuer = "CN=swarm-ca".to_owned();
    match served.unwrap_err() {
        AcceptError::Refused { subject, refusal } => {
            assert_eq!(refusal, Refusal::ForeignRoot { issuer });
            assert!(subject.contains(foreign.identity().node.as_str()), "{subject}");
        }
        other => panic!("{other}"),
    }

    let joining = Connector::anonymous(root.cert_pem(), "swarm-ca").unwrap();
    let (served, asked) = meet(&manager, async |io| joining.connect(io).await).await;
    assert_eq!(served.unwrap().peer, None);
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
    assert_eq!(served.unwrap().stream.get_ref().1.server_name(), None);
    asked.unwrap();
}

#[tokio::test]
async fn clients_without_alpn_are_served() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let mut plain = Connector::anonymous(root.cert_pem(), "swarm-manager").unwrap();
    Arc::make_mut(&mut plain.config).alpn_protocols.clear();
    let (served, _) = meet(&manager, async |io| plain.connect(io).await).await;
    assert_eq!(served.unwrap().stream.get_ref().1.alpn_protocol(), None);
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

/// One certificate of one node.
#[derive(Debug)]
struct Only(NodeId, Fingerprint);

impl IssuedRegister for Only {
    fn holds(&self, node: &NodeId, leaf: &Fingerprint) -> bool {
        (node, leaf) == (&self.0, &self.1)
    }
}

#[tokio::test]
async fn of_an_old_root_only_the_very_certificate_counts() {
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let manager = credentials(&new, NodeRole::Manager);
    let (chain, key) = pair(&old, NodeRole::Worker);
    let peer = Peer::from_pem(&chain).unwrap();
    let register: Arc<dyn IssuedRegister> =
        Arc::new(Only(peer.identity.node.clone(), peer.fingerprint));
    let straggler = TlsCredentials::new(new.cert_pem(), &chain, &key).unwrap();
    let (served, asked) = meet_with(&manager, Arc::clone(&register), async |io| {
        straggler.connect("swarm-manager", io).await
    })
    .await;
    asked.unwrap();
    assert_eq!(served.unwrap().peer, Some((peer.clone(), Root::Foreign)));

    // Whoever has the old root's key makes another certificate for that node.
    let thief = NodeKey::generate().unwrap();
    let forged = old.issue(&thief.csr_pem().unwrap(), &peer.identity, DEFAULT_NODE_EXPIRY).unwrap();
    let thief = TlsCredentials::new(new.cert_pem(), &forged, &thief).unwrap();
    let (served, _) =
        meet_with(&manager, register, async |io| thief.connect("swarm-manager", io).await).await;
    let refused = served.unwrap_err();
    assert!(
        matches!(refused, AcceptError::Refused { refusal: Refusal::ForeignRoot { .. }, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_certificate_without_its_key_is_worth_nothing() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let (chain, _) = pair(&root, NodeRole::Worker);
    let peer = Peer::from_pem(&chain).unwrap();
    let register = Arc::new(Only(peer.identity.node.clone(), peer.fingerprint));
    // The configuration of this library refuses a key that does not fit, so it is put in by force.
    let thief = key_der(&NodeKey::generate().unwrap());
    let key = provider().key_provider.load_private_key(thief).unwrap();
    let stolen = CertifiedKey::new(x509::certificates(&chain).unwrap(), key);
    let config = client_builder()
        .unwrap()
        .with_webpki_verifier(
            server_verifier(Arc::new(root_store(root.cert_pem()).unwrap())).unwrap(),
        )
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(stolen)));
    let thief = Connector { config: Arc::new(config), name: name("swarm-manager").unwrap() };
    let (served, _) = meet_with(&manager, register, async |io| thief.connect(io).await).await;
    assert!(matches!(served.unwrap_err(), AcceptError::Handshake(_)));
}

#[tokio::test]
async fn changes_of_the_roots_are_told() {
    let root = RootCa::generate().unwrap();
    let manager = credentials(&root, NodeRole::Manager);
    let changed = manager.roots_changed();
    let (chain, key) = pair(&root, NodeRole::Manager);
    let peer = Peer::from_pem(&chain).unwrap();
    manager.replace(root.cert_pem(), &chain, &key).unwrap();
    assert!(!changed.has_changed().unwrap(), "another certificate of the same root");
    assert_eq!(manager.root_of(&peer), Root::Present);
    let new = RootCa::generate().unwrap();
    manager.replace(new.cert_pem(), &chain, &key).unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(manager.root_of(&peer), Root::Foreign);
}

#[test]
fn the_provider_can_be_installed_again() {
    install_provider();
    install_provider();
    assert!(CryptoProvider::get_default().is_some());
}
