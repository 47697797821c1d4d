//! Taking repositories over: from other servers, whose keys stay with them, and from storage of
//! our own, with the keys.

use brig_trust::root::{Pinning, accept_root};
use brig_trust::{Document as _, Gun, Role, Root, Signed, Snapshot, Targets, Timestamp};
use bytes::Bytes;
use time::OffsetDateTime;

use super::{ImportError, Imported, Repositories};
use crate::repository::Repository;
use crate::storage::{Publication, StorageError, StoredFile, StoredKey};

/// What became of a repository that was to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// It is here.
    Done,
    /// There is another one of that name.
    Conflict,
}

impl Repositories {
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

    /// The names of all repositories, some at a time. Blocks.
    pub(crate) fn all(&self, after: Option<&Gun>, limit: usize) -> Result<Vec<Gun>, StorageError> {
        self.storage.due(OffsetDateTime::UNIX_EPOCH + FOR_EVER, after, limit)
    }

    /// Takes a repository over with the keys that sign for it. Blocks.
    pub(crate) fn adopt(
        &self,
        from: &Self,
        gun: &Gun,
        now: OffsetDateTime,
    ) -> Result<Adoption, ImportError> {
        let _lock = self.lock(gun);
        let Some(repository) = Repository::load(from.storage.as_ref(), gun)? else {
            return Ok(Adoption::Done);
        };
        if let Some(here) = self.storage.newest(gun, &Role::Timestamp)? {
            // What was here once, by the attempt before, may have gone on since.
            let version = repository.timestamp.version;
            let same = match here.version == version {
                true => Some(here),
                false => self.storage.version(gun, &Role::Timestamp, version)?,
            };
            let is_it = same.is_some_and(|file| file.digest == repository.timestamp.digest);
            return Ok(if is_it { Adoption::Done } else { Adoption::Conflict });
        }
        let mut named_keys = Vec::new();
        for key in from.storage.keys(gun)? {
            let plain = from.vault.plain(gun, &key);
            let plain = plain.map_err(|source| ImportError::Key { gun: gun.clone(), source })?;
            if key.named {
                named_keys.push(key.id.clone());
            }
            let sealed = plain.expose_secret().to_vec();
            self.storage.add_key(gun, StoredKey { sealed, named: false, ..key })?;
        }
        let mut files = Vec::new();
        let root = repository.files.get(&Role::Root).map_or(0, |root| root.version);
        for version in 1..root {
            files.extend(from.storage.version(gun, &Role::Root, version)?);
        }
        let due = repository.due;
        files.extend(repository.files.into_values());
        files.extend([repository.snapshot, repository.timestamp]);
        let publication = Publication { gun: gun.clone(), after: None, files, named_keys, due };
        self.commit(gun, None, publication)?;
        tracing::info!(%gun, at = %now, "the repository is in the cluster's store now");
        Ok(Adoption::Done)
    }
}

/// Later than anything.
const FOR_EVER: time::Duration = time::Duration::days(365 * 7000);

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
