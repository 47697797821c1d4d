//! Files that must be complete or absent after a crash.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use brig_files::Durability;

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
    brig_files::read(path, limit).map_err(failed("read", path))
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
    brig_files::replace(path, content, mode, Durability::Synced).map_err(failed("write", path))
}

/// As [`replace`], and overwrites the old content before its blocks are given back. Where the file
/// system writes elsewhere than it is told to, or the disk does, that is as much as can be done.
pub(crate) fn replace_and_wipe(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    finish_wiping(path)?;
    let old = beside(path, ".old");
    match fs::hard_link(path, &old) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("link", path)(error));
        }
        _ => {}
    }
    replace(path, content, mode)?;
    finish_wiping(path)
}

/// Overwrites and removes what an interrupted replacement left beside a file: its old content, or
/// the new one that was not put into its place.
pub(crate) fn finish_wiping(path: &Path) -> Result<(), PkiError> {
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let mut removed = false;
    for left in [beside(path, ".old"), brig_files::temporary(path)] {
        let metadata = match fs::symlink_metadata(&left) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("read", &left)(error)),
        };
        // The old content may still be the present one: the replacement was not done.
        let in_use = fs::symlink_metadata(path).is_ok_and(|current| same(&current, &metadata));
        if metadata.is_file() && !in_use {
            overwrite(&left, metadata.len()).map_err(failed("overwrite", &left))?;
        }
        fs::remove_file(&left).map_err(failed("remove", &left))?;
        removed = true;
    }
    if removed { sync_parent(path) } else { Ok(()) }
}

fn overwrite(path: &Path, length: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    std::io::copy(&mut std::io::repeat(0).take(length.min(MAX_FILE)), &mut file)?;
    file.sync_all()
}

pub(crate) fn create_dir(path: &Path, mode: u32) -> Result<(), PkiError> {
    brig_files::make_folder(path, mode).map_err(failed("create directory", path))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> Result<(), PkiError> {
    brig_files::sync_folder_of(path).map_err(failed("sync the folder of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state that a crash can leave, with the content that the file has then.
    #[test]
    fn an_interrupted_replacement_is_finished_and_nothing_is_left() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("key");
        let (old, new) = (beside(&path, ".old"), brig_files::temporary(&path));
        type Crash = fn(&Path, &Path, &Path);
        let crashes: [(Crash, &[u8]); 4] = [
            (|path, old, _| fs::hard_link(path, old).unwrap(), b"first"),
            (
                |path, old, new| {
                    fs::hard_link(path, old).unwrap();
                    fs::write(new, b"sec").unwrap();
                },
                b"first",
            ),
            (
                |path, old, new| {
                    fs::hard_link(path, old).unwrap();
                    fs::write(new, b"second").unwrap();
                    fs::rename(new, path).unwrap();
                },
                b"second",
            ),
            (
                |path, old, new| {
                    fs::hard_link(path, old).unwrap();
                    fs::write(new, b"second").unwrap();
                    fs::rename(new, path).unwrap();
                    fs::write(old, b"\0\0rst").unwrap();
                },
                b"second",
            ),
        ];
        for (crash, content) in crashes {
            replace_and_wipe(&path, b"first", 0o600).unwrap();
            crash(&path, &old, &new);
            finish_wiping(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn the_old_content_is_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("key");
        replace_and_wipe(&path, b"the old key", 0o600).unwrap();
        // A second name keeps the blocks where they can be looked at.
        let kept = temp.path().join("kept");
        fs::hard_link(&path, &kept).unwrap();
        replace_and_wipe(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), [0; 11]);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
