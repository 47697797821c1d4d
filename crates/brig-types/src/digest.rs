//! Content digests as registries and image formats write them (OCI image spec, "Digests").

use std::fmt;

use serde::{Deserialize, Serialize};

/// `sha256:` and 64 lower-case hexadecimal digits: the content's address.
///
/// Only SHA-256 is accepted: it is the one algorithm every registry must speak.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A string that is not a SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {0:?}: expected sha256 and 64 hexadecimal digits")]
pub struct InvalidDigest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// Reads `sha256:<hex>`.
    ///
    /// # Errors
    /// [`InvalidDigest`] for another algorithm, length or alphabet.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        match text.strip_prefix(PREFIX) {
            Some(hex)
                if hex.len() == 64
                    && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidDigest(text.chars().take(100).collect())),
        }
    }

    /// The digest of a hash value.
    #[must_use]
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in hash {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// `sha256:<hex>`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits, safe as a file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.get(PREFIX.len()..).unwrap_or_default()
    }

    /// The first twelve hexadecimal digits, as listings print them.
    #[must_use]
    pub fn short(&self) -> &str {
        self.hex().get(..crate::id::SHORT_ID_LEN).unwrap_or_default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let digest = Digest::from_sha256([0xab; 32]);
        assert_eq!(Digest::parse(digest.as_str()), Ok(digest.clone()));
        assert_eq!(digest.short(), "abababababab");
    }

    #[test]
    fn refuses_other_shapes() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let long = format!("sha256:{}", "a".repeat(65));
        for text in ["", "sha256:", "sha256:ab", "md5:00", &upper, &long, "sha256:../x"] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
    }
}
