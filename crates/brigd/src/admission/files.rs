//! Files of the gates, for root alone.

use std::io;
use std::path::Path;

use brig_files::Durability;
pub(super) use brig_files::{read, remove};

/// Replaces a file's content, making its folder.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    brig_files::make_folder(path.parent().unwrap_or(Path::new(".")), 0o700)?;
    brig_files::replace(path, content, 0o600, Durability::Synced)
}
