//! Why there is no inventory.

use std::io;
use std::path::{Path, PathBuf};

use brig_types::error::{Categorized, ErrorKind};

/// Why an inventory cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    /// A file or folder of the store.
    #[error("{action} {}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The image cannot be understood.
    #[error("the image cannot be read")]
    Image(#[source] brig_scan::inventory::ScanError),
    /// It does not fit into the form in which it is kept.
    #[error("the inventory cannot be kept")]
    Kept(#[source] brig_scan::kept::KeptError),
    /// Work ended unexpectedly.
    #[error("the work ended unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}

impl InventoryError {
    pub(super) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl Categorized for InventoryError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::System
    }
}
