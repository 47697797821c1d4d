//! The certificates that content trust's root keys are wrapped in.
//!
//! Nothing trusts them because of who signed them: the name ties a key to a repository, the
//! dates end it.

use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::SigningKey;
use crate::{PkiError, random, x509};

/// Ten years of 365 days.
const LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
const SERIAL_LEN: usize = 16;
/// Object identifiers of signature algorithms that use SHA-1 or worse.
const WEAK: [&str; 5] = [
    "1.2.840.113549.1.1.2",
    "1.2.840.113549.1.1.4",
    "1.2.840.113549.1.1.5",
    "1.2.840.10045.4.1",
    "1.2.840.10040.4.3",
];
/// Code signing, as a key purpose's object identifier in DER without tag and length.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// A leaf certificate's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherCertificate {
    /// The subject's common name: the repository, or its beginning and `*`.
    pub common_name: String,
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// Whether the certificate's own signature uses a broken hash.
    pub weak_signature: bool,
    /// The public key as SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
}

impl PublisherCertificate {
    /// Makes a self-signed certificate for `name`, valid for ten years; PEM.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] for a key that certificates cannot have, [`PkiError::Issue`].
    pub fn issue(name: &str, key: &SigningKey, now: OffsetDateTime) -> Result<String, PkiError> {
        let failed = |source| PkiError::Issue { step: "make the root key's certificate", source };
        let pkcs8 = key.to_pkcs8()?;
        let pair = KeyPair::try_from(pkcs8.expose_secret())
            .map_err(|_| PkiError::PrivateKey { reason: "not one for certificates" })?;
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned()));
        let mut serial = random::bytes::<SERIAL_LEN>()?;
        serial[0] &= 0x7f;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = now;
        params.not_after = now + LIFETIME;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let certificate = params.self_signed(&pair).map_err(failed)?;
        Ok(x509::to_pem("CERTIFICATE", certificate.der()))
    }

    /// Reads a bundle: exactly one certificate that is not an authority's, and it comes first.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`].
    pub fn from_bundle(pem_text: &[u8]) -> Result<Self, PkiError> {
        let broken = |reason| PkiError::Certificate { reason };
        let all = x509::certificates(pem_text)?;
        let mut leaf = None;
        for (at, der) in all.iter().enumerate() {
            let certificate = x509::parse(der)?;
            if certificate.is_ca() {
                continue;
            }
            if at != 0 || leaf.is_some() {
                return Err(broken("the bundle must begin with its only leaf"));
            }
            let common_name = certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned();
            let validity = certificate.validity();
            let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
            leaf = Some(Self {
                common_name,
                not_before: validity.not_before.to_datetime(),
                not_after: validity.not_after.to_datetime(),
                weak_signature: WEAK.contains(&algorithm.as_str()),
                spki: certificate.public_key().raw.to_vec(),
            });
        }
        leaf.ok_or(broken("a bundle without a leaf"))
    }
}

/// Whether a bundle's leaf leads to one of these authorities (PEM) by way of the others in it.
///
/// # Errors
/// [`PkiError::Pem`], [`PkiError::Certificate`].
pub fn certificate_chains_to(
    bundle_pem: &[u8],
    authorities_pem: &[u8],
    now: OffsetDateTime,
) -> Result<bool, PkiError> {
    let bundle = x509::certificates(bundle_pem)?;
    let authorities = x509::certificates(authorities_pem)?;
    let anchors: Vec<_> =
        authorities.iter().filter_map(|der| anchor_from_trusted_cert(der).ok()).collect();
    let Some((leaf, intermediates)) = bundle.split_first() else {
        return Ok(false);
    };
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|_| PkiError::Certificate { reason: "not X.509 DER" })?;
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let intermediates: Vec<CertificateDer<'_>> = intermediates.to_vec();
    Ok(leaf
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::required_if_present(CODE_SIGNING),
            None,
            None,
        )
        .is_ok())
}

/// The public key of a bundle's first certificate, SubjectPublicKeyInfo in DER.
///
/// Whether it is an authority's does not matter here: signers wrap their keys in whatever
/// certificate they have.
///
/// # Errors
/// [`PkiError::Pem`], [`PkiError::Certificate`].
pub fn certificate_key(pem_text: &[u8]) -> Result<Vec<u8>, PkiError> {
    let all = x509::certificates(pem_text)?;
    let first = all.first().ok_or(PkiError::Pem { expected: "certificate" })?;
    Ok(x509::parse(first)?.public_key().raw.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::RootCa;
    use crate::signing::Curve;

    #[test]
    fn a_root_keys_certificate() {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        let name = format!("registry.example:5000/{}", "long/".repeat(20));
        for key in [
            SigningKey::generate(Curve::P256).unwrap(),
            SigningKey::generate(Curve::P384).unwrap(),
            SigningKey::generate_rsa().unwrap(),
        ] {
            let pem = PublisherCertificate::issue(&name, &key, now).unwrap();
            let read = PublisherCertificate::from_bundle(pem.as_bytes()).unwrap();
            assert_eq!(read.common_name, name);
            assert_eq!((read.not_before, read.not_after), (now, now + LIFETIME));
            assert_eq!(read.spki, key.public().unwrap());
            assert!(!read.weak_signature);
            let twice = format!("{pem}{pem}");
            assert!(PublisherCertificate::from_bundle(twice.as_bytes()).is_err());
            let root = RootCa::generate().unwrap();
            assert!(!certificate_chains_to(pem.as_bytes(), root.cert_pem(), now).unwrap());
            assert!(PublisherCertificate::from_bundle(root.cert_pem()).is_err());
        }
    }
}
