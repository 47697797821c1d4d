//! The filters that a node has to pass before a task may be placed on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brig_proto::swarm::{Node, PluginDescription, Resources, Task, node_spec, node_status};

use super::constraint;
use crate::manager::orchestrator::plan::availability;
use crate::task;

/// A node with what is taken of it.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    /// The node.
    pub(crate) node: Arc<Node>,
    free: Resources,
    total: u64,
    by_service: BTreeMap<String, u64>,
    host_ports: BTreeSet<(i32, u32)>,
}

impl NodeInfo {
    /// A node with nothing on it.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let free = node
            .description
            .as_ref()
            .and_then(|description| description.resources.clone())
            .unwrap_or_default();
        Self { node, free, total: 0, by_service: BTreeMap::new(), host_ports: BTreeSet::new() }
    }

    /// Takes what a task needs.
    pub(crate) fn add(&mut self, task: &Task) {
        if let Some(reserved) = reservations(task) {
            self.free.nano_cpus = self.free.nano_cpus.saturating_sub(reserved.nano_cpus);
            self.free.memory_bytes = self.free.memory_bytes.saturating_sub(reserved.memory_bytes);
        }
        self.host_ports.extend(task::host_ports(task));
        if task::is_wanted(task) {
            self.total += 1;
            *self.by_service.entry(task.service_id.clone()).or_default() += 1;
        }
    }

    /// Wanted tasks on the node.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Wanted tasks of a service on the node.
    pub(crate) fn of_service(&self, service: &str) -> u64 {
        self.by_service.get(service).copied().unwrap_or(0)
    }
}

/// One reason a node can be passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Filter {
    /// Up and accepting tasks.
    Ready,
    /// Enough unreserved resources.
    Resource,
    /// The plugins that mounts, networks and logging need.
    Plugin,
    /// The placement constraints.
    Constraint,
    /// The platforms the image exists for.
    Platform,
    /// Free host-mode ports.
    HostPort,
    /// Fewer tasks of the service than the limit.
    MaxReplicas,
}

/// All filters, in the order in which they are asked.
pub(crate) const PIPELINE: [Filter; 7] = [
    Filter::Ready,
    Filter::Resource,
    Filter::Plugin,
    Filter::Constraint,
    Filter::Platform,
    Filter::HostPort,
    Filter::MaxReplicas,
];

impl Filter {
    /// Whether the node can take the task, as far as this filter is concerned.
    pub(crate) fn passes(self, task: &Task, info: &NodeInfo) -> bool {
        let placement = task.spec.as_ref().and_then(|spec| spec.placement.as_ref());
        match self {
            Self::Ready => {
                let ready = info
                    .node
                    .status
                    .as_ref()
                    .is_some_and(|status| status.state == node_status::State::Ready as i32);
                ready && availability(&info.node) == node_spec::Availability::Active
            }
            Self::Resource => reservations(task).is_none_or(|reserved| {
                reserved.nano_cpus <= info.free.nano_cpus.max(0)
                    && reserved.memory_bytes <= info.free.memory_bytes.max(0)
                    && reserved.generic.is_empty()
            }),
            Self::Plugin => plugins_present(task, &info.node),
            Self::Constraint => placement
                .is_none_or(|placement| constraint::all_match(&placement.constraints, &info.node)),
            Self::Platform => placement.is_none_or(|placement| {
                constraint::platform_matches(&placement.platforms, &info.node)
            }),
            Self::HostPort => task::host_ports(task).all(|port| !info.host_ports.contains(&port)),
            Self::MaxReplicas => placement.is_none_or(|placement| {
                placement.max_replicas == 0
                    || info.of_service(&task.service_id) < placement.max_replicas
            }),
        }
    }

    /// Why nodes were passed over, in SwarmKit's words.
    pub(crate) fn explain(self, nodes: usize) -> String {
        let on_nodes =
            if nodes == 1 { "on 1 node".to_owned() } else { format!("on {nodes} nodes") };
        match self {
            Self::Ready if nodes == 1 => "1 node not available for new tasks".to_owned(),
            Self::Ready => format!("{nodes} nodes not available for new tasks"),
            Self::Resource => format!("insufficient resources {on_nodes}"),
            Self::Plugin => format!("missing plugin {on_nodes}"),
            Self::Constraint => format!("scheduling constraints not satisfied {on_nodes}"),
            Self::Platform => format!("unsupported platform {on_nodes}"),
            Self::HostPort => format!("host-mode port already in use {on_nodes}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

fn reservations(task: &Task) -> Option<&Resources> {
    task.spec.as_ref()?.resources.as_ref()?.reservations.as_ref()
}

/// A node without engine description is not asked for plugins.
fn plugins_present(task: &Task, node: &Node) -> bool {
    let Some(engine) =
        node.description.as_ref().and_then(|description| description.engine.as_ref())
    else {
        return true;
    };
    let has = |kind: &str, name: &str| {
        engine.plugins.iter().any(|PluginDescription { r#type, name: n }| {
            r#type == kind && plugin_name(n) == plugin_name(name)
        })
    };
    let mounts =
        task.spec.as_ref().and_then(task::container).map_or(&[][..], |container| &container.mounts);
    let volumes = mounts.iter().all(|mount| {
        let driver = mount
            .volume_options
            .as_ref()
            .and_then(|options| options.driver_config.as_ref())
            .map_or("", |driver| driver.name.as_str());
        matches!(driver, "" | "local") || has("Volume", driver)
    });
    let networks = task.networks.iter().all(|attachment| {
        let driver = attachment
            .network
            .as_ref()
            .and_then(|network| network.driver_state.as_ref())
            .map_or("", |driver| driver.name.as_str());
        driver.is_empty() || has("Network", driver)
    });
    let log = task.log_driver.as_ref().map_or("", |driver| driver.name.as_str());
    volumes && networks && (matches!(log, "" | "none") || has("Log", log))
}

fn plugin_name(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}
