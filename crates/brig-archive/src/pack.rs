//! From a tree of files to an archive.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Stat};
use tar::EntryType;

use crate::header::{self, Entry};
use crate::node;

/// Deepest tree. Each level holds a descriptor.
const MAX_DEPTH: usize = 512;
const COPY_BUFFER: usize = 128 << 10;

/// Why packing stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A file could not be read.
    #[error("cannot read {name}")]
    Read {
        /// Its name in the archive.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive could not be written: mostly because its reader has gone.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The caller does not want this file to be read.
    #[error("{name} may not be copied")]
    Refused {
        /// Its name in the archive.
        name: String,
    },
    /// Directories in directories without end.
    #[error("{name} lies too deep")]
    TooDeep {
        /// Its name in the archive.
        name: String,
    },
}

struct Pending {
    parent: Arc<OwnedFd>,
    name: CString,
    /// Its name in the archive.
    path: Vec<u8>,
    depth: usize,
}

/// Writes what `top` holds (an `O_PATH` descriptor) with everything below it, under the name
/// `name` in the archive. `.` makes names that begin with `./`, `/` those that begin with `/`, an
/// empty name leaves out the directory itself.
///
/// `refuse` is asked about every file before it is read.
///
/// # Errors
/// [`PackError`]; the archive is cut off then. Files that go away meanwhile are left out.
pub fn pack<W: Write>(
    top: OwnedFd,
    name: &[u8],
    out: W,
    refuse: &dyn Fn(&Stat) -> bool,
) -> Result<W, PackError> {
    let mut packer = Packer { out, refuse, links: HashMap::new() };
    let mut pending = Vec::new();
    packer.add(top, name, 0, &mut pending)?;
    while let Some(next) = pending.pop() {
        match node::peek(&next.parent, next.name.as_bytes()) {
            Ok(fd) => packer.add(fd, &next.path, next.depth, &mut pending)?,
            // Gone since the directory was read.
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(unreadable(&next.path, error.into())),
        }
    }
    header::end(&mut packer.out).map_err(PackError::Write)?;
    packer.out.flush().map_err(PackError::Write)?;
    Ok(packer.out)
}

struct Packer<'a, W> {
    out: W,
    refuse: &'a dyn Fn(&Stat) -> bool,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn add(
        &mut self,
        fd: OwnedFd,
        path: &[u8],
        depth: usize,
        pending: &mut Vec<Pending>,
    ) -> Result<(), PackError> {
        let read = |error: rustix::io::Errno| unreadable(path, error.into());
        let stat = rustix::fs::fstat(&fd).map_err(read)?;
        if (self.refuse)(&stat) {
            return Err(PackError::Refused { name: lossy(path) });
        }
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let Some(kind) = header::kind_of(file_type) else {
            tracing::debug!(name = lossy(path), "a socket is left out of the archive");
            return Ok(());
        };
        match file_type {
            FileType::Directory => self.add_directory(&fd, path, &stat, depth, pending),
            FileType::RegularFile => self.add_file(&fd, path, &stat),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&fd, c"", Vec::new()).map_err(read)?;
                self.head(path, kind, link.as_bytes(), 0, &[], &stat)
            }
            _ => self.head(path, kind, b"", 0, &[], &stat),
        }
    }

    fn add_directory(
        &mut self,
        fd: &OwnedFd,
        path: &[u8],
        stat: &Stat,
        depth: usize,
        pending: &mut Vec<Pending>,
    ) -> Result<(), PackError> {
        if depth >= MAX_DEPTH {
            return Err(PackError::TooDeep { name: lossy(path) });
        }
        let file = node::reopen(fd).map_err(|error| unreadable(path, error))?;
        let mut prefix = path.to_vec();
        if !prefix.is_empty() && !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        if !prefix.is_empty() {
            let xattrs = node::xattrs(&file);
            self.head(&prefix, EntryType::Directory, b"", 0, &xattrs, stat)?;
        }
        let mut names = Vec::new();
        for item in Dir::read_from(&file).map_err(|error| unreadable(path, error.into()))? {
            let item = item.map_err(|error| unreadable(path, error.into()))?;
            let name = item.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name.to_owned());
            }
        }
        // The last one is taken first.
        names.sort_unstable_by(|a, b| b.cmp(a));
        let parent = Arc::new(OwnedFd::from(file));
        pending.extend(names.into_iter().map(|name| {
            let mut path = prefix.clone();
            path.extend_from_slice(name.as_bytes());
            Pending { parent: Arc::clone(&parent), name, path, depth: depth + 1 }
        }));
        Ok(())
    }

    fn add_file(&mut self, fd: &OwnedFd, path: &[u8], stat: &Stat) -> Result<(), PackError> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                return self.head(path, EntryType::Link, &first, 0, &[], stat);
            }
            self.links.insert(key, path.to_vec());
        }
        let mut file = node::reopen(fd).map_err(|error| unreadable(path, error))?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.head(path, EntryType::Regular, b"", size, &node::xattrs(&file), stat)?;
        let mut buffer = vec![0_u8; COPY_BUFFER];
        let mut left = size;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let window = buffer.get_mut(..want).unwrap_or_default();
            let got = match file.read(window) {
                // The header has promised more.
                Ok(0) => {
                    let shrunk = io::Error::other("the file became shorter while it was read");
                    return Err(unreadable(path, shrunk));
                }
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(path, error)),
            };
            self.out.write_all(window.get(..got).unwrap_or_default()).map_err(PackError::Write)?;
            left = left.saturating_sub(u64::try_from(got).unwrap_or(left));
        }
        header::pad(&mut self.out, size).map_err(PackError::Write)
    }

    fn head(
        &mut self,
        name: &[u8],
        kind: EntryType,
        link: &[u8],
        size: u64,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        stat: &Stat,
    ) -> Result<(), PackError> {
        let entry = Entry { name, kind, link, size, xattrs };
        header::write(&mut self.out, &entry, stat).map_err(PackError::Write)
    }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn unreadable(path: &[u8], source: io::Error) -> PackError {
    PackError::Read { name: lossy(path), source }
}
