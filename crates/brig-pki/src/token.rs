//! Join tokens (`SWMTKN-1-…`) and unlock keys (`SWMKEY-1-…`) in SwarmKit's format.
//!
//! A join token pins the root certificates by digest, so a node that joins needs no other trust,
//! and carries a secret that proves the right to join in one role.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use brig_types::secret::SecretString;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{PkiError, hash, random};

/// Base-36 digits of the root digest in a token.
const DIGEST_DIGITS: usize = 50;
/// Base-36 digits of the secret in a token.
const SECRET_DIGITS: usize = 25;
const DIGEST_LEN: usize = 32;
const SECRET_LEN: usize = 16;
const UNLOCK_KEY_PREFIX: &str = "SWMKEY-1-";
/// Raw bytes of an unlock key.
pub const UNLOCK_KEY_LEN: usize = 32;

/// The two roles of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeRole {
    /// Runs tasks.
    Worker,
    /// Runs tasks and the cluster.
    Manager,
}

impl NodeRole {
    /// The organisational unit in certificates of this role; also its TLS server name.
    #[must_use]
    pub const fn organizational_unit(self) -> &'static str {
        match self {
            Self::Worker => "swarm-worker",
            Self::Manager => "swarm-manager",
        }
    }

    /// Reads a certificate's organisational unit.
    #[must_use]
    pub fn from_organizational_unit(text: &str) -> Option<Self> {
        match text {
            "swarm-worker" => Some(Self::Worker),
            "swarm-manager" => Some(Self::Manager),
            _ => None,
        }
    }
}

/// A join token. It has no `Display`: printing it is [`JoinToken::to_secret_string`].
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct JoinToken {
    digest: [u8; DIGEST_LEN],
    secret: [u8; SECRET_LEN],
    /// Second format: whether nodes without FIPS are kept out.
    fips: Option<bool>,
}

impl JoinToken {
    /// A new token with a random secret for the root bundle `ca_pem`, which is hashed byte for
    /// byte as it is handed to joining nodes.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate(ca_pem: &[u8]) -> Result<Self, PkiError> {
        Ok(Self { digest: hash::sha256(ca_pem), secret: random::bytes()?, fips: None })
    }

    /// Reads a token of either format.
    ///
    /// # Errors
    /// [`PkiError::JoinToken`] for anything that is not exactly one.
    pub fn parse(text: &str) -> Result<Self, PkiError> {
        let mut parts = text.trim().split('-');
        if parts.next() != Some("SWMTKN") {
            return Err(PkiError::JoinToken);
        }
        let fips = match parts.next() {
            Some("1") => None,
            Some("2") => match parts.next() {
                Some("0") => Some(false),
                Some("1") => Some(true),
                _ => return Err(PkiError::JoinToken),
            },
            _ => return Err(PkiError::JoinToken),
        };
        let digest = parts.next().and_then(parse_base36::<DIGEST_LEN, DIGEST_DIGITS>);
        let secret = parts.next().and_then(parse_base36::<SECRET_LEN, SECRET_DIGITS>);
        match (digest, secret, parts.next()) {
            (Some(digest), Some(secret), None) => Ok(Self { digest, secret, fips }),
            _ => Err(PkiError::JoinToken),
        }
    }

    /// The token as text.
    #[must_use]
    pub fn to_secret_string(&self) -> SecretString {
        let prefix = match self.fips {
            None => "SWMTKN-1-",
            Some(false) => "SWMTKN-2-0-",
            Some(true) => "SWMTKN-2-1-",
        };
        let digest = format_base36(&self.digest, DIGEST_DIGITS);
        let secret = format_base36(&self.secret, SECRET_DIGITS);
        SecretString::new(format!("{prefix}{digest}-{secret}"))
    }

    /// The SHA-256 hash of the root bundle that this token pins.
    #[must_use]
    pub const fn digest(&self) -> &[u8; DIGEST_LEN] {
        &self.digest
    }

    /// Whether a root bundle is the one that this token pins.
    #[must_use]
    pub fn pins(&self, ca_pem: &[u8]) -> bool {
        hash::constant_time_eq(&self.digest, &hash::sha256(ca_pem))
    }

    /// Whether only FIPS nodes may use it.
    #[must_use]
    pub fn requires_fips(&self) -> bool {
        self.fips == Some(true)
    }

    /// Whether what a node presented is `own`, a token as text, in constant time. Nothing matches
    /// what is no token.
    #[must_use]
    pub fn text_matches(own: &str, presented: &str) -> bool {
        // There is one way to write a token, so the texts can be compared.
        hash::constant_time_eq(own.trim().as_bytes(), presented.as_bytes())
            && Self::parse(own).is_ok()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// The key that unlocks a manager's key file.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct UnlockKey([u8; UNLOCK_KEY_LEN]);

impl UnlockKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self(random::bytes()?))
    }

    /// Takes raw bytes, as they are stored in the cluster object.
    ///
    /// # Errors
    /// [`PkiError::UnlockKey`] for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PkiError> {
        bytes.try_into().map(Self).map_err(|_| PkiError::UnlockKey)
    }

    /// Reads `SWMKEY-1-…`.
    ///
    /// # Errors
    /// [`PkiError::UnlockKey`].
    pub fn parse(text: &str) -> Result<Self, PkiError> {
        let encoded = text.trim().strip_prefix(UNLOCK_KEY_PREFIX);
        let mut bytes = encoded
            .and_then(|text| STANDARD_NO_PAD.decode(text).ok())
            .ok_or(PkiError::UnlockKey)?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        key
    }

    /// The key as people write it down.
    #[must_use]
    pub fn to_secret_string(&self) -> SecretString {
        SecretString::new(format!("{UNLOCK_KEY_PREFIX}{}", STANDARD_NO_PAD.encode(self.0)))
    }

    /// The raw bytes.
    #[must_use]
    pub const fn expose_secret(&self) -> &[u8; UNLOCK_KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

fn format_base36(bytes: &[u8], digits: usize) -> String {
    format!("{:0>digits$}", brig_types::id::base36(bytes))
}

/// Reads exactly `DIGITS` base-36 digits into a big-endian number of `LEN` bytes.
fn parse_base36<const LEN: usize, const DIGITS: usize>(text: &str) -> Option<[u8; LEN]> {
    if text.len() != DIGITS {
        return None;
    }
    let mut number = [0_u8; LEN];
    for character in text.chars() {
        let mut carry = match character {
            '0'..='9' | 'a'..='z' => character.to_digit(36)?,
            _ => return None,
        };
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(digest: [u8; 32], secret: [u8; 16]) -> JoinToken {
        JoinToken { digest, secret, fips: None }
    }

    #[test]
    fn known_encodings() {
        let counting: [u8; 16] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let mut one = [0_u8; 32];
        one[31] = 1;
        for (digest, secret, text) in [
            (
                hash::sha256(b""),
                counting,
                "SWMTKN-1-5oaq0bjhj6un82wg98mgigso5q7qlhc63je4gw7ivixqqhkd3p-000avh9he7dy896m08s18udxr",
            ),
            (
                one,
                [0xff; 16],
                "SWMTKN-1-00000000000000000000000000000000000000000000000001-f5lxx1zz5pnorynqglhzmsp33",
            ),
            (
                [0xff; 32],
                counting,
                "SWMTKN-1-6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof-000avh9he7dy896m08s18udxr",
            ),
        ] {
            let token = token(digest, secret);
            assert_eq!(token.to_secret_string().expose_secret(), text);
            let read = JoinToken::parse(text).unwrap();
            assert_eq!((read.digest, read.secret), (digest, secret));
            assert!(JoinToken::text_matches(text, text));
            assert!(JoinToken::text_matches(&format!("{text}\n"), text));
            for other in [&text[1..], &text[..text.len() - 1], &text.to_uppercase(), ""] {
                assert!(!JoinToken::text_matches(text, other));
            }
        }
        for none in ["", "x", "SWMTKN-1-"] {
            assert!(!JoinToken::text_matches(none, none));
        }
        assert!(JoinToken::generate(b"").unwrap().pins(b""));
        assert!(!JoinToken::generate(b"").unwrap().pins(b"x"));
    }

    #[test]
    fn second_format() {
        let digest = "5oaq0bjhj6un82wg98mgigso5q7qlhc63je4gw7ivixqqhkd3p";
        let secret = "000avh9he7dy896m08s18udxr";
        let text = format!("SWMTKN-2-1-{digest}-{secret}");
        let token = JoinToken::parse(&text).unwrap();
        assert!(token.requires_fips());
        assert_eq!(token.to_secret_string().expose_secret(), text);
    }

    #[test]
    fn broken_tokens_are_refused() {
        let digest = "5oaq0bjhj6un82wg98mgigso5q7qlhc63je4gw7ivixqqhkd3p";
        let secret = "000avh9he7dy896m08s18udxr";
        for text in [
            String::new(),
            format!("SWMTKN-1-{digest}"),
            format!("SWMTKN-1-{digest}-{secret}-x"),
            format!("SWMTKN-3-{digest}-{secret}"),
            format!("SWMTKN-2-{digest}-{secret}"),
            format!("SWMTKN-1-{}-{secret}", "z".repeat(50)),
            format!("SWMTKN-1-{digest}-{}", "z".repeat(25)),
            format!("SWMTKN-1-{digest}-{}", "A".repeat(25)),
            format!("SWMTKN-1-{digest}-0{secret}"),
        ] {
            assert!(JoinToken::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn unlock_keys() {
        let bytes: [u8; 32] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let text = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
        assert_eq!(UnlockKey(bytes).to_secret_string().expose_secret(), text);
        assert_eq!(UnlockKey::parse(text).unwrap().0, bytes);
        for bad in [
            "",
            "SWMKEY-1-",
            "SWMKEY-1-AAEC",
            "SWMKEY-2-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        ] {
            assert!(UnlockKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_hides_everything() {
        let token = token([1; 32], [2; 16]);
        assert_eq!(format!("{token:?}"), "JoinToken(..)");
        assert_eq!(format!("{:?}", UnlockKey([1; 32])), "UnlockKey(..)");
    }

    proptest! {
        #[test]
        fn parsing_inverts_printing(digest: [u8; 32], secret: [u8; 16]) {
            let text = token(digest, secret).to_secret_string();
            let read = JoinToken::parse(text.expose_secret()).unwrap();
            prop_assert_eq!(read.digest, digest);
            prop_assert_eq!(read.secret, secret);
        }

        #[test]
        fn there_is_one_way_to_write_a_token(digest in "[0-9a-z]{50}", secret in "[0-9a-z]{25}") {
            let text = format!("SWMTKN-1-{digest}-{secret}");
            if let Ok(token) = JoinToken::parse(&text) {
                let written = token.to_secret_string();
                prop_assert_eq!(written.expose_secret(), &text);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,120}", tail in "[0-9a-z-]{0,90}") {
            let _ = JoinToken::parse(&text);
            let _ = JoinToken::parse(&format!("SWMTKN-{tail}"));
            let _ = UnlockKey::parse(&text);
        }
    }
}
