//! Rolling updates: outdated tasks are replaced a few at a time, watched for a while, and the
//! update stops, goes on or is rolled back when too many of the new ones fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_proto::swarm::{
    Service, Task, TaskState, UpdateConfig, UpdateStatus, port_config,
    update_config::{FailureAction, UpdateOrder},
    update_status::UpdateState,
};

use super::plan::{self, Memory, Op, Plan, ServiceChange, Situation};
use crate::task::{self, Slot};
use crate::wire_time;

/// How long a new task is watched when the service doesn't say.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

/// A rolling update under way. After a restart of the manager it is found again from the tasks:
/// only the watching begins anew.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    version: u64,
    total: usize,
    in_flight: BTreeMap<Slot, InFlight>,
    watched: BTreeMap<String, Watched>,
    failures: usize,
}

#[derive(Debug)]
struct InFlight {
    task: String,
    done: Option<SystemTime>,
}

#[derive(Debug, Default)]
struct Watched {
    running_since: Option<SystemTime>,
    failed: bool,
}

/// How the service wants its tasks replaced.
struct Config {
    parallelism: usize,
    delay: Duration,
    monitor: Duration,
    action: FailureAction,
    max_failure_ratio: f32,
    order: UpdateOrder,
}

/// Moves the update of a service on by as much as can be done now.
pub(crate) fn step(
    situation: &Situation<'_>,
    memory: &mut Memory,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
    plan: &mut Plan,
) {
    let service = situation.service;
    let state = state(service);
    if matches!(state, UpdateState::Paused | UpdateState::RollbackPaused) {
        return;
    }
    let rolling_back = state == UpdateState::RollbackStarted;
    let config = config(service, rolling_back);
    let progress = &mut memory.update;
    if progress.version != plan::spec_version(service) {
        *progress = Progress { version: plan::spec_version(service), ..Progress::default() };
    }
    let dirty: Vec<&Slot> = slots
        .iter()
        .filter(|(_, tasks)| is_dirty(situation, tasks))
        .map(|(slot, _)| slot)
        .collect();
    progress.total = progress.total.max(dirty.len() + progress.in_flight.len());
    let underway = matches!(state, UpdateState::Updating | UpdateState::RollbackStarted);
    if dirty.is_empty() && progress.in_flight.is_empty() && !underway {
        return;
    }
    if !underway && !dirty.is_empty() {
        plan.service = Some(ServiceChange::Status(UpdateStatus {
            state: UpdateState::Updating as i32,
            started_at: Some(wire_time::timestamp(situation.now)),
            completed_at: None,
            message: "update in progress".to_owned(),
        }));
    }
    if let Some(culprit) = watch(situation, progress, &config, slots)
        && let Some(change) = give_up(situation, &config, rolling_back, &culprit)
    {
        plan.service = Some(change);
        return;
    }
    retire_replaced(situation, &config, slots, plan);
    settle(situation, progress, &config, slots, plan);
    start_more(situation, memory, &config, slots, &dirty, plan);
    let progress = &memory.update;
    let dirty_left = slots.values().any(|tasks| is_dirty(situation, tasks));
    if underway && !dirty_left && progress.in_flight.is_empty() {
        complete(situation, progress, &config, rolling_back, plan);
    }
}

fn state(service: &Service) -> UpdateState {
    service.update_status.as_ref().map_or(UpdateState::Unknown, |status| {
        UpdateState::try_from(status.state).unwrap_or(UpdateState::Unknown)
    })
}

fn config(service: &Service, rolling_back: bool) -> Config {
    let spec = service.spec.as_ref();
    let wanted: Option<&UpdateConfig> = spec
        .and_then(|spec| if rolling_back { spec.rollback.as_ref() } else { spec.update.as_ref() });
    let parallelism = wanted.map_or(1, |config| config.parallelism);
    let order = wanted.map_or(UpdateOrder::StopFirst, |config| {
        UpdateOrder::try_from(config.order).unwrap_or(UpdateOrder::StopFirst)
    });
    let has_ingress = spec.is_some_and(|spec| {
        task::ports(spec.endpoint.as_ref(), port_config::PublishMode::Ingress).next().is_some()
    });
    Config {
        parallelism: match usize::try_from(parallelism) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(parallelism) => parallelism,
        },
        delay: wire_time::duration(wanted.and_then(|config| config.delay.as_ref()), Duration::ZERO),
        monitor: wire_time::duration(
            wanted.and_then(|config| config.monitor.as_ref()),
            DEFAULT_MONITOR,
        ),
        action: wanted.map_or(FailureAction::Pause, |config| {
            FailureAction::try_from(config.failure_action).unwrap_or(FailureAction::Pause)
        }),
        max_failure_ratio: wanted.map_or(0.0, |config| config.max_failure_ratio),
        // COMPAT: the published port of a node belongs to one task at a time, so its successor
        // can only start once it has stopped.
        order: if has_ingress { UpdateOrder::StopFirst } else { order },
    }
}

/// Whether a slot needs a new task: none of its wanted tasks, or, when there is none, not its
/// newest, is what the service asks for.
fn is_dirty(situation: &Situation<'_>, tasks: &[&Arc<Task>]) -> bool {
    let wanted: Vec<_> = tasks.iter().filter(|task| task::is_wanted(task)).collect();
    if wanted.is_empty() {
        return tasks
            .iter()
            .max_by_key(|task| {
                wire_time::instant(task.meta.as_ref().and_then(|meta| meta.created_at.as_ref()))
            })
            .is_some_and(|newest| !situation.is_up_to_date(newest));
    }
    !wanted.iter().any(|task| situation.is_up_to_date(task))
}

/// Notes which new tasks run and which failed; answers with the task that broke the limit.
fn watch(
    situation: &Situation<'_>,
    progress: &mut Progress,
    config: &Config,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
) -> Option<String> {
    let mut culprit = None;
    for task in slots.values().flatten() {
        let Some(watched) = progress.watched.get_mut(&task.id) else {
            continue;
        };
        let state = task::observed(task);
        if state >= TaskState::Running && watched.running_since.is_none() {
            watched.running_since = Some(situation.now);
        }
        let stopped_by_us = state == TaskState::Shutdown;
        if state > TaskState::Running && !stopped_by_us && !watched.failed {
            watched.failed = true;
            let young = watched
                .running_since
                .is_none_or(|since| wire_time::since(since, situation.now) <= config.monitor);
            if young {
                progress.failures += 1;
                culprit = Some(task.id.clone());
            }
        }
    }
    #[allow(clippy::cast_precision_loss)]
    let ratio = progress.failures as f32 / progress.total.max(1) as f32;
    culprit.filter(|_| ratio > config.max_failure_ratio)
}

/// What becomes of the update after too many failures; `None` to go on.
fn give_up(
    situation: &Situation<'_>,
    config: &Config,
    rolling_back: bool,
    culprit: &str,
) -> Option<ServiceChange> {
    let service = situation.service;
    let because = format!("due to failure or early termination of task {culprit}");
    let started_at = service.update_status.as_ref().and_then(|status| status.started_at);
    match config.action {
        FailureAction::Continue => None,
        FailureAction::Rollback if !rolling_back && service.previous_spec.is_some() => {
            Some(ServiceChange::RollBack(UpdateStatus {
                state: UpdateState::RollbackStarted as i32,
                started_at: Some(wire_time::timestamp(situation.now)),
                completed_at: None,
                message: format!("update rolled back {because}"),
            }))
        }
        FailureAction::Rollback | FailureAction::Pause => {
            let (state, what) = if rolling_back {
                (UpdateState::RollbackPaused, "rollback")
            } else {
                (UpdateState::Paused, "update")
            };
            Some(ServiceChange::Status(UpdateStatus {
                state: state as i32,
                started_at,
                completed_at: None,
                message: format!("{what} paused {because}"),
            }))
        }
    }
}

/// Stops outdated tasks beside which an up-to-date one has taken over.
fn retire_replaced(
    situation: &Situation<'_>,
    config: &Config,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
    plan: &mut Plan,
) {
    for tasks in slots.values() {
        let ready = tasks.iter().any(|task| {
            task::is_wanted(task)
                && situation.is_up_to_date(task)
                && (config.order == UpdateOrder::StopFirst
                    || task::observed(task) == TaskState::Running)
        });
        if !ready {
            continue;
        }
        for task in tasks {
            if task::is_wanted(task)
                && !situation.is_up_to_date(task)
                && !plan.moves(&task.id, TaskState::Shutdown)
            {
                plan.ops.push(Op::Want(task.id.clone(), TaskState::Shutdown));
            }
        }
    }
}

/// Frees places of replacements that run, or ended, for longer than the delay.
fn settle(
    situation: &Situation<'_>,
    progress: &mut Progress,
    config: &Config,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
    plan: &mut Plan,
) {
    let now = situation.now;
    progress.in_flight.retain(|slot, flight| {
        let Some(task) =
            slots.get(slot).and_then(|tasks| tasks.iter().find(|task| task.id == flight.task))
        else {
            return false;
        };
        if task::observed(task) >= TaskState::Running && flight.done.is_none() {
            flight.done = Some(now);
        }
        let Some(done) = flight.done else { return true };
        let free = done + config.delay;
        if free > now {
            plan.wake_at(free);
        }
        free > now
    });
}

/// Replaces the tasks of further slots, as many as the parallelism allows.
fn start_more(
    situation: &Situation<'_>,
    memory: &mut Memory,
    config: &Config,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
    dirty: &[&Slot],
    plan: &mut Plan,
) {
    let progress = &mut memory.update;
    for slot in dirty {
        if progress.in_flight.len() >= config.parallelism {
            break;
        }
        if progress.in_flight.contains_key(*slot) {
            continue;
        }
        let tasks = slots.get(*slot).map_or(&[][..], Vec::as_slice);
        // A successor that was made in this very step has the new spec already.
        let made = plan.ops.iter().find_map(|op| match op {
            Op::Create(task) if Slot::of(task) == **slot => Some(task.id.clone()),
            Op::Create(_) | Op::Want(..) => None,
        });
        let id = made
            .unwrap_or_else(|| replace(situation, &mut memory.start_at, config, slot, tasks, plan));
        progress.watched.insert(id.clone(), Watched::default());
        progress.in_flight.insert((*slot).clone(), InFlight { task: id, done: None });
    }
}

fn replace(
    situation: &Situation<'_>,
    start_at: &mut BTreeMap<String, SystemTime>,
    config: &Config,
    slot: &Slot,
    tasks: &[&Arc<Task>],
    plan: &mut Plan,
) -> String {
    let old_runs = tasks.iter().any(|task| {
        task::observed(task) >= TaskState::Assigned && task::observed(task) <= TaskState::Running
    });
    let stop_first = config.order == UpdateOrder::StopFirst;
    let desired = if stop_first && old_runs { TaskState::Ready } else { TaskState::Running };
    if stop_first || !old_runs {
        for task in tasks.iter().filter(|task| task::is_wanted(task)) {
            if !plan.moves(&task.id, TaskState::Shutdown) {
                plan.ops.push(Op::Want(task.id.clone(), TaskState::Shutdown));
            }
        }
    }
    let task = plan::new_task(situation, slot, desired);
    let id = task.id.clone();
    if desired == TaskState::Ready {
        start_at.insert(id.clone(), situation.now);
    }
    plan.ops.push(Op::Create(Box::new(task)));
    id
}

/// Ends the update once the last new task has been watched long enough.
fn complete(
    situation: &Situation<'_>,
    progress: &Progress,
    config: &Config,
    rolling_back: bool,
    plan: &mut Plan,
) {
    let watched_until = progress
        .watched
        .values()
        .filter_map(|watched| watched.running_since)
        .max()
        .map(|since| since + config.monitor);
    if let Some(until) = watched_until
        && until > situation.now
    {
        plan.wake_at(until);
        return;
    }
    let (state, message) = if rolling_back {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    let started_at = situation.service.update_status.as_ref().and_then(|status| status.started_at);
    plan.service = Some(ServiceChange::Status(UpdateStatus {
        state: state as i32,
        started_at,
        completed_at: Some(wire_time::timestamp(situation.now)),
        message: message.to_owned(),
    }));
}
