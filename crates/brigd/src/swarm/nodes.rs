//! `/nodes`.

use brig_api::filters::Filters;
use brig_api::swarm::NodeSpec;
use brig_proto::swarm::node_spec::Membership;
use brig_proto::swarm::raft_member_status::Reachability;
use brig_proto::swarm::{Node, NodeRole};
use http::StatusCode;

use super::convert::{name_and_labels, word};
use super::{Answer, convert, local, versions};
use crate::access::{Action, object};
use crate::server::{Call, body};

const FILTERS: [&str; 6] = ["id", "label", "membership", "name", "node.label", "role"];

/// `GET /nodes`.
pub(super) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&FILTERS)?;
    filters.check_values("role", &["manager", "worker"])?;
    filters.check_values("membership", &["accepted", "pending"])?;
    let nodes = local::control(&call.state)?.nodes();
    let shown: Vec<_> = nodes
        .iter()
        .filter(|node| matches(&filters, node))
        .filter(|node| call.authorized.may(Action::NodeInspect, &object::node(node)))
        .map(|node| as_known(&call, node))
        .collect();
    body::ok(&shown)
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let description = node.description.clone().unwrap_or_default();
    let (_, labels) = name_and_labels(spec.annotations.as_ref());
    let engine_labels = description.engine.map(|engine| engine.labels).unwrap_or_default();
    let role = word(node.role, NodeRole::as_str_name);
    filters.matches_prefix("id", &node.id)
        && filters.matches_prefix("name", &description.hostname)
        && filters.matches_labels("label", &engine_labels)
        && filters.matches_labels("node.label", &labels)
        && filters.matches_exactly("role", &role)
        && filters.matches_exactly("membership", &word(spec.membership, Membership::as_str_name))
}

/// `GET /nodes/{id}`.
pub(super) async fn inspect(call: Call) -> Answer {
    let node = local::control(&call.state)?.node(call.param("id"))?;
    body::ok(&as_known(&call, &node))
}

/// A node as this manager knows it. Who leads, and which other managers are there, it does not know
/// without them: what it heard last would look as if all were well.
fn as_known(call: &Call, node: &Node) -> brig_api::swarm::Node {
    let mut shown = convert::node::json(node);
    if let Some(manager) = shown.manager_status.as_mut().filter(|_| call.state.swarm.is_stale()) {
        manager.leader = false;
        if node.id != call.state.swarm.status().node_id {
            word(Reachability::Unknown as i32, Reachability::as_str_name)
                .clone_into(&mut manager.reachability);
        }
    }
    shown
}

/// `POST /nodes/{id}/update`.
pub(super) async fn update(mut call: Call) -> Answer {
    let version = versions::required(&call.query, "node")?;
    let request: NodeSpec = call.required_json().await?;
    let control = local::control(&call.state)?;
    let node = control.node(call.param("id"))?;
    let spec = convert::node::spec(&request, node.spec.as_ref())?;
    control.update_node(&node.id, version, spec).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `DELETE /nodes/{id}`.
pub(super) async fn remove(call: Call) -> Answer {
    let control = local::control(&call.state)?;
    control.remove_node(call.param("id"), call.query.flag("force")).await?;
    Ok(body::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Annotations, EngineDescription, NodeDescription};

    use super::*;

    #[test]
    fn filters() {
        let labels = |name: &str| [(name.to_owned(), "1".to_owned())].into();
        let node = Node {
            id: "abcdef".into(),
            role: NodeRole::Manager.into(),
            spec: Some(brig_proto::swarm::NodeSpec {
                annotations: Some(Annotations { labels: labels("node"), ..Annotations::default() }),
                membership: Membership::Accepted.into(),
                ..brig_proto::swarm::NodeSpec::default()
            }),
            description: Some(NodeDescription {
                hostname: "host1".into(),
                engine: Some(EngineDescription {
                    labels: labels("engine"),
                    ..EngineDescription::default()
                }),
                ..NodeDescription::default()
            }),
            ..Node::default()
        };
        for (key, value, expected) in [
            ("id", "abc", true),
            ("id", "b", false),
            ("name", "host", true),
            ("name", "ost", false),
            ("label", "engine", true),
            ("label", "node", false),
            ("node.label", "node=1", true),
            ("node.label", "node=2", false),
            ("role", "manager", true),
            ("role", "worker", false),
            ("membership", "accepted", true),
        ] {
            assert_eq!(matches(&Filters::new().with(key, value), &node), expected, "{key}={value}");
        }
    }
}
