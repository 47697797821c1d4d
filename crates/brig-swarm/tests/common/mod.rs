//! An executor that runs nothing: containers are entries of a map that outlives the daemon.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use brig_proto::swarm::{
    Annotations, ContainerSpec, ContainerStatus, EngineDescription, FileTarget, LogMessage,
    LogStream, LogSubscriptionOptions, Node, NodeDescription, Platform, PluginDescription,
    PortStatus, ReplicatedService, Resources, RestartPolicy, Secret, SecretReference, SecretSpec,
    Service, ServiceSpec, Task, TaskSpec, TaskState, container_spec, restart_policy,
    secret_reference, service_spec, task_spec,
};
use brig_swarm::{
    Control, Controller, Dependencies, Executor, ExitStatus, InitRequest, Swarm, SwarmConfig,
    TaskError,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

pub(crate) mod cfssl;
pub(crate) mod dockerd;

/// A container that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) image: String,
    pub(crate) running: bool,
    pub(crate) exit: Option<i32>,
    pub(crate) starts: u32,
    pub(crate) secrets: Vec<(String, Vec<u8>)>,
    pub(crate) published: Vec<u32>,
    pub(crate) registry_auth: String,
}

/// A machine with such containers, by task id.
#[derive(Clone, Default)]
pub(crate) struct Machine {
    containers: Arc<Mutex<BTreeMap<String, Container>>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Machine {
    pub(crate) fn containers(&self) -> BTreeMap<String, Container> {
        self.lock().clone()
    }

    pub(crate) fn running(&self) -> Vec<(String, Container)> {
        let all = self.containers();
        all.into_iter().filter(|(_, c)| c.running).collect()
    }

    /// A process ends by itself.
    pub(crate) fn crash(&self, task: &str, code: i32) {
        self.change(task, |container| {
            container.running = false;
            container.exit = Some(code);
        });
    }

    fn change(&self, task: &str, f: impl FnOnce(&mut Container)) {
        if let Some(container) = self.lock().get_mut(task) {
            f(container);
        }
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        self.containers.lock().unwrap()
    }
}

#[async_trait]
impl Executor for Machine {
    async fn describe(&self) -> NodeDescription {
        NodeDescription {
            hostname: "machine".to_owned(),
            platform: Some(Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() }),
            resources: Some(Resources {
                nano_cpus: 4_000_000_000,
                memory_bytes: 8 << 30,
                generic: Vec::new(),
            }),
            engine: Some(EngineDescription {
                engine_version: "test".to_owned(),
                plugins: ["bridge", "host", "null"]
                    .map(|name| PluginDescription {
                        r#type: "Network".to_owned(),
                        name: name.to_owned(),
                    })
                    .to_vec(),
                ..EngineDescription::default()
            }),
            ..NodeDescription::default()
        }
    }

    async fn configure(&self, _: &Node) {}

    async fn retain(&self, tasks: &[String]) {
        self.lock().retain(|id, _| tasks.contains(id));
    }

    async fn discard(&self, task: &str) {
        self.lock().remove(task);
    }

    async fn controller(
        &self,
        task: &Task,
        dependencies: Arc<dyn Dependencies>,
    ) -> Result<Arc<dyn Controller>, TaskError> {
        Ok(Arc::new(FakeController { machine: self.clone(), task: task.clone(), dependencies }))
    }
}

struct FakeController {
    machine: Machine,
    task: Task,
    dependencies: Arc<dyn Dependencies>,
}

impl FakeController {
    fn spec(&self) -> &ContainerSpec {
        match self.task.spec.as_ref().unwrap().runtime.as_ref().unwrap() {
            task_spec::Runtime::Container(container) => container,
            _ => panic!("not a container"),
        }
    }
}

#[async_trait]
impl Controller for FakeController {
    async fn update(&self, _: &Task) -> Result<(), TaskError> {
        Ok(())
    }

    async fn prepare(&self) -> Result<(), TaskError> {
        let spec = self.spec();
        if spec.image.starts_with("missing") {
            return Err(TaskError::fatal(format!("No such image: {}", spec.image)));
        }
        let ports = self.task.endpoint.iter().flat_map(|e| &e.ports);
        let mut container = Container {
            image: spec.image.clone(),
            published: ports.map(|port| port.published_port).collect(),
            registry_auth: spec
                .pull_options
                .as_ref()
                .map(|options| options.registry_auth.clone())
                .unwrap_or_default(),
            ..Container::default()
        };
        for reference in &spec.secrets {
            let secret = self.dependencies.secret(&reference.secret_id).ok_or_else(|| {
                TaskError::fatal(format!(
                    "unable to get secret from secret store: secret {} not found",
                    reference.secret_id
                ))
            })?;
            let Some(secret_reference::Target::File(file)) = &reference.target else {
                panic!("no target");
            };
            let data = secret.spec.as_ref().unwrap().data.clone();
            container.secrets.push((file.name.clone(), data));
        }
        self.machine.lock().entry(self.task.id.clone()).or_insert(container);
        Ok(())
    }

    async fn start(&self) -> Result<(), TaskError> {
        self.machine.change(&self.task.id, |container| {
            if !container.running {
                container.running = true;
                container.starts += 1;
            }
        });
        if self.spec().image.starts_with("crash") {
            self.machine.crash(&self.task.id, 1);
        }
        Ok(())
    }

    async fn wait(&self) -> Result<ExitStatus, TaskError> {
        let mut changed = self.machine.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let exit = match self.machine.lock().get(&self.task.id) {
                None => return Err(TaskError::fatal("no such container")),
                Some(container) => container.exit,
            };
            if let Some(code) = exit {
                return Ok(ExitStatus { code, cause: None });
            }
            changed.changed().await.unwrap();
        }
    }

    async fn shutdown(&self) -> Result<(), TaskError> {
        self.machine.crash(&self.task.id, 0);
        Ok(())
    }

    async fn terminate(&self) -> Result<(), TaskError> {
        self.shutdown().await
    }

    async fn remove(&self) -> Result<(), TaskError> {
        self.machine.lock().remove(&self.task.id);
        self.machine.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn container_status(&self) -> Option<ContainerStatus> {
        let containers = self.machine.lock();
        let container = containers.get(&self.task.id)?;
        Some(ContainerStatus {
            container_id: format!("c-{}", self.task.id),
            pid: i32::from(container.running) * 42,
            exit_code: container.exit.unwrap_or(0),
        })
    }

    async fn port_status(&self) -> Option<PortStatus> {
        None
    }

    async fn logs(
        &self,
        options: &LogSubscriptionOptions,
    ) -> Result<BoxStream<'static, LogMessage>, TaskError> {
        let line = |text: String| LogMessage {
            stream: LogStream::Stdout as i32,
            data: text.into_bytes(),
            ..LogMessage::default()
        };
        let lines = vec![line(format!("hello from {}\n", self.task.slot))];
        let lines = futures_util::stream::iter(lines);
        if options.follow {
            return Ok(lines.chain(futures_util::stream::pending()).boxed());
        }
        Ok(lines.boxed())
    }
}

pub(crate) async fn open(dir: &Path, machine: &Machine) -> Swarm {
    Swarm::open(SwarmConfig {
        state_dir: dir.join("swarm"),
        executor: Arc::new(machine.clone()),
        store: Default::default(),
    })
    .await
    .unwrap()
}

pub(crate) fn on_loopback() -> InitRequest {
    InitRequest { listen_addr: "127.0.0.1:0".to_owned(), ..InitRequest::default() }
}

pub(crate) async fn new_swarm(dir: &Path, machine: &Machine) -> (Swarm, Control) {
    let swarm = open(dir, machine).await;
    swarm.init(on_loopback()).await.unwrap();
    let control = swarm.control().unwrap();
    (swarm, control)
}

pub(crate) fn annotations(name: &str) -> Option<Annotations> {
    Some(Annotations { name: name.to_owned(), ..Annotations::default() })
}

pub(crate) fn service(name: &str, image: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        annotations: annotations(name),
        task: Some(TaskSpec {
            runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                image: image.to_owned(),
                ..ContainerSpec::default()
            })),
            restart: Some(RestartPolicy {
                condition: restart_policy::RestartCondition::Any as i32,
                delay: Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 }),
                ..RestartPolicy::default()
            }),
            ..TaskSpec::default()
        }),
        mode: Some(service_spec::Mode::Replicated(ReplicatedService { replicas })),
        ..ServiceSpec::default()
    }
}

pub(crate) fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
    match spec.task.as_mut().unwrap().runtime.as_mut().unwrap() {
        task_spec::Runtime::Container(container) => container,
        _ => panic!("not a container"),
    }
}

pub(crate) fn with_auth(spec: &mut ServiceSpec, auth: &str) {
    container(spec).pull_options =
        Some(container_spec::PullOptions { registry_auth: auth.to_owned() });
}

pub(crate) fn secret(name: &str, data: &[u8]) -> SecretSpec {
    let mut spec = SecretSpec::default();
    spec.annotations = annotations(name);
    spec.data = data.to_vec();
    spec
}

pub(crate) fn grant(spec: &mut ServiceSpec, secret: &Secret) {
    let name = secret.spec.as_ref().unwrap().annotations.as_ref().unwrap().name.clone();
    container(spec).secrets.push(SecretReference {
        secret_id: secret.id.clone(),
        target: Some(secret_reference::Target::File(FileTarget {
            name: name.clone(),
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: 0o444,
        })),
        secret_name: name,
    });
}

pub(crate) fn state(task: &Task) -> TaskState {
    TaskState::try_from(task.status.as_ref().unwrap().state).unwrap()
}

/// The tasks of a service that run.
pub(crate) fn running_tasks(control: &Control, service: &str) -> Vec<Arc<Task>> {
    let mut tasks = control.tasks_of_service(service);
    tasks.retain(|task| {
        state(task) == TaskState::Running && task.desired_state == TaskState::Running as i32
    });
    tasks
}

/// The present version of a service.
pub(crate) fn version(service: &Service) -> u64 {
    service.meta.as_ref().unwrap().version.as_ref().unwrap().index
}

/// Waits until something is so; fails after ten seconds with what was found last.
pub(crate) async fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let found = look();
        if is_so(&found) {
            return found;
        }
        assert!(Instant::now() < give_up, "never: {what}; last: {found:#?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
