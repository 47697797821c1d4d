//! A node's own key and the signing request that proves possession of it.

use std::fmt;

use brig_types::secret::SecretBytes;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use zeroize::Zeroize as _;

use crate::{PkiError, x509};

const PKCS8_TAG: &str = "PRIVATE KEY";

/// A P-256 key pair of a node. A new one is made for every certificate.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    /// [`PkiError::Issue`] when the generator refuses.
    pub fn generate() -> Result<Self, PkiError> {
        KeyPair::generate()
            .map(Self)
            .map_err(|source| PkiError::Issue { step: "generate a key", source })
    }

    /// Reads PKCS#8 (`PRIVATE KEY`) in PEM; headers are ignored.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::PrivateKey`].
    pub fn from_pem(pem_text: &[u8]) -> Result<Self, PkiError> {
        let der = SecretBytes::new(x509::single_block(pem_text, PKCS8_TAG)?);
        Self::from_der(&der)
    }

    pub(crate) fn from_der(der: &SecretBytes) -> Result<Self, PkiError> {
        KeyPair::try_from(der.expose_secret())
            .map(Self)
            .map_err(|_| PkiError::PrivateKey { reason: "not a usable PKCS#8 key" })
    }

    /// PKCS#8 in PEM.
    #[must_use]
    pub fn key_pem(&self) -> SecretBytes {
        SecretBytes::new(x509::to_pem(PKCS8_TAG, self.0.serialized_der()).into_bytes())
    }

    pub(crate) fn key_der(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The public key as SubjectPublicKeyInfo DER.
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A signing request without subject and extensions: the authority decides those.
    ///
    /// # Errors
    /// [`PkiError::Issue`].
    pub fn csr_pem(&self) -> Result<Vec<u8>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .serialize_request(&self.0)
            .map(|request| x509::to_pem("CERTIFICATE REQUEST", request.der()).into_bytes())
            .map_err(|source| PkiError::Issue {
                step: "make a certificate signing request",
                source,
            })
    }
}

impl Drop for NodeKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(..)")
    }
}
