//! The objects that a new cluster starts with.

use std::time::Duration;

use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
use brig_pki::csr::NodeKey;
use brig_pki::hash;
use brig_pki::identity::NodeIdentity;
use brig_proto::swarm::{
    Annotations, CaConfig, Certificate, Cluster, ClusterSpec, DispatcherConfig, EncryptionConfig,
    IssuanceStatus, JoinTokens, ManagerStatus, Node, NodeRole, NodeSpec, NodeStatus,
    OrchestrationConfig, RaftConfig, RootCa as StoredRoot, TaskDefaults, issuance_status,
    node_spec, node_status, raft_member_status,
};
use brig_store::{Store, StoreError};

use super::running::pki;
use super::{InitRequest, blocking};
use crate::error::{ControlError, SwarmError};
use crate::manager::allocator::networks;
use crate::manager::ca::{external, rotation};
use crate::manager::control::cluster::{new_token, set_unlock_key, without_signer};
use crate::manager::dispatcher::DEFAULT_PERIOD;
use crate::wire_time;

/// The name of every cluster.
const CLUSTER_NAME: &str = "default";
const DEFAULT_POOL: &str = "10.0.0.0/8";
const DEFAULT_SUBNET_SIZE: u32 = 24;
const DEFAULT_DATA_PORT: u32 = 4789;
const DEFAULT_RETENTION: i64 = 5;

/// What the first node's certificate was issued with.
pub(crate) struct FirstNode {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) csr: Vec<u8>,
    pub(crate) chain: Vec<u8>,
}

/// The first node's certificate and the root that it leads to.
pub(crate) struct FirstCertificate {
    /// The cluster's root; without its key when somebody else signs.
    pub(crate) root: RootCa,
    pub(crate) key: NodeKey,
    pub(crate) csr: Vec<u8>,
    pub(crate) chain: Vec<u8>,
}

/// Gets the certificate that everything begins with: from a root that is made for it, or from the
/// external authorities of the settings, whose root the cluster takes over. Then there is no key
/// of the root in the cluster at any time.
pub(crate) async fn first_certificate(
    spec: &ClusterSpec,
    identity: &NodeIdentity,
) -> Result<FirstCertificate, SwarmError> {
    let settings = spec.ca_config.clone().unwrap_or_default();
    let control = |error| SwarmError::Control(Box::new(error));
    // Whoever gives a root with its key lets the cluster sign, at first at least.
    let external = if settings.signing_ca_key.is_empty() {
        external::initial(&settings).map_err(control)?
    } else {
        None
    };
    let (key, csr) = blocking(|| {
        let key = NodeKey::generate().map_err(pki("make a node key"))?;
        let csr = key.csr_pem().map_err(pki("make a certificate request"))?;
        Ok((key, csr))
    })
    .await?;
    if let Some((root, external)) = external {
        let chain = external
            .issue(&csr, identity)
            .await
            .map_err(|error| SwarmError::ExternalCa(Box::new(error)))?;
        return Ok(FirstCertificate { root, key, csr, chain });
    }
    let expiry = wire_time::duration(settings.node_cert_expiry.as_ref(), DEFAULT_NODE_EXPIRY);
    let (identity, spec) = (identity.clone(), spec.clone());
    blocking(move || {
        let root = rotation::first(&spec).map_err(control)?;
        let chain =
            root.issue(&csr, &identity, expiry).map_err(pki("issue the node's certificate"))?;
        Ok(FirstCertificate { root, key, csr, chain })
    })
    .await
}

/// Fills in what the caller left open.
pub(crate) fn with_defaults(mut spec: ClusterSpec) -> ClusterSpec {
    let annotations = spec.annotations.get_or_insert_default();
    if annotations.name.is_empty() {
        CLUSTER_NAME.clone_into(&mut annotations.name);
    }
    spec.orchestration
        .get_or_insert(OrchestrationConfig { task_history_retention_limit: DEFAULT_RETENTION });
    let raft = spec.raft.get_or_insert_default();
    let defaults = RaftConfig {
        snapshot_interval: 10_000,
        keep_old_snapshots: 0,
        log_entries_for_slow_followers: 500,
        heartbeat_tick: 1,
        election_tick: 10,
    };
    if raft.snapshot_interval == 0 {
        raft.snapshot_interval = defaults.snapshot_interval;
    }
    if raft.log_entries_for_slow_followers == 0 {
        raft.log_entries_for_slow_followers = defaults.log_entries_for_slow_followers;
    }
    if raft.heartbeat_tick == 0 {
        raft.heartbeat_tick = defaults.heartbeat_tick;
    }
    if raft.election_tick == 0 {
        raft.election_tick = defaults.election_tick;
    }
    let dispatcher: &mut DispatcherConfig = spec.dispatcher.get_or_insert_default();
    fill(&mut dispatcher.heartbeat_period, DEFAULT_PERIOD);
    let ca: &mut CaConfig = spec.ca_config.get_or_insert_default();
    fill(&mut ca.node_cert_expiry, DEFAULT_NODE_EXPIRY);
    spec.task_defaults.get_or_insert(TaskDefaults::default());
    spec.encryption_config.get_or_insert(EncryptionConfig::default());
    spec
}

fn fill(value: &mut Option<prost_types::Duration>, default: Duration) {
    let absent = value
        .as_ref()
        .is_none_or(|value| Duration::try_from(*value).is_ok_and(|value| value.is_zero()));
    if absent {
        *value = Some(wire_time::wire(default));
    }
}

/// The cluster object.
pub(crate) fn cluster(
    id: &str,
    root: &RootCa,
    spec: ClusterSpec,
    request: &InitRequest,
) -> Result<Cluster, ControlError> {
    let ca_cert = root.cert_pem().to_vec();
    let ca_key = root.key_pem().map(|key| key.expose_secret().to_vec()).unwrap_or_default();
    let tokens = JoinTokens {
        worker: new_token(&ca_cert)?,
        manager: new_token(&ca_cert)?,
        ..JoinTokens::default()
    };
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    let mut cluster = Cluster {
        id: id.to_owned(),
        root_ca: Some(StoredRoot {
            ca_cert_hash: format!("sha256:{}", hash::hex(&root.digest())),
            ca_key,
            ca_cert,
            join_tokens: Some(tokens),
            root_rotation: None,
            last_forced_rotation: spec.ca_config.as_ref().map_or(0, |config| config.force_rotate),
            cross_certificates: Vec::new(),
        }),
        spec: Some(without_signer(spec)),
        default_address_pool: if request.default_addr_pool.is_empty() {
            vec![DEFAULT_POOL.to_owned()]
        } else {
            request.default_addr_pool.clone()
        },
        subnet_size: or(request.subnet_size, DEFAULT_SUBNET_SIZE),
        vxlan_udp_port: or(request.data_path_port, DEFAULT_DATA_PORT),
        ..Cluster::default()
    };
    set_unlock_key(&mut cluster, false)?;
    Ok(cluster)
}

/// The first node.
pub(crate) fn node(first: FirstNode, availability: node_spec::Availability) -> Node {
    Node {
        spec: Some(NodeSpec {
            annotations: Some(Annotations::default()),
            desired_role: NodeRole::Manager as i32,
            membership: node_spec::Membership::Accepted as i32,
            availability: availability as i32,
        }),
        status: Some(NodeStatus {
            state: node_status::State::Unknown as i32,
            ..NodeStatus::default()
        }),
        manager_status: Some(ManagerStatus {
            raft_id: 1,
            addr: first.address,
            leader: true,
            reachability: raft_member_status::Reachability::Reachable as i32,
        }),
        certificate: Some(Certificate {
            role: NodeRole::Manager as i32,
            csr: first.csr,
            status: Some(IssuanceStatus {
                state: issuance_status::State::Issued as i32,
                err: String::new(),
            }),
            certificate: first.chain,
            cn: first.id.clone(),
        }),
        role: NodeRole::Manager as i32,
        id: first.id,
        ..Node::default()
    }
}

/// Writes everything in one transaction.
pub(crate) async fn write(store: &Store, cluster: Cluster, node: Node) -> Result<(), StoreError> {
    store
        .update(|tx| {
            tx.create(cluster)?;
            tx.create(node)?;
            for network in networks::predefined() {
                tx.create(network)?;
            }
            Ok(())
        })
        .await
}
