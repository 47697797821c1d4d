//! The profiles as another implementation reads them.

use std::path::Path;
use std::process::Command;

use brig_types::id::{ClusterId, NodeId};

use super::*;
use crate::csr::NodeKey;
use crate::identity::verify_issued_chain;

fn openssl(args: &[&str], dir: &Path) -> String {
    let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(
        output.status.success(),
        "openssl {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn identity(role: NodeRole) -> NodeIdentity {
    NodeIdentity { cluster: ClusterId::generate().to_string(), role, node: NodeId::generate() }
}

/// The lines of `openssl x509 -text` without indentation.
fn text_of(pem: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.pem"), pem).unwrap();
    let text = openssl(&["x509", "-noout", "-text", "-in", "c.pem"], dir.path());
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn root_profile() {
    let root = RootCa::generate().unwrap();
    let text = text_of(root.cert_pem());
    for expected in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: CN = swarm-ca",
        "Subject: CN = swarm-ca",
        "ASN1 OID: prime256v1",
        "X509v3 Key Usage: critical\nCertificate Sign, CRL Sign",
        "X509v3 Basic Constraints: critical\nCA:TRUE\n",
        "X509v3 Subject Key Identifier:",
    ] {
        assert!(text.contains(expected), "{expected:?} not in\n{text}");
    }
    assert!(!text.contains("Authority Key Identifier"), "{text}");
    let info = root.info().unwrap();
    assert_eq!((info.not_after - info.not_before).whole_seconds(), 630_720_000);
    let age = OffsetDateTime::now_utc() - info.not_before;
    assert!((300..330).contains(&age.whole_seconds()), "{age}");
    // 0x13 is PrintableString.
    assert!(info.subject_der.windows(10).any(|w| w == b"\x13\x08swarm-ca"));
}

#[test]
fn node_profile() {
    let root = RootCa::generate().unwrap();
    let key = NodeKey::generate().unwrap();
    for (role, unit) in [(NodeRole::Worker, "swarm-worker"), (NodeRole::Manager, "swarm-manager")] {
        let who = identity(role);
        let chain = root.issue(&key.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
        let text = text_of(&chain);
        let mut names = format!("DNS:{unit}, DNS:{}", who.node);
        if role == NodeRole::Manager {
            names.push_str(", DNS:swarm-ca");
        }
        for expected in [
            format!("Subject: O = {}, OU = {unit}, CN = {}", who.cluster, who.node),
            "Issuer: CN = swarm-ca".to_owned(),
            "X509v3 Key Usage: critical\nDigital Signature, Key Encipherment".to_owned(),
            "X509v3 Extended Key Usage:\nTLS Web Server Authentication, TLS Web Client Authentication"
                .to_owned(),
            "X509v3 Basic Constraints: critical\nCA:FALSE".to_owned(),
            format!("X509v3 Subject Alternative Name:\n{names}\n"),
            "X509v3 Subject Key Identifier:".to_owned(),
            "X509v3 Authority Key Identifier:".to_owned(),
        ] {
            assert!(text.contains(&expected), "{expected:?} not in\n{text}");
        }
        let info = CertInfo::from_pem(&chain).unwrap();
        assert_eq!(info.not_before.second(), 0);
        let lifetime = info.not_after - info.not_before;
        assert_eq!(lifetime.whole_seconds(), 3600 + 90 * 24 * 3600);
        assert_eq!(verify_issued_chain(root.cert_pem(), &chain, &key).unwrap(), who);
    }
}

#[test]
fn openssl_verifies_what_was_issued() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootCa::generate().unwrap();
    let key = NodeKey::generate().unwrap();
    let who = identity(NodeRole::Manager);
    let chain = root.issue(&key.csr_pem().unwrap(), &who, MIN_NODE_EXPIRY).unwrap();
    std::fs::write(dir.path().join("root.pem"), root.cert_pem()).unwrap();
    std::fs::write(dir.path().join("leaf.pem"), &chain).unwrap();
    std::fs::write(dir.path().join("csr.pem"), key.csr_pem().unwrap()).unwrap();
    for purpose in ["sslserver", "sslclient"] {
        let args =
            ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root.pem", "leaf.pem"];
        openssl(&args, dir.path());
    }
    let csr = openssl(&["req", "-noout", "-verify", "-text", "-in", "csr.pem"], dir.path());
    assert!(csr.lines().any(|line| line.trim() == "Subject:"), "{csr}");
}

#[test]
fn requests_of_openssl_are_taken_and_their_wishes_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let make = "req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj /CN=root/O=evil \
                -addext subjectAltName=DNS:swarm-manager -addext basicConstraints=CA:TRUE";
    openssl(&make.split_whitespace().collect::<Vec<_>>(), dir.path());
    let csr = std::fs::read(dir.path().join("r.pem")).unwrap();
    let root = RootCa::generate().unwrap();
    let who = identity(NodeRole::Worker);
    let text = text_of(&root.issue(&csr, &who, DEFAULT_NODE_EXPIRY).unwrap());
    assert!(text.contains("CA:FALSE") && !text.contains("evil"), "{text}");
    assert!(!text.contains("swarm-manager"), "{text}");
}

#[test]
fn bad_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = RootCa::generate().unwrap();
    let who = identity(NodeRole::Worker);
    for (algorithm, name) in [("rsa:1024", "weak"), ("ed25519", "foreign")] {
        let make =
            format!("req -new -newkey {algorithm} -nodes -keyout k.pem -out r.pem -subj /CN=x");
        openssl(&make.split_whitespace().collect::<Vec<_>>(), dir.path());
        let csr = std::fs::read(dir.path().join("r.pem")).unwrap();
        assert!(root.issue(&csr, &who, DEFAULT_NODE_EXPIRY).is_err(), "{name}");
    }
    let good = NodeKey::generate().unwrap().csr_pem().unwrap();
    let mut der = x509::single_block(&good, "CERTIFICATE REQUEST").unwrap();
    let last = der.len() - 1;
    der[last] ^= 1;
    let forged = x509::to_pem("CERTIFICATE REQUEST", &der);
    assert!(root.issue(forged.as_bytes(), &who, DEFAULT_NODE_EXPIRY).is_err());
    assert!(root.issue(b"nonsense", &who, DEFAULT_NODE_EXPIRY).is_err());
}

#[test]
fn roots_survive_storage_and_mismatches_do_not() {
    let root = RootCa::generate().unwrap();
    let key = root.key_pem().unwrap();
    let read = RootCa::from_pem(root.cert_pem(), Some(&key)).unwrap();
    assert_eq!(read.digest(), root.digest());
    let node = NodeKey::generate().unwrap();
    let who = identity(NodeRole::Worker);
    let chain = read.issue(&node.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
    verify_issued_chain(root.cert_pem(), &chain, &node).unwrap();

    let other = RootCa::generate().unwrap();
    assert!(matches!(RootCa::from_pem(other.cert_pem(), Some(&key)), Err(PkiError::KeyMismatch)));
    assert!(verify_issued_chain(other.cert_pem(), &chain, &node).is_err());
    let stranger = NodeKey::generate().unwrap();
    assert!(matches!(
        verify_issued_chain(root.cert_pem(), &chain, &stranger),
        Err(PkiError::KeyMismatch)
    ));
    let public = RootCa::from_pem(root.cert_pem(), None).unwrap();
    assert!(matches!(
        public.issue(&node.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY),
        Err(PkiError::NoSigner)
    ));
    assert!(check_bundle(root.cert_pem()).is_ok());
    assert!(check_bundle(&chain).is_err());
}

#[test]
fn a_cross_signed_root_carries_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let cross = old.cross_sign(&new).unwrap();
    let key = NodeKey::generate().unwrap();
    let who = identity(NodeRole::Manager);
    let leaf = new.issue(&key.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
    let mut chain = leaf.clone();
    chain.extend_from_slice(&cross);
    for roots in [&old, &new] {
        assert_eq!(verify_issued_chain(roots.cert_pem(), &chain, &key).unwrap(), who);
    }
    std::fs::write(dir.path().join("old.pem"), old.cert_pem()).unwrap();
    std::fs::write(dir.path().join("cross.pem"), &cross).unwrap();
    std::fs::write(dir.path().join("leaf.pem"), &leaf).unwrap();
    std::fs::write(dir.path().join("new.pem"), new.cert_pem()).unwrap();
    let through = ["verify", "-x509_strict", "-CAfile", "old.pem", "-untrusted", "cross.pem"];
    openssl(&[&through[..], &["leaf.pem"]].concat(), dir.path());
    openssl(&["verify", "-x509_strict", "-CAfile", "new.pem", "leaf.pem"], dir.path());
    for chain in [&chain, &leaf] {
        let issuer = CertInfo::of_issuer(chain, new.cert_pem()).unwrap();
        assert_eq!(issuer.public_key_der, new.info().unwrap().public_key_der);
    }
    assert!(matches!(CertInfo::of_issuer(&leaf, old.cert_pem()), Err(PkiError::NoRoots)));
}

#[test]
fn roots_of_other_makers_are_taken_if_every_node_can_use_them() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let run = |line: &str| openssl(&line.split_whitespace().collect::<Vec<_>>(), dir.path());
    let old = RootCa::generate().unwrap();
    let node = NodeKey::generate().unwrap();
    let who = identity(NodeRole::Worker);
    let keys = [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k.pem",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out k.pem",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out k.pem",
        "ecparam -name prime256v1 -genkey -out k.pem",
        "genrsa -out k.pem 2048",
        "genrsa -traditional -out k.pem 2048",
    ];
    let make = "req -x509 -new -key k.pem -out c.pem -days 3650 -subj /O=Example/CN=the-root";
    for key in keys {
        run(key);
        run(make);
        let root = RootCa::desired(&read("c.pem"), Some(&SecretBytes::new(read("k.pem"))));
        let root = root.unwrap_or_else(|error| panic!("{key}: {error}"));
        let stored = RootCa::from_pem(root.cert_pem(), root.key_pem().as_ref()).unwrap();
        std::fs::write(dir.path().join("s.pem"), root.key_pem().unwrap().expose_secret()).unwrap();
        run("pkey -noout -in s.pem");
        let mut chain = stored.issue(&node.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
        verify_issued_chain(root.cert_pem(), &chain, &node).unwrap();
        let cross = old.cross_sign(&root).unwrap();
        chain.extend_from_slice(&cross);
        verify_issued_chain(old.cert_pem(), &chain, &node).unwrap();
        assert!(root.is(&read("c.pem")) && !root.is(old.cert_pem()));
        // The other way round it works as well: that is the next rotation.
        stored.cross_sign(&old).unwrap();
    }
    let refused = |cert: &[u8], what: &str| {
        let error = RootCa::desired(cert, None).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    let two = [read("c.pem"), old.cert_pem().to_vec()].concat();
    refused(&two, "cannot contain multiple certificates");
    refused(b"nonsense", "no valid PEM certificate");
    run(&make.replace("3650", "200"));
    refused(&read("c.pem"), "expires too soon");
    run(&format!("{make} -sha1"));
    refused(&read("c.pem"), "SHA-256");
    run("genrsa -out k.pem 1024");
    run(make);
    refused(&read("c.pem"), "2048");
    run("genpkey -algorithm ed25519 -out k.pem");
    run(make);
    refused(&read("c.pem"), "RSA or ECDSA");
    let chain = old.issue(&node.csr_pem().unwrap(), &who, Duration::from_secs(500 * 86_400));
    refused(&chain.unwrap(), "self-signed");
    let mismatch = RootCa::desired(old.cert_pem(), RootCa::generate().unwrap().key_pem().as_ref());
    assert!(matches!(mismatch, Err(PkiError::KeyMismatch)));
}

#[test]
fn chains_lead_back_over_several_rotations() {
    let roots: Vec<RootCa> = (0..6).map(|_| RootCa::generate().unwrap()).collect();
    let key = NodeKey::generate().unwrap();
    let who = identity(NodeRole::Manager);
    let newest = roots.last().unwrap();
    let mut chain = newest.issue(&key.csr_pem().unwrap(), &who, DEFAULT_NODE_EXPIRY).unwrap();
    for pair in roots.windows(2).rev() {
        chain.extend_from_slice(&pair[0].cross_sign(&pair[1]).unwrap());
    }
    for root in &roots {
        assert_eq!(verify_issued_chain(root.cert_pem(), &chain, &key).unwrap(), who);
    }
    let stranger = RootCa::generate().unwrap();
    assert!(verify_issued_chain(stranger.cert_pem(), &chain, &key).is_err());
}
