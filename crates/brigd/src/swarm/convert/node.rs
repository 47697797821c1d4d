//! Nodes.

use brig_api::data::Base64;
use brig_api::swarm as api;
use brig_proto::swarm as proto;
use brig_proto::swarm::issuance_status::State as IssuanceState;
use brig_proto::swarm::node_spec::Availability;
use brig_proto::swarm::node_status::State;
use brig_proto::swarm::raft_member_status::Reachability;

use super::{InvalidSpec, annotations, meta, name_and_labels, parse_word, template, word};

/// A node's spec. Membership is not the API's to change: it stays as `current` has it.
///
/// # Errors
/// An unknown role or availability.
pub fn spec(
    spec: &api::NodeSpec,
    current: Option<&proto::NodeSpec>,
) -> Result<proto::NodeSpec, InvalidSpec> {
    let role = parse_word(&spec.role, "Role", proto::NodeRole::from_str_name)?
        .ok_or_else(|| InvalidSpec::value("Role", ""))?;
    let availability =
        availability(&spec.availability)?.ok_or_else(|| InvalidSpec::value("Availability", ""))?;
    Ok(proto::NodeSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        desired_role: role.into(),
        membership: current
            .map_or(proto::node_spec::Membership::Accepted.into(), |current| current.membership),
        availability: availability.into(),
    })
}

/// Reads active, pause or drain; nothing is `None`.
///
/// # Errors
/// Any other word.
pub fn availability(word: &str) -> Result<Option<Availability>, InvalidSpec> {
    parse_word(word, "Availability", Availability::from_str_name)
}

/// A node.
#[must_use]
pub fn json(node: &proto::Node) -> api::Node {
    let meta = meta(node.meta.as_ref());
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let (name, labels) = name_and_labels(spec.annotations.as_ref());
    api::Node {
        id: node.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: api::NodeSpec {
            name,
            labels,
            role: word(spec.desired_role, proto::NodeRole::as_str_name),
            availability: word(spec.availability, Availability::as_str_name),
        },
        description: node.description.as_ref().map(description).unwrap_or_default(),
        status: api::NodeStatus {
            state: word(status.state, State::as_str_name),
            message: if status.message.is_empty() {
                unissued(node.certificate.as_ref())
            } else {
                status.message
            },
            addr: status.addr,
        },
        manager_status: node.manager_status.as_ref().map(|manager| api::ManagerStatus {
            leader: manager.leader,
            reachability: word(manager.reachability, Reachability::as_str_name),
            addr: manager.addr.clone(),
        }),
    }
}

/// Why a node does not get the certificate that it asked for.
fn unissued(certificate: Option<&proto::Certificate>) -> String {
    let status = certificate.and_then(|certificate| certificate.status.as_ref());
    let Some(status) = status.filter(|status| !status.err.is_empty()) else {
        return String::new();
    };
    match status.state() {
        IssuanceState::Failed => format!("certificate request failed: {}", status.err),
        IssuanceState::Pending | IssuanceState::Renew => {
            format!("waiting for its certificate to be signed: {}", status.err)
        }
        _ => String::new(),
    }
}

fn description(description: &proto::NodeDescription) -> api::NodeDescription {
    let engine = description.engine.clone().unwrap_or_default();
    api::NodeDescription {
        hostname: description.hostname.clone(),
        platform: description.platform.as_ref().map(template::platform_json).unwrap_or_default(),
        resources: description.resources.as_ref().map(template::resources_json).unwrap_or_default(),
        engine: api::EngineDescription {
            engine_version: engine.engine_version,
            labels: engine.labels,
            plugins: engine
                .plugins
                .into_iter()
                .map(|plugin| api::PluginDescription { kind: plugin.r#type, name: plugin.name })
                .collect(),
        },
        tls_info: description.tls_info.as_ref().map(tls_info).unwrap_or_default(),
    }
}

fn tls_info(info: &proto::NodeTlsInfo) -> api::TlsInfo {
    api::TlsInfo {
        trust_root: String::from_utf8_lossy(&info.trust_root).into_owned(),
        cert_issuer_subject: Base64(info.cert_issuer_subject.clone()),
        cert_issuer_public_key: Base64(info.cert_issuer_public_key.clone()),
    }
}
