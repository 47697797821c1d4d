//! The authority of those who reach an engine from elsewhere: its clients, and the ports that have
//! no certificate of an operator's. Neither the cluster's nodes nor its store trust it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use brig_types::secret::SecretBytes;
use rcgen::{
    BasicConstraints, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use time::OffsetDateTime;

use crate::ca::{CERTIFICATE_TAG, RootCa, blank_params, failed, requested_key};
use crate::csr::NodeKey;
use crate::hash::{SHA256_LEN, sha256};
use crate::identity::CertInfo;
use crate::{PkiError, random, x509};

/// Organization in every certificate of the authority.
const ORGANIZATION: &str = "brig access";
/// Lifetime of the authority's own certificate.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far in the past validity starts, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Bytes of an authority's random name.
const NAME_LEN: usize = 4;

/// The authority, with its key.
pub struct AccessCa(RootCa);

/// A certificate that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub chain_pem: Vec<u8>,
    /// SHA-256 of its DER.
    pub fingerprint: [u8; SHA256_LEN],
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
}

impl AccessCa {
    /// A new authority: P-256, self-signed, ten years, with a name that no other one has.
    ///
    /// # Errors
    /// [`PkiError::Issue`], [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let name: [u8; NAME_LEN] = random::bytes()?;
        let now = OffsetDateTime::now_utc();
        let mut params = blank_params()?;
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        let name = format!("brig-access-ca {}", hex::encode(name));
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now - BACKDATE;
        params.not_after = now + CA_LIFETIME;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(failed("sign the access authority"))?;
        let cert_pem = x509::to_pem(CERTIFICATE_TAG, cert.der());
        let key_pem = SecretBytes::new(key.serialize_pem().into_bytes());
        Self::from_pem(cert_pem.as_bytes(), &key_pem)
    }

    /// The authority as it was kept.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`], [`PkiError::PrivateKey`],
    /// [`PkiError::KeyMismatch`], [`PkiError::NotValidNow`].
    pub fn from_pem(cert_pem: &[u8], key_pem: &SecretBytes) -> Result<Self, PkiError> {
        RootCa::from_pem(cert_pem, Some(key_pem)).map(Self)
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &[u8] {
        self.0.cert_pem()
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> SecretBytes {
        self.0.key_pem().unwrap_or_else(|| SecretBytes::new(Vec::new()))
    }

    /// A client's certificate; from the request only the public key is taken. The role stands in
    /// it for people to read: what counts is what the register says.
    ///
    /// # Errors
    /// [`PkiError::Csr`], [`PkiError::Issue`].
    pub fn issue_client(
        &self,
        csr_pem: &[u8],
        name: &str,
        role: &str,
        lifetime: Duration,
    ) -> Result<Issued, PkiError> {
        let key = requested_key(csr_pem)?;
        let subject = [
            (DnType::OrganizationName, ORGANIZATION),
            (DnType::OrganizationalUnitName, role),
            (DnType::CommonName, name),
        ];
        self.issue(&key, &subject, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, lifetime)
    }

    /// A port's certificate with a key of its own, for these names and addresses.
    ///
    /// # Errors
    /// [`PkiError::Issue`], also for names that cannot stand in a certificate.
    pub fn issue_server(
        &self,
        common_name: &str,
        names: &[String],
        lifetime: Duration,
    ) -> Result<(Issued, SecretBytes), PkiError> {
        let key = NodeKey::generate()?;
        let names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => Ok(SanType::IpAddress(address)),
                Err(_) => name.as_str().try_into().map(SanType::DnsName),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed("write the names"))?;
        let subject = [(DnType::OrganizationName, ORGANIZATION), (DnType::CommonName, common_name)];
        let public = requested_key(&key.csr_pem()?)?;
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        Ok((self.issue(&public, &subject, names, usage, lifetime)?, key.key_pem()))
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        subject: &[(DnType, &str)],
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        lifetime: Duration,
    ) -> Result<Issued, PkiError> {
        let issuer = self.0.issuer()?;
        let mut params = blank_params()?;
        for (kind, value) in subject {
            let value = DnValue::Utf8String((*value).to_owned());
            params.distinguished_name.push(kind.clone(), value);
        }
        // X.509 knows whole seconds.
        let now = OffsetDateTime::now_utc();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        params.subject_alt_names = names;
        params.not_before = now - BACKDATE;
        params.not_after = now + lifetime;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let (not_before, not_after) = (params.not_before, params.not_after);
        let leaf = params.signed_by(key, &issuer).map_err(failed("sign a certificate"))?;
        Ok(Issued {
            chain_pem: x509::to_pem(CERTIFICATE_TAG, leaf.der()).into_bytes(),
            fingerprint: sha256(leaf.der()),
            not_before,
            not_after,
        })
    }
}

impl fmt::Debug for AccessCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessCa(..)")
    }
}

/// Checks what a daemon issued: a certificate for this key that is valid now.
///
/// # Errors
/// [`PkiError::Pem`], [`PkiError::Certificate`], [`PkiError::KeyMismatch`],
/// [`PkiError::NotValidNow`].
pub fn check_issued(chain_pem: &[u8], key: &NodeKey) -> Result<CertInfo, PkiError> {
    let info = CertInfo::from_pem(chain_pem)?;
    if !info.is_for(key) {
        return Err(PkiError::KeyMismatch);
    }
    if !info.is_valid_at(OffsetDateTime::now_utc()) {
        return Err(PkiError::NotValidNow { subject: info.subject });
    }
    Ok(info)
}

/// The names and addresses that a certificate is for.
///
/// # Errors
/// [`PkiError::Pem`], [`PkiError::Certificate`].
pub fn names_of(cert_pem: &[u8]) -> Result<Vec<String>, PkiError> {
    use x509_parser::extensions::GeneralName;
    let chain = x509::certificates(cert_pem)?;
    let first = chain.first().ok_or(PkiError::Pem { expected: "certificate" })?;
    let certificate = x509::parse(first)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PkiError::Certificate { reason: "its names cannot be read" })?;
    let Some(names) = names else { return Ok(Vec::new()) };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            &[a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_of_a_request_is_taken() {
        let ca = AccessCa::generate().unwrap();
        let key = NodeKey::generate().unwrap();
        let day = Duration::from_secs(86_400);
        let issued = ca.issue_client(&key.csr_pem().unwrap(), "ci_1", "viewer", day).unwrap();
        let info = check_issued(&issued.chain_pem, &key).unwrap();
        assert_eq!(info.subject, "O=brig access, OU=viewer, CN=ci_1");
        assert_eq!(info.not_after, issued.not_after);
        let other = NodeKey::generate().unwrap();
        assert!(matches!(check_issued(&issued.chain_pem, &other), Err(PkiError::KeyMismatch)));
        assert!(ca.issue_client(b"no request", "x", "viewer", day).is_err());
        let kept = AccessCa::from_pem(ca.cert_pem(), &ca.key_pem()).unwrap();
        assert_eq!(kept.cert_pem(), ca.cert_pem());
        let foreign = AccessCa::generate().unwrap();
        assert!(AccessCa::from_pem(ca.cert_pem(), &foreign.key_pem()).is_err());
        assert!(!format!("{ca:?}").contains("KEY"));
    }

    #[test]
    fn a_port_has_its_names() {
        let ca = AccessCa::generate().unwrap();
        let names = ["host.example", "10.0.0.5", "::1"].map(str::to_owned);
        let (issued, _) = ca.issue_server("host", &names, Duration::from_secs(60)).unwrap();
        assert_eq!(names_of(&issued.chain_pem).unwrap(), names);
        let odd = ["h\u{f6}st".to_owned()];
        assert!(ca.issue_server("host", &odd, Duration::from_secs(60)).is_err());
    }
}
