//! Looking at and opening one file that is held by an `O_PATH` descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

/// Largest extended attribute, as the kernel bounds it.
const MAX_XATTR: usize = 64 << 10;
/// Attributes that travel: capabilities of programs, and what users attached.
const XATTRS: [&[u8]; 2] = [b"security.capability", b"user."];

/// Names and values of extended attributes.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The magic link to what a descriptor holds; it resolves without a path walk.
pub(crate) fn magic(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Opens a name in a directory without following a link and without acting on what it is.
pub(crate) fn peek(dir: &impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// Opens a regular file or directory, known to be one, for reading.
pub(crate) fn reopen(fd: &impl AsFd) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(magic(fd), flags, Mode::empty())?))
}

/// The extended attributes that belong into an archive.
pub(crate) fn xattrs(file: &File) -> Xattrs {
    let mut names = vec![0_u8; MAX_XATTR];
    // File systems without attributes say so by an error.
    let Ok(length) = rustix::fs::flistxattr(file, &mut names) else { return Vec::new() };
    names.truncate(length);
    names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && is_carried(name))
        .filter_map(|name| {
            let mut value = vec![0_u8; MAX_XATTR];
            let length = rustix::fs::fgetxattr(file, name, &mut value).ok()?;
            value.truncate(length);
            Some((name.to_vec(), value))
        })
        .collect()
}

/// Whether an attribute may be set from an archive.
pub(crate) fn is_carried(name: &[u8]) -> bool {
    XATTRS.iter().any(|known| match known.ends_with(b".") {
        true => name.starts_with(known),
        false => name == *known,
    })
}
