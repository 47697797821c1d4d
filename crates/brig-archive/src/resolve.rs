//! Paths that a caller chose: docker's rules for their ends, and opening them below a root.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::node;

/// Most symbolic links on the way, as the kernel has it.
const MAX_LINKS: usize = 40;

/// What symbolic links may do while a path is opened below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The directory is the root of all paths: links from the root and `..` stay inside.
    InRoot,
    /// Links that lead out are errors: for a folder among others.
    Beneath,
}

impl Links {
    const fn flags(self) -> ResolveFlags {
        match self {
            Self::InRoot => ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS),
            Self::Beneath => ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS),
        }
    }
}

/// Opens `path` below `root` with an `O_PATH` descriptor.
///
/// # Errors
/// What openat2(2) answers.
pub fn open(
    root: &impl AsFd,
    path: &Path,
    links: Links,
    extra: OFlags,
) -> rustix::io::Result<OwnedFd> {
    // EAGAIN: a rename elsewhere raced with `..`. Not for ever.
    const ATTEMPTS: u32 = 64;
    let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut attempt = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), links.flags()) {
            Err(rustix::io::Errno::AGAIN) if attempt < ATTEMPTS => attempt += 1,
            Err(rustix::io::Errno::INTR) => {}
            answer => return answer,
        }
    }
}

/// The path from the root without `.`, `..` and doubled slashes, by its text alone.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The last name of a path as Go's `filepath.Base` gives it: `.` for `a/.`, `/` for the root.
#[must_use]
pub fn base_name(path: &Path) -> &OsStr {
    let mut bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return OsStr::new(".");
    }
    while let [rest @ .., b'/'] = bytes {
        bytes = rest;
    }
    match bytes.iter().rposition(|byte| *byte == b'/') {
        _ if bytes.is_empty() => OsStr::new("/"),
        Some(at) => OsStr::from_bytes(bytes.get(at + 1..).unwrap_or_default()),
        None => OsStr::from_bytes(bytes),
    }
}

/// A path in a root that somebody wants to be looked at or copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    path: PathBuf,
    name: Vec<u8>,
    follow: bool,
}

impl Wanted {
    /// Reads a path. A link at its end is meant itself, unless `/` or `/.` follow.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let given = Path::new(text);
        let path = clean(given);
        let dot = base_name(given) == ".";
        let follow = dot || text.ends_with('/') || path == Path::new("/");
        let name = if dot { b".".to_vec() } else { base_name(&path).as_bytes().to_vec() };
        Self { path, name, follow }
    }

    /// The clean path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that the archive and the client use for it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Opens it in `root` with an `O_PATH` descriptor.
    ///
    /// # Errors
    /// What openat2(2) answers.
    pub fn open(&self, root: &impl AsFd) -> rustix::io::Result<OwnedFd> {
        let extra = if self.follow {
            // A slash at the end asserts a directory.
            OFlags::DIRECTORY
        } else {
            OFlags::NOFOLLOW
        };
        open(root, &self.path, Links::InRoot, extra)
    }
}

/// Where a path leads when every link in it is followed inside `root`. What is not there is taken
/// as it stands. For telling people: it may have changed when it is used.
///
/// # Errors
/// Too many links.
pub fn evaluate(root: &impl AsFd, path: &Path) -> io::Result<PathBuf> {
    let mut todo: Vec<Vec<u8>> = parts(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop() {
        match part.as_slice() {
            b"." => {}
            b".." => {
                done.pop();
            }
            name => {
                let next = done.join(OsStr::from_bytes(name));
                let link = open(root, &next, Links::InRoot, OFlags::NOFOLLOW)
                    .and_then(|fd| rustix::fs::readlinkat(&fd, c"", Vec::new()));
                match link {
                    Ok(link) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(rustix::io::Errno::LOOP.into());
                        }
                        let link = PathBuf::from(OsStr::from_bytes(link.as_bytes()));
                        if link.is_absolute() {
                            done = PathBuf::from("/");
                        }
                        todo.extend(parts(&link));
                    }
                    // No link, or nothing there.
                    Err(_) => done = next,
                }
            }
        }
    }
    Ok(done)
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<Vec<u8>> {
    path.as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .map(<[u8]>::to_vec)
        .rev()
        .collect()
}

/// Opens the directory `path` below `root`, making what is missing.
pub(crate) fn make_dirs(
    root: &impl AsFd,
    path: &Path,
    links: Links,
    owner: Option<(u32, u32)>,
) -> io::Result<OwnedFd> {
    let mut current = open(root, Path::new("."), links, OFlags::DIRECTORY)?;
    let mut done = PathBuf::new();
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        done.push(name);
        current = match open(root, &done, links, OFlags::DIRECTORY) {
            Err(rustix::io::Errno::NOENT) => {
                match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {
                        let made = node::peek(&current, name.as_bytes())?;
                        if let Some((uid, gid)) = owner {
                            let (uid, gid) =
                                (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
                            let flags = rustix::fs::AtFlags::EMPTY_PATH;
                            rustix::fs::chownat(&made, c"", Some(uid), Some(gid), flags)?;
                        }
                    }
                    Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                open(root, &done, links, OFlags::DIRECTORY)?
            }
            answer => answer?,
        };
    }
    Ok(current)
}
