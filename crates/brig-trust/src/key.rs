//! Public keys as metadata carries them, and their IDs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::PkiError;
use brig_pki::hash;
use brig_pki::signing::{
    Algorithm, PublisherCertificate, Scheme, SigningKey, VerifyingKey, certificate_key,
};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use crate::{TrustError, canonical};

/// Largest public part of a key: a chain of certificates.
const MAX_PUBLIC: usize = 128 << 10;

/// A key's ID: the SHA-256 of its canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// Reads 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// [`TrustError::KeyId`].
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == hash::SHA256_LEN * 2 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TrustError::KeyId(text.to_owned()))
        }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, as many as asked for.
    #[must_use]
    pub fn short(&self, digits: usize) -> &str {
        self.0.get(..digits).unwrap_or(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl TryFrom<String> for KeyId {
    type Error = TrustError;

    fn try_from(text: String) -> Result<Self, TrustError> {
        Self::parse(&text)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

/// What a key's public part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// SubjectPublicKeyInfo of a curve.
    Ecdsa,
    /// A certificate with such a key, PEM; authorities may follow it.
    EcdsaX509,
    /// SubjectPublicKeyInfo of an RSA key.
    Rsa,
    /// A certificate with such a key.
    RsaX509,
    /// The 32 bytes.
    Ed25519,
}

impl KeyType {
    const ALL: [Self; 5] = [Self::Ecdsa, Self::EcdsaX509, Self::Rsa, Self::RsaX509, Self::Ed25519];

    /// The name in metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::EcdsaX509 => "ecdsa-x509",
            Self::Rsa => "rsa",
            Self::RsaX509 => "rsa-x509",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Whether the public part is a certificate.
    #[must_use]
    pub const fn is_certificate(self) -> bool {
        matches!(self, Self::EcdsaX509 | Self::RsaX509)
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    keytype: KeyType,
    public: Vec<u8>,
}

impl Key {
    /// A key of a type; whether its content can be used shows when it is.
    #[must_use]
    pub const fn new(keytype: KeyType, public: Vec<u8>) -> Self {
        Self { keytype, public }
    }

    /// The public half of a private key.
    ///
    /// # Errors
    /// [`PkiError::PrivateKey`].
    pub fn of(key: &SigningKey) -> Result<Self, PkiError> {
        let keytype = match key.algorithm() {
            Algorithm::Ecdsa(_) => KeyType::Ecdsa,
            Algorithm::Rsa => KeyType::Rsa,
            Algorithm::Ed25519 => KeyType::Ed25519,
        };
        Ok(Self { keytype, public: key.public()? })
    }

    /// The key of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`PkiError::PublicKey`].
    pub fn from_spki(der: &[u8]) -> Result<Self, PkiError> {
        let keytype = match VerifyingKey::from_spki(der)?.algorithm() {
            Algorithm::Rsa => KeyType::Rsa,
            _ => KeyType::Ecdsa,
        };
        Ok(Self { keytype, public: der.to_vec() })
    }

    /// The key of a certificate, PEM; it stays wrapped in it.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn from_certificate(pem: &[u8]) -> Result<Self, PkiError> {
        let leaf = PublisherCertificate::from_bundle(pem)?;
        let keytype = match VerifyingKey::from_spki(&leaf.spki)?.algorithm() {
            Algorithm::Rsa => KeyType::RsaX509,
            _ => KeyType::EcdsaX509,
        };
        Ok(Self { keytype, public: pem.to_vec() })
    }

    /// The key of a signer's certificate, PEM; it stays wrapped in it. Of delegations only the key
    /// counts, so it may be an authority's own, as `openssl req -x509` makes it.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn from_signer_certificate(pem: &[u8]) -> Result<Self, PkiError> {
        let keytype = match VerifyingKey::from_spki(&certificate_key(pem)?)?.algorithm() {
            Algorithm::Rsa => KeyType::RsaX509,
            _ => KeyType::EcdsaX509,
        };
        Ok(Self { keytype, public: pem.to_vec() })
    }

    /// Its type.
    #[must_use]
    pub const fn keytype(&self) -> KeyType {
        self.keytype
    }

    /// The public part.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The key's ID.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let value = json!({
            "keytype": self.keytype.as_str(),
            "keyval": { "private": null, "public": STANDARD.encode(&self.public) },
        });
        KeyId(hash::hex(&hash::sha256(&canonical::encode(&value))))
    }

    /// The ID of the key itself where it is wrapped in a certificate: what private keys are filed
    /// under.
    ///
    /// # Errors
    /// [`PkiError`] for a certificate that cannot be read.
    pub fn canonical_id(&self) -> Result<KeyId, PkiError> {
        let keytype = match self.keytype {
            KeyType::EcdsaX509 => KeyType::Ecdsa,
            KeyType::RsaX509 => KeyType::Rsa,
            KeyType::Ecdsa | KeyType::Rsa | KeyType::Ed25519 => return Ok(self.id()),
        };
        Ok(Self { keytype, public: certificate_key(&self.public)? }.id())
    }

    /// The certificate that the key is wrapped in.
    ///
    /// # Errors
    /// [`PkiError`] where there is none, or none that can be read.
    pub fn certificate(&self) -> Result<PublisherCertificate, PkiError> {
        if !self.keytype.is_certificate() {
            return Err(PkiError::Certificate { reason: "the key is not in a certificate" });
        }
        PublisherCertificate::from_bundle(&self.public)
    }

    /// The key in the form that checks signatures.
    ///
    /// # Errors
    /// [`PkiError`] for a key that is not what its type says.
    pub fn verifier(&self) -> Result<VerifyingKey, PkiError> {
        let key = match self.keytype {
            KeyType::Ed25519 => return VerifyingKey::from_ed25519(&self.public),
            KeyType::Ecdsa | KeyType::Rsa => VerifyingKey::from_spki(&self.public)?,
            KeyType::EcdsaX509 | KeyType::RsaX509 => {
                VerifyingKey::from_spki(&certificate_key(&self.public)?)?
            }
        };
        let is_rsa = matches!(self.keytype, KeyType::Rsa | KeyType::RsaX509);
        if is_rsa != (key.algorithm() == Algorithm::Rsa) {
            return Err(PkiError::PublicKey { reason: "not of the type that is said" });
        }
        Ok(key)
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    keytype: String,
    keyval: Halves,
}

#[derive(Serialize, Deserialize)]
struct Halves {
    #[serde(default, deserialize_with = "ignored")]
    private: (),
    public: String,
}

/// A private half has no place in metadata; where one is, it is not looked at.
fn ignored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(drop)
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keyval = Halves { private: (), public: STANDARD.encode(&self.public) };
        Wire { keytype: self.keytype.as_str().to_owned(), keyval }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let keytype = KeyType::ALL
            .into_iter()
            .find(|known| known.as_str() == wire.keytype)
            .ok_or_else(|| D::Error::custom("a key of an unknown type"))?;
        if wire.keyval.public.len() > MAX_PUBLIC {
            return Err(D::Error::custom("a key that is too large"));
        }
        let public = STANDARD.decode(&wire.keyval.public).map_err(D::Error::custom)?;
        Ok(Self { keytype, public })
    }
}

/// The scheme of a signature's method, compared without case as the real clients do.
#[must_use]
pub fn scheme(method: &str) -> Option<Scheme> {
    match method.to_ascii_lowercase().as_str() {
        "ecdsa" => Some(Scheme::EcdsaFixed),
        "rsapss" | "pycrypto-pkcs#1 pss" => Some(Scheme::RsaPss),
        "rsapkcs1v15" => Some(Scheme::RsaPkcs1),
        "eddsa" => Some(Scheme::Ed25519),
        _ => None,
    }
}

/// The method's name as it is written.
#[must_use]
pub const fn method(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::EcdsaFixed => "ecdsa",
        Scheme::RsaPss => "rsapss",
        Scheme::RsaPkcs1 => "rsapkcs1v15",
        Scheme::Ed25519 => "eddsa",
    }
}

#[cfg(test)]
mod tests {
    use brig_pki::signing::Curve;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn keys_and_their_ids() {
        let private = SigningKey::generate(Curve::P256).unwrap();
        let key = Key::of(&private).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert!(
            text.starts_with("{\"keytype\":\"ecdsa\",\"keyval\":{\"private\":null,\"public\":\"")
        );
        assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key);
        assert_eq!(key.id().as_str(), hash::hex(&hash::sha256(text.as_bytes())));
        assert_eq!(key.canonical_id().unwrap(), key.id());

        let pem = PublisherCertificate::issue("a/b", &private, OffsetDateTime::now_utc()).unwrap();
        let wrapped = Key::from_certificate(pem.as_bytes()).unwrap();
        assert_eq!(wrapped.keytype(), KeyType::EcdsaX509);
        assert_ne!(wrapped.id(), key.id());
        assert_eq!(wrapped.canonical_id().unwrap(), key.id());
        let signature = private.sign(b"m").unwrap();
        assert!(wrapped.verifier().unwrap().verifies(Scheme::EcdsaFixed, b"m", &signature));
    }

    #[test]
    fn private_halves_are_not_kept_and_lies_are_refused() {
        let key = Key::of(&SigningKey::generate(Curve::P256).unwrap()).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        let leaked = text.replace("null", "\"c2VjcmV0\"");
        assert_eq!(serde_json::from_str::<Key>(&leaked).unwrap(), key);
        let lie = text.replace("ecdsa", "rsa");
        assert!(serde_json::from_str::<Key>(&lie).unwrap().verifier().is_err());
        for bad in [text.replace("ecdsa", "dsa"), text.replace("\"public\":\"M", "\"public\":\"*")]
        {
            assert!(serde_json::from_str::<Key>(&bad).is_err());
        }
        assert!(KeyId::parse(&"A".repeat(64)).is_err());
        assert!(KeyId::parse(&"a".repeat(63)).is_err());
    }

    #[test]
    fn a_signers_certificate_may_be_an_authoritys() {
        let authority = brig_pki::ca::RootCa::generate().unwrap();
        let pem = authority.cert_pem();
        assert!(Key::from_certificate(pem).is_err(), "a repository's root is none");
        let key = Key::from_signer_certificate(pem).unwrap();
        assert_eq!(key.keytype(), KeyType::EcdsaX509);
        assert!(key.verifier().is_ok() && key.canonical_id().unwrap() != key.id());
        assert!(Key::from_signer_certificate(b"no certificate").is_err());
    }
}
