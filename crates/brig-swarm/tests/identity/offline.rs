//! A manager's store and files while the manager is off.

use std::path::Path;
use std::sync::Arc;

use brig_pki::keyfile::{CertificateDir, KeyFile};
use brig_pki::seal::{KeyRing, Place};
use brig_proto::swarm::{Cluster, Node};
use brig_store::{BlindName, RedbBackend, SealError, Sealer, Store, StoreError, Tx};
use brig_types::secret::SecretBytes;

use crate::authority::Authority;

struct Keys(Arc<KeyRing>);

impl Sealer for Keys {
    fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(Place { kind, id }, plain).map_err(Into::into)
    }

    fn open(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let plain = self.0.open(Place { kind, id }, sealed)?;
        Ok(SecretBytes::new(plain.to_vec()))
    }

    fn blind(&self, kind: &str, name: &str) -> BlindName {
        self.0.blind_name(kind, name)
    }
}

/// Certificates of a node, `dir` being what the daemon got as its directory.
pub(crate) fn certificates(dir: &Path) -> CertificateDir {
    CertificateDir::new(dir.join("swarm/certificates"))
}

/// Gives a node another certificate; its key stays.
pub(crate) fn replace_certificate(dir: &Path, make: impl FnOnce(&KeyFile) -> Vec<u8>) -> Vec<u8> {
    let certificates = certificates(dir);
    let stored = certificates.load(None).unwrap().unwrap();
    let chain = make(&stored.key);
    certificates.store(&chain, &stored.key).unwrap();
    chain
}

/// Changes the store of a manager that is off.
pub(crate) async fn edit<R>(dir: &Path, f: impl FnOnce(&mut Tx<'_>) -> R + Clone) -> R {
    let stored = certificates(dir).load(None).unwrap().unwrap();
    let ring = stored.key.store_keys.as_ref().unwrap().cluster.clone().unwrap();
    let path = dir.join("swarm/cluster.redb");
    // The last connections of a manager that was just stopped may still hold it.
    let open = || RedbBackend::open(&path).map_err(|error| error.to_string());
    let backend = crate::common::eventually("the store is free", open, Result::is_ok).await;
    let backend = backend.unwrap();
    let store = Store::open(backend, Arc::new(Keys(ring))).unwrap();
    let result = store.update(|tx| Ok::<_, StoreError>(f(tx))).await.unwrap();
    tokio::task::spawn_blocking(move || drop(store)).await.unwrap();
    result
}

/// The cluster's root with its key.
pub(crate) async fn authority(dir: &Path) -> Authority {
    let cluster = edit(dir, |tx| tx.all::<Cluster>().next().unwrap().clone()).await;
    let root = cluster.root_ca.as_ref().unwrap();
    Authority::of(&root.ca_cert, &root.ca_key)
}

/// Makes a certificate the one that a node has, as far as the managers know.
pub(crate) async fn register(dir: &Path, node: &str, chain: &[u8]) {
    edit(dir, |tx| {
        let mut node = (*tx.get::<Node>(node).unwrap()).clone();
        node.certificate.as_mut().unwrap().certificate = chain.to_vec();
        tx.update(node).unwrap();
    })
    .await;
}
