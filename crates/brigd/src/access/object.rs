//! The object that a request is about, looked up.

use brig_access::{Action, Object, Reference};
use brig_api::container::ContainerSummary;
use brig_api::event::{Actor, Event};
use brig_proto::swarm as proto;
use brig_swarm::Control;

use super::lend::SocketBinds;
use super::{container, service};
use crate::state::AppState;
use crate::swarm::{convert, local};

const TASK_LABEL: &str = "com.docker.swarm.task.id";
const SERVICE_LABEL: &str = "com.docker.swarm.service.name";
/// Stands for secrets that this node cannot name: tasks of a cluster that it does not manage.
const UNKNOWN_SECRETS: &str = "(secrets of a task that only managers know)";

/// The kind of object that an action is about.
#[must_use]
pub fn kind(action: Action) -> &'static str {
    let name = action.name();
    name.split('.').next().unwrap_or(name)
}

/// Looks up what a path names. What isn't there is known by that name only.
pub async fn find(state: &AppState, path: &str, action: Action, name: &str) -> Object {
    let kind = kind(action);
    let unknown = || Object::named(kind, name);
    match kind {
        "container" | "exec" if path.starts_with("/exec/") => {
            match state.engine.exec_target(name) {
                Ok(target) => {
                    existing(state, target.container.as_str()).await.unwrap_or_else(unknown)
                }
                Err(_) => unknown(),
            }
        }
        "container" | "exec" => existing(state, name).await.unwrap_or_else(unknown),
        "network" => network(state, name).unwrap_or_else(unknown),
        "volume" => volume(state, name).await.unwrap_or_else(unknown),
        "service" | "task" | "secret" | "config" | "node" => {
            of_cluster(state, kind, name).unwrap_or_else(unknown)
        }
        _ => unknown(),
    }
}

fn of_cluster(state: &AppState, kind: &str, name: &str) -> Option<Object> {
    let control = local::control(state).ok()?;
    Some(match kind {
        "service" => {
            let found = control.service(name).ok()?;
            understood(&found, &control, &state.config.socket_binds)
        }
        "task" => task(&*control.task(name).ok()?, &control),
        "secret" => secret(&*control.secret(name).ok()?),
        "config" => config(&*control.config(name).ok()?),
        "node" => self::node(&*control.node(name).ok()?),
        _ => return None,
    })
}

/// A container of this node.
async fn existing(state: &AppState, key: &str) -> Option<Object> {
    let mut found = state.engine.inspect(key, false).await.ok()?;
    // The engine's own default with cgroup v1; nobody needs to have asked for it.
    found.host_config.cgroupns_mode.clear();
    let volumes = container::host_volumes(state, &found.host_config).await;
    let facts = container::facts(&found.config, &found.host_config, None, &volumes);
    let object = Object {
        id: found.id.clone(),
        image: found.config.image.clone(),
        host_access: facts.host_access(),
        engine_access: facts.engine_access,
        ..of_labels(found.name.trim_start_matches('/'), found.config.labels.clone())
    };
    let mut secrets = secrets_of(state, &object);
    secrets.extend(facts.secrets);
    Some(Object { secrets, ..object })
}

fn of_labels(name: &str, labels: std::collections::BTreeMap<String, String>) -> Object {
    let service = labels.get(SERVICE_LABEL).cloned().unwrap_or_default();
    Object { service, ..Object::named("container", name).with_labels(labels) }
}

/// Secrets that a container of a task holds.
fn secrets_of(state: &AppState, object: &Object) -> Vec<Reference> {
    let Some(task) = object.labels.get(TASK_LABEL) else { return Vec::new() };
    let found = local::control(state).ok().and_then(|control| {
        let task = control.task(task).ok()?;
        Some(task.spec.as_ref().map(|spec| service::secrets_held(spec, &control)))
    });
    match found {
        Some(secrets) => secrets.unwrap_or_default(),
        // SECURITY: what can't be known is taken to be there.
        None => vec![Reference::named(UNKNOWN_SECRETS)],
    }
}

/// A container as lists show it.
#[must_use]
pub fn summary(container: &ContainerSummary) -> Object {
    let name = container.names.first().map(String::as_str).unwrap_or_default();
    Object {
        id: container.id.clone(),
        image: container.image.clone(),
        ..of_labels(name.trim_start_matches('/'), container.labels.clone())
    }
}

/// A service.
#[must_use]
pub fn service(service: &proto::Service, control: &Control) -> Object {
    understood(service, control, &SocketBinds::default())
}

/// A service, where binds of the engine's socket may be something else.
fn understood(service: &proto::Service, control: &Control, binds: &SocketBinds) -> Object {
    let spec = service.spec.as_ref();
    let (name, labels) = convert::name_and_labels(spec.and_then(|spec| spec.annotations.as_ref()));
    let json = spec.map(convert::service::spec_json).unwrap_or_default();
    let facts = service::facts(&binds.understood(&json), Some(control));
    Object {
        id: service.id.clone(),
        service: name.clone(),
        image: facts.image.clone(),
        host_access: facts.host_access(),
        engine_access: facts.engine_access,
        secrets: facts.secrets,
        ..Object::named("service", &name).with_labels(labels)
    }
}

/// A task.
#[must_use]
pub fn task(task: &proto::Task, control: &Control) -> Object {
    let (service, labels) = convert::name_and_labels(task.service_annotations.as_ref());
    Object {
        id: task.id.clone(),
        service,
        secrets: task
            .spec
            .as_ref()
            .map(|spec| service::secrets_held(spec, control))
            .unwrap_or_default(),
        ..Object::named("task", &crate::executor::container_name(task)).with_labels(labels)
    }
}

/// A secret.
#[must_use]
pub fn secret(secret: &proto::Secret) -> Object {
    let annotations = secret.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
    let (name, labels) = convert::name_and_labels(annotations);
    Object { id: secret.id.clone(), ..Object::named("secret", &name).with_labels(labels) }
}

/// A config.
#[must_use]
pub fn config(config: &proto::Config) -> Object {
    let annotations = config.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
    let (name, labels) = convert::name_and_labels(annotations);
    Object { id: config.id.clone(), ..Object::named("config", &name).with_labels(labels) }
}

/// A network of this node.
#[must_use]
pub fn of_network(info: &brig_network::NetworkInfo) -> Object {
    let record = &info.record;
    Object {
        id: record.id.to_string(),
        ..Object::named("network", &record.name).with_labels(record.labels.clone())
    }
}

fn network(state: &AppState, name: &str) -> Option<Object> {
    if let Ok(info) = state.engine.networks().get(name) {
        return Some(of_network(&info));
    }
    let found = crate::swarm::networks::inspect(state, name).ok()?;
    Some(Object { id: found.id, ..Object::named("network", &found.name).with_labels(found.labels) })
}

async fn volume(state: &AppState, name: &str) -> Option<Object> {
    let (engine, key) = (state.engine.clone(), name.to_owned());
    let found = crate::api::blocking::blocking(move || engine.volumes().get(&key)).await.ok()?;
    Some(of_volume(&found))
}

/// A volume.
#[must_use]
pub fn of_volume(info: &brig_engine::volumes::VolumeInfo) -> Object {
    Object::named("volume", &info.name).with_labels(info.labels.clone())
}

/// A node.
#[must_use]
pub fn node(node: &proto::Node) -> Object {
    let json = convert::node::json(node);
    Object { id: node.id.clone(), ..Object::named("node", &json.description.hostname) }
}

/// What an event is about, and what it takes to see it; `None` for everybody's.
#[must_use]
pub fn of_event(state: &AppState, event: &Event) -> Option<(Action, Object)> {
    let Actor { id, attributes } = &event.actor;
    let name = attributes.get("name").map_or(id.as_str(), String::as_str);
    let unknown = |kind: &str| Object { id: id.clone(), ..Object::named(kind, name) };
    let of_cluster = |kind: &str| of_cluster(state, kind, id).unwrap_or_else(|| unknown(kind));
    Some(match event.kind.as_str() {
        "container" => {
            let image = attributes.get("image").cloned().unwrap_or_default();
            let known = of_labels(name, attributes.clone());
            (Action::ContainerInspect, Object { id: id.clone(), image, ..known })
        }
        "image" => (Action::ImageInspect, unknown("image")),
        "volume" => {
            let known = state.engine.volumes().get(id).ok();
            let known = known.as_ref().map(of_volume);
            (Action::VolumeInspect, known.unwrap_or_else(|| unknown("volume")))
        }
        "network" => {
            let known = network(state, id).unwrap_or_else(|| unknown("network"));
            (Action::NetworkInspect, known)
        }
        "service" => (Action::ServiceInspect, of_cluster("service")),
        "secret" => (Action::SecretInspect, of_cluster("secret")),
        "config" => (Action::ConfigInspect, of_cluster("config")),
        "node" => (Action::NodeInspect, of_cluster("node")),
        _ => return None,
    })
}

/// A container as inspecting shows it, for what depends on names and labels only.
#[must_use]
pub fn inspected(json: &brig_api::container::ContainerInspect) -> Object {
    Object {
        id: json.id.clone(),
        image: json.config.image.clone(),
        ..of_labels(json.name.trim_start_matches('/'), json.config.labels.clone())
    }
}
