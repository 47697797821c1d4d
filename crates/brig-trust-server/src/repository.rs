//! What a repository is at this moment, found by walking from its newest timestamp.

use std::collections::BTreeMap;

use brig_pki::hash::SHA256_LEN;
use brig_trust::metadata::MAX_TIMESTAMP;
use brig_trust::{Document as _, Gun, Role, Signed, Snapshot, Timestamp};
use time::OffsetDateTime;

use crate::storage::{Storage, StorageError, StoredFile};

/// The files that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) timestamp: StoredFile,
    pub(crate) snapshot: StoredFile,
    /// Root, targets and delegations, as the snapshot names them.
    pub(crate) files: BTreeMap<Role, StoredFile>,
    /// When timestamp or snapshot end.
    pub(crate) due: OffsetDateTime,
}

impl Repository {
    /// Reads it; `None` where nothing is published.
    pub(crate) fn load(storage: &dyn Storage, gun: &Gun) -> Result<Option<Self>, StorageError> {
        let Some(timestamp) = storage.newest(gun, &Role::Timestamp)? else { return Ok(None) };
        let unreadable = |what: &str| StorageError::Format(format!("the {what} of {gun}"));
        if timestamp.bytes.len() > MAX_TIMESTAMP {
            return Err(unreadable("timestamp"));
        }
        let newest = Signed::<Timestamp>::parse(&timestamp.bytes, &Role::Timestamp)
            .map_err(|_| unreadable("timestamp"))?;
        let digest = newest.document.snapshot().and_then(|meta| meta.sha256());
        let digest = digest.ok_or_else(|| unreadable("timestamp"))?;
        let snapshot = storage.by_digest(gun, &digest)?.ok_or_else(|| unreadable("snapshot"))?;
        let names = Signed::<Snapshot>::parse(&snapshot.bytes, &Role::Snapshot)
            .map_err(|_| unreadable("snapshot"))?;
        let mut files = BTreeMap::new();
        for (role, meta) in &names.document.meta {
            let Some(digest) = meta.sha256() else { continue };
            // A publisher's own snapshot may name what nobody ever sent.
            if let Some(file) = storage.by_digest(gun, &digest)? {
                files.insert(role.clone(), StoredFile { role: role.clone(), ..file });
            }
        }
        let due = newest.document.expires().min(names.document.expires());
        Ok(Some(Self { timestamp, snapshot, files, due }))
    }

    /// The newest file of a role.
    pub(crate) fn newest(&self, role: &Role) -> Option<&StoredFile> {
        match role {
            Role::Timestamp => Some(&self.timestamp),
            Role::Snapshot => Some(&self.snapshot),
            _ => self.files.get(role),
        }
    }

    /// One of the newest files, by hash.
    pub(crate) fn by_digest(&self, digest: &[u8; SHA256_LEN]) -> Option<&StoredFile> {
        self.all().find(|file| file.digest == *digest)
    }

    fn all(&self) -> impl Iterator<Item = &StoredFile> {
        [&self.timestamp, &self.snapshot].into_iter().chain(self.files.values())
    }

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn size(&self) -> usize {
        self.all().map(|file| file.bytes.len() + 256).sum()
    }
}
