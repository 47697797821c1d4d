//! The tables: one file, an ordered tree each.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `records` | `<kind>/<id>` | revision (8 bytes, big endian) and the sealed value |
//! | `names` | keyed hash | id of the object that has the name |
//! | `meta` | `revision`, `format`, `log` | the last transaction in the tables; 2, or 1 before there was a log; which log belongs to them |

use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _,
    StorageError, TableDefinition, WriteTransaction,
};

use super::entry::{Entry, Name};
use super::{FILE_MODE, fatal, path_of, row, version_of};
use crate::backend::{BackendError, Revision, SealedRecord};
use crate::sealer::BlindName;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const NAMES: TableDefinition<'_, [u8; 32], &str> = TableDefinition::new("names");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const LOG: &str = "log";
const CURRENT_FORMAT: u64 = 2;
/// The one before there was a log.
const WITHOUT_LOG: u64 = 1;
/// The database's page cache; every object is in memory already.
const CACHE_BYTES: usize = 4 << 20;

/// The tables of a store. A second process cannot open them at the same time.
pub(super) struct Tables {
    path: PathBuf,
    database: Database,
}

/// What the tables say now.
pub(super) struct Reader {
    records: ReadOnlyTable<&'static str, &'static [u8]>,
    names: ReadOnlyTable<[u8; 32], &'static str>,
}

impl Reader {
    /// The version of an object that is there.
    pub(super) fn version_of(&self, path: &str) -> Result<Option<Revision>, redb::Error> {
        Ok(self.records.get(path)?.and_then(|guard| version_of(guard.value())))
    }

    /// Who has a name.
    pub(super) fn holder_of(&self, name: &BlindName) -> Result<Option<String>, redb::Error> {
        Ok(self.names.get(name)?.map(|guard| guard.value().to_owned()))
    }
}

impl Tables {
    /// Opens or creates them. Blocks; after a crash the whole file is checked.
    pub(super) fn open(path: &Path) -> Result<Self, BackendError> {
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
        let translate = |error: DatabaseError| translate(path, error);
        let backend = FileBackend::new(file).map_err(translate)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(translate)?;
        match prepare(&database) {
            Ok(CURRENT_FORMAT | WITHOUT_LOG) => {}
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
        Ok(Self { path: path.to_owned(), database })
    }

    /// The log that belongs to them; none yet in new ones, and in those of an earlier version.
    pub(super) fn log(&self) -> Result<Option<u64>, redb::Error> {
        let meta = self.database.begin_read()?.open_table(META)?;
        Ok(meta.get(LOG)?.map(|guard| guard.value()))
    }

    /// Makes a log theirs.
    pub(super) fn adopt_log(&self, log: u64) -> Result<(), redb::Error> {
        let tx = self.begin()?;
        {
            let mut meta = tx.open_table(META)?;
            meta.insert(LOG, log)?;
            meta.insert(FORMAT, CURRENT_FORMAT)?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Makes them what they were before there was a log.
    #[cfg(test)]
    pub(super) fn forget_log(&self) -> Result<(), redb::Error> {
        let tx = self.begin()?;
        {
            let mut meta = tx.open_table(META)?;
            meta.remove(LOG)?;
            meta.insert(FORMAT, WITHOUT_LOG)?;
        }
        tx.commit()?;
        Ok(())
    }

    /// The last transaction in them.
    pub(super) fn revision(&self) -> Result<Revision, redb::Error> {
        let meta = self.database.begin_read()?.open_table(META)?;
        Ok(meta.get(REVISION)?.map_or(0, |guard| guard.value()))
    }

    pub(super) fn reader(&self) -> Result<Reader, redb::Error> {
        let tx = self.database.begin_read()?;
        Ok(Reader { records: tx.open_table(RECORDS)?, names: tx.open_table(NAMES)? })
    }

    /// Everything, by path.
    pub(super) fn rows(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        table.iter()?.map(|row| row_of(row?)).collect()
    }

    /// Rows in their order, at most `limit`, from the first after `after`.
    pub(super) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        table.range::<&str>((from, Bound::Unbounded))?.take(limit).map(|row| row_of(row?)).collect()
    }

    /// Writes what transactions left, which follow on what is there.
    pub(super) fn apply(&self, entries: &[Entry]) -> Result<(), redb::Error> {
        let tx = self.begin()?;
        {
            let mut records = tx.open_table(RECORDS)?;
            let mut names = tx.open_table(NAMES)?;
            for transaction in entries.iter().flat_map(|entry| &entry.transactions) {
                for record in &transaction.records {
                    match &record.value {
                        Some(value) => {
                            records.insert(
                                record.path.as_str(),
                                row(record.version, value).as_slice(),
                            )?;
                        }
                        None => _ = records.remove(record.path.as_str())?,
                    }
                }
                for (name, holder) in transaction.names.iter().filter_map(Name::claim) {
                    match holder {
                        Some(id) => _ = names.insert(name, id)?,
                        None => _ = names.remove(name)?,
                    }
                }
            }
        }
        if let Some(last) = entries.last() {
            tx.open_table(META)?.insert(REVISION, last.last())?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Replaces the sealed values of those records that still have their revision; answers how many.
    pub(super) fn replace(&self, replacements: &[SealedRecord]) -> Result<usize, redb::Error> {
        let tx = self.begin()?;
        let mut replaced = 0;
        {
            let mut records = tx.open_table(RECORDS)?;
            for record in replacements {
                let path = path_of(record.kind, &record.id);
                let version = records.get(path.as_str())?.and_then(|row| version_of(row.value()));
                if version == Some(record.revision) {
                    let value = row(record.revision, &record.value);
                    records.insert(path.as_str(), value.as_slice())?;
                    replaced += 1;
                }
            }
        }
        tx.commit()?;
        Ok(replaced)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Durable when it is committed, with one sync. The database's checksum tells a half-written
    /// commit from a whole one; it would be no protection against somebody who chooses the bytes
    /// that are stored and crashes the machine at will, but nobody does: every value is sealed under
    /// a key that stays here, with a nonce of its own.
    fn begin(&self) -> Result<WriteTransaction, redb::Error> {
        let mut tx = self.database.begin_write()?;
        tx.set_durability(Durability::Immediate)?;
        Ok(tx)
    }
}

fn row_of(
    (path, value): (redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>),
) -> Result<(String, Vec<u8>), redb::Error> {
    Ok((path.value().to_owned(), value.value().to_vec()))
}

fn translate(path: &Path, error: DatabaseError) -> BackendError {
    use std::io::ErrorKind::{InvalidData, StorageFull};
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            BackendError::InUse(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == StorageFull => {
            BackendError::Full(path.to_owned())
        }
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != InvalidData => {
            BackendError::Open { path: path.to_owned(), source }
        }
        other => BackendError::Format { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Creates the tables of a new file and returns the format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let mut tx = database.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
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

pub(super) fn is_full(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(source) if matches!(source.kind(), StorageFull | QuotaExceeded))
}
