//! What happens in the cluster, as events of scope `swarm`.

use std::collections::BTreeMap;

use brig_api::event::{Actor, Event};
use brig_proto::swarm as proto;
use brig_proto::swarm::raft_member_status::Reachability;
use brig_proto::swarm::service_spec::Mode;
use brig_proto::swarm::task_spec::Runtime;
use brig_proto::swarm::{NodeRole, node_spec, node_status, update_status};
use brig_store::{Change, Object, WatchError, Watcher};

use super::convert::{moment, name_and_labels, word};
use super::local;
use crate::state::AppState;

type Attributes = BTreeMap<String, String>;

/// Publishes the cluster's changes until this node leaves it or the daemon stops. Does nothing on
/// a node that is no manager.
pub fn follow(state: &AppState) {
    let Ok(control) = local::control(state) else {
        return;
    };
    let watcher = control.watch();
    let state = AppState::clone(state);
    let tasks = state.tasks.clone();
    tasks.spawn(async move {
        let stop = state.stop.clone();
        let _ = stop.run_until_cancelled(publish(&state, watcher)).await;
    });
}

async fn publish(state: &AppState, mut watcher: Watcher) {
    loop {
        match watcher.next().await {
            Ok(commit) => {
                for event in commit.changes.iter().filter_map(event) {
                    state.engine.events().publish(event);
                }
            }
            // Events are no record: those that were missed are gone.
            Err(WatchError::Lagged) => {}
            Err(WatchError::Closed) => return,
        }
    }
}

/// The event of a change; tasks and the cluster itself have none.
fn event(change: &Change) -> Option<Event> {
    let (action, object, old) = match change {
        Change::Created(object) => ("create", object, None),
        Change::Updated { old, new } => ("update", new, Some(old)),
        Change::Removed(object) => ("remove", object, None),
    };
    let (kind, meta, attributes) = match (object, old) {
        (Object::Node(node), old) => {
            let old = match old {
                Some(Object::Node(old)) => Some(old.as_ref()),
                _ => None,
            };
            ("node", node.meta.as_ref(), node_attributes(node, old))
        }
        (Object::Service(service), old) => {
            let old = match old {
                Some(Object::Service(old)) => Some(old.as_ref()),
                _ => None,
            };
            ("service", service.meta.as_ref(), service_attributes(service, old))
        }
        (Object::Secret(secret), _) => {
            let spec = secret.spec.as_ref();
            ("secret", secret.meta.as_ref(), named(spec.and_then(|s| s.annotations.as_ref())))
        }
        (Object::Config(config), _) => {
            let spec = config.spec.as_ref();
            ("config", config.meta.as_ref(), named(spec.and_then(|s| s.annotations.as_ref())))
        }
        (Object::Network(network), _) => {
            let spec = network.spec.as_ref();
            ("network", network.meta.as_ref(), named(spec.and_then(|s| s.annotations.as_ref())))
        }
        (
            Object::Task(_)
            | Object::Cluster(_)
            | Object::Access(_)
            | Object::ScanDatabase(_)
            | Object::Policy(_)
            | Object::Trust(_)
            | Object::TrustMetadata(_),
            _,
        ) => return None,
    };
    let at = match change {
        Change::Created(_) => meta.and_then(|meta| meta.created_at),
        Change::Updated { .. } => meta.and_then(|meta| meta.updated_at),
        // Now; the bus fills it in.
        Change::Removed(_) => None,
    };
    let at = moment(at.as_ref());
    Some(Event {
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: Actor { id: object.id().to_owned(), attributes },
        scope: "swarm".to_owned(),
        time: at.map_or(0, time::OffsetDateTime::unix_timestamp),
        time_nano: at.map_or(0, |at| i64::try_from(at.unix_timestamp_nanos()).unwrap_or(0)),
        ..Event::default()
    })
}

fn named(annotations: Option<&proto::Annotations>) -> Attributes {
    Attributes::from([("name".to_owned(), name_and_labels(annotations).0)])
}

/// Notes both values of what changed.
fn changed(attributes: &mut Attributes, what: &str, old: String, new: String) {
    if old != new {
        attributes.insert(format!("{what}.old"), old);
        attributes.insert(format!("{what}.new"), new);
    }
}

fn node_attributes(node: &proto::Node, old: Option<&proto::Node>) -> Attributes {
    let mut attributes = named(node.spec.as_ref().and_then(|spec| spec.annotations.as_ref()));
    if let Some(name) = attributes.get_mut("name")
        && name.is_empty()
        && let Some(description) = &node.description
    {
        name.clone_from(&description.hostname);
    }
    let Some(old) = old else {
        return attributes;
    };
    let availability = |node: &proto::Node| {
        let spec = node.spec.as_ref().map_or(0, |spec| spec.availability);
        word(spec, node_spec::Availability::as_str_name)
    };
    let state = |node: &proto::Node| {
        let state = node.status.as_ref().map_or(0, |status| status.state);
        word(state, node_status::State::as_str_name)
    };
    let role = |node: &proto::Node| word(node.role, NodeRole::as_str_name);
    changed(&mut attributes, "availability", availability(old), availability(node));
    changed(&mut attributes, "role", role(old), role(node));
    changed(&mut attributes, "state", state(old), state(node));
    if let (Some(before), Some(after)) = (&old.manager_status, &node.manager_status) {
        changed(&mut attributes, "leader", before.leader.to_string(), after.leader.to_string());
        let reach =
            |status: &proto::ManagerStatus| word(status.reachability, Reachability::as_str_name);
        changed(&mut attributes, "reachability", reach(before), reach(after));
    }
    attributes
}

fn service_attributes(service: &proto::Service, old: Option<&proto::Service>) -> Attributes {
    let mut attributes = named(service.spec.as_ref().and_then(|spec| spec.annotations.as_ref()));
    let Some(old) = old else {
        return attributes;
    };
    let image =
        |service: &proto::Service| match service.spec.as_ref()?.task.as_ref()?.runtime.as_ref()? {
            Runtime::Container(container) => Some(container.image.clone()),
            Runtime::Attachment(_) | Runtime::Generic(_) => None,
        };
    let replicas = |service: &proto::Service| match service.spec.as_ref()?.mode.as_ref()? {
        Mode::Replicated(mode) => Some(mode.replicas.to_string()),
        Mode::Global(_) | Mode::ReplicatedJob(_) | Mode::GlobalJob(_) => None,
    };
    if let (Some(before), Some(after)) = (image(old), image(service)) {
        changed(&mut attributes, "image", before, after);
    }
    if let (Some(before), Some(after)) = (replicas(old), replicas(service)) {
        changed(&mut attributes, "replicas", before, after);
    }
    let state =
        |status: &proto::UpdateStatus| word(status.state, update_status::UpdateState::as_str_name);
    match (&old.update_status, &service.update_status) {
        (Some(before), Some(after)) => {
            changed(&mut attributes, "updatestate", state(before), state(after));
        }
        (None, Some(after)) => {
            attributes.insert("updatestate.new".to_owned(), state(after));
        }
        (_, None) => {}
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn service(image: &str, replicas: u64) -> Object {
        Object::Service(Arc::new(proto::Service {
            id: "sid".into(),
            meta: Some(proto::Meta {
                updated_at: Some(prost_types::Timestamp { seconds: 7, nanos: 8 }),
                ..proto::Meta::default()
            }),
            spec: Some(proto::ServiceSpec {
                annotations: Some(proto::Annotations {
                    name: "web".into(),
                    ..proto::Annotations::default()
                }),
                mode: Some(Mode::Replicated(proto::ReplicatedService { replicas })),
                task: Some(proto::TaskSpec {
                    runtime: Some(Runtime::Container(proto::ContainerSpec {
                        image: image.into(),
                        ..proto::ContainerSpec::default()
                    })),
                    ..proto::TaskSpec::default()
                }),
                ..proto::ServiceSpec::default()
            }),
            ..proto::Service::default()
        }))
    }

    #[test]
    fn service_updates_say_what_changed() {
        let change = Change::Updated { old: service("a", 1), new: service("b", 1) };
        let event = event(&change).unwrap();
        assert_eq!((event.kind.as_str(), event.action.as_str()), ("service", "update"));
        assert_eq!((event.scope.as_str(), event.time_nano), ("swarm", 7_000_000_008));
        let shown: Vec<_> =
            event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["image.new=b", "image.old=a", "name=web"]);
    }

    #[test]
    fn nodes_go_by_their_host_name() {
        let node = |state: node_status::State| {
            Object::Node(Arc::new(proto::Node {
                id: "nid".into(),
                description: Some(proto::NodeDescription {
                    hostname: "h".into(),
                    ..proto::NodeDescription::default()
                }),
                status: Some(proto::NodeStatus {
                    state: state.into(),
                    ..proto::NodeStatus::default()
                }),
                ..proto::Node::default()
            }))
        };
        let change = Change::Updated {
            old: node(node_status::State::Unknown),
            new: node(node_status::State::Ready),
        };
        let attributes = event(&change).unwrap().actor.attributes;
        assert_eq!(attributes["name"], "h");
        assert_eq!((&*attributes["state.old"], &*attributes["state.new"]), ("unknown", "ready"));
    }

    #[test]
    fn tasks_are_silent() {
        let task = Object::Task(Arc::new(proto::Task::default()));
        assert!(event(&Change::Created(task)).is_none());
    }
}
