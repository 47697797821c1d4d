//! What is written when a node becomes the manager of a swarm that nobody else manages: a new one,
//! or one that comes out of a backup.

use std::sync::Arc;
use std::time::SystemTime;

use brig_pki::csr::NodeKey;
use brig_pki::identity::{NodeIdentity, verify_issued_chain};
use brig_pki::keyfile::{CertificateDir, KeyFile, StoreKeys};
use brig_pki::seal::KeyEncryptionKey;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::{Cluster, ClusterSpec, Node, NodeRole, Peer, node_spec};
use brig_store::etcd::{EtcdBackend, EtcdClient, Limits};
use brig_store::{RedbBackend, Store, StoreError};
use brig_types::id::{ClusterId, NodeId};

use super::bootstrap::{self, FirstCertificate, FirstNode};
use super::files::{Addresses, Layout};
use super::running::pki;
use super::{InitRequest, blocking};
use crate::backup::{Backup, restore};
use crate::error::SwarmError;
use crate::manager::ca::{self, signer::Signer};
use crate::manager::control::nodes;
use crate::manager::keys::{self, DataKeys};
use crate::replica::{self, Place, StoreSettings};

/// A manager's certificate with its key and the roots that it leads to.
struct Certified {
    roots: Vec<u8>,
    key: NodeKey,
    chain: Vec<u8>,
}

/// Everything of a new swarm, in a directory of its own. Answers its unlock key, if it has one.
pub(super) async fn new_swarm(
    layout: Layout,
    addresses: Addresses,
    spec: ClusterSpec,
    request: InitRequest,
    settings: &StoreSettings,
) -> Result<Option<KeyEncryptionKey>, SwarmError> {
    let cluster_id = ClusterId::generate().to_string();
    let identity =
        NodeIdentity { cluster: cluster_id.clone(), role: Role::Manager, node: NodeId::generate() };
    let availability = request.availability;
    let FirstCertificate { root, key, csr, chain } =
        bootstrap::first_certificate(&spec, &identity).await?;
    let first = FirstNode {
        id: identity.node.to_string(),
        address: addresses.advertise_addr.clone(),
        csr,
        chain: chain.clone(),
    };
    let external = external(settings, &cluster_id)?;
    let (store, cluster, unlock) = blocking(move || {
        let cluster = bootstrap::cluster(&cluster_id, &root, spec, &request)
            .map_err(|error| SwarmError::Control(Box::new(error)))?;
        let certified = Certified { roots: root.cert_pem().to_vec(), key, chain };
        let (store, unlock) = write(&layout, &addresses, &identity, certified, &cluster, external)?;
        Ok((store, cluster, unlock))
    })
    .await?;
    let node = bootstrap::node(first, availability);
    bootstrap::write(&store, cluster, node).await.map_err(SwarmError::Store)?;
    close(store).await?;
    Ok(unlock)
}

/// Everything of a cluster out of a backup, with this node as its manager.
pub(super) async fn restored(
    layout: Layout,
    addresses: Addresses,
    backup: &Backup,
    settings: &StoreSettings,
) -> Result<Option<KeyEncryptionKey>, SwarmError> {
    let cluster = Arc::clone(&backup.cluster);
    let identity =
        NodeIdentity { cluster: cluster.id.clone(), role: Role::Manager, node: NodeId::generate() };
    let key = NodeKey::generate().map_err(pki("make a node key"))?;
    let csr = key.csr_pem().map_err(pki("make a certificate request"))?;
    let refused = |error| SwarmError::Restore(Box::new(error));
    let signer = Signer::for_nobody(&cluster).map_err(refused)?;
    let chain = signer.issue(&csr, &identity, ca::expiry(&cluster)).await.map_err(refused)?;
    let roots = cluster.root_ca.as_ref().map(|root| root.ca_cert.clone()).unwrap_or_default();
    verify_issued_chain(&roots, &chain, &key).map_err(pki("use the node's certificate"))?;
    let first = FirstNode {
        id: identity.node.to_string(),
        address: addresses.advertise_addr.clone(),
        csr,
        chain: chain.clone(),
    };
    let external = external(settings, &cluster.id)?;
    let (store, unlock) = blocking(move || {
        let certified = Certified { roots, key, chain };
        write(&layout, &addresses, &identity, certified, &cluster, external)
    })
    .await?;
    let objects = restore::without_managers(&backup.state, SystemTime::now());
    let node = bootstrap::node(first, node_spec::Availability::Active);
    let restored = async {
        store.restore(objects).await?;
        store.update(|tx| tx.create(node).map(drop)).await
    };
    restored.await.map_err(SwarmError::Store)?;
    close(store).await?;
    Ok(unlock)
}

/// Makes all managers but this one workers, and gives it its present address. What the others knew
/// of the data keys is worth nothing for what is written later.
pub(super) async fn forget_other_managers(
    store: &Store,
    own: &str,
    address: &str,
) -> Result<(), SwarmError> {
    let forgotten = store.update(|tx| {
        let others: Vec<Arc<Node>> = tx
            .all::<Node>()
            .filter(|node| node.id != own && restore::is_manager(node))
            .cloned()
            .collect();
        for node in &others {
            let mut node = (**node).clone();
            node.manager_status = None;
            node.spec.get_or_insert_default().set_desired_role(NodeRole::Worker);
            // One that comes back asks for a worker's certificate.
            nodes::set_role(&mut node, NodeRole::Worker);
            tx.update(node)?;
        }
        if let Some(node) = tx.get::<Node>(own) {
            let mut node = Arc::unwrap_or_clone(node);
            address.clone_into(&mut node.manager_status.get_or_insert_default().addr);
            tx.update(node)?;
        }
        if !others.is_empty() {
            keys::distrust_former(tx, "managers were removed")?;
        }
        Ok::<_, StoreError>(())
    });
    forgotten.await.map_err(SwarmError::Store)
}

/// The files beside the objects, and the store that the objects go to.
fn write(
    layout: &Layout,
    addresses: &Addresses,
    identity: &NodeIdentity,
    certified: Certified,
    cluster: &Cluster,
    external: Option<EtcdBackend>,
) -> Result<(Store, Option<KeyEncryptionKey>), SwarmError> {
    let unlock = keys::unlock_key(cluster).map_err(pki("read the unlock key"))?;
    let unlock = unlock.as_ref().map(KeyEncryptionKey::from);
    let mut keys = StoreKeys::generate_for_manager().map_err(pki("make the store's keys"))?;
    if let Some(unlock) = &unlock {
        keys.kek = unlock.clone();
        keys.locked = true;
    }
    let ring = keys.cluster.clone().unwrap_or_else(|| Arc::clone(&keys.node));
    let (sealer, failed) = (Arc::new(DataKeys::new(ring)), |error| {
        SwarmError::Store(StoreError::Open(Arc::new(error)))
    });
    let store = match external {
        Some(backend) => {
            if backend.exists().map_err(failed)? {
                return Err(SwarmError::Etcd(format!(
                    "the etcd of --store holds this cluster already; when nobody uses it any more delete everything below /brig/{}/ there",
                    cluster.id
                )));
            }
            layout.write_store_place(&Place::External)?;
            Store::open(backend, sealer)
        }
        None => Store::open(RedbBackend::open(&layout.store()).map_err(failed)?, sealer),
    };
    let store = store.map_err(SwarmError::Store)?;
    layout.write_addresses(addresses)?;
    let own = Peer { node_id: identity.node.to_string(), addr: addresses.advertise_addr.clone() };
    layout.write_managers(&[own])?;
    let certificates = CertificateDir::new(layout.certificates());
    certificates.store_roots(&certified.roots).map_err(pki("write the trusted roots"))?;
    certificates
        .store(&certified.chain, &KeyFile::new(certified.key, Some(keys)))
        .map_err(pki("write the node's certificate"))?;
    Ok((store, unlock))
}

/// The etcd of somebody else that the store is to be in, if there is one.
fn external(settings: &StoreSettings, cluster: &str) -> Result<Option<EtcdBackend>, SwarmError> {
    let Some(external) = &settings.external else { return Ok(None) };
    let client =
        EtcdClient::new(&external.endpoints, external.tls.clone()).map_err(replica::etcd)?;
    let runtime = tokio::runtime::Handle::current();
    Ok(Some(EtcdBackend::new(client, cluster, Limits::DEFAULT, runtime)))
}

/// Closing the file waits for its thread.
async fn close(store: Store) -> Result<(), SwarmError> {
    blocking(move || {
        drop(store);
        Ok(())
    })
    .await
}
