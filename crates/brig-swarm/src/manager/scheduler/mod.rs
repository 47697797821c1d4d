//! Gives every pending task a node.
//!
//! Tasks of one service spread over the nodes that pass all filters. A task that fits nowhere
//! stays pending, says why, and is looked at again whenever a node changes or something ends.

pub(crate) mod constraint;
pub(crate) mod filter;
pub(crate) mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{Node, Task, TaskState, port_config::PublishMode};
use brig_store::{Change, Object, Store, StoreError, Tx};

use self::filter::NodeInfo;
use super::changes::{self, Wake};
use crate::task::{self, Slot};
use crate::wire_time;

/// Runs until the store closes.
pub(crate) async fn run(store: Store) {
    loop {
        let (mut pending, mut watcher) = store.view_and_watch(|view| {
            view.all::<Task>()
                .filter(|task| is_pending(task))
                .map(|task| task.id.clone())
                .collect::<BTreeSet<_>>()
        });
        let mut worth_a_look = true;
        loop {
            if worth_a_look
                && !pending.is_empty()
                && let Err(error) = schedule(&store, &mut pending).await
            {
                tracing::warn!(error = %error, "scheduling failed");
            }
            match changes::wait(&mut watcher, None).await {
                Wake::Changes(commits) => {
                    worth_a_look = false;
                    for change in changes::of(&commits) {
                        worth_a_look |= note(change, &mut pending);
                    }
                }
                // A refused transaction is tried again at leisure.
                Wake::Time => worth_a_look = true,
                Wake::Missed => break,
                Wake::Closed => return,
            }
        }
    }
}

fn is_pending(task: &Task) -> bool {
    task::observed(task) == TaskState::Pending && task::is_wanted(task)
}

/// Takes a change in; answers whether it can make a task fit somewhere.
fn note(change: &Change, pending: &mut BTreeSet<String>) -> bool {
    match (change, change.object()) {
        (Change::Created(_) | Change::Updated { .. }, Object::Task(task)) if is_pending(task) => {
            pending.insert(task.id.clone())
        }
        (Change::Removed(_), Object::Task(task)) => {
            pending.remove(&task.id);
            true
        }
        (_, Object::Task(task)) => task::is_finished(task) || !task::is_wanted(task),
        (_, Object::Node(_)) => true,
        (_, Object::Service(_) | Object::Secret(_) | Object::Config(_))
        | (
            _,
            Object::Network(_)
            | Object::Cluster(_)
            | Object::Access(_)
            | Object::ScanDatabase(_)
            | Object::Policy(_)
            | Object::Trust(_)
            | Object::TrustMetadata(_),
        ) => false,
    }
}

async fn schedule(store: &Store, pending: &mut BTreeSet<String>) -> Result<(), StoreError> {
    // As many transactions as it takes: each of them goes as far as there is room in it.
    while schedule_some(store, pending).await? {}
    Ok(())
}

/// Answers whether there are tasks that were not looked at.
async fn schedule_some(store: &Store, pending: &mut BTreeSet<String>) -> Result<bool, StoreError> {
    let now = SystemTime::now();
    let (left, is_full) = store
        .update(|tx| -> Result<_, StoreError> {
            let mut tasks: Vec<Arc<Task>> = pending
                .iter()
                .filter_map(|id| tx.get::<Task>(id))
                .filter(|task| is_pending(task))
                .collect();
            if tasks.is_empty() {
                return Ok((BTreeSet::new(), false));
            }
            tasks.sort_by(|a, b| (&a.service_id, a.slot).cmp(&(&b.service_id, b.slot)));
            let mut nodes = nodes(tx);
            let mut left = BTreeSet::new();
            let mut is_full = false;
            for task in tasks {
                is_full = is_full || tx.is_full();
                if is_full || !assign(tx, &task, &mut nodes, now)? {
                    left.insert(task.id.clone());
                }
            }
            Ok((left, is_full))
        })
        .await?;
    *pending = left;
    Ok(is_full)
}

/// All nodes with what their tasks take.
fn nodes(tx: &Tx<'_>) -> Vec<NodeInfo> {
    let mut nodes: BTreeMap<String, NodeInfo> =
        tx.all::<Node>().map(|node| (node.id.clone(), NodeInfo::new(Arc::clone(node)))).collect();
    for task in tx.all::<Task>() {
        let placed = (TaskState::Assigned..=TaskState::Running).contains(&task::observed(task));
        if placed && let Some(info) = nodes.get_mut(&task.node_id) {
            info.add(task);
        }
    }
    nodes.into_values().collect()
}

/// Places one task; answers whether it is done with.
fn assign(
    tx: &mut Tx<'_>,
    task: &Task,
    nodes: &mut [NodeInfo],
    now: SystemTime,
) -> Result<bool, StoreError> {
    let chosen = if task.node_id.is_empty() {
        place::choose(task, nodes)
    } else {
        let own = nodes.iter().position(|info| info.node.id == task.node_id);
        own.ok_or_else(|| "no suitable node".to_owned()).and_then(|index| {
            let info = nodes.get(index);
            info.map_or(Ok(index), |info| place::check(task, info).map(|()| index))
        })
    };
    let mut task = task.clone();
    let status = task.status.get_or_insert_default();
    let info = match chosen {
        Ok(index) => nodes.get_mut(index),
        Err(reason) => {
            if status.err != reason {
                status.err = reason;
                status.timestamp = Some(wire_time::timestamp(now));
                tx.update(task)?;
            }
            return Ok(false);
        }
    };
    let Some(info) = info else { return Ok(false) };
    status.state = TaskState::Assigned as i32;
    status.timestamp = Some(wire_time::timestamp(now));
    "scheduler assigned task to node".clone_into(&mut status.message);
    status.err.clear();
    task.node_id.clone_from(&info.node.id);
    keep_ingress_with_one_task(tx, &mut task);
    info.add(&task);
    tx.update(task)?;
    Ok(true)
}

/// Leaves the cluster's published ports to the one task of the service that has them on the node.
///
/// COMPAT: as long as there is no routing mesh a published port of a node leads to one task of
/// the service on that node: the one in the lowest slot when they were placed. Its successors in
/// that slot take the port over. Further replicas on the node run without it.
fn keep_ingress_with_one_task(tx: &Tx<'_>, task: &mut Task) {
    let slot = Slot::of(task);
    let taken = tx.tasks_by_node(&task.node_id).any(|other| {
        other.service_id == task.service_id
            && other.id != task.id
            && Slot::of(other) != slot
            && task::is_wanted(other)
            && !task::is_finished(other)
            && has_ingress(other)
    });
    if !taken {
        return;
    }
    if let Some(endpoint) = &mut task.endpoint {
        endpoint.ports.retain(|port| port.publish_mode != PublishMode::Ingress as i32);
    }
}

fn has_ingress(task: &Task) -> bool {
    task.endpoint.as_ref().is_some_and(|endpoint| {
        endpoint.ports.iter().any(|port| port.publish_mode == PublishMode::Ingress as i32)
    })
}
