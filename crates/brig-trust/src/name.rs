//! Names of repositories and roles, checked before they become paths on disks and servers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::TrustError;

/// Longest repository name that is taken, in bytes.
const MAX_GUN: usize = 512;
/// Delegations' names are shorter than this.
const MAX_ROLE: usize = 256;
const TARGETS: &str = "targets";

/// A repository's globally unique name: registry, slash, path; such as `docker.io/library/busybox`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gun(String);

impl Gun {
    /// Reads a name. Servers and clients take it as it is and make it part of paths: segments
    /// that lead elsewhere and characters that URLs treat specially are refused.
    ///
    /// # Errors
    /// [`TrustError::Gun`].
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'*' | b'?' | b'#' | b'%' | b'\\');
        let valid = text.len() <= MAX_GUN
            && text.bytes().all(plain)
            && text.split('/').all(|part| !matches!(part, "" | "." | ".." | "_trust"));
        if valid { Ok(Self(text.to_owned())) } else { Err(TrustError::Gun(text.to_owned())) }
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Gun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Gun {
    type Error = TrustError;

    fn try_from(text: String) -> Result<Self, TrustError> {
        Self::parse(&text)
    }
}

impl From<Gun> for String {
    fn from(gun: Gun) -> Self {
        gun.0
    }
}

/// A role: one of the four that every repository has, or a delegation below `targets`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Role {
    /// Says which keys the others have.
    Root,
    /// Signs tags and delegations.
    Targets,
    /// Binds the versions of all others together.
    Snapshot,
    /// Says, for a short time, which snapshot is the newest.
    Timestamp,
    /// `targets/NAME`, possibly deeper.
    Delegation(DelegationName),
}

/// A delegation's whole name. Made by [`Role::parse`] alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelegationName(String);

impl Role {
    /// The roles that every root names.
    pub const BASE: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// Reads a role's name.
    ///
    /// # Errors
    /// [`TrustError::Role`].
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        match text {
            "root" => return Ok(Self::Root),
            TARGETS => return Ok(Self::Targets),
            "snapshot" => return Ok(Self::Snapshot),
            "timestamp" => return Ok(Self::Timestamp),
            _ => {}
        }
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'/');
        let valid = text.len() < MAX_ROLE
            && text.strip_prefix("targets/").is_some_and(|rest| {
                rest.bytes().all(allowed) && rest.split('/').all(|part| !part.is_empty())
            });
        if valid {
            Ok(Self::Delegation(DelegationName(text.to_owned())))
        } else {
            Err(TrustError::Role(text.to_owned()))
        }
    }

    /// The delegation of a signer directly below `targets`.
    ///
    /// # Errors
    /// [`TrustError::Role`].
    pub fn signer(name: &str) -> Result<Self, TrustError> {
        if name.contains('/') {
            return Err(TrustError::Role(name.to_owned()));
        }
        Self::parse(&format!("targets/{name}"))
    }

    /// The role that docker's clients take released tags from.
    #[must_use]
    pub fn releases() -> Self {
        Self::Delegation(DelegationName("targets/releases".to_owned()))
    }

    /// The role's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Targets => TARGETS,
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Delegation(name) => &name.0,
        }
    }

    /// Whether files of this role list targets.
    #[must_use]
    pub const fn has_targets(&self) -> bool {
        matches!(self, Self::Targets | Self::Delegation(_))
    }

    /// Whether it is a delegation.
    #[must_use]
    pub const fn is_delegation(&self) -> bool {
        matches!(self, Self::Delegation(_))
    }

    /// The role that delegates to this one; of base roles there is none.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let Self::Delegation(name) = self else {
            return None;
        };
        match name.0.rsplit_once('/') {
            Some((TARGETS, _)) => Some(Self::Targets),
            Some((parent, _)) => Some(Self::Delegation(DelegationName(parent.to_owned()))),
            None => None,
        }
    }

    /// Steps below `targets`: 0 for base roles.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Self::Delegation(name) => name.0.matches('/').count(),
            _ => 0,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Role {
    type Error = TrustError;

    fn try_from(text: String) -> Result<Self, TrustError> {
        Self::parse(&text)
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for good in ["docker.io/library/busybox", "127.0.0.1:5000/a/b-c_d", "x", "[::1]:5/a"] {
            assert_eq!(Gun::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_GUN + 1);
        for bad in
            ["", "/a", "a/", "a//b", "a/../b", ".", "a b", "a\0", "a*", "é", "a/_trust/tuf", &long]
        {
            assert!(Gun::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn roles() {
        for good in ["root", "targets", "targets/releases", "targets/a/b-c/d_1"] {
            assert_eq!(Role::parse(good).unwrap().as_str(), good);
        }
        let long = format!("targets/{}", "a".repeat(MAX_ROLE));
        for bad in [
            "",
            "Root",
            "target",
            "targets/",
            "targets//a",
            "targets/a/",
            "targets/A",
            "targets/a.b",
            "targets/../root",
            "targets/é",
            "releases",
            &long,
        ] {
            assert!(Role::parse(bad).is_err(), "{bad:?}");
        }
        let deep = Role::parse("targets/a/b").unwrap();
        assert_eq!(deep.depth(), 2);
        assert_eq!(deep.parent(), Some(Role::parse("targets/a").unwrap()));
        assert_eq!(Role::releases().parent(), Some(Role::Targets));
        assert_eq!(Role::Targets.parent(), None);
        assert_eq!(Role::releases(), Role::signer("releases").unwrap());
        assert!(Role::signer("a/b").is_err());
    }
}
