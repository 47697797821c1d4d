//! Which images run: in this node's containers and, on a manager, in all tasks of the cluster.

use std::collections::{BTreeMap, BTreeSet};

use brig_api::inventory::{ImageUse, RunningImage};
use brig_engine::ListOptions;
use brig_proto::swarm::{Node, Task, TaskState, service_spec, task_spec};
use brig_swarm::Control;
use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::exchange::TASK_LABEL;
use super::files::Kind;
use crate::access::{Action, object};
use crate::executor::container_name;
use crate::server::body;
use crate::server::{ApiError, Call, Response};
use crate::swarm::local;

const SERVICE_LABEL: &str = "com.docker.swarm.service.name";

/// Uses by image: its id, or the name of one that nobody here knows.
#[derive(Default)]
struct Found(BTreeMap<(String, String), Vec<ImageUse>>);

impl Found {
    fn add(&mut self, image: Option<&Digest>, name: &str, by: ImageUse) {
        let key = match image {
            Some(id) => (id.to_string(), String::new()),
            None => (String::new(), name.to_owned()),
        };
        self.0.entry(key).or_default().push(by);
    }
}

/// `GET /brig/inventories`.
///
/// # Errors
/// When the containers cannot be listed.
pub(super) async fn list(call: Call) -> Result<Response, ApiError> {
    let mut found = Found::default();
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let own = call.state.host.hostname.clone();
    for container in call.state.engine.list(ListOptions::default()).await? {
        let task = container.labels.get(TASK_LABEL);
        seen.extend(task.cloned());
        if !call.authorized.may(Action::ContainerInspect, &object::summary(&container)) {
            continue;
        }
        let name = container.names.first().map_or("", |name| name.trim_start_matches('/'));
        let by = ImageUse {
            kind: "container".to_owned(),
            id: container.id.clone(),
            name: name.to_owned(),
            service: container.labels.get(SERVICE_LABEL).cloned().unwrap_or_default(),
            node: own.clone(),
        };
        let id = Digest::parse(&container.image_id).ok();
        if let Some(id) = &id {
            names.entry(id.to_string()).or_default().insert(container.image.clone());
        }
        found.add(id.as_ref(), &container.image, by);
    }
    if let Ok(control) = local::control(&call.state) {
        of_cluster(&call, &control, &seen, &mut found, &mut names);
    }
    let inventories = &call.state.inventories;
    let images: Vec<RunningImage> = found
        .0
        .into_iter()
        .map(|((id, name), uses)| {
            let digest = Digest::parse(&id).ok();
            let here = call.state.engine.images().resolve(&id).ok().filter(|_| digest.is_some());
            let known =
                here.is_some() || digest.is_some_and(|id| inventories.0.files.has(Kind::Node, &id));
            let mut called: BTreeSet<String> = names.remove(&id).unwrap_or_default();
            if let Some(image) = here.filter(|image| !image.tags.is_empty()) {
                // What it is called now, rather than what somebody typed.
                called = image.tags.iter().map(Reference::familiar).collect();
            }
            called.extend(Some(name).filter(|name| !name.is_empty()));
            RunningImage { image: id, names: called.into_iter().collect(), known, uses }
        })
        .collect();
    body::ok(&images)
}

/// Tasks that no container of this node stands for, and services that have none.
fn of_cluster(
    call: &Call,
    control: &Control,
    seen: &BTreeSet<String>,
    found: &mut Found,
    names: &mut BTreeMap<String, BTreeSet<String>>,
) {
    let nodes: BTreeMap<String, String> =
        control.nodes().iter().map(|node| (node.id.clone(), hostname(node))).collect();
    let mut running: BTreeSet<String> = BTreeSet::new();
    let mut add = |image: Option<Digest>, reference: &str, by: ImageUse| {
        let name = Reference::parse(reference).map_or_else(
            |_| reference.to_owned(),
            |reference| reference.with_default_tag().familiar(),
        );
        if let Some(id) = &image {
            names.entry(id.to_string()).or_default().insert(name.clone());
        }
        found.add(image.as_ref(), &name, by);
    };
    for task in control.tasks() {
        let Some(reference) = image_of(&task).filter(|_| runs(&task)) else { continue };
        running.insert(task.service_id.clone());
        let object = object::task(&task, control);
        if seen.contains(&task.id) || !call.authorized.may(Action::TaskInspect, &object) {
            continue;
        }
        let image = call
            .state
            .inventories
            .image_of_task(&task.node_id, &task.id)
            .or_else(|| resolved(call, reference));
        let by = ImageUse {
            kind: "task".to_owned(),
            id: task.id.clone(),
            name: container_name(&task),
            service: object.service.clone(),
            node: nodes.get(&task.node_id).cloned().unwrap_or_default(),
        };
        add(image, reference, by);
    }
    for service in control.services() {
        let spec = service.spec.as_ref();
        let runtime = spec.and_then(|spec| spec.task.as_ref()?.runtime.as_ref());
        let Some(task_spec::Runtime::Container(container)) = runtime else { continue };
        let object = object::service(&service, control);
        let is_job = matches!(
            spec.and_then(|spec| spec.mode.as_ref()),
            Some(service_spec::Mode::ReplicatedJob(_) | service_spec::Mode::GlobalJob(_))
        );
        if is_job
            || running.contains(&service.id)
            || !call.authorized.may(Action::ServiceInspect, &object)
        {
            continue;
        }
        let by = ImageUse {
            kind: "service".to_owned(),
            id: service.id.clone(),
            name: object.name.clone(),
            service: object.service.clone(),
            node: String::new(),
        };
        add(resolved(call, &container.image), &container.image, by);
    }
}

/// The image that a reference stands for here, or where it was pulled by its digest.
fn resolved(call: &Call, reference: &str) -> Option<Digest> {
    match call.state.engine.images().resolve(reference) {
        Ok(image) => Some(image.id.clone()),
        Err(_) => {
            let digest = Reference::parse(reference).ok()?.digest()?.clone();
            call.state.inventories.image_of_digest(&digest)
        }
    }
}

fn image_of(task: &Task) -> Option<&str> {
    match task.spec.as_ref()?.runtime.as_ref()? {
        task_spec::Runtime::Container(container) => Some(&container.image),
        _ => None,
    }
}

fn runs(task: &Task) -> bool {
    let observed = task.status.as_ref().map_or(0, |status| status.state);
    observed == TaskState::Running as i32 && task.desired_state <= TaskState::Running as i32
}

fn hostname(node: &Node) -> String {
    node.description.as_ref().map(|known| known.hostname.clone()).unwrap_or_default()
}
