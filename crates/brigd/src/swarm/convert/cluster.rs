//! The cluster itself: `/swarm`, and its part of `/info`.

use brig_api::data::{Base64, SecretText};
use brig_api::swarm as api;
use brig_pki::hash;
use brig_pki::identity::CertInfo;
use brig_proto::swarm as proto;
use brig_proto::swarm::external_ca::CaProtocol;
use brig_swarm::{BehindReason, NodeBehind};

use super::{
    InvalidSpec, driver, driver_json, duration, meta, name_and_labels, nanos, parse_word, time,
    word,
};

/// Takes over what a spec sets; what it leaves empty stays as it is, as docker has it.
///
/// # Errors
/// An unknown protocol of an external authority; a number that is out of range.
pub fn merge(current: &mut proto::ClusterSpec, spec: &api::SwarmSpec) -> Result<(), InvalidSpec> {
    let annotations = current.annotations.get_or_insert_default();
    if !spec.name.is_empty() {
        annotations.name.clone_from(&spec.name);
    }
    if !spec.labels.is_empty() {
        annotations.labels.clone_from(&spec.labels);
    }
    if let Some(limit) = spec.orchestration.task_history_retention_limit {
        current.orchestration.get_or_insert_default().task_history_retention_limit = limit;
    }
    merge_raft(current.raft.get_or_insert_default(), &spec.raft)?;
    if spec.dispatcher.heartbeat_period != 0 {
        current.dispatcher.get_or_insert_default().heartbeat_period =
            Some(duration(spec.dispatcher.heartbeat_period));
    }
    merge_ca(current.ca_config.get_or_insert_default(), &spec.ca_config)?;
    if let Some(log) = &spec.task_defaults.log_driver {
        current.task_defaults.get_or_insert_default().log_driver = Some(driver(log));
    }
    current.encryption_config.get_or_insert_default().auto_lock_managers =
        spec.encryption_config.auto_lock_managers;
    Ok(())
}

fn merge_raft(current: &mut proto::RaftConfig, raft: &api::RaftConfig) -> Result<(), InvalidSpec> {
    let tick = |what: &str, value: i64| {
        u32::try_from(value).map_err(|_| InvalidSpec(format!("invalid {what}: {value}")))
    };
    if raft.snapshot_interval != 0 {
        current.snapshot_interval = raft.snapshot_interval;
    }
    if let Some(keep) = raft.keep_old_snapshots {
        current.keep_old_snapshots = keep;
    }
    if raft.log_entries_for_slow_followers != 0 {
        current.log_entries_for_slow_followers = raft.log_entries_for_slow_followers;
    }
    if raft.heartbeat_tick != 0 {
        current.heartbeat_tick = tick("HeartbeatTick", raft.heartbeat_tick)?;
    }
    if raft.election_tick != 0 {
        current.election_tick = tick("ElectionTick", raft.election_tick)?;
    }
    Ok(())
}

fn merge_ca(current: &mut proto::CaConfig, ca: &api::CaConfig) -> Result<(), InvalidSpec> {
    if ca.node_cert_expiry != 0 {
        current.node_cert_expiry = Some(duration(ca.node_cert_expiry));
    }
    if !ca.signing_ca_cert.is_empty() {
        current.signing_ca_cert = ca.signing_ca_cert.clone().into_bytes();
    }
    if !ca.signing_ca_key.is_empty() {
        current.signing_ca_key = ca.signing_ca_key.expose_secret().as_bytes().to_vec();
    }
    current.force_rotate = ca.force_rotate;
    current.external_cas = ca
        .external_cas
        .iter()
        .map(|external| {
            let protocol = parse_word(&external.protocol, "protocol", CaProtocol::from_str_name)?
                .ok_or_else(|| InvalidSpec::value("protocol", ""))?;
            Ok(proto::ExternalCa {
                protocol: protocol.into(),
                url: external.url.clone(),
                options: external.options.clone(),
                ca_cert: external.ca_cert.clone().into_bytes(),
            })
        })
        .collect::<Result<_, InvalidSpec>>()?;
    Ok(())
}

/// A cluster's spec. The signing certificate and key are left out: a client that sends back what
/// it got must not lose the key.
#[must_use]
pub fn spec_json(spec: &proto::ClusterSpec) -> api::SwarmSpec {
    let (name, labels) = name_and_labels(spec.annotations.as_ref());
    let orchestration = spec.orchestration.unwrap_or_default();
    let raft = spec.raft.unwrap_or_default();
    let ca = spec.ca_config.clone().unwrap_or_default();
    let heartbeat = spec.dispatcher.and_then(|d| d.heartbeat_period);
    api::SwarmSpec {
        name,
        labels,
        orchestration: api::OrchestrationConfig {
            task_history_retention_limit: Some(orchestration.task_history_retention_limit),
        },
        raft: api::RaftConfig {
            snapshot_interval: raft.snapshot_interval,
            keep_old_snapshots: Some(raft.keep_old_snapshots),
            log_entries_for_slow_followers: raft.log_entries_for_slow_followers,
            election_tick: i64::from(raft.election_tick),
            heartbeat_tick: i64::from(raft.heartbeat_tick),
        },
        dispatcher: api::DispatcherConfig { heartbeat_period: heartbeat.as_ref().map_or(0, nanos) },
        ca_config: api::CaConfig {
            node_cert_expiry: ca.node_cert_expiry.as_ref().map_or(0, nanos),
            external_cas: ca.external_cas.iter().map(external_json).collect(),
            signing_ca_cert: String::new(),
            signing_ca_key: SecretText::default(),
            force_rotate: ca.force_rotate,
        },
        task_defaults: api::TaskDefaults {
            log_driver: spec
                .task_defaults
                .as_ref()
                .and_then(|defaults| defaults.log_driver.as_ref())
                .map(driver_json),
        },
        encryption_config: api::EncryptionConfig {
            auto_lock_managers: spec.encryption_config.is_some_and(|e| e.auto_lock_managers),
        },
    }
}

fn external_json(external: &proto::ExternalCa) -> api::ExternalCa {
    api::ExternalCa {
        protocol: word(external.protocol, CaProtocol::as_str_name),
        url: external.url.clone(),
        options: external.options.clone(),
        ca_cert: String::from_utf8_lossy(&external.ca_cert).into_owned(),
    }
}

/// What nodes trust now, and the issuer that their certificates are to have: during a rotation of
/// the root the new one.
fn tls_info(root: &proto::RootCa) -> api::TlsInfo {
    let desired = root.root_rotation.as_ref().map_or(&root.ca_cert, |new| &new.ca_cert);
    let issuer = CertInfo::from_pem(desired).ok();
    let (subject, key) =
        issuer.map(|info| (info.subject_der, info.public_key_der)).unwrap_or_default();
    api::TlsInfo {
        trust_root: String::from_utf8_lossy(&root.ca_cert).into_owned(),
        cert_issuer_subject: Base64(subject),
        cert_issuer_public_key: Base64(key),
    }
}

fn limit_json(limit: &proto::JoinTokenLimit) -> api::JoinTokenLimit {
    api::JoinTokenLimit {
        expires_at: limit.expires_at.as_ref().map(|at| time(Some(at))).unwrap_or_default(),
        uses_left: limit.uses_left,
    }
}

/// Who has followed to the root that nodes are to have.
fn root_status(root: &proto::RootCa, behind: &[NodeBehind]) -> api::RootStatus {
    let desired = root.root_rotation.as_ref().map_or(&root.ca_cert, |new| &new.ca_cert);
    api::RootStatus {
        digest: format!("sha256:{}", hash::hex(&hash::sha256(desired))),
        behind: behind
            .iter()
            .map(|node| api::NodeBehind {
                id: node.id.clone(),
                hostname: node.hostname.clone(),
                reason: reason(&node.reason),
                away: matches!(node.reason, BehindReason::Away { .. }),
            })
            .collect(),
    }
}

fn reason(reason: &BehindReason) -> String {
    match reason {
        BehindReason::Away { state, since, message } => {
            let state = word(*state, proto::node_status::State::as_str_name);
            let since = time(since.as_ref());
            let message = if message.is_empty() { "" } else { &format!(" ({message})") };
            format!("{state} since {since}{message}")
        }
        BehindReason::NeverReported => "has not said which certificate it has".to_owned(),
        BehindReason::Failed(text) => format!("certificate request failed: {text}"),
        BehindReason::Waiting(text) if text.is_empty() => {
            "waiting for its certificate to be signed".to_owned()
        }
        BehindReason::Waiting(text) => {
            format!("waiting for its certificate to be signed: {text}")
        }
        BehindReason::Told(text) if text.is_empty() => {
            "was told to renew its certificate".to_owned()
        }
        BehindReason::Told(text) => {
            format!("was told to renew its certificate again; before: {text}")
        }
        BehindReason::OldIssuer => "still has a certificate of the old issuer".to_owned(),
        BehindReason::OldRoot => "still trusts the old root".to_owned(),
        _ => "has not followed yet".to_owned(),
    }
}

/// `GET /swarm`, with the join tokens.
#[must_use]
pub fn json(cluster: &proto::Cluster, behind: &[NodeBehind]) -> api::Swarm {
    let info = info(cluster);
    let tokens = cluster.root_ca.as_ref().and_then(|root| root.join_tokens.as_ref());
    api::Swarm {
        id: info.id,
        version: info.version,
        created_at: info.created_at,
        updated_at: info.updated_at,
        spec: info.spec,
        tls_info: info.tls_info,
        root_rotation_in_progress: info.root_rotation_in_progress,
        default_addr_pool: info.default_addr_pool,
        subnet_size: info.subnet_size,
        data_path_port: info.data_path_port,
        join_tokens: tokens
            .map(|tokens| api::JoinTokens {
                worker: tokens.worker.clone().into(),
                manager: tokens.manager.clone().into(),
                worker_limit: tokens.worker_limit.as_ref().map(limit_json),
                manager_limit: tokens.manager_limit.as_ref().map(limit_json),
            })
            .unwrap_or_default(),
        root_ca: cluster.root_ca.as_ref().map(|root| root_status(root, behind)),
    }
}

/// The cluster in `/info`, without tokens.
#[must_use]
pub fn info(cluster: &proto::Cluster) -> api::ClusterInfo {
    let meta = meta(cluster.meta.as_ref());
    let root = cluster.root_ca.clone().unwrap_or_default();
    api::ClusterInfo {
        id: cluster.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: cluster.spec.as_ref().map(spec_json).unwrap_or_default(),
        tls_info: tls_info(&root),
        root_rotation_in_progress: root.root_rotation.is_some(),
        default_addr_pool: cluster.default_address_pool.clone(),
        subnet_size: cluster.subnet_size,
        data_path_port: cluster.vxlan_udp_port,
    }
}
