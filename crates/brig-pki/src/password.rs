//! Passwords of people who log in: bcrypt, as `htpasswd -B` writes it.

use crate::PkiError;

/// Dearest hash that is accepted. Each step doubles the time; with this one it is about a second.
pub const MAX_COST: u32 = 14;

/// A bcrypt hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Reads `$2y$…`, `$2b$…` or `$2a$…`.
    ///
    /// # Errors
    /// [`PkiError::PasswordHash`].
    pub fn parse(text: &str) -> Result<Self, PkiError> {
        const BCRYPT: PkiError = PkiError::PasswordHash { reason: "it is not bcrypt" };
        if text.len() != 60 || !text.is_ascii() {
            return Err(BCRYPT);
        }
        let mut parts = text.split('$').skip(1);
        let is_bcrypt = parts.next().is_some_and(|version| matches!(version, "2a" | "2b" | "2y"));
        let cost: u32 = parts.next().and_then(|cost| cost.parse().ok()).ok_or(BCRYPT)?;
        if !is_bcrypt {
            return Err(BCRYPT);
        }
        if !(4..=MAX_COST).contains(&cost) {
            return Err(PkiError::PasswordHash { reason: "its cost is not between 4 and 14" });
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether this is the password. Takes tens of milliseconds or more, on purpose.
    #[must_use]
    pub fn verifies(&self, password: &[u8]) -> bool {
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_htpasswd_writes() {
        // htpasswd -nbB -C 5 alice secret
        let hash = bcrypt::hash_with_salt(b"secret", 5, [7; 16]).unwrap();
        for version in [bcrypt::Version::TwoY, bcrypt::Version::TwoB, bcrypt::Version::TwoA] {
            let hash = PasswordHash::parse(&hash.format_for_version(version)).unwrap();
            assert!(hash.verifies(b"secret"));
            assert!(!hash.verifies(b"Secret"));
        }
        for text in ["", "secret", "{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=", "$apr1$x$y", "$2y$05$short"] {
            assert!(PasswordHash::parse(text).is_err(), "{text}");
        }
        let dear = hash.format_for_version(bcrypt::Version::TwoY).replace("$05$", "$31$");
        assert!(PasswordHash::parse(&dear).is_err());
    }
}
