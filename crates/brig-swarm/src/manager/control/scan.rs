//! The vulnerability database that the managers share: one object that says which file it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brig_proto::brig::ScanDatabase;

use super::{Control, check_version};
use crate::error::ControlError;
use crate::manager::scan_files::{FetchError, stored};

impl Control {
    /// Which file it is; nothing before the first was given to the cluster.
    #[must_use]
    pub fn scan_database(&self) -> Option<Arc<ScanDatabase>> {
        stored(&self.store.view())
    }

    /// Stores another in place of what was read; `version` is 0 when there was nothing.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`] when somebody else was faster.
    pub async fn put_scan_database(
        &self,
        mut database: ScanDatabase,
        version: u64,
    ) -> Result<Arc<ScanDatabase>, ControlError> {
        database.node.clone_from(&self.own_node);
        self.store
            .update(|tx| match stored(tx) {
                Some(old) => {
                    check_version(&*old, version)?;
                    database.id.clone_from(&old.id);
                    database.meta.clone_from(&old.meta);
                    Ok(tx.update(database)?)
                }
                None if version == 0 => {
                    database.meta = None;
                    database.id = brig_types::id::random_hex();
                    Ok(tx.create(database)?)
                }
                None => Err(ControlError::OutOfSequence),
            })
            .await
    }

    /// Lets the other managers fetch files out of this folder, where each is named by its digest.
    pub fn offer_scan_files(&self, folder: PathBuf) {
        self.scan_files.offer(folder);
    }

    /// Fetches the file from one of the other managers into `path`; it is there whole and with the
    /// right digest, or not at all.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_scan_file(
        &self,
        wanted: &ScanDatabase,
        path: &Path,
    ) -> Result<(), FetchError> {
        self.scan_files.fetch(wanted, path).await
    }
}
