//! What a transaction can meet. The texts are those that Docker's clients know.

use std::sync::Arc;

use brig_types::error::{Categorized, ErrorKind};

use crate::backend::BackendError;
use crate::object::Kind;
use crate::sealer::SealError;

/// An error of the store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An object without an id, or with one that is no plain name.
    #[error("invalid {0} id")]
    InvalidId(Kind),
    /// The id is taken.
    #[error("object already exists")]
    AlreadyExists {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// The name is taken.
    #[error("name conflicts with an existing object")]
    NameConflict {
        /// Kind of the object.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// There is no such object.
    #[error("object does not exist")]
    NotFound {
        /// Kind of the object.
        kind: Kind,
        /// The id asked for.
        id: String,
    },
    /// The object changed since it was read.
    #[error("update out of sequence")]
    SequenceConflict {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// The backend did not take the transaction; nothing of it happened.
    #[error("the cluster store refused the change")]
    Commit(#[source] Arc<BackendError>),
    /// A value could not be sealed; nothing of the transaction happened.
    #[error("cannot seal a {kind}")]
    Seal {
        /// Kind of the object.
        kind: Kind,
        /// The keys' reason.
        #[source]
        source: Arc<SealSource>,
    },
    /// A stored value cannot be read: wrong key, altered file.
    #[error("{kind} {id} in the cluster store cannot be read")]
    Damaged {
        /// Kind of the object.
        kind: Kind,
        /// Its id.
        id: String,
        /// The reason.
        #[source]
        source: Arc<SealSource>,
    },
    /// The backend cannot be read.
    #[error("cannot open the cluster store")]
    Open(#[source] Arc<BackendError>),
    /// Too few managers are there; it may be that the change is made once they are back. The text
    /// is Docker's.
    #[error(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoQuorum(#[source] Arc<BackendError>),
    /// Other managers wrote at the same time, again and again.
    #[error("the cluster store is busy: other managers' changes came first each time")]
    Contended,
    /// An earlier failure made the store read-only until the daemon is restarted.
    #[error("the cluster store failed and takes no more changes until brigd is restarted")]
    Failed(#[source] Arc<BackendError>),
    /// The store is closed.
    #[error("the cluster store is closed")]
    Closed,
}

/// A sealing error that can be shared between all transactions it hit.
#[derive(Debug)]
pub struct SealSource(SealError);

impl SealSource {
    pub(crate) fn new(error: impl Into<SealError>) -> Arc<Self> {
        Arc::new(Self(error.into()))
    }
}

impl std::fmt::Display for SealSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SealSource {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Categorized for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidId(_) => ErrorKind::InvalidParameter,
            Self::AlreadyExists { .. }
            | Self::NameConflict { .. }
            | Self::SequenceConflict { .. } => ErrorKind::Conflict,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NoQuorum(_) | Self::Contended | Self::Failed(_) | Self::Closed => {
                ErrorKind::Unavailable
            }
            Self::Commit(_) | Self::Seal { .. } | Self::Damaged { .. } | Self::Open(_) => {
                ErrorKind::System
            }
        }
    }
}
