//! Manifests and configurations by digest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use brig_pki::hash::sha256;
use brig_types::digest::Digest;

use super::files::{self, Durability};
use crate::error::ImageError;
use crate::limits::MAX_CONFIG;

/// Small content-addressed files.
#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, ImageError> {
        files::make_dir(&dir)?;
        brig_files::remove_temporary(&dir).map_err(ImageError::io("cleaning", &dir))?;
        Ok(Self { dir })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// The content, checked against its name; `None` when it is missing or damaged.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(bytes) = files::read(&self.path(digest), MAX_CONFIG)? else {
            return Ok(None);
        };
        if Digest::from_sha256(sha256(&bytes)) == *digest {
            return Ok(Some(bytes));
        }
        tracing::warn!(%digest, "stored content does not match its digest");
        Ok(None)
    }

    /// Adds content; the caller syncs the file system before it refers to it.
    pub(crate) fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        files::replace(&self.path(digest), bytes, Durability::Cached)
    }

    /// Removes everything that is not in `keep`.
    pub(crate) fn retain(&self, keep: &BTreeSet<&Digest>) -> Result<(), ImageError> {
        for name in files::names(&self.dir)? {
            let kept = Digest::parse(&format!("sha256:{name}")).is_ok_and(|d| keep.contains(&d));
            if !kept && !brig_files::is_temporary(name.as_ref()) {
                let path = self.dir.join(name);
                std::fs::remove_file(&path).map_err(ImageError::io("removing", &path))?;
            }
        }
        Ok(())
    }
}
