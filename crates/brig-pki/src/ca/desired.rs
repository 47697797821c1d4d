//! Roots that somebody else made and a cluster is to take over.

use std::time::Duration;

use brig_types::secret::SecretBytes;
use time::OffsetDateTime;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
};
use x509_parser::public_key::PublicKey;

use super::{CERTIFICATE_TAG, MIN_RSA_BITS, RootCa};
use crate::{PkiError, x509};

/// How much longer a root has to be valid to be worth a rotation.
pub const MIN_ROOT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

const EC_BITS: [usize; 3] = [256, 384, 521];

impl RootCa {
    /// Takes a root over that a cluster is to have: exactly one certificate that every node of
    /// the protocol accepts, written anew without anything around it, and its key if this cluster
    /// is to sign with it.
    ///
    /// # Errors
    /// [`PkiError::UnfitRoot`], and those of [`RootCa::from_pem`].
    pub fn desired(cert_pem: &[u8], key_pem: Option<&SecretBytes>) -> Result<Self, PkiError> {
        let certificates = x509::certificates(cert_pem)?;
        let [der] = certificates.as_slice() else {
            return Err(PkiError::UnfitRoot(
                "the desired CA certificate cannot contain multiple certificates",
            ));
        };
        let certificate = x509::parse(der)?;
        let algorithms = [
            OID_PKCS1_SHA256WITHRSA,
            OID_PKCS1_SHA384WITHRSA,
            OID_PKCS1_SHA512WITHRSA,
            OID_SIG_ECDSA_WITH_SHA256,
            OID_SIG_ECDSA_WITH_SHA384,
            OID_SIG_ECDSA_WITH_SHA512,
        ];
        if !algorithms.contains(certificate.signature_algorithm.oid()) {
            return Err(PkiError::UnfitRoot(
                "the CA certificate has to be signed with RSA or ECDSA and SHA-256, SHA-384 or SHA-512",
            ));
        }
        match certificate.public_key().parsed() {
            Ok(PublicKey::EC(point)) if EC_BITS.contains(&curve_bits(point.key_size())) => {}
            Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= MIN_RSA_BITS => {}
            Ok(PublicKey::RSA(_)) => {
                return Err(PkiError::UnfitRoot(
                    "RSA key parameters are too small: bits must be at least 2048",
                ));
            }
            _ => {
                return Err(PkiError::UnfitRoot(
                    "the CA's key has to be RSA, or ECDSA on P-256, P-384 or P-521",
                ));
            }
        }
        let end = certificate.validity().not_after.to_datetime();
        if end < OffsetDateTime::now_utc() + MIN_ROOT_LIFETIME {
            return Err(PkiError::UnfitRoot("CA certificate expires too soon"));
        }
        Self::from_pem(x509::to_pem(CERTIFICATE_TAG, der).as_bytes(), key_pem)
    }

    /// Whether a PEM text holds just this root.
    #[must_use]
    pub fn is(&self, cert_pem: &[u8]) -> bool {
        x509::certificates(cert_pem).is_ok_and(|found| found == [self.cert.clone()])
    }
}

/// Sizes are counted in whole bytes, and P-521 is not.
const fn curve_bits(counted: usize) -> usize {
    if counted == 528 { 521 } else { counted }
}
