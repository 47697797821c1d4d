//! Signing requests as OpenSSL makes them, from the ordinary to the hostile: what is accepted is
//! what OpenSSL verifies too, and nothing but the key is taken from it.

#![allow(clippy::unwrap_used)]

mod support;

use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
use brig_pki::identity::NodeIdentity;
use brig_pki::token::NodeRole;
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};
use support::{Desk, identity, request};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

struct Authority {
    desk: Desk,
    root: RootCa,
    who: NodeIdentity,
}

impl Authority {
    fn new() -> Self {
        let desk = Desk::new();
        let root = RootCa::generate().unwrap();
        desk.put("root.pem", root.cert_pem());
        Self { desk, root, who: identity(NodeRole::Worker) }
    }

    fn issue(&self, csr: &[u8]) -> Result<Vec<u8>, String> {
        let issued = self.root.issue(csr, &self.who, DEFAULT_NODE_EXPIRY);
        issued.map_err(|error| brig_types::error::chain(&error))
    }

    /// Makes a key and a request with openssl.
    fn request(&self, key: &str, more: &str) -> Vec<u8> {
        self.desk.ok(&format!("genpkey -out k.pem {key}"));
        self.desk.ok(&format!("req -new -key k.pem -out r.pem {more}"));
        self.desk.get("r.pem")
    }

    /// The request is accepted, and the certificate is what it would be for any other request.
    fn accepts(&self, csr: &[u8]) {
        let Self { desk, who, .. } = self;
        let chain = self.issue(csr).unwrap();
        desk.put("r.pem", csr);
        desk.put("c.pem", &chain);
        desk.ok("req -verify -noout -in r.pem");
        desk.ok("verify -x509_strict -CAfile root.pem c.pem");
        let asked = desk.ok("req -noout -pubkey -in r.pem");
        assert_eq!(desk.ok("x509 -noout -pubkey -in c.pem"), asked);
        let text = desk.ok("x509 -noout -text -in c.pem");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in [
            format!("Subject: O = {}, OU = swarm-worker, CN = {} ", who.cluster, who.node),
            format!(
                "Subject Alternative Name: DNS:swarm-worker, DNS:{} X509v3 Key Usage: critical Digital Signature, Key Encipherment X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication X509v3 Subject",
                who.node
            ),
            "Basic Constraints: critical CA:FALSE".to_owned(),
        ] {
            assert!(text.contains(&expected), "{expected:?} not in {text}");
        }
        assert_eq!(text.matches("X509v3 ").count(), 7, "no other extensions: {text}");
    }

    fn refuses(&self, csr: &[u8], reason: &str) {
        let refused = match self.issue(csr) {
            Ok(_) => "accepted".to_owned(),
            Err(refused) => refused,
        };
        assert!(refused.contains(reason), "{refused}");
    }
}

/// A request under the name that nobody reads.
const PLAIN: &str = "-subj /CN=x";
const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

#[test]
fn kinds_of_keys() {
    let authority = Authority::new();
    for good in [
        P256,
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:4096",
    ] {
        authority.accepts(&authority.request(good, PLAIN));
    }
    for (bad, reason) in [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "RSA of 2048 bits"),
        ("-algorithm ED25519", "must be ECDSA or RSA"),
        ("-algorithm ED448", "invalid certificate signing request"),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "invalid certificate signing request"),
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
            "invalid certificate signing request",
        ),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-224", "invalid certificate signing request"),
        // Parameters of the peer's own making instead of a curve's name.
        (
            "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "invalid certificate signing request",
        ),
    ] {
        authority.refuses(&authority.request(bad, PLAIN), reason);
    }
}

#[test]
fn what_is_asked_for_is_not_given() {
    let authority = Authority::new();
    for wish in [
        "-addext subjectAltName=DNS:*,DNS:swarm-manager,DNS:swarm-ca,IP:127.0.0.1",
        "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        "-addext extendedKeyUsage=codeSigning,anyExtendedKeyUsage -addext nameConstraints=permitted;DNS:x",
        "-addext 1.2.3.4=critical,DER:0500",
    ] {
        authority.accepts(&authority.request(P256, &format!("{PLAIN} {wish}")));
    }
    let manager = "-subj /O=other/OU=swarm-manager/CN=somebody";
    authority.accepts(&authority.request(P256, manager));
}

#[test]
fn odd_subjects_do_not_matter() {
    let authority = Authority::new();
    for name in ["a\0b", "", "swarm-manager", "\u{202e}\u{0}\u{ffff}", &"x".repeat(8000)] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned()));
        let key = KeyPair::generate().unwrap();
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        authority.accepts(csr.as_bytes());
    }
}

#[test]
fn damaged_requests_are_refused() {
    let authority = Authority::new();
    let pem = authority.request(P256, PLAIN);
    let der = {
        authority.desk.ok("req -in r.pem -outform DER -out r.der");
        authority.desk.get("r.der")
    };
    let wrapped = |der: &[u8], tag: &str| pem::encode(&pem::Pem::new(tag, der)).into_bytes();
    const TAG: &str = "CERTIFICATE REQUEST";
    authority.accepts(&wrapped(&der, TAG));

    let mut forged = der.clone();
    *forged.last_mut().unwrap() ^= 1;
    authority.refuses(&wrapped(&forged, TAG), "signature does not verify");
    // The key of another request under this one's signature.
    authority.desk.ok(&format!("genpkey -out k2.pem {P256}"));
    authority.desk.ok("req -new -key k2.pem -outform DER -out r2.der -subj /CN=x");
    let other = authority.desk.get("r2.der");
    if other.len() == der.len() {
        let signed = der.len() - 72;
        let mixed = [&der[..signed], &other[signed..]].concat();
        assert!(authority.issue(&wrapped(&mixed, TAG)).is_err());
    }
    let longer = [&der[..], b"\0"].concat();
    authority.refuses(&wrapped(&longer, TAG), "not PKCS#10 DER");
    authority.refuses(&wrapped(&der[..der.len() - 1], TAG), "not PKCS#10 DER");
    authority.refuses(&wrapped(b"", TAG), "");
    authority.refuses(&wrapped(&der, "NEW CERTIFICATE REQUEST"), "no valid PEM");
    authority.refuses(&wrapped(&der, "CERTIFICATE"), "no valid PEM");
    authority.refuses(&[&pem[..], &request()].concat(), "no valid PEM");
    authority.refuses(&[&request()[..], authority.root.cert_pem()].concat(), "no valid PEM");
    authority.refuses(&der, "no valid PEM");
    authority.refuses(b"", "no valid PEM");
}

#[test]
fn old_hashes_are_refused() {
    let authority = Authority::new();
    for (key, hash) in [(P256, "sha1"), ("-algorithm RSA", "sha1"), ("-algorithm RSA", "md5")] {
        let csr = authority.request(key, &format!("{PLAIN} -{hash}"));
        authority.refuses(&csr, "invalid certificate signing request");
    }
}

/// Nothing holds these bytes but the rules of DER: the heads around what is signed, and the
/// signature's own.
#[test]
fn a_changed_byte_beside_what_is_signed_is_noticed() {
    let (root, who) = (RootCa::generate().unwrap(), identity(NodeRole::Worker));
    let mut accepted = Vec::new();
    // Signatures of several lengths, with and without a zero as their last bit.
    for _ in 0..8 {
        let der = pem::parse(request()).unwrap().into_contents();
        let signed = X509CertificationRequest::from_der(&der).unwrap().1;
        let info = signed.certification_request_info.raw;
        let begin = info.as_ptr() as usize - der.as_ptr() as usize;
        let outside = (0..begin).chain(begin + info.len()..der.len());
        for (position, flip) in outside.flat_map(|p| (1..=u8::MAX).map(move |flip| (p, flip))) {
            let mut changed = der.clone();
            changed[position] ^= flip;
            let changed = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", changed));
            if root.issue(changed.as_bytes(), &who, DEFAULT_NODE_EXPIRY).is_ok() {
                accepted.push((position, der.len(), flip));
            }
        }
    }
    assert_eq!(accepted, [], "(position, length, change)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_but_the_key_is_taken(
        names in proptest::collection::vec(".{0,40}", 0..4),
        hosts in proptest::collection::vec("[ -~]{1,30}", 0..4),
    ) {
        let mut params = CertificateParams::default();
        let kinds = [
            DnType::CommonName,
            DnType::OrganizationName,
            DnType::OrganizationalUnitName,
            DnType::CountryName,
        ];
        for (kind, name) in kinds.into_iter().zip(names) {
            params.distinguished_name.push(kind, DnValue::Utf8String(name));
        }
        params.subject_alt_names =
            hosts.into_iter().map(|host| SanType::DnsName(host.try_into().unwrap())).collect();
        let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let (root, who) = (RootCa::generate().unwrap(), identity(NodeRole::Manager));
        let chain = root.issue(csr.as_bytes(), &who, DEFAULT_NODE_EXPIRY).unwrap();
        prop_assert_eq!(NodeIdentity::from_chain_pem(&chain).unwrap(), who);
    }

    #[test]
    fn a_changed_byte_is_noticed(position in any::<prop::sample::Index>(), flip in 1_u8..) {
        let csr = request();
        let mut der = pem::parse(&csr).unwrap().into_contents();
        let position = position.index(der.len());
        der[position] ^= flip;
        let changed = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
        let root = RootCa::generate().unwrap();
        let who = identity(NodeRole::Worker);
        prop_assert!(root.issue(changed.as_bytes(), &who, DEFAULT_NODE_EXPIRY).is_err());
    }
}
