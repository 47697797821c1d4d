//! Certificates of the replicated store. Its authority is another one than that of the nodes: no
//! worker holds anything that opens it.

use std::net::IpAddr;
use std::time::Duration;

use brig_types::secret::SecretBytes;
use rcgen::{
    BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::{
    CERTIFICATE_TAG, NODE_BACKDATE, ROOT_BACKDATE, ROOT_LIFETIME, RootCa, blank_params, failed,
    printable, requested_key,
};
use crate::{PkiError, x509};

/// Common name of the store's authority.
const STORE_COMMON_NAME: &str = "brig-store-ca";
/// Common name of its members, which other members ask for.
pub const STORE_MEMBER_NAME: &str = "brig-manager";
/// Common name of its clients.
const STORE_CLIENT_NAME: &str = "brig-client";
/// How long both are good for. They are issued anew when half of that is gone.
pub const STORE_EXPIRY: Duration = Duration::from_secs(365 * 24 * 3600);

impl RootCa {
    /// Makes the authority of a replicated store.
    ///
    /// # Errors
    /// [`PkiError::Issue`], [`PkiError::Random`].
    pub fn generate_for_store() -> Result<Self, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate a key"))?;
        let mut params = blank_params()?;
        params.distinguished_name.push(DnType::CommonName, printable(STORE_COMMON_NAME)?);
        params.not_before = OffsetDateTime::now_utc() - ROOT_BACKDATE;
        params.not_after = params.not_before + ROOT_LIFETIME;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(failed("sign the root certificate"))?;
        let cert = cert.der().clone();
        let cert_pem = x509::to_pem(CERTIFICATE_TAG, &cert).into_bytes();
        Ok(Self { cert_pem, cert, key: Some(key) })
    }

    /// Reads certificate and key from one text.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`], [`PkiError::PrivateKey`].
    pub fn from_bundle(pem_text: &SecretBytes) -> Result<Self, PkiError> {
        let cert = x509::certificates(pem_text.expose_secret())?
            .into_iter()
            .next()
            .ok_or(PkiError::Pem { expected: "certificate" })?;
        let key = pem::parse_many(pem_text.expose_secret())
            .map_err(|_| PkiError::Pem { expected: "private key" })?
            .into_iter()
            .find(|block| block.tag() == "PRIVATE KEY")
            .ok_or(PkiError::Pem { expected: "private key" })?;
        let key = SecretBytes::new(pem::encode(&key).into_bytes());
        Self::from_pem(x509::to_pem(CERTIFICATE_TAG, &cert).as_bytes(), Some(&key))
    }

    /// The certificate of a member of the store, which serves clients and speaks with other
    /// members from these addresses.
    ///
    /// # Errors
    /// [`PkiError::NoSigner`], [`PkiError::Csr`], [`PkiError::Issue`].
    pub fn issue_store_member(
        &self,
        csr_pem: &[u8],
        addresses: &[IpAddr],
        expiry: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        self.issue_for_store(csr_pem, STORE_MEMBER_NAME, addresses, expiry)
    }

    /// The certificate that a manager opens the store with.
    ///
    /// # Errors
    /// [`PkiError::NoSigner`], [`PkiError::Csr`], [`PkiError::Issue`].
    pub fn issue_store_client(
        &self,
        csr_pem: &[u8],
        expiry: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        self.issue_for_store(csr_pem, STORE_CLIENT_NAME, &[], expiry)
    }

    fn issue_for_store(
        &self,
        csr_pem: &[u8],
        name: &str,
        addresses: &[IpAddr],
        expiry: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        let public_key = requested_key(csr_pem)?;
        let issuer = self.issuer()?;
        let mut params = blank_params()?;
        params.distinguished_name.push(DnType::CommonName, printable(name)?);
        // etcd holds a client's address against names in its certificate: clients have none.
        params.subject_alt_names = addresses.iter().map(|ip| SanType::IpAddress(*ip)).collect();
        params.not_before = OffsetDateTime::now_utc() - NODE_BACKDATE;
        params.not_after = params.not_before + NODE_BACKDATE + expiry;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !addresses.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&public_key, &issuer).map_err(failed("sign a certificate"))?;
        Ok(x509::to_pem(CERTIFICATE_TAG, leaf.der()).into_bytes())
    }
}
