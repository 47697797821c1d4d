//! The node's key file, for everybody who changes it: whoever renews the certificate, locks the
//! node, or changes data keys. Each change is one replacement of the whole file, so a crash leaves
//! the file before it or after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_pki::PkiError;
use brig_pki::csr::NodeKey;
use brig_pki::keyfile::{CertificateDir, Escrow, KeyFile, StoreKeys};
use brig_pki::seal::{KeyEncryptionKey, KeyRing};

/// How a manager's keys are to be wrapped.
pub(crate) struct Wanted {
    /// The unlock key; none while autolock is off.
    pub(crate) unlock: Option<KeyEncryptionKey>,
    /// Whether anybody has read it.
    pub(crate) shown: bool,
    /// Version of the cluster object that says so.
    pub(crate) version: u64,
}

/// The key file of this node. Changing it writes to the disk and blocks.
#[derive(Debug)]
pub(crate) struct NodeKeys {
    dir: CertificateDir,
    file: Mutex<KeyFile>,
    /// Nothing is written any more: the node is in this swarm no longer.
    closed: AtomicBool,
}

impl NodeKeys {
    /// The keys as they were read from `dir`.
    pub(crate) const fn new(dir: CertificateDir, file: KeyFile) -> Self {
        Self { dir, file: Mutex::new(file), closed: AtomicBool::new(false) }
    }

    /// Waits for a change that is under way, and refuses those that come later. Blocks.
    pub(crate) fn close(&self) {
        let _file = self.lock();
        self.closed.store(true, Ordering::Release);
    }

    fn check_open(&self) -> Result<(), PkiError> {
        if self.closed.load(Ordering::Acquire) { Err(CLOSED) } else { Ok(()) }
    }

    /// Where the certificate and its key are.
    pub(crate) const fn dir(&self) -> &CertificateDir {
        &self.dir
    }

    /// The key of the certificate.
    pub(crate) fn node_key(&self) -> Arc<NodeKey> {
        Arc::clone(&self.lock().node_key)
    }

    /// The keys of what the node stores; none in files of other implementations.
    pub(crate) fn store_keys(&self) -> Option<StoreKeys> {
        self.lock().store_keys.clone()
    }

    /// Replaces chain and key together.
    pub(crate) fn renew(&self, chain: &[u8], key: NodeKey) -> Result<Arc<NodeKey>, PkiError> {
        let mut file = self.lock();
        self.check_open()?;
        let renewed = file.with_node_key(key);
        self.dir.store(chain, &renewed)?;
        *file = renewed;
        Ok(Arc::clone(&file.node_key))
    }

    /// Wraps the data keys with the unlock key, or with one that is on the disk when there is no
    /// unlock key. `wanted` is asked while nobody else can change the file. Answers whether anything
    /// changed.
    pub(crate) fn follow_unlock_key(
        &self,
        wanted: impl FnOnce() -> Wanted,
    ) -> Result<bool, PkiError> {
        let mut file = self.lock();
        let Wanted { unlock, shown, version } = wanted();
        let Some(keys) = &file.store_keys else {
            return Ok(false);
        };
        let is_so = match &unlock {
            Some(unlock) => {
                let is_due = shown && keys.escrow != Escrow::None;
                keys.locked && keys.kek == *unlock && !is_due
            }
            None => !keys.locked,
        };
        if is_so {
            return Ok(false);
        }
        let mut changed = with_keys(&file, keys.rewrapped(unlock, shown)?);
        changed.kek_version = version;
        self.replace(&mut file, changed)?;
        Ok(true)
    }

    /// Makes `change` of the data keys durable.
    pub(crate) fn change_rings(
        &self,
        change: impl FnOnce(&mut StoreKeys) -> Result<(), PkiError>,
    ) -> Result<StoreKeys, PkiError> {
        let mut file = self.lock();
        let mut keys = file.store_keys.clone().ok_or(NO_KEYS)?;
        change(&mut keys)?;
        let changed = with_keys(&file, keys.clone());
        self.replace(&mut file, changed)?;
        Ok(keys)
    }

    /// The cluster's data keys on a manager. Managers once had one ring for the cluster and for
    /// what the node remembers: there it becomes the cluster's, and the node gets another one, which
    /// opens what the old one sealed until [`NodeKeys::forget_older`].
    pub(crate) fn cluster_ring(&self) -> Result<Arc<KeyRing>, PkiError> {
        let keys = self.store_keys().ok_or(NO_KEYS)?;
        if let Some(ring) = keys.cluster {
            return Ok(ring);
        }
        let ring = Arc::clone(&keys.node);
        self.change_rings(|keys| {
            keys.cluster = Some(Arc::clone(&keys.node));
            keys.node = Arc::new(keys.node.rotated()?);
            Ok(())
        })?;
        Ok(ring)
    }

    /// Drops the node's older keys, once everything it remembers is sealed with the current one.
    pub(crate) fn forget_older(&self) -> Result<(), PkiError> {
        let keys = self.store_keys().ok_or(NO_KEYS)?;
        if keys.node.older_ids().next().is_none() {
            return Ok(());
        }
        self.change_rings(|keys| {
            keys.node = Arc::new(keys.node.without_older()?);
            Ok(())
        })
        .map(drop)
    }

    /// Gives up the cluster's data keys, and what locks a manager: this node is one no longer.
    pub(crate) fn leave_cluster(&self) -> Result<(), PkiError> {
        self.change_rings(|keys| {
            keys.cluster = None;
            if keys.locked {
                *keys = keys.rewrapped(None, false)?;
            }
            Ok(())
        })
        .map(drop)
    }

    fn replace(&self, file: &mut KeyFile, changed: KeyFile) -> Result<(), PkiError> {
        self.check_open()?;
        self.dir.store_key(&changed)?;
        *file = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, KeyFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CLOSED: PkiError = PkiError::PrivateKey { reason: "the node has stopped" };
const NO_KEYS: PkiError = PkiError::Pem { expected: "data keys in the key file" };

fn with_keys(file: &KeyFile, keys: StoreKeys) -> KeyFile {
    let mut changed = file.clone();
    changed.store_keys = Some(keys);
    changed
}
