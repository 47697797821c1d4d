//! The node's set of tasks: takes assignments apart and keeps one task manager for each task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_proto::swarm::{
    AssignmentsMessage, Task, TaskState, TaskStatus, assignment,
    assignment_change::AssignmentAction, assignments_message,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::database::Loaded;
use super::dependencies::News;
use super::task_manager::{self, Context, ControllerSlot, Order};
use crate::executor::Controller;

/// A task as those see it who read logs.
#[derive(Clone)]
pub(crate) struct LogSource {
    pub(crate) task: Arc<Task>,
    pub(crate) controller: watch::Receiver<Option<Arc<dyn Controller>>>,
}

/// All tasks of this node.
pub(crate) struct Worker {
    context: Arc<Context>,
    tasks: Mutex<BTreeMap<String, Handle>>,
    /// Tasks from before a restart that may need secrets: they go on with the first assignment.
    waiting: Mutex<BTreeMap<String, (Task, TaskStatus)>>,
    /// Tasks from before a restart of which only the id is left. A manager knows what they are.
    unreadable: Mutex<BTreeSet<String>>,
    changes: watch::Sender<u64>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

struct Handle {
    task: Arc<Task>,
    orders: watch::Sender<Order>,
    controller: watch::Receiver<Option<Arc<dyn Controller>>>,
}

impl Worker {
    /// A worker without tasks.
    pub(crate) fn new(context: Arc<Context>, stop: CancellationToken) -> Self {
        Self {
            context,
            tasks: Mutex::default(),
            waiting: Mutex::default(),
            unreadable: Mutex::default(),
            changes: watch::Sender::new(0),
            tracker: TaskTracker::new(),
            stop,
        }
    }

    /// Takes up the tasks of before the last stop: those that ran are watched again at once.
    pub(crate) async fn resume(&self) -> std::io::Result<()> {
        let database = self.context.database.clone();
        let Loaded { records, unreadable } = tokio::task::spawn_blocking(move || database.load())
            .await
            .map_err(std::io::Error::other)??;
        let readable = records.iter().map(|(task, _)| task.id.clone());
        let known: Vec<String> = readable.chain(unreadable.iter().cloned()).collect();
        self.context.executor.retain(&known).await;
        *self.unreadable_lock() = unreadable;
        for (task, status) in records {
            self.context.reporter.report(&task.id, status.clone());
            if status.state >= TaskState::Running as i32 {
                self.start(task, status);
            } else {
                self.waiting_lock().insert(task.id.clone(), (task, status));
            }
        }
        Ok(())
    }

    /// Applies what the manager assigned.
    pub(crate) fn apply(&self, message: AssignmentsMessage) {
        let complete = message.r#type() == assignments_message::Type::Complete;
        let mut news = News { complete, ..News::default() };
        let mut tasks = Vec::new();
        let mut listed = BTreeSet::new();
        for change in message.changes {
            let update = change.action() == AssignmentAction::Update;
            let Some(item) = change.assignment.and_then(|assignment| assignment.item) else {
                continue;
            };
            match item {
                assignment::Item::Secret(secret) => news.secret(secret, update),
                assignment::Item::Config(config) => news.config(config, update),
                assignment::Item::Task(task) => {
                    if update {
                        listed.insert(task.id.clone());
                    }
                    tasks.push((task, update));
                }
                // Cluster volumes are not offered in this node's description.
                assignment::Item::Volume(_) => {}
            }
        }
        self.context.store.apply(news);
        for (task, update) in tasks {
            if update {
                self.assign(task);
            } else {
                self.remove(&task.id);
            }
        }
        if complete {
            self.remove_unlisted(&listed);
        }
        self.tasks_lock().retain(|_, handle| !handle.orders.is_closed());
    }

    /// Tasks whose logs can be read now.
    pub(crate) fn log_sources(&self) -> Vec<LogSource> {
        self.tasks_lock()
            .values()
            .map(|handle| LogSource {
                task: Arc::clone(&handle.task),
                controller: handle.controller.clone(),
            })
            .collect()
    }

    /// Signals whenever a task was added.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until every task manager has ended after the stop was asked for.
    pub(crate) async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Stops and removes every task, for a node that leaves the cluster.
    pub(crate) async fn remove_all(&self) {
        self.remove_unlisted(&BTreeSet::new());
        self.stopped().await;
    }

    fn assign(&self, mut task: Task) {
        let assigned = task.status.take().unwrap_or_default();
        self.unreadable_lock().remove(&task.id);
        let remembered = self.waiting_lock().remove(&task.id);
        let status = match remembered {
            Some((_, status)) if status.state >= assigned.state => status,
            Some(_) | None => assigned,
        };
        let known = self.tasks_lock().contains_key(&task.id);
        if !known {
            self.start(task, status);
            return;
        }
        let task = Arc::new(task);
        let mut tasks = self.tasks_lock();
        let Some(handle) = tasks.get_mut(&task.id) else {
            return;
        };
        if without_meta(&handle.task) == without_meta(&task) {
            return;
        }
        handle.task = Arc::clone(&task);
        handle.orders.send_if_modified(|order| match order {
            Order::Remove => false,
            Order::Run(_) => {
                *order = Order::Run(task);
                true
            }
        });
    }

    fn start(&self, task: Task, status: TaskStatus) {
        let id = task.id.clone();
        let task = Arc::new(task);
        let (orders, receiver) = watch::channel(Order::Run(Arc::clone(&task)));
        let (slot, controller) = watch::channel(None);
        self.tracker.spawn(task_manager::run(
            Arc::clone(&self.context),
            receiver,
            status,
            ControllerSlot(slot),
            self.stop.clone(),
        ));
        self.tasks_lock().insert(id, Handle { task, orders, controller });
        self.changes.send_modify(|count| *count += 1);
    }

    fn remove(&self, id: &str) {
        let remembered = self.waiting_lock().remove(id);
        if let Some((mut task, status)) = remembered {
            // What was created for it has to go as well.
            task.desired_state = TaskState::Remove as i32;
            self.start(task, status);
        }
        if let Some(handle) = self.tasks_lock().get(id) {
            handle.orders.send_replace(Order::Remove);
        }
        if self.unreadable_lock().remove(id) {
            self.discard(id.to_owned());
        }
    }

    /// Removes what is left of a task that is known by its id alone.
    fn discard(&self, id: String) {
        let context = Arc::clone(&self.context);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let work = async {
                context.executor.discard(&id).await;
                let database = context.database.clone();
                let name = id.clone();
                let forgotten = tokio::task::spawn_blocking(move || database.remove(&name)).await;
                if let Ok(Err(error)) = forgotten {
                    tracing::error!(task = id, error = %error, "cannot forget the task");
                }
            };
            let _ = stop.run_until_cancelled(work).await;
        });
    }

    fn remove_unlisted(&self, listed: &BTreeSet<String>) {
        let mut gone: Vec<String> = self.tasks_lock().keys().cloned().collect();
        gone.extend(self.waiting_lock().keys().cloned());
        gone.extend(self.unreadable_lock().iter().cloned());
        for id in gone.iter().filter(|id| !listed.contains(*id)) {
            self.remove(id);
        }
    }

    fn tasks_lock(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting_lock(&self) -> MutexGuard<'_, BTreeMap<String, (Task, TaskStatus)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable_lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a task decides whether an assignment says anything new. The stored form has no
/// credentials, so the first assignment after a restart always counts as new.
fn without_meta(original: &Task) -> Task {
    Task { meta: None, status: None, ..original.clone() }
}

/// Whether a log selector means a task of this node.
pub(crate) fn selects(selector: &brig_proto::swarm::LogSelector, task: &Task) -> bool {
    selector.service_ids.contains(&task.service_id)
        || selector.task_ids.contains(&task.id)
        || selector.node_ids.contains(&task.node_id)
}
