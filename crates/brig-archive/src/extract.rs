//! From an archive to a tree of files.
//!
//! Names and links of the archive are somebody else's: each entry's directory is opened below the
//! root by the kernel, and the entry itself is made without following anything that is there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use tar::EntryType;

use crate::budget::HeaderBudget;
use crate::node::{self, Xattrs};
use crate::resolve::{self, Links};

const COPY_BUFFER: usize = 128 << 10;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// Bytes of the paths of directories whose time is set at the end, each counted with
/// [`DIRECTORY_COST`] besides; what comes after them keeps the time of its making.
const MAX_DIRECTORIES: usize = 64 << 20;
const DIRECTORY_COST: usize = 64;

/// Whose the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// As the archive says.
    Archive,
    /// One user and group.
    Fixed(u32, u32),
    /// Whoever extracts.
    Caller,
}

/// How to extract.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// What links may do.
    pub links: Links,
    /// Whose the files become.
    pub owner: Owner,
    /// Refuse to put a file where a directory is, and the other way round.
    pub keep_kinds: bool,
    /// Names that begin with the first one begin with the second one instead, as docker's CLI
    /// does for a copy under another name.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why extracting stopped. What was extracted by then stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The archive could not be read or is none.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// An entry's name or link leaves the destination.
    #[error("invalid entry {0:?}: it leads outside of the destination")]
    Outside(String),
    /// An entry of a kind that archives of files do not have.
    #[error("unhandled tar header type {kind} of {name:?}")]
    Kind {
        /// The entry.
        name: String,
        /// Its type byte.
        kind: u8,
    },
    /// A directory is where a file would go.
    #[error("cannot overwrite directory {path:?} with non-directory {path:?}")]
    OverDirectory {
        /// Where.
        path: PathBuf,
    },
    /// A file is where a directory would go.
    #[error("cannot overwrite non-directory {path:?} with directory {path:?}")]
    OverFile {
        /// Where.
        path: PathBuf,
    },
    /// An entry could not be made.
    #[error("cannot extract {path:?}")]
    Write {
        /// The entry's place.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Extracts an archive into the directory `dest` below `root`, which exists.
///
/// # Errors
/// [`ExtractError`].
pub fn extract<R: Read>(
    source: R,
    root: &impl AsFd,
    dest: &Path,
    options: &ExtractOptions,
) -> Result<(), ExtractError> {
    let budget = HeaderBudget::default();
    budget.headers();
    let mut archive = tar::Archive::new(budget.limit(source));
    let dest = dest.strip_prefix("/").unwrap_or(dest).to_owned();
    let mut extractor =
        Extractor { root, dest, options, parent: None, directories: Vec::new(), kept: 0 };
    let mut entries = archive.entries().map_err(ExtractError::Read)?;
    loop {
        budget.headers();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(ExtractError::Read)?;
        budget.content();
        extractor.entry(&mut entry)?;
    }
    extractor.finish();
    // Who sends waits until everything was taken, padding included.
    budget.content();
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ExtractError::Read)?;
    Ok(())
}

struct Extractor<'a, F> {
    root: &'a F,
    /// Relative to the root.
    dest: PathBuf,
    options: &'a ExtractOptions,
    /// The directory of the last entry: most entries follow their siblings.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Their times change while they are filled.
    directories: Vec<(PathBuf, Timespec)>,
    /// What their paths take in memory.
    kept: usize,
}

#[derive(Clone, Copy)]
struct Attributes {
    owner: Option<(u32, u32)>,
    mode: Mode,
    mtime: Timespec,
}

impl Attributes {
    const fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }
}

impl<F: AsFd> Extractor<'_, F> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ExtractError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let original = entry.path_bytes().into_owned();
        let name = self.renamed(&original);
        let Some(relative) = inside(&name) else {
            return Err(ExtractError::Outside(String::from_utf8_lossy(&original).into_owned()));
        };
        let path = self.dest.join(&relative);
        let failed = |source| ExtractError::Write { path: Path::new("/").join(&path), source };
        let Some(file_name) = relative.file_name() else {
            // The destination itself: only its content is copied.
            return Ok(());
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.open_parent(&parent_path).map_err(failed)?;
        let at = file_name.as_bytes();
        let existing = match node::peek(&parent, at) {
            Ok(fd) => Some(FileType::from_raw_mode(
                rustix::fs::fstat(&fd).map_err(|e| failed(e.into()))?.st_mode,
            )),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => return Err(failed(error.into())),
        };
        let is_directory = kind == EntryType::Directory;
        if let Some(found) = existing {
            let shown = Path::new("/").join(&path);
            if self.options.keep_kinds && found.is_dir() && !is_directory {
                return Err(ExtractError::OverDirectory { path: shown });
            }
            if self.options.keep_kinds && !found.is_dir() && is_directory {
                return Err(ExtractError::OverFile { path: shown });
            }
            if !(found.is_dir() && is_directory) {
                remove(&parent, at, found).map_err(failed)?;
            }
        }
        let attributes = self.attributes(entry.header()).map_err(ExtractError::Read)?;
        match kind {
            EntryType::Directory => {
                if !existing.is_some_and(|found| found.is_dir()) {
                    rustix::fs::mkdirat(&parent, at, Mode::from_raw_mode(0o700))
                        .map_err(|error| failed(error.into()))?;
                }
                let xattrs = xattrs(entry)?;
                self.finish_directory(&parent, at, attributes, &xattrs).map_err(failed)?;
                self.kept = self.kept.saturating_add(path.as_os_str().len() + DIRECTORY_COST);
                if self.kept <= MAX_DIRECTORIES {
                    self.directories.push((path, attributes.mtime));
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let xattrs = xattrs(entry)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mut file = rustix::fs::openat(&parent, at, flags, Mode::from_raw_mode(0o600))
                    .map(File::from)
                    .map_err(|error| failed(error.into()))?;
                copy(entry, &mut file, kind == EntryType::GNUSparse).map_err(
                    |error| match error {
                        CopyError::Read(source) => ExtractError::Read(source),
                        CopyError::Write(source) => failed(source),
                    },
                )?;
                set_file_attributes(&file, attributes, &xattrs).map_err(failed)?;
            }
            EntryType::Symlink => {
                let link = self.link(entry)?;
                rustix::fs::symlinkat(link.as_slice(), &parent, at)
                    .map_err(|error| failed(error.into()))?;
                set_attributes_at(&parent, at, attributes, true).map_err(failed)?;
            }
            EntryType::Link => {
                let link = self.link(entry)?;
                let link = self.renamed(&link);
                let outside =
                    || ExtractError::Outside(String::from_utf8_lossy(&original).into_owned());
                let target = inside(&link).ok_or_else(outside)?;
                let target_name = target.file_name().ok_or_else(outside)?;
                let target_dir = self.dest.join(target.parent().unwrap_or(Path::new("")));
                let target_dir =
                    resolve::open(self.root, &target_dir, self.options.links, OFlags::DIRECTORY)
                        .map_err(|error| failed(error.into()))?;
                rustix::fs::linkat(&target_dir, target_name, &parent, at, AtFlags::empty())
                    .map_err(|error| failed(error.into()))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let part = |field: io::Result<Option<u32>>| {
                    field.map(Option::unwrap_or_default).map_err(ExtractError::Read)
                };
                let device = match kind {
                    EntryType::Fifo => 0,
                    _ => rustix::fs::makedev(
                        part(header.device_major())?,
                        part(header.device_minor())?,
                    ),
                };
                let file_type = match kind {
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                rustix::fs::mknodat(&parent, at, file_type, Mode::from_raw_mode(0o600), device)
                    .map_err(|error| failed(error.into()))?;
                set_attributes_at(&parent, at, attributes, false).map_err(failed)?;
            }
            other => {
                return Err(ExtractError::Kind {
                    name: String::from_utf8_lossy(&original).into_owned(),
                    kind: other.as_byte(),
                });
            }
        }
        self.parent = Some((parent_path, parent));
        Ok(())
    }

    fn renamed(&self, name: &[u8]) -> Vec<u8> {
        match &self.options.rename {
            Some((old, new)) if name.starts_with(old) => {
                let mut renamed = new.clone();
                renamed.extend_from_slice(name.get(old.len()..).unwrap_or_default());
                renamed
            }
            _ => name.to_vec(),
        }
    }

    fn link<R: Read>(&self, entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, ExtractError> {
        match entry.link_name_bytes() {
            Some(link) if !link.is_empty() => Ok(link.into_owned()),
            _ => Err(ExtractError::Read(io::Error::other("a link without a target"))),
        }
    }

    fn open_parent(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some((known, fd)) = self.parent.take()
            && known == path
        {
            return Ok(fd);
        }
        match resolve::open(self.root, path, self.options.links, OFlags::DIRECTORY) {
            Err(rustix::io::Errno::NOENT) => {
                let owner = match self.options.owner {
                    Owner::Fixed(uid, gid) => Some((uid, gid)),
                    Owner::Archive => Some((0, 0)),
                    Owner::Caller => None,
                };
                resolve::make_dirs(self.root, path, self.options.links, owner)
            }
            answer => Ok(answer?),
        }
    }

    fn attributes(&self, header: &tar::Header) -> io::Result<Attributes> {
        let fields = header.as_old();
        let id = |value: u64| {
            u32::try_from(value).map_err(|_| io::Error::other("an owner's id is out of range"))
        };
        let owner = match self.options.owner {
            Owner::Archive => Some((
                id(number(&fields.uid, || header.uid())?)?,
                id(number(&fields.gid, || header.gid())?)?,
            )),
            Owner::Fixed(uid, gid) => Some((uid, gid)),
            Owner::Caller => None,
        };
        Ok(Attributes {
            owner,
            mode: Mode::from_raw_mode(number(&fields.mode, || header.mode())? & 0o7777),
            mtime: Timespec {
                tv_sec: i64::try_from(number(&fields.mtime, || header.mtime())?)
                    .unwrap_or_default(),
                tv_nsec: 0,
            },
        })
    }

    fn finish_directory(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        attributes: Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
        set_file_attributes(&dir, attributes, xattrs)
    }

    /// Sets the times of directories, the inner ones first.
    fn finish(&mut self) {
        for (path, mtime) in self.directories.drain(..).rev() {
            let times = Timestamps { last_access: mtime, last_modification: mtime };
            // Something later in the archive may have taken its place.
            let set = resolve::open(self.root, &path, self.options.links, OFlags::NOFOLLOW)
                .and_then(|fd| rustix::fs::utimensat(&fd, c"", &times, AtFlags::EMPTY_PATH));
            if let Err(error) = set {
                tracing::debug!(path = %path.display(), %error, "a directory's time was not set");
            }
        }
    }
}

/// A number of a header; one that was left empty is zero.
fn number<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { read() }
}

/// The name of an entry relative to the destination; `None` when it leaves it.
fn inside(name: &[u8]) -> Option<PathBuf> {
    if name.contains(&0) {
        return None;
    }
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(path)
}

fn remove(parent: &OwnedFd, name: &[u8], found: FileType) -> io::Result<()> {
    if found.is_dir() {
        brig_sys::remove::remove_tree_at(parent, name)
    } else {
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }
}

fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Xattrs, ExtractError> {
    let Some(records) = entry.pax_extensions().map_err(ExtractError::Read)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for record in records {
        let record = record.map_err(ExtractError::Read)?;
        if let Some(name) = record.key_bytes().strip_prefix(XATTR_PREFIX)
            && node::is_carried(name)
        {
            found.push((name.to_vec(), record.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Owner first: a change of it clears setuid bits and capabilities.
fn set_file_attributes(
    file: &File,
    attributes: Attributes,
    xattrs: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<()> {
    if let Some((uid, gid)) = attributes.owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(file, attributes.mode)?;
    for (name, value) in xattrs {
        match rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            // COMPAT: docker too goes on where they cannot be set.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {
                tracing::debug!(name = %String::from_utf8_lossy(name), "attribute not supported");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::fs::futimens(file, &attributes.times())?)
}

/// For links, devices and pipes, which cannot be opened.
fn set_attributes_at(
    parent: &OwnedFd,
    name: &[u8],
    attributes: Attributes,
    is_link: bool,
) -> io::Result<()> {
    let made = node::peek(parent, name)?;
    if let Some((uid, gid)) = attributes.owner {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    }
    if !is_link {
        rustix::fs::chmod(node::magic(&made), attributes.mode)?;
    }
    Ok(rustix::fs::utimensat(&made, c"", &attributes.times(), AtFlags::EMPTY_PATH)?)
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copies an entry's content; with `holes`, runs of zeros are left out of the file.
fn copy(source: &mut impl Read, file: &mut File, holes: bool) -> Result<(), CopyError> {
    let mut buffer = vec![0_u8; COPY_BUFFER];
    let mut length = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        let data = buffer.get(..read).unwrap_or_default();
        length = length.saturating_add(u64::try_from(read).unwrap_or_default());
        if holes && data.iter().all(|byte| *byte == 0) {
            let step = i64::try_from(read).unwrap_or_default();
            file.seek(SeekFrom::Current(step)).map_err(CopyError::Write)?;
        } else {
            file.write_all(data).map_err(CopyError::Write)?;
        }
    }
    if holes {
        file.set_len(length).map_err(CopyError::Write)?;
    }
    Ok(())
}
