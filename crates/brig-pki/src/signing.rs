//! Keys that sign documents: what content trust is made of.
//!
//! ECDSA over the three NIST curves with SHA-256 and fixed-length signatures, RSA-PSS and
//! Ed25519. Elsewhere in the workspace keys belong to certificates; here they stand alone, come
//! in files that people carry about, and sign bytes that are kept for years.

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair,
    KeyPair as _, RsaKeyPair, UnparsedPublicKey,
};
use brig_types::secret::SecretBytes;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::{PkiError, x509};

mod envelope;
mod passbox;
mod publisher;
mod sigstore;

pub use envelope::{decrypt_pkcs8, encrypt_pkcs8};
pub use passbox::{PassBox, ScryptCost};
pub use publisher::{PublisherCertificate, certificate_chains_to, certificate_key};

/// Shortest RSA key that counts.
pub const MIN_RSA_BITS: usize = 2048;
/// Size of an Ed25519 public key.
pub const ED25519_LEN: usize = 32;
/// How much longer a SHA-384 value is than one of SHA-256.
const SHA384_EXTRA: usize = 16;

/// A NIST curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// P-256, what new keys use.
    P256,
    /// P-384.
    P384,
    /// P-521.
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    const fn oid(self) -> &'static str {
        match self {
            Self::P256 => "1.2.840.10045.3.1.7",
            Self::P384 => "1.3.132.0.34",
            Self::P521 => "1.3.132.0.35",
        }
    }

    const fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &signature::ECDSA_P521_SHA256_FIXED_SIGNING,
        }
    }

    const fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA256_FIXED,
        }
    }

    /// The message's SHA-256 value as the library wants it for this curve.
    ///
    /// The library knows P-384 with SHA-384 only. ECDSA takes the value as a number that is
    /// shorter than the curve's order, so zeros before it change nothing.
    fn digest(self, message: &[u8]) -> Result<Digest, PkiError> {
        let value = digest::digest(&digest::SHA256, message);
        if self != Self::P384 {
            return Ok(value);
        }
        let mut padded = vec![0_u8; SHA384_EXTRA];
        padded.extend_from_slice(value.as_ref());
        Digest::import_less_safe(&padded, &digest::SHA384).map_err(|_| PkiError::Random)
    }
}

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// ECDSA over SHA-256; r and s one after the other, each as long as the curve's order.
    EcdsaFixed,
    /// RSA-PSS with SHA-256 and a salt of 32 bytes.
    RsaPss,
    /// RSA PKCS#1 v1.5 with SHA-256. Read, never written.
    RsaPkcs1,
    /// Ed25519.
    Ed25519,
}

/// A key's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA over a curve.
    Ecdsa(Curve),
    /// RSA.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// A public key that signatures are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    /// The curve's point, the RSA key's DER, or the 32 bytes.
    key: Vec<u8>,
}

impl VerifyingKey {
    /// Reads SubjectPublicKeyInfo (DER) of a curve or of RSA.
    ///
    /// # Errors
    /// [`PkiError::PublicKey`].
    pub fn from_spki(der: &[u8]) -> Result<Self, PkiError> {
        let broken = |reason| PkiError::PublicKey { reason };
        let Ok(([], info)) = SubjectPublicKeyInfo::from_der(der) else {
            return Err(broken("not SubjectPublicKeyInfo in DER"));
        };
        match info.parsed().map_err(|_| broken("not readable"))? {
            ParsedKey::EC(point) => {
                let oid = info
                    .algorithm
                    .parameters
                    .as_ref()
                    .and_then(|p| p.as_oid().ok())
                    .ok_or(broken("a curve without a name"))?
                    .to_id_string();
                let curve = Curve::ALL
                    .into_iter()
                    .find(|curve| curve.oid() == oid)
                    .ok_or(broken("a curve other than P-256, P-384 and P-521"))?;
                Ok(Self { algorithm: Algorithm::Ecdsa(curve), key: point.data().to_vec() })
            }
            ParsedKey::RSA(key) => {
                if key.key_size() < MIN_RSA_BITS {
                    return Err(broken("an RSA key of less than 2048 bits"));
                }
                let key = info.subject_public_key.data.to_vec();
                Ok(Self { algorithm: Algorithm::Rsa, key })
            }
            _ => Err(broken("neither ECDSA nor RSA")),
        }
    }

    /// Takes the 32 bytes of an Ed25519 key.
    ///
    /// # Errors
    /// [`PkiError::PublicKey`].
    pub fn from_ed25519(bytes: &[u8]) -> Result<Self, PkiError> {
        if bytes.len() != ED25519_LEN {
            return Err(PkiError::PublicKey { reason: "an Ed25519 key has 32 bytes" });
        }
        Ok(Self { algorithm: Algorithm::Ed25519, key: bytes.to_vec() })
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature was made over the message with this key, in this way.
    #[must_use]
    pub fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        match (self.algorithm, scheme) {
            (Algorithm::Ecdsa(curve), Scheme::EcdsaFixed) => {
                let Ok(digest) = curve.digest(message) else {
                    return false;
                };
                UnparsedPublicKey::new(curve.verification(), &self.key)
                    .verify_digest(&digest, signature)
                    .is_ok()
            }
            (Algorithm::Rsa, Scheme::RsaPss) => {
                UnparsedPublicKey::new(&signature::RSA_PSS_2048_8192_SHA256, &self.key)
                    .verify(message, signature)
                    .is_ok()
            }
            (Algorithm::Rsa, Scheme::RsaPkcs1) => {
                UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, &self.key)
                    .verify(message, signature)
                    .is_ok()
            }
            (Algorithm::Ed25519, Scheme::Ed25519) => {
                UnparsedPublicKey::new(&signature::ED25519, &self.key)
                    .verify(message, signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?})", self.algorithm)
    }
}

/// A private key that signs.
pub struct SigningKey(Pair);

enum Pair {
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

const GENERATE: PkiError = PkiError::PrivateKey { reason: "the library cannot make one" };
const NOT_USABLE: PkiError = PkiError::PrivateKey { reason: "not a usable key" };

impl SigningKey {
    /// A new key on a curve.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the generator refuses.
    pub fn generate(curve: Curve) -> Result<Self, PkiError> {
        let pair = EcdsaKeyPair::generate(curve.signing()).map_err(|_| GENERATE)?;
        Ok(Self(Pair::Ecdsa(curve, pair)))
    }

    /// A new RSA key of 2048 bits.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the generator refuses.
    pub fn generate_rsa() -> Result<Self, PkiError> {
        RsaKeyPair::generate(KeySize::Rsa2048)
            .map(|pair| Self(Pair::Rsa(pair)))
            .map_err(|_| GENERATE)
    }

    /// A new Ed25519 key.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the generator refuses.
    pub fn generate_ed25519() -> Result<Self, PkiError> {
        Ed25519KeyPair::generate().map(|pair| Self(Pair::Ed25519(pair))).map_err(|_| GENERATE)
    }

    /// Reads PKCS#8 (also of version 1 without a public key, as docker writes it), SEC 1 or
    /// PKCS#1, in DER.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`].
    pub fn from_der(der: &SecretBytes) -> Result<Self, PkiError> {
        let der = der.expose_secret();
        for curve in Curve::ALL {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve.signing(), der) {
                return Ok(Self(Pair::Ecdsa(curve, pair)));
            }
        }
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            if pair.public_modulus_len() * 8 < MIN_RSA_BITS {
                return Err(PkiError::PrivateKey { reason: "an RSA key of less than 2048 bits" });
            }
            return Ok(Self(Pair::Rsa(pair)));
        }
        Ed25519KeyPair::from_pkcs8(der)
            .map(|pair| Self(Pair::Ed25519(pair)))
            .map_err(|_| NOT_USABLE)
    }

    /// PKCS#8 of version 0, in DER.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the library cannot write it.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, PkiError> {
        const WRITE: PkiError = PkiError::PrivateKey { reason: "cannot be written" };
        let bytes = match &self.0 {
            Pair::Ecdsa(_, pair) => pair.to_pkcs8v1().map_err(|_| WRITE)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| WRITE)?;
                der.as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(|_| WRITE)?.as_ref().to_vec(),
        };
        Ok(SecretBytes::new(bytes))
    }

    /// Its algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Pair::Ecdsa(curve, _) => Algorithm::Ecdsa(*curve),
            Pair::Rsa(_) => Algorithm::Rsa,
            Pair::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// How its signatures are made.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        match &self.0 {
            Pair::Ecdsa(..) => Scheme::EcdsaFixed,
            Pair::Rsa(_) => Scheme::RsaPss,
            Pair::Ed25519(_) => Scheme::Ed25519,
        }
    }

    /// The public half: SubjectPublicKeyInfo (DER), of Ed25519 the 32 bytes alone.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the library cannot write it.
    pub fn public(&self) -> Result<Vec<u8>, PkiError> {
        const WRITE: PkiError =
            PkiError::PrivateKey { reason: "its public half cannot be written" };
        let der: PublicKeyX509Der<'_> = match &self.0 {
            Pair::Ecdsa(_, pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => return Ok(pair.public_key().as_ref().to_vec()),
        }
        .map_err(|_| WRITE)?;
        Ok(der.as_ref().to_vec())
    }

    /// Signs a message.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`] when the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        const SIGN: PkiError = PkiError::PrivateKey { reason: "signing failed" };
        match &self.0 {
            Pair::Ecdsa(curve, pair) => {
                let digest = curve.digest(message)?;
                pair.sign_digest(&digest).map(|s| s.as_ref().to_vec()).map_err(|_| SIGN)
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0_u8; pair.public_modulus_len()];
                pair.sign(
                    &signature::RSA_PSS_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .map_err(|_| SIGN)?;
                Ok(signature)
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.algorithm())
    }
}

/// The first PEM block of a public key file: SubjectPublicKeyInfo, or a certificate's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKeyFile {
    /// `PUBLIC KEY`: SubjectPublicKeyInfo in DER.
    Key(Vec<u8>),
    /// `CERTIFICATE`: the block, PEM.
    Certificate(Vec<u8>),
}

/// Reads a file with a public key or a certificate; PEM headers are ignored.
///
/// # Errors
/// [`PkiError::Pem`].
pub fn public_key_file(text: &[u8]) -> Result<PublicKeyFile, PkiError> {
    const NONE: PkiError = PkiError::Pem { expected: "public key or certificate" };
    if text.len() > x509::MAX_PEM {
        return Err(NONE);
    }
    let block = pem::parse(text).map_err(|_| NONE)?;
    match block.tag() {
        "PUBLIC KEY" => Ok(PublicKeyFile::Key(block.into_contents())),
        "CERTIFICATE" => Ok(PublicKeyFile::Certificate(
            x509::to_pem("CERTIFICATE", block.contents()).into_bytes(),
        )),
        _ => Err(NONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(key: &SigningKey) -> VerifyingKey {
        let bytes = key.public().unwrap();
        match key.algorithm() {
            Algorithm::Ed25519 => VerifyingKey::from_ed25519(&bytes).unwrap(),
            _ => VerifyingKey::from_spki(&bytes).unwrap(),
        }
    }

    #[test]
    fn each_kind_of_key_signs_verifies_and_comes_back_from_its_file() {
        let keys = [
            SigningKey::generate(Curve::P256).unwrap(),
            SigningKey::generate(Curve::P384).unwrap(),
            SigningKey::generate(Curve::P521).unwrap(),
            SigningKey::generate_rsa().unwrap(),
            SigningKey::generate_ed25519().unwrap(),
        ];
        let schemes = [Scheme::EcdsaFixed, Scheme::RsaPss, Scheme::RsaPkcs1, Scheme::Ed25519];
        for key in &keys {
            let mut signature = key.sign(b"message").unwrap();
            let verifier = public(key);
            assert_eq!(verifier.algorithm(), key.algorithm());
            for scheme in schemes {
                assert_eq!(
                    verifier.verifies(scheme, b"message", &signature),
                    scheme == key.scheme()
                );
            }
            assert!(!verifier.verifies(key.scheme(), b"massage", &signature));
            for other in keys.iter().filter(|other| !std::ptr::eq(*other, key)) {
                assert!(!public(other).verifies(key.scheme(), b"message", &signature));
            }
            let again = SigningKey::from_der(&key.to_pkcs8().unwrap()).unwrap();
            assert_eq!(again.public().unwrap(), key.public().unwrap());
            signature[5] ^= 1;
            assert!(!verifier.verifies(key.scheme(), b"message", &signature));
        }
    }

    /// Another implementation's view of P-384 with SHA-256, which is put together here.
    #[test]
    fn p384_signs_sha256() {
        use aws_lc_rs::signature::{ECDSA_P384_SHA256_ASN1, UnparsedPublicKey};
        let key = SigningKey::generate(Curve::P384).unwrap();
        let fixed = key.sign(b"message").unwrap();
        assert_eq!(fixed.len(), 96);
        let integer = |bytes: &[u8]| {
            let bytes: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
            let sign = bytes.first().is_some_and(|b| *b > 0x7f);
            let mut der = vec![2, u8::try_from(bytes.len()).unwrap() + u8::from(sign)];
            der.extend(sign.then_some(0));
            der.extend(bytes);
            der
        };
        let mut body = integer(&fixed[..48]);
        body.extend(integer(&fixed[48..]));
        let mut der = vec![0x30, u8::try_from(body.len()).unwrap()];
        der.extend(body);
        let point = public(&key).key;
        UnparsedPublicKey::new(&ECDSA_P384_SHA256_ASN1, &point).verify(b"message", &der).unwrap();
    }

    #[test]
    fn keys_that_are_too_weak_or_strange_are_refused() {
        assert!(VerifyingKey::from_spki(b"").is_err());
        assert!(VerifyingKey::from_ed25519(&[0; 31]).is_err());
        assert!(SigningKey::from_der(&SecretBytes::new(vec![0x30, 0])).is_err());
        let mut spki = SigningKey::generate(Curve::P256).unwrap().public().unwrap();
        spki.push(0);
        assert!(VerifyingKey::from_spki(&spki).is_err());
    }
}
