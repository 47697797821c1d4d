//! The keys of the cluster's store on this manager: which data key seals, and what wraps the data
//! keys on the disk.
//!
//! - The *data keys* seal every object. All managers have the same ring of them. Changing the
//!   sealing key is a job in the background: [`KeyManager::rotate_when_wanted`]. What is to be done
//!   is in the cluster object (which generation is wanted), how far it got in the ring itself, so
//!   the job goes on wherever it was killed and on whichever manager leads.
//! - The *key-encryption key* wraps the ring in this manager's key file. Without autolock it is a
//!   random key beside it; with autolock it is the cluster's unlock key and not on the disk:
//!   [`KeyManager::follow_unlock_key`].

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use brig_pki::PkiError;
use brig_pki::seal::{KeyEncryptionKey, KeyId, KeyRing, Place};
use brig_pki::token::UnlockKey;
use brig_proto::swarm::{Cluster, DataKeyRotation};
use brig_store::{
    BlindName, KeyTag, Object, SealError, Sealer, Store, StoreError, StoreObject, Tx,
};
use brig_types::secret::SecretBytes;

use crate::manager::changes::{self, Wake};
use crate::node::keys::{NodeKeys, Wanted};
use crate::wire_time;

/// Subsystem of the managers' unlock key in the cluster object.
pub(crate) const UNLOCK_SUBSYSTEM: &str = "swarm-manager";
/// First and longest pause after a failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Seals with the data keys of this manager, whichever they are at the moment.
pub(crate) struct DataKeys(RwLock<Arc<KeyRing>>);

impl DataKeys {
    pub(crate) const fn new(ring: Arc<KeyRing>) -> Self {
        Self(RwLock::new(ring))
    }

    fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, ring: Arc<KeyRing>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ring;
    }
}

impl Sealer for DataKeys {
    fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.ring().seal(Place { kind, id }, plain).map_err(Into::into)
    }

    fn open(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        self.ring()
            .open(Place { kind, id }, sealed)
            .map(|plain| SecretBytes::new(plain.to_vec()))
            .map_err(Into::into)
    }

    fn key_of(&self, sealed: &[u8]) -> Option<KeyTag> {
        KeyId::of(sealed).map(KeyId::to_bytes)
    }

    fn is_outdated(&self, sealed: &[u8]) -> bool {
        self.ring().is_outdated(sealed)
    }

    fn blind(&self, kind: &str, name: &str) -> BlindName {
        self.ring().blind_name(kind, name)
    }
}

/// The other managers of the cluster, who have to have a key before anything is sealed with it.
#[async_trait]
pub(crate) trait KeyPeers: Send + Sync + 'static {
    /// Returns once every other manager has this ring in its key file and has no write on the way
    /// that another key of it sealed than the current one. A manager that was removed meanwhile
    /// does not count.
    ///
    /// # Errors
    /// When a manager cannot be reached: the job is tried again later.
    async fn adopt(&self, ring: &KeyRing) -> Result<(), KeyError>;
}

/// Why keys were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The key file cannot be written, or a key not made.
    #[error("this manager's keys cannot be changed")]
    Pki(#[source] PkiError),
    /// Objects cannot be read or written.
    #[error("the cluster's store does not take another key")]
    Store(#[source] StoreError),
    /// The stored unlock key is none.
    #[error("the cluster's unlock key is damaged")]
    UnlockKey(#[source] PkiError),
    /// Objects are still sealed with an older key although all were sealed anew.
    #[error("{0} records are still sealed with an older key")]
    Outdated(usize),
    /// Another manager has not followed.
    #[error("manager {0} does not have the new data key yet")]
    Peer(String),
    /// Another manager offers keys of before the last change.
    #[error("these data keys are older than the present ones")]
    Older,
    /// The work was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// Which keys seal the cluster's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataKeyStatus {
    /// Id of the key that seals.
    pub current: String,
    /// How often the key was changed.
    pub generation: u64,
    /// The generation that the cluster is to have; more than `generation` while that is waited for.
    pub wanted: u64,
    /// What the key was changed for last; empty if it never was.
    pub reason: String,
    /// When that was asked for.
    pub requested_at: Option<SystemTime>,
    /// Whether older keys are still kept because records need them.
    pub rotating: bool,
    /// Records by the id of the key that sealed them.
    pub records: Vec<(String, usize)>,
}

/// The cluster's keys on this manager. Clones share it.
#[derive(Clone)]
pub(crate) struct KeyManager(Arc<Inner>);

struct Inner {
    node: Arc<NodeKeys>,
    data: Arc<DataKeys>,
    store: Store,
    peers: Box<dyn KeyPeers>,
    /// Held while the ring changes, and while it must not.
    changing: tokio::sync::Mutex<()>,
    /// Held while records are sealed anew.
    resealing: Mutex<()>,
}

impl std::fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyManager").field("ring", &self.0.data.ring()).finish_non_exhaustive()
    }
}

impl KeyManager {
    /// The keys of `store`, which is sealed through `data`.
    pub(crate) fn new(
        node: Arc<NodeKeys>,
        data: Arc<DataKeys>,
        store: Store,
        peers: Box<dyn KeyPeers>,
    ) -> Self {
        let (changing, resealing) = (tokio::sync::Mutex::new(()), Mutex::new(()));
        Self(Arc::new(Inner { node, data, store, peers, changing, resealing }))
    }

    /// The ring, for a manager that may have it: one whose certificate says that it is one.
    pub(crate) fn export_ring(&self) -> SecretBytes {
        self.0.data.ring().export()
    }

    /// Takes over the ring of the manager that leads, and returns when it is in the key file and
    /// nothing is on the way that was sealed before.
    pub(crate) async fn import_ring(&self, plain: SecretBytes) -> Result<(), KeyError> {
        let ring = KeyRing::import(plain.expose_secret()).map_err(KeyError::Pki)?;
        if ring.generation() < self.0.data.ring().generation() {
            return Err(KeyError::Older);
        }
        self.adopt(Arc::new(ring)).await?;
        // Whoever led before may still be sealing with the keys of before.
        let inner = Arc::clone(&self.0);
        blocking(move || {
            drop(inner.resealing.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(())
        })
        .await
    }

    /// Keeps the ring as it is for as long as the guard is held.
    pub(crate) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }

    /// Wraps the data keys the way the cluster object says: with the unlock key, or with a key of
    /// this manager's own. Returns when it is durable and the old wrapping is gone.
    pub(crate) async fn follow_unlock_key(&self) -> Result<(), KeyError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let mut damaged = None;
            let changed = inner.node.follow_unlock_key(|| {
                let cluster = inner.store.view().all::<Cluster>().next().cloned();
                let cluster = cluster.as_deref();
                let unlock = match cluster.map(unlock_key).transpose() {
                    Ok(key) => key.flatten().as_ref().map(KeyEncryptionKey::from),
                    Err(error) => {
                        damaged = Some(error);
                        None
                    }
                };
                Wanted {
                    unlock,
                    shown: cluster.is_some_and(|cluster| cluster.unlock_key_shown),
                    version: cluster.map_or(0, StoreObject::version),
                }
            });
            match (damaged, changed) {
                (Some(error), _) => Err(KeyError::UnlockKey(error)),
                (None, Ok(changed)) => {
                    if changed {
                        tracing::info!("this manager's keys are wrapped with another key");
                    }
                    Ok(())
                }
                (None, Err(error)) => Err(KeyError::Pki(error)),
            }
        })
        .await
    }

    /// Follows the cluster object's unlock key. Runs until it is dropped, on every manager.
    pub(crate) async fn keep_locked(self) {
        self.repeat("the unlock key was not taken over", || self.follow_unlock_key()).await;
    }

    /// Changes the data key whenever that is wanted, and ends what was begun earlier. Runs until it
    /// is dropped, on the manager that leads.
    pub(crate) async fn rotate_when_wanted(self) {
        self.repeat("the data key was not changed, which is tried again", || self.rotate()).await;
    }

    /// Does `work` now and whenever the cluster object changes, again and again when it fails.
    async fn repeat<F>(&self, failed: &'static str, work: impl Fn() -> F)
    where
        F: Future<Output = Result<(), KeyError>>,
    {
        let mut watcher = self.0.store.watch();
        let mut backoff = Duration::ZERO;
        loop {
            let retry = match work().await {
                Ok(()) => {
                    backoff = Duration::ZERO;
                    None
                }
                Err(error) => {
                    let text = brig_types::error::chain(&error);
                    // That comes to an end without anybody's doing, most often.
                    if matches!(error, KeyError::Peer(_)) {
                        tracing::warn!(error = text, "{failed}");
                    } else {
                        tracing::error!(error = text, "{failed}");
                    }
                    backoff = (backoff * 2).clamp(FIRST_BACKOFF, MAX_BACKOFF);
                    Some(SystemTime::now() + backoff)
                }
            };
            loop {
                let again = match changes::wait(&mut watcher, retry).await {
                    Wake::Changes(commits) => changes::of(&commits)
                        .any(|change| matches!(change.object(), Object::Cluster(_))),
                    Wake::Missed => true,
                    Wake::Time => retry.is_some_and(|at| at <= SystemTime::now()),
                    Wake::Closed => return,
                };
                if again {
                    break;
                }
            }
        }
    }

    /// Brings the sealing key to the generation that the cluster object wants, seals everything
    /// with it, and then destroys the older keys. Each step may be the last one before a crash: the
    /// next call goes on from what the ring in the key file says.
    async fn rotate(&self) -> Result<(), KeyError> {
        loop {
            let _changing = self.hold().await;
            let ring = self.0.data.ring();
            let wanted = wanted(&self.0.store);
            // Older keys first: a ring has room for a few only.
            if ring.older_ids().next().is_some() {
                self.retire_older(&ring).await?;
            } else if ring.generation() < wanted {
                self.switch(&ring, wanted).await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Begins to seal with a new key, after everybody who opens has it.
    async fn switch(&self, ring: &KeyRing, generation: u64) -> Result<(), KeyError> {
        let waiting = Arc::new(ring.with_next().map_err(KeyError::Pki)?);
        self.adopt(Arc::clone(&waiting)).await?;
        self.0.peers.adopt(&waiting).await?;
        let switched = Arc::new(waiting.switched(generation).map_err(KeyError::Pki)?);
        self.adopt(Arc::clone(&switched)).await?;
        self.0.peers.adopt(&switched).await?;
        tracing::info!(key = %switched.current_id(), generation, "a new data key seals the cluster's objects");
        Ok(())
    }

    /// Seals everything with the current key, makes sure of it, and destroys the older ones.
    async fn retire_older(&self, ring: &KeyRing) -> Result<(), KeyError> {
        self.0.peers.adopt(ring).await?;
        self.0.store.settle().await.map_err(KeyError::Store)?;
        let inner = Arc::clone(&self.0);
        let resealed = blocking(move || {
            let store = &inner.store;
            let _resealing = inner.resealing.lock().unwrap_or_else(PoisonError::into_inner);
            let resealed = store.reseal().map_err(KeyError::Store)?;
            match store.usage().map_err(KeyError::Store)?.outdated {
                0 => Ok(resealed),
                left => Err(KeyError::Outdated(left)),
            }
        })
        .await?;
        let only = Arc::new(ring.without_older().map_err(KeyError::Pki)?);
        self.adopt(Arc::clone(&only)).await?;
        self.0.peers.adopt(&only).await?;
        tracing::info!(resealed, key = %only.current_id(), "older data keys are destroyed");
        Ok(())
    }

    /// Makes a ring durable, then uses it, then waits for what was sealed before.
    async fn adopt(&self, ring: Arc<KeyRing>) -> Result<(), KeyError> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let durable = Arc::clone(&ring);
            let changed = inner.node.change_rings(|keys| {
                keys.cluster = Some(durable);
                Ok(())
            });
            changed.map_err(KeyError::Pki)?;
            inner.data.set(ring);
            Ok(())
        })
        .await?;
        self.0.store.settle().await.map_err(KeyError::Store)
    }

    /// Whether the wanted data key seals, and nothing needs an older one.
    pub(crate) fn is_settled(&self) -> bool {
        let ring = self.0.data.ring();
        ring.older_ids().next().is_none() && ring.generation() >= wanted(&self.0.store)
    }

    /// Which keys are in use. Reads through the whole store.
    pub(crate) async fn status(&self) -> Result<DataKeyStatus, KeyError> {
        let store = self.0.store.clone();
        let usage = blocking(move || store.usage().map_err(KeyError::Store)).await?;
        let ring = self.0.data.ring();
        let rotation = self
            .0
            .store
            .view()
            .all::<Cluster>()
            .next()
            .and_then(|cluster| cluster.data_key_rotation.clone())
            .unwrap_or_default();
        Ok(DataKeyStatus {
            current: ring.current_id().to_string(),
            generation: ring.generation(),
            wanted: rotation.wanted.max(ring.generation()),
            reason: rotation.reason,
            requested_at: rotation.requested_at.as_ref().map(|at| wire_time::instant(Some(at))),
            rotating: ring.older_ids().next().is_some() || rotation.wanted > ring.generation(),
            records: usage
                .records
                .into_iter()
                .map(|(key, count)| (KeyId::from_bytes(key).to_string(), count))
                .collect(),
        })
    }
}

/// Asks for another data key, as a part of the change that makes it necessary. Whoever leads does
/// it in the background.
///
/// # Errors
/// [`StoreError::NotFound`] cannot happen on a manager that runs.
pub(crate) fn rotate_data_key(tx: &mut Tx<'_>, reason: &str) -> Result<(), StoreError> {
    let Some(cluster) = tx.all::<Cluster>().next() else {
        return Ok(());
    };
    let mut cluster = (**cluster).clone();
    want_new_data_key(&mut cluster, reason);
    tx.update(cluster).map(drop)
}

/// A manager is none any more: asks for everything anew that it knows, the data key and the
/// authority whose certificates open the replicated store.
///
/// # Errors
/// As [`rotate_data_key`].
pub(crate) fn distrust_former(tx: &mut Tx<'_>, reason: &str) -> Result<(), StoreError> {
    let Some(cluster) = tx.all::<Cluster>().next() else {
        return Ok(());
    };
    let mut cluster = (**cluster).clone();
    want_new_data_key(&mut cluster, reason);
    if let Some(rotation) = &mut cluster.data_key_rotation {
        rotation.authority_wanted = rotation.authority_wanted.saturating_add(1);
    }
    tx.update(cluster).map(drop)
}

/// As [`rotate_data_key`] for a cluster object that is about to be stored.
pub(crate) fn want_new_data_key(cluster: &mut Cluster, reason: &str) {
    let before = cluster.data_key_rotation.take().unwrap_or_default();
    cluster.data_key_rotation = Some(DataKeyRotation {
        wanted: before.wanted.saturating_add(1),
        reason: reason.to_owned(),
        requested_at: Some(wire_time::timestamp(SystemTime::now())),
        ..before
    });
}

fn wanted(store: &Store) -> u64 {
    let view = store.view();
    let rotation = view.all::<Cluster>().next().and_then(|c| c.data_key_rotation.as_ref());
    rotation.map_or(0, |rotation| rotation.wanted)
}

/// The key that unlocks the cluster's managers; `None` while autolock is off.
pub(crate) fn unlock_key(cluster: &Cluster) -> Result<Option<UnlockKey>, PkiError> {
    cluster
        .unlock_keys
        .iter()
        .find(|key| key.subsystem == UNLOCK_SUBSYSTEM)
        .map(|key| UnlockKey::from_bytes(&key.key))
        .transpose()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(KeyError::Interrupted))
}
