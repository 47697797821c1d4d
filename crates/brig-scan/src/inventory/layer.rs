//! What one layer says by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};

use super::detect::{self, Reader};
use super::tar::{Entry, Kind, ReadStream, Stream, Walker};
use super::{Limits, ScanError};
use crate::package::{DETECTOR_VERSION, Ecosystem, INVENTORY_FORMAT, Package};
use crate::parse::{
    self, Owned, ParseError, Parsed, ReadAt, binary, cargo, dotnet, dpkg, exact, go, java, lock,
    node, php, python, read_part, rpm, ruby,
};

/// A prefix of names that say what a layer removes (OCI image spec, "Whiteouts").
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Most notes of what could not be read.
const MAX_UNREAD: usize = 10_000;
/// Longest reason why a whole layer could not be read, in characters.
const MAX_REASON: usize = 1024;

/// Everything that the files of one layer say, and what the layer does to those below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInventory {
    /// [`INVENTORY_FORMAT`] when it was made.
    pub format: u32,
    /// [`DETECTOR_VERSION`] when it was made: another one finds other things.
    pub detector: u32,
    /// The layer's own digest, where it was computed.
    pub diff_id: Option<Digest>,
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// What was found, by path.
    pub files: BTreeMap<String, Findings>,
    /// Symbolic links where a system's database or sign was expected, and where they lead.
    pub links: BTreeMap<String, String>,
    /// Paths that are removed from the layers below.
    pub removed: BTreeSet<String>,
    /// Folders whose content of the layers below is hidden.
    pub opaque: BTreeSet<String>,
    /// [`exact_key`] of everything here that is no folder, sorted: it hides what lay at or below its path.
    pub covers: Vec<u64>,
    /// What could not be read: path, reader, reason.
    pub unread: Vec<(String, Reader, String)>,
}

/// What one file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Who read it.
    pub reader: Reader,
    /// Packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Package>,
    /// Files of the system's packages.
    #[serde(default, skip_serializing_if = "Owned::is_empty")]
    pub owned: Owned,
    /// The text of a file that tells the distribution.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sign: String,
}

impl LayerInventory {
    /// Of a layer without any file.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            format: INVENTORY_FORMAT,
            detector: DETECTOR_VERSION,
            diff_id: None,
            size: 0,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            removed: BTreeSet::new(),
            opaque: BTreeSet::new(),
            covers: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Of a layer that could not be read, so that nobody takes it for one without packages.
    #[must_use]
    pub fn unreadable(reason: &str) -> Self {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let note = (".".to_owned(), Reader::Program, format!("its layer cannot be read: {reason}"));
        Self { unread: vec![note], ..Self::empty() }
    }

    /// Whether what is stored is what this version would find.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.format == INVENTORY_FORMAT && self.detector == DETECTOR_VERSION
    }
}

/// FNV-1a over a path as it is.
#[must_use]
pub fn exact_key(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Reads a layer's uncompressed archive as it passes, to its end. For whoever unpacks layers: the
/// reader can sit beside the unpacking, and the result be kept under the layer's diff id.
///
/// # Errors
/// [`ScanError`] when the archive is damaged or passes a bound. Files that cannot be read are noted
/// in the result.
pub fn read_layer<R: Read>(stream: R, limits: &Limits) -> Result<LayerInventory, ScanError> {
    let mut walker = Walker::new(ReadStream::new(stream));
    let layer = walk(&mut walker, limits)?;
    // What comes after the archive's end belongs to its digest.
    io::copy(&mut walker.into_stream().into_inner(), &mut io::sink()).map_err(ScanError::Read)?;
    Ok(layer)
}

/// Reads the entries of an archive.
pub(super) fn walk<S: Stream>(
    walker: &mut Walker<S>,
    limits: &Limits,
) -> Result<LayerInventory, ScanError> {
    let mut collector = Collector::new(limits);
    while let Some(entry) = walker.next()? {
        collector.entry(walker, &entry)?;
    }
    let file = walker.place().map(|(file, _)| file);
    collector.finish(file)
}

/// A part of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) file: &'a File,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl ReadAt for Place<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_part(self.offset, self.size, buf, offset, |buf, at| self.file.read_at(buf, at))
    }
}

/// A file's content, held or in place.
enum Content<'a> {
    Held(Vec<u8>),
    Place(Place<'a>),
}

impl ReadAt for Content<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Held(bytes) => bytes.size(),
            Self::Place(place) => place.size,
        }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Held(bytes) => bytes.read_at(buf, offset),
            Self::Place(place) => place.read_at(buf, offset),
        }
    }
}

/// Collects what the files of one layer say.
pub(super) struct Collector<'l> {
    limits: &'l Limits,
    found: LayerInventory,
    entries: u64,
    packages: usize,
    /// Databases in SQLite wait for the log beside them.
    waiting: BTreeMap<String, Waiting>,
    logs: BTreeMap<String, Vec<u8>>,
    lock_files: bool,
}

enum Waiting {
    Held(Vec<u8>),
    Place { offset: u64, size: u64 },
}

impl<'l> Collector<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            found: LayerInventory::empty(),
            entries: 0,
            packages: 0,
            waiting: BTreeMap::new(),
            logs: BTreeMap::new(),
            lock_files: false,
        }
    }

    pub(super) fn with_lock_files(mut self, lock_files: bool) -> Self {
        self.lock_files = lock_files;
        self
    }

    /// Counts an entry.
    pub(super) fn count(&mut self) -> Result<(), ScanError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ScanError::Limit { what: "entries", limit: self.limits.entries });
        }
        Ok(())
    }

    fn entry<S: Stream>(&mut self, walker: &mut Walker<S>, entry: &Entry) -> Result<(), ScanError> {
        self.count()?;
        let path = entry.path.as_str();
        if entry.escapes {
            self.unread(path, Reader::Program, "its name leads above the image's root");
            return Ok(());
        }
        if path.is_empty() || self.whiteout(path, entry.kind) {
            return Ok(());
        }
        if entry.kind != Kind::Folder {
            self.found.covers.push(exact_key(path));
        }
        // The last of several entries with one name is the one that stays.
        let known = detect::reader(path);
        if known.is_some() || entry.mode & 0o111 != 0 {
            self.forget(path);
        }
        match entry.kind {
            Kind::File => self.file(walker, entry, known)?,
            Kind::Symlink => {
                if known.is_some_and(Reader::is_system) {
                    self.found.links.insert(path.to_owned(), entry.link.clone());
                }
            }
            Kind::HardLink => {
                if let Some(reader) = known {
                    self.hard_link(path, &entry.link, reader);
                }
            }
            Kind::Folder => {
                if known.is_some() {
                    self.found.covers.push(exact_key(path));
                }
            }
            Kind::Removed | Kind::Other => {}
        }
        Ok(())
    }

    /// Whether the entry is a mark that removes something of the layers below.
    pub(super) fn whiteout(&mut self, path: &str, kind: Kind) -> bool {
        if kind == Kind::Removed {
            self.found.removed.insert(path.to_owned());
            return true;
        }
        let (folder, base) = path.rsplit_once('/').unwrap_or(("", path));
        if base == OPAQUE {
            self.found.opaque.insert(folder.to_owned());
            return true;
        }
        let Some(name) = base.strip_prefix(WHITEOUT) else { return false };
        // `.wh..wh.plnk` and the like are old marks of AUFS: nothing to remove.
        if !name.starts_with(WHITEOUT) && !name.is_empty() {
            let removed =
                if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            self.found.removed.insert(removed);
        }
        true
    }

    /// Notes a folder whose content of the layers below is hidden.
    pub(super) fn opaque(&mut self, folder: &str) {
        self.found.opaque.insert(folder.to_owned());
    }

    fn forget(&mut self, path: &str) {
        self.found.files.remove(path);
        self.found.links.remove(path);
        self.waiting.remove(path);
        self.logs.remove(path);
    }

    fn hard_link(&mut self, path: &str, target: &str, reader: Reader) {
        let (target, escapes) = super::tar::clean(target.as_bytes());
        match self.found.files.get(&target).filter(|found| !escapes && found.reader == reader) {
            Some(found) => {
                let mut found = found.clone();
                for package in &mut found.packages {
                    path.clone_into(&mut package.evidence.path);
                }
                self.found.files.insert(path.to_owned(), found);
            }
            None => {
                let shown: String = target.chars().take(200).collect();
                self.unread(
                    path,
                    reader,
                    format!("it is a hard link to {shown:?}, which was not read"),
                );
            }
        }
    }

    fn file<S: Stream>(
        &mut self,
        walker: &mut Walker<S>,
        entry: &Entry,
        known: Option<Reader>,
    ) -> Result<(), ScanError> {
        let Some((reader, mut held)) = (match known {
            Some(reader) => Some((reader, Vec::new())),
            None if entry.mode & 0o111 != 0 && entry.size >= MIN_PROGRAM && !entry.sparse => {
                let head = walker.content(PROGRAM_HEAD)?;
                binary::is_program(&head).then_some((Reader::Program, head))
            }
            None => None,
        }) else {
            return Ok(());
        };
        let path = entry.path.as_str();
        if entry.sparse {
            self.unread(path, reader, "it is stored as a sparse file");
            return Ok(());
        }
        if entry.size > reader.limit() {
            self.too_large(path, reader, reader.limit());
            return Ok(());
        }
        if reader.reads_anywhere()
            && let Some((file, at)) = walker.place()
        {
            let offset = at - held.len() as u64;
            if reader == Reader::RpmSqlite {
                let place = Waiting::Place { offset, size: entry.size };
                self.waiting.insert(path.to_owned(), place);
                return Ok(());
            }
            let place = Place { file, offset, size: entry.size };
            return self.examine(path, reader, &Content::Place(place));
        }
        let wanted = reader.head().unwrap_or(entry.size).min(entry.size);
        if wanted > self.limits.held_file {
            self.too_large(path, reader, self.limits.held_file);
            return Ok(());
        }
        let rest = walker.content(wanted - (held.len() as u64).min(wanted))?;
        if held.is_empty() {
            held = rest;
        } else {
            held.extend_from_slice(&rest);
        }
        match reader {
            Reader::RpmSqlite => {
                self.waiting.insert(path.to_owned(), Waiting::Held(held));
                Ok(())
            }
            Reader::RpmLog => {
                self.logs.insert(path.to_owned(), held);
                Ok(())
            }
            _ => self.examine(path, reader, &Content::Held(held)),
        }
    }

    /// Looks at a file of a directory.
    pub(super) fn plain_file(
        &mut self,
        path: &str,
        mode: u32,
        file: &File,
        size: u64,
    ) -> Result<(), ScanError> {
        let place = Place { file, offset: 0, size };
        let reader = match detect::reader(path) {
            Some(reader) => reader,
            None if self.lock_files && detect::is_lock(path) => Reader::Lock,
            None if mode & 0o111 != 0 && size >= MIN_PROGRAM => {
                let mut head = [0_u8; PROGRAM_HEAD as usize];
                let read = place.read_at(&mut head, 0).map_err(ScanError::Read)?;
                if !binary::is_program(head.get(..read).unwrap_or_default()) {
                    return Ok(());
                }
                Reader::Program
            }
            None => return Ok(()),
        };
        if size > reader.limit() {
            self.too_large(path, reader, reader.limit());
            return Ok(());
        }
        match reader {
            Reader::RpmSqlite | Reader::RpmLog => {
                let bytes = match exact(&place, 0, usize::try_from(size).unwrap_or(usize::MAX)) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        self.unread(path, reader, error.line());
                        return Ok(());
                    }
                };
                if reader == Reader::RpmLog {
                    self.logs.insert(path.to_owned(), bytes);
                } else {
                    self.waiting.insert(path.to_owned(), Waiting::Held(bytes));
                }
                Ok(())
            }
            _ => self.examine(path, reader, &Content::Place(place)),
        }
    }

    /// Whether a directory's file is of interest, before it is opened.
    pub(super) fn wants(&self, path: &str, mode: u32) -> bool {
        mode & 0o111 != 0
            || detect::reader(path).is_some()
            || (self.lock_files && detect::is_lock(path))
    }

    /// Notes a symbolic link of a directory.
    pub(super) fn link(&mut self, path: &str, target: String) {
        if detect::reader(path).is_some_and(Reader::is_system) {
            self.found.links.insert(path.to_owned(), target);
        }
    }

    fn examine(
        &mut self,
        path: &str,
        reader: Reader,
        content: &Content<'_>,
    ) -> Result<(), ScanError> {
        match parse(reader, content, path) {
            Ok((parsed, sign)) => self.keep(path, reader, parsed, sign),
            Err(error) => {
                self.unread(path, reader, error.line());
                Ok(())
            }
        }
    }

    fn keep(
        &mut self,
        path: &str,
        reader: Reader,
        parsed: Parsed,
        sign: String,
    ) -> Result<(), ScanError> {
        for problem in parsed.problems {
            self.unread(path, reader, problem);
        }
        self.packages += parsed.packages.len();
        if self.packages > self.limits.packages {
            return Err(ScanError::Limit { what: "packages", limit: self.limits.packages as u64 });
        }
        if parsed.packages.is_empty() && parsed.owned.is_empty() && sign.is_empty() {
            // An emptied database still replaces the one below; `covers` sees to that.
            return Ok(());
        }
        if self.found.files.len() >= self.limits.files {
            return Err(ScanError::Limit {
                what: "files with packages",
                limit: self.limits.files as u64,
            });
        }
        let findings = Findings { reader, packages: parsed.packages, owned: parsed.owned, sign };
        self.found.files.insert(path.to_owned(), findings);
        Ok(())
    }

    fn too_large(&mut self, path: &str, reader: Reader, limit: u64) {
        self.unread(path, reader, format!("it is larger than {} MiB", limit >> 20));
    }

    /// Notes that a file could not be read.
    pub(super) fn unread(&mut self, path: &str, reader: Reader, reason: impl Into<String>) {
        if self.found.unread.len() < MAX_UNREAD {
            let path: String = path.chars().take(1024).collect();
            self.found.unread.push((path, reader, reason.into()));
        }
    }

    /// Reads what waited, and gives everything.
    pub(super) fn finish(mut self, file: Option<&File>) -> Result<LayerInventory, ScanError> {
        for (path, waiting) in std::mem::take(&mut self.waiting) {
            let log = self.logs.remove(&format!("{path}-wal"));
            let result = match (&waiting, file) {
                (Waiting::Held(bytes), _) => rpm::from_sqlite(&bytes[..], log.as_deref(), &path),
                (&Waiting::Place { offset, size }, Some(file)) => {
                    let place = Place { file, offset, size };
                    rpm::from_sqlite(&place, log.as_deref(), &path)
                }
                (Waiting::Place { .. }, None) => {
                    Err(ParseError::Malformed("its file is gone".to_owned()))
                }
            };
            match result {
                Ok(parsed) => self.keep(&path, Reader::RpmSqlite, parsed, String::new())?,
                Err(error) => self.unread(&path, Reader::RpmSqlite, error.line()),
            }
        }
        for (path, log) in std::mem::take(&mut self.logs) {
            if !log.is_empty() {
                self.unread(&path, Reader::RpmLog, "its database is not in the same layer");
            }
        }
        self.found.covers.sort_unstable();
        self.found.covers.dedup();
        Ok(self.found)
    }

    /// Notes something that is no folder.
    pub(super) fn cover(&mut self, path: &str) {
        self.found.covers.push(exact_key(path));
    }
}

/// Smaller files hold no program that carries anything.
const MIN_PROGRAM: u64 = 1024;
const PROGRAM_HEAD: u64 = 64;

/// Hands a file's content to its reader.
fn parse(
    reader: Reader,
    content: &Content<'_>,
    path: &str,
) -> Result<(Parsed, String), ParseError> {
    let owned: Vec<u8>;
    let bytes: &[u8] = match content {
        _ if reader.reads_anywhere() => &[],
        Content::Held(bytes) => bytes,
        Content::Place(place) => {
            let wanted = reader.head().unwrap_or(place.size).min(place.size);
            owned = exact(place, 0, usize::try_from(wanted).unwrap_or(usize::MAX))?;
            &owned
        }
    };
    let parsed = match reader {
        Reader::Sign => {
            return Ok((Parsed::default(), String::from_utf8_lossy(bytes).into_owned()));
        }
        Reader::Dpkg => dpkg::status(bytes, path)?,
        Reader::DpkgSingle => dpkg::status_d(bytes, path)?,
        Reader::DpkgFiles => {
            let sums = path.ends_with(".md5sums");
            let owner = dpkg::list_owner(path).unwrap_or_default();
            Parsed { owned: dpkg::owned_files(bytes, owner, sums), ..Parsed::default() }
        }
        Reader::Apk => parse::apk::installed(bytes, path)?,
        Reader::RpmSqlite => rpm::from_sqlite(content, None, path)?,
        Reader::RpmNdb => rpm::from_ndb(content, path)?,
        Reader::RpmBdb => rpm::from_bdb(content, path)?,
        Reader::RpmManifest => rpm::from_manifest(bytes, path)?,
        Reader::RpmLog => Parsed::default(),
        Reader::Python => python::metadata(bytes, path)?,
        Reader::PythonEgg => match java::member(content, "EGG-INFO/PKG-INFO")? {
            Some(metadata) => python::metadata(&metadata, path)?,
            None => Parsed::default(),
        },
        Reader::Node => node::manifest(bytes, path)?,
        Reader::Java => java::archive(content, path)?,
        Reader::Gem => ruby::specification(bytes, path)?,
        Reader::Composer => php::installed(bytes, path)?,
        Reader::DotNet => dotnet::dependencies(bytes, path)?,
        Reader::Program => program(content, path)?,
        Reader::Lock => lock_file(bytes, path)?,
    };
    Ok((parsed, String::new()))
}

fn program(content: &Content<'_>, path: &str) -> Result<Parsed, ParseError> {
    let mut head = [0_u8; 4];
    let elf = content.read_at(&mut head, 0).is_ok() && &head == b"\x7fELF";
    let parts = match binary::program(content) {
        Ok(Some(parts)) => parts,
        Ok(None) => return Ok(Parsed::default()),
        // Loaders and stubs that only begin like a program of another system.
        Err(_) if !elf => return Ok(Parsed::default()),
        Err(error) => return Err(error),
    };
    let mut parsed = go::program(content, &parts, path)?;
    let rust = cargo::program(content, &parts, path)?;
    parsed.packages.extend(rust.packages);
    parsed.problems.extend(rust.problems);
    Ok(parsed)
}

fn lock_file(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    match path.rsplit('/').next().unwrap_or(path) {
        "package-lock.json" => lock::npm(bytes, path),
        "Cargo.lock" => lock::tables(bytes, path, Ecosystem::Cargo),
        "poetry.lock" | "pdm.lock" | "uv.lock" => lock::tables(bytes, path, Ecosystem::PyPi),
        "requirements.txt" => lock::requirements(bytes, path),
        "Pipfile.lock" => lock::pipfile(bytes, path),
        "Gemfile.lock" => lock::gemfile(bytes, path),
        "go.mod" => lock::go_mod(bytes, path),
        "composer.lock" => php::lock(bytes, path),
        "packages.lock.json" => lock::nuget(bytes, path),
        _ => Ok(Parsed::default()),
    }
}
