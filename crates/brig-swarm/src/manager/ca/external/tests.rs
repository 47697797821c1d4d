//! Authorities that do not do what they are asked, behind real TLS.

use std::net::Ipv4Addr;

use brig_pki::ca::DEFAULT_NODE_EXPIRY;
use brig_pki::csr::NodeKey;
use brig_pki::token::NodeRole;
use brig_proto::swarm::ExternalCa as Configured;
use brig_types::error::chain;
use brig_types::id::NodeId;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// What was asked for, and a root that could sign it.
struct Case {
    root: RootCa,
    csr: Vec<u8>,
    identity: NodeIdentity,
    servers: JoinSet<()>,
}

impl Case {
    fn new() -> Self {
        Self {
            root: RootCa::generate().unwrap(),
            csr: NodeKey::generate().unwrap().csr_pem().unwrap(),
            identity: NodeIdentity {
                cluster: "cluster".to_owned(),
                role: NodeRole::Worker,
                node: NodeId::generate(),
            },
            servers: JoinSet::new(),
        }
    }

    /// A server that this root vouches for and that answers every request with these bytes; with
    /// nothing at all when there are none.
    async fn server(&mut self, answer: Vec<u8>) -> String {
        let tls = server_tls(&self.root);
        self.serve(tls, answer).await
    }

    async fn serve(&mut self, tls: TlsAcceptor, answer: Vec<u8>) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.servers.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer) = (tls.clone(), answer.clone());
                connections.spawn(async move {
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !is_complete(&request) {
                        match stream.read_buf(&mut request).await {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        }
                    }
                    let text = String::from_utf8(request).unwrap();
                    assert!(text.starts_with("POST /sign?a=b HTTP/1.1\r\n"), "{text}");
                    assert!(text.contains("content-type: application/json\r\n"), "{text}");
                    if answer.is_empty() {
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        format!("https://{address}/sign?a=b")
    }

    fn signed(&self) -> Vec<u8> {
        signed(&self.root.issue(&self.csr, &self.identity, DEFAULT_NODE_EXPIRY).unwrap())
    }

    async fn ask(&self, urls: &[&str]) -> Result<Vec<u8>, (bool, String)> {
        let external = external(&self.root, urls);
        external
            .issue(&self.csr, &self.identity)
            .await
            .map_err(|error| (error.is_permanent(), chain(&error)))
    }
}

fn external(root: &RootCa, urls: &[&str]) -> ExternalCa {
    let external_cas = urls
        .iter()
        .map(|url| Configured { url: (*url).to_owned(), ..Configured::default() })
        .collect();
    let settings = CaConfig { external_cas, ..CaConfig::default() };
    ExternalCa::new(&settings, root.cert_pem(), root.cert_pem(), None).unwrap()
}

fn server_tls(root: &RootCa) -> TlsAcceptor {
    brig_pki::install_provider();
    let pem = root.key_pem().unwrap();
    let key = KeyPair::from_pem(std::str::from_utf8(pem.expose_secret()).unwrap()).unwrap();
    let cert = std::str::from_utf8(root.cert_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(cert, key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain = vec![CertificateDer::from(cert.der().to_vec())];
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Whether head and body of a request are there.
fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.parse::<usize>().unwrap())
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn signed(pem: &[u8]) -> Vec<u8> {
    let certificate = String::from_utf8(pem.to_vec()).unwrap();
    let body = serde_json::json!({"success": true, "result": {"certificate": certificate}});
    http("200 OK", &body.to_string())
}

const REFUSED: &str =
    r#"{"success":false,"result":null,"errors":[{"code":5100,"message":"policy says no"}]}"#;

#[tokio::test]
async fn a_good_answer_is_taken() {
    let mut case = Case::new();
    let url = case.server(case.signed()).await;
    let pem = case.ask(&[&url]).await.unwrap();
    let issued = NodeIdentity::from_chain_pem(&pem).unwrap();
    assert_eq!(issued, case.identity);
    external(&case.root, &[&url]).reach().await.unwrap();
}

#[tokio::test]
async fn a_wrong_certificate_is_a_permanent_failure() {
    let mut case = Case::new();
    let manager = NodeIdentity { role: NodeRole::Manager, ..case.identity.clone() };
    let promoted = case.root.issue(&case.csr, &manager, DEFAULT_NODE_EXPIRY).unwrap();
    let other = NodeKey::generate().unwrap().csr_pem().unwrap();
    let other = case.root.issue(&other, &case.identity, DEFAULT_NODE_EXPIRY).unwrap();
    let stranger = RootCa::generate().unwrap();
    let foreign = stranger.issue(&case.csr, &case.identity, DEFAULT_NODE_EXPIRY).unwrap();
    for (pem, reason) in [
        (promoted, "its subject is"),
        (other, "its public key is not the requested one"),
        (foreign, "under the root"),
        (b"not PEM".to_vec(), "no valid PEM certificate"),
    ] {
        let url = case.server(signed(&pem)).await;
        let (permanent, text) = case.ask(&[&url]).await.unwrap_err();
        assert!(permanent && text.contains(reason) && text.contains(&url), "{text}");
    }
}

#[tokio::test]
async fn a_refusal_is_permanent_and_tells_why() {
    let mut case = Case::new();
    // CFSSL itself refuses with 400; the protocol's word for it is in the body.
    for status in ["200 OK", "400 Bad Request"] {
        let url = case.server(http(status, REFUSED)).await;
        let (permanent, text) = case.ask(&[&url]).await.unwrap_err();
        assert!(permanent && text.contains("policy says no (code 5100)"), "{text}");
    }
    let url = case.server(http("200 OK", r#"{"success":true,"result":{}}"#)).await;
    let (permanent, text) = case.ask(&[&url]).await.unwrap_err();
    assert!(permanent && text.contains("sent no certificate"), "{text}");
}

#[tokio::test]
async fn what_is_no_answer_may_pass() {
    let mut case = Case::new();
    let long = "x".repeat(300 << 10);
    let redirect = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    for (answer, reason) in [
        (http("500 Internal Server Error", REFUSED), "500"),
        (http("400 Bad Request", "<html>"), "400"),
        (http("200 OK", "<html>"), "not CFSSL's JSON"),
        (http("200 OK", &long), "longer than 262144 bytes"),
        (redirect.to_vec(), "307"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec(), "not answered"),
        (b"\x16\x03\x01garbage\r\n\r\n".to_vec(), "not answered"),
    ] {
        let url = case.server(answer).await;
        let (permanent, text) = case.ask(&[&url]).await.unwrap_err();
        assert!(!permanent && text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn who_cannot_be_reached_may_come_back() {
    let mut case = Case::new();
    let silent = case.server(Vec::new()).await;
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody = format!("https://{}/sign", closed.local_addr().unwrap());
    drop(closed);
    let stranger = case.serve(server_tls(&RootCa::generate().unwrap()), case.signed()).await;
    for (url, reason) in [
        (&silent, "no answer within 5 s"),
        (&nobody, "no connection to 127.0.0.1:"),
        (&stranger, "no TLS with 127.0.0.1:"),
    ] {
        let (permanent, text) = case.ask(&[url]).await.unwrap_err();
        assert!(!permanent && text.contains(reason), "{text}");
    }
    let unreached = external(&case.root, &[&nobody, &stranger]).reach().await;
    assert!(chain(&unreached.unwrap_err()).contains("no TLS"));
}

#[tokio::test]
async fn the_first_good_answer_counts() {
    let mut case = Case::new();
    let refusing = case.server(http("200 OK", REFUSED)).await;
    let broken = case.server(http("503 Service Unavailable", "")).await;
    let good = case.server(case.signed()).await;
    assert!(case.ask(&[&refusing, &broken, &good]).await.is_ok());
    // One refused, but the other one may still sign.
    for urls in [[&*refusing, &*broken], [&*broken, &*refusing]] {
        let (permanent, text) = case.ask(&urls).await.unwrap_err();
        assert!(!permanent && text.contains("503"), "{text}");
    }
}

#[tokio::test]
async fn another_root_is_cross_signed() {
    let mut case = Case::new();
    let new = RootCa::generate().unwrap();
    let cross = case.root.cross_sign(&new).unwrap();
    let url = case.server(signed(&cross)).await;
    let external = external(&case.root, &[&url]);
    assert_eq!(external.cross_sign(&new).await.unwrap(), cross);
    let other = RootCa::generate().unwrap();
    assert!(external.cross_sign(&other).await.unwrap_err().is_permanent());
}

#[test]
fn authorities_are_chosen_by_their_root() {
    let (one, two) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let at = |url: &str, cert: &[u8]| Configured {
        url: url.to_owned(),
        ca_cert: cert.to_vec(),
        ..Configured::default()
    };
    let noisy = [b"comment\n".as_slice(), two.cert_pem()].concat();
    let settings = CaConfig {
        external_cas: vec![
            at("https://a/", b""),
            at("https://b/", one.cert_pem()),
            at("https://c/", &noisy),
        ],
        ..CaConfig::default()
    };
    let urls = |current: &RootCa, wanted: &RootCa| {
        ExternalCa::new(&settings, current.cert_pem(), wanted.cert_pem(), None).map(|ca| ca.urls)
    };
    assert_eq!(urls(&one, &one).unwrap(), ["https://a/", "https://b/"]);
    assert_eq!(urls(&one, &two).unwrap(), ["https://c/"]);
    assert_eq!(urls(&two, &one).unwrap(), ["https://b/"]);
    let three = RootCa::generate().unwrap();
    assert_eq!(urls(&one, &three), None);
    assert_eq!(urls(&three, &three).unwrap(), ["https://a/"]);
}

#[test]
fn settings_are_checked() {
    let root = RootCa::generate().unwrap();
    let check = |url: &str, cert: &[u8]| {
        let external =
            Configured { url: url.to_owned(), ca_cert: cert.to_vec(), ..Configured::default() };
        check_settings(&CaConfig { external_cas: vec![external], ..CaConfig::default() })
            .map_err(|error| error.to_string())
    };
    check("https://ca/sign", root.cert_pem()).unwrap();
    check("https://ca/sign", b"").unwrap();
    assert!(check("http://ca/sign", b"").unwrap_err().contains("invalid HTTP scheme"));
    assert!(check("https://ca/sign", b"junk").unwrap_err().contains("no valid PEM certificate"));
    let settings = CaConfig {
        external_cas: vec![Configured { protocol: 7, ..Configured::default() }],
        ..CaConfig::default()
    };
    assert!(check_settings(&settings).unwrap_err().to_string().contains("only be cfssl"));
}

#[test]
fn a_swarm_begins_under_one_root_or_its_own() {
    let (one, two) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let begin = |certs: &[&[u8]]| {
        let external_cas = certs
            .iter()
            .map(|cert| Configured {
                url: "https://ca/".to_owned(),
                ca_cert: cert.to_vec(),
                ..Configured::default()
            })
            .collect();
        check::initial(&CaConfig { external_cas, ..CaConfig::default() })
    };
    assert!(begin(&[]).unwrap().is_none());
    let (root, external) = begin(&[one.cert_pem(), one.cert_pem()]).unwrap().unwrap();
    assert!(!root.can_sign() && external.urls.len() == 2);
    assert_eq!(root.cert_pem(), one.cert_pem());
    for certs in [&[b"".as_slice()][..], &[one.cert_pem(), b""], &[one.cert_pem(), two.cert_pem()]]
    {
        let told = begin(certs).unwrap_err().to_string();
        assert!(told.contains("cacert=FILE"), "{told}");
    }
}
