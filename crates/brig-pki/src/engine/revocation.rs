//! Certificates that count no more although their authority signed them.
//!
//! The operator's file is either a list, one certificate a line by the SHA-256 of its DER or by
//! its serial number, or PEM revocation lists as `openssl ca -gencrl` writes them. It is the
//! operator's own file on the operator's own host: signatures and dates of revocation lists are
//! not checked, an outdated one still refuses what it names.

use std::collections::HashSet;

use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::hash::{SHA256_LEN, sha256};
use crate::x509;

/// Longest serial number, in bytes: X.509 has 20, some issuers count the sign.
const MAX_SERIAL: usize = 21;
const CRL: &str = "X509 CRL";

/// A list of revocations that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevocationError {
    /// Neither a list nor PEM.
    #[error("it is neither UTF-8 text nor PEM")]
    Text,
    /// A line that names no certificate.
    #[error(
        "line {0} is neither `sha256:FINGERPRINT` nor `serial:NUMBER`, both in hexadecimal digits \
         (openssl x509 -noout -fingerprint -sha256 -serial -in cert.pem)"
    )]
    Line(usize),
    /// A revocation list that is broken.
    #[error("the revocation list number {0} in it is not valid DER")]
    Crl(usize),
}

/// Revoked certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    fingerprints: HashSet<[u8; SHA256_LEN]>,
    serials: HashSet<Vec<u8>>,
    /// Issuer's name in DER, serial number.
    by_issuer: HashSet<(Vec<u8>, Vec<u8>)>,
}

impl Revocations {
    /// Reads a file's content.
    ///
    /// # Errors
    /// [`RevocationError`]: a list that is not understood refuses to be a list, rather than let
    /// somebody in.
    pub fn parse(content: &[u8]) -> Result<Self, RevocationError> {
        let text = std::str::from_utf8(content).map_err(|_| RevocationError::Text)?;
        if text.contains("-----BEGIN X509 CRL-----") { Self::crls(text) } else { Self::list(text) }
    }

    fn list(text: &str) -> Result<Self, RevocationError> {
        let mut revoked = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let invalid = || RevocationError::Line(index + 1);
            let (kind, value) = line.split_once([':', '=']).ok_or_else(invalid)?;
            let value = digits(value).ok_or_else(invalid)?;
            // As openssl prints them, too: `sha256 Fingerprint=AB:CD`, `serial=01`.
            match kind.trim().to_ascii_lowercase().as_str() {
                "sha256" | "sha256 fingerprint" => {
                    revoked.fingerprints.insert(value.try_into().map_err(|_| invalid())?);
                }
                "serial" if value.len() <= MAX_SERIAL => {
                    revoked.serials.insert(bare(&value).to_vec());
                }
                _ => return Err(invalid()),
            }
        }
        Ok(revoked)
    }

    fn crls(text: &str) -> Result<Self, RevocationError> {
        let mut revoked = Self::default();
        let blocks = pem::parse_many(text).map_err(|_| RevocationError::Text)?;
        for (index, block) in blocks.iter().filter(|block| block.tag() == CRL).enumerate() {
            let broken = |_| RevocationError::Crl(index + 1);
            let (_, crl) = CertificateRevocationList::from_der(block.contents()).map_err(broken)?;
            let issuer = crl.issuer().as_raw().to_vec();
            revoked.by_issuer.extend(
                crl.iter_revoked_certificates()
                    .map(|entry| (issuer.clone(), bare(entry.raw_serial()).to_vec())),
            );
        }
        Ok(revoked)
    }

    /// Whether a certificate is among them. One that cannot be read is.
    #[must_use]
    pub fn contains(&self, der: &[u8]) -> bool {
        if self.fingerprints.contains(&sha256(der)) {
            return true;
        }
        let Ok(certificate) = x509::parse(der) else { return true };
        let serial = bare(certificate.raw_serial());
        self.serials.contains(serial)
            || self.by_issuer.contains(&(certificate.issuer().as_raw().to_vec(), serial.to_vec()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fingerprints.len() + self.serials.len() + self.by_issuer.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A number without leading zeros.
fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Hexadecimal digits, also in pairs with colons between.
fn digits(text: &str) -> Option<Vec<u8>> {
    let mut digits: String = text.trim().chars().filter(|c| *c != ':').collect();
    if digits.len() % 2 == 1 {
        digits.insert(0, '0');
    }
    hex::decode(digits).ok().filter(|bytes| !bytes.is_empty())
}
