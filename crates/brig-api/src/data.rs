//! Byte fields: standard base64 in JSON, and the variants that must not leak.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_types::secret::{SecretBytes, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Go's text for text that is not base64; the position is not tracked here.
const ILLEGAL_BASE64: &str = "illegal base64 data at input byte 0";

/// Bytes that travel as standard base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

struct BytesVisitor;

impl de::Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        STANDARD.decode(text).map_err(|_| E::custom(ILLEGAL_BASE64))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(BytesVisitor).map(Self)
    }
}

/// Secret bytes that travel as standard base64. The encoded text in a request body is the
/// caller's to wipe.
#[derive(Clone, Default)]
pub struct SecretData(pub SecretBytes);

impl SecretData {
    /// The plaintext.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl From<SecretBytes> for SecretData {
    fn from(bytes: SecretBytes) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for SecretData {
    fn eq(&self, other: &Self) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl Serialize for SecretData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = SecretString::new(STANDARD.encode(self.expose_secret()));
        serializer.serialize_str(text.expose_secret())
    }
}

impl<'de> Deserialize<'de> for SecretData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(BytesVisitor).map(|bytes| Self(SecretBytes::new(bytes)))
    }
}

/// Secret text: a password, a join token, an unlock key.
#[derive(Clone, Default)]
pub struct SecretText(pub SecretString);

impl SecretText {
    /// The plaintext.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(SecretString::new(text))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.expose_secret() == other.expose_secret()
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose_secret())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_standard_base64() {
        let data: SecretData = serde_json::from_str("\"cHcK\"").unwrap();
        assert_eq!(data.expose_secret(), b"pw\n");
        assert_eq!(serde_json::to_string(&data).unwrap(), "\"cHcK\"");
        assert_eq!(format!("{data:?}"), "SecretBytes(3 bytes)");
        let error = serde_json::from_str::<SecretData>("\"!!\"").unwrap_err();
        assert!(error.to_string().starts_with("illegal base64 data at input byte 0"), "{error}");
    }
}
