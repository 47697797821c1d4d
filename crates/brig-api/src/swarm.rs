//! The cluster: itself, its nodes, secrets and configs. Services and tasks are re-exported here.

use std::collections::BTreeMap;

use crate::data::{Base64, SecretData, SecretText};
use crate::mount::Driver;
pub use crate::service::*;

model! {
    /// The revision of an object; an update must name the current one.
    pub struct Version {
        index: u64 = omitempty,
    }

    /// `POST /swarm/init`.
    pub struct SwarmInitRequest {
        listen_addr: String,
        advertise_addr: String,
        data_path_addr: String,
        data_path_port: u32,
        force_new_cluster: bool,
        spec: SwarmSpec,
        auto_lock_managers: bool,
        /// active, pause, drain; empty is active.
        availability: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] default_addr_pool: Vec<String>,
        subnet_size: u32,
    }

    /// `POST /swarm/join`.
    pub struct SwarmJoinRequest {
        listen_addr: String,
        advertise_addr: String,
        data_path_addr: String,
        remote_addrs: Vec<String>,
        join_token: SecretText,
        availability: String,
    }

    /// `GET /swarm/unlockkey` and `POST /swarm/unlock`.
    pub struct UnlockKey {
        unlock_key: SecretText,
    }

    /// What the cluster should be.
    pub struct SwarmSpec {
        name: String = omitempty,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] labels: BTreeMap<String, String>,
        orchestration: OrchestrationConfig,
        raft: RaftConfig,
        dispatcher: DispatcherConfig,
        #[serde(rename = "CAConfig")] ca_config: CaConfig,
        task_defaults: TaskDefaults,
        encryption_config: EncryptionConfig,
    }

    /// How many old tasks are kept.
    pub struct OrchestrationConfig {
        task_history_retention_limit: Option<i64> = omitempty,
    }

    /// Settings of Docker's raft; kept for clients.
    pub struct RaftConfig {
        snapshot_interval: u64 = omitempty,
        keep_old_snapshots: Option<u64> = omitempty,
        log_entries_for_slow_followers: u64 = omitempty,
        election_tick: i64,
        heartbeat_tick: i64,
    }

    /// How often nodes report.
    pub struct DispatcherConfig {
        /// Nanoseconds.
        heartbeat_period: i64 = omitempty,
    }

    /// The certificate authority.
    pub struct CaConfig {
        /// Nanoseconds.
        node_cert_expiry: i64 = omitempty,
        #[serde(rename = "ExternalCAs")] external_cas: Vec<ExternalCa> = omitempty,
        #[serde(rename = "SigningCACert")] signing_ca_cert: String = omitempty,
        #[serde(rename = "SigningCAKey")] signing_ca_key: SecretText = omitempty,
        force_rotate: u64 = omitempty,
    }

    /// An external certificate authority.
    pub struct ExternalCa {
        protocol: String,
        #[serde(rename = "URL")] url: String,
        options: BTreeMap<String, String> = omitempty,
        #[serde(rename = "CACert")] ca_cert: String,
    }

    /// What tasks get that don't say otherwise.
    pub struct TaskDefaults {
        log_driver: Option<Driver> = omitempty,
    }

    /// Whether managers start locked.
    pub struct EncryptionConfig {
        auto_lock_managers: bool,
    }

    /// `GET /swarm`.
    pub struct Swarm {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: SwarmSpec,
        #[serde(rename = "TLSInfo")] tls_info: TlsInfo,
        root_rotation_in_progress: bool,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] default_addr_pool: Vec<String>,
        subnet_size: u32,
        data_path_port: u32,
        join_tokens: JoinTokens,
        /// Brig's own: the root that nodes are to have, and who does not have it yet.
        #[serde(rename = "RootCA")] root_ca: Option<RootStatus> = omitempty,
    }

    /// How far nodes have followed to the root certificate that they are to have.
    pub struct RootStatus {
        /// `sha256:<hex>` of its PEM text.
        digest: String,
        /// Nodes that have not followed yet.
        behind: Vec<NodeBehind> = omitempty,
    }

    /// A node that does not have the root yet.
    pub struct NodeBehind {
        #[serde(rename = "ID")] id: String,
        hostname: String,
        /// Why, in words.
        reason: String,
        /// Whether it is away: then nothing waits for it, and it follows when it comes back.
        away: bool,
    }

    /// The cluster in `/info`: as in [`Swarm`], without tokens.
    pub struct ClusterInfo {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: SwarmSpec,
        #[serde(rename = "TLSInfo")] tls_info: TlsInfo,
        root_rotation_in_progress: bool,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] default_addr_pool: Vec<String>,
        subnet_size: u32,
        data_path_port: u32,
    }

    /// Who joins with one of these becomes a node.
    pub struct JoinTokens {
        worker: SecretText,
        manager: SecretText,
        /// Not Docker's: how long and how often the token may be used.
        worker_limit: Option<JoinTokenLimit> = omitempty,
        /// Not Docker's: how long and how often the token may be used.
        manager_limit: Option<JoinTokenLimit> = omitempty,
    }

    /// How long and how often a join token may be used. Not Docker's.
    pub struct JoinTokenLimit {
        /// RFC 3339; empty if it is valid for ever.
        expires_at: String = omitempty,
        /// Nothing if any number of nodes may join.
        uses_left: Option<u32> = omitempty,
    }

    /// The certificates that a node or the cluster trusts.
    pub struct TlsInfo {
        /// PEM.
        trust_root: String = omitempty,
        /// DER.
        cert_issuer_subject: Base64 = omitempty,
        /// DER.
        cert_issuer_public_key: Base64 = omitempty,
    }

    /// `Swarm` of `/info`.
    pub struct SwarmInfo {
        #[serde(rename = "NodeID")] node_id: String,
        node_addr: String,
        /// inactive, pending, active, error, locked.
        local_node_state: String,
        control_available: bool,
        error: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] remote_managers: Vec<Peer>,
        nodes: i64 = omitempty,
        managers: i64 = omitempty,
        cluster: Option<ClusterInfo> = omitempty,
        warnings: Vec<String> = omitempty,
    }

    /// A manager's address.
    pub struct Peer {
        #[serde(rename = "NodeID")] node_id: String,
        addr: String,
    }

    /// A node.
    pub struct Node {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: NodeSpec,
        description: NodeDescription,
        status: NodeStatus,
        /// Only managers.
        manager_status: Option<ManagerStatus> = omitempty,
    }

    /// What a node should be.
    pub struct NodeSpec {
        name: String = omitempty,
        labels: BTreeMap<String, String>,
        /// worker, manager.
        role: String = omitempty,
        /// active, pause, drain.
        availability: String = omitempty,
    }

    /// What a node says about itself.
    pub struct NodeDescription {
        hostname: String = omitempty,
        platform: Platform,
        resources: Resources,
        engine: EngineDescription,
        #[serde(rename = "TLSInfo")] tls_info: TlsInfo,
    }

    /// A node's engine.
    pub struct EngineDescription {
        engine_version: String = omitempty,
        labels: BTreeMap<String, String> = omitempty,
        plugins: Vec<PluginDescription> = omitempty,
    }

    /// A driver of a node's engine.
    pub struct PluginDescription {
        #[serde(rename = "Type")] kind: String = omitempty,
        name: String = omitempty,
    }

    /// Whether a node is there.
    pub struct NodeStatus {
        /// unknown, down, ready, disconnected.
        state: String = omitempty,
        message: String = omitempty,
        addr: String = omitempty,
    }

    /// A manager among managers.
    pub struct ManagerStatus {
        leader: bool = omitempty,
        /// unknown, unreachable, reachable.
        reachability: String = omitempty,
        addr: String = omitempty,
    }

    /// A secret, without its content.
    pub struct Secret {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: SecretSpec,
    }

    /// What a secret is. `data` is only ever set in requests.
    pub struct SecretSpec {
        name: String = omitempty,
        labels: BTreeMap<String, String>,
        data: SecretData = omitempty,
        driver: Option<Driver> = omitempty,
        templating: Option<Driver> = omitempty,
    }

    /// A config.
    pub struct Config {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: ConfigSpec,
    }

    /// What a config is.
    pub struct ConfigSpec {
        name: String = omitempty,
        labels: BTreeMap<String, String>,
        data: Base64 = omitempty,
        templating: Option<Driver> = omitempty,
    }

    /// The answer to create of secrets and configs.
    pub struct CreateResponse {
        #[serde(rename = "ID")] id: String,
    }
}

/// `POST /secrets/create`.
pub type SecretCreateRequest = SecretSpec;
/// `POST /configs/create`.
pub type ConfigCreateRequest = ConfigSpec;
