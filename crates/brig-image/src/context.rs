//! A build's context: a tar that is kept in a nameless file until it is built from.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::archive::Spool;
use crate::error::ImageError;
use crate::load::through_thread;
use crate::store::ImageStore;

/// The files that a build may use.
#[derive(Debug)]
pub struct BuildContext {
    spool: Spool,
}

impl ImageStore {
    /// Takes a context, compressed or not.
    ///
    /// # Errors
    /// [`ImageError`]: no tar, too large, no space.
    pub async fn build_context(
        &self,
        tar: impl AsyncRead + Send + Unpin,
    ) -> Result<BuildContext, ImageError> {
        let shared = Arc::clone(&self.shared);
        through_thread(tar, move |source| {
            let spool = Spool::fill(source, shared.layers.tmp(), &shared.limits)?;
            Ok(BuildContext { spool })
        })
        .await
    }
}

impl BuildContext {
    /// A small file of the context; `None` when there is none of that name.
    ///
    /// # Errors
    /// Larger than `limit`, or unreadable.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        if !self.spool.contains(name) {
            return Ok(None);
        }
        self.spool.read(name, limit).map(Some)
    }

    /// The whole tar, from its beginning.
    ///
    /// # Errors
    /// When the file cannot be opened once more.
    pub fn tar(&self) -> io::Result<File> {
        // A second description of the nameless file, with a position of its own.
        File::open(format!("/proc/self/fd/{}", self.spool.file().as_fd().as_raw_fd()))
    }
}
