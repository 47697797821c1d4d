//! Reading tasks and services: states, modes, and what a task was granted.

use brig_proto::swarm::{
    ContainerSpec, EndpointSpec, Node, Placement, PortConfig, Service, ServiceSpec, Task, TaskSpec,
    TaskState, port_config, service_spec, task_spec,
};

use crate::manager::scheduler::constraint;

/// What was last observed of a task. Unknown numbers never get into the store.
pub(crate) fn observed(task: &Task) -> TaskState {
    task.status.as_ref().map_or(TaskState::New, |status| {
        TaskState::try_from(status.state).unwrap_or(TaskState::New)
    })
}

/// What the cluster wants of a task.
pub(crate) fn desired(task: &Task) -> TaskState {
    TaskState::try_from(task.desired_state).unwrap_or(TaskState::New)
}

/// Whether the task came to its end.
pub(crate) fn is_finished(task: &Task) -> bool {
    observed(task) > TaskState::Running
}

/// Whether the cluster wants the task to run, now or later.
pub(crate) fn is_wanted(task: &Task) -> bool {
    desired(task) <= TaskState::Running
}

/// The container of a task, if that is what it runs.
pub(crate) fn container(spec: &TaskSpec) -> Option<&ContainerSpec> {
    match spec.runtime.as_ref()? {
        task_spec::Runtime::Container(container) => Some(container),
        task_spec::Runtime::Attachment(_) | task_spec::Runtime::Generic(_) => None,
    }
}

/// The container of a task, to be changed.
pub(crate) fn container_mut(spec: &mut TaskSpec) -> Option<&mut ContainerSpec> {
    match spec.runtime.as_mut()? {
        task_spec::Runtime::Container(container) => Some(container),
        task_spec::Runtime::Attachment(_) | task_spec::Runtime::Generic(_) => None,
    }
}

/// Ids of the secrets that a task spec refers to.
pub(crate) fn secret_ids(spec: &TaskSpec) -> impl Iterator<Item = &str> {
    let extra = brig_proto::swarm::ResourceType::Secret as i32;
    container(spec)
        .into_iter()
        .flat_map(|container| container.secrets.iter().map(|s| s.secret_id.as_str()))
        .chain(referenced(spec, extra))
}

/// Ids of the configs that a task spec refers to.
pub(crate) fn config_ids(spec: &TaskSpec) -> impl Iterator<Item = &str> {
    let extra = brig_proto::swarm::ResourceType::Config as i32;
    container(spec)
        .into_iter()
        .flat_map(|container| container.configs.iter().map(|c| c.config_id.as_str()))
        .chain(referenced(spec, extra))
}

fn referenced(spec: &TaskSpec, resource_type: i32) -> impl Iterator<Item = &str> {
    spec.resource_references
        .iter()
        .filter(move |reference| reference.resource_type == resource_type)
        .map(|reference| reference.resource_id.as_str())
}

/// The task template of a service.
pub(crate) fn template(service: &Service) -> Option<&TaskSpec> {
    service.spec.as_ref()?.task.as_ref()
}

/// The name of a service.
pub(crate) fn service_name(service: &Service) -> &str {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.annotations.as_ref())
        .map_or("", |annotations| annotations.name.as_str())
}

/// The wanted replicas of a service; `None` when it isn't a replicated one.
pub(crate) fn replicas(service: &Service) -> Option<u64> {
    match service.spec.as_ref()?.mode.as_ref()? {
        service_spec::Mode::Replicated(mode) => Some(mode.replicas),
        service_spec::Mode::Global(_)
        | service_spec::Mode::ReplicatedJob(_)
        | service_spec::Mode::GlobalJob(_) => None,
    }
}

/// Whether a service wants one task on every node.
pub(crate) fn is_global(service: &Service) -> bool {
    matches!(
        service.spec.as_ref().and_then(|spec| spec.mode.as_ref()),
        Some(service_spec::Mode::Global(_))
    )
}

/// The ports of an endpoint spec that are published in `mode`.
pub(crate) fn ports(
    endpoint: Option<&EndpointSpec>,
    mode: port_config::PublishMode,
) -> impl Iterator<Item = &PortConfig> {
    endpoint
        .into_iter()
        .flat_map(|endpoint| endpoint.ports.iter())
        .filter(move |port| port.publish_mode == mode as i32)
}

/// Host-mode ports that a task takes on its node, as protocol and port.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = (i32, u32)> {
    let ports = task.endpoint.as_ref().map_or(&[][..], |endpoint| {
        if endpoint.ports.is_empty() {
            endpoint.spec.as_ref().map_or(&[][..], |spec| &spec.ports)
        } else {
            &endpoint.ports
        }
    });
    ports
        .iter()
        .filter(|port| {
            port.publish_mode == port_config::PublishMode::Host as i32 && port.published_port != 0
        })
        .map(|port| (port.protocol, port.published_port))
}

/// Where a task belongs within its service: a numbered slot, or a node for global services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    /// A replica's number, from 1.
    Replica(u64),
    /// A node's id.
    Node(String),
}

impl Slot {
    /// The slot of a task.
    pub(crate) fn of(task: &Task) -> Self {
        if task.slot == 0 { Self::Node(task.node_id.clone()) } else { Self::Replica(task.slot) }
    }
}

/// Whether a task still is what its service asks for.
///
/// The versions decide when they agree; otherwise the contents do, so that scaling alone replaces
/// nothing. Other constraints alone don't either, as long as the task's node meets them.
pub(crate) fn is_up_to_date(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    if service.spec_version.is_some() && service.spec_version == task.spec_version {
        return true;
    }
    let Some(spec) = service.spec.as_ref() else {
        return false;
    };
    let same_endpoint = task.endpoint.as_ref().is_none_or(|endpoint| {
        endpoint.spec.clone().unwrap_or_default() == spec.endpoint.clone().unwrap_or_default()
    });
    same_endpoint && (spec.task == task.spec || only_constraints_differ(spec, task, node))
}

fn only_constraints_differ(spec: &ServiceSpec, task: &Task, node: Option<&Node>) -> bool {
    let (Some(wanted), Some(actual), Some(node)) = (&spec.task, &task.spec, node) else {
        return false;
    };
    let constraints = |spec: &TaskSpec| {
        spec.placement.as_ref().map(|placement| placement.constraints.clone()).unwrap_or_default()
    };
    let mut same = actual.clone();
    match (&mut same.placement, &wanted.placement) {
        (Some(placement), _) => placement.constraints = constraints(wanted),
        (None, Some(_)) => {
            let constraints = constraints(wanted);
            same.placement = Some(Placement { constraints, ..Placement::default() });
        }
        (None, None) => {}
    }
    same == *wanted && constraint::all_match(&constraints(wanted), node)
}
