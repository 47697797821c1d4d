//! What OpenSSL thinks of the certificates that are issued, and of the TLS that is spoken.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;

use brig_pki::admission::NothingIssued;
use brig_pki::ca::{DEFAULT_NODE_EXPIRY, MIN_NODE_EXPIRY, RootCa};
use brig_pki::csr::NodeKey;
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole;
use support::{Desk, identity, request};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const STRICT: &str = "verify -x509_strict -auth_level 2 -check_ss_sig";

fn leaf(root: &RootCa, role: NodeRole) -> (Vec<u8>, String) {
    let who = identity(role);
    let chain = root.issue(&request(), &who, DEFAULT_NODE_EXPIRY).unwrap();
    (chain, who.node.to_string())
}

#[test]
fn every_chain_verifies_for_every_purpose_and_name() {
    let desk = Desk::new();
    let root = RootCa::generate().unwrap();
    desk.put("root.pem", root.cert_pem());
    desk.ok(&format!("{STRICT} -CAfile root.pem root.pem"));
    for (role, unit) in [(NodeRole::Worker, "swarm-worker"), (NodeRole::Manager, "swarm-manager")] {
        // The second time it is the renewed one: another key, another serial.
        for _ in 0..2 {
            let (chain, node) = leaf(&root, role);
            desk.put("leaf.pem", &chain);
            for purpose in ["sslclient", "sslserver"] {
                for name in [unit, &node] {
                    desk.ok(&format!(
                        "{STRICT} -purpose {purpose} -verify_hostname {name} -CAfile root.pem leaf.pem"
                    ));
                }
            }
            let as_authority = [("swarm-ca", role), ("swarm-manager", role)];
            for (name, role) in as_authority {
                let arguments =
                    format!("{STRICT} -verify_hostname {name} -CAfile root.pem leaf.pem");
                match role {
                    NodeRole::Manager => drop(desk.ok(&arguments)),
                    NodeRole::Worker => {
                        assert!(desk.fails(&arguments).contains("hostname mismatch"))
                    }
                }
            }
            for purpose in ["smimesign", "timestampsign", "crlsign"] {
                desk.fails(&format!("{STRICT} -purpose {purpose} -CAfile root.pem leaf.pem"));
            }
        }
    }
    let other = RootCa::generate().unwrap();
    desk.put("other.pem", other.cert_pem());
    desk.fails(&format!("{STRICT} -CAfile other.pem leaf.pem"));
}

#[test]
fn a_rotated_root_is_trusted_from_both_sides() {
    let desk = Desk::new();
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    desk.put("old.pem", old.cert_pem());
    desk.put("new.pem", new.cert_pem());
    desk.put("cross.pem", &old.cross_sign(&new).unwrap());
    let (chain, node) = leaf(&new, NodeRole::Manager);
    desk.put("leaf.pem", &chain);
    for trusted in ["old.pem", "new.pem"] {
        desk.ok(&format!(
            "{STRICT} -purpose sslserver -verify_hostname {node} -CAfile {trusted} -untrusted cross.pem leaf.pem"
        ));
    }
    desk.ok(&format!("{STRICT} -CAfile old.pem cross.pem"));
    desk.fails(&format!("{STRICT} -CAfile old.pem leaf.pem"));
    // The roots have one name: only the key identifiers tell them apart.
    let names = ["old", "new", "cross"]
        .map(|name| desk.ok(&format!("x509 -noout -subject -in {name}.pem")));
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    let id = |file: &str, which: &str| {
        let text = desk.ok(&format!("x509 -noout -ext {which} -in {file}.pem"));
        text.lines().nth(1).unwrap_or_default().trim().trim_start_matches("keyid:").to_owned()
    };
    assert_eq!(id("cross", "authorityKeyIdentifier"), id("old", "subjectKeyIdentifier"));
    assert_eq!(id("cross", "subjectKeyIdentifier"), id("new", "subjectKeyIdentifier"));
    assert_eq!(id("leaf", "authorityKeyIdentifier"), id("new", "subjectKeyIdentifier"));
    let public = |file: &str| desk.ok(&format!("x509 -noout -pubkey -in {file}.pem"));
    assert_eq!(public("cross"), public("new"));
    let dates = |file: &str| desk.ok(&format!("x509 -noout -dates -in {file}.pem"));
    assert_eq!(dates("cross"), dates("new"));
}

#[test]
fn fields_are_what_they_should_be() {
    let desk = Desk::new();
    let (root, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let (worker, _) = leaf(&root, NodeRole::Worker);
    let (manager, _) = leaf(&root, NodeRole::Manager);
    const AUTHORITY: &[&str] = &[
        "X509v3 Key Usage: critical Certificate Sign, CRL Sign",
        "X509v3 Basic Constraints: critical CA:TRUE",
    ];
    const NODE: &[&str] = &[
        "X509v3 Key Usage: critical Digital Signature, Key Encipherment",
        "X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical CA:FALSE",
        "X509v3 Authority Key Identifier",
    ];
    let mut serials = std::collections::BTreeSet::new();
    for (certificate, wanted) in [
        (root.cert_pem().to_vec(), AUTHORITY),
        (root.cross_sign(&new).unwrap(), AUTHORITY),
        (worker, NODE),
        (manager, NODE),
    ] {
        desk.put("c.pem", &certificate);
        let text = desk.ok("x509 -noout -text -in c.pem");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let common = [
            "Version: 3 (0x2)",
            "Signature Algorithm: ecdsa-with-SHA256",
            "Public-Key: (256 bit)",
            "NIST CURVE: P-256",
            "X509v3 Subject Key Identifier:",
        ];
        for expected in common.iter().chain(wanted) {
            assert!(text.contains(expected), "{expected:?} not in {text}");
        }
        assert!(!text.contains("pathlen"), "{text}");
        let serial = desk.ok("x509 -noout -serial -in c.pem");
        let serial = serial.trim().trim_start_matches("serial=").to_owned();
        assert_eq!(serial.len(), 40, "twenty bytes: {serial}");
        assert!(serial.as_bytes()[0] < b'8', "above zero: {serial}");
        assert!(serials.insert(serial));
        desk.ok("x509 -noout -checkend 0 -in c.pem");
    }
    // An hour is the shortest life; the second one is for clocks that lag.
    let short = root.issue(&request(), &identity(NodeRole::Worker), MIN_NODE_EXPIRY).unwrap();
    desk.put("c.pem", &short);
    desk.ok("x509 -noout -checkend 3500 -in c.pem");
    desk.fails("x509 -noout -checkend 3700 -in c.pem");
}

/// A manager's TLS on a port of its own; every connection gets a byte and is closed.
struct Server {
    desk: Desk,
    port: u16,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(roots: &[u8], chain: &[u8], key: &NodeKey) -> Self {
        let desk = Desk::new();
        desk.put("roots.pem", roots);
        let credentials = TlsCredentials::new(roots, chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = credentials.accept(stream, Arc::new(NothingIssued)).await {
                    let mut stream = stream.stream;
                    let _ = stream.write_all(b"!").await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        Self { desk, port, _tasks: tasks }
    }

    /// What `openssl s_client` says, and whether it got through.
    async fn client(&self, arguments: &str) -> (bool, String) {
        let arguments = format!(
            "s_client -connect 127.0.0.1:{} -CAfile roots.pem -verify_return_error -verify_hostname swarm-manager -ign_eof {arguments}",
            self.port
        );
        let mut command = self.desk.command(&arguments);
        let output = tokio::task::spawn_blocking(move || {
            let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = piped.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(b"");
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success() && said.contains("Verify return code: 0"), said)
    }
}

fn manager(root: &RootCa) -> (Vec<u8>, NodeKey) {
    let key = NodeKey::generate().unwrap();
    let who = identity(NodeRole::Manager);
    (root.issue(&key.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap(), key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_is_the_floor() {
    let root = RootCa::generate().unwrap();
    let (chain, key) = manager(&root);
    let server = Server::start(root.cert_pem(), &chain, &key).await;
    let (done, said) = server.client("-tls1_3 -alpn h2").await;
    assert!(done && said.contains("TLSv1.3") && said.contains("ALPN protocol: h2"), "{said}");
    let (done, said) = server.client("-tls1_2").await;
    assert!(done && said.contains("TLSv1.2") && said.contains("ECDHE-ECDSA-"), "{said}");
    // With everything allowed that this OpenSSL knows.
    for version in ["-tls1_1", "-tls1"] {
        let (done, said) = server.client(&format!("{version} -cipher ALL:@SECLEVEL=0")).await;
        assert!(
            !done && said.contains("Cipher is (NONE)") && said.contains("alert"),
            "{version}: {said}"
        );
    }
    for weak in ["ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-NULL-SHA"] {
        let (done, said) = server.client(&format!("-tls1_2 -cipher {weak}:@SECLEVEL=0")).await;
        assert!(!done && said.contains("handshake failure"), "{weak}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_optional_and_verified() {
    let root = RootCa::generate().unwrap();
    let (chain, key) = manager(&root);
    let server = Server::start(root.cert_pem(), &chain, &key).await;
    for (authority, good) in [(&root, true), (&RootCa::generate().unwrap(), false)] {
        let key = NodeKey::generate().unwrap();
        let who = identity(NodeRole::Worker);
        let chain = authority.issue(&key.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
        server.desk.put("client.pem", &chain);
        server.desk.put("client.key", key.key_pem().expose_secret());
        for version in ["-tls1_2", "-tls1_3"] {
            let (done, said) =
                server.client(&format!("{version} -cert client.pem -key client.key")).await;
            // With 1.3 a client is done before the server has looked at its certificate.
            let refused = said.contains("SSL alert number");
            assert_eq!(done && !refused, good, "{version}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_in_a_rotation_is_trusted_by_both_roots() {
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let (mut chain, key) = manager(&new);
    chain.extend(old.cross_sign(&new).unwrap());
    for trusted in [&old, &new] {
        let server = Server::start(trusted.cert_pem(), &chain, &key).await;
        let (done, said) = server.client("-x509_strict").await;
        assert!(done, "{said}");
    }
}
