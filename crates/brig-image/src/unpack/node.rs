//! The system calls that make one file of a layer, all relative to its parent's handle.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};

/// Bytes that are copied at a time.
pub(super) const COPY_BUFFER: usize = 128 << 10;
/// Where [`path_below`] learns what a handle's path is.
const FD_DIR: &str = "/proc/self/fd";

/// Who owns a file and what may be done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) mtime: Timespec,
}

impl Attributes {
    pub(super) fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }

    const fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o7777)
    }
}

/// What is at a name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Nothing,
    Directory,
    /// Overlayfs' mark for "deleted": a character device 0:0.
    Whiteout,
    Other,
}

/// Opens a directory below `at` without following any symbolic link.
pub(super) fn open_dir(at: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    fs::openat2(
        at,
        if path.is_empty() { b"." } else { path },
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
}

/// Opens a directory by a path on which symbolic links are followed as if `root` were `/`.
///
/// SECURITY: the kernel resolves them within `root`; `..` and absolute targets lead no further up.
pub(super) fn open_dir_in_root(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    fs::openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Where an open directory is below `root`, without symbolic links.
pub(super) fn path_below(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = |fd: BorrowedFd<'_>| {
        std::fs::read_link(std::path::Path::new(FD_DIR).join(fd.as_raw_fd().to_string()))
    };
    let (root, dir) = (path(root)?, path(dir)?);
    let below = dir.strip_prefix(&root).map_err(io::Error::other)?;
    Ok(below.as_os_str().as_bytes().to_vec())
}

/// Moves what is at a name to a new name of another directory of the file system.
pub(super) fn move_away(
    parent: BorrowedFd<'_>,
    name: &[u8],
    target: BorrowedFd<'_>,
    new_name: &str,
) -> io::Result<()> {
    Ok(fs::renameat_with(parent, name, target, new_name, fs::RenameFlags::NOREPLACE)?)
}

/// Whether two names are one file.
pub(super) fn same(
    parent: BorrowedFd<'_>,
    name: &[u8],
    other_parent: BorrowedFd<'_>,
    other_name: &[u8],
) -> io::Result<bool> {
    let one = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let other = fs::statat(other_parent, other_name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Whether a regular file is at a name.
pub(super) fn is_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

pub(super) fn look(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Existing> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Existing::Directory,
            FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
            _ => Existing::Other,
        }),
        Err(rustix::io::Errno::NOENT) => Ok(Existing::Nothing),
        Err(error) => Err(error.into()),
    }
}

/// Removes whatever is at a name, with everything below it.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8], existing: Existing) -> io::Result<()> {
    match existing {
        Existing::Nothing => Ok(()),
        Existing::Whiteout | Existing::Other => Ok(fs::unlinkat(parent, name, AtFlags::empty())?),
        Existing::Directory => brig_sys::remove::remove_tree_at(parent, name),
    }
}

pub(super) fn make_dir(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    let dir = open_dir(parent, name)?;
    fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
    Ok(dir)
}

pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fs::fsetxattr(dir, "trusted.overlay.opaque", b"y", fs::XattrFlags::empty())?)
}

pub(super) fn make_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Owner, mode and attributes of an open file or directory. The order matters: a change of owner
/// clears setuid bits and file capabilities.
pub(super) fn set_attributes(
    file: BorrowedFd<'_>,
    attributes: &Attributes,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<()> {
    fs::fchown(file, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
    fs::fchmod(file, attributes.mode())?;
    for (name, value) in xattrs {
        match fs::fsetxattr(file, name.as_slice(), value, fs::XattrFlags::empty()) {
            Ok(()) => {}
            // COMPAT: docker too goes on where the file system has no such attributes.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                tracing::debug!(name = %String::from_utf8_lossy(name), "attribute not supported");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Owner, mode and time of something that cannot be opened: a link, device or pipe.
fn set_attributes_at(
    parent: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
    is_symlink: bool,
) -> io::Result<()> {
    fs::chownat(
        parent,
        name,
        Some(Uid::from_raw(attributes.uid)),
        Some(Gid::from_raw(attributes.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if !is_symlink {
        // Nobody else works in the unfinished layer, so the name still is what was just made.
        fs::chmodat(parent, name, attributes.mode(), AtFlags::empty())?;
    }
    Ok(fs::utimensat(parent, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn make_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let fd = fs::openat(
        parent,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )?;
    Ok(File::from(fd))
}

pub(super) fn make_symlink(
    parent: BorrowedFd<'_>,
    name: &[u8],
    target: &[u8],
    attributes: &Attributes,
) -> io::Result<()> {
    fs::symlinkat(target, parent, name)?;
    set_attributes_at(parent, name, attributes, true)
}

pub(super) fn make_special(
    parent: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
    device: (u32, u32),
    attributes: &Attributes,
) -> io::Result<()> {
    let number = fs::makedev(device.0, device.1);
    fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), number)?;
    set_attributes_at(parent, name, attributes, false)
}

pub(super) fn make_hard_link(
    target_dir: BorrowedFd<'_>,
    target: &[u8],
    parent: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<()> {
    Ok(fs::linkat(target_dir, target, parent, name, AtFlags::empty())?)
}

pub(super) fn set_times(file: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    Ok(fs::futimens(file, &attributes.times())?)
}

/// Why a copy stopped: the archive's fault or the disk's.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies exactly `length` bytes to `file`'s position by way of `buffer`; with `holes` runs of zeros
/// are skipped over.
pub(super) fn copy<R: Read>(
    source: &mut R,
    file: &mut File,
    length: u64,
    holes: bool,
    buffer: &mut [u8],
) -> Result<(), CopyError> {
    let mut left = length;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let window = buffer.get_mut(..want).unwrap_or_default();
        let read = match source.read(window) {
            Ok(0) => return Err(CopyError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        let data = window.get(..read).unwrap_or_default();
        let read = u64::try_from(read).unwrap_or(left);
        if holes && data.iter().all(|&b| b == 0) {
            let step = i64::try_from(read).unwrap_or(i64::MAX);
            file.seek(SeekFrom::Current(step)).map_err(CopyError::Write)?;
        } else {
            file.write_all(data).map_err(CopyError::Write)?;
        }
        left = left.saturating_sub(read);
    }
    Ok(())
}

pub(super) fn set_len(file: &File, length: u64) -> io::Result<()> {
    Ok(fs::ftruncate(file.as_fd(), length)?)
}
