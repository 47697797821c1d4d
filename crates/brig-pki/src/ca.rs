//! The cluster's certificate authority, with the certificate profiles that SwarmKit nodes expect.

use std::fmt;
use std::time::Duration;

use brig_types::secret::SecretBytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use zeroize::Zeroize as _;

use crate::identity::{CertInfo, NodeIdentity};
use crate::token::NodeRole;
use crate::{PkiError, hash, random, x509};

/// Common name of the roots that clusters make for themselves.
pub const ROOT_COMMON_NAME: &str = "swarm-ca";
/// TLS name under which a manager serves certificate requests.
pub const CA_SERVER_NAME: &str = "swarm-ca";
/// Lifetime of a root certificate.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(630_720_000);
/// Lifetime of node certificates when the cluster does not say otherwise.
pub const DEFAULT_NODE_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
/// Shortest lifetime of node certificates.
pub const MIN_NODE_EXPIRY: Duration = Duration::from_secs(3600);

/// How far in the past a root's validity starts, for clocks that lag.
const ROOT_BACKDATE: Duration = Duration::from_secs(5 * 60);
/// The same for node certificates.
const NODE_BACKDATE: Duration = Duration::from_secs(3600);
const SERIAL_LEN: usize = 20;
const MIN_RSA_BITS: usize = 2048;
pub(crate) const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// A root certificate, with its key where this node may sign.
pub struct RootCa {
    cert: CertificateDer<'static>,
    cert_pem: Vec<u8>,
    key: Option<KeyPair>,
}

mod desired;
mod store;

pub use self::desired::MIN_ROOT_LIFETIME;
pub use self::store::{STORE_EXPIRY, STORE_MEMBER_NAME};

impl RootCa {
    /// Makes a new root: P-256, self-signed, twenty years.
    ///
    /// # Errors
    /// [`PkiError::Issue`], [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let now = OffsetDateTime::now_utc();
        let mut params = blank_params()?;
        params.distinguished_name.push(DnType::CommonName, printable(ROOT_COMMON_NAME)?);
        params.not_before = now - ROOT_BACKDATE;
        params.not_after = params.not_before + ROOT_LIFETIME;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(failed("sign the root certificate"))?;
        let cert = cert.der().clone();
        Ok(Self {
            cert_pem: x509::to_pem(CERTIFICATE_TAG, &cert).into_bytes(),
            cert,
            key: Some(key),
        })
    }

    /// Takes a root certificate and, where this node may sign, its key (PKCS#8, SEC 1 or PKCS#1).
    ///
    /// `cert_pem` is kept byte for byte: join tokens are made over exactly these bytes.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`], [`PkiError::PrivateKey`],
    /// [`PkiError::KeyMismatch`].
    pub fn from_pem(cert_pem: &[u8], key_pem: Option<&SecretBytes>) -> Result<Self, PkiError> {
        let cert = x509::certificates(cert_pem)?
            .into_iter()
            .next()
            .ok_or(PkiError::Pem { expected: "certificate" })?;
        check_root(&cert)?;
        let key = key_pem.map(|pem| signing_key(pem, &cert)).transpose()?;
        Ok(Self { cert, cert_pem: cert_pem.to_vec(), key })
    }

    /// The root bundle in PEM, as nodes download it.
    #[must_use]
    pub fn cert_pem(&self) -> &[u8] {
        &self.cert_pem
    }

    /// The signing key in PEM, in the form that it came in (PKCS#8 where it was made here), if
    /// this node has it.
    #[must_use]
    pub fn key_pem(&self) -> Option<SecretBytes> {
        let der = self.key.as_ref()?.serialized_der();
        let tag = match PrivateKeyDer::try_from(der) {
            Ok(PrivateKeyDer::Sec1(_)) => "EC PRIVATE KEY",
            Ok(PrivateKeyDer::Pkcs1(_)) => "RSA PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Some(SecretBytes::new(x509::to_pem(tag, der).into_bytes()))
    }

    /// Whether this node can sign.
    #[must_use]
    pub const fn can_sign(&self) -> bool {
        self.key.is_some()
    }

    /// SHA-256 of the bundle, as join tokens pin it.
    #[must_use]
    pub fn digest(&self) -> [u8; hash::SHA256_LEN] {
        hash::sha256(&self.cert_pem)
    }

    /// Subject, key and validity of the root; `subject_der` and `public_key_der` are what
    /// `TLSInfo` shows as issuer.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn info(&self) -> Result<CertInfo, PkiError> {
        CertInfo::from_cert_der(&self.cert)
    }

    /// Issues a node certificate; from the request only the public key is taken.
    ///
    /// Returns the chain in PEM, leaf first. An `expiry` under [`MIN_NODE_EXPIRY`] becomes the
    /// default, as SwarmKit's signer does.
    ///
    /// # Errors
    /// [`PkiError::NoSigner`], [`PkiError::Csr`], [`PkiError::Issue`].
    pub fn issue(
        &self,
        csr_pem: &[u8],
        identity: &NodeIdentity,
        expiry: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        let public_key = requested_key(csr_pem)?;
        let issuer = self.issuer()?;
        let expiry = if expiry < MIN_NODE_EXPIRY { DEFAULT_NODE_EXPIRY } else { expiry };
        let mut params = blank_params()?;
        let unit = identity.role.organizational_unit();
        for (kind, value) in [
            (DnType::OrganizationName, identity.cluster.as_str()),
            (DnType::OrganizationalUnitName, unit),
            (DnType::CommonName, identity.node.as_str()),
        ] {
            params.distinguished_name.push(kind, printable(value)?);
        }
        let mut names = vec![unit, identity.node.as_str()];
        if identity.role == NodeRole::Manager {
            names.push(CA_SERVER_NAME);
        }
        params.subject_alt_names = names
            .into_iter()
            .map(|name| name.try_into().map(SanType::DnsName))
            .collect::<Result<_, _>>()
            .map_err(failed("write the names"))?;
        params.not_before = round_to_minute(OffsetDateTime::now_utc()) - NODE_BACKDATE;
        params.not_after = params.not_before + NODE_BACKDATE + expiry;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&public_key, &issuer).map_err(failed("sign a certificate"))?;
        Ok(x509::to_pem(CERTIFICATE_TAG, leaf.der()).into_bytes())
    }

    /// Signs another root with this one, so that nodes which trust only this root accept
    /// certificates of the other during a rotation. Returns PEM.
    ///
    /// # Errors
    /// [`PkiError::NoSigner`], [`PkiError::Certificate`], [`PkiError::Issue`].
    pub fn cross_sign(&self, new: &Self) -> Result<Vec<u8>, PkiError> {
        let issuer = self.issuer()?;
        let other = x509::parse(&new.cert)?;
        let mut params = blank_params()?;
        for attribute in other.subject().iter_attributes() {
            let kind = attribute.attr_type().iter();
            let kind: Vec<u64> = kind
                .ok_or(PkiError::Certificate { reason: "subject attribute out of range" })?
                .collect();
            params.distinguished_name.push(DnType::from_oid(&kind), same_encoding(attribute)?);
        }
        params.not_before = other.validity().not_before.to_datetime();
        params.not_after = other.validity().not_after.to_datetime();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        if let Some(id) = subject_key_id(&other) {
            params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(id);
        }
        let public_key = SubjectPublicKeyInfo::from_der(other.public_key().raw)
            .map_err(failed("read the new root's key"))?;
        let cert = params.signed_by(&public_key, &issuer).map_err(failed("cross-sign a root"))?;
        let written = x509::parse(cert.der())?;
        if written.subject().as_raw() != other.subject().as_raw() {
            return Err(PkiError::Certificate { reason: "subject cannot be reproduced" });
        }
        Ok(x509::to_pem(CERTIFICATE_TAG, cert.der()).into_bytes())
    }

    /// What another authority has to be asked so that it signs this root: a request that proves
    /// possession of the key, and the subject.
    ///
    /// # Errors
    /// [`PkiError::NoSigner`], [`PkiError::Certificate`] for subjects that a request cannot
    /// express, [`PkiError::Issue`].
    pub fn cross_sign_request(&self) -> Result<CrossSignRequest, PkiError> {
        let key = self.key.as_ref().ok_or(PkiError::NoSigner)?;
        let own = x509::parse(&self.cert)?;
        let mut subject = RootName::default();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for attribute in own.subject().iter_attributes() {
            let kind = attribute.attr_type().iter();
            let kind: Vec<u64> = kind
                .ok_or(PkiError::Certificate { reason: "subject attribute out of range" })?
                .collect();
            let kind = DnType::from_oid(&kind);
            let value = attribute
                .as_str()
                .map_err(|_| PkiError::Certificate { reason: "subject is not text" })?
                .to_owned();
            match kind {
                DnType::CommonName => subject.common_name = value,
                DnType::OrganizationName => subject.organizations.push(value),
                DnType::OrganizationalUnitName => subject.units.push(value),
                _ => {
                    return Err(PkiError::Certificate {
                        reason: "the subject of a root that is cross-signed may have CN, O and OU only",
                    });
                }
            }
            params.distinguished_name.push(kind, same_encoding(attribute)?);
        }
        let request = params.serialize_request(key).map_err(failed("make a signing request"))?;
        let csr_pem = x509::to_pem("CERTIFICATE REQUEST", request.der()).into_bytes();
        Ok(CrossSignRequest { csr_pem, subject })
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, PkiError> {
        let key = self.key.as_ref().ok_or(PkiError::NoSigner)?;
        Issuer::from_ca_cert_der(&self.cert, key).map_err(failed("read the issuer"))
    }
}

impl Drop for RootCa {
    fn drop(&mut self) {
        if let Some(key) = &mut self.key {
            key.zeroize();
        }
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa")
            .field("digest", &hash::hex(&self.digest()))
            .field("can_sign", &self.can_sign())
            .finish_non_exhaustive()
    }
}

/// What an authority is asked that is to sign another root.
#[derive(Clone, Debug)]
pub struct CrossSignRequest {
    /// The signing request, PEM.
    pub csr_pem: Vec<u8>,
    /// The root's subject.
    pub subject: RootName,
}

/// A root's subject, as far as signing requests can tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootName {
    /// The common name.
    pub common_name: String,
    /// The organizations.
    pub organizations: Vec<String>,
    /// The organizational units.
    pub units: Vec<String>,
}

/// The certificates of a PEM text without anything around them, so that texts with the same
/// certificates are equal.
///
/// # Errors
/// [`PkiError::Pem`].
pub fn normalize(bundle_pem: &[u8]) -> Result<Vec<u8>, PkiError> {
    let certificates = x509::certificates(bundle_pem)?;
    let text: String = certificates.iter().map(|der| x509::to_pem(CERTIFICATE_TAG, der)).collect();
    Ok(text.into_bytes())
}

/// Checks a downloaded root bundle: every certificate is a self-signed root that is valid now.
///
/// # Errors
/// [`PkiError::Pem`], [`PkiError::Certificate`], [`PkiError::NotValidNow`].
pub fn check_bundle(bundle_pem: &[u8]) -> Result<(), PkiError> {
    x509::certificates(bundle_pem)?.iter().try_for_each(|cert| check_root(cert))
}

fn check_root(der: &[u8]) -> Result<(), PkiError> {
    let cert = x509::parse(der)?;
    if !x509::is_signed_by(&cert, der) {
        return Err(PkiError::Certificate { reason: "not a self-signed root" });
    }
    if !cert.is_ca() {
        return Err(PkiError::Certificate { reason: "not a certificate authority" });
    }
    if !cert.validity().is_valid() {
        return Err(PkiError::NotValidNow { subject: cert.subject().to_string() });
    }
    Ok(())
}

fn signing_key(pem: &SecretBytes, cert: &[u8]) -> Result<KeyPair, PkiError> {
    let der = x509::private_key(pem)?;
    let key = KeyPair::try_from(der.expose_secret())
        .map_err(|_| PkiError::PrivateKey { reason: "not a usable signing key" })?;
    if key.subject_public_key_info() != x509::parse(cert)?.public_key().raw {
        return Err(PkiError::KeyMismatch);
    }
    Ok(key)
}

/// The public key of a signing request whose signature was checked.
pub(crate) fn requested_key(csr_pem: &[u8]) -> Result<SubjectPublicKeyInfo, PkiError> {
    let der = x509::single_block(csr_pem, "CERTIFICATE REQUEST")?;
    let request = match X509CertificationRequest::from_der(&der) {
        Ok(([], request)) if x509::is_exact(&der, &request) => request,
        _ => return Err(PkiError::Csr { reason: "not PKCS#10 DER" }),
    };
    let key = &request.certification_request_info.subject_pki;
    match key.parsed() {
        Ok(PublicKey::EC(_)) => {}
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= MIN_RSA_BITS => {}
        _ => return Err(PkiError::Csr { reason: "keys must be ECDSA or RSA of 2048 bits" }),
    }
    if !x509::is_signed_by_its_key(&request) {
        return Err(PkiError::Csr { reason: "the signature does not verify" });
    }
    SubjectPublicKeyInfo::from_der(key.raw)
        .map_err(|_| PkiError::Csr { reason: "unknown kind of key" })
}

/// Parameters that promise nothing: the library's defaults are valid for two thousand years.
pub(crate) fn blank_params() -> Result<CertificateParams, PkiError> {
    let mut serial: [u8; SERIAL_LEN] = random::bytes()?;
    if let Some(first) = serial.first_mut() {
        // Positive and of full length.
        *first = (*first & 0x7f) | 0x40;
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = OffsetDateTime::UNIX_EPOCH;
    Ok(params)
}

fn printable(text: &str) -> Result<DnValue, PkiError> {
    text.try_into().map(DnValue::PrintableString).map_err(failed("write a name"))
}

/// A name's value in the string type it already has: names are compared byte by byte.
fn same_encoding(
    attribute: &x509_parser::x509::AttributeTypeAndValue<'_>,
) -> Result<DnValue, PkiError> {
    use x509_parser::der_parser::asn1_rs::Tag;
    let text =
        attribute.as_str().map_err(|_| PkiError::Certificate { reason: "subject is not text" })?;
    match attribute.attr_value().header.tag() {
        Tag::PrintableString => printable(text),
        Tag::Utf8String => Ok(DnValue::Utf8String(text.to_owned())),
        Tag::Ia5String => text.try_into().map(DnValue::Ia5String).map_err(failed("write a name")),
        _ => Err(PkiError::Certificate { reason: "subject uses an old string type" }),
    }
}

fn subject_key_id(cert: &x509_parser::certificate::X509Certificate<'_>) -> Option<Vec<u8>> {
    cert.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn round_to_minute(moment: OffsetDateTime) -> OffsetDateTime {
    let rounded = moment.unix_timestamp().saturating_add(30).div_euclid(60) * 60;
    OffsetDateTime::from_unix_timestamp(rounded).unwrap_or(moment)
}

pub(crate) fn failed(step: &'static str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Issue { step, source }
}

#[cfg(test)]
mod tests;
