//! What is published, in the cluster's store: sealed like everything there, on every manager, and
//! every manager may publish. A publication becomes visible with one transaction on the
//! repository's record, which fails when another manager's came first.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::hash::SHA256_LEN;
use brig_proto::brig::{Trust, TrustChange, TrustRepository, trust};
use brig_store::{Index, StoreError, Tx};
use brig_swarm::{Swarm, TrustRecords};
use brig_trust::{Gun, Role};
use brig_trust_server::storage::{
    Change, Publication, Storage, StorageError, StoredFile, StoredKey, Stretch,
};
use brig_types::error::chain;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::records;

/// Pieces, and bytes of them, that one transaction writes.
const AT_ONCE: usize = 24;
const BYTES_AT_ONCE: usize = 512 << 10;
/// Pages of the feed.
const MAX_PAGES: usize = 256;
/// Repositories that somebody asked keys for and nobody published.
const MAX_ASKED_FOR: usize = 1024;
/// After this time a piece that nothing names is of an upload that failed.
const STRAY: Duration = Duration::from_secs(600);

/// The store of the cluster that this node is a manager of. Calls block: not for a runtime's own
/// threads.
pub(super) struct ClusterStorage {
    find: Box<dyn Fn() -> Result<TrustRecords, StorageError> + Send + Sync>,
    runtime: Handle,
}

impl fmt::Debug for ClusterStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterStorage").finish_non_exhaustive()
    }
}

/// Why a transaction did not happen.
enum Failure {
    Refused(StorageError),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            // Another manager made it in the same moment.
            Failure::Store(
                StoreError::NameConflict { .. } | StoreError::SequenceConflict { .. },
            ) => Self::Overtaken,
            Failure::Store(
                error @ (StoreError::NoQuorum(_)
                | StoreError::Contended
                | StoreError::Failed(_)
                | StoreError::Closed),
            ) => Self::Unavailable(chain(&error)),
            Failure::Store(error) => Self::Failed(Box::new(error)),
        }
    }
}

impl ClusterStorage {
    pub(super) fn new(swarm: Swarm, runtime: Handle) -> Self {
        let unavailable = |error| StorageError::Unavailable(chain(&error));
        let find = move || Ok(swarm.control().map_err(unavailable)?.trust_records());
        Self { find: Box::new(find), runtime }
    }

    /// In a store that nobody leaves.
    #[cfg(test)]
    pub(super) fn of(records: TrustRecords, runtime: Handle) -> Self {
        Self { find: Box::new(move || Ok(records.clone())), runtime }
    }

    fn records(&self) -> Result<TrustRecords, StorageError> {
        let records = (self.find)()?;
        if !records.is_current() {
            // What it has may be older than what clients have seen.
            let reason = "this manager has lost the others: ask one of those";
            return Err(StorageError::Unavailable(reason.to_owned()));
        }
        Ok(records)
    }

    /// One of a repository's files.
    fn file(
        &self,
        gun: &Gun,
        find: impl FnOnce(&TrustRepository) -> Option<&brig_proto::brig::TrustFile>,
    ) -> Result<Option<StoredFile>, StorageError> {
        let read = self.records()?.read(&records::name_of(gun), |record, by_id| {
            let found = find(records::repository(record)?);
            found.map(|file| records::whole(file, by_id)).transpose()
        });
        read.unwrap_or(Ok(None))
    }

    fn update<R>(
        &self,
        records: &TrustRecords,
        change: impl FnOnce(&mut Tx<'_>) -> Result<R, Failure> + Clone,
    ) -> Result<R, StorageError> {
        Ok(self.runtime.block_on(records.update(change))?)
    }

    /// Stores pieces that nothing names yet.
    fn put(&self, records: &TrustRecords, pieces: &[Trust]) -> Result<(), StorageError> {
        let mut rest = pieces;
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for piece in rest.iter().take(AT_ONCE) {
                bytes += size(piece);
                if count > 0 && bytes > BYTES_AT_ONCE {
                    break;
                }
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            self.update(records, |tx| create(tx, now))?;
            rest = later;
        }
        Ok(())
    }

    /// Removes pieces that nothing names any more. What fails is left to the next time.
    fn sweep(&self, records: &TrustRecords, group: &str, gone: Vec<String>) {
        let mut ids = gone;
        let named = records.read(group, |record, _| {
            let files = records::repository(record).map(|repository| &repository.files);
            let pieces = files.into_iter().flatten().flat_map(|file| file.pieces.iter().cloned());
            pieces.collect::<std::collections::HashSet<_>>()
        });
        let named = named.unwrap_or_default();
        let old = SystemTime::now().checked_sub(STRAY).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_old = |piece: &Trust| {
            let made = piece.meta.as_ref().and_then(|meta| meta.created_at);
            made.and_then(|made| SystemTime::try_from(made).ok()).is_some_and(|made| made < old)
        };
        let strays = records.group(group);
        let strays = strays.iter().filter(|piece| !named.contains(&piece.id) && is_old(piece));
        ids.extend(strays.map(|piece| piece.id.clone()));
        for some in ids.chunks(AT_ONCE) {
            let removed = self.update(records, |tx| {
                for id in some {
                    if tx.get::<Trust>(id).is_some() {
                        tx.delete::<Trust>(id)?;
                    }
                }
                Ok(())
            });
            if let Err(error) = removed {
                tracing::debug!(error = chain(&error), "old trust data stays for now");
                return;
            }
        }
    }
}

fn size(piece: &Trust) -> usize {
    match &piece.record {
        Some(trust::Record::Piece(piece)) => piece.content.len(),
        _ => 0,
    }
}

fn create(tx: &mut Tx<'_>, pieces: &[Trust]) -> Result<(), Failure> {
    for piece in pieces {
        tx.create(piece.clone())?;
    }
    Ok(())
}

/// Replaces a record, or adds it.
fn write(tx: &mut Tx<'_>, record: Trust) -> Result<(), Failure> {
    if tx.get::<Trust>(&record.id).is_some() {
        tx.update(record)?;
    } else {
        tx.create(record)?;
    }
    Ok(())
}

/// The repository's record, or a new one.
fn repository(tx: &Tx<'_>, gun: &Gun) -> Trust {
    let known = tx.by_name::<Trust>(&records::name_of(gun));
    known.map_or_else(|| records::new_repository(gun), |known| Trust::clone(&known))
}

fn tell(tx: &mut Tx<'_>, change: TrustChange) -> Result<(), Failure> {
    let pages: Vec<Arc<Trust>> =
        tx.indexed::<Trust>(Index::Group, records::FEED).cloned().collect();
    let (page, is_new) = records::append(pages.last().map(AsRef::as_ref), change)?;
    write(tx, page)?;
    if is_new
        && pages.len() >= MAX_PAGES
        && let Some(oldest) = pages.first()
    {
        tx.delete::<Trust>(&oldest.id)?;
    }
    Ok(())
}

impl Storage for ClusterStorage {
    fn newest(&self, gun: &Gun, role: &Role) -> Result<Option<StoredFile>, StorageError> {
        self.file(gun, |repository| records::newest(repository, role))
    }

    fn version(
        &self,
        gun: &Gun,
        role: &Role,
        version: u64,
    ) -> Result<Option<StoredFile>, StorageError> {
        self.file(gun, |repository| {
            let mut files = repository.files.iter();
            files.find(|file| file.role == role.as_str() && file.version == version)
        })
    }

    fn by_digest(
        &self,
        gun: &Gun,
        digest: &[u8; SHA256_LEN],
    ) -> Result<Option<StoredFile>, StorageError> {
        self.file(gun, |repository| repository.files.iter().find(|file| file.digest == *digest))
    }

    fn generation(&self, gun: &Gun) -> Result<u64, StorageError> {
        let name = records::name_of(gun);
        self.records()?.read(&name, |record, _| records::generation(record)).unwrap_or(Ok(0))
    }

    fn publish(&self, publication: Publication) -> Result<u64, StorageError> {
        let records = self.records()?;
        let gun = &publication.gun;
        let (mut files, mut pieces) = (Vec::new(), Vec::new());
        for file in &publication.files {
            let (entry, cut) = records::cut(gun, file)?;
            files.push(entry);
            pieces.extend(cut);
        }
        let bytes: usize = pieces.iter().map(size).sum();
        if pieces.len() > AT_ONCE || bytes > BYTES_AT_ONCE {
            self.put(&records, &std::mem::take(&mut pieces))?;
        }
        let (files, pieces, told) = (&files, &pieces, records::published(&publication));
        let publication = &publication;
        let (generation, gone) = self.update(&records, |tx| {
            let mut record = repository(tx, gun);
            let gone = records::publish(records::repository_mut(&mut record)?, publication, files)?;
            let generation = records::generation(&record)?;
            create(tx, pieces)?;
            write(tx, record)?;
            if let Some(change) = told {
                tell(tx, change)?;
            }
            Ok((generation, gone))
        })?;
        self.sweep(&records, &records::name_of(gun), gone);
        Ok(generation)
    }

    fn delete(&self, gun: &Gun, at: OffsetDateTime) -> Result<bool, StorageError> {
        let records = self.records()?;
        let gone = self.update(&records, |tx| {
            let mut record = repository(tx, gun);
            let gone = records::clear(records::repository_mut(&mut record)?);
            if gone.is_some() {
                write(tx, record)?;
                tell(tx, records::deleted(gun, at))?;
            }
            Ok(gone)
        })?;
        let existed = gone.is_some();
        self.sweep(&records, &records::name_of(gun), gone.unwrap_or_default());
        Ok(existed)
    }

    fn keys(&self, gun: &Gun) -> Result<Vec<StoredKey>, StorageError> {
        let read = self.records()?.read(&records::name_of(gun), |record, _| {
            records::repository(record)?.keys.iter().map(records::stored_key).collect()
        });
        read.unwrap_or_else(|| Ok(Vec::new()))
    }

    fn add_key(&self, gun: &Gun, key: StoredKey) -> Result<(), StorageError> {
        let records = self.records()?;
        let mut asked_for = records.group(records::REPOSITORIES);
        asked_for
            .retain(|record| records::repository(record).is_ok_and(records::is_only_asked_for));
        // The oldest are pushed out, as with keys in a file.
        asked_for.sort_by_key(|record| {
            let made = record.meta.as_ref().and_then(|meta| meta.created_at);
            made.map(|made| (made.seconds, made.nanos))
        });
        let surplus = (asked_for.len() + 1).saturating_sub(MAX_ASKED_FOR);
        let (key, oldest) = (&key, asked_for.get(..surplus).unwrap_or_default());
        self.update(&records, |tx| {
            for record in oldest {
                let known = tx.get::<Trust>(&record.id);
                if known.is_some_and(|known| known == *record) {
                    tx.delete::<Trust>(&record.id)?;
                }
            }
            let mut record = repository(tx, gun);
            records::add_key(records::repository_mut(&mut record)?, key);
            write(tx, record)
        })
    }

    fn changes(
        &self,
        gun: Option<&Gun>,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Change>, StorageError> {
        let pages = self.records()?.group(records::FEED);
        let mut found = Vec::new();
        for page in &pages {
            let wanted = records::page(page)?.iter().filter(|change| {
                let in_stretch = match stretch {
                    Stretch::After(id) => change.id > id,
                    Stretch::Before(Some(id)) => change.id < id,
                    Stretch::Before(None) => true,
                };
                in_stretch && gun.is_none_or(|gun| gun.as_str() == change.gun)
            });
            found.extend(wanted.map(records::change));
        }
        let surplus = found.len().saturating_sub(limit);
        match stretch {
            Stretch::After(_) => found.truncate(limit),
            Stretch::Before(_) => drop(found.drain(..surplus)),
        }
        Ok(found)
    }

    fn due(
        &self,
        before: OffsetDateTime,
        from: Option<&Gun>,
        limit: usize,
    ) -> Result<Vec<Gun>, StorageError> {
        let before = before.unix_timestamp();
        let mut names = Vec::new();
        for record in self.records()?.group(records::REPOSITORIES) {
            let repository = records::repository(&record)?;
            let is_after = from.is_none_or(|from| repository.gun.as_str() > from.as_str());
            if !repository.files.is_empty() && repository.due < before && is_after {
                names.push(repository.gun.clone());
            }
        }
        names.sort_unstable();
        names.truncate(limit);
        let gun = |name: String| {
            Gun::parse(&name).map_err(|error| StorageError::Format(error.to_string()))
        };
        names.into_iter().map(gun).collect()
    }

    fn check(&self) -> Result<(), StorageError> {
        self.records().map(drop)
    }
}
