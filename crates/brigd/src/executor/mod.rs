//! Runs the cluster's tasks with this node's engine.
//!
//! One [`controller::TaskController`] per task makes, watches and removes one container. What a
//! task's container is made of is decided in [`request`]; secrets and configs go from the cluster
//! straight into the container's memory ([`grants`]).

mod controller;
mod grants;
mod health;
mod image;
mod logs;
mod names;
mod request;
mod template;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use brig_api::filters::Filters;
use brig_engine::{Engine, ListOptions, RemoveOptions};
use brig_proto::swarm::{
    EngineDescription, Node, NodeDescription, Platform, PluginDescription, Resources, Task,
    task_spec,
};
use brig_swarm::{Controller, Dependencies, Executor, ImageInventories, TaskError};

use self::controller::TaskController;
use self::image::Pulls;
pub(crate) use self::names::container_name;
use self::template::NodeFacts;
use crate::admission::hook::Hook;
use crate::config::Config;
use crate::host::HostFacts;
use crate::inventory::{Exchange, Inventories};

const NANOS_PER_CPU: i64 = 1_000_000_000;

/// The executor of this node.
#[must_use]
pub fn new(
    engine: Engine,
    host: HostFacts,
    admission: Arc<Hook>,
    inventories: Inventories,
    config: &Config,
) -> Arc<dyn Executor> {
    Arc::new(NodeExecutor(Arc::new(Shared {
        inventories: Arc::new(Exchange::new(engine.clone(), inventories)),
        engine,
        admission,
        node: Mutex::new(NodeFacts {
            id: String::new(),
            hostname: host.hostname.clone(),
            architecture: host.machine.clone(),
            os: OS.to_owned(),
        }),
        host,
        labels: config.labels.clone(),
        defaults: Defaults {
            containers: config.containers.clone(),
            network: config.network.clone(),
            socket_binds: config.socket_binds.clone(),
        },
        pulls: Pulls::default(),
    })))
}

const OS: &str = "linux";

/// What containers get that ask for nothing.
struct Defaults {
    containers: crate::config::ContainerDefaults,
    network: crate::config::NetworkConfig,
    socket_binds: crate::access::lend::SocketBinds,
}

/// What every controller of this node needs.
struct Shared {
    engine: Engine,
    admission: Arc<Hook>,
    host: HostFacts,
    node: Mutex<NodeFacts>,
    /// `key=value`, from the configuration.
    labels: Vec<String>,
    defaults: Defaults,
    pulls: Pulls,
    inventories: Arc<Exchange>,
}

impl Shared {
    fn node(&self) -> NodeFacts {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct NodeExecutor(Arc<Shared>);

#[async_trait]
impl Executor for NodeExecutor {
    async fn describe(&self) -> NodeDescription {
        describe(&self.0.host, &self.0.labels)
    }

    async fn configure(&self, node: &Node) {
        self.0.node.lock().unwrap_or_else(PoisonError::into_inner).id.clone_from(&node.id);
    }

    async fn controller(
        &self,
        task: &Task,
        dependencies: Arc<dyn Dependencies>,
    ) -> Result<Arc<dyn Controller>, TaskError> {
        let runtime = task.spec.as_ref().and_then(|spec| spec.runtime.as_ref());
        if !matches!(runtime, Some(task_spec::Runtime::Container(_))) {
            return Err(TaskError::fatal("this node runs containers only"));
        }
        Ok(Arc::new(TaskController::new(Arc::clone(&self.0), task.clone(), dependencies)))
    }

    async fn retain(&self, task_ids: &[String]) {
        self.0.remove_tasks(|id| !task_ids.iter().any(|known| known == id)).await;
    }

    async fn discard(&self, task_id: &str) {
        self.0.remove_tasks(|id| id == task_id).await;
    }

    fn inventories(&self) -> Option<Arc<dyn ImageInventories>> {
        Some(Arc::clone(&self.0.inventories) as Arc<_>)
    }
}

impl Shared {
    /// Removes the containers of the tasks that are chosen by id.
    async fn remove_tasks(&self, chosen: impl Fn(&str) -> bool + Send) {
        let filters = Filters::new().with("label", names::TASK_ID_LABEL);
        let options = ListOptions { all: true, filters, ..ListOptions::default() };
        let containers = match self.engine.list(options).await {
            Ok(containers) => containers,
            Err(error) => {
                let error = brig_types::error::chain(&error);
                tracing::warn!(%error, "cannot look for containers of former tasks");
                return;
            }
        };
        for container in containers {
            let id = container.labels.get(names::TASK_ID_LABEL).map_or("", String::as_str);
            let ours = container.names.iter().any(|name| names::belongs_to(name, id));
            if !ours || !chosen(id) {
                continue;
            }
            tracing::info!(
                task = id,
                container = container.id,
                "removing a former task's container"
            );
            let options = RemoveOptions { force: true, volumes: true };
            if let Err(error) = self.engine.remove(&container.id, options).await {
                let error = brig_types::error::chain(&error);
                tracing::warn!(task = id, %error, "a former task's container stays");
            }
        }
    }
}

fn describe(host: &HostFacts, labels: &[String]) -> NodeDescription {
    let plugin = |kind: &str, name: &str| PluginDescription {
        r#type: kind.to_owned(),
        name: name.to_owned(),
    };
    NodeDescription {
        hostname: host.hostname.clone(),
        platform: Some(Platform { architecture: host.machine.clone(), os: OS.to_owned() }),
        resources: Some(Resources {
            nano_cpus: i64::from(host.cpus).saturating_mul(NANOS_PER_CPU),
            memory_bytes: i64::try_from(host.memory).unwrap_or(i64::MAX),
            generic: Vec::new(),
        }),
        engine: Some(EngineDescription {
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: labels
                .iter()
                .map(|label| label.split_once('=').unwrap_or((label, "")))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            plugins: vec![
                plugin("Log", "json-file"),
                plugin("Log", "local"),
                plugin("Log", "none"),
                plugin("Network", "bridge"),
                plugin("Network", "host"),
                plugin("Network", "null"),
                plugin("Volume", "local"),
            ],
        }),
        tls_info: None,
        fips: false,
        csi_info: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_says_what_it_can() {
        let host = HostFacts {
            hostname: "h".into(),
            machine: "x86_64".into(),
            cpus: 2,
            memory: 1 << 30,
            ..HostFacts::default()
        };
        let description = describe(&host, &["zone=a".to_owned(), "ssd".to_owned()]);
        assert_eq!(description.platform.unwrap().architecture, "x86_64");
        let resources = description.resources.unwrap();
        assert_eq!((resources.nano_cpus, resources.memory_bytes), (2_000_000_000, 1 << 30));
        let engine = description.engine.unwrap();
        assert_eq!(engine.labels["zone"], "a");
        assert_eq!(engine.labels["ssd"], "");
        let networks: Vec<_> = engine
            .plugins
            .iter()
            .filter(|plugin| plugin.r#type == "Network")
            .map(|plugin| plugin.name.as_str())
            .collect();
        assert_eq!(networks, ["bridge", "host", "null"]);
    }
}
