//! A cluster whose certificates a real CFSSL server signs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_pki::ca::RootCa;
use brig_pki::csr::NodeKey;
use brig_pki::identity::{CertInfo, verify_issued_chain};
use brig_pki::keyfile::CertificateDir;
use brig_pki::seal::{KeyRing, Place};
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{
    CaConfig, Certificate, Cluster, ExternalCa, IssueNodeCertificateRequest,
    NodeCertificateStatusRequest, issuance_status::State, node_ca_client::NodeCaClient,
};
use brig_store::{BlindName, RedbBackend, SealError, Sealer, Store};
use brig_swarm::{Control, InitRequest, JoinRequest, SwarmError, TokenRotation};
use brig_types::secret::{SecretBytes, SecretString};
use common::cfssl::{Cfssl, openssl_verifies};
use common::*;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// The setting that names a server.
fn external(cfssl: &Cfssl) -> ExternalCa {
    ExternalCa { url: cfssl.url(), ca_cert: cfssl.root(), ..ExternalCa::default() }
}

fn under(external: &[ExternalCa]) -> InitRequest {
    let mut request = on_loopback();
    let settings = request.spec.ca_config.get_or_insert_default();
    settings.external_cas = external.to_vec();
    request
}

fn invitation(control: &Control) -> JoinRequest {
    let cluster = control.cluster().unwrap();
    let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
    JoinRequest {
        remote_addrs: vec![address(control)],
        join_token: SecretString::new(tokens.worker),
        ..JoinRequest::default()
    }
}

fn address(control: &Control) -> String {
    control.node("self").unwrap().manager_status.as_ref().unwrap().addr.clone()
}

fn root(control: &Control) -> Vec<u8> {
    control.cluster().unwrap().root_ca.as_ref().unwrap().ca_cert.clone()
}

fn certificates(dir: &Path) -> PathBuf {
    dir.join("swarm/certificates")
}

fn chain_of(dir: &Path) -> PathBuf {
    certificates(dir).join("swarm-node.crt")
}

async fn update(control: &Control, change: impl FnOnce(&mut CaConfig)) -> Result<(), String> {
    let cluster = control.cluster().unwrap();
    let mut spec = cluster.spec.clone().unwrap();
    change(spec.ca_config.get_or_insert_default());
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    let updated = control.update_cluster(version, spec, TokenRotation::default()).await;
    updated.map_err(|error| error.to_string())
}

/// As [`eventually`], for what waits for the next attempt of the signer, ten seconds later.
async fn in_time<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The data keys, as the manager uses them.
struct Keys(Arc<KeyRing>);

impl Sealer for Keys {
    fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(Place { kind, id }, plain).map_err(Into::into)
    }

    fn open(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let opened = self.0.open(Place { kind, id }, sealed);
        opened.map(|plain| SecretBytes::new(plain.to_vec())).map_err(Into::into)
    }

    fn blind(&self, kind: &str, name: &str) -> BlindName {
        self.0.blind_name(kind, name)
    }
}

/// The cluster as it lies in the store of a manager that is stopped.
fn stored(dir: &Path) -> Arc<Cluster> {
    let identity = CertificateDir::new(certificates(dir)).load(None).unwrap().unwrap();
    let ring = identity.key.store_keys.unwrap().cluster.unwrap();
    let backend = RedbBackend::open(&dir.join("swarm/cluster.redb")).unwrap();
    let store = Store::open(backend, Arc::new(Keys(ring))).unwrap();
    store.view().all::<Cluster>().next().cloned().unwrap()
}

fn holds_no_key(cluster: &Cluster) {
    let root = cluster.root_ca.as_ref().unwrap();
    assert!(root.ca_key.is_empty() && root.root_rotation.is_none());
    let settings = cluster.spec.as_ref().unwrap().ca_config.as_ref().unwrap();
    assert!(settings.signing_ca_key.is_empty());
}

async fn mutual(address: &str, credentials: Arc<TlsCredentials>) -> Channel {
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, credentials) = (address.clone(), Arc::clone(&credentials));
        async move {
            let stream = TcpStream::connect(address).await?;
            credentials.connect("swarm-manager", stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://manager").connect_with_connector(dial).await.unwrap()
}

/// What the server answers to an empty request under a node's identity.
async fn asked_by(dir: &Path, cfssl: &Cfssl) -> String {
    let own = CertificateDir::new(certificates(dir)).load(None).unwrap().unwrap();
    let node = TlsCredentials::new(&own.roots_pem, &own.chain_pem, &own.key.node_key).unwrap();
    let connector = node.https_connector(&cfssl.root(), "127.0.0.1").unwrap();
    let address = cfssl.url().split('/').nth(2).unwrap().to_owned();
    let mut stream = connector.connect(TcpStream::connect(address).await.unwrap()).await.unwrap();
    let request = "POST /api/v1/cfssl/sign HTTP/1.1\r\nHost: ca\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server may end without a farewell.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Has a node's certificate renewed, as the node does.
async fn renew(control: &Control, dir: &Path) -> (NodeKey, Certificate) {
    let own = CertificateDir::new(certificates(dir)).load(None).unwrap().unwrap();
    let credentials =
        TlsCredentials::new(&own.roots_pem, &own.chain_pem, &own.key.node_key).unwrap();
    let mut ca = NodeCaClient::new(mutual(&address(control), Arc::new(credentials)).await);
    let key = NodeKey::generate().unwrap();
    let request = IssueNodeCertificateRequest {
        csr: key.csr_pem().unwrap(),
        ..IssueNodeCertificateRequest::default()
    };
    let node_id = ca.issue_node_certificate(request).await.unwrap().into_inner().node_id;
    let request = NodeCertificateStatusRequest { node_id };
    let answer = ca.node_certificate_status(request).await.unwrap().into_inner();
    (key, answer.certificate.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_begins_under_an_external_root() {
    let mut cfssl = Cfssl::start();
    let dir = tempfile::tempdir().unwrap();
    let (m, w) = (dir.path().join("m"), dir.path().join("w"));
    let manager = open(&m, &Machine::default()).await;
    let node = manager.init(under(&[external(&cfssl)])).await.unwrap();
    let control = manager.control().unwrap();
    assert_eq!(root(&control), cfssl.root());
    let subject = openssl_verifies(&cfssl.path("ca.pem"), &chain_of(&m));
    assert!(subject.starts_with(&format!("subject=CN={node},OU=swarm-manager,O=")), "{subject}");

    let worker = open(&w, &Machine::default()).await;
    worker.join(invitation(&control)).await.unwrap();
    let id = worker.status().node_id;
    let subject = openssl_verifies(&cfssl.path("ca.pem"), &chain_of(&w));
    assert!(subject.starts_with(&format!("subject=CN={id},OU=swarm-worker,O=")), "{subject}");
    let (key, renewed) = renew(&control, &w).await;
    assert_eq!(renewed.status.unwrap().state(), State::Issued);
    let identity = verify_issued_chain(&cfssl.root(), &renewed.certificate, &key).unwrap();
    assert_eq!(identity.node.as_str(), id);

    // A policy that forbids it: whoever wants to join is told, and so is the operator.
    cfssl.policy(Some("^nobody$"));
    cfssl.serve();
    let other = open(&dir.path().join("x"), &Machine::default()).await;
    let refused = other.join(invitation(&control)).await.unwrap_err().to_string();
    assert!(refused.contains("it did not sign: the server refused: "), "{refused}");
    let nodes = control.nodes();
    let failed = nodes.iter().find_map(|node| {
        let status = node.certificate.as_ref()?.status.clone()?;
        (status.state() == State::Failed).then_some(status.err)
    });
    assert!(failed.unwrap().contains(&cfssl.url()));
    // A node that is there already keeps what it has.
    let (_, failed) = renew(&control, &w).await;
    assert_eq!(failed.status.unwrap().state(), State::Failed);
    openssl_verifies(&cfssl.path("ca.pem"), &chain_of(&w));
    cfssl.policy(None);
    cfssl.serve();
    other.join(invitation(&control)).await.unwrap();

    let gone = update(&control, |settings| settings.external_cas.clear()).await.unwrap_err();
    assert!(gone.contains("corresponding to the current CA certificate"), "{gone}");
    drop(control);
    for swarm in [&other, &worker, &manager] {
        swarm.shutdown().await;
    }
    drop(manager);
    holds_no_key(&stored(&m));
    let manager = open(&m, &Machine::default()).await;
    let control = manager.control().unwrap();
    eventually(
        "the manager's own node is back",
        || control.node("self").unwrap().status.clone().unwrap().state(),
        |state| *state == brig_proto::swarm::node_status::State::Ready,
    )
    .await;
    assert_eq!(renew(&control, &w).await.1.status.unwrap().state(), State::Issued);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_for_an_authority_that_is_down() {
    let mut cfssl = Cfssl::start();
    let dir = tempfile::tempdir().unwrap();
    let manager = open(&dir.path().join("m"), &Machine::default()).await;
    manager.init(under(&[external(&cfssl)])).await.unwrap();
    let control = manager.control().unwrap();
    cfssl.stop();
    let worker = open(&dir.path().join("w"), &Machine::default()).await;
    let waiting = |state: State| {
        control.nodes().iter().find_map(|node| {
            let status = node.certificate.as_ref()?.status.clone()?;
            (status.state() == state).then_some(status.err)
        })
    };
    let watching = async {
        let why = in_time("it waits", || waiting(State::Pending)).await;
        assert!(why.contains("no connection to 127.0.0.1:"), "{why}");
        cfssl.serve();
        in_time("it is issued", || waiting(State::Pending).is_none().then_some(())).await;
    };
    let (joined, ()) = tokio::join!(worker.join(invitation(&control)), watching);
    joined.unwrap();
    openssl_verifies(&cfssl.path("ca.pem"), &chain_of(&dir.path().join("w")));
    worker.shutdown().await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_moves_to_an_external_root_and_back() {
    let mut cfssl = Cfssl::prepare();
    let dir = tempfile::tempdir().unwrap();
    let (m, w) = (dir.path().join("m"), dir.path().join("w"));
    let (manager, control) = new_swarm(&m, &Machine::default()).await;
    let worker = open(&w, &Machine::default()).await;
    worker.join(invitation(&control)).await.unwrap();
    // Only the manager may ask, with its certificate of the old root as well as of the new one.
    let clients = [root(&control), cfssl.root()].concat();
    cfssl.demand(&clients, &format!("^{}$", manager.status().node_id));
    let ours = cfssl.root();
    let there = external(&cfssl);
    let to_ours = |settings: &mut CaConfig| {
        settings.signing_ca_cert.clone_from(&ours);
        settings.external_cas = vec![there.clone()];
    };
    let down = update(&control, to_ours).await.unwrap_err();
    assert!(down.contains("reachable external CA corresponding to the desired CA"), "{down}");
    cfssl.serve();
    let unnamed = update(&control, |settings| settings.signing_ca_cert.clone_from(&ours)).await;
    assert!(unnamed.unwrap_err().contains("corresponding to the desired CA certificate"));
    update(&control, to_ours).await.unwrap();
    in_time("the new root took over", || (root(&control) == ours).then_some(())).await;
    for node in [&m, &w] {
        // openssl gets the cross certificate as well and may use what it likes.
        openssl_verifies(&cfssl.path("ca.pem"), &chain_of(node));
        let leaf = CertInfo::from_pem(&std::fs::read(chain_of(node)).unwrap()).unwrap();
        assert_eq!(leaf.issuer_der, CertInfo::from_pem(&ours).unwrap().subject_der);
    }
    let late = open(&dir.path().join("late"), &Machine::default()).await;
    late.join(invitation(&control)).await.unwrap();

    // Who may ask is the operator's word: this server does not listen to workers.
    assert!(asked_by(&m, &cfssl).await.starts_with("HTTP/1.1 400 "), "the manager may ask");
    let worker_asked = asked_by(&w, &cfssl).await;
    assert!(worker_asked.starts_with("HTTP/1.1 403 "), "a worker may not: {worker_asked}");

    let other = Cfssl::start();
    let elsewhere = update(&control, |settings| {
        settings.signing_ca_cert = other.root();
        settings.external_cas.push(external(&other));
    });
    let elsewhere = elsewhere.await.unwrap_err();
    assert!(elsewhere.contains("from one external CA to a different external CA"), "{elsewhere}");

    drop(control);
    manager.shutdown().await;
    drop(manager);
    holds_no_key(&stored(&m));
    let manager = open(&m, &Machine::default()).await;
    let control = manager.control().unwrap();

    // Back to a root of its own: the external one signs it once.
    update(&control, |settings| settings.force_rotate += 1).await.unwrap();
    in_time("its own root took over", || (root(&control) != ours).then_some(())).await;
    let own = dir.path().join("own.pem");
    std::fs::write(&own, root(&control)).unwrap();
    for node in [&m, &w] {
        openssl_verifies(&own, &chain_of(node));
    }
    cfssl.stop();
    let last = open(&dir.path().join("last"), &Machine::default()).await;
    last.join(invitation(&control)).await.unwrap();
    drop(control);
    for swarm in [&last, &late, &worker, &manager] {
        swarm.shutdown().await;
    }
    drop(manager);
    assert!(!stored(&m).root_ca.as_ref().unwrap().ca_key.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_not_sign_is_refused_in_time() {
    let mut cfssl = Cfssl::start();
    let dir = tempfile::tempdir().unwrap();
    let swarm = open(&dir.path().join("m"), &Machine::default()).await;
    let begin = async |external: ExternalCa| {
        let refused = swarm.init(under(&[external])).await.unwrap_err();
        let text = brig_types::error::chain(&refused);
        (matches!(refused, SwarmError::ExternalCa(_)), text)
    };
    let good = external(&cfssl);
    let (_, text) = begin(ExternalCa { ca_cert: Vec::new(), ..good.clone() }).await;
    assert!(text.contains("cacert=FILE"), "{text}");
    let (_, text) = begin(ExternalCa { url: "http://127.0.0.1/".to_owned(), ..good.clone() }).await;
    assert!(text.contains("invalid HTTP scheme"), "{text}");
    let stranger = RootCa::generate().unwrap().cert_pem().to_vec();
    let (asked, text) = begin(ExternalCa { ca_cert: stranger, ..good.clone() }).await;
    assert!(asked && text.contains("no TLS with 127.0.0.1:"), "{text}");
    // The first node has nothing to show yet.
    cfssl.demand(&cfssl.root(), "^.*$");
    cfssl.serve();
    let (asked, text) = begin(good.clone()).await;
    assert!(asked && text.contains("docker swarm ca --rotate --ca-cert"), "{text}");
    cfssl.stop();
    let (asked, text) = begin(good.clone()).await;
    assert!(asked && text.contains("no connection to 127.0.0.1:"), "{text}");

    // A swarm with a root of its own is not given anybody who cannot sign for it.
    swarm.init(on_loopback()).await.unwrap();
    let control = swarm.control().unwrap();
    let for_own = ExternalCa { ca_cert: Vec::new(), ..good.clone() };
    let refused = update(&control, |settings| settings.external_cas = vec![for_own]).await;
    let refused = refused.unwrap_err();
    assert!(refused.contains("there must be at least one valid, reachable external CA corresponding to the current CA certificate: external CA https://127.0.0.1:"), "{refused}");
    // One for another root waits for a rotation to that root.
    update(&control, |settings| settings.external_cas = vec![good.clone()]).await.unwrap();
    let worker = open(&dir.path().join("w"), &Machine::default()).await;
    worker.join(invitation(&control)).await.unwrap();
    worker.shutdown().await;
    swarm.shutdown().await;
}
