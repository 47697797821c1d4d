//! Why a registry gives or takes nothing.

use brig_pki::PkiError;
use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind};

use crate::remote::RemoteError;

/// Why a registry gives or takes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Not a registry's name.
    #[error("{0:?} is not a registry's name")]
    Name(String),
    /// The certificates for it.
    #[error("the TLS files in {folder} cannot be used")]
    Setup {
        /// Where they are.
        folder: String,
        /// Why not.
        #[source]
        source: PkiError,
    },
    /// One of these files.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Nothing answers, or the connection broke.
    #[error("cannot reach the registry {host}")]
    Unreachable {
        /// With whom.
        host: String,
        /// Why not.
        #[source]
        source: RemoteError,
    },
    /// It wants another caller.
    #[error("{host} denies access: log in with `brig login {host}`")]
    Unauthorized {
        /// Who.
        host: String,
    },
    /// The token server does not know this caller.
    #[error("{host}: unauthorized: incorrect username or password")]
    Credentials {
        /// For whom.
        host: String,
    },
    /// A token server that must not see a password.
    #[error("the registry names a token server that is not reached over TLS: {0:?}")]
    Realm(String),
    /// More than what was asked for may have.
    #[error("the registry sent more than {limit} bytes of {name}")]
    TooLarge {
        /// What.
        name: String,
        /// The limit.
        limit: usize,
    },
    /// Other bytes than were asked for.
    #[error("the registry sent {found} in place of {wanted}")]
    Digest {
        /// What came.
        found: Digest,
        /// What was asked for.
        wanted: Digest,
    },
    /// An answer that is not what was asked for.
    #[error("the registry's {0} cannot be used")]
    Answer(&'static str),
    /// A redirect that is not followed.
    #[error("the registry sends its caller to {0:?}, which is not safe")]
    Redirect(String),
    /// Any other refusal.
    #[error("{host} answers {method} {path} with {status}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Status {
        /// Who.
        host: String,
        /// What was asked.
        method: &'static str,
        /// Of what.
        path: String,
        /// The answer.
        status: u16,
        /// What it says.
        detail: String,
    },
}

impl Categorized for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::InvalidParameter,
            Self::Unauthorized { .. } | Self::Credentials { .. } => ErrorKind::Unauthorized,
            Self::Setup { .. } | Self::File { .. } => ErrorKind::System,
            Self::Digest { .. } => ErrorKind::Forbidden,
            _ => ErrorKind::Unavailable,
        }
    }
}
