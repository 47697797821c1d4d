//! Files of the access authority: complete or absent after a crash, with their final mode from
//! the start.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use brig_files::Durability;

use super::EnrolError;

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EnrolError {
    let path = path.to_owned();
    move |source| EnrolError::File { action, path, source }
}

/// Makes a directory that only root can enter.
pub(super) fn make_dir(path: &Path) -> Result<(), EnrolError> {
    brig_files::make_folder(path, 0o700).map_err(failed("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("chmod", path))
}

/// Reads a file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, EnrolError> {
    brig_files::read(path, MAX_FILE).map_err(failed("read", path))
}

/// Replaces a file's content: old or new, never something between.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), EnrolError> {
    brig_files::replace(path, content, mode, Durability::Synced).map_err(failed("write", path))
}
