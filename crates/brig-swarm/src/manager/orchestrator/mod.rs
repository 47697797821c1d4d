//! Keeps every service at what its spec asks for: makes and retires tasks, restarts those that
//! ended, rolls updates out, and deletes what is only history.
//!
//! The decisions are plain functions over a service, its tasks and the nodes ([`replicated`],
//! [`global`], [`update`], [`restart`], [`taskreaper`]); this module fetches what they need and
//! writes down what they decide, in one transaction.

pub(crate) mod global;
pub(crate) mod plan;
pub(crate) mod replicated;
pub(crate) mod restart;
pub(crate) mod taskreaper;
pub(crate) mod update;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_proto::swarm::{Cluster, Node, Service, Task, TaskState, update_status::UpdateState};
use brig_store::{Change, Object, Store, StoreError, Tx};

use self::plan::{Memory, Op, Plan, ServiceChange, Situation};
use super::changes::{self, Wake};
use crate::task;

/// Finished tasks of a slot that are kept when the cluster doesn't say.
const DEFAULT_RETENTION: i64 = 5;
/// How long to wait after the store refused a plan.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Runs until the store closes.
pub(crate) async fn run(store: Store) {
    let mut orchestrator =
        Orchestrator { store, memories: BTreeMap::new(), wakes: BTreeMap::new() };
    loop {
        let (everything, mut watcher) = orchestrator.store.view_and_watch(|view| {
            let mut ids: BTreeSet<String> =
                view.all::<Service>().map(|service| service.id.clone()).collect();
            ids.extend(view.all::<Task>().map(|task| task.service_id.clone()));
            ids
        });
        orchestrator.reconcile_all(everything).await;
        loop {
            let next = orchestrator.wakes.values().min().copied();
            match changes::wait(&mut watcher, next).await {
                Wake::Changes(commits) => {
                    let dirty = orchestrator.touched(changes::of(&commits));
                    orchestrator.reconcile_all(dirty).await;
                }
                Wake::Time => {
                    let due = orchestrator.due(SystemTime::now());
                    orchestrator.reconcile_all(due).await;
                }
                Wake::Missed => break,
                Wake::Closed => return,
            }
        }
    }
}

struct Orchestrator {
    store: Store,
    memories: BTreeMap<String, Memory>,
    wakes: BTreeMap<String, SystemTime>,
}

impl Orchestrator {
    /// The services that a change may concern.
    fn touched<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> BTreeSet<String> {
        let mut dirty = BTreeSet::new();
        for change in changes {
            match change.object() {
                Object::Service(service) => {
                    dirty.insert(service.id.clone());
                }
                Object::Task(task) => {
                    dirty.insert(task.service_id.clone());
                }
                Object::Node(_) if node_matters(change) => {
                    let view = self.store.view();
                    dirty.extend(view.all::<Service>().map(|service| service.id.clone()));
                }
                Object::Node(_)
                | Object::Secret(_)
                | Object::Config(_)
                | Object::Network(_)
                | Object::Cluster(_)
                | Object::Access(_)
                | Object::ScanDatabase(_)
                | Object::Policy(_)
                | Object::Trust(_)
                | Object::TrustMetadata(_) => {}
            }
        }
        dirty
    }

    fn due(&self, now: SystemTime) -> BTreeSet<String> {
        self.wakes.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect()
    }

    /// Looks at all these services, in as few transactions as there is room for.
    async fn reconcile_all(&mut self, mut services: BTreeSet<String>) {
        while !services.is_empty() {
            services = self.reconcile_some(&services).await;
        }
    }

    /// Answers the services that have to be looked at once more, in another transaction.
    async fn reconcile_some(&mut self, services: &BTreeSet<String>) -> BTreeSet<String> {
        for id in services {
            self.wakes.remove(id);
        }
        let now = SystemTime::now();
        let memories = &mut self.memories;
        let outcome = self.store.update_with(|tx| -> Result<_, StoreError> {
            let (mut wakes, mut rest) = (Vec::new(), BTreeSet::new());
            for id in services {
                if !tx.is_full() {
                    let memory = memories.entry(id.clone()).or_default();
                    if let Some(wake) = reconcile(tx, id, memory, now)? {
                        wakes.push((id.clone(), wake));
                    }
                }
                if tx.is_full() {
                    rest.insert(id.clone());
                }
            }
            Ok((wakes, rest))
        });
        let rest = match outcome.await {
            Ok((wakes, rest)) => {
                self.wakes.extend(wakes);
                rest
            }
            Err(error) => {
                let error = brig_types::error::chain(&error);
                tracing::warn!(error, "services could not be reconciled");
                self.wakes.extend(services.iter().map(|id| (id.clone(), now + RETRY_DELAY)));
                BTreeSet::new()
            }
        };
        let view = self.store.view();
        for id in services {
            if view.get::<Service>(id).is_none() {
                self.memories.remove(id);
            }
        }
        rest
    }
}

/// Looks at one service; answers when to look again although nothing happened.
fn reconcile(
    tx: &mut Tx<'_>,
    id: &str,
    memory: &mut Memory,
    now: SystemTime,
) -> Result<Option<SystemTime>, StoreError> {
    let tasks: Vec<Arc<Task>> = tx.tasks_by_service(id).cloned().collect();
    let service = tx.get::<Service>(id);
    let plan = match &service {
        Some(service) => decide(tx, service, &tasks, memory, now),
        None => abandon(&tasks),
    };
    apply(tx, service.as_deref(), &plan)?;
    reap(tx, id, service.is_some())?;
    Ok(plan.wake)
}

/// Whether a change of a node can change a decision.
fn node_matters(change: &Change) -> bool {
    match change {
        Change::Created(_) | Change::Removed(_) => true,
        Change::Updated { old: Object::Node(old), new: Object::Node(new) } => {
            let state = |node: &Node| node.status.as_ref().map(|status| status.state);
            old.spec != new.spec
                || state(old) != state(new)
                || old.role != new.role
                || old.description != new.description
        }
        Change::Updated { .. } => true,
    }
}

fn decide(
    tx: &Tx<'_>,
    service: &Service,
    tasks: &[Arc<Task>],
    memory: &mut Memory,
    now: SystemTime,
) -> Plan {
    let nodes: BTreeMap<String, Arc<Node>> =
        tx.all::<Node>().map(|node| (node.id.clone(), Arc::clone(node))).collect();
    let cluster = tx.all::<Cluster>().next().cloned();
    let situation = Situation {
        service,
        tasks,
        nodes: &nodes,
        default_log_driver: cluster
            .as_ref()
            .and_then(|cluster| cluster.spec.as_ref())
            .and_then(|spec| spec.task_defaults.as_ref())
            .and_then(|defaults| defaults.log_driver.as_ref()),
        now,
    };
    if task::is_global(service) {
        global::plan(&situation, memory)
    } else if task::replicas(service).is_some() {
        replicated::plan(&situation, memory)
    } else {
        Plan::default()
    }
}

/// Takes the tasks of a service that is gone away.
fn abandon(tasks: &[Arc<Task>]) -> Plan {
    Plan {
        ops: tasks
            .iter()
            .filter(|task| task::desired(task) < TaskState::Remove)
            .map(|task| Op::Want(task.id.clone(), TaskState::Remove))
            .collect(),
        ..Plan::default()
    }
}

fn apply(tx: &mut Tx<'_>, service: Option<&Service>, plan: &Plan) -> Result<(), StoreError> {
    for op in &plan.ops {
        // The rest is planned once more.
        if tx.is_full() {
            return Ok(());
        }
        match op {
            Op::Create(task) => {
                tx.create((**task).clone())?;
            }
            Op::Want(id, state) => {
                if let Some(task) = tx.get::<Task>(id)
                    && task.desired_state < *state as i32
                {
                    let mut task = (*task).clone();
                    task.desired_state = *state as i32;
                    tx.update(task)?;
                }
            }
        }
    }
    let (Some(service), Some(change)) = (service, &plan.service) else {
        return Ok(());
    };
    let mut service = service.clone();
    match change {
        ServiceChange::Status(status) => {
            let state = UpdateState::try_from(status.state);
            tracing::info!(service = service.id, ?state, "{}", status.message);
            service.update_status = Some(status.clone());
        }
        ServiceChange::RollBack(status) => {
            tracing::warn!(service = service.id, "{}", status.message);
            service.spec = service.previous_spec.take();
            service.spec_version = service.previous_spec_version.take();
            service.update_status = Some(status.clone());
        }
    }
    tx.update(service).map(drop)
}

fn reap(tx: &mut Tx<'_>, service: &str, exists: bool) -> Result<(), StoreError> {
    let tasks: Vec<Arc<Task>> = tx.tasks_by_service(service).cloned().collect();
    let retention = tx
        .all::<Cluster>()
        .next()
        .and_then(|cluster| cluster.spec.as_ref())
        .and_then(|spec| spec.orchestration.as_ref())
        .map_or(DEFAULT_RETENTION, |orchestration| orchestration.task_history_retention_limit);
    for id in taskreaper::plan(&tasks, exists, retention) {
        if tx.is_full() {
            break;
        }
        tx.delete::<Task>(&id)?;
    }
    Ok(())
}
