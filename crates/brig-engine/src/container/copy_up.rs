//! Fills a fresh volume with what the image has at its mount point, as docker does.
//!
//! SECURITY: the source lies in the container's root file system: it is opened below the root and
//! walked by descriptors, links are copied as links and never followed. Blocking.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fstat, futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

/// Directories below each other that are followed.
const MAX_DEPTH: usize = 128;
/// Largest list of extended attributes that is taken along.
const MAX_XATTRS: usize = 64 * 1024;

/// Copies the directory `path` of the root file system `rootfs` into the directory `volume`, which
/// is empty, or has a part of the same that was copied before (`again`): that part is replaced.
/// Nothing is done when the image has no such directory.
pub(crate) fn fill(rootfs: &OwnedFd, path: &Path, volume: &Path, again: bool) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let source = match brig_sys::openat::open_in_root(rootfs, path, flags, Mode::empty()) {
        Ok(source) => source,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let target = openat(CWD, volume, flags | OFlags::CLOEXEC, Mode::empty())?;
    copy_dir(source.as_fd(), target.as_fd(), again, 0)
}

fn copy_dir(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    again: bool,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deep"));
    }
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode);
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if again && !kind.is_dir() {
            match unlinkat(target, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match kind {
            FileType::Directory => {
                match mkdirat(target, name, Mode::RWXU) {
                    Err(Errno::EXIST) if again => {}
                    made => made?,
                }
                let inner = openat(source, name, read | OFlags::DIRECTORY, Mode::empty())?;
                let made = openat(target, name, read | OFlags::DIRECTORY, Mode::empty())?;
                copy_dir(inner.as_fd(), made.as_fd(), again, depth + 1)?;
            }
            FileType::RegularFile => {
                let mut from = File::from(openat(source, name, read, Mode::empty())?);
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut to = File::from(openat(target, name, create, Mode::RUSR | Mode::WUSR)?);
                io::copy(&mut from, &mut to)?;
                copy_attributes(from.as_fd(), to.as_fd())?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(source, name, Vec::new())?, target, name)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind => {
                mknodat(target, name, kind, mode, stat.st_rdev)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                chownat(target, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    copy_attributes(source, target)
}

fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(source)?;
    fchown(target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    copy_xattrs(source, target)?;
    let time = |seconds: i64, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    futimens(
        target,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )?;
    Ok(())
}

/// Takes file capabilities along, which is what matters of extended attributes in images.
fn copy_xattrs(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const CAPABILITY: &str = "security.capability";
    let mut value = vec![0_u8; MAX_XATTRS];
    match rustix::fs::fgetxattr(source, CAPABILITY, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            rustix::fs::fsetxattr(target, CAPABILITY, &value, XattrFlags::empty())?;
            Ok(())
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn content_owner_and_mode_come_along_and_links_stay_links() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::create_dir(&volume).unwrap();
        fs::write(dir.path().join("outside"), "outside").unwrap();
        fs::write(root.join("data/sub/file"), "x").unwrap();
        fs::set_permissions(root.join("data/sub/file"), fs::Permissions::from_mode(0o4751))
            .unwrap();
        std::os::unix::fs::chown(root.join("data"), Some(12), Some(34)).unwrap();
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("../../outside", root.join("data/link")).unwrap();
        symlink("/data", root.join("alias")).unwrap();
        let fd = brig_sys::openat::open_dir(&root).unwrap();
        fill(&fd, Path::new("/alias"), &volume, false).unwrap();
        assert_eq!(fs::read(volume.join("sub/file")).unwrap(), b"x");
        assert_eq!(fs::metadata(volume.join("sub/file")).unwrap().mode() & 0o7777, 0o4751);
        let top = fs::metadata(&volume).unwrap();
        assert_eq!((top.uid(), top.gid(), top.mode() & 0o7777), (12, 34, 0o700));
        assert_eq!(fs::read_link(volume.join("link")).unwrap(), Path::new("../../outside"));
    }

    #[test]
    fn a_missing_directory_is_nothing_and_a_part_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        fs::create_dir_all(root.join("data/sub")).unwrap();
        fs::write(root.join("data/sub/file"), "whole").unwrap();
        symlink("file", root.join("data/sub/link")).unwrap();
        fs::create_dir(&volume).unwrap();
        let fd = brig_sys::openat::open_dir(&root).unwrap();
        fill(&fd, Path::new("/nope"), &volume, false).unwrap();
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
        fs::create_dir(volume.join("sub")).unwrap();
        fs::write(volume.join("sub/file"), "wh").unwrap();
        symlink("/outside", volume.join("sub/link")).unwrap();
        fill(&fd, Path::new("/data"), &volume, true).unwrap();
        assert_eq!(fs::read(volume.join("sub/file")).unwrap(), b"whole");
        assert_eq!(fs::read_link(volume.join("sub/link")).unwrap(), Path::new("file"));
    }
}
