//! Tasks. They are only ever shown: nobody but the cluster writes them.

use brig_api::swarm as api;
use brig_proto::swarm as proto;
use brig_proto::swarm::TaskState;
use brig_proto::swarm::task_status::RuntimeStatus;

use super::{meta, name_and_labels, network, service, template, time, version, word};

/// A task.
#[must_use]
pub fn json(task: &proto::Task) -> api::Task {
    let meta = meta(task.meta.as_ref());
    let (name, labels) = name_and_labels(task.annotations.as_ref());
    api::Task {
        id: task.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        name,
        labels,
        spec: task.spec.as_ref().map(template::json).unwrap_or_default(),
        service_id: task.service_id.clone(),
        slot: i64::try_from(task.slot).unwrap_or(i64::MAX),
        node_id: task.node_id.clone(),
        status: task.status.as_ref().map_or_else(no_status, status),
        desired_state: state_word(task.desired_state),
        networks_attachments: task.networks.iter().map(attachment).collect(),
        generic_resources: task
            .assigned_generic_resources
            .iter()
            .filter_map(template::generic_json)
            .collect(),
        job_iteration: task.job_iteration.as_ref().map(|iteration| version(Some(iteration))),
    }
}

/// A state's word.
#[must_use]
pub fn state_word(state: i32) -> String {
    word(state, TaskState::as_str_name)
}

/// Reads a state's word.
#[must_use]
pub fn parse_state(word: &str) -> Option<TaskState> {
    TaskState::from_str_name(&word.to_ascii_uppercase())
}

fn no_status() -> api::TaskStatus {
    status(&proto::TaskStatus::default())
}

fn status(status: &proto::TaskStatus) -> api::TaskStatus {
    let container = status.runtime_status.as_ref();
    let container_status =
        container.map(|RuntimeStatus::Container(container)| api::ContainerStatus {
            container_id: container.container_id.clone(),
            pid: i64::from(container.pid),
            exit_code: i64::from(container.exit_code),
        });
    let ports = status.port_status.as_ref().map_or(&[][..], |status| &status.ports);
    api::TaskStatus {
        timestamp: time(status.timestamp.as_ref()),
        state: state_word(status.state),
        message: status.message.clone(),
        err: status.err.clone(),
        container_status,
        port_status: api::PortStatus { ports: ports.iter().map(service::port_json).collect() },
    }
}

fn attachment(attachment: &proto::NetworkAttachment) -> api::NetworkAttachment {
    api::NetworkAttachment {
        network: attachment.network.as_ref().map(network::json).unwrap_or_default(),
        addresses: attachment.addresses.clone(),
    }
}
