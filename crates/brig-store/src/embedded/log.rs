//! The write-ahead log: what was committed since the tables were last written.
//!
//! A file of [`SIZE`] bytes beside the tables', in blocks of [`BLOCK`] bytes:
//!
//! | block | content |
//! | --- | --- |
//! | 0 | the header: magic, store, salt, base, SHA-256 of these |
//! | 1… | frames, each from the beginning of a block: salt, number, length, SHA-256 of these and the payload; the payload, an [`Entry`] |
//!
//! A frame is synced before the next one is written, and no block that holds something
//! acknowledged is written again before the tables have it. So only the last frame can be half
//! written; one that makes no sense with a good one behind it that the tables do not have is
//! damage, and nothing is opened then. Once the tables have everything the log begins anew, with another salt: frames of before
//! do not count any more.
//!
//! All blocks are written when the file is made. A commit then changes neither the file's size nor
//! where it lies on the disk, which makes its sync the cheapest there is.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use brig_files::Durability;
use brig_pki::hash::{SHA256_LEN, Sha256};
use brig_pki::random;
use prost::Message as _;

use super::entry::Entry;
use super::fatal;
use crate::backend::{BackendError, Revision};

/// Bytes of the file.
const SIZE: usize = 2 << 20;
/// What file systems and disks write at once.
const BLOCK: usize = 4096;
const MAGIC: [u8; 8] = *b"brigwal1";
/// Bytes of a random number that marks what belongs together.
const SALT: usize = 16;
/// Magic, store, salt and base, before their hash.
const HEADER: usize = MAGIC.len() + 8 + SALT + 8;
/// Salt, number and length, before their hash.
const FRAME: usize = SALT + 8 + 8;
pub(super) const FILE_MODE: u32 = 0o600;

/// A log, and where its next frame goes.
pub(super) struct Log {
    file: File,
    /// Which store's it is.
    store: u64,
    salt: [u8; SALT],
    /// Number of the next frame.
    number: u64,
    /// Where it goes.
    at: usize,
}

impl Log {
    /// Makes a new one, in place of what there may be.
    pub(super) fn create(path: &Path) -> Result<Self, BackendError> {
        let failed = |source| open_failed(path, source);
        brig_files::replace(path, &vec![0; SIZE], FILE_MODE, Durability::Synced).map_err(failed)?;
        let store = u64::from_be_bytes(random::bytes().map_err(fatal)?);
        let file = open(path).map_err(failed)?;
        Ok(Self { file, store, salt: [0; SALT], number: 0, at: 0 })
    }

    /// Opens a store's log, with what stands in it. Its tables have everything up to `revision`.
    pub(super) fn open(
        path: &Path,
        store: u64,
        revision: Revision,
    ) -> Result<(Self, Vec<Entry>), BackendError> {
        let file = open(path).map_err(|source| open_failed(path, source))?;
        let mut bytes = vec![0; SIZE];
        file.read_exact_at(&mut bytes, 0).map_err(|source| open_failed(path, source))?;
        let Content { salt, entries, end } = read(&bytes, store, revision).map_err(|reason| {
            BackendError::Format { path: path.to_owned(), reason: reason.to_owned() }
        })?;
        let number = entries.len() as u64;
        Ok((Self { file, store, salt, number, at: end }, entries))
    }

    /// Which store's it is.
    pub(super) const fn store(&self) -> u64 {
        self.store
    }

    /// Adds an entry; it is durable then. Answers whether there was room.
    ///
    /// # Errors
    /// [`Append`].
    pub(super) fn append(&mut self, entry: &Entry) -> Result<bool, Append> {
        let mut bytes = Vec::new();
        let from = self.at;
        let (salt, number) = match from {
            0 => {
                let salt =
                    random::bytes().map_err(|error| Append::Lost(io::Error::other(error)))?;
                bytes.extend_from_slice(&header(self.store, salt, entry.first.saturating_sub(1)));
                bytes.resize(BLOCK, 0);
                (salt, 0)
            }
            _ => (self.salt, self.number),
        };
        push_frame(&mut bytes, salt, number, entry);
        if from + bytes.len() > SIZE {
            return Ok(false);
        }
        self.file.write_all_at(&bytes, from as u64).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Append::Full,
            _ => Append::Lost(error),
        })?;
        self.file.sync_data().map_err(Append::Lost)?;
        (self.salt, self.number, self.at) = (salt, number + 1, from + bytes.len());
        Ok(true)
    }

    /// Begins anew: the tables have everything.
    pub(super) const fn restart(&mut self) {
        self.at = 0;
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Why an entry was not added.
pub(super) enum Append {
    /// No room on the device: some file systems write elsewhere what is written again.
    Full,
    /// It may be there or not.
    Lost(io::Error),
}

/// What stands in a log.
pub(super) struct Content {
    salt: [u8; SALT],
    pub(super) entries: Vec<Entry>,
    /// Where the next frame goes.
    end: usize,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn header(store: u64, salt: [u8; SALT], base: Revision) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&store.to_be_bytes());
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&base.to_be_bytes());
    let hash = hash(&bytes, &[]);
    bytes.extend_from_slice(&hash);
    bytes
}

fn push_frame(bytes: &mut Vec<u8>, salt: [u8; SALT], number: u64, entry: &Entry) {
    let payload = entry.encode_to_vec();
    let from = bytes.len();
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    let hash = hash(bytes.get(from..).unwrap_or_default(), &payload);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(&payload);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
}

fn hash(head: &[u8], payload: &[u8]) -> [u8; SHA256_LEN] {
    let mut hash = Sha256::new();
    hash.update(head);
    hash.update(payload);
    hash.finish()
}

/// Reads the log of a store whose tables have everything up to `revision`; the reason if that is
/// not possible.
pub(super) fn read(bytes: &[u8], store: u64, revision: Revision) -> Result<Content, &'static str> {
    let (head, rest) = bytes.split_at_checked(HEADER).ok_or("it is too short")?;
    if head.iter().all(|byte| *byte == 0) {
        // Nothing was ever written to it.
        return Ok(Content { salt: [0; SALT], entries: Vec::new(), end: 0 });
    }
    let (magic, fields) = head.split_first_chunk().ok_or("it is too short")?;
    let (whose, fields) = fields.split_first_chunk().ok_or("it is too short")?;
    let (salt, base) = fields.split_first_chunk().ok_or("it is too short")?;
    if *magic != MAGIC || !rest.starts_with(&hash(head, &[])) {
        return Err("its beginning is damaged");
    }
    if u64::from_be_bytes(*whose) != store {
        return Err("it is the log of another store");
    }
    let base = base.first_chunk().map_or(0, |base| Revision::from_be_bytes(*base));
    let mut entries: Vec<Entry> = Vec::new();
    let (mut at, mut last) = (BLOCK, base);
    while let Some((number, entry)) = frame(bytes, at, salt) {
        if number != entries.len() as u64 || last.checked_add(1) != Some(entry.first) {
            return Err("it is damaged: a transaction is not the next one");
        }
        last = entry.last();
        at += frame_len(&entry);
        entries.push(entry);
    }
    // Where a log that began anew was not written whole, its old frames are here still. The tables
    // have those.
    let mut behind = (at..bytes.len()).step_by(BLOCK).skip(1);
    let is_lost = |at| frame(bytes, at, salt).is_some_and(|(_, entry)| entry.last() > revision);
    if behind.any(is_lost) {
        return Err("it is damaged: a transaction in the middle cannot be read");
    }
    Ok(Content { salt: *salt, entries, end: at })
}

fn frame_len(entry: &Entry) -> usize {
    (FRAME + SHA256_LEN + entry.encoded_len()).next_multiple_of(BLOCK)
}

/// The frame that begins there, with its number.
fn frame(bytes: &[u8], at: usize, salt: &[u8; SALT]) -> Option<(u64, Entry)> {
    let bytes = bytes.get(at..)?;
    let (head, rest) = bytes.split_at_checked(FRAME)?;
    let fields = head.strip_prefix(salt)?;
    let (number, length) = fields.split_first_chunk()?;
    let length = usize::try_from(u64::from_be_bytes(*length.first_chunk()?)).ok()?;
    let (expected, rest) = rest.split_first_chunk::<SHA256_LEN>()?;
    let payload = rest.get(..length)?;
    if hash(head, payload) != *expected {
        return None;
    }
    Some((u64::from_be_bytes(*number), Entry::decode(payload).ok()?))
}

fn open_failed(path: &Path, source: io::Error) -> BackendError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            BackendError::Full(path.to_owned())
        }
        _ => BackendError::Open { path: path.to_owned(), source },
    }
}

/// Reads bytes as a log, as an entry, and as entries behind a beginning that is right.
#[cfg(feature = "fuzzing")]
pub fn fuzz_log(bytes: &[u8]) {
    let _ = read(bytes, 0, 0);
    let Ok(entry) = Entry::decode(bytes) else { return };
    let salt = [1; SALT];
    let mut log = header(7, salt, entry.first.saturating_sub(1));
    log.resize(BLOCK, 0);
    push_frame(&mut log, salt, 0, &entry);
    if let Ok(content) = read(&log, 7, 0) {
        assert!(content.entries.len() <= 1, "one was written");
        let _ = super::pending::Pending::after(0, content.entries);
    }
}

#[cfg(test)]
mod tests;
