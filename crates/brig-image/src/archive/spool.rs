//! The archive on disk and where its entries lie.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use brig_types::id::random_hex;

use crate::error::{ImageError, UnpackError, is_full};
use crate::limits::{KEPT_NAME_COST, Limits, MAX_ARCHIVE_ENTRIES, MAX_KEPT_NAMES};
use crate::unpack::compression::Decoder;
use crate::unpack::path::{EntryPath, display};
use crate::unpack::stream::HeaderBudget;

const BUFFER: usize = 256 << 10;
/// Links may lead to links; no further than this.
const MAX_LINKS: usize = 8;
/// Most that is repeated of why something is no tar.
const MAX_REASON: usize = 120;

#[derive(Clone, Debug)]
enum Entry {
    File {
        offset: u64,
        length: u64,
        /// The number under which it was taken; its bytes are not in the copy then.
        taken: Option<usize>,
    },
    /// A hard link's or symbolic link's target within the archive.
    Link(Vec<u8>),
}

/// Bytes at an entry's beginning that are enough to tell a layer: a tar's first header.
const HEAD: u64 = 512;

/// Takes entries out of an archive as they pass.
pub(crate) trait Taking {
    /// Whether to take the entry of that name, which begins so.
    fn wants(&self, name: &[u8], head: &[u8]) -> bool;

    /// Takes an entry's data, as much of it as is of use. The number is what it is known by.
    fn take(&mut self, name: &[u8], data: &mut dyn Read) -> Result<usize, ImageError>;
}

/// An archive whose entries can be read in any order.
#[derive(Debug)]
pub(crate) struct Spool {
    file: Arc<File>,
    entries: HashMap<Vec<u8>, Entry>,
}

impl Spool {
    /// Copies an archive. `dir` is where the nameless file lives. Blocks.
    pub(crate) fn fill<R: Read>(
        source: R,
        dir: &Path,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        Self::fill_but(source, dir, limits, None)
    }

    /// Copies an archive but for the entries that are taken. Blocks.
    pub(crate) fn fill_but<R: Read>(
        source: R,
        dir: &Path,
        limits: &Limits,
        taking: Option<&mut dyn Taking>,
    ) -> Result<Self, ImageError> {
        let path = dir.join(format!("spool-{}", random_hex()));
        let create = || -> io::Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        };
        let file = create().map_err(ImageError::io("creating", &path))?;
        let counted = Counted { inner: source, count: Rc::default() };
        let compressed = Rc::clone(&counted.count);
        let decoder = Decoder::detect(counted).map_err(|error| match error {
            UnpackError::Read(source) => ImageError::ArchiveRead(source),
            other => ImageError::Archive(other.to_string()),
        })?;
        let budget = HeaderBudget::default();
        let taken = Rc::new(Cell::new(false));
        let copying = Copying {
            source: decoder,
            copy: BufWriter::with_capacity(BUFFER, &file),
            limits,
            compressed,
            total: 0,
            taken: Rc::clone(&taken),
            hole: 0,
            failed: None,
        };
        let mut archive = tar::Archive::new(budget.limit(copying));
        let walked = index(&mut archive, &budget, taking, &taken);
        let mut copying = archive.into_inner().into_inner();
        if walked.is_ok() {
            let _ = io::copy(&mut copying, &mut io::sink());
        }
        if let Err(error) = copying.copy.flush() {
            copying.failed.get_or_insert(Failure::Write(error));
        }
        match copying.failed {
            Some(Failure::Write(error)) if is_full(&error) => {
                return Err(ImageError::NoSpace { doing: "writing", path });
            }
            Some(Failure::Write(source)) => {
                return Err(ImageError::Io { doing: "writing", path, source });
            }
            Some(Failure::TooLarge) => {
                return Err(ImageError::Archive(format!(
                    "it is larger than {} bytes",
                    limits.archive
                )));
            }
            Some(Failure::Ratio) => {
                return Err(ImageError::Archive(format!(
                    "it has more than {} bytes for each compressed byte",
                    limits.ratio
                )));
            }
            Some(Failure::Read(error)) => return Err(ImageError::ArchiveRead(error)),
            None => {}
        }
        drop(copying);
        Ok(Self { entries: walked?, file: Arc::new(file) })
    }

    /// The archive, decompressed.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the archive has an entry of that name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.section(name).is_ok()
    }

    /// The data of an entry, links followed within the archive.
    pub(crate) fn section(&self, name: &str) -> Result<Section, ImageError> {
        let missing = || ImageError::Archive(format!("{:?} is missing", display(name.as_bytes())));
        let clean = |path: &[u8]| {
            EntryPath::parse(path)
                .map(|path| path.as_bytes().to_vec())
                .map_err(|error| ImageError::Archive(error.to_string()))
        };
        let mut name = clean(name.as_bytes())?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&name).ok_or_else(missing)? {
                Entry::File { offset, length, taken } => {
                    let file = Arc::clone(&self.file);
                    let (offset, length, taken) = (*offset, *length, *taken);
                    return Ok(Section { file, offset, length, taken });
                }
                Entry::Link(target) => name = clean(target)?,
            }
        }
        Err(ImageError::Archive(format!("{:?} is a loop of links", display(&name))))
    }

    /// A small entry's bytes.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut section = self.section(name)?;
        if section.length > limit {
            return Err(ImageError::Archive(format!(
                "{:?} is larger than {limit} bytes",
                display(name.as_bytes())
            )));
        }
        if section.taken.is_some() {
            return Err(ImageError::Archive(format!(
                "{:?} is no description of an image",
                display(name.as_bytes())
            )));
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(ImageError::ArchiveRead)?;
        Ok(bytes)
    }
}

fn index<R: Read>(
    archive: &mut tar::Archive<R>,
    budget: &HeaderBudget,
    mut taking: Option<&mut dyn Taking>,
    skip: &Cell<bool>,
) -> Result<HashMap<Vec<u8>, Entry>, ImageError> {
    let broken = |error: io::Error| {
        // The text may end in the bytes that made no sense, which nobody wants on a terminal.
        let odd = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
        let text = error.to_string();
        let text = text.split(odd).next().unwrap_or_default();
        let text: String = text.chars().take(MAX_REASON).collect();
        ImageError::Archive(format!("it is not a tar: {text}"))
    };
    let mut found = HashMap::new();
    let (mut seen, mut kept) = (0_usize, 0_usize);
    let mut entries = archive.entries().map_err(broken)?;
    loop {
        budget.headers();
        let entry = entries.next();
        budget.data();
        let Some(entry) = entry else { return Ok(found) };
        let mut entry = entry.map_err(broken)?;
        seen += 1;
        if seen > MAX_ARCHIVE_ENTRIES {
            return Err(ImageError::Archive("it has too many entries".to_owned()));
        }
        let kind = entry.header().entry_type();
        let path = EntryPath::parse(&entry.path_bytes())
            .map_err(|error| ImageError::Archive(error.to_string()))?;
        let noted = if kind.is_file() || kind.is_contiguous() {
            let (offset, length) = (entry.raw_file_position(), entry.size());
            let mut taken = None;
            if let Some(taking) = &mut taking {
                let mut head = Vec::new();
                entry.by_ref().take(HEAD).read_to_end(&mut head).map_err(broken)?;
                let head = head.as_slice();
                if taking.wants(path.as_bytes(), head) {
                    skip.set(true);
                    taken = Some(taking.take(path.as_bytes(), &mut head.chain(&mut entry))?);
                }
            }
            Some(Entry::File { offset, length, taken })
        } else if kind.is_hard_link() || kind.is_symlink() {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let relative = kind.is_symlink() && !target.starts_with(b"/");
            let (parent, _) = path.split();
            let target = if relative { [parent, b"/", &target].concat() } else { target };
            Some(Entry::Link(target))
        } else {
            // Directories, and whatever else no image archive needs.
            None
        };
        if let Some(noted) = noted {
            let target = if let Entry::Link(target) = &noted { target.len() } else { 0 };
            kept = kept.saturating_add(path.as_bytes().len() + target + KEPT_NAME_COST);
            if kept > MAX_KEPT_NAMES {
                return Err(ImageError::Archive("its entries' names are too long".to_owned()));
            }
            found.insert(path.as_bytes().to_vec(), noted);
        }
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
        skip.set(false);
    }
}

enum Failure {
    Read(io::Error),
    Write(io::Error),
    TooLarge,
    Ratio,
}

/// Counts what comes in.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        let more = u64::try_from(read).unwrap_or(u64::MAX);
        self.count.set(self.count.get().saturating_add(more));
        Ok(read)
    }
}

/// Writes down everything that is read through it but what is taken: there the copy has a hole.
struct Copying<'a, R> {
    source: R,
    copy: BufWriter<&'a File>,
    limits: &'a Limits,
    compressed: Rc<Cell<u64>>,
    total: u64,
    taken: Rc<Cell<bool>>,
    /// Bytes that were passed over since the last that were written.
    hole: u64,
    failed: Option<Failure>,
}

impl<R> Copying<'_, R> {
    fn note(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.taken.get() {
            self.hole += u64::try_from(bytes.len()).map_err(io::Error::other)?;
            return Ok(());
        }
        if self.hole > 0 {
            let step = i64::try_from(self.hole).map_err(io::Error::other)?;
            self.copy.seek(SeekFrom::Current(step))?;
            self.hole = 0;
        }
        self.copy.write_all(bytes)
    }
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stop = || io::Error::other("stopped");
        if self.failed.is_some() {
            return Err(stop());
        }
        let read = match self.source.read(buf) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.failed = Some(Failure::Read(error));
                return Err(stop());
            }
        };
        self.total = self.total.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        let most = self.compressed.get().saturating_mul(self.limits.ratio);
        if self.total > self.limits.archive {
            self.failed = Some(Failure::TooLarge);
            return Err(stop());
        }
        if self.total > self.limits.ratio_floor && self.total > most {
            self.failed = Some(Failure::Ratio);
            return Err(stop());
        }
        if let Err(error) = self.note(buf.get(..read).unwrap_or_default()) {
            self.failed = Some(Failure::Write(error));
            return Err(stop());
        }
        Ok(read)
    }
}

/// One entry's data; several may be read at once.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    offset: u64,
    length: u64,
    taken: Option<usize>,
}

impl Section {
    /// The number under which it was taken. What is read here of such a one is not its data.
    pub(crate) const fn taken(&self) -> Option<usize> {
        self.taken
    }

    /// Bytes left.
    pub(crate) const fn len(&self) -> u64 {
        self.length
    }
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.length).unwrap_or(usize::MAX));
        let read = self.file.read_at(buf.get_mut(..want).unwrap_or_default(), self.offset)?;
        if read == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let step = u64::try_from(read).unwrap_or(self.length);
        self.offset += step;
        self.length -= step;
        Ok(read)
    }
}
