//! Small files that are the old or the new one after a crash, never something between, and that
//! have their final mode from the start.
//!
//! A file is written under a temporary name beside its own, `.NAME.tmp`, synced, renamed, and its
//! folder synced. That name has another ending than the file's, so that whoever looks for files by
//! their endings finds none that are half written. There is one temporary name for each file, under a lock: two writers take turns,
//! and what a writer that was killed left is used by the next one, so that nothing piles up.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// How the names of temporary files end. They begin with a dot.
const ENDING: &str = ".tmp";

/// What a new content has to survive once the call has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process: it is in the page cache.
    Cached,
    /// A loss of power: it is on the disk.
    Synced,
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
///
/// # Errors
/// [`ErrorKind::FileTooLarge`], and what opening and reading fail with.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > limit {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(Some(content))
}

/// Puts a content into the place of a file's, or makes the file. `mode` counts whatever the umask
/// is. Blocks while somebody else replaces the same file.
///
/// # Errors
/// What the file system says. The file is as it was then, unless its folder could not be synced.
pub fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = open_temporary(&temporary)?;
    let mut write = || {
        file.set_len(0)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // A disk that is full is not to be filled with halves; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    })?;
    match durability {
        Durability::Cached => Ok(()),
        Durability::Synced => sync_folder_of(path),
    }
}

/// The temporary file, which is this process's alone until it is closed.
fn open_temporary(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
    };
    loop {
        let file = match open() {
            // Somebody else's that was left here; the folder says whether it may be removed.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                fs::remove_file(path)?;
                open()?
            }
            other => other?,
        };
        // Network file systems may have no locks; the last writer wins there.
        let _ = file.lock();
        let own = file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(found) if (found.dev(), found.ino()) == (own.dev(), own.ino()) => return Ok(file),
            // Whoever had the lock before has put it into its place.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes a file for good; answers whether there was one.
///
/// # Errors
/// What the file system says.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(()) => sync_folder_of(path).map(|()| true),
    }
}

/// Makes a folder and those that lead to it; fine if it is there.
///
/// # Errors
/// What the file system says.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Has the names within a folder survive a loss of power.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// [`sync_folder`] for the one that a file or folder is in.
///
/// # Errors
/// What the file system says.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    sync_folder(folder_of(path))
}

/// Where a file is written before it gets its name.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ENDING);
    folder_of(path).join(name)
}

/// Whether a name is one of a file that is being written, or was when its writer died.
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(ENDING.as_bytes())
}

/// Removes what writers that were killed left in a folder where nobody writes now.
///
/// # Errors
/// What the file system says.
pub fn remove_temporary(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_temporary(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read(&path, 10).unwrap(), None);
        for (content, mode, durability) in [
            (&b"first"[..], 0o666, Durability::Synced),
            (b"", 0o600, Durability::Cached),
            (b"the third", 0o640, Durability::Synced),
        ] {
            replace(&path, content, mode, durability).unwrap();
            assert_eq!(read(&path, 10).unwrap().unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(read(&path, 8).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn what_a_dead_writer_left_is_used_and_nothing_of_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(temporary(&path), "longer than what comes now").unwrap();
        fs::set_permissions(temporary(&path), Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"short", 0o600, Durability::Synced).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);

        fs::write(temporary(&path), "again").unwrap();
        remove_temporary(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("file"), folder.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, temporary(&path)).unwrap();
        assert!(replace(&path, b"x", 0o600, Durability::Synced).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn where_it_cannot_be_put_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x", 0o600, Durability::Cached).is_err());
        assert_eq!(names(folder.path()), ["folder"]);
    }

    #[test]
    fn many_writers_leave_one_whole_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    for length in 1..40 {
                        let content = vec![writer; length * 100];
                        replace(path, &content, 0o600, Durability::Cached).unwrap();
                        let found = read(path, 1 << 20).unwrap().unwrap();
                        assert_eq!(found.len() % 100, 0);
                        assert!(found.iter().all(|byte| Some(byte) == found.first()));
                    }
                });
            }
        });
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn paths_without_a_folder_are_of_this_one() {
        assert_eq!(temporary(Path::new("file")), Path::new("./.file.tmp"));
        assert_eq!(temporary(Path::new("/file")), Path::new("/.file.tmp"));
        assert!(is_temporary(OsStr::new(".x.tmp")) && !is_temporary(OsStr::new("x.tmp")));
    }
}
