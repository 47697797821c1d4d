//! The embedded storage: one file, private to its owner.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `files` | repository, role, version | when it was stored, SHA-256, the bytes |
//! | `digests` | repository, SHA-256 | role, version |
//! | `due` | repository | when timestamp or snapshot end, seconds |
//! | `keys` | repository, role, key id | when it was made, whether a root named it, the sealed key |
//! | `unnamed` | when it was made, repository, role, key id | – |
//! | `feed` | number | what happened |
//! | `feeds` | repository, number | – |
//! | `meta` | `format` | 1 |

use std::fs::{File, OpenOptions};
use std::ops::Bound;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use brig_pki::hash::SHA256_LEN;
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, KeyId, Role};
use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _,
    StorageError as Redb, TableDefinition, WriteTransaction,
};
use time::OffsetDateTime;

use super::group::Writer;
use super::{
    Category, Change, Publication, Storage, StorageError, StoredFile, StoredKey, Stretch, records,
};

const FILES: TableDefinition<'_, (&str, &str, u64), &[u8]> = TableDefinition::new("files");
const DIGESTS: TableDefinition<'_, (&str, [u8; SHA256_LEN]), (&str, u64)> =
    TableDefinition::new("digests");
const DUE: TableDefinition<'_, &str, i64> = TableDefinition::new("due");
const KEYS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("keys");
const UNNAMED: TableDefinition<'_, (i64, &str, &str, &str), ()> = TableDefinition::new("unnamed");
const FEED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("feed");
const FEEDS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("feeds");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const CURRENT_FORMAT: u64 = 1;
const FILE_MODE: u32 = 0o600;
/// The database's page cache. What is read often is held by the server itself.
const CACHE_BYTES: usize = 16 << 20;
/// Keys that were handed out and that no root names yet. Asking for a key makes one; who asks for
/// many pushes out the oldest of them.
const MAX_UNNAMED: u64 = 4096;

/// One file. A second process cannot open it at the same time.
#[derive(Debug)]
pub struct EmbeddedStorage {
    database: Arc<Database>,
    writer: Writer<Request>,
}

#[derive(Debug)]
enum Request {
    Publish(Publication),
    Delete { gun: Gun, at: OffsetDateTime },
    AddKey { gun: Gun, key: StoredKey },
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::Failed(error.into())
}

impl EmbeddedStorage {
    /// Opens or creates the file. Blocks; after a crash the whole file is checked.
    ///
    /// # Errors
    /// [`StorageError::InUse`], [`StorageError::Open`], [`StorageError::Format`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let database = Arc::new(open_database(path)?);
        let writing = Arc::clone(&database);
        let writer = Writer::start(move |requests| commit(&writing, requests))
            .map_err(|error| StorageError::Open { path: path.to_owned(), source: error.into() })?;
        Ok(Self { database, writer })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        self.database
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|tx| read(&tx))
            .map_err(failed)
    }
}

type Row = (String, u64, Vec<u8>);

fn stored(row: Option<Row>) -> Result<Option<StoredFile>, StorageError> {
    let Some((role, version, value)) = row else { return Ok(None) };
    let role = Role::parse(&role).map_err(|error| StorageError::Format(error.to_string()))?;
    let (stored, digest, bytes) = records::read_file(&value)?;
    let skipped = value.len() - bytes.len();
    let bytes = Bytes::from(value).slice(skipped..);
    Ok(Some(StoredFile { role, version, digest, bytes, stored }))
}

impl Storage for EmbeddedStorage {
    fn newest(&self, gun: &Gun, role: &Role) -> Result<Option<StoredFile>, StorageError> {
        let (gun, role) = (gun.as_str(), role.as_str());
        stored(self.read(|tx| {
            let files = tx.open_table(FILES)?;
            let last = files.range((gun, role, 0)..=(gun, role, u64::MAX))?.next_back();
            let Some((key, value)) = last.transpose()? else { return Ok(None) };
            Ok(Some((role.to_owned(), key.value().2, value.value().to_vec())))
        })?)
    }

    fn version(
        &self,
        gun: &Gun,
        role: &Role,
        version: u64,
    ) -> Result<Option<StoredFile>, StorageError> {
        let (gun, role) = (gun.as_str(), role.as_str());
        stored(self.read(|tx| {
            let value = tx.open_table(FILES)?.get((gun, role, version))?;
            Ok(value.map(|value| (role.to_owned(), version, value.value().to_vec())))
        })?)
    }

    fn by_digest(
        &self,
        gun: &Gun,
        digest: &[u8; SHA256_LEN],
    ) -> Result<Option<StoredFile>, StorageError> {
        let gun = gun.as_str();
        stored(self.read(|tx| {
            let Some(place) = tx.open_table(DIGESTS)?.get((gun, *digest))? else { return Ok(None) };
            let (role, version) = place.value();
            let value = tx.open_table(FILES)?.get((gun, role, version))?;
            Ok(value.map(|value| (role.to_owned(), version, value.value().to_vec())))
        })?)
    }

    fn publish(&self, publication: Publication) -> Result<(), StorageError> {
        self.writer.submit(Request::Publish(publication)).map(drop)
    }

    fn delete(&self, gun: &Gun, at: OffsetDateTime) -> Result<bool, StorageError> {
        self.writer.submit(Request::Delete { gun: gun.clone(), at })
    }

    fn keys(&self, gun: &Gun) -> Result<Vec<StoredKey>, StorageError> {
        let rows: Vec<(String, String, Vec<u8>)> = self.read(|tx| {
            let keys = tx.open_table(KEYS)?;
            let range = keys.range((gun.as_str(), "", "")..)?;
            let mut rows = Vec::new();
            for row in range {
                let (key, value) = row?;
                let (owner, role, id) = key.value();
                if owner != gun.as_str() {
                    break;
                }
                rows.push((role.to_owned(), id.to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        let key = |(role, id, value): (String, String, Vec<u8>)| {
            let unreadable = || StorageError::Format(format!("a key of {role} named {id}"));
            let (made, named, sealed) = records::read_key(&value)?;
            let server_role = match role.as_str() {
                "snapshot" => ServerRole::Snapshot,
                "timestamp" => ServerRole::Timestamp,
                _ => return Err(unreadable()),
            };
            let id = KeyId::parse(&id).map_err(|_| unreadable())?;
            Ok(StoredKey { role: server_role, id, sealed: sealed.to_vec(), made, named })
        };
        let mut keys = rows.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        keys.sort_by_key(|key| key.made);
        Ok(keys)
    }

    fn add_key(&self, gun: &Gun, key: StoredKey) -> Result<(), StorageError> {
        self.writer.submit(Request::AddKey { gun: gun.clone(), key }).map(drop)
    }

    fn changes(
        &self,
        gun: Option<&Gun>,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Change>, StorageError> {
        let bounds = match stretch {
            Stretch::After(id) => (Bound::Excluded(id), Bound::Included(u64::MAX)),
            Stretch::Before(Some(id)) => (Bound::Included(0), Bound::Excluded(id)),
            Stretch::Before(None) => (Bound::Included(0), Bound::Included(u64::MAX)),
        };
        let backwards = matches!(stretch, Stretch::Before(_));
        let mut rows = self.read(|tx| {
            let feed = tx.open_table(FEED)?;
            let mut rows = Vec::new();
            let Some(gun) = gun else {
                let mut range = feed.range(bounds)?;
                while rows.len() < limit {
                    let next = if backwards { range.next_back() } else { range.next() };
                    let Some((id, value)) = next.transpose()? else { break };
                    rows.push((id.value(), value.value().to_vec()));
                }
                return Ok(rows);
            };
            let feeds = tx.open_table(FEEDS)?;
            let of_gun = |bound: Bound<u64>| bound.map(|id| (gun.as_str(), id));
            let mut range = feeds.range((of_gun(bounds.0), of_gun(bounds.1)))?;
            while rows.len() < limit {
                let next = if backwards { range.next_back() } else { range.next() };
                let Some((place, _)) = next.transpose()? else { break };
                let id = place.value().1;
                if let Some(value) = feed.get(id)? {
                    rows.push((id, value.value().to_vec()));
                }
            }
            Ok(rows)
        })?;
        if backwards {
            rows.reverse();
        }
        rows.into_iter().map(|(id, value)| records::read_change(id, &value)).collect()
    }

    fn due(
        &self,
        before: OffsetDateTime,
        from: Option<&Gun>,
        limit: usize,
    ) -> Result<Vec<Gun>, StorageError> {
        let before = before.unix_timestamp();
        let from = from.map_or(Bound::Unbounded, |gun| Bound::Excluded(gun.as_str()));
        let names: Vec<String> = self.read(|tx| {
            let table = tx.open_table(DUE)?;
            let mut names = Vec::new();
            for row in table.range::<&str>((from, Bound::Unbounded))? {
                let (gun, due) = row?;
                if due.value() < before {
                    names.push(gun.value().to_owned());
                    if names.len() == limit {
                        break;
                    }
                }
            }
            Ok(names)
        })?;
        let gun = |name: String| {
            Gun::parse(&name).map_err(|error| StorageError::Format(error.to_string()))
        };
        names.into_iter().map(gun).collect()
    }

    fn check(&self) -> Result<(), StorageError> {
        self.read(|tx| Ok(tx.open_table(META)?.get(FORMAT)?.is_some())).map(drop)
    }
}

/// Applies what can be applied in one transaction, and answers everybody.
fn commit(database: &Database, requests: &[Request]) -> Vec<Result<bool, StorageError>> {
    match try_commit(database, requests) {
        Ok(answers) => answers,
        // One that cannot be written must not take the others with it.
        Err(_) if requests.len() > 1 => {
            requests.iter().flat_map(|one| commit(database, std::slice::from_ref(one))).collect()
        }
        Err(error) => vec![Err(failed(error))],
    }
}

fn try_commit(
    database: &Database,
    requests: &[Request],
) -> Result<Vec<Result<bool, StorageError>>, redb::Error> {
    let mut tx = database.begin_write()?;
    secure(&mut tx)?;
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        answers.push(match request {
            Request::Publish(publication) => publish(&tx, publication)?,
            Request::Delete { gun, at } => delete(&tx, gun, *at)?,
            Request::AddKey { gun, key } => add_key(&tx, gun, key)?,
        });
    }
    tx.commit()?;
    Ok(answers)
}

type Answer = Result<bool, StorageError>;

/// Checks everything before the first change, so that a refusal leaves nothing.
fn publish(tx: &WriteTransaction, publication: &Publication) -> Result<Answer, redb::Error> {
    let gun = publication.gun.as_str();
    let mut files = tx.open_table(FILES)?;
    let stored = |role: &str| -> Result<Option<u64>, redb::Error> {
        let last = files.range((gun, role, 0)..=(gun, role, u64::MAX))?.next_back();
        Ok(last.transpose()?.map(|(key, _)| key.value().2))
    };
    if stored(Role::Timestamp.as_str())? != publication.after {
        return Ok(Err(StorageError::Overtaken));
    }
    for file in &publication.files {
        if stored(file.role.as_str())?.is_some_and(|stored| file.version <= stored) {
            return Ok(Err(StorageError::Version));
        }
    }
    let mut digests = tx.open_table(DIGESTS)?;
    for file in &publication.files {
        let (role, value) =
            (file.role.as_str(), records::file(file.stored, &file.digest, &file.bytes));
        files.insert((gun, role, file.version), value.as_slice())?;
        digests.insert((gun, file.digest), (role, file.version))?;
    }
    tx.open_table(DUE)?.insert(gun, publication.due.unix_timestamp())?;
    name_keys(tx, gun, &publication.named_keys)?;
    if let Some(timestamp) = publication.files.iter().find(|file| file.role == Role::Timestamp) {
        let change = Change {
            id: 0,
            at: timestamp.stored,
            gun: gun.to_owned(),
            version: timestamp.version,
            digest: Some(timestamp.digest),
            category: Category::Update,
        };
        append(tx, &change)?;
    }
    Ok(Ok(true))
}

fn name_keys(tx: &WriteTransaction, gun: &str, named: &[KeyId]) -> Result<(), redb::Error> {
    let (mut keys, mut unnamed) = (tx.open_table(KEYS)?, tx.open_table(UNNAMED)?);
    for role in [ServerRole::Snapshot, ServerRole::Timestamp] {
        for id in named {
            let place = (gun, role.as_str(), id.as_str());
            let Some(value) = keys.get(place)?.map(|value| value.value().to_vec()) else {
                continue;
            };
            // What cannot be read is left to whoever wants to use it.
            let Ok((made, false, sealed)) = records::read_key(&value) else { continue };
            keys.insert(place, records::key(made, true, sealed).as_slice())?;
            unnamed.remove((made.unix_timestamp(), place.0, place.1, place.2))?;
        }
    }
    Ok(())
}

fn delete(tx: &WriteTransaction, gun: &Gun, at: OffsetDateTime) -> Result<Answer, redb::Error> {
    let gun = gun.as_str();
    let mut files = tx.open_table(FILES)?;
    let mut gone = Vec::new();
    for row in files.range((gun, "", 0)..)? {
        let (key, _) = row?;
        let (owner, role, version) = key.value();
        if owner != gun {
            break;
        }
        gone.push((role.to_owned(), version));
    }
    if gone.is_empty() {
        return Ok(Ok(false));
    }
    for (role, version) in &gone {
        files.remove((gun, role.as_str(), *version))?;
    }
    let mut digests = tx.open_table(DIGESTS)?;
    digests.retain_in((gun, [0; SHA256_LEN])..=(gun, [u8::MAX; SHA256_LEN]), |_, _| false)?;
    tx.open_table(DUE)?.remove(gun)?;
    let change = Change {
        id: 0,
        at,
        gun: gun.to_owned(),
        version: 0,
        digest: None,
        category: Category::Deletion,
    };
    append(tx, &change)?;
    Ok(Ok(true))
}

fn append(tx: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    let mut feed = tx.open_table(FEED)?;
    let id = feed.last()?.map_or(0, |(id, _)| id.value()).saturating_add(1);
    feed.insert(id, records::change(change).as_slice())?;
    tx.open_table(FEEDS)?.insert((change.gun.as_str(), id), ())?;
    Ok(())
}

fn add_key(tx: &WriteTransaction, gun: &Gun, key: &StoredKey) -> Result<Answer, redb::Error> {
    let role = key.role.role();
    let (mut keys, mut unnamed) = (tx.open_table(KEYS)?, tx.open_table(UNNAMED)?);
    let value = records::key(key.made, key.named, &key.sealed);
    keys.insert((gun.as_str(), role.as_str(), key.id.as_str()), value.as_slice())?;
    if !key.named {
        let made = key.made.unix_timestamp();
        unnamed.insert((made, gun.as_str(), role.as_str(), key.id.as_str()), ())?;
    }
    while redb::ReadableTableMetadata::len(&unnamed)? > MAX_UNNAMED {
        let Some((place, _)) = unnamed.pop_first()? else { break };
        let (_, gun, role, id) = place.value();
        keys.remove((gun, role, id))?;
    }
    Ok(Ok(true))
}

fn open_database(path: &Path) -> Result<Database, StorageError> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| StorageError::Open {
        path: path.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = options.open(path).map_err(|error| broken(error.into()))?;
    file.set_permissions(std::fs::Permissions::from_mode(FILE_MODE))
        .map_err(|error| broken(error.into()))?;
    let translate = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse(path.to_owned()),
        DatabaseError::Storage(Redb::Io(source))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            broken(source.into())
        }
        other => StorageError::Format(other.to_string()),
    };
    let backend = FileBackend::new(file).map_err(translate)?;
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(translate)?;
    match prepare(&database).map_err(|error| broken(error.into()))? {
        CURRENT_FORMAT => {}
        other => {
            let text = format!("its format is {other}, this version knows {CURRENT_FORMAT}");
            return Err(StorageError::Format(text));
        }
    }
    if let Some(parent) = path.parent() {
        let synced = File::open(parent).and_then(|folder| folder.sync_all());
        synced.map_err(|error| broken(error.into()))?;
    }
    Ok(database)
}

/// Creates the tables of a new file and returns the format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let mut tx = database.begin_write()?;
    secure(&mut tx)?;
    let known = tx.open_table(META)?.get(FORMAT)?.map(|format| format.value());
    if let Some(format) = known {
        tx.abort()?;
        return Ok(format);
    }
    tx.open_table(META)?.insert(FORMAT, CURRENT_FORMAT)?;
    tx.open_table(FILES)?;
    tx.open_table(DIGESTS)?;
    tx.open_table(DUE)?;
    tx.open_table(KEYS)?;
    tx.open_table(UNNAMED)?;
    tx.open_table(FEED)?;
    tx.open_table(FEEDS)?;
    tx.commit()?;
    Ok(CURRENT_FORMAT)
}

/// Durable when `commit` returns, and in two phases: the database's checksum is no protection
/// against somebody who chooses what is stored.
fn secure(tx: &mut WriteTransaction) -> Result<(), redb::Error> {
    tx.set_durability(Durability::Immediate)?;
    tx.set_two_phase_commit(true);
    Ok(())
}
