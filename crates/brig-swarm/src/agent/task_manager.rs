//! One task on this node: a loop that asks the step table what to do, does it through the
//! controller, remembers the outcome and reports it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_proto::swarm::{Task, TaskState, TaskStatus, task_status};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::dependencies::DependencyStore;
use super::reporter::Reporter;
use super::step::{self, Step};
use crate::executor::{Controller, Executor, ExitStatus, TaskError};
use crate::task;
use crate::wire_time;

/// How long to wait before a step with a temporary error is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often a failed removal is tried again before it is left to the next start of the daemon.
const REMOVE_ATTEMPTS: u32 = 5;

/// What the worker wants of a task.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Bring it to its desired state.
    Run(Arc<Task>),
    /// Stop it, remove its container, forget it.
    Remove,
}

/// Where a task's controller can be found by those who read its logs.
#[derive(Clone)]
pub(crate) struct ControllerSlot(pub(crate) watch::Sender<Option<Arc<dyn Controller>>>);

impl ControllerSlot {
    fn set(&self, controller: Arc<dyn Controller>) {
        self.0.send_replace(Some(controller));
    }
}

/// What all tasks of the node share.
pub(crate) struct Context {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) store: Arc<DependencyStore>,
    pub(crate) database: Database,
    pub(crate) reporter: Arc<Reporter>,
}

/// What a step came to.
enum Outcome {
    Done,
    Exited(ExitStatus),
    Failed(TaskError),
    /// The order changed before the step ended.
    Interrupted,
}

/// Runs a task until it is removed or the daemon stops. A stopping daemon leaves the container
/// alone.
pub(crate) async fn run(
    context: Arc<Context>,
    mut orders: watch::Receiver<Order>,
    status: TaskStatus,
    controllers: ControllerSlot,
    stop: CancellationToken,
) {
    let Order::Run(task) = orders.borrow_and_update().clone() else {
        return;
    };
    let mut manager =
        TaskManager { id: task.id.clone(), task, status, controller: None, controllers, context };
    tokio::select! {
        () = stop.cancelled() => {}
        () = manager.run(&mut orders) => {}
    }
}

struct TaskManager {
    id: String,
    task: Arc<Task>,
    status: TaskStatus,
    controller: Option<Arc<dyn Controller>>,
    controllers: ControllerSlot,
    context: Arc<Context>,
}

impl TaskManager {
    async fn run(&mut self, orders: &mut watch::Receiver<Order>) {
        // A task from before a restart has a container, whose logs can be read at once.
        if self.observed() > TaskState::Preparing
            && let Err(error) = self.controller().await
        {
            tracing::debug!(task = self.id, error = %error, "no controller for an old task");
        }
        loop {
            let order = orders.borrow_and_update().clone();
            match order {
                Order::Remove => return self.remove().await,
                Order::Run(task) => self.adopt(task).await,
            }
            let step = step::next(task::desired(&self.task), self.observed());
            if step == Step::Pause {
                if orders.changed().await.is_err() {
                    return;
                }
                continue;
            }
            if let Step::Advance(state, message) = step {
                self.advance(state, message).await;
                continue;
            }
            match self.perform(step, orders).await {
                Outcome::Interrupted => {}
                Outcome::Done => {
                    let (state, message) = match step {
                        Step::Prepare => (TaskState::Ready, "prepared"),
                        Step::Start => (TaskState::Running, "started"),
                        Step::Shutdown => (TaskState::Shutdown, "shutdown"),
                        Step::Wait => (TaskState::Complete, "finished"),
                        Step::Pause | Step::Advance(..) => continue,
                    };
                    self.advance(state, message).await;
                }
                Outcome::Exited(exit) => self.exited(&exit).await,
                Outcome::Failed(error) if error.temporary || step == Step::Shutdown => {
                    self.status.err.clone_from(&error.message);
                    self.publish().await;
                    tokio::select! {
                        () = tokio::time::sleep(RETRY_DELAY) => {}
                        _ = orders.changed() => orders.mark_changed(),
                    }
                }
                Outcome::Failed(error) => {
                    let state = step::after_error(self.observed());
                    self.status.err = error.message;
                    let message = match step {
                        Step::Prepare => "preparing",
                        Step::Start => "starting",
                        Step::Wait => "started",
                        Step::Shutdown | Step::Pause | Step::Advance(..) => "shutdown",
                    };
                    self.advance(state, message).await;
                }
            }
        }
    }

    fn observed(&self) -> TaskState {
        TaskState::try_from(self.status.state).unwrap_or(TaskState::New)
    }

    /// Takes over a newer form of the task; what is wanted never goes back.
    async fn adopt(&mut self, task: Arc<Task>) {
        if Arc::ptr_eq(&task, &self.task) {
            return;
        }
        if task.desired_state < self.task.desired_state {
            tracing::error!(task = self.id, "ignored an order to go back to an earlier state");
            return;
        }
        self.task = task;
        self.remember().await;
        if let Some(controller) = &self.controller
            && let Err(error) = controller.update(&self.task).await
        {
            tracing::warn!(task = self.id, error = %error, "the task could not be updated");
        }
    }

    async fn controller(&mut self) -> Result<Arc<dyn Controller>, TaskError> {
        if let Some(controller) = &self.controller {
            return Ok(Arc::clone(controller));
        }
        let granted = Arc::new(DependencyStore::granted(&self.context.store, &self.task));
        let controller = self.context.executor.controller(&self.task, granted).await?;
        self.controller = Some(Arc::clone(&controller));
        self.controllers.set(Arc::clone(&controller));
        Ok(controller)
    }

    /// Does a step; an order that makes it pointless interrupts it.
    async fn perform(&mut self, step: Step, orders: &mut watch::Receiver<Order>) -> Outcome {
        let controller = match self.controller().await {
            Ok(controller) => controller,
            // What cannot be controlled has nothing to stop.
            Err(_) if step == Step::Shutdown => return Outcome::Done,
            Err(error) => return Outcome::Failed(error),
        };
        let work = async {
            match step {
                Step::Prepare => controller.prepare().await.map(|()| None),
                Step::Start => controller.start().await.map(|()| None),
                Step::Wait => controller.wait().await.map(Some),
                Step::Shutdown => stop(controller.as_ref()).await.map(|()| None),
                Step::Pause | Step::Advance(..) => Ok(None),
            }
        };
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return match result {
                    Ok(None) => Outcome::Done,
                    Ok(Some(exit)) => Outcome::Exited(exit),
                    Err(error) => Outcome::Failed(error),
                },
                changed = orders.changed() => {
                    let stops = match &*orders.borrow() {
                        Order::Remove => true,
                        Order::Run(task) => task::desired(task) >= TaskState::Shutdown,
                    };
                    if changed.is_err() || (stops && step != Step::Shutdown) {
                        orders.mark_changed();
                        return Outcome::Interrupted;
                    }
                    if !stops {
                        let order = orders.borrow().clone();
                        if let Order::Run(task) = order
                            && task.desired_state >= self.task.desired_state
                        {
                            self.task = task;
                            if let Err(error) = controller.update(&self.task).await {
                                tracing::warn!(task = self.id, error = %error, "the task could not be updated");
                            }
                        }
                    }
                }
            }
        }
    }

    async fn exited(&mut self, exit: &ExitStatus) {
        if exit.code == 0 && exit.cause.is_none() {
            self.advance(TaskState::Complete, "finished").await;
            return;
        }
        self.status.err = match &exit.cause {
            Some(cause) => format!("task: non-zero exit ({}): {cause}", exit.code),
            None => format!("task: non-zero exit ({})", exit.code),
        };
        self.advance(TaskState::Failed, "started").await;
    }

    async fn advance(&mut self, state: TaskState, message: &str) {
        self.status.state = state as i32;
        message.clone_into(&mut self.status.message);
        if state < TaskState::Failed {
            self.status.err.clear();
        }
        self.publish().await;
    }

    /// Remembers and reports the status as it is now.
    async fn publish(&mut self) {
        self.status.timestamp = Some(wire_time::timestamp(SystemTime::now()));
        self.status.applied_by.clear();
        self.status.applied_at = None;
        if self.observed() >= TaskState::Ready
            && let Some(controller) = &self.controller
        {
            if let Some(container) = controller.container_status().await {
                self.status.runtime_status = Some(task_status::RuntimeStatus::Container(container));
            }
            if self.observed() == TaskState::Running
                && let Some(ports) = controller.port_status().await
            {
                self.status.port_status = Some(ports);
            }
        }
        self.context.reporter.report(&self.id, self.status.clone());
        self.remember().await;
    }

    async fn remember(&self) {
        let database = self.context.database.clone();
        let task = Arc::clone(&self.task);
        let status = self.status.clone();
        let written = tokio::task::spawn_blocking(move || database.put(&task, &status)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(task = self.id, error = %error, "cannot remember the task's state");
        }
    }

    async fn remove(&mut self) {
        if let Ok(controller) = self.controller().await {
            for attempt in 1..=REMOVE_ATTEMPTS {
                let result = async {
                    if self.observed() < TaskState::Complete {
                        stop(controller.as_ref()).await?;
                    }
                    controller.remove().await
                };
                match result.await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(task = self.id, attempt, error = %error, "cannot remove the task's container");
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
        }
        self.context.reporter.forget(&self.id);
        let database = self.context.database.clone();
        let id = self.id.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || database.remove(&id)).await {
            tracing::error!(task = self.id, error = %error, "cannot forget the task");
        }
    }
}

async fn stop(controller: &dyn Controller) -> Result<(), TaskError> {
    match controller.shutdown().await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!(error = %error, "a task did not stop and is killed");
            controller.terminate().await
        }
    }
}
