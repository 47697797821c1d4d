//! Changes as they become durable.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::backend::Revision;
use crate::object::Object;

/// Transactions that a slow watcher may be behind before it has to start over.
pub(crate) const WATCH_BACKLOG: usize = 4096;

/// What happened to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new.
    Created(Object),
    /// It has a new value.
    Updated {
        /// The value before.
        old: Object,
        /// The value now.
        new: Object,
    },
    /// It is gone; this was its last value.
    Removed(Object),
}

impl Change {
    /// The object: as it is now, or as it last was.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Created(object) | Self::Removed(object) | Self::Updated { new: object, .. } => {
                object
            }
        }
    }
}

/// One transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its revision.
    pub revision: Revision,
    /// What it did, each object once, in the order of the transaction.
    pub changes: Vec<Change>,
}

/// Why a watcher gets no next transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Transactions were missed: look at the state again and watch from there.
    #[error("the watcher fell behind")]
    Lagged,
    /// The store is closed.
    #[error("the cluster store is closed")]
    Closed,
}

/// Receives every transaction after the moment it was made.
#[derive(Debug)]
pub struct Watcher(pub(crate) broadcast::Receiver<Arc<Commit>>);

impl Watcher {
    /// The next transaction. May be cancelled without losing one.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next(&mut self) -> Result<Arc<Commit>, WatchError> {
        self.0.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(_) => WatchError::Lagged,
            broadcast::error::RecvError::Closed => WatchError::Closed,
        })
    }

    /// The next transaction if there is one already.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Commit>>, WatchError> {
        match self.0.try_recv() {
            Ok(commit) => Ok(Some(commit)),
            Err(broadcast::error::TryRecvError::Empty) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Err(WatchError::Lagged),
            Err(broadcast::error::TryRecvError::Closed) => Err(WatchError::Closed),
        }
    }
}
