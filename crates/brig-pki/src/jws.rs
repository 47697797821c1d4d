//! Signatures of JSON web tokens: which keys count, and whether one of them signed.
//!
//! A token says by which key it was signed in one of three ways: a chain of certificates, the key
//! itself, or the key's name. Whichever it is, the key has to be one that a configured certificate
//! vouches for; what stands in the token only says which.

use std::time::Duration;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use crate::{PkiError, hash, x509};

/// Certificates that a token may carry.
pub const MAX_CHAIN: usize = 8;
/// Bytes of the hash that the name of a key is made of.
const KEY_NAME_LEN: usize = 30;
/// Letters between two colons of a name.
const KEY_NAME_GROUP: usize = 4;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// How a token was signed. There is no "not at all", and no shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// P-256 with SHA-256.
    Es256,
    /// P-384 with SHA-384.
    Es384,
    /// P-521 with SHA-512.
    Es512,
}

impl JwsAlgorithm {
    /// By its name in a token.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }

    /// Bytes of the curve's point; `None` for RSA.
    const fn point_len(self) -> Option<usize> {
        match self {
            Self::Es256 => Some(65),
            Self::Es384 => Some(97),
            Self::Es512 => Some(133),
            Self::Rs256 | Self::Rs384 | Self::Rs512 => None,
        }
    }
}

/// A key that a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedKey<'a> {
    /// By its name: docker's fingerprint of the public key.
    Name(&'a str),
    /// By a chain of certificates in DER, the signer's first.
    Chain(&'a [Vec<u8>]),
    /// By the coordinates of its point.
    Point {
        /// The first.
        x: &'a [u8],
        /// The second.
        y: &'a [u8],
    },
    /// By the numbers of an RSA key, big endian.
    Rsa {
        /// The modulus.
        n: &'a [u8],
        /// The exponent.
        e: &'a [u8],
    },
}

/// The certificates whose keys count, and those that they vouch for.
#[derive(Debug)]
pub struct TokenTrust {
    certificates: Vec<Trusted>,
}

#[derive(Debug)]
struct Trusted {
    der: CertificateDer<'static>,
    key: Key,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Point(Vec<u8>),
    Rsa { der: Vec<u8>, n: Vec<u8>, e: Vec<u8> },
}

impl TokenTrust {
    /// Takes the certificates of a bundle, PEM.
    ///
    /// # Errors
    /// [`PkiError::Pem`], [`PkiError::Certificate`] for one with a key of another kind.
    pub fn from_bundle(pem: &[u8]) -> Result<Self, PkiError> {
        let trusted = |der: CertificateDer<'static>| {
            let (key, name) = {
                let certificate = x509::parse(&der)?;
                (Key::of(&certificate)?, key_name(certificate.public_key().raw))
            };
            Ok(Trusted { der, key, name })
        };
        let certificates = x509::certificates(pem)?.into_iter().map(trusted);
        Ok(Self { certificates: certificates.collect::<Result<_, PkiError>>()? })
    }

    /// Whether the key that is named counts and made this signature. A certificate's validity is
    /// held against `now`.
    #[must_use]
    pub fn verifies(
        &self,
        algorithm: JwsAlgorithm,
        named: &NamedKey<'_>,
        message: &[u8],
        signature: &[u8],
        now: OffsetDateTime,
    ) -> bool {
        let Some(key) = self.key(named, now) else { return false };
        let bytes = match (&key, algorithm.point_len()) {
            (Key::Point(point), Some(len)) if point.len() == len => point,
            (Key::Rsa { der, .. }, None) => der,
            _ => return false,
        };
        UnparsedPublicKey::new(algorithm.verification(), bytes).verify(message, signature).is_ok()
    }

    fn key(&self, named: &NamedKey<'_>, now: OffsetDateTime) -> Option<Key> {
        let found = match named {
            NamedKey::Chain(chain) => return self.key_of_chain(chain, now),
            NamedKey::Name(name) => self.certificates.iter().find(|trusted| trusted.name == *name),
            NamedKey::Point { x, y } => self.certificates.iter().find(|trusted| {
                matches!(&trusted.key, Key::Point(point)
                    if point.split_first().is_some_and(|(form, rest)| *form == 4
                        && x.len() == y.len()
                        && rest.split_at_checked(x.len()) == Some((*x, *y))))
            }),
            NamedKey::Rsa { n, e } => self.certificates.iter().find(|trusted| {
                matches!(&trusted.key, Key::Rsa { n: ours, e: exponent, .. }
                    if ours == trim(n) && exponent == trim(e))
            }),
        }?;
        // A name stands for a certificate, whose time may be over.
        is_valid(&found.der, now).then(|| found.key.clone())
    }

    /// The key of a chain's first certificate, if that is one of ours or leads to one.
    fn key_of_chain(&self, chain: &[Vec<u8>], now: OffsetDateTime) -> Option<Key> {
        if chain.len() > MAX_CHAIN {
            return None;
        }
        let (leaf, others) = chain.split_first()?;
        let leaf = CertificateDer::from(leaf.as_slice());
        if !is_valid(&leaf, now) {
            return None;
        }
        let key = x509::parse(&leaf).and_then(|certificate| Key::of(&certificate)).ok()?;
        if self.certificates.iter().any(|trusted| trusted.der == leaf) {
            return Some(key);
        }
        let others: Vec<_> =
            others.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let anchors: Vec<_> = self
            .certificates
            .iter()
            .filter_map(|trusted| anchor_from_trusted_cert(&trusted.der).ok())
            .collect();
        let end = EndEntityCert::try_from(&leaf).ok()?;
        let seconds = u64::try_from(now.unix_timestamp()).ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        // What the certificate may be used for besides is no matter: the bundle's owner chose it
        // for this.
        [KeyUsage::client_auth(), KeyUsage::server_auth()]
            .into_iter()
            .any(|usage| {
                let algorithms = webpki::ALL_VERIFICATION_ALGS;
                end.verify_for_usage(algorithms, &anchors, &others, at, usage, None, None).is_ok()
            })
            .then_some(key)
    }
}

impl Key {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, PkiError> {
        const KIND: PkiError = PkiError::Certificate { reason: "its key is neither ECDSA nor RSA" };
        let info = certificate.public_key();
        match info.parsed().map_err(|_| KIND)? {
            PublicKey::EC(point) => Ok(Self::Point(point.data().to_vec())),
            PublicKey::RSA(key) => Ok(Self::Rsa {
                der: info.subject_public_key.data.to_vec(),
                n: trim(key.modulus).to_vec(),
                e: trim(key.exponent).to_vec(),
            }),
            _ => Err(KIND),
        }
    }
}

/// A number without zeros before it.
fn trim(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

fn is_valid(der: &CertificateDer<'_>, now: OffsetDateTime) -> bool {
    x509::parse(der).is_ok_and(|certificate| {
        let validity = certificate.validity();
        (validity.not_before.to_datetime()..=validity.not_after.to_datetime()).contains(&now)
    })
}

/// Docker's name of a public key: the first 30 bytes of its SHA-256 in base 32, by fours.
fn key_name(spki: &[u8]) -> String {
    let digest = hash::sha256(spki);
    let mut name = String::with_capacity(60);
    let (mut bits, mut left, mut letters) = (0_u32, 0_u32, 0_usize);
    for byte in digest.iter().take(KEY_NAME_LEN) {
        bits = (bits << 8) | u32::from(*byte);
        left += 8;
        while left >= 5 {
            left -= 5;
            if letters > 0 && letters.is_multiple_of(KEY_NAME_GROUP) {
                name.push(':');
            }
            let index = (bits >> left) & 31;
            name.extend(BASE32.get(index as usize).map(|letter| char::from(*letter)));
            letters += 1;
        }
        bits &= (1 << left) - 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Signer {
        der: Vec<u8>,
        pem: String,
        key: EcdsaKeyPair,
    }

    fn key() -> (KeyPair, EcdsaKeyPair) {
        let made = KeyPair::generate().unwrap();
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &made.serialize_der()).unwrap();
        (made, key)
    }

    fn own(is_ca: IsCa) -> (Signer, CertificateParams, KeyPair) {
        let (made, key) = key();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = is_ca;
        params.not_after = OffsetDateTime::now_utc() + DAY;
        let certificate = params.self_signed(&made).unwrap();
        let signer = Signer { der: certificate.der().to_vec(), pem: certificate.pem(), key };
        (signer, params, made)
    }

    fn sign(signer: &Signer, message: &[u8]) -> Vec<u8> {
        signer.key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    #[test]
    fn each_way_of_naming_the_key_leads_to_a_trusted_one_only() {
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (signer, ..) = own(ca);
        let (stranger, ..) = own(IsCa::NoCa);
        let trust = TokenTrust::from_bundle(signer.pem.as_bytes()).unwrap();
        let now = OffsetDateTime::now_utc();
        for who in [&signer, &stranger] {
            let good = who.der == signer.der;
            let signature = sign(who, b"message");
            let point = who.key.public_key().as_ref();
            let (x, y) = point[1..].split_at(32);
            let certificate = x509::parse(&who.der).unwrap();
            let name = key_name(certificate.public_key().raw);
            assert_eq!(name.split(':').count(), 12);
            let chain = [who.der.clone()];
            for named in [NamedKey::Name(&name), NamedKey::Chain(&chain), NamedKey::Point { x, y }]
            {
                let check = |message: &[u8], algorithm| {
                    trust.verifies(algorithm, &named, message, &signature, now)
                };
                assert_eq!(check(b"message", JwsAlgorithm::Es256), good, "{named:?}");
                assert!(!check(b"massage", JwsAlgorithm::Es256));
                assert!(!check(b"message", JwsAlgorithm::Es384));
                assert!(!check(b"message", JwsAlgorithm::Rs256));
                let later = now + 2 * DAY;
                assert!(!trust.verifies(
                    JwsAlgorithm::Es256,
                    &named,
                    b"message",
                    &signature,
                    later
                ));
            }
        }
        // Trusted certificate in front, signature by somebody else.
        let chain = [signer.der.clone(), stranger.der.clone()];
        let signature = sign(&stranger, b"message");
        let named = NamedKey::Chain(&chain);
        assert!(!trust.verifies(JwsAlgorithm::Es256, &named, b"message", &signature, now));
    }

    #[test]
    fn a_chain_must_lead_to_the_bundle() {
        let (root, params, root_key) = own(IsCa::Ca(BasicConstraints::Unconstrained));
        let (made, key) = key();
        let leaf = CertificateParams::new(vec!["token".to_owned()])
            .unwrap()
            .signed_by(&made, &Issuer::from_params(&params, &root_key))
            .unwrap();
        let signer = Signer { der: leaf.der().to_vec(), pem: leaf.pem(), key };
        let signature = sign(&signer, b"message");
        let now = OffsetDateTime::now_utc();
        let chain = [signer.der.clone()];
        let named = NamedKey::Chain(&chain);
        let trust = TokenTrust::from_bundle(root.pem.as_bytes()).unwrap();
        assert!(trust.verifies(JwsAlgorithm::Es256, &named, b"message", &signature, now));
        let (other, ..) = own(IsCa::Ca(BasicConstraints::Unconstrained));
        let trust = TokenTrust::from_bundle(other.pem.as_bytes()).unwrap();
        assert!(!trust.verifies(JwsAlgorithm::Es256, &named, b"message", &signature, now));
    }

    #[test]
    fn only_signatures_by_key_pairs_are_known() {
        for name in ["none", "HS256", "hs256", "", "PS256"] {
            assert_eq!(JwsAlgorithm::parse(name), None);
        }
    }
}
