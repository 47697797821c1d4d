//! Files that must be complete or absent after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::PkiError;

/// Upper bound for a certificate or key file.
pub(crate) const MAX_FILE: u64 = 1 << 20;

pub(crate) fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> PkiError + use<'a> {
    move |source| PkiError::File { action, path: path.to_owned(), source }
}

/// Reads a whole file of at most `limit` bytes; `None` if there is none.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, PkiError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(failed("read", path))?;
    if content.len() as u64 > limit {
        let error = std::io::Error::new(ErrorKind::FileTooLarge, "the file is too large");
        return Err(failed("read", path)(error));
    }
    Ok(Some(content))
}

/// Writes and syncs a new file with its final mode, replacing an older one of that exact name.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("remove", path)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed("create", path))?;
    // The mode given to open is cut by the process's umask.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("chmod", path))?;
    file.write_all(content).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Renames within one directory and makes that durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), PkiError> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    sync_parent(to)
}

/// Replaces a file's content: old or new, never something between.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let temporary = temporary(path);
    write_new(&temporary, content, mode)?;
    rename(&temporary, path)
}

pub(crate) fn create_dir(path: &Path, mode: u32) -> Result<(), PkiError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(failed("create directory", path))
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> Result<(), PkiError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(failed("sync", parent))
}
