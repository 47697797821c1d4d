//! Who reaches the engine from elsewhere, and how they get there: identities with a certificate of
//! an authority of the engine's own (the cluster's on its managers), newcomers who ask for one,
//! and SSH keys that are worth a role and no shell.
//!
//! The [`register`] says what counts; a certificate that it does not know opens nothing, whoever
//! signed it. The [`authority`] keeps it: in a file of the engine's, or sealed in the cluster's
//! store where every manager sees a change at once.

pub mod api;
pub mod authority;
pub mod expiring;
mod files;
pub mod newcomers;
mod own_certificate;
pub mod register;
pub mod ssh;

use std::time::Duration;

pub use authority::Authority;
use brig_types::error::{Categorized, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

/// How often the register is held against the cluster's.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the port's own certificate is looked at, in looks at the register.
const CERTIFICATE_LOOKS: u32 = 60;

/// Something about identities that cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Something of that name is there.
    #[error("{0}")]
    Conflict(String),
    /// Not at this time.
    #[error("{0}")]
    Unavailable(String),
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The register on the disk is damaged.
    #[error(
        "the register of identities {} is damaged: put a copy of it back, or remove it and issue all identities anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        #[source]
        source: prost::DecodeError,
    },
    /// A certificate cannot be made.
    #[error("cannot {action}")]
    Pki {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: brig_pki::PkiError,
    },
    /// The cluster's store.
    #[error("cannot keep the register of identities in the cluster's store")]
    Store(#[source] brig_swarm::ControlError),
    /// Work on the disk was interrupted.
    #[error("the work ended unexpectedly")]
    Interrupted,
}

impl Categorized for EnrolError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::InvalidParameter,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Pki { source: brig_pki::PkiError::Csr { .. }, .. } => ErrorKind::InvalidParameter,
            Self::Pki { source: brig_pki::PkiError::Pem { .. }, .. } => ErrorKind::InvalidParameter,
            Self::File { .. } | Self::Damaged { .. } | Self::Pki { .. } | Self::Interrupted => {
                ErrorKind::System
            }
            Self::Store(error) => error.kind(),
        }
    }
}

/// Whether a certificate can be for this name or address.
#[must_use]
pub fn is_host(name: &str) -> bool {
    name.parse::<std::net::IpAddr>().is_ok() || own_certificate::is_dns_name(name)
}

/// Keeps the register as the cluster has it, and the port's own certificate fresh.
pub async fn follow(state: AppState, stop: CancellationToken) {
    let mut looks: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        looks = looks.wrapping_add(1);
        let authority = &state.authority;
        if let Err(error) = authority.sync(&state.swarm).await {
            let error = brig_types::error::chain(&error);
            tracing::warn!(%error, "the register of identities is not up to date");
        }
        if state.config.tls_auto
            && (looks.is_multiple_of(CERTIFICATE_LOOKS) || authority.port_is_behind())
            && let Err(error) = authority.own_certificate(&state).await
        {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "the port's certificate cannot be renewed");
        }
    }
}
