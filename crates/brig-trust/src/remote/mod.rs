//! What a trust server gives and takes, apart from how it is reached.

use std::fmt;

use brig_types::error::{Categorized, ErrorKind};

use crate::key::Key;
use crate::name::{Gun, Role};

pub(crate) mod connection;
mod http;
pub(crate) mod login;
mod proxy;
mod upload;

pub use connection::ServerAddress;
pub use http::HttpRemote;
pub use login::{Action, Credentials};
pub use proxy::Proxies;

/// One file on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteFile {
    /// The newest of a role.
    Newest(Role),
    /// A version of a role.
    Version(Role, u64),
    /// The one with this SHA-256.
    Hash(Role, [u8; 32]),
}

impl RemoteFile {
    /// The role.
    #[must_use]
    pub const fn role(&self) -> &Role {
        match self {
            Self::Newest(role) | Self::Version(role, _) | Self::Hash(role, _) => role,
        }
    }

    /// The file's name in a URL.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Newest(role) => format!("{role}.json"),
            Self::Version(role, version) => format!("{version}.{role}.json"),
            Self::Hash(role, hash) => format!("{role}.{}.json", brig_pki::hash::hex(hash)),
        }
    }
}

/// Roles whose keys a server may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerRole {
    /// `snapshot`.
    Snapshot,
    /// `timestamp`.
    Timestamp,
}

impl ServerRole {
    /// The role.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Snapshot => Role::Snapshot,
            Self::Timestamp => Role::Timestamp,
        }
    }

    /// The role's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }
}

/// A trust server, for one repository or many.
pub trait Remote: Sync {
    /// A file, `None` if the server does not have it. Nothing of it is believed yet.
    fn fetch(
        &self,
        gun: &Gun,
        file: &RemoteFile,
        limit: usize,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, RemoteError>> + Send;

    /// Publishes files together, or none of them.
    fn publish(
        &self,
        gun: &Gun,
        files: &[(Role, Vec<u8>)],
    ) -> impl Future<Output = Result<(), RemoteError>> + Send;

    /// The public half of a key that the server keeps.
    fn server_key(
        &self,
        gun: &Gun,
        role: ServerRole,
    ) -> impl Future<Output = Result<Key, RemoteError>> + Send;

    /// A new key for a role; it counts once a root that names it is published.
    fn rotate_server_key(
        &self,
        gun: &Gun,
        role: ServerRole,
    ) -> impl Future<Output = Result<Key, RemoteError>> + Send;

    /// Makes the server forget the repository.
    fn delete(&self, gun: &Gun) -> impl Future<Output = Result<(), RemoteError>> + Send;

    /// How messages call the server: host and port.
    fn host(&self) -> &str;
}

/// Why a server gave or took nothing. The texts are docker's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// An address that is not one.
    #[error("valid https URL required for trust server, got {0}")]
    Address(String),
    /// An address of a proxy that is not one.
    #[error("HTTPS_PROXY is no address of a proxy: http://[USER:PASSWORD@]HOST:PORT is needed")]
    Proxy,
    /// TLS cannot be set up.
    #[error("cannot prepare the connection to the trust server")]
    Tls(#[source] brig_pki::PkiError),
    /// Nothing answers, or not in time.
    #[error("cannot {what} {host}")]
    Connect {
        /// What was being done.
        what: &'static str,
        /// With whom.
        host: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to {host} broke")]
    Http {
        /// With whom.
        host: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// A request that cannot be made.
    #[error("{0:?} cannot be asked for")]
    Request(String),
    /// More than what was asked for may have.
    #[error("the trust server sent more than {limit} bytes of {name}")]
    TooLarge {
        /// The file.
        name: String,
        /// The limit.
        limit: usize,
    },
    /// The server wants another caller.
    #[error("you are not authorized to perform this operation: server returned 401.")]
    Unauthorized,
    /// The token server does not know this caller.
    #[error("unauthorized: incorrect username or password")]
    Credentials,
    /// A token server that must not see a password.
    #[error("the trust server names a token server that is not reached over TLS: {0:?}")]
    Realm(String),
    /// An answer that is not what was asked for.
    #[error("the trust server's {0} cannot be read")]
    Answer(&'static str),
    /// What was to be published is refused.
    #[error("trust server rejected operation.")]
    Rejected {
        /// What the server says of it, for logs and for who asks.
        detail: String,
    },
    /// The repository is not there, for something that needs it.
    #[error("{0} does not have trust data for {1}")]
    NotFound(String, Gun),
    /// Any other status.
    #[error("unable to reach trust server at this time: {0}.")]
    Status(u16),
}

impl RemoteError {
    /// What the server said of a refusal, if it said anything.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Rejected { detail } if !detail.is_empty() => Some(detail),
            _ => None,
        }
    }

    /// Whether somebody else has published in the meantime: on what he published it may succeed.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        self.detail().is_some_and(|detail| detail.starts_with("VERSION"))
    }
}

impl Categorized for RemoteError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) | Self::Request(_) => ErrorKind::InvalidParameter,
            Self::Unauthorized | Self::Credentials => ErrorKind::Unauthorized,
            Self::Rejected { .. } => ErrorKind::Conflict,
            Self::NotFound(..) => ErrorKind::NotFound,
            Self::Tls(_) => ErrorKind::System,
            _ => ErrorKind::Unavailable,
        }
    }
}

impl fmt::Display for ServerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
