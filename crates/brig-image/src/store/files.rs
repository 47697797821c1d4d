//! The store's files and folders, with the errors of this crate.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

pub(crate) use brig_files::Durability;
use rustix::fs::IFlags;

use crate::error::ImageError;

/// Makes a directory and its parents, readable by root only.
pub(crate) fn make_dir(path: &Path) -> Result<(), ImageError> {
    brig_files::make_folder(path, 0o700).map_err(ImageError::io("creating", path))
}

/// Says that what is made in a directory has nothing to do with each other, so that a file system
/// with block groups (ext4) lays each subdirectory out in a group of its own. Otherwise all of them
/// go where the directory is, search the same bitmaps for each file that they make, and take turns
/// at the group's lock.
///
/// It is advice: a file system that knows nothing of the kind is as good.
pub(crate) fn spread(path: &Path) {
    let flag = || -> io::Result<()> {
        let dir = File::open(path)?;
        let flags = rustix::fs::ioctl_getflags(&dir)?;
        if !flags.contains(IFlags::TOPDIR) {
            rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR)?;
        }
        Ok(())
    };
    if let Err(error) = flag() {
        tracing::debug!(path = %path.display(), %error, "the file system lays directories out its own way");
    }
}

/// Refuses what does not fit: `needed` bytes on the file system of `path`. One that does not say how
/// much it has left is believed to have enough.
pub(crate) fn require_room(path: &Path, needed: u64) -> Result<(), ImageError> {
    let Ok(stat) = rustix::fs::statvfs(path) else { return Ok(()) };
    // Root may use what is kept back from others.
    let free = stat.f_bfree.saturating_mul(stat.f_frsize);
    if stat.f_blocks > 0 && needed > free {
        return Err(ImageError::NoRoom { path: path.to_owned(), needed, free });
    }
    Ok(())
}

/// Makes renames and new names within a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), ImageError> {
    brig_files::sync_folder(path).map_err(ImageError::io("syncing", path))
}

/// Makes everything written to the file system of `path` durable.
pub(crate) fn sync_file_system(path: &Path) -> Result<(), ImageError> {
    let sync = || -> io::Result<()> { Ok(rustix::fs::syncfs(File::open(path)?.as_fd())?) };
    sync().map_err(ImageError::io("syncing", path))
}

/// Replaces a file as a whole. With [`Durability::Cached`] the caller syncs the file system before
/// anything refers to the file.
pub(crate) fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), ImageError> {
    brig_files::replace(path, bytes, 0o600, durability).map_err(ImageError::io("writing", path))
}

/// Reads a file that must not be larger than `limit` bytes; `None` when it is not there.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
    brig_files::read(path, limit).map_err(ImageError::io("reading", path))
}

/// The names in a directory.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, ImageError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // Nothing of ours has a name that is not text.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    };
    list().map_err(ImageError::io("listing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_spread_where_that_is_known() {
        let (known, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let flags = |dir: &Path| rustix::fs::ioctl_getflags(File::open(dir).unwrap());
        let known = File::open(known.path()).unwrap();
        let works = rustix::fs::ioctl_getflags(&known)
            .and_then(|before| rustix::fs::ioctl_setflags(&known, before | IFlags::TOPDIR))
            .is_ok();
        spread(ours.path());
        let is_spread = flags(ours.path()).is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
        assert_eq!(is_spread, works);
        // What is made in it is not spread in turn.
        make_dir(&ours.path().join("layer")).unwrap();
        let below = flags(&ours.path().join("layer"));
        assert!(below.is_ok_and(|flags| !flags.contains(IFlags::TOPDIR)) || !works);
        spread(Path::new("/nonexistent"));
    }

    #[test]
    fn room_is_what_the_file_system_says() {
        let dir = tempfile::tempdir().unwrap();
        require_room(dir.path(), 0).unwrap();
        let error = require_room(dir.path(), u64::MAX).unwrap_err();
        assert!(matches!(error, ImageError::NoRoom { needed: u64::MAX, .. }), "{error}");
        require_room(&dir.path().join("gone"), u64::MAX).unwrap();
    }
}
