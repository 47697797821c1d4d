//! All repositories: which files are the newest, publishing, keys, renewal.
//!
//! What is read often is held in memory. An entry is put there only by whoever holds the
//! repository's lock, so that no reader who was slow brings back what a writer has replaced. Where
//! other servers write to the same storage, it counts as long as the storage's generation does.

mod adopt;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use brig_pki::PkiError;
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, Key, KeyId, Role, Root, Signed, Snapshot, Timestamp};
use brig_types::error::chain;
use time::{Duration, OffsetDateTime};

use crate::fault::{Fault, Invalid};
use crate::publish::{self, Keys, SNAPSHOT_AHEAD, TIMESTAMP_AHEAD, Upload};
use crate::repository::Repository;
use crate::storage::{Publication, Storage, StorageError, StoredFile};
use crate::vault::{ServerKey, Vault};

pub(crate) use adopt::Adoption;

/// Bytes of files that are held in memory.
const CACHE_BYTES: usize = 128 << 20;
/// Repositories share locks: two that happen to have the same one wait for each other.
const LOCKS: usize = 64;
/// How often something is tried when another server was faster.
const ATTEMPTS: usize = 16;
/// Repositories that one step of the background renewal looks up.
pub(crate) const RENEWAL_STEP: usize = 64;

pub(crate) struct Repositories {
    storage: Arc<dyn Storage>,
    vault: Vault,
    cache: RwLock<Cache>,
    clock: AtomicU64,
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<Gun, Entry>,
    bytes: usize,
}

struct Entry {
    repository: Arc<Repository>,
    /// Of what it was read from.
    generation: u64,
    used: AtomicU64,
}

impl fmt::Debug for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repositories").field("storage", &self.storage).finish_non_exhaustive()
    }
}

/// What was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Files, of all versions.
    pub files: usize,
    /// The timestamp's end: until then clients are served what was taken over.
    pub timestamp_end: OffsetDateTime,
}

/// Why a repository cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// There is one of that name.
    #[error("{0} is here already: delete it first (notary delete --remote {0})")]
    Exists(Gun),
    /// What was given does not hold together.
    #[error("the trust data of {gun} does not hold together")]
    Invalid {
        /// The repository.
        gun: Gun,
        /// Why.
        #[source]
        source: brig_trust::TrustError,
    },
    /// A file is missing.
    #[error("the trust data of {gun} is not complete: {role} is missing")]
    Missing {
        /// The repository.
        gun: Gun,
        /// What is missing.
        role: Role,
    },
    /// A key of the server's does not open.
    #[error("a key of the server's for {gun} cannot be opened")]
    Key {
        /// The repository.
        gun: Gun,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// It cannot be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A failure of ours: the cause goes to the log.
fn internal(error: &(dyn std::error::Error + 'static)) -> Fault {
    tracing::error!(error = chain(error), "trust server failure");
    Fault::internal()
}

fn storage_fault(error: StorageError) -> Fault {
    match error {
        StorageError::Version => Fault::version(),
        StorageError::Unavailable(reason) => Fault::unavailable(&reason),
        error @ StorageError::TooLarge { .. } => Fault::too_large(&error.to_string()),
        error => internal(&error),
    }
}

struct HeldKeys<'a> {
    repositories: &'a Repositories,
    gun: &'a Gun,
}

impl Keys for HeldKeys<'_> {
    fn held(&self, role: ServerRole, ids: &[KeyId]) -> Result<Vec<ServerKey>, Fault> {
        let stored = self.repositories.storage.keys(self.gun).map_err(storage_fault)?;
        let mut held = Vec::new();
        for key in stored.iter().filter(|key| key.role == role && ids.contains(&key.id)) {
            let opened = self.repositories.vault.unseal(self.gun, key);
            held.push(opened.map_err(|error| internal(&error))?);
        }
        Ok(held)
    }
}

impl Repositories {
    pub(crate) fn new(storage: Arc<dyn Storage>, vault: Vault) -> Self {
        Self {
            storage,
            vault,
            cache: RwLock::default(),
            clock: AtomicU64::new(0),
            locks: [const { Mutex::new(()) }; LOCKS],
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// A repository from memory, if it is there and needs no signature. Never blocks for long.
    pub(crate) fn at_hand(&self, gun: &Gun, now: OffsetDateTime) -> Option<Arc<Repository>> {
        let generation = self.storage.generation(gun).ok()?;
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.entries.get(gun)?;
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let is_it = entry.generation == generation && entry.repository.due > now;
        is_it.then(|| Arc::clone(&entry.repository))
    }

    /// A repository, signed anew where its time is over. Blocks.
    pub(crate) fn current(
        &self,
        gun: &Gun,
        now: OffsetDateTime,
    ) -> Result<Option<Arc<Repository>>, Fault> {
        let _lock = self.lock(gun);
        let Some(repository) = self.load(gun)? else { return Ok(None) };
        if repository.due > now {
            return Ok(Some(repository));
        }
        self.renew_locked(gun, &repository, now, (Duration::ZERO, Duration::ZERO)).map(Some)
    }

    fn lock(&self, gun: &Gun) -> MutexGuard<'_, ()> {
        let wanted = usize::try_from(self.hasher.hash_one(gun) % LOCKS as u64).unwrap_or_default();
        // There are as many as the remainder can say.
        let lock = self.locks.get(wanted).unwrap_or(&self.locks[0]);
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From memory or else from storage. The lock must be held.
    fn load(&self, gun: &Gun) -> Result<Option<Arc<Repository>>, Fault> {
        let generation = self.storage.generation(gun).map_err(storage_fault)?;
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = cache.entries.get(gun).filter(|one| one.generation == generation) {
                return Ok(Some(Arc::clone(&entry.repository)));
            }
        }
        self.load_stored(gun)
    }

    fn load_stored(&self, gun: &Gun) -> Result<Option<Arc<Repository>>, Fault> {
        let (loaded, generation) = self.read_stored(gun).map_err(storage_fault)?;
        self.remember(gun, loaded.clone().map(|loaded| (loaded, generation)));
        Ok(loaded)
    }

    /// What is stored, all of it of one moment.
    fn read_stored(&self, gun: &Gun) -> Result<(Option<Arc<Repository>>, u64), StorageError> {
        let mut generation = self.storage.generation(gun)?;
        for _ in 1..ATTEMPTS {
            let loaded = Repository::load(self.storage.as_ref(), gun);
            let after = self.storage.generation(gun)?;
            if after == generation {
                return Ok((loaded?.map(Arc::new), generation));
            }
            // Another server wrote meanwhile.
            generation = after;
        }
        Ok((Repository::load(self.storage.as_ref(), gun)?.map(Arc::new), generation))
    }

    /// Replaces what is in memory. The lock must be held.
    fn remember(&self, gun: &Gun, read: Option<(Arc<Repository>, u64)>) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.remove(gun);
        let Some((repository, generation)) = read else { return };
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        cache.bytes += repository.size();
        cache.entries.insert(gun.clone(), Entry { repository, generation, used });
        while cache.bytes > CACHE_BYTES && cache.entries.len() > 1 {
            let used = |entry: &Entry| entry.used.load(Ordering::Relaxed);
            let oldest = cache.entries.iter().min_by_key(|(_, entry)| used(entry));
            let Some(gun) = oldest.map(|(gun, _)| gun.clone()) else { break };
            cache.remove(&gun);
        }
    }

    /// Publishes an upload. When this returns it is durable and everybody sees it. Blocks.
    pub(crate) fn publish(
        &self,
        gun: &Gun,
        upload: &Upload,
        now: OffsetDateTime,
    ) -> Result<(), Fault> {
        let _lock = self.lock(gun);
        for _ in 0..ATTEMPTS {
            let current = self.load(gun)?;
            let keys = HeldKeys { repositories: self, gun };
            let publication = publish::publish(gun, current.as_deref(), upload, &keys, now)?;
            match self.commit(gun, current.as_deref(), publication) {
                // Another server on the same storage.
                Err(StorageError::Overtaken) => self.remember(gun, None),
                Err(error) => return Err(storage_fault(error)),
                Ok(_) => return Ok(()),
            }
        }
        Err(Fault::version())
    }

    /// Stores, then shows.
    fn commit(
        &self,
        gun: &Gun,
        current: Option<&Repository>,
        publication: Publication,
    ) -> Result<Arc<Repository>, StorageError> {
        let next = advance(current, &publication);
        let generation = self.storage.publish(publication)?;
        let (next, generation) = match next {
            Some(next) => (Arc::new(next), generation),
            // Not everything that the snapshot names is at hand.
            None => {
                self.remember(gun, None);
                let (loaded, generation) = self.read_stored(gun)?;
                (loaded.ok_or(StorageError::Overtaken)?, generation)
            }
        };
        self.remember(gun, Some((Arc::clone(&next), generation)));
        Ok(next)
    }

    /// Forgets a repository. Blocks.
    pub(crate) fn delete(&self, gun: &Gun, now: OffsetDateTime) -> Result<bool, Fault> {
        let _lock = self.lock(gun);
        let existed = self.storage.delete(gun, now).map_err(storage_fault);
        self.remember(gun, None);
        existed
    }

    /// The key that a root should name, or names. Blocks.
    pub(crate) fn key(
        &self,
        gun: &Gun,
        role: ServerRole,
        now: OffsetDateTime,
    ) -> Result<Key, Fault> {
        let _lock = self.lock(gun);
        let stored = self.storage.keys(gun).map_err(storage_fault)?;
        let mut of_role = stored.iter().filter(|key| key.role == role);
        // Until a root names it, everybody who asks gets the same one.
        let unnamed = of_role.clone().find(|key| !key.named);
        let found = match self.load(gun)? {
            Some(repository) => {
                let root = repository.files.get(&Role::Root).ok_or_else(Fault::internal)?;
                let root = Signed::<Root>::parse(&root.bytes, &Role::Root)
                    .map_err(|error| internal(&error))?;
                let ids = root.document.roles.get(&role.role()).map(|spec| spec.key_ids.clone());
                let ids = ids.unwrap_or_default();
                of_role.find(|key| ids.contains(&key.id)).or(unnamed)
            }
            None => unnamed,
        };
        match found {
            Some(key) => {
                let opened = self.vault.unseal(gun, key).map_err(|error| internal(&error))?;
                Ok(opened.public)
            }
            None => self.make_key(gun, role, now),
        }
    }

    /// A new key, for a root to come. Blocks.
    pub(crate) fn new_key(
        &self,
        gun: &Gun,
        role: ServerRole,
        now: OffsetDateTime,
    ) -> Result<Key, Fault> {
        let _lock = self.lock(gun);
        self.make_key(gun, role, now)
    }

    fn make_key(&self, gun: &Gun, role: ServerRole, now: OffsetDateTime) -> Result<Key, Fault> {
        let (stored, key) = self.vault.make(gun, role, now).map_err(|error| internal(&error))?;
        self.storage.add_key(gun, stored).map_err(storage_fault)?;
        Ok(key.public)
    }

    /// Signs anew what ends soon, for a few repositories; answers the last one that was looked at.
    /// Blocks.
    pub(crate) fn renew_some(
        &self,
        after: Option<&Gun>,
        now: OffsetDateTime,
    ) -> Result<Renewal, Fault> {
        let ahead = TIMESTAMP_AHEAD.max(SNAPSHOT_AHEAD);
        let due = self.storage.due(now.saturating_add(ahead), after, RENEWAL_STEP);
        let due = due.map_err(storage_fault)?;
        let mut renewed = 0;
        for gun in &due {
            let _lock = self.lock(gun);
            let Some(repository) = self.load(gun)? else { continue };
            let ahead = (TIMESTAMP_AHEAD, SNAPSHOT_AHEAD);
            match self.renew_locked(gun, &repository, now, ahead) {
                Ok(next) => renewed += usize::from(!Arc::ptr_eq(&next, &repository)),
                // The others need it no less.
                Err(_) => tracing::warn!(%gun, "cannot renew"),
            }
        }
        Ok(Renewal { renewed, last: due.into_iter().next_back() })
    }

    /// Answers the repository as it was when there is nothing to sign, or no key for it: clients
    /// then say which file has run out, and since when.
    fn renew_locked(
        &self,
        gun: &Gun,
        repository: &Arc<Repository>,
        now: OffsetDateTime,
        ahead: (Duration, Duration),
    ) -> Result<Arc<Repository>, Fault> {
        let keys = HeldKeys { repositories: self, gun };
        let Some(publication) = publish::renew(gun, repository, &keys, now, ahead)? else {
            return Ok(Arc::clone(repository));
        };
        match self.commit(gun, Some(repository), publication) {
            Ok(next) => Ok(next),
            // Another server was faster.
            Err(StorageError::Overtaken | StorageError::Version) => {
                self.remember(gun, None);
                self.load_stored(gun)?.ok_or_else(Fault::not_found)
            }
            Err(error) => Err(storage_fault(error)),
        }
    }
}

/// What a step of the renewal did.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) renewed: usize,
    /// Where the next step begins; `None` at the end.
    pub(crate) last: Option<Gun>,
}

impl Cache {
    fn remove(&mut self, gun: &Gun) {
        if let Some(entry) = self.entries.remove(gun) {
            self.bytes = self.bytes.saturating_sub(entry.repository.size());
        }
    }
}

/// What the repository will be: what it was, with the new files in their places. `None` when that
/// is not what the new snapshot names.
fn advance(current: Option<&Repository>, publication: &Publication) -> Option<Repository> {
    let find = |role: &Role| publication.files.iter().rfind(|file| file.role == *role);
    let timestamp = find(&Role::Timestamp)?.clone();
    let snapshot = find(&Role::Snapshot).or(current.map(|current| &current.snapshot))?.clone();
    let mut files = current.map(|current| current.files.clone()).unwrap_or_default();
    for file in &publication.files {
        if !matches!(file.role, Role::Snapshot | Role::Timestamp) {
            files.insert(file.role.clone(), file.clone());
        }
    }
    let newest = Signed::<Timestamp>::parse(&timestamp.bytes, &Role::Timestamp).ok()?;
    let named = newest.document.snapshot().and_then(|meta| meta.sha256())?;
    let names = Signed::<Snapshot>::parse(&snapshot.bytes, &Role::Snapshot).ok()?;
    let agrees = |(role, file): (&Role, &StoredFile)| {
        names.document.meta.get(role).and_then(|meta| meta.sha256()) == Some(file.digest)
    };
    let complete = names.document.meta.keys().all(|role| files.contains_key(role));
    if named != snapshot.digest || !complete || !files.iter().all(agrees) {
        return None;
    }
    Some(Repository { timestamp, snapshot, files, due: publication.due })
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        storage_fault(error)
    }
}

/// An upload that is refused before it is looked at.
pub(crate) fn refused(error: &crate::multipart::MultipartError) -> Fault {
    use crate::multipart::MultipartError;
    match error {
        MultipartError::TooMany => Fault::invalid_update(Invalid::Validation, &error.to_string()),
        _ => Fault::malformed_upload(&error.to_string()),
    }
}
