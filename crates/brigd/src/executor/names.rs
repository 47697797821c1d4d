//! The names and labels by which a task's container is known.

use std::collections::BTreeMap;

use brig_api::engine_access::LABEL;
use brig_proto::swarm::{ContainerSpec, Task};

/// Labels below this are the cluster's; specs cannot set them.
const PREFIX: &str = "com.docker.swarm.";
/// The label that holds the task's id.
pub(super) const TASK_ID_LABEL: &str = "com.docker.swarm.task.id";

/// The container's name: `<service>.<slot>.<task>`, for global services `<service>.<node>.<task>`.
pub(crate) fn container_name(task: &Task) -> String {
    let own = task.annotations.as_ref().map_or("", |annotations| &annotations.name);
    if !own.is_empty() {
        return own.to_owned();
    }
    let service = task.service_annotations.as_ref().map_or("", |annotations| &annotations.name);
    format!("{service}.{}.{}", slot(task), task.id)
}

/// The task's slot, for global services the node.
pub(super) fn slot(task: &Task) -> String {
    if task.slot == 0 { task.node_id.clone() } else { task.slot.to_string() }
}

/// Whether a container of this name can be the one of a task.
pub(super) fn belongs_to(container_name: &str, task_id: &str) -> bool {
    let name = container_name.strip_prefix('/').unwrap_or(container_name);
    !task_id.is_empty() && name.strip_suffix(task_id).is_some_and(|rest| rest.ends_with('.'))
}

/// The container's labels: the spec's, the task's, the cluster's.
pub(super) fn labels(task: &Task, spec: &ContainerSpec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    if let Some(annotations) = &task.annotations {
        // SECURITY: what is lent was judged by the container's own labels.
        let others = annotations.labels.iter().filter(|(name, _)| *name != LABEL);
        labels.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    }
    labels.retain(|name, _| !name.starts_with(PREFIX));
    let service = task.service_annotations.as_ref().map_or("", |annotations| &annotations.name);
    for (name, value) in [
        ("task", ""),
        ("task.id", &task.id),
        ("task.name", &container_name(task)),
        ("node.id", &task.node_id),
        ("service.id", &task.service_id),
        ("service.name", service),
    ] {
        labels.insert(format!("{PREFIX}{name}"), value.to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::Annotations;

    use super::*;

    fn task() -> Task {
        Task {
            id: "tid".into(),
            service_id: "sid".into(),
            node_id: "nid".into(),
            slot: 3,
            service_annotations: Some(Annotations { name: "web".into(), ..Annotations::default() }),
            ..Task::default()
        }
    }

    #[test]
    fn names_follow_service_and_slot() {
        let mut task = task();
        assert_eq!(container_name(&task), "web.3.tid");
        assert!(belongs_to("/web.3.tid", "tid"));
        assert!(!belongs_to("/web.3.tid", "id"));
        assert!(!belongs_to("/mine", ""));
        task.slot = 0;
        assert_eq!(container_name(&task), "web.nid.tid");
        task.annotations = Some(Annotations { name: "fixed".into(), ..Annotations::default() });
        assert_eq!(container_name(&task), "fixed");
    }

    #[test]
    fn the_clusters_labels_cannot_be_forged() {
        let spec = ContainerSpec {
            labels: [
                ("a", "1"),
                ("com.docker.swarm.node.id", "forged"),
                ("com.docker.swarm.x", "y"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
            ..ContainerSpec::default()
        };
        let labels = labels(&task(), &spec);
        assert_eq!(labels["a"], "1");
        assert_eq!(labels["com.docker.swarm.node.id"], "nid");
        assert_eq!(labels["com.docker.swarm.task"], "");
        assert_eq!(labels[TASK_ID_LABEL], "tid");
        assert_eq!(labels["com.docker.swarm.task.name"], "web.3.tid");
        assert_eq!(labels["com.docker.swarm.service.name"], "web");
        assert!(!labels.contains_key("com.docker.swarm.x"));
    }
}
