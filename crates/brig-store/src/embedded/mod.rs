//! The embedded backend: what one manager keeps on its own disk, private to its owner and synced
//! before a commit is acknowledged.
//!
//! Two files. A commit is one write and one sync at the end of a short log (`log`). What stands in
//! it is known here too (`pending`) and goes into ordered tables (`tables`) many commits at a time,
//! when the log is full and when the store is closed. After a crash the log says what the tables
//! do not have yet.

mod entry;
mod log;
mod pending;
mod tables;

#[cfg(feature = "fuzzing")]
pub use self::log::fuzz_log;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::entry::Entry;
use self::log::{Append, FILE_MODE, Log};
use self::pending::Pending;
use self::tables::{Tables, is_full};
use crate::backend::{Backend, BackendError, Batch, Loaded, Revision, SealedRecord};
use crate::object::Kind;

/// Room that must be left on the device beyond what a commit writes: running into the end of a
/// device in the middle of a commit is survivable, but costs reopening the file.
const SPARE_BYTES: u64 = 4 << 20;
/// Pages that a small change rewrites on its way up the trees.
const WRITE_AMPLIFICATION: u64 = 4;
/// How the log's name ends.
const LOG_EXTENSION: &str = "wal";

/// A file of tables and its log. A second process cannot open them at the same time.
pub struct RedbBackend {
    path: PathBuf,
    /// `None` once it is closed, and after a failure that left the files' state unknown.
    open: Mutex<Option<Open>>,
}

struct Open {
    tables: Tables,
    log: Log,
    pending: Pending,
}

impl RedbBackend {
    /// Opens or creates the files: the tables at `path`, the log beside them. Blocks; after a crash
    /// all of it is checked.
    ///
    /// # Errors
    /// [`BackendError::InUse`], [`BackendError::Format`], [`BackendError::Open`],
    /// [`BackendError::Full`].
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let tables = Tables::open(path)?;
        let place = log_of(path);
        let revision = tables.revision().map_err(fatal)?;
        let (mut log, entries) = match tables.log().map_err(fatal)? {
            Some(store) => Log::open(&place, store, revision)?,
            None => {
                let log = Log::create(&place)?;
                tables.adopt_log(log.store()).map_err(|error| full_or_fatal(path, error))?;
                (log, Vec::new())
            }
        };
        let pending = Pending::after(revision, entries)
            .map_err(|reason| BackendError::Format { path: place, reason: reason.to_owned() })?;
        if pending.is_empty() {
            log.restart();
        }
        Ok(Self { path: path.to_owned(), open: Mutex::new(Some(Open { tables, log, pending })) })
    }

    /// Removes a closed store's files; fine if there are none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(path: &Path) -> std::io::Result<()> {
        // Without tables a log says nothing; tables without their log are an error.
        for path in [path, &log_of(path)] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_space(&self, bytes: u64) -> Result<(), BackendError> {
        let needed = bytes.saturating_mul(WRITE_AMPLIFICATION).saturating_add(SPARE_BYTES);
        match rustix::fs::statvfs(&self.path) {
            Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < needed => {
                Err(BackendError::Full(self.path.clone()))
            }
            // If the device cannot be asked, the commit itself will tell.
            _ => Ok(()),
        }
    }

    fn record(&self, (path, value): (String, Vec<u8>)) -> Result<SealedRecord, BackendError> {
        let wrong = |reason: &str| BackendError::Format {
            path: self.path.clone(),
            reason: reason.to_owned(),
        };
        let (kind, id) = path.split_once('/').ok_or_else(|| wrong("a path has no kind"))?;
        let (head, sealed) =
            value.split_first_chunk().ok_or_else(|| wrong("a record is too short"))?;
        Ok(SealedRecord {
            kind: Kind::parse(kind).ok_or_else(|| wrong("a path has an unknown kind"))?,
            id: id.to_owned(),
            revision: Revision::from_be_bytes(*head),
            value: sealed.to_vec(),
        })
    }

    fn records(&self, rows: Vec<(String, Vec<u8>)>) -> Result<Vec<SealedRecord>, BackendError> {
        rows.into_iter().map(|row| self.record(row)).collect()
    }
}

impl Open {
    /// Adds an entry, to the log if it fits into one.
    fn write(slot: &mut Option<Self>, entry: Entry) -> Result<(), BackendError> {
        for _ in 0..2 {
            let Some(open) = slot.as_mut() else { return Err(closed()) };
            match open.log.append(&entry) {
                Ok(true) => {
                    open.pending.push(entry);
                    return Ok(());
                }
                Ok(false) => Self::write_tables(slot)?,
                Err(Append::Full) => {
                    return Err(BackendError::Full(open.tables.path().to_owned()));
                }
                Err(Append::Lost(error)) => {
                    *slot = None;
                    return Err(fatal(error));
                }
            }
        }
        // It is larger than a log, and the log is empty.
        let Some(open) = slot.as_mut() else { return Err(closed()) };
        open.pending.push(entry);
        let written = Self::write_tables(slot);
        if let (Err(BackendError::Full(_)), Some(open)) = (&written, slot.as_mut()) {
            open.pending.forget_last();
        }
        written
    }

    /// Has the tables take over what stands in the log. After [`BackendError::Full`] everything is
    /// as it was.
    fn write_tables(slot: &mut Option<Self>) -> Result<(), BackendError> {
        let Some(Self { tables, mut log, mut pending }) = slot.take() else { return Err(closed()) };
        if pending.is_empty() {
            *slot = Some(Self { tables, log, pending });
            return Ok(());
        }
        let (tables, outcome) = match tables.apply(pending.entries()) {
            Ok(()) => (tables, Ok(())),
            Err(error) if is_full(&error) => {
                // What it left behind is known once it is opened again.
                let path = tables.path().to_owned();
                drop(tables);
                let tables = Tables::open(&path)?;
                let is_there = tables.revision().map_err(fatal)? == pending.revision();
                (tables, if is_there { Ok(()) } else { Err(BackendError::Full(path)) })
            }
            Err(error) => return Err(fatal(error)),
        };
        if outcome.is_ok() {
            pending.clear();
            log.restart();
        }
        *slot = Some(Self { tables, log, pending });
        outcome
    }
}

impl Backend for RedbBackend {
    fn close(&self) {
        let mut slot = self.lock();
        if slot.is_some()
            && let Err(error) = Open::write_tables(&mut slot)
        {
            let error = brig_types::error::chain(&error);
            tracing::warn!(error, "what stands in the store's log stays there until it is opened");
        }
        *slot = None;
    }

    fn load(&self) -> Result<Loaded, BackendError> {
        let slot = self.lock();
        let open = slot.as_ref().ok_or_else(closed)?;
        let rows = open.pending.over(open.tables.rows().map_err(fatal)?);
        let revision = open.pending.revision();
        drop(slot);
        Ok(Loaded { revision, records: self.records(rows)? })
    }

    fn page(
        &self,
        after: Option<&SealedRecord>,
        limit: usize,
    ) -> Result<Vec<SealedRecord>, BackendError> {
        let mut slot = self.lock();
        Open::write_tables(&mut slot)?;
        let open = slot.as_ref().ok_or_else(closed)?;
        let after = after.map(|record| path_of(record.kind, &record.id));
        let rows = open.tables.page(after.as_deref(), limit).map_err(fatal)?;
        drop(slot);
        self.records(rows)
    }

    fn reseal(&self, records: &[SealedRecord]) -> Result<usize, BackendError> {
        let mut slot = self.lock();
        self.check_space(records.iter().map(|record| record.value.len() as u64 + 128).sum())?;
        Open::write_tables(&mut slot)?;
        let Some(Open { tables, log, pending }) = slot.take() else { return Err(closed()) };
        let (tables, outcome) = match tables.replace(records) {
            Ok(replaced) => (tables, Ok(replaced)),
            Err(error) => {
                // What is in the file is what was there or what was to be there. Both can be read.
                drop(tables);
                (Tables::open(&self.path)?, Err(full_or_fatal(&self.path, error)))
            }
        };
        *slot = Some(Open { tables, log, pending });
        outcome
    }

    fn commit(&self, first: Revision, group: &[Batch]) -> Result<(), BackendError> {
        let mut slot = self.lock();
        let open = slot.as_mut().ok_or_else(closed)?;
        if open.pending.revision().checked_add(1) != Some(first) {
            return Err(BackendError::Conflict);
        }
        self.check_space(group.iter().map(size).sum())?;
        let holds =
            open.tables.reader().and_then(|tables| open.pending.holds(&tables, first, group));
        if !holds.map_err(fatal)? {
            return Err(BackendError::Conflict);
        }
        Open::write(&mut slot, Entry::new(first, group))
    }
}

impl fmt::Debug for RedbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbBackend").field("path", &self.path).finish_non_exhaustive()
    }
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension(LOG_EXTENSION)
}

/// A record as it is in the table.
fn row(version: Revision, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(8 + value.len());
    record.extend_from_slice(&version.to_be_bytes());
    record.extend_from_slice(value);
    record
}

fn version_of(row: &[u8]) -> Option<Revision> {
    row.first_chunk().map(|version| Revision::from_be_bytes(*version))
}

fn path_of(kind: Kind, id: &str) -> String {
    format!("{kind}/{id}")
}

fn size(batch: &Batch) -> u64 {
    let values = batch.writes.iter().map(|write| write.value.as_ref().map_or(0, Vec::len) + 128);
    values.sum::<usize>() as u64
}

fn closed() -> BackendError {
    fatal("the file is closed")
}

fn full_or_fatal(path: &Path, error: redb::Error) -> BackendError {
    if is_full(&error) { BackendError::Full(path.to_owned()) } else { fatal(error) }
}

fn fatal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    BackendError::Fatal(error.into())
}

#[cfg(test)]
mod tests;
