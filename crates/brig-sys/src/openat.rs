//! Opening paths that somebody else chose, without leaving a directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat2,
};

/// Opens a directory as the root for the functions below (`O_PATH`).
///
/// # Errors
/// What the kernel answers.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens `path` as a process whose root directory is `root` would see it: absolute links and `..`
/// stay inside. Magic links are refused.
///
/// # Errors
/// What openat2(2) answers.
pub fn open_in_root(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    resolve(root, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens `path` below `dir`; a symbolic link anywhere in it, `..` that leaves or a path from the
/// root are errors.
///
/// # Errors
/// `ELOOP` for a link, `EXDEV` for a path that leaves, else what openat2(2) answers.
pub fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    resolve(dir, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn resolve(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // The kernel answers EAGAIN when a rename elsewhere raced with `..`: try again, but not for
    // ever.
    const ATTEMPTS: u32 = 64;
    let mut attempt = 0;
    loop {
        match openat2(dir.as_fd(), path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) if attempt < ATTEMPTS => attempt += 1,
            Err(rustix::io::Errno::INTR) => {}
            answer => return Ok(answer?),
        }
    }
}

/// Reads a whole regular file below `root`, resolved as by [`open_in_root`].
///
/// # Errors
/// `NotFound` and the like; `InvalidInput` when it is no regular file; `FileTooLarge` when it has
/// more than `limit` bytes.
pub fn read_in_root(root: impl AsFd, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // SECURITY: looked at before it is opened. A container may make device nodes that it cannot
    // open itself, and some devices act on being opened.
    let found = open_in_root(root, path, OFlags::PATH, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let mut content = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(content)
}

/// Makes a directory and what is missing above it, resolved inside `root`; the directories that
/// are made get this owner and mode. Returns an `O_PATH` descriptor of the last one.
///
/// # Errors
/// `InvalidInput` for `..`; what the kernel answers, for example when something in the way is no
/// directory.
pub fn create_dir_all_in_root(
    root: impl AsFd,
    path: &Path,
    owner: (u32, u32),
    mode: u32,
) -> io::Result<OwnedFd> {
    let open = OFlags::PATH | OFlags::DIRECTORY;
    let mut done = std::path::PathBuf::from(".");
    let mut current = open_in_root(&root, &done, open, Mode::empty())?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has a .."));
            }
        };
        done.push(name);
        current = match open_in_root(&root, &done, open, Mode::empty()) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match mkdirat(&current, name, Mode::from_raw_mode(mode)) {
                    Ok(()) => chownat(
                        &current,
                        name,
                        Some(Uid::from_raw(owner.0)),
                        Some(Gid::from_raw(owner.1)),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )?,
                    Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open_in_root(&root, &done, open, Mode::empty())?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn links_stay_inside() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(top.path().join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        symlink("/../../secret", root.join("etc/up")).unwrap();
        symlink("/secret", root.join("etc/abs")).unwrap();
        let fd = open_dir(&root).unwrap();
        for path in ["etc/up", "/etc/abs", "../secret", "/secret"] {
            assert_eq!(read_in_root(&fd, Path::new(path), 100).unwrap(), b"inside", "{path}");
        }
        assert_eq!(
            read_in_root(&fd, Path::new("secret"), 5).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert!(read_in_root(&fd, Path::new("etc"), 5).is_err());
        for path in ["etc/abs", "../secret", "/secret"] {
            assert!(
                open_beneath(&fd, Path::new(path), OFlags::RDONLY, Mode::empty()).is_err(),
                "{path}"
            );
        }
        open_beneath(&fd, Path::new("secret"), OFlags::RDONLY, Mode::empty()).unwrap();
    }

    #[test]
    fn devices_and_pipes_are_not_opened() {
        let top = tempfile::tempdir().unwrap();
        let mode = Mode::from_raw_mode(0o600);
        // No driver has this number: opening it would answer ENXIO.
        let number = rustix::fs::makedev(4000, 1);
        for (name, kind) in [("device", FileType::CharacterDevice), ("pipe", FileType::Fifo)] {
            rustix::fs::mknodat(CWD, top.path().join(name), kind, mode, number).unwrap();
            let fd = open_dir(top.path()).unwrap();
            let error = read_in_root(&fd, Path::new(name), 100).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
    }

    #[test]
    fn directories_are_made_inside() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        symlink("/real", root.join("link")).unwrap();
        let fd = open_dir(&root).unwrap();
        create_dir_all_in_root(&fd, Path::new("/link/a/b"), (1234, 4321), 0o750).unwrap();
        let made = fs::metadata(root.join("real/a/b")).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 4321, 0o750));
        assert_eq!(fs::metadata(root.join("real")).unwrap().uid(), 0);
        assert!(create_dir_all_in_root(&fd, Path::new("/a/../b"), (0, 0), 0o755).is_err());
        create_dir_all_in_root(&fd, Path::new("/"), (0, 0), 0o755).unwrap();
    }
}
