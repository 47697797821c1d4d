//! Who is at the other end of a connection.

use std::fmt;

use crate::bindings::{Grant, Scope};

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// A process of this host that opened the Unix socket, as the kernel tells it.
    Local {
        /// User id.
        uid: u32,
        /// Primary group id.
        gid: u32,
        /// Process id; 0 when it lives in a pid namespace that is not visible from here.
        pid: i32,
    },
    /// The holder of a client certificate.
    Certificate {
        /// The common name; empty when it has none.
        name: String,
        /// SHA-256 of the certificate, hexadecimal.
        fingerprint: String,
        /// What the access authority's register gives its holder; nothing for certificates of an
        /// operator's authority.
        grants: Vec<Grant>,
    },
    /// The holder of an SSH key.
    SshKey {
        /// `SHA256:…`.
        fingerprint: String,
        /// What was given to it when it was added.
        grants: Vec<Grant>,
    },
    /// Whoever has a socket that was lent to a container.
    Lent {
        /// The role that the socket was made for.
        role: String,
        /// What the role is about.
        scope: Scope,
        /// The container's id.
        container: String,
    },
}

impl Principal {
    /// The name in policies and in the audit log: `uid:1000`, `cert:NAME`, `ssh:FINGERPRINT`,
    /// `lent:ROLE`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Local { uid, .. } => format!("uid:{uid}"),
            Self::Certificate { name, .. } => format!("cert:{name}"),
            Self::SshKey { fingerprint, .. } => format!("ssh:{fingerprint}"),
            Self::Lent { role, .. } => format!("lent:{role}"),
        }
    }

    /// Reads what [`Principal::name`] writes; `uid:UID:GID` gives a group as well.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        if value.is_empty() {
            return None;
        }
        Some(match kind {
            "uid" => {
                let (uid, gid) = value.split_once(':').unwrap_or((value, value));
                Self::Local { uid: uid.parse().ok()?, gid: gid.parse().ok()?, pid: 0 }
            }
            "cert" => Self::Certificate {
                name: value.to_owned(),
                fingerprint: String::new(),
                grants: Vec::new(),
            },
            "ssh" => Self::SshKey { fingerprint: value.to_owned(), grants: Vec::new() },
            "lent" => Self::Lent {
                role: value.to_owned(),
                scope: Scope::default(),
                container: String::new(),
            },
            _ => return None,
        })
    }

    /// What somebody has besides what bindings give.
    #[must_use]
    pub fn own_grants(&self) -> &[Grant] {
        match self {
            Self::Certificate { grants, .. } | Self::SshKey { grants, .. } => grants,
            Self::Local { .. } | Self::Lent { .. } => &[],
        }
    }

    /// The container by whose socket it came; empty for all others.
    #[must_use]
    pub fn container(&self) -> &str {
        match self {
            Self::Lent { container, .. } => container,
            Self::Local { .. } | Self::Certificate { .. } | Self::SshKey { .. } => "",
        }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Local { .. } => "local",
            Self::Certificate { .. } => "certificate",
            Self::SshKey { .. } => "ssh",
            Self::Lent { .. } => "lent",
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid, .. } => write!(f, "uid {uid} (process {pid})"),
            // The name is what the authority signed, which may hold anything.
            Self::Certificate { name, fingerprint, .. } => {
                write!(f, "certificate {name:?} (sha256:{fingerprint})")
            }
            Self::SshKey { fingerprint, .. } => write!(f, "ssh key {fingerprint}"),
            Self::Lent { role, container, .. } => {
                write!(f, "the socket of role {role:?} of container {container}")
            }
        }
    }
}

/// The way a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A Unix socket of this host.
    #[default]
    Unix,
    /// TCP with mutual TLS.
    Tls,
    /// SSH.
    Ssh,
    /// A socket lent to a container.
    Lent,
}

impl Transport {
    /// The name in policies and in the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Lent => "lent",
        }
    }

    /// How this principal reaches the engine.
    #[must_use]
    pub const fn of(principal: &Principal) -> Self {
        match principal {
            Principal::Local { .. } => Self::Unix,
            Principal::Certificate { .. } => Self::Tls,
            Principal::SshKey { .. } => Self::Ssh,
            Principal::Lent { .. } => Self::Lent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for text in ["uid:1000", "cert:ci", "ssh:SHA256:abc", "lent:viewer"] {
            assert_eq!(Principal::parse(text).unwrap().name(), text);
        }
        assert_eq!(
            Principal::parse("uid:5:6").unwrap(),
            Principal::Local { uid: 5, gid: 6, pid: 0 }
        );
        for text in ["", "uid", "uid:", "uid:x", "root", "user:1"] {
            assert_eq!(Principal::parse(text), None, "{text}");
        }
    }
}
