//! What an orchestrator decides for one service, and what it decides from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{
    Annotations, Driver, Endpoint, Node, Service, ServiceSpec, Task, TaskSpec, TaskState,
    TaskStatus, UpdateStatus, Version, node_spec, node_status,
};

use super::restart::{self, History};
use super::update::Progress;
use crate::manager::scheduler::constraint;
use crate::task::{self, Slot};
use crate::wire_time;

/// One change of a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// A new task.
    Create(Box<Task>),
    /// A task shall go on to this state; never lowered.
    Want(String, TaskState),
}

/// A change of the service itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServiceChange {
    /// The update went on to another state.
    Status(UpdateStatus),
    /// The previous spec comes back, with this status.
    RollBack(UpdateStatus),
}

/// Everything that one look at a service led to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Changes of tasks, in order.
    pub(crate) ops: Vec<Op>,
    /// A change of the service.
    pub(crate) service: Option<ServiceChange>,
    /// When to look again although nothing happened.
    pub(crate) wake: Option<SystemTime>,
}

impl Plan {
    /// Asks to be looked at again at `at`, or earlier.
    pub(crate) fn wake_at(&mut self, at: SystemTime) {
        self.wake = Some(self.wake.map_or(at, |before| before.min(at)));
    }

    /// Whether this plan moves a task on to `state` or further.
    pub(crate) fn moves(&self, id: &str, state: TaskState) -> bool {
        self.ops
            .iter()
            .any(|op| matches!(op, Op::Want(task, wanted) if task == id && *wanted >= state))
    }
}

/// What a decision is made from.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// The service.
    pub(crate) service: &'a Service,
    /// All its tasks.
    pub(crate) tasks: &'a [Arc<Task>],
    /// All nodes by id.
    pub(crate) nodes: &'a BTreeMap<String, Arc<Node>>,
    /// The log driver of tasks that name none.
    pub(crate) default_log_driver: Option<&'a Driver>,
    /// The time.
    pub(crate) now: SystemTime,
}

impl Situation<'_> {
    /// Whether a task is what the service asks for.
    pub(crate) fn is_up_to_date(&self, task: &Task) -> bool {
        let node = self.nodes.get(&task.node_id);
        task::is_up_to_date(self.service, task, node.map(AsRef::as_ref))
    }
}

/// What an orchestrator remembers of a service between two looks. All of it can be lost.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The restarts so far.
    pub(crate) history: History,
    /// When tasks that wait in `READY` may start.
    pub(crate) start_at: BTreeMap<String, SystemTime>,
    /// The rolling update under way.
    pub(crate) update: Progress,
}

/// A new task of a service.
pub(crate) fn new_task(situation: &Situation<'_>, slot: &Slot, desired: TaskState) -> Task {
    let service = situation.service;
    let spec: TaskSpec = task::template(service).cloned().unwrap_or_default();
    let service_spec: Option<&ServiceSpec> = service.spec.as_ref();
    let (number, node_id) = match slot {
        Slot::Replica(number) => (*number, String::new()),
        Slot::Node(node) => (0, node.clone()),
    };
    Task {
        id: brig_types::id::random_swarm_id(),
        service_id: service.id.clone(),
        slot: number,
        node_id,
        annotations: Some(Annotations::default()),
        service_annotations: service_spec.and_then(|spec| spec.annotations.clone()),
        status: Some(TaskStatus {
            state: TaskState::New as i32,
            timestamp: Some(wire_time::timestamp(situation.now)),
            message: "created".to_owned(),
            ..TaskStatus::default()
        }),
        desired_state: desired as i32,
        endpoint: Some(Endpoint {
            spec: service_spec.and_then(|spec| spec.endpoint.clone()),
            ..Endpoint::default()
        }),
        log_driver: spec.log_driver.as_ref().or(situation.default_log_driver).cloned(),
        spec_version: service.spec_version,
        spec: Some(spec),
        ..Task::default()
    }
}

/// Whether a task can stay where it is: its node is there, up, not drained, and still meets the
/// constraints. A task without a node is fine.
pub(crate) fn node_is_usable(task: &Task, nodes: &BTreeMap<String, Arc<Node>>) -> bool {
    if task.node_id.is_empty() {
        return true;
    }
    let Some(node) = nodes.get(&task.node_id) else {
        return false;
    };
    !is_down(node) && availability(node) != node_spec::Availability::Drain && {
        let placement = task.spec.as_ref().and_then(|spec| spec.placement.as_ref());
        placement.is_none_or(|placement| constraint::all_match(&placement.constraints, node))
    }
}

/// Whether a node's sessions are gone for good.
pub(crate) fn is_down(node: &Node) -> bool {
    node.status.as_ref().is_some_and(|status| status.state == node_status::State::Down as i32)
}

/// What the operator said about a node.
pub(crate) fn availability(node: &Node) -> node_spec::Availability {
    node.spec.as_ref().map_or(node_spec::Availability::Active, |spec| {
        node_spec::Availability::try_from(spec.availability)
            .unwrap_or(node_spec::Availability::Active)
    })
}

/// Ends tasks that finished, or whose node cannot keep them, and makes their successors.
pub(crate) fn restart_finished(situation: &Situation<'_>, memory: &mut Memory, plan: &mut Plan) {
    let now = situation.now;
    for task in situation.tasks.iter().filter(|task| task::is_wanted(task)) {
        let finished = task::is_finished(task);
        if !finished && node_is_usable(task, situation.nodes) {
            continue;
        }
        // What cannot be prepared while it waits is not tried over and over meanwhile.
        if finished
            && task::desired(task) == TaskState::Ready
            && let Some(due) = memory.start_at.get(&task.id).filter(|due| **due > now)
        {
            plan.wake_at(*due);
            continue;
        }
        plan.ops.push(Op::Want(task.id.clone(), TaskState::Shutdown));
        let node = situation.nodes.get(&task.node_id);
        let slot = Slot::of(task);
        if matches!(slot, Slot::Node(_)) && !node_is_usable(task, situation.nodes) {
            continue;
        }
        // A waiting sibling takes over by itself.
        let has_sibling = situation.tasks.iter().any(|other| {
            other.id != task.id
                && Slot::of(other) == slot
                && task::is_wanted(other)
                && !task::is_finished(other)
        });
        if has_sibling || !memory.history.allows(task, now) {
            continue;
        }
        memory.history.record(task, now);
        let drained = node.is_some_and(|node| availability(node) == node_spec::Availability::Drain);
        let delay =
            if drained || !finished { std::time::Duration::ZERO } else { restart::delay(task) };
        let node_gone = node.is_none_or(|node| is_down(node));
        let start_now = delay.is_zero() && (finished || node_gone || task.node_id.is_empty());
        let desired = if start_now { TaskState::Running } else { TaskState::Ready };
        let successor = new_task(situation, &slot, desired);
        if !start_now {
            memory.start_at.insert(successor.id.clone(), now + delay);
            plan.wake_at(now + delay);
        }
        plan.ops.push(Op::Create(Box::new(successor)));
    }
}

/// Starts tasks that were created to wait, once their time has come and their predecessors have
/// stopped.
pub(crate) fn start_waiting(situation: &Situation<'_>, memory: &mut Memory, plan: &mut Plan) {
    let now = situation.now;
    for task in situation.tasks {
        if task::desired(task) != TaskState::Ready
            || task::is_finished(task)
            || plan.moves(&task.id, TaskState::Ready)
        {
            continue;
        }
        let created =
            wire_time::instant(task.meta.as_ref().and_then(|meta| meta.created_at.as_ref()));
        let due = memory
            .start_at
            .get(&task.id)
            .copied()
            .unwrap_or_else(|| created + restart::delay(task));
        if due > now {
            plan.wake_at(due);
            continue;
        }
        let slot = Slot::of(task);
        let predecessor_runs = situation.tasks.iter().any(|other| {
            other.id != task.id
                && Slot::of(other) == slot
                && is_running_somewhere(other, situation.nodes)
        });
        let patience_ends = created + restart::OLD_TASK_TIMEOUT;
        if predecessor_runs && now < patience_ends {
            plan.wake_at(patience_ends);
            continue;
        }
        memory.start_at.remove(&task.id);
        plan.ops.push(Op::Want(task.id.clone(), TaskState::Running));
    }
    memory.start_at.retain(|id, _| {
        situation.tasks.iter().any(|task| task.id == *id) || plan_creates(plan, id)
    });
}

fn plan_creates(plan: &Plan, id: &str) -> bool {
    plan.ops.iter().any(|op| matches!(op, Op::Create(task) if task.id == id))
}

/// Whether a task may have a process on a node that is up.
fn is_running_somewhere(task: &Task, nodes: &BTreeMap<String, Arc<Node>>) -> bool {
    let state = task::observed(task);
    (TaskState::Assigned..=TaskState::Running).contains(&state)
        && nodes.get(&task.node_id).is_some_and(|node| !is_down(node))
}

/// The version of a service's spec.
pub(crate) fn spec_version(service: &Service) -> u64 {
    service.spec_version.as_ref().map_or(0, |Version { index }| *index)
}

/// A service's tasks by slot, for slots that are taken: one that has a wanted task, or whose
/// newest task ended and is not to be restarted.
pub(crate) fn occupied_slots<'a>(
    situation: &Situation<'a>,
    memory: &Memory,
) -> BTreeMap<Slot, Vec<&'a Arc<Task>>> {
    let mut slots: BTreeMap<Slot, Vec<&'a Arc<Task>>> = BTreeMap::new();
    for task in situation.tasks {
        if task::desired(task) < TaskState::Remove {
            slots.entry(Slot::of(task)).or_default().push(task);
        }
    }
    slots.retain(|_, tasks| {
        if tasks.iter().any(|task| task::is_wanted(task)) {
            return true;
        }
        tasks
            .iter()
            .max_by_key(|task| {
                wire_time::instant(task.meta.as_ref().and_then(|meta| meta.created_at.as_ref()))
            })
            .is_some_and(|newest| {
                task::is_finished(newest)
                    && task::observed(newest) != TaskState::Shutdown
                    && !memory.history.allows(newest, situation.now)
            })
    });
    slots
}
