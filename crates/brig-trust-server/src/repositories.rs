//! All repositories: which files are the newest, publishing, keys, renewal.
//!
//! What is read often is held in memory. An entry is put there only by whoever holds the
//! repository's lock, so that no reader who was slow brings back what a writer has replaced.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use brig_trust::remote::ServerRole;
use brig_trust::root::{Pinning, accept_root};
use brig_trust::{
    Document as _, Gun, Key, KeyId, Role, Root, Signed, Snapshot, Targets, Timestamp,
};
use brig_types::error::chain;
use bytes::Bytes;
use time::{Duration, OffsetDateTime};

use crate::fault::{Fault, Invalid};
use crate::publish::{self, Keys, SNAPSHOT_AHEAD, TIMESTAMP_AHEAD, Upload};
use crate::repository::Repository;
use crate::storage::{Publication, Storage, StorageError, StoredFile};
use crate::vault::{ServerKey, Vault};

/// Bytes of files that are held in memory.
const CACHE_BYTES: usize = 128 << 20;
/// Repositories share locks: two that happen to have the same one wait for each other.
const LOCKS: usize = 64;
/// How often an upload is tried when another server was faster.
const ATTEMPTS: usize = 3;
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
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let entry = cache.entries.get(gun)?;
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        (entry.repository.due > now).then(|| Arc::clone(&entry.repository))
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
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = cache.entries.get(gun) {
                return Ok(Some(Arc::clone(&entry.repository)));
            }
        }
        self.load_stored(gun)
    }

    fn load_stored(&self, gun: &Gun) -> Result<Option<Arc<Repository>>, Fault> {
        let loaded = Repository::load(self.storage.as_ref(), gun).map_err(storage_fault)?;
        let loaded = loaded.map(Arc::new);
        self.remember(gun, loaded.clone());
        Ok(loaded)
    }

    /// Replaces what is in memory. The lock must be held.
    fn remember(&self, gun: &Gun, repository: Option<Arc<Repository>>) {
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.remove(gun);
        let Some(repository) = repository else { return };
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        cache.bytes += repository.size();
        cache.entries.insert(gun.clone(), Entry { repository, used });
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
        self.storage.publish(publication)?;
        let next = match next {
            Some(next) => Arc::new(next),
            // Not everything that the snapshot names is at hand.
            None => {
                self.remember(gun, None);
                let loaded = Repository::load(self.storage.as_ref(), gun)?;
                Arc::new(loaded.ok_or(StorageError::Overtaken)?)
            }
        };
        self.remember(gun, Some(Arc::clone(&next)));
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

    /// Takes files over that other keys than ours have signed. Blocks.
    pub(crate) fn import(
        &self,
        gun: &Gun,
        files: Vec<(Role, Bytes)>,
        now: OffsetDateTime,
    ) -> Result<Imported, ImportError> {
        let _lock = self.lock(gun);
        if self.storage.newest(gun, &Role::Timestamp)?.is_some() {
            return Err(ImportError::Exists(gun.clone()));
        }
        let (publication, timestamp_end) = taken_over(gun, files, now)?;
        let count = publication.files.len();
        self.commit(gun, None, publication)?;
        Ok(Imported { files: count, timestamp_end })
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

/// Checks files as a client would, and makes a first publication of them.
fn taken_over(
    gun: &Gun,
    files: Vec<(Role, Bytes)>,
    now: OffsetDateTime,
) -> Result<(Publication, OffsetDateTime), ImportError> {
    let invalid = |source| ImportError::Invalid { gun: gun.clone(), source };
    let missing = |role: Role| ImportError::Missing { gun: gun.clone(), role };
    let mut roots = Vec::new();
    let mut stored = Vec::with_capacity(files.len());
    let mut keep = |role: Role, version, bytes: &Bytes| {
        let digest = brig_pki::hash::sha256(bytes);
        stored.push(StoredFile { role, version, digest, bytes: bytes.clone(), stored: now });
    };
    for (_, bytes) in files.iter().filter(|(role, _)| *role == Role::Root) {
        roots.push((Signed::<Root>::parse(bytes, &Role::Root).map_err(invalid)?, bytes));
    }
    roots.sort_by_key(|(root, _)| root.document.version());
    roots.dedup_by_key(|(root, _)| root.document.version());
    for (at, (root, bytes)) in roots.iter().enumerate() {
        let previous = at.checked_sub(1).and_then(|at| roots.get(at)).map(|(root, _)| root);
        if at + 1 == roots.len() {
            let previous = previous.map(|root| &root.document);
            accept_root(root, previous, gun, &Pinning::default(), now).map_err(invalid)?;
        } else if let Some(keys) = previous.and_then(|one| one.document.role_keys(&Role::Root)) {
            // Older ones are a chain of signatures; their certificates may have run out.
            root.verify(&keys).map_err(invalid)?;
        }
        keep(Role::Root, root.document.version(), bytes);
    }
    let (root, _) = roots.pop().ok_or_else(|| missing(Role::Root))?;
    let find = |role: &Role| files.iter().find(|(found, _)| found == role).map(|(_, bytes)| bytes);
    let verify = |role: &Role| root.document.role_keys(role).ok_or_else(|| missing(role.clone()));
    let bytes = find(&Role::Timestamp).ok_or_else(|| missing(Role::Timestamp))?;
    let timestamp = Signed::<Timestamp>::parse(bytes, &Role::Timestamp).map_err(invalid)?;
    timestamp.verify(&verify(&Role::Timestamp)?).map_err(invalid)?;
    keep(Role::Timestamp, timestamp.document.version(), bytes);
    let bytes = find(&Role::Snapshot).ok_or_else(|| missing(Role::Snapshot))?;
    let snapshot = Signed::<Snapshot>::parse(bytes, &Role::Snapshot).map_err(invalid)?;
    snapshot.verify(&verify(&Role::Snapshot)?).map_err(invalid)?;
    if let Some(meta) = timestamp.document.snapshot() {
        meta.check("snapshot", bytes).map_err(invalid)?;
    }
    keep(Role::Snapshot, snapshot.document.version(), bytes);
    let mut names: Vec<_> = snapshot.document.meta.iter().collect();
    names.sort_by_key(|(role, _)| role.depth());
    for (role, meta) in names {
        let bytes = find(role);
        match (role, bytes) {
            (Role::Root, _) => meta.check("root", root.raw()).map_err(invalid)?,
            (Role::Targets, None) => return Err(missing(Role::Targets)),
            // Named once, and gone.
            (_, None) => {}
            (role, Some(bytes)) => {
                meta.check(role.as_str(), bytes).map_err(invalid)?;
                let signed = Signed::<Targets>::parse(bytes, role).map_err(invalid)?;
                if *role == Role::Targets {
                    signed.verify(&verify(role)?).map_err(invalid)?;
                }
                // Whether a delegation's signers still count is for readers to say: one whose
                // keys were taken away stays listed, and does no harm.
                keep(role.clone(), signed.document.version(), bytes);
            }
        }
    }
    let end = timestamp.document.expires();
    let due = end.min(snapshot.document.expires());
    let publication =
        Publication { gun: gun.clone(), after: None, files: stored, named_keys: Vec::new(), due };
    Ok((publication, end))
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
