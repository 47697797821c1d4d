//! What of a layer's archive its files do not hold: headers, padding, and which file holds which
//! payload ("tar-split"). With it the archive comes back byte for byte from the unpacked tree, so
//! that no second copy of a layer has to be kept for saving and pushing it.
//!
//! The log is a zstd stream of records:
//!
//! ```text
//! 0  length:u32  bytes                 bytes of the archive as they are
//! 1  length:u16  path      size:u64    the content of this file follows
//! 2  length:u16  path                  what was there so far lies in the attic from here on
//! ```
//!
//! Archives may have the same name twice. What a later entry replaces is moved to the attic, a
//! folder beside the tree, under the number of its record.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use brig_pki::hash::Sha256;
use brig_types::digest::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::limits::MAX_PATH;

const RAW: u8 = 0;
const FILE: u8 = 1;
const REPLACED: u8 = 2;
/// Largest piece of raw bytes in one record.
const MAX_RAW: usize = 64 << 10;
const LEVEL: i32 = 3;

type Encoder = zstd::stream::write::Encoder<'static, BufWriter<File>>;

/// Writes the log while the layer is unpacked. Cheap to clone: the reader of the archive and its
/// extractor share one.
#[derive(Clone)]
pub(super) struct Recording(Rc<RefCell<Log>>);

struct Log {
    encoder: Encoder,
    raw: Vec<u8>,
    /// Bytes of the archive that a file holds.
    skip: u64,
    replaced: u64,
}

impl Recording {
    /// Begins a log in an empty file.
    pub(super) fn begin(file: File) -> io::Result<Self> {
        let encoder = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
        let log = Log { encoder, raw: Vec::with_capacity(MAX_RAW), skip: 0, replaced: 0 };
        Ok(Self(Rc::new(RefCell::new(log))))
    }

    /// The next `size` bytes of the archive are this file's.
    pub(super) fn file(&self, path: &[u8], size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        let log = &mut *self.0.borrow_mut();
        log.flush_raw()?;
        log.path(FILE, path)?;
        log.encoder.write_all(&size.to_le_bytes())?;
        log.skip = size;
        Ok(())
    }

    /// What is at a path goes to the attic, under the number that comes back.
    pub(super) fn replaced(&self, path: &[u8]) -> io::Result<u64> {
        let log = &mut *self.0.borrow_mut();
        log.flush_raw()?;
        log.path(REPLACED, path)?;
        let number = log.replaced;
        log.replaced += 1;
        Ok(number)
    }

    fn note(&self, bytes: &[u8]) -> io::Result<()> {
        let log = &mut *self.0.borrow_mut();
        let skipped = usize::try_from(log.skip).unwrap_or(usize::MAX).min(bytes.len());
        log.skip -= u64::try_from(skipped).unwrap_or(log.skip);
        let mut rest = bytes.get(skipped..).unwrap_or_default();
        while !rest.is_empty() {
            let room = MAX_RAW - log.raw.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            log.raw.extend_from_slice(now);
            rest = later;
            if log.raw.len() == MAX_RAW {
                log.flush_raw()?;
            }
        }
        Ok(())
    }

    /// Ends the log; returns how many entries of the attic it names.
    pub(super) fn finish(&self) -> io::Result<u64> {
        let log = &mut *self.0.borrow_mut();
        log.flush_raw()?;
        log.encoder.do_finish()?;
        log.encoder.get_mut().flush()?;
        Ok(log.replaced)
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recording")
    }
}

impl Log {
    fn flush_raw(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.raw.len()).map_err(io::Error::other)?;
        self.encoder.write_all(&[RAW])?;
        self.encoder.write_all(&length.to_le_bytes())?;
        self.encoder.write_all(&self.raw)?;
        self.raw.clear();
        Ok(())
    }

    fn path(&mut self, tag: u8, path: &[u8]) -> io::Result<()> {
        let length = u16::try_from(path.len()).map_err(io::Error::other)?;
        self.encoder.write_all(&[tag])?;
        self.encoder.write_all(&length.to_le_bytes())?;
        self.encoder.write_all(path)
    }
}

/// Passes an archive on and records it.
pub(super) struct RecordingReader<R> {
    pub(super) inner: R,
    pub(super) recording: Option<Recording>,
}

impl<R: Read> Read for RecordingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        if let Some(recording) = &self.recording {
            recording.note(buf.get(..read).unwrap_or_default())?;
        }
        Ok(read)
    }
}

/// A layer's archive, put together again. The last read fails when it is not what it must be.
pub(crate) struct LayerTar {
    log: zstd::stream::read::Decoder<'static, BufReader<File>>,
    tree: OwnedFd,
    attic: Option<OwnedFd>,
    /// Where replaced things were, and how many payloads came before they went.
    replaced: Vec<(Vec<u8>, u64)>,
    payloads: u64,
    current: Current,
    hash: Option<Sha256>,
    diff_id: Digest,
}

enum Current {
    Nothing,
    Raw(u64),
    File(File, u64),
}

impl std::fmt::Debug for LayerTar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerTar").field("diff_id", &self.diff_id).finish_non_exhaustive()
    }
}

impl LayerTar {
    /// Opens the archive of the tree `tree` with its log; `attic` only if the log needs it.
    pub(crate) fn open(
        log: &Path,
        tree: &Path,
        attic: Option<&Path>,
        diff_id: Digest,
    ) -> io::Result<Self> {
        let open_dir = |path: &Path| {
            rustix::fs::open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let decoder = || -> io::Result<_> { zstd::stream::read::Decoder::new(File::open(log)?) };
        let mut replaced = Vec::new();
        if attic.is_some() {
            let mut scan = decoder()?;
            let mut payloads = 0;
            while let Some(record) = Record::read(&mut scan)? {
                match record {
                    Record::Raw(length) => {
                        io::copy(&mut scan.by_ref().take(length), &mut io::sink())?;
                    }
                    Record::File { .. } => payloads += 1,
                    Record::Replaced(path) => replaced.push((path, payloads)),
                }
            }
        }
        Ok(Self {
            log: decoder()?,
            tree: open_dir(tree)?,
            attic: attic.map(open_dir).transpose()?,
            replaced,
            payloads: 0,
            current: Current::Nothing,
            hash: Some(Sha256::new()),
            diff_id,
        })
    }

    fn payload(&self, path: &[u8]) -> io::Result<File> {
        let open = |dir: &OwnedFd, path: &[u8]| -> io::Result<File> {
            let fd = rustix::fs::openat2(
                dir.as_fd(),
                path,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
            )?;
            Ok(File::from(fd))
        };
        // The first replacement after this payload took it away, if any did.
        for (number, (gone, before)) in self.replaced.iter().enumerate() {
            let below = path
                .strip_prefix(gone.as_slice())
                .filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
            if let (Some(rest), Some(attic)) = (below, &self.attic)
                && *before > self.payloads
            {
                return open(attic, &[number.to_string().as_bytes(), rest].concat());
            }
        }
        open(&self.tree, path)
    }

    fn next(&mut self) -> io::Result<bool> {
        loop {
            match Record::read(&mut self.log)? {
                None => return Ok(false),
                Some(Record::Replaced(_)) => {}
                Some(Record::Raw(length)) => {
                    self.current = Current::Raw(length);
                    return Ok(true);
                }
                Some(Record::File { path, size }) => {
                    let file = self.payload(&path).map_err(|error| {
                        let path = super::path::display(&path);
                        io::Error::new(error.kind(), format!("the layer's {path:?}: {error}"))
                    })?;
                    self.payloads += 1;
                    self.current = Current::File(file, size);
                    return Ok(true);
                }
            }
        }
    }
}

impl Read for LayerTar {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let (source, left): (&mut dyn Read, &mut u64) = match &mut self.current {
                Current::Raw(left) if *left > 0 => (&mut self.log, left),
                Current::File(file, left) if *left > 0 => (file, left),
                _ => {
                    if self.next()? {
                        continue;
                    }
                    if let Some(hash) = self.hash.take()
                        && Digest::from_sha256(hash.finish()) != self.diff_id
                    {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            format!("layer {} was changed on disk", self.diff_id),
                        ));
                    }
                    return Ok(0);
                }
            };
            let want = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let read = source.read(buf.get_mut(..want).unwrap_or_default())?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *left -= u64::try_from(read).unwrap_or(*left);
            if let Some(hash) = &mut self.hash {
                hash.update(buf.get(..read).unwrap_or_default());
            }
            return Ok(read);
        }
    }
}

enum Record {
    Raw(u64),
    File { path: Vec<u8>, size: u64 },
    Replaced(Vec<u8>),
}

impl Record {
    /// The next record, without the bytes that follow a raw one.
    fn read(source: &mut impl Read) -> io::Result<Option<Self>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the layer's log is damaged");
        let mut tag = [0];
        if source.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let path = |source: &mut dyn Read| -> io::Result<Vec<u8>> {
            let mut length = [0; 2];
            source.read_exact(&mut length)?;
            let length = usize::from(u16::from_le_bytes(length));
            if length > MAX_PATH {
                return Err(invalid());
            }
            let mut path = vec![0; length];
            source.read_exact(&mut path)?;
            Ok(path)
        };
        Ok(Some(match tag {
            [RAW] => {
                let mut length = [0; 4];
                source.read_exact(&mut length)?;
                Self::Raw(u64::from(u32::from_le_bytes(length)))
            }
            [FILE] => {
                let path = path(source)?;
                let mut size = [0; 8];
                source.read_exact(&mut size)?;
                Self::File { path, size: u64::from_le_bytes(size) }
            }
            [REPLACED] => Self::Replaced(path(source)?),
            _ => return Err(invalid()),
        }))
    }
}
