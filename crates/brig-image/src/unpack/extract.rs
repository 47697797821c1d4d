//! Walks a layer archive and makes its files.
//!
//! SECURITY: parents are opened with `openat2` beneath the layer's root; symbolic links among them
//! are the layer's own and are resolved as if its root were `/`, as docker's chroot does. The last
//! component is only ever created exclusively, so that no entry reaches anything outside of the
//! layer whatever came before it. Layers do not depend on each other: a whiteout becomes overlayfs'
//! own mark, whether or not something below is hidden by it.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;

use super::node::{self, Attributes, CopyError, Existing};
use super::path::{EntryPath, display, invalid};
use super::pax::{PaxRecords, PaxSparse};
use super::split::Recording;
use super::stream::HeaderBudget;
use crate::error::{UnpackError, is_full};
use crate::limits::{KEPT_NAME_COST, Limits, MAX_KEPT_NAMES, MAX_PATH};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Mode of directories that a layer implies but does not have.
const IMPLIED_DIR: u32 = 0o755;

/// Totals of a walk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    /// Sum of file sizes.
    pub(super) size: u64,
    pub(super) entries: u64,
}

#[derive(Debug)]
pub(super) struct Extractor<'a> {
    root: BorrowedFd<'a>,
    limits: &'a Limits,
    stats: Stats,
    /// Times of directories, set at the end: making files in them changes them.
    directories: BTreeMap<Vec<u8>, Attributes>,
    /// What their names take in memory.
    kept: usize,
    /// The parent of the last entry, which mostly is the next one's too.
    parent: Option<(Vec<u8>, Rc<Parent>)>,
    /// Where it is noted which file holds which bytes of the archive, and where files go that later
    /// entries replace.
    notes: Option<(Recording, BorrowedFd<'a>)>,
    /// Files' content passes through it.
    buffer: Box<[u8]>,
}

/// The directory that an entry goes into.
#[derive(Debug)]
struct Parent {
    fd: OwnedFd,
    /// Its path without symbolic links.
    path: Vec<u8>,
}

impl Parent {
    fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() }
    }
}

impl<'a> Extractor<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        limits: &'a Limits,
        notes: Option<(Recording, BorrowedFd<'a>)>,
    ) -> Self {
        Self {
            root,
            limits,
            stats: Stats { size: 0, entries: 0 },
            directories: BTreeMap::new(),
            kept: 0,
            parent: None,
            notes,
            buffer: vec![0; node::COPY_BUFFER].into_boxed_slice(),
        }
    }

    pub(super) fn run<R: Read>(
        &mut self,
        archive: &mut tar::Archive<R>,
        budget: &HeaderBudget,
    ) -> Result<Stats, UnpackError> {
        let mut entries = archive.entries().map_err(UnpackError::Read)?;
        loop {
            budget.headers();
            let entry = entries.next();
            budget.data();
            let Some(entry) = entry else { break };
            let mut entry = entry.map_err(UnpackError::Read)?;
            self.stats.entries += 1;
            if self.stats.entries > self.limits.layer_entries {
                return Err(UnpackError::Limit {
                    what: "entries",
                    limit: self.limits.layer_entries,
                });
            }
            self.apply(&mut entry)?;
            // Whatever the entry still has; also what keeps the header budget exact.
            io::copy(&mut entry, &mut io::sink()).map_err(UnpackError::Read)?;
        }
        self.finish()?;
        Ok(self.stats)
    }

    fn apply<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let mut raw = entry.path_bytes().into_owned();
        let pax = PaxRecords::read(entry, &raw)?;
        if let Some(name) = pax.sparse.as_ref().and_then(|sparse| sparse.name.clone()) {
            raw = name;
        }
        let path = EntryPath::parse(&raw)?;
        let attributes = attributes(entry, &pax, &raw)?;

        if path.is_root() {
            return if kind.is_dir() {
                self.root_entry(&attributes, &pax)
            } else {
                Err(invalid(&raw, "only a directory can be the root"))
            };
        }
        let (parent, name) = path.split();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&raw, parent, name);
        }
        let parent = self.parent(&raw, parent)?;
        let parent_fd = parent.fd.as_fd();
        // COMPAT: before POSIX a trailing slash was what made a directory.
        if kind.is_dir() || (kind.is_file() && raw.ends_with(b"/")) {
            return self.directory(&raw, &parent, name, attributes, &pax);
        }

        let existing = node::look(parent_fd, name).map_err(create(&raw))?;
        match existing {
            Existing::Nothing => {}
            Existing::Directory => self.forget_below(&parent.join(name)),
            // It may be a symbolic link that the known parent was reached by.
            Existing::Whiteout | Existing::Other => self.parent = None,
        }
        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.displace(&raw, &parent, name, existing)?;
                self.file(&raw, &parent, name, entry, &attributes, &pax)
            }
            tar::EntryType::Link => {
                let target = link_target(entry, &raw)?;
                let target =
                    EntryPath::parse(&target).map_err(|_| UnpackError::Escapes(display(&raw)))?;
                self.hard_link(&raw, &parent, name, existing, &path, &target)
            }
            tar::EntryType::Symlink => {
                let target = link_target(entry, &raw)?;
                self.displace(&raw, &parent, name, existing)?;
                node::make_symlink(parent_fd, name, &target, &attributes).map_err(create(&raw))
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                let (file_type, device) = match kind {
                    tar::EntryType::Fifo => (FileType::Fifo, (0, 0)),
                    tar::EntryType::Char => (FileType::CharacterDevice, device(entry, &raw)?),
                    _ => (FileType::BlockDevice, device(entry, &raw)?),
                };
                self.displace(&raw, &parent, name, existing)?;
                node::make_special(parent_fd, name, file_type, device, &attributes)
                    .map_err(create(&raw))
            }
            other => Err(UnpackError::UnknownType {
                entry: display(&raw),
                kind: char::from(other.as_byte()),
            }),
        }
    }

    fn root_entry(&mut self, attributes: &Attributes, pax: &PaxRecords) -> Result<(), UnpackError> {
        node::set_attributes(self.root, attributes, &pax.xattrs).map_err(create(b"/"))?;
        self.directories.insert(Vec::new(), *attributes);
        Ok(())
    }

    fn directory(
        &mut self,
        raw: &[u8],
        holder: &Parent,
        name: &[u8],
        attributes: Attributes,
        pax: &PaxRecords,
    ) -> Result<(), UnpackError> {
        let parent = holder.fd.as_fd();
        let existing = node::look(parent, name).map_err(create(raw))?;
        let dir = match existing {
            Existing::Directory => {
                node::open_dir(parent, name).map_err(|e| create(raw)(e.into()))?
            }
            other => {
                self.parent = None;
                self.displace(raw, holder, name, other)?;
                let dir = node::make_dir(parent, name, IMPLIED_DIR).map_err(create(raw))?;
                if other == Existing::Whiteout {
                    // Deleted below and made anew: what was below must stay hidden.
                    node::set_opaque(dir.as_fd()).map_err(create(raw))?;
                }
                dir
            }
        };
        node::set_attributes(dir.as_fd(), &attributes, &pax.xattrs).map_err(create(raw))?;
        self.keep(holder.join(name), attributes)
    }

    /// Remembers a directory for the end.
    fn keep(&mut self, path: Vec<u8>, attributes: Attributes) -> Result<(), UnpackError> {
        let cost = path.len().saturating_add(KEPT_NAME_COST);
        if self.directories.insert(path, attributes).is_none() {
            self.kept = self.kept.saturating_add(cost);
        }
        if self.kept > MAX_KEPT_NAMES {
            let limit = u64::try_from(MAX_KEPT_NAMES).unwrap_or(u64::MAX);
            return Err(UnpackError::Limit { what: "bytes of directories' names", limit });
        }
        Ok(())
    }

    /// Takes away what an entry replaces. What holds bytes of the archive is kept in the attic.
    fn displace(
        &self,
        raw: &[u8],
        parent: &Parent,
        name: &[u8],
        existing: Existing,
    ) -> Result<(), UnpackError> {
        let fd = parent.fd.as_fd();
        if let Some((recording, attic)) = &self.notes
            && match existing {
                Existing::Directory => true,
                Existing::Other => node::is_file(fd, name).map_err(create(raw))?,
                Existing::Nothing | Existing::Whiteout => false,
            }
        {
            let number = recording.replaced(&parent.join(name)).map_err(UnpackError::Log)?;
            return node::move_away(fd, name, *attic, &number.to_string()).map_err(create(raw));
        }
        node::remove(fd, name, existing).map_err(create(raw))
    }

    fn file<R: Read>(
        &mut self,
        raw: &[u8],
        parent: &Parent,
        name: &[u8],
        entry: &mut tar::Entry<'_, R>,
        attributes: &Attributes,
        pax: &PaxRecords,
    ) -> Result<(), UnpackError> {
        let size = pax.sparse.as_ref().map_or_else(|| entry.size(), |sparse| sparse.real_size);
        self.stats.size = self
            .stats
            .size
            .checked_add(size)
            .filter(|&total| total <= self.limits.layer_unpacked)
            .ok_or(UnpackError::Limit {
                what: "bytes of files",
                limit: self.limits.layer_unpacked,
            })?;
        let mut file = node::make_file(parent.fd.as_fd(), name).map_err(create(raw))?;
        let holes = entry.header().entry_type().is_gnu_sparse();
        // A sparse file does not hold the archive's bytes one to one: those are noted themselves.
        if let Some((recording, _)) = &self.notes
            && pax.sparse.is_none()
            && !holes
        {
            recording.file(&parent.join(name), size).map_err(UnpackError::Log)?;
        }
        if let Some(sparse) = &pax.sparse {
            copy_sparse(entry, &mut file, sparse, raw, &mut self.buffer)?;
        } else {
            node::copy(entry, &mut file, size, holes, &mut self.buffer).map_err(copied(raw))?;
            if holes {
                node::set_len(&file, size).map_err(create(raw))?;
            }
        }
        node::set_attributes(file.as_fd(), attributes, &pax.xattrs).map_err(create(raw))?;
        node::set_times(file.as_fd(), attributes).map_err(create(raw))
    }

    fn hard_link(
        &mut self,
        raw: &[u8],
        parent: &Parent,
        name: &[u8],
        existing: Existing,
        path: &EntryPath,
        target: &EntryPath,
    ) -> Result<(), UnpackError> {
        if path == target {
            return Err(invalid(raw, "hard link to itself"));
        }
        let (target_parent, target_name) = target.split();
        if target_name.is_empty() {
            return Err(invalid(raw, "hard link to a directory"));
        }
        let target_parent = match node::open_dir(self.root, target_parent) {
            Err(Errno::LOOP) => node::open_dir_in_root(self.root, target_parent),
            other => other,
        }
        .map_err(|error| match error {
            Errno::XDEV => UnpackError::Escapes(display(raw)),
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => invalid(raw, "hard link to nothing"),
            other => create(raw)(other.into()),
        })?;
        match node::look(target_parent.as_fd(), target_name).map_err(create(raw))? {
            Existing::Other | Existing::Whiteout => {}
            Existing::Directory => return Err(invalid(raw, "hard link to a directory")),
            Existing::Nothing => return Err(invalid(raw, "hard link to nothing")),
        }
        // By way of a symbolic link the target may be what the link is to replace.
        if existing != Existing::Nothing
            && node::same(target_parent.as_fd(), target_name, parent.fd.as_fd(), name)
                .map_err(create(raw))?
        {
            return Ok(());
        }
        self.displace(raw, parent, name, existing)?;
        node::make_hard_link(target_parent.as_fd(), target_name, parent.fd.as_fd(), name)
            .map_err(create(raw))
    }

    fn whiteout(&mut self, raw: &[u8], parent: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        if name == WHITEOUT_OPAQUE {
            let dir = self.parent(raw, parent)?;
            return node::set_opaque(dir.fd.as_fd()).map_err(create(raw));
        }
        if name.starts_with(WHITEOUT_META) {
            // The first union file system's own notes; nothing of the image.
            return Ok(());
        }
        let hidden = name.get(WHITEOUT.len()..).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Escapes(display(raw)));
        }
        let dir = self.parent(raw, parent)?;
        let dir = &dir.fd;
        match node::look(dir.as_fd(), hidden).map_err(create(raw))? {
            Existing::Nothing => node::make_whiteout(dir.as_fd(), hidden).map_err(create(raw)),
            // The layer has a file of that name itself, which hides what is below anyway.
            Existing::Whiteout | Existing::Other => Ok(()),
            Existing::Directory => {
                let hidden =
                    node::open_dir(dir.as_fd(), hidden).map_err(|e| create(raw)(e.into()))?;
                node::set_opaque(hidden.as_fd()).map_err(create(raw))
            }
        }
    }

    /// The directory an entry goes into, made with its parents if the layer does not have it.
    fn parent(&mut self, raw: &[u8], path: &[u8]) -> Result<Rc<Parent>, UnpackError> {
        if let Some((known, parent)) = &self.parent
            && known == path
        {
            return Ok(Rc::clone(parent));
        }
        let parent = match node::open_dir(self.root, path) {
            Ok(fd) => Parent { fd, path: path.to_vec() },
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => self.make_parents(raw, path)?,
            Err(error) => return Err(create(raw)(error.into())),
        };
        let parent = Rc::new(parent);
        self.parent = Some((path.to_vec(), Rc::clone(&parent)));
        Ok(parent)
    }

    fn make_parents(&self, raw: &[u8], path: &[u8]) -> Result<Parent, UnpackError> {
        let mut dir = node::open_dir(self.root, b"").map_err(|e| create(raw)(e.into()))?;
        let mut walked: Vec<u8> = Vec::new();
        let mut linked = false;
        for component in path.split(|&b| b == b'/') {
            if !walked.is_empty() {
                walked.push(b'/');
            }
            walked.extend_from_slice(component);
            dir = match node::open_dir(dir.as_fd(), component) {
                Ok(next) => next,
                Err(Errno::LOOP) => {
                    linked = true;
                    node::open_dir_in_root(self.root, &walked).map_err(|error| match error {
                        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => invalid(
                            raw,
                            "its parent is a symbolic link to no directory of the layer",
                        ),
                        Errno::XDEV => UnpackError::Escapes(display(raw)),
                        other => create(raw)(other.into()),
                    })?
                }
                Err(Errno::NOENT) => {
                    node::make_dir(dir.as_fd(), component, IMPLIED_DIR).map_err(create(raw))?
                }
                Err(Errno::NOTDIR) => {
                    let existing = node::look(dir.as_fd(), component).map_err(create(raw))?;
                    if existing != Existing::Whiteout {
                        return Err(invalid(raw, "its parent is not a directory"));
                    }
                    node::remove(dir.as_fd(), component, existing).map_err(create(raw))?;
                    let next =
                        node::make_dir(dir.as_fd(), component, IMPLIED_DIR).map_err(create(raw))?;
                    node::set_opaque(next.as_fd()).map_err(create(raw))?;
                    next
                }
                Err(error) => return Err(create(raw)(error.into())),
            };
        }
        let path = if linked {
            node::path_below(self.root, dir.as_fd()).map_err(create(raw))?
        } else {
            path.to_vec()
        };
        Ok(Parent { fd: dir, path })
    }

    /// A directory is about to go: handles and times below it are void.
    fn forget_below(&mut self, path: &[u8]) {
        self.parent = None;
        let mut below = path.to_vec();
        below.push(b'/');
        self.directories.remove(path);
        while let Some((key, _)) = self.directories.range(below.clone()..).next()
            && key.starts_with(&below)
        {
            let key = key.clone();
            self.directories.remove(&key);
        }
    }

    fn finish(&mut self) -> Result<(), UnpackError> {
        self.parent = None;
        for (path, attributes) in &self.directories {
            let dir = node::open_dir(self.root, path).map_err(|e| create(path)(e.into()))?;
            node::set_times(dir.as_fd(), attributes).map_err(create(path))?;
        }
        Ok(())
    }
}

fn copy_sparse<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    file: &mut std::fs::File,
    sparse: &PaxSparse,
    raw: &[u8],
    buffer: &mut [u8],
) -> Result<(), UnpackError> {
    for segment in sparse.map(entry, raw)? {
        file.seek(SeekFrom::Start(segment.offset)).map_err(create(raw))?;
        node::copy(entry, file, segment.length, false, buffer).map_err(copied(raw))?;
    }
    node::set_len(file, sparse.real_size).map_err(create(raw))
}

fn attributes<R: Read>(
    entry: &tar::Entry<'_, R>,
    pax: &PaxRecords,
    raw: &[u8],
) -> Result<Attributes, UnpackError> {
    let header = entry.header();
    let fields = header.as_old();
    // COMPAT: a field without any digit is zero.
    let number = |parsed: io::Result<u64>, field: &[u8]| match parsed {
        Ok(value) => Ok(value),
        Err(_) if field.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
        Err(_) => Err(invalid(raw, "header has a number that is none")),
    };
    let id = |value: u64| {
        u32::try_from(value)
            .ok()
            .filter(|&id| id != u32::MAX)
            .ok_or_else(|| invalid(raw, "owner is out of range"))
    };
    let mtime = match pax.mtime {
        Some(mtime) => mtime,
        // Times before 1970 come out huge in the binary form; docker clamps them too.
        None => Timespec {
            tv_sec: i64::try_from(number(header.mtime(), &fields.mtime)?).unwrap_or(0),
            tv_nsec: 0,
        },
    };
    Ok(Attributes {
        uid: id(number(header.uid(), &fields.uid)?)?,
        gid: id(number(header.gid(), &fields.gid)?)?,
        mode: number(header.mode().map(u64::from), &fields.mode)
            .map(|mode| u32::try_from(mode & 0o7777).unwrap_or_default())?,
        mtime,
    })
}

fn device<R: Read>(entry: &tar::Entry<'_, R>, raw: &[u8]) -> Result<(u32, u32), UnpackError> {
    let bad = || invalid(raw, "device number is missing");
    let major = entry.header().device_major().ok().flatten().ok_or_else(bad)?;
    let minor = entry.header().device_minor().ok().flatten().ok_or_else(bad)?;
    Ok((major, minor))
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>, raw: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let target = entry.link_name_bytes().ok_or_else(|| invalid(raw, "link without a target"))?;
    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
        return Err(invalid(raw, "link target is invalid"));
    }
    Ok(target.into_owned())
}

fn create(raw: &[u8]) -> impl FnOnce(io::Error) -> UnpackError + '_ {
    move |source| {
        let entry = display(raw);
        if is_full(&source) {
            UnpackError::NoSpace { entry }
        } else {
            UnpackError::Create { entry, source }
        }
    }
}

fn copied(raw: &[u8]) -> impl FnOnce(CopyError) -> UnpackError + '_ {
    let write = create(raw);
    move |error| match error {
        CopyError::Read(source) => UnpackError::Read(source),
        CopyError::Write(source) => write(source),
    }
}
