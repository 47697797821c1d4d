//! Runs one task as one container.
//!
//! Nothing is remembered between the steps: each looks at what is really there, so a controller
//! that is made anew after a restart of the daemon goes on where the last one was.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use brig_api::container::{
    ContainerCreateRequest, ContainerCreateResponse, ContainerInspect, PortMap,
};
use brig_engine::{EngineError, Origin, RemoveOptions, StartOptions, WaitCondition};
use brig_proto::swarm::port_config::{Protocol, PublishMode};
use brig_proto::swarm::{
    ContainerStatus, LogMessage, LogSubscriptionOptions, PortConfig, PortStatus, Task,
};
use brig_swarm::{Controller, Dependencies, ExitStatus, TaskError};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::health::{self, UNHEALTHY, Verdict};
use super::template::Context;
use super::{Shared, grants, image, logs, names, request};

/// Runs one task.
pub(super) struct TaskController {
    shared: Arc<Shared>,
    task: Mutex<Task>,
    /// The container's name never changes.
    name: String,
    dependencies: Arc<dyn Dependencies>,
    /// The engine's work on the container, which goes on when the step is cut off.
    creating: tokio::sync::Mutex<Option<Creation>>,
}

type Creation = BoxFuture<'static, Result<ContainerCreateResponse, EngineError>>;

fn failed(error: EngineError) -> TaskError {
    let text = brig_types::error::chain(&error);
    match error {
        EngineError::ShuttingDown => TaskError::temporary(text),
        _ => TaskError::fatal(text),
    }
}

impl TaskController {
    pub(super) fn new(
        shared: Arc<Shared>,
        task: Task,
        dependencies: Arc<dyn Dependencies>,
    ) -> Self {
        let name = names::container_name(&task);
        Self {
            shared,
            task: Mutex::new(task),
            name,
            dependencies,
            creating: tokio::sync::Mutex::default(),
        }
    }

    fn task(&self) -> Task {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The task's container, if there is one. A container of that name that somebody else made is
    /// not it.
    async fn container(&self) -> Result<Option<ContainerInspect>, TaskError> {
        match self.shared.engine.inspect(&self.name, false).await {
            Ok(inspect) => {
                let owner = inspect.config.labels.get(names::TASK_ID_LABEL);
                let ours = owner == Some(&self.task().id);
                Ok(ours.then_some(inspect))
            }
            Err(EngineError::NoSuchContainer(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn create(
        &self,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let mut creating = self.creating.lock().await;
        let (engine, name) = (self.shared.engine.clone(), self.name.clone());
        let origin = origin(&self.task());
        let creation = creating.get_or_insert_with(|| {
            Box::pin(async move { engine.create_container_for(Some(&name), request, origin).await })
        });
        let outcome = creation.await;
        *creating = None;
        outcome
    }

    /// The task's container once nothing is at work on it: one that is being made when its task is
    /// given up must be found, or nobody ever removes it.
    async fn settled(&self) -> Result<Option<ContainerInspect>, TaskError> {
        let mut creating = self.creating.lock().await;
        if let Some(creation) = creating.as_mut() {
            // What came of it is seen next.
            let _ = creation.await;
            *creating = None;
        }
        drop(creating);
        self.container().await
    }

    async fn existing(&self) -> Result<ContainerInspect, TaskError> {
        let missing = || TaskError::fatal(format!("No such container: {}", self.name));
        self.container().await?.ok_or_else(missing)
    }

    /// Waits for the first verdict of a health check after a start.
    async fn wait_healthy(&self, id: &str) -> Result<(), TaskError> {
        match health::wait_for(&self.shared.engine, id, |verdict| verdict != Verdict::Open).await? {
            Verdict::Bad => {
                self.shutdown().await?;
                Err(TaskError::fatal(UNHEALTHY))
            }
            // One that ended already is found by the wait that follows.
            Verdict::Good | Verdict::Open | Verdict::Ended => Ok(()),
        }
    }

    /// Stops the container when its health check fails, which it notes first; otherwise never
    /// comes back.
    async fn stop_when_unhealthy(&self, id: &str, unhealthy: &AtomicBool) -> Infallible {
        let bad = health::wait_for(&self.shared.engine, id, |verdict| verdict == Verdict::Bad);
        if bad.await.is_ok() {
            unhealthy.store(true, Ordering::Relaxed);
            if let Err(error) = self.shutdown().await {
                tracing::warn!(task = self.task().id, %error, "cannot stop an unhealthy container");
            }
        }
        std::future::pending().await
    }
}

#[async_trait]
impl Controller for TaskController {
    async fn update(&self, task: &Task) -> Result<(), TaskError> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(task);
        Ok(())
    }

    async fn prepare(&self) -> Result<(), TaskError> {
        if self.settled().await?.is_some() {
            return Ok(());
        }
        let task = self.task();
        let spec = request::container(&task)?;
        let context = Context::new(&task, &self.shared.node());
        // What is wrong with the request is found before anything is fetched for it.
        let request = request::create(&task, &context, &self.shared.defaults)?;
        let Shared { engine, admission, pulls, .. } = &*self.shared;
        image::ensure(engine, admission, pulls, spec, &origin(&task)).await?;
        match self.create(request).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(task = task.id, warning, "while creating a task's container");
                }
                Ok(())
            }
            // An earlier attempt that was cut off made it after all.
            Err(EngineError::NameInUse { .. }) if self.container().await?.is_some() => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn start(&self) -> Result<(), TaskError> {
        let container = self.existing().await?;
        match container.state.status.as_str() {
            "created" => {
                let task = self.task();
                let context = Context::new(&task, &self.shared.node());
                let grants =
                    grants::files(request::container(&task)?, &context, &*self.dependencies)?;
                let options = StartOptions {
                    secrets: grants.secrets,
                    configs: grants.configs,
                    origin: origin(&task),
                };
                match self.shared.engine.start_container(&container.id, options).await {
                    Ok(()) | Err(EngineError::NotModified) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            "running" => {}
            // It ran before; how it ended is found by the wait that follows.
            _ => return Ok(()),
        }
        self.wait_healthy(&container.id).await
    }

    async fn wait(&self) -> Result<ExitStatus, TaskError> {
        let container = self.existing().await?;
        let ended =
            self.shared.engine.wait(&container.id, WaitCondition::NotRunning).map_err(failed)?;
        let unhealthy = AtomicBool::new(false);
        let outcome = tokio::select! {
            outcome = ended.wait() => outcome,
            never = self.stop_when_unhealthy(&container.id, &unhealthy) => match never {},
        };
        let code = i32::try_from(outcome.exit_code).unwrap_or(i32::MAX);
        let cause = if unhealthy.into_inner() { Some(UNHEALTHY.to_owned()) } else { outcome.error };
        Ok(ExitStatus { code, cause })
    }

    async fn shutdown(&self) -> Result<(), TaskError> {
        let Some(container) = self.settled().await? else {
            return Ok(());
        };
        // The grace period is the container's stop timeout.
        match self.shared.engine.stop(&container.id, None, None).await {
            Ok(()) | Err(EngineError::NotModified | EngineError::NoSuchContainer(_)) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn terminate(&self) -> Result<(), TaskError> {
        let Some(container) = self.settled().await? else {
            return Ok(());
        };
        match self.shared.engine.kill(&container.id, None).await {
            Ok(()) | Err(EngineError::KillNotRunning { .. } | EngineError::NoSuchContainer(_)) => {
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn remove(&self) -> Result<(), TaskError> {
        let Some(container) = self.settled().await? else {
            return Ok(());
        };
        let options = RemoveOptions { force: true, volumes: true };
        match self.shared.engine.remove(&container.id, options).await {
            Ok(()) | Err(EngineError::NoSuchContainer(_)) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn container_status(&self) -> Option<ContainerStatus> {
        let container = self.container().await.ok()??;
        Some(ContainerStatus {
            container_id: container.id,
            pid: i32::try_from(container.state.pid).unwrap_or(0),
            exit_code: i32::try_from(container.state.exit_code).unwrap_or(i32::MAX),
        })
    }

    async fn port_status(&self) -> Option<PortStatus> {
        let container = self.container().await.ok()??;
        let ports = bound_ports(&self.task(), &container.network_settings.ports);
        (!ports.is_empty()).then_some(PortStatus { ports })
    }

    async fn logs(
        &self,
        options: &LogSubscriptionOptions,
    ) -> Result<BoxStream<'static, LogMessage>, TaskError> {
        let container = self.existing().await?;
        let request = logs::request(options)?;
        let lines = self.shared.engine.logs(&container.id, request).await.map_err(failed)?;
        Ok(logs::messages(lines))
    }
}

/// For whom the container of a task is.
fn origin(task: &Task) -> Origin {
    Origin::Task { service: task.service_id.clone(), task: task.id.clone() }
}

/// The task's host-mode ports with the port that each really got.
fn bound_ports(task: &Task, bound: &PortMap) -> Vec<PortConfig> {
    let host_mode = i32::from(PublishMode::Host);
    let wanted = task
        .endpoint
        .iter()
        .flat_map(|endpoint| &endpoint.ports)
        .filter(|port| port.publish_mode == host_mode);
    let mut ports: Vec<PortConfig> = Vec::new();
    for port in wanted {
        let protocol = Protocol::try_from(port.protocol).unwrap_or_default();
        let key = format!("{}/{}", port.target_port, protocol.as_str_name().to_ascii_lowercase());
        let bindings = bound.get(&key).into_iter().flatten().flatten();
        for published in bindings.filter_map(|binding| binding.host_port.parse::<u32>().ok()) {
            // A port that was not chosen is whatever it got; one that was chosen is that one.
            let matches = port.published_port == 0 || port.published_port == published;
            let found = PortConfig { published_port: published, ..port.clone() };
            // IPv4 and IPv6 are separate bindings of one port.
            if matches && !ports.contains(&found) {
                ports.push(found);
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use brig_api::container::PortBinding;
    use brig_proto::swarm::Endpoint;

    use super::*;

    #[test]
    fn bound_ports_are_the_host_modes_once() {
        let port = |target_port, published_port, mode: PublishMode| PortConfig {
            target_port,
            published_port,
            publish_mode: mode.into(),
            ..PortConfig::default()
        };
        let task = Task {
            endpoint: Some(Endpoint {
                ports: vec![
                    port(80, 0, PublishMode::Host),
                    port(81, 8081, PublishMode::Host),
                    port(82, 8082, PublishMode::Ingress),
                    port(83, 8083, PublishMode::Host),
                ],
                ..Endpoint::default()
            }),
            ..Task::default()
        };
        let binding =
            |ip: &str, port: &str| PortBinding { host_ip: ip.into(), host_port: port.into() };
        let bound = PortMap::from([
            ("80/tcp".into(), Some(vec![binding("0.0.0.0", "49153"), binding("::", "49153")])),
            ("81/tcp".into(), Some(vec![binding("0.0.0.0", "8081")])),
            ("82/tcp".into(), Some(vec![binding("0.0.0.0", "8082")])),
            ("83/tcp".into(), None),
        ]);
        let ports: Vec<_> =
            bound_ports(&task, &bound).iter().map(|p| (p.target_port, p.published_port)).collect();
        assert_eq!(ports, [(80, 49153), (81, 8081)]);
    }
}
