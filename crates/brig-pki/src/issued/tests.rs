//! Certificates that are almost right.

use brig_types::id::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::ca::DEFAULT_NODE_EXPIRY;
use crate::csr::NodeKey;

struct Case {
    root: RootCa,
    csr: Vec<u8>,
    key: NodeKey,
    identity: NodeIdentity,
}

impl Case {
    fn new(role: NodeRole) -> Self {
        let key = NodeKey::generate().unwrap();
        Self {
            root: RootCa::generate().unwrap(),
            csr: key.csr_pem().unwrap(),
            key,
            identity: NodeIdentity {
                cluster: "cluster".to_owned(),
                role,
                node: NodeId::generate(),
            },
        }
    }

    /// What a good authority signs.
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (DnType::OrganizationName, self.identity.cluster.as_str()),
            (DnType::OrganizationalUnitName, self.identity.role.organizational_unit()),
            (DnType::CommonName, self.identity.node.as_str()),
        ] {
            params.distinguished_name.push(kind, value);
        }
        params.subject_alt_names = node_names(&self.identity)
            .into_iter()
            .map(|name| SanType::DnsName(name.try_into().unwrap()))
            .collect();
        params.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
        params.not_after = OffsetDateTime::now_utc() + Duration::HOUR;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn signed(&self, params: &CertificateParams, csr: &[u8]) -> Vec<u8> {
        let key = self.root.key_pem().unwrap();
        let key = KeyPair::from_pem(std::str::from_utf8(key.expose_secret()).unwrap()).unwrap();
        let cert = std::str::from_utf8(self.root.cert_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_pem(cert, key).unwrap();
        let public: SubjectPublicKeyInfo = requested_key(csr).unwrap();
        params.signed_by(&public, &issuer).unwrap().pem().into_bytes()
    }

    fn check(&self, certificate: &[u8]) -> Result<Vec<u8>, Unfit> {
        check_node_certificate(self.root.cert_pem(), certificate, &self.csr, &self.identity)
    }

    fn altered(&self, alter: impl FnOnce(&mut CertificateParams)) -> Result<Vec<u8>, Unfit> {
        let mut params = self.params();
        alter(&mut params);
        self.check(&self.signed(&params, &self.csr))
    }
}

#[test]
fn what_was_asked_for_is_taken() {
    for role in [NodeRole::Worker, NodeRole::Manager] {
        let case = Case::new(role);
        let pem = case.altered(|_| ()).unwrap();
        assert!(
            crate::identity::verify_issued_chain(case.root.cert_pem(), &pem, &case.key).is_ok()
        );
        assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----\n") && !pem.contains(&b'\r'));
        let own = case.root.issue(&case.csr, &case.identity, DEFAULT_NODE_EXPIRY).unwrap();
        assert_eq!(case.check(&own).unwrap(), own);
        // Text around the certificate does not get any further.
        let noisy = [b"X-Header: 1\n".as_slice(), &own].concat();
        assert_eq!(case.check(&noisy).unwrap(), own);
        // Without key usages every use is allowed.
        assert!(case.altered(|params| params.key_usages.clear()).is_ok());
    }
}

#[test]
fn another_subject_is_refused() {
    let case = Case::new(NodeRole::Worker);
    let other = NodeId::generate();
    for (kind, value) in [
        (DnType::OrganizationalUnitName, "swarm-manager"),
        (DnType::OrganizationName, "another cluster"),
        (DnType::CommonName, other.as_str()),
        (DnType::LocalityName, "one more"),
    ] {
        let told = case.altered(|params| params.distinguished_name.push(kind, value)).unwrap_err();
        assert!(matches!(&told, Unfit::Subject { .. }), "{told}");
        assert!(told.to_string().contains("OU=swarm-worker"), "{told}");
    }
}

#[test]
fn other_names_are_refused() {
    let case = Case::new(NodeRole::Worker);
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    for more in [dns("swarm-manager"), dns("swarm-ca"), SanType::IpAddress([127, 0, 0, 1].into())] {
        let told = case.altered(|params| params.subject_alt_names.push(more)).unwrap_err();
        assert!(matches!(&told, Unfit::Names { found, .. } if found.len() == 3), "{told}");
    }
    let told = case.altered(|params| params.subject_alt_names.truncate(1));
    assert!(matches!(told, Err(Unfit::Names { .. })), "{told:?}");
}

#[test]
fn another_use_time_or_authority_is_refused() {
    let case = Case::new(NodeRole::Manager);
    for usage in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        let told = case.altered(|params| params.extended_key_usages = vec![usage]);
        assert!(matches!(told, Err(Unfit::Untrusted(_))), "{told:?}");
    }
    let told = case.altered(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(matches!(told, Err(Unfit::Untrusted(_))), "{told:?}");
    let told = case.altered(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert!(matches!(told, Err(Unfit::KeyUsage)), "{told:?}");
    let told =
        case.altered(|params| params.not_after = OffsetDateTime::now_utc() - Duration::MINUTE);
    assert!(matches!(told, Err(Unfit::Untrusted(_))), "{told:?}");
    // Every swarm's own root has the same name: the signature tells.
    let stranger = RootCa::generate().unwrap();
    let own = stranger.issue(&case.csr, &case.identity, DEFAULT_NODE_EXPIRY).unwrap();
    assert!(matches!(case.check(&own), Err(Unfit::Untrusted(_))));
}

#[test]
fn another_key_or_answer_is_refused() {
    let case = Case::new(NodeRole::Worker);
    let other = NodeKey::generate().unwrap().csr_pem().unwrap();
    let told = case.check(&case.signed(&case.params(), &other));
    assert!(matches!(told, Err(Unfit::PublicKey)), "{told:?}");
    let good = case.signed(&case.params(), &case.csr);
    let chain = [good.as_slice(), case.root.cert_pem()].concat();
    assert!(matches!(case.check(&chain), Err(Unfit::Several(2))));
    for garbage in [b"".as_slice(), b"-----BEGIN CERTIFICATE-----", &case.csr] {
        assert!(matches!(case.check(garbage), Err(Unfit::Unreadable(_))));
    }
}

#[test]
fn a_cross_signed_root_is_checked() {
    let (old, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let cross = old.cross_sign(&new).unwrap();
    assert_eq!(check_cross_signed(old.cert_pem(), &cross, &new).unwrap(), cross);
    let other = RootCa::generate().unwrap();
    let told = check_cross_signed(old.cert_pem(), &cross, &other);
    assert!(matches!(told, Err(Unfit::PublicKey)), "{told:?}");
    let told = check_cross_signed(other.cert_pem(), &cross, &new);
    assert!(matches!(told, Err(Unfit::Untrusted(_))), "{told:?}");
    let request = new.cross_sign_request().unwrap();
    assert_eq!(request.subject.common_name, "swarm-ca");
    check_request(&request.csr_pem).unwrap();
    let public = RootCa::from_pem(old.cert_pem(), None).unwrap();
    assert!(matches!(public.cross_sign_request(), Err(PkiError::NoSigner)));
}
