//! The builder's folders.

use std::io;
use std::path::{Path, PathBuf};

use super::error::BuildError;

/// A build's own folders; they go with it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) data: PathBuf,
    pub(super) exec: PathBuf,
    pub(super) policy: PathBuf,
}

impl Drop for Work {
    fn drop(&mut self) {
        let folders = [self.data.clone(), self.exec.clone()];
        let clean = move || {
            for folder in folders {
                if let Err(error) = remove(&folder) {
                    tracing::warn!(error = %brig_types::error::chain(&error), "a build's files stay");
                }
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(clean)),
            Err(_) => clean(),
        }
    }
}

pub(super) fn make_dir(path: &Path) -> Result<(), BuildError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(BuildError::disk("create", path))
}

pub(super) fn remove(path: &Path) -> Result<(), BuildError> {
    match brig_sys::remove::remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BuildError::disk("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Bytes of the files below a folder. What cannot be read, or goes away meanwhile, counts nothing.
pub(super) fn tree_size(dir: &Path, depth: usize) -> u64 {
    const MAX_DEPTH: usize = 256;
    let Ok(items) = std::fs::read_dir(dir) else { return 0 };
    items
        .flatten()
        .map(|item| match item.metadata() {
            Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => tree_size(&item.path(), depth + 1),
            Ok(meta) if meta.is_file() => meta.len(),
            _ => 0,
        })
        .sum()
}
