//! Why metadata is not believed. The texts that users see are the ones docker has.

use brig_pki::PkiError;
use brig_types::error::{Categorized, ErrorKind};
use time::OffsetDateTime;

use crate::name::Role;

/// An error of this crate. None of them carries key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Not a repository name.
    #[error("invalid repository name {0:?} for trust data")]
    Gun(String),
    /// Not a role name.
    #[error("tuf: invalid role {0}. invalid role name")]
    Role(String),
    /// Not a key's ID.
    #[error("{0:?} is not a key ID: it has 64 lower-case hexadecimal digits")]
    KeyId(String),
    /// More bytes than a file of this kind may have.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or JSON of a kind that must not be signed.
    #[error("the metadata cannot be read: {reason}")]
    Json {
        /// What is wrong, and where.
        reason: String,
    },
    /// A value that cannot be written so that every reader sees the same bytes.
    #[error("{0} cannot be part of trust data: other implementations would write it differently")]
    Unwritable(String),
    /// JSON that is not this document.
    #[error("{role} file contains invalid data: {reason}")]
    Structure {
        /// The file's role.
        role: Role,
        /// Which rule it breaks.
        reason: String,
    },
    /// Too few of the role's keys have signed.
    #[error("valid signatures did not meet threshold for {0}")]
    Threshold(Role),
    /// Older than what is known.
    #[error("version {found} is lower than current version {known}")]
    Rollback {
        /// The file's role.
        role: Role,
        /// Its version.
        found: u64,
        /// The version that was seen before.
        known: u64,
    },
    /// Past its time.
    #[error("{role} expired at {}", rfc1123(*at))]
    Expired {
        /// The file's role.
        role: Role,
        /// When.
        at: OffsetDateTime,
    },
    /// Not the bytes that were signed for.
    #[error("{algorithm} checksum for {role} did not match: expected {expected}")]
    Checksum {
        /// The file's role.
        role: String,
        /// `sha256` or `sha512`.
        algorithm: &'static str,
        /// Hexadecimal digits.
        expected: String,
    },
    /// Another length than was signed for.
    #[error("{role} has {found} bytes where {expected} were signed for")]
    Length {
        /// The file's role.
        role: String,
        /// The file's.
        found: u64,
        /// The signed one.
        expected: u64,
    },
    /// A root that does not hold by itself.
    #[error("could not validate the path to a trusted root: {0}")]
    RootInvalid(&'static str),
    /// A root that does not follow from the one before.
    #[error("could not rotate trust to a new trusted root: {0}")]
    RootRotation(&'static str),
    /// A configuration that leaves nothing to trust by.
    #[error("invalid trust pinning specified")]
    NoPin,
    /// A key that cannot be used.
    #[error("key {id} cannot be used")]
    Key {
        /// Its ID.
        id: String,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// Signing failed.
    #[error("cannot sign {role}")]
    Sign {
        /// What was to be signed.
        role: Role,
        /// Why.
        #[source]
        source: PkiError,
    },
}

impl TrustError {
    /// Whether this is what an attack looks like, as opposed to a failure.
    #[must_use]
    pub const fn is_suspicious(&self) -> bool {
        matches!(
            self,
            Self::Threshold(_)
                | Self::Rollback { .. }
                | Self::Checksum { .. }
                | Self::Length { .. }
                | Self::RootInvalid(_)
                | Self::RootRotation(_)
        )
    }
}

impl Categorized for TrustError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Gun(_) | Self::Role(_) | Self::KeyId(_) | Self::NoPin | Self::Unwritable(_) => {
                ErrorKind::InvalidParameter
            }
            Self::Sign { .. } => ErrorKind::System,
            _ => ErrorKind::Forbidden,
        }
    }
}

/// A time as Go's clients print it here: `Sun Nov 22 07:00:00 UTC 2026`.
fn rfc1123(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let month = at.month().to_string();
    let weekday = at.weekday().to_string();
    let short = |name: &str| name.chars().take(3).collect::<String>();
    format!(
        "{} {} {} {:02}:{:02}:{:02} UTC {}",
        short(&weekday),
        short(&month),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.year()
    )
}
