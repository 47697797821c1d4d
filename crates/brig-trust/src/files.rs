//! Files for one user alone: 0700 around 0600.

use std::io;
use std::path::Path;

pub(crate) use brig_files::Durability;

/// Reads a file of at most `limit` bytes; `None` if there is none.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    brig_files::read(path, limit as u64)
}

/// Replaces a file's content, making the folders to it.
pub(crate) fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    brig_files::make_folder(path.parent().unwrap_or(Path::new(".")), 0o700)?;
    brig_files::replace(path, content, 0o600, durability)
}
