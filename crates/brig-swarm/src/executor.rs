//! The port to whatever runs tasks: the daemon plugs its engine in here, tests a fake.

use std::sync::Arc;

use async_trait::async_trait;
use brig_proto::swarm::{
    Config, ContainerStatus, LogMessage, LogSubscriptionOptions, Node, NodeDescription, PortStatus,
    Secret, Task,
};
use futures_util::stream::BoxStream;

use crate::inventories::ImageInventories;

/// A step of a task that did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    /// What to tell the user; becomes the task's `Err`.
    pub message: String,
    /// Whether trying the same again can help.
    pub temporary: bool,
}

impl TaskError {
    /// An error that ends the task.
    #[must_use]
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { message: message.into(), temporary: false }
    }

    /// An error that is gone when the step is tried again in a second.
    #[must_use]
    pub fn temporary(message: impl Into<String>) -> Self {
        Self { message: message.into(), temporary: true }
    }
}

/// How a task's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code; 0 means the task is complete.
    pub code: i32,
    /// Why it ended, if there is more to say than the code.
    pub cause: Option<String>,
}

/// The secrets and configs that this node was given for its tasks. They are only in memory.
pub trait Dependencies: Send + Sync {
    /// A secret by id, with its data.
    fn secret(&self, id: &str) -> Option<Arc<Secret>>;
    /// A config by id, with its data.
    fn config(&self, id: &str) -> Option<Arc<Config>>;
}

/// Runs tasks on this node.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// What this node is: hostname, platform, resources, engine and its plugins. Asked again every
    /// 20 seconds; a change opens a new session.
    async fn describe(&self) -> NodeDescription;

    /// The manager's view of this node changed.
    async fn configure(&self, node: &Node);

    /// A controller for a task: a new one, or one that this node ran before the daemon was
    /// restarted. Makes nothing yet.
    ///
    /// # Errors
    /// [`TaskError`] when this node cannot run such a task; it is rejected with that text.
    async fn controller(
        &self,
        task: &Task,
        dependencies: Arc<dyn Dependencies>,
    ) -> Result<Arc<dyn Controller>, TaskError>;

    /// Called once after a start of the daemon, before any task is resumed, with the tasks that
    /// this node still has. Containers of other tasks are leftovers and may be removed.
    async fn retain(&self, task_ids: &[String]);

    /// Removes the container of a task of which this node knows nothing but the id. Fine when
    /// there is none.
    async fn discard(&self, task_id: &str);

    /// What is in the images of this node, where that is known.
    fn inventories(&self) -> Option<Arc<dyn ImageInventories>> {
        None
    }
}

/// Runs one task.
///
/// The agent calls one of `prepare`, `start`, `wait`, `shutdown`, `remove` at a time; the others may
/// be called beside it. Any of these futures may be dropped when the cluster changes its mind, and
/// the method called again, or another one: an implementation does what must not be cut in half
/// in a task of its own, and every method starts from what is really there.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// The task's spec or desired state changed.
    ///
    /// # Errors
    /// [`TaskError`]; logged, the task goes on.
    async fn update(&self, task: &Task) -> Result<(), TaskError>;

    /// Gets image, networks and volumes and creates the container. Does nothing when it is there.
    ///
    /// # Errors
    /// [`TaskError`]; the task is rejected.
    async fn prepare(&self) -> Result<(), TaskError>;

    /// Starts the container and waits until it is healthy. Returns at once when it runs already.
    ///
    /// # Errors
    /// [`TaskError`]; the task has failed.
    async fn start(&self) -> Result<(), TaskError>;

    /// Waits until the container ends.
    ///
    /// # Errors
    /// [`TaskError`]; the task has failed.
    async fn wait(&self) -> Result<ExitStatus, TaskError>;

    /// Stops the container with its stop signal and grace period. Fine when there is none.
    ///
    /// # Errors
    /// [`TaskError`]; the agent goes on with [`Controller::terminate`].
    async fn shutdown(&self) -> Result<(), TaskError>;

    /// Kills the container.
    ///
    /// # Errors
    /// [`TaskError`]; the task is left in its state and tried again.
    async fn terminate(&self) -> Result<(), TaskError>;

    /// Removes the container and everything made for it.
    ///
    /// # Errors
    /// [`TaskError`]; tried again later.
    async fn remove(&self) -> Result<(), TaskError>;

    /// Container id, process id and exit code; `None` when there is no container.
    async fn container_status(&self) -> Option<ContainerStatus>;

    /// The ports that are really bound; `None` when there is none.
    async fn port_status(&self) -> Option<PortStatus>;

    /// The task's log lines. The stream ends by itself unless `options.follow` is set; the caller
    /// fills in the context.
    ///
    /// # Errors
    /// [`TaskError`] when there is nothing to read.
    async fn logs(
        &self,
        options: &LogSubscriptionOptions,
    ) -> Result<BoxStream<'static, LogMessage>, TaskError>;
}
