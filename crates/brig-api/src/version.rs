//! API versions: `major.minor`, ordered.

use std::fmt;

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u16,
    /// What grows.
    pub minor: u16,
}

/// Text that is not `major.minor`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid API version {0:?}: expected major.minor, such as 1.50")]
pub struct InvalidVersion(String);

/// The oldest version that is served.
pub const MIN: ApiVersion = ApiVersion::new(1, 24);
/// The newest version that is served, and what a path without version means.
pub const MAX: ApiVersion = ApiVersion::new(1, 50);

impl ApiVersion {
    /// A version from its two numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Reads `1.41`.
    ///
    /// # Errors
    /// [`InvalidVersion`].
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let number = |part: &str| -> Option<u16> {
            if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None }
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self::new(number(major)?, number(minor)?)))
            .ok_or_else(|| InvalidVersion(text.chars().take(40).collect()))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for ApiVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        Self::parse(text)
    }
}

impl Default for ApiVersion {
    fn default() -> Self {
        MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_not_text() {
        assert!(ApiVersion::parse("1.9").unwrap() < MIN);
        assert_eq!(ApiVersion::parse("1.50").unwrap(), MAX);
        assert_eq!(MAX.to_string(), "1.50");
        for text in ["", "1", "1.", ".1", "v1.41", "1.4.1", "1.+4", "1.99999"] {
            assert!(ApiVersion::parse(text).is_err(), "{text}");
        }
    }
}
