//! The assignments stream: everything a node is to run, then every change of it.
//!
//! The set of what an agent has is a plain value that turns tasks into messages; the stream around
//! it only waits for the store. The first message is made from the loaded state, so an agent
//! is never told to forget what it has just because a manager was started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brig_proto::swarm::{
    Assignment, AssignmentChange, AssignmentsMessage, Config, ConfigSpec, Secret, SecretSpec, Task,
    TaskState, assignment::Item, assignment_change::AssignmentAction, assignments_message::Type,
};
use brig_store::{Change, Object, State};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Inner, STREAM_BUFFER, session};
use crate::manager::changes::{self, Wake};
use crate::task;
use crate::validate::outgoing;

/// Most changes in one message.
const MAX_CHANGES: usize = 100;

/// Starts the stream of a node.
pub(crate) fn stream(
    inner: &Arc<Inner>,
    node: String,
    end: CancellationToken,
) -> mpsc::Receiver<Result<AssignmentsMessage, Status>> {
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    let inner = Arc::clone(inner);
    let tracker = inner.tracker.clone();
    tracker.spawn(async move {
        let reason = tokio::select! {
            reason = session::ended(end) => reason,
            () = sender.closed() => return,
            reason = inner.assign(&node, &sender) => reason,
        };
        // The agent may be gone already.
        let _ = sender.send(Err(reason)).await;
    });
    receiver
}

impl Inner {
    async fn assign(
        &self,
        node: &str,
        sender: &mpsc::Sender<Result<AssignmentsMessage, Status>>,
    ) -> Status {
        let mut sequence = Sequence::default();
        let (mut set, mut watcher) = self.store.view_and_watch_node(node, |view| {
            let mut set = AssignmentSet::default();
            for task in view.tasks_by_node(node) {
                set.task_changed(task, view);
            }
            set
        });
        let mut kind = Type::Complete;
        loop {
            for (task, problem) in set.take_rejected() {
                tracing::error!(task, problem, "a task was withheld from its node");
                if let Err(error) = self.reject(&task, &problem).await {
                    return super::status::store_failed(&error);
                }
            }
            for message in sequence.messages(kind, set.take_changes()) {
                if sender.send(Ok(message)).await.is_err() {
                    return Status::cancelled("the agent closed its stream");
                }
            }
            kind = Type::Incremental;
            match changes::wait(&mut watcher, None).await {
                Wake::Changes(commits) => {
                    let view = self.store.view();
                    for change in changes::of(&commits) {
                        set.note(change, node, &view);
                    }
                }
                Wake::Time => {}
                // Starting over would be a COMPLETE in the middle of a stream; a new stream is.
                Wake::Missed => return Status::aborted("assignments were missed"),
                Wake::Closed => return Status::aborted("dispatcher is stopped"),
            }
        }
    }
}

/// The versions that chain the messages of a stream.
#[derive(Debug, Default)]
struct Sequence(u64);

impl Sequence {
    fn messages(
        &mut self,
        kind: Type,
        mut changes: Vec<AssignmentChange>,
    ) -> Vec<AssignmentsMessage> {
        let mut messages = Vec::new();
        // What must be there at once cannot be split.
        let first = match kind {
            Type::Complete => changes.len(),
            Type::Incremental => MAX_CHANGES,
        };
        let mut limit = first;
        while !changes.is_empty() || (kind == Type::Complete && messages.is_empty()) {
            let rest = changes.split_off(changes.len().min(limit));
            limit = MAX_CHANGES;
            let applies_to = match self.0 {
                0 => String::new(),
                version => version.to_string(),
            };
            self.0 += 1;
            messages.push(AssignmentsMessage {
                r#type: kind as i32,
                applies_to,
                results_in: self.0.to_string(),
                changes,
            });
            changes = rest;
        }
        messages
    }
}

/// What an agent has been given.
#[derive(Debug, Default)]
pub(crate) struct AssignmentSet {
    tasks: BTreeMap<String, Arc<Task>>,
    secrets: BTreeMap<String, BTreeSet<String>>,
    configs: BTreeMap<String, BTreeSet<String>>,
    changes: Vec<AssignmentChange>,
    rejected: Vec<(String, String)>,
}

impl AssignmentSet {
    /// Takes a change of the store in.
    fn note(&mut self, change: &Change, node: &str, state: &State) {
        match (change, change.object()) {
            (Change::Removed(_), Object::Task(task)) => self.task_removed(&task.id),
            (_, Object::Task(task)) if task.node_id == node => self.task_changed(task, state),
            (_, Object::Task(_) | Object::Node(_) | Object::Service(_) | Object::Secret(_))
            | (
                _,
                Object::Config(_)
                | Object::Network(_)
                | Object::Cluster(_)
                | Object::Access(_)
                | Object::ScanDatabase(_)
                | Object::Policy(_)
                | Object::Trust(_)
                | Object::TrustMetadata(_),
            ) => {}
        }
    }

    /// Takes a task's present form in.
    pub(crate) fn task_changed(&mut self, task: &Arc<Task>, state: &State) {
        if task::observed(task) < TaskState::Assigned {
            return;
        }
        let ended = task::is_finished(task);
        let before = self.tasks.get(&task.id);
        let known = before.is_some();
        let news = before.is_none_or(|before| stable(before) != stable(task));
        if !ended && !known {
            if let Err(problem) = outgoing::task(task) {
                self.rejected.push((task.id.clone(), problem));
                return;
            }
            self.grant(task, state);
        }
        if ended {
            self.withdraw(&task.id);
        }
        // An agent need not hear of a finished task that it was never given, except that it may
        // still have its container.
        self.tasks.insert(task.id.clone(), Arc::clone(task));
        if news && (!ended || outgoing::task(task).is_ok()) {
            self.push(Item::Task((**task).clone()), AssignmentAction::Update);
        }
    }

    fn task_removed(&mut self, id: &str) {
        if self.tasks.remove(id).is_none() {
            return;
        }
        let only_id = Task { id: id.to_owned(), ..Task::default() };
        self.push(Item::Task(only_id), AssignmentAction::Remove);
        self.withdraw(id);
    }

    /// Sends what the task may see.
    fn grant(&mut self, task: &Task, state: &State) {
        let Some(spec) = task.spec.as_ref() else {
            return;
        };
        for id in task::secret_ids(spec) {
            let users = self.secrets.entry(id.to_owned()).or_default();
            let first = users.is_empty();
            users.insert(task.id.clone());
            let removal = |item: &Item| matches!(item, Item::Secret(secret) if secret.id == id);
            if first
                && !take_back(&mut self.changes, AssignmentAction::Remove, removal)
                && let Some(secret) = state.get::<Secret>(id)
            {
                self.changes
                    .push(change(Item::Secret((*secret).clone()), AssignmentAction::Update));
            }
        }
        for id in task::config_ids(spec) {
            let users = self.configs.entry(id.to_owned()).or_default();
            let first = users.is_empty();
            users.insert(task.id.clone());
            let removal = |item: &Item| matches!(item, Item::Config(config) if config.id == id);
            if first
                && !take_back(&mut self.changes, AssignmentAction::Remove, removal)
                && let Some(config) = state.get::<Config>(id)
            {
                self.changes
                    .push(change(Item::Config((*config).clone()), AssignmentAction::Update));
            }
        }
    }

    /// Takes back what only this task could see.
    fn withdraw(&mut self, task: &str) {
        for id in take_unused(&mut self.secrets, task) {
            let sent = |item: &Item| matches!(item, Item::Secret(secret) if secret.id == id);
            take_back(&mut self.changes, AssignmentAction::Update, sent);
            let only_id = Secret { id, spec: Some(SecretSpec::default()), ..Secret::default() };
            self.push(Item::Secret(only_id), AssignmentAction::Remove);
        }
        for id in take_unused(&mut self.configs, task) {
            let sent = |item: &Item| matches!(item, Item::Config(config) if config.id == id);
            take_back(&mut self.changes, AssignmentAction::Update, sent);
            let only_id = Config { id, spec: Some(ConfigSpec::default()), ..Config::default() };
            self.push(Item::Config(only_id), AssignmentAction::Remove);
        }
    }

    fn push(&mut self, item: Item, action: AssignmentAction) {
        self.changes.push(change(item, action));
    }

    /// What is to be sent.
    pub(crate) fn take_changes(&mut self) -> Vec<AssignmentChange> {
        std::mem::take(&mut self.changes)
    }

    /// Tasks that must not be sent, with the reason.
    fn take_rejected(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.rejected)
    }
}

fn change(item: Item, action: AssignmentAction) -> AssignmentChange {
    AssignmentChange { assignment: Some(Assignment { item: Some(item) }), action: action as i32 }
}

/// Takes an unsent change back; answers whether there was one. Agents do not keep to the order of
/// changes within a message, so one message must not say two things about one object.
fn take_back(
    changes: &mut Vec<AssignmentChange>,
    action: AssignmentAction,
    is_it: impl Fn(&Item) -> bool,
) -> bool {
    let before = changes.len();
    changes.retain(|change| {
        let item = change.assignment.as_ref().and_then(|a| a.item.as_ref());
        change.action() != action || !item.is_some_and(&is_it)
    });
    changes.len() < before
}

fn take_unused(users: &mut BTreeMap<String, BTreeSet<String>>, task: &str) -> Vec<String> {
    let mut unused = Vec::new();
    users.retain(|id, tasks| {
        let used = tasks.remove(task);
        if used && tasks.is_empty() {
            unused.push(id.clone());
        }
        !tasks.is_empty()
    });
    unused
}

/// What of a task an agent has to hear about: not what the agent itself reported.
fn stable(task: &Task) -> Task {
    Task { meta: None, status: None, ..task.clone() }
}

#[cfg(test)]
#[path = "assignments_tests.rs"]
mod tests;
