//! Choosing the node for a task: filters first, then the least crowded of those that are left.

use brig_proto::swarm::{Node, Task, placement_preference};

use super::filter::{Filter, NodeInfo, PIPELINE};

/// The index of the node that takes the task.
///
/// # Errors
/// Why there is none, as the task's `Err` shows it.
pub(crate) fn choose(task: &Task, nodes: &[NodeInfo]) -> Result<usize, String> {
    let mut refused = [0_usize; PIPELINE.len()];
    let mut left = Vec::new();
    for (index, info) in nodes.iter().enumerate() {
        match first_refusal(task, info) {
            None => left.push(index),
            Some(filter) => {
                if let Some(count) = refused.get_mut(filter) {
                    *count += 1;
                }
            }
        }
    }
    let placement = task.spec.as_ref().and_then(|spec| spec.placement.as_ref());
    for preference in placement.map_or(&[][..], |placement| &placement.preferences) {
        let Some(placement_preference::Preference::Spread(spread)) = &preference.preference else {
            continue;
        };
        left = least_crowded_group(task, nodes, &left, &spread.spread_descriptor);
    }
    left.into_iter()
        .min_by_key(|index| {
            nodes.get(*index).map(|info| (info.of_service(&task.service_id), info.total()))
        })
        .ok_or_else(|| explain(&refused))
}

/// Whether a task fits a node that was chosen for it beforehand.
///
/// # Errors
/// Why not.
pub(crate) fn check(task: &Task, info: &NodeInfo) -> Result<(), String> {
    first_refusal(task, info).map_or(Ok(()), |refusal| {
        let mut refused = [0_usize; PIPELINE.len()];
        if let Some(count) = refused.get_mut(refusal) {
            *count = 1;
        }
        Err(explain(&refused))
    })
}

fn first_refusal(task: &Task, info: &NodeInfo) -> Option<usize> {
    PIPELINE.iter().position(|filter| !filter.passes(task, info))
}

fn explain(refused: &[usize]) -> String {
    let reasons: Vec<String> = PIPELINE
        .iter()
        .zip(refused)
        .filter(|(_, count)| **count > 0)
        .map(|(filter, count): (&Filter, &usize)| filter.explain(*count))
        .collect();
    if reasons.is_empty() {
        "no suitable node".to_owned()
    } else {
        format!("no suitable node ({})", reasons.join("; "))
    }
}

/// Of the nodes at `left`, those that share the label value with the fewest tasks of the service.
fn least_crowded_group(
    task: &Task,
    nodes: &[NodeInfo],
    left: &[usize],
    descriptor: &str,
) -> Vec<usize> {
    let mut groups: std::collections::BTreeMap<String, (u64, Vec<usize>)> =
        std::collections::BTreeMap::new();
    for index in left {
        let Some(info) = nodes.get(*index) else {
            continue;
        };
        let group = groups.entry(label(&info.node, descriptor)).or_default();
        group.0 += info.of_service(&task.service_id);
        group.1.push(*index);
    }
    groups
        .into_values()
        .min_by_key(|(tasks, _)| *tasks)
        .map(|(_, members)| members)
        .unwrap_or_default()
}

fn label(node: &Node, descriptor: &str) -> String {
    if let Some(name) = descriptor.strip_prefix("node.labels.") {
        return node
            .spec
            .as_ref()
            .and_then(|spec| spec.annotations.as_ref())
            .and_then(|annotations| annotations.labels.get(name))
            .cloned()
            .unwrap_or_default();
    }
    if let Some(name) = descriptor.strip_prefix("engine.labels.") {
        return node
            .description
            .as_ref()
            .and_then(|description| description.engine.as_ref())
            .and_then(|engine| engine.labels.get(name))
            .cloned()
            .unwrap_or_default();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use brig_proto::swarm::{
        Annotations, Endpoint, EndpointSpec, NodeDescription, NodeSpec, NodeStatus, Placement,
        PlacementPreference, PortConfig, ResourceRequirements, Resources, SpreadOver, TaskSpec,
        TaskState, node_spec, node_status, port_config,
    };

    use super::*;

    fn node(id: &str, zone: &str) -> NodeInfo {
        NodeInfo::new(Arc::new(Node {
            id: id.to_owned(),
            spec: Some(NodeSpec {
                annotations: Some(Annotations {
                    labels: [("zone".to_owned(), zone.to_owned())].into(),
                    ..Annotations::default()
                }),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                state: node_status::State::Ready as i32,
                ..NodeStatus::default()
            }),
            description: Some(NodeDescription {
                resources: Some(Resources {
                    nano_cpus: 2_000_000_000,
                    memory_bytes: 1 << 30,
                    generic: Vec::new(),
                }),
                ..NodeDescription::default()
            }),
            ..Node::default()
        }))
    }

    fn task(service: &str) -> Task {
        Task {
            service_id: service.to_owned(),
            desired_state: TaskState::Running as i32,
            spec: Some(TaskSpec::default()),
            ..Task::default()
        }
    }

    fn with_placement(placement: Placement) -> Task {
        let mut task = task("s");
        task.spec = Some(TaskSpec { placement: Some(placement), ..TaskSpec::default() });
        task
    }

    #[test]
    fn tasks_of_a_service_spread() {
        let mut nodes = vec![node("a", ""), node("b", "")];
        for _ in 0..4 {
            let chosen = choose(&task("s"), &nodes).unwrap();
            nodes[chosen].add(&task("s"));
        }
        assert_eq!(nodes[0].of_service("s"), 2);
        assert_eq!(nodes[1].of_service("s"), 2);
    }

    #[test]
    fn spread_preference_balances_zones_before_nodes() {
        let mut nodes = vec![node("a", "1"), node("b", "1"), node("c", "2")];
        let task = with_placement(Placement {
            preferences: vec![PlacementPreference {
                preference: Some(placement_preference::Preference::Spread(SpreadOver {
                    spread_descriptor: "node.labels.zone".to_owned(),
                })),
            }],
            ..Placement::default()
        });
        let task = Task { service_id: "s".to_owned(), ..task };
        for _ in 0..4 {
            let chosen = choose(&task, &nodes).unwrap();
            nodes[chosen].add(&task);
        }
        assert_eq!(nodes[2].of_service("s"), 2, "half of them in zone 2");
    }

    #[test]
    fn reasons_are_dockers() {
        let mut paused = node("p", "");
        let mut raw = (*paused.node).clone();
        raw.spec.as_mut().unwrap().availability = node_spec::Availability::Pause as i32;
        paused.node = Arc::new(raw);
        let constrained = with_placement(Placement {
            constraints: vec!["node.labels.zone==x".to_owned()],
            ..Placement::default()
        });
        let nodes = [node("a", "y"), node("b", "z"), paused];
        assert_eq!(
            choose(&constrained, &nodes).unwrap_err(),
            "no suitable node (1 node not available for new tasks; scheduling constraints not satisfied on 2 nodes)"
        );
        assert_eq!(choose(&task("s"), &[]).unwrap_err(), "no suitable node");
    }

    #[test]
    fn reservations_are_kept() {
        let mut needy = task("s");
        needy.spec.as_mut().unwrap().resources = Some(ResourceRequirements {
            reservations: Some(Resources { nano_cpus: 1_500_000_000, ..Resources::default() }),
            ..ResourceRequirements::default()
        });
        let mut nodes = vec![node("a", "")];
        assert_eq!(choose(&needy, &nodes), Ok(0));
        nodes[0].add(&needy);
        assert_eq!(
            choose(&needy, &nodes).unwrap_err(),
            "no suitable node (insufficient resources on 1 node)"
        );
    }

    #[test]
    fn host_ports_and_replica_limits() {
        let mut published = task("s");
        published.endpoint = Some(Endpoint {
            spec: Some(EndpointSpec {
                ports: vec![PortConfig {
                    target_port: 80,
                    published_port: 8080,
                    publish_mode: port_config::PublishMode::Host as i32,
                    ..PortConfig::default()
                }],
                ..EndpointSpec::default()
            }),
            ..Endpoint::default()
        });
        let mut nodes = vec![node("a", "")];
        nodes[0].add(&published);
        assert_eq!(
            choose(&published, &nodes).unwrap_err(),
            "no suitable node (host-mode port already in use on 1 node)"
        );
        let limited = with_placement(Placement { max_replicas: 1, ..Placement::default() });
        assert_eq!(
            choose(&limited, &nodes).unwrap_err(),
            "no suitable node (max replicas per node limit exceed)"
        );
    }
}
