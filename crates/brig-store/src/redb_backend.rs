//! The embedded backend: one file, private to its owner, synced before a commit is acknowledged.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `records` | `<kind>/<id>` | revision (8 bytes, big endian) and the sealed value |
//! | `names` | keyed hash | id of the object that has the name |
//! | `meta` | `revision`, `format` | counters |

use std::fmt;
use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError,
    Table, TableDefinition, WriteTransaction,
};

use crate::backend::{
    Backend, BackendError, Batch, Loaded, NameClaim, Revision, SealedRecord, Write,
};
use crate::object::Kind;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const NAMES: TableDefinition<'_, [u8; 32], &str> = TableDefinition::new("names");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const CURRENT_FORMAT: u64 = 1;
const FILE_MODE: u32 = 0o600;
/// The database's page cache; every object is in memory already.
const CACHE_BYTES: usize = 4 << 20;
/// Room that must be left on the device beyond what a commit writes: running into the end of a
/// device in the middle of a commit is survivable, but costs reopening the file.
const SPARE_BYTES: u64 = 4 << 20;
/// Pages that a small change rewrites on its way up the trees.
const WRITE_AMPLIFICATION: u64 = 4;

/// One file. A second process cannot open it at the same time.
pub struct RedbBackend {
    path: PathBuf,
    /// `None` once it is closed, and after a failure that left the file's state unknown.
    database: Mutex<Option<Database>>,
}

impl RedbBackend {
    /// Opens or creates the file. Blocks; after a crash the whole file is checked.
    ///
    /// # Errors
    /// [`BackendError::InUse`], [`BackendError::Format`], [`BackendError::Open`],
    /// [`BackendError::Full`].
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let database = open_database(path)?;
        Ok(Self { path: path.to_owned(), database: Mutex::new(Some(database)) })
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

    /// Finds out what a commit that ran out of space left behind.
    fn reopen_after_full(
        &self,
        slot: &mut Option<Database>,
        last: Revision,
    ) -> Result<(), BackendError> {
        drop(slot.take());
        let database = open_database(&self.path)?;
        let revision = read_revision(&database).map_err(fatal)?;
        *slot = Some(database);
        if revision == last { Ok(()) } else { Err(BackendError::Full(self.path.clone())) }
    }
}

impl Backend for RedbBackend {
    fn close(&self) {
        drop(self.database.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn load(&self) -> Result<Loaded, BackendError> {
        let slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| fatal("the file is closed"))?;
        let read = || -> Result<_, redb::Error> {
            let tx = database.begin_read()?;
            let revision = tx.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value());
            let mut rows = Vec::new();
            for row in tx.open_table(RECORDS)?.iter()? {
                let (path, value) = row?;
                rows.push((path.value().to_owned(), value.value().to_vec()));
            }
            Ok((revision, rows))
        };
        let (revision, rows) = read().map_err(fatal)?;
        let records =
            rows.into_iter().map(|row| self.record(row)).collect::<Result<Vec<_>, _>>()?;
        Ok(Loaded { revision, records })
    }

    fn page(
        &self,
        after: Option<&SealedRecord>,
        limit: usize,
    ) -> Result<Vec<SealedRecord>, BackendError> {
        let slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| fatal("the file is closed"))?;
        let read = || -> Result<Vec<_>, redb::Error> {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let after = after.map(|record| path_of(record.kind, &record.id));
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = table.range::<&str>((from, Bound::Unbounded))?.take(limit);
            rows.map(|row| {
                let (path, value) = row?;
                Ok((path.value().to_owned(), value.value().to_vec()))
            })
            .collect()
        };
        read().map_err(fatal)?.into_iter().map(|row| self.record(row)).collect()
    }

    fn reseal(&self, records: &[SealedRecord]) -> Result<usize, BackendError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| fatal("the file is closed"))?;
        self.check_space(records.iter().map(|record| record.value.len() as u64 + 128).sum())?;
        match replace(database, records) {
            Ok(replaced) => Ok(replaced),
            Err(error) => {
                // What is in the file is what was there or what was to be there. Both can be read.
                drop(slot.take());
                let is_full = is_full(&error);
                *slot = Some(open_database(&self.path)?);
                Err(if is_full { BackendError::Full(self.path.clone()) } else { fatal(error) })
            }
        }
    }

    fn commit(&self, first: Revision, group: &[Batch]) -> Result<(), BackendError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = slot.as_ref().ok_or_else(|| fatal("the file is closed"))?;
        let Some(last) = first.checked_add(group.len() as u64).and_then(|n| n.checked_sub(1))
        else {
            return Err(BackendError::Conflict);
        };
        self.check_space(group.iter().map(size).sum())?;
        match apply(database, first, group) {
            Ok(Outcome::Committed) => Ok(()),
            Ok(Outcome::Conflict) => Err(BackendError::Conflict),
            Err(error) if is_full(&error) => self.reopen_after_full(&mut slot, last),
            Err(error) => {
                drop(slot.take());
                Err(fatal(error))
            }
        }
    }
}

/// A record as it is in the table.
fn row(revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(8 + value.len());
    record.extend_from_slice(&revision.to_be_bytes());
    record.extend_from_slice(value);
    record
}

fn path_of(kind: Kind, id: &str) -> String {
    format!("{kind}/{id}")
}

impl fmt::Debug for RedbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbBackend").field("path", &self.path).finish_non_exhaustive()
    }
}

enum Outcome {
    Committed,
    Conflict,
}

fn apply(database: &Database, first: Revision, group: &[Batch]) -> Result<Outcome, redb::Error> {
    let mut tx = database.begin_write()?;
    secure(&mut tx)?;
    let revision = tx.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value());
    if revision.checked_add(1) != Some(first) {
        tx.abort()?;
        return Ok(Outcome::Conflict);
    }
    let Some(last) = apply_group(&tx, revision, group)? else {
        tx.abort()?;
        return Ok(Outcome::Conflict);
    };
    tx.open_table(META)?.insert(REVISION, last)?;
    tx.commit()?;
    Ok(Outcome::Committed)
}

/// Answers the last revision; `None` when an expectation does not hold.
fn apply_group(
    tx: &WriteTransaction,
    mut revision: Revision,
    group: &[Batch],
) -> Result<Option<Revision>, redb::Error> {
    let mut records = tx.open_table(RECORDS)?;
    let mut names = tx.open_table(NAMES)?;
    for batch in group {
        revision += 1;
        for write in &batch.writes {
            if !apply_write(&mut records, batch.version.unwrap_or(revision), write)? {
                return Ok(None);
            }
        }
        for claim in &batch.names {
            if !apply_claim(&mut names, claim)? {
                return Ok(None);
            }
        }
    }
    Ok(Some(revision))
}

fn apply_write(
    records: &mut Table<'_, &str, &[u8]>,
    revision: Revision,
    write: &Write,
) -> Result<bool, redb::Error> {
    let path = path_of(write.kind, &write.id);
    let current = revision_of(records, &path)?;
    // Within a group an earlier transaction may have written the object.
    if current != write.expected {
        return Ok(false);
    }
    match &write.value {
        Some(value) => {
            records.insert(path.as_str(), row(revision, value).as_slice())?;
        }
        None => {
            records.remove(path.as_str())?;
        }
    }
    Ok(true)
}

fn revision_of(
    records: &Table<'_, &str, &[u8]>,
    path: &str,
) -> Result<Option<Revision>, redb::Error> {
    Ok(records.get(path)?.and_then(|guard| {
        let (head, _) = guard.value().split_first_chunk()?;
        Some(Revision::from_be_bytes(*head))
    }))
}

fn replace(database: &Database, records: &[SealedRecord]) -> Result<usize, redb::Error> {
    let mut tx = database.begin_write()?;
    secure(&mut tx)?;
    let mut replaced = 0;
    {
        let mut table = tx.open_table(RECORDS)?;
        for record in records {
            let path = path_of(record.kind, &record.id);
            if revision_of(&table, &path)? == Some(record.revision) {
                table.insert(path.as_str(), row(record.revision, &record.value).as_slice())?;
                replaced += 1;
            }
        }
    }
    tx.commit()?;
    Ok(replaced)
}

fn apply_claim(
    names: &mut Table<'_, [u8; 32], &str>,
    claim: &NameClaim,
) -> Result<bool, redb::Error> {
    let current = names.get(claim.name)?.map(|guard| guard.value().to_owned());
    if current != claim.from {
        return Ok(false);
    }
    match &claim.to {
        Some(id) => names.insert(claim.name, id.as_str())?,
        None => names.remove(claim.name)?,
    };
    Ok(true)
}

fn open_database(path: &Path) -> Result<Database, BackendError> {
    let failed = |source| BackendError::Open { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE)).map_err(failed)?;
    let translate = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            BackendError::InUse(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            BackendError::Full(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            failed(source)
        }
        other => BackendError::Format { path: path.to_owned(), reason: other.to_string() },
    };
    let backend = FileBackend::new(file).map_err(translate)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(translate)?;
    match prepare(&database) {
        Ok(CURRENT_FORMAT) => {}
        Ok(other) => {
            let reason = format!("its format is {other}, this version knows {CURRENT_FORMAT}");
            return Err(BackendError::Format { path: path.to_owned(), reason });
        }
        Err(error) if is_full(&error) => return Err(BackendError::Full(path.to_owned())),
        Err(error) => return Err(fatal(error)),
    }
    if let Some(parent) = path.parent() {
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(database)
}

/// Creates the tables of a new file and returns the format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let mut tx = database.begin_write()?;
    secure(&mut tx)?;
    let format = {
        let mut meta = tx.open_table(META)?;
        let known = meta.get(FORMAT)?.map(|guard| guard.value());
        match known {
            Some(format) => format,
            None => {
                meta.insert(FORMAT, CURRENT_FORMAT)?;
                meta.insert(REVISION, 0)?;
                drop(meta);
                tx.open_table(RECORDS)?;
                tx.open_table(NAMES)?;
                tx.commit()?;
                return Ok(CURRENT_FORMAT);
            }
        }
    };
    tx.abort()?;
    Ok(format)
}

/// Durable when `commit` returns, with one sync. The database's checksum tells a half-written commit
/// from a whole one; it would be no protection against somebody who chooses the bytes that are
/// stored and crashes the machine at will, but nobody does: every value is sealed under a key that
/// stays here, with a nonce of its own.
fn secure(tx: &mut WriteTransaction) -> Result<(), redb::Error> {
    tx.set_durability(Durability::Immediate)?;
    Ok(())
}

fn read_revision(database: &Database) -> Result<Revision, redb::Error> {
    let tx = database.begin_read()?;
    Ok(tx.open_table(META)?.get(REVISION)?.map_or(0, |guard| guard.value()))
}

fn size(batch: &Batch) -> u64 {
    let values = batch.writes.iter().map(|write| write.value.as_ref().map_or(0, Vec::len) + 128);
    values.sum::<usize>() as u64
}

fn is_full(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(source) if matches!(source.kind(), StorageFull | QuotaExceeded))
}

fn fatal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    BackendError::Fatal(error.into())
}
