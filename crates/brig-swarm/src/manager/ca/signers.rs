//! The signer of the moment, kept between requests.
//!
//! Reading a root and its key costs as much as signing several certificates, and thousands of
//! nodes may come at once. It belongs to the manager: nothing of it is left when the manager stops
//! or when the cluster gets another root.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use brig_pki::hash::{SHA256_LEN, Sha256};
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::Cluster;
use prost::Message as _;

use super::signer::{SignError, Signer};

/// How long a signer is used: the root's validity, and which roots before it still count, are
/// looked at when it is made.
const USED_FOR: Duration = Duration::from_secs(60);

/// Makes signers and keeps the last one.
#[derive(Debug)]
pub(crate) struct Signers {
    /// This node's certificate, for signers outside of the cluster.
    identity: Arc<TlsCredentials>,
    last: Mutex<Last>,
}

#[derive(Debug)]
enum Last {
    Kept(Kept),
    None,
    /// The manager has stopped: nothing is kept any more.
    Closed,
}

#[derive(Debug)]
struct Kept {
    /// The object that asked for this signer last; most often the next one is the same.
    cluster: Weak<Cluster>,
    /// What the signer was made from.
    source: [u8; SHA256_LEN],
    made: Instant,
    signer: Arc<Signer>,
}

impl Signers {
    /// None yet; `identity` is shown to authorities outside of the cluster.
    pub(crate) const fn new(identity: Arc<TlsCredentials>) -> Self {
        Self { identity, last: Mutex::new(Last::None) }
    }

    /// What signs for this cluster now.
    ///
    /// # Errors
    /// As [`Signer::new`].
    pub(crate) fn of(&self, cluster: &Arc<Cluster>) -> Result<Arc<Signer>, SignError> {
        let mut last = self.lock();
        if let Last::Kept(kept) = &mut *last
            && kept.made.elapsed() < USED_FOR
            && kept.is_for(cluster)
        {
            return Ok(Arc::clone(&kept.signer));
        }
        let signer = Arc::new(Signer::new(cluster, &self.identity)?);
        if !matches!(*last, Last::Closed) {
            *last = Last::Kept(Kept {
                cluster: Arc::downgrade(cluster),
                source: source(cluster),
                made: Instant::now(),
                signer: Arc::clone(&signer),
            });
        }
        Ok(signer)
    }

    /// Forgets the signer if it is not this cluster's any more.
    pub(crate) fn keep_only(&self, cluster: &Arc<Cluster>) {
        let mut last = self.lock();
        if let Last::Kept(kept) = &mut *last
            && !kept.is_for(cluster)
        {
            *last = Last::None;
        }
    }

    /// Forgets the signer and keeps no other one.
    pub(crate) fn close(&self) {
        *self.lock() = Last::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_for(&mut self, cluster: &Arc<Cluster>) -> bool {
        if std::ptr::eq(self.cluster.as_ptr(), Arc::as_ptr(cluster)) {
            return true;
        }
        // A join token that may be used so often changes the cluster with every use.
        let is_same = self.source == source(cluster);
        if is_same {
            self.cluster = Arc::downgrade(cluster);
        }
        is_same
    }
}

/// Everything of a cluster that its signer depends on.
fn source(cluster: &Cluster) -> [u8; SHA256_LEN] {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    if let Some(root) = &cluster.root_ca {
        add(&root.ca_cert);
        add(&root.ca_key);
        if let Some(rotation) = &root.root_rotation {
            add(b"rotation");
            add(&rotation.ca_cert);
            add(&rotation.ca_key);
            add(&rotation.cross_signed_ca_cert);
        }
        for cross in &root.cross_certificates {
            add(b"cross certificate");
            add(&cross.encode_to_vec());
        }
    }
    let config = cluster.spec.as_ref().and_then(|spec| spec.ca_config.as_ref());
    for external in config.into_iter().flat_map(|config| &config.external_cas) {
        add(b"external");
        add(&external.encode_to_vec());
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
    use brig_pki::csr::NodeKey;
    use brig_pki::identity::NodeIdentity;
    use brig_pki::token::NodeRole;
    use brig_proto::swarm::{
        CaConfig, ClusterSpec, CrossCertificate, ExternalCa, JoinTokens, RootCa as StoredRoot,
        RootRotation,
    };
    use brig_types::id::NodeId;

    use super::*;

    fn cluster(root: &RootCa) -> Cluster {
        let root_ca = StoredRoot {
            ca_cert: root.cert_pem().to_vec(),
            ca_key: root.key_pem().unwrap().expose_secret().to_vec(),
            ..StoredRoot::default()
        };
        Cluster { id: "c".to_owned(), root_ca: Some(root_ca), ..Cluster::default() }
    }

    fn credentials(root: &RootCa) -> Arc<TlsCredentials> {
        let key = NodeKey::generate().unwrap();
        let identity = NodeIdentity {
            cluster: "c".to_owned(),
            role: NodeRole::Manager,
            node: NodeId::generate(),
        };
        let chain = root.issue(&key.csr_pem().unwrap(), &identity, DEFAULT_NODE_EXPIRY).unwrap();
        Arc::new(TlsCredentials::new(root.cert_pem(), &chain, &key).unwrap())
    }

    #[test]
    fn a_signer_is_kept_until_the_root_changes_or_the_manager_stops() {
        let (root, other) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
        let signers = Signers::new(credentials(&root));
        let first = Arc::new(cluster(&root));
        let signer = signers.of(&first).unwrap();
        let gone = Arc::downgrade(&signer);
        assert!(Arc::ptr_eq(&signer, &signers.of(&first).unwrap()));
        let mut counted = cluster(&root);
        counted.root_ca.as_mut().unwrap().join_tokens = Some(JoinTokens::default());
        let counted = Arc::new(counted);
        signers.keep_only(&counted);
        assert!(Arc::ptr_eq(&signer, &signers.of(&counted).unwrap()), "tokens sign nothing");
        drop(signer);
        assert!(gone.upgrade().is_some());
        signers.keep_only(&Arc::new(cluster(&other)));
        assert!(gone.upgrade().is_none(), "the key of another root is gone");

        let gone = Arc::downgrade(&signers.of(&first).unwrap());
        signers.close();
        assert!(gone.upgrade().is_none());
        let gone = Arc::downgrade(&signers.of(&first).unwrap());
        assert!(gone.upgrade().is_none(), "a request that ends late leaves nothing behind");
    }

    #[test]
    fn everything_that_a_signer_is_made_from_counts() {
        let (root, new) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
        let base = cluster(&root);
        let changed = |change: &dyn Fn(&mut StoredRoot)| {
            let mut cluster = base.clone();
            change(cluster.root_ca.as_mut().unwrap());
            cluster
        };
        let rotation = RootRotation {
            ca_cert: new.cert_pem().to_vec(),
            cross_signed_ca_cert: root.cross_sign(&new).unwrap(),
            ..RootRotation::default()
        };
        let external = ExternalCa { url: "https://ca".to_owned(), ..ExternalCa::default() };
        let config = CaConfig { external_cas: vec![external], ..CaConfig::default() };
        let all = [
            base.clone(),
            cluster(&new),
            changed(&|root| root.ca_key.clear()),
            changed(&|root| root.root_rotation = Some(rotation.clone())),
            changed(&|root| root.cross_certificates = vec![CrossCertificate::default()]),
            Cluster {
                spec: Some(ClusterSpec { ca_config: Some(config), ..ClusterSpec::default() }),
                ..base.clone()
            },
        ];
        let sources: std::collections::BTreeSet<_> = all.iter().map(source).collect();
        assert_eq!(sources.len(), all.len());
    }
}
