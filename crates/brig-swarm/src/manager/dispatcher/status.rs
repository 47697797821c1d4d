//! What agents report about their tasks, and the end of tasks whose node will not report any more.

use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{
    Task, TaskState, TaskStatus, update_task_status_request::TaskStatusUpdate,
};
use brig_store::{StoreError, Tx};
use tonic::Status;

use super::Inner;
use crate::task;
use crate::wire_time;

impl Inner {
    /// Takes over what a node reports. Calls that arrive while the store is busy share its next
    /// commit.
    pub(crate) async fn apply_statuses(
        &self,
        node: &str,
        updates: Vec<TaskStatusUpdate>,
    ) -> Result<(), Status> {
        let now = SystemTime::now();
        let view = self.store.view();
        for update in &updates {
            let foreign =
                view.get::<Task>(&update.task_id).is_some_and(|task| task.node_id != node);
            if foreign {
                return Err(Status::permission_denied(
                    "cannot update a task not assigned this node",
                ));
            }
        }
        drop(view);
        let mut rest = updates;
        while !rest.is_empty() {
            rest = self
                .store
                .update(|tx| -> Result<_, StoreError> {
                    let mut updates = rest.into_iter();
                    while !tx.is_full()
                        && let Some(update) = updates.next()
                    {
                        let Some(status) = update.status else { continue };
                        apply(tx, node, &self.own.id, &update.task_id, status, now)?;
                    }
                    Ok(updates.collect())
                })
                .await
                .map_err(|error| store_failed(&error))?;
        }
        Ok(())
    }

    /// Ends a task that must not be sent to its node.
    pub(crate) async fn reject(&self, task: &str, problem: &str) -> Result<(), StoreError> {
        let now = SystemTime::now();
        self.store
            .update(|tx| {
                let Some(task) = tx.get::<Task>(task) else {
                    return Ok(());
                };
                if task::is_finished(&task) {
                    return Ok(());
                }
                let mut task = (*task).clone();
                let status = task.status.get_or_insert_default();
                status.state = TaskState::Rejected as i32;
                problem.clone_into(&mut status.err);
                "rejected by the manager".clone_into(&mut status.message);
                status.timestamp = Some(wire_time::timestamp(now));
                tx.update(task).map(drop)
            })
            .await
    }
}

fn apply(
    tx: &mut Tx<'_>,
    node: &str,
    manager: &str,
    id: &str,
    mut status: TaskStatus,
    now: SystemTime,
) -> Result<(), StoreError> {
    let Some(task) = tx.get::<Task>(id).filter(|task| task.node_id == node) else {
        return Ok(());
    };
    if TaskState::try_from(status.state).is_err() {
        tracing::warn!(task = id, state = status.state, "a node reported an unknown state");
        return Ok(());
    }
    let current = task.status.clone().unwrap_or_default();
    let same = TaskStatus { applied_by: String::new(), applied_at: None, ..current.clone() };
    if status.state < current.state || status == same {
        return Ok(());
    }
    manager.clone_into(&mut status.applied_by);
    status.applied_at = Some(wire_time::timestamp(now));
    let mut task = (*task).clone();
    task.status = Some(status);
    tx.update(task).map(drop)
}

/// Gives up the tasks of a node that is gone; answers whether that were all, as far as there is room
/// in the transaction.
pub(crate) fn orphan_tasks(
    tx: &mut Tx<'_>,
    node: &str,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let tasks: Vec<Arc<Task>> = tx.tasks_by_node(node).cloned().collect();
    for task in tasks {
        let state = task::observed(&task);
        if !(TaskState::Assigned..=TaskState::Running).contains(&state) {
            continue;
        }
        if tx.is_full() {
            return Ok(false);
        }
        let mut task = (*task).clone();
        let status = task.status.get_or_insert_default();
        status.state = TaskState::Orphaned as i32;
        status.timestamp = Some(wire_time::timestamp(now));
        tx.update(task)?;
    }
    Ok(true)
}

/// What an agent is told when the store does not work: try another time.
pub(crate) fn store_failed(error: &StoreError) -> Status {
    tracing::error!(error = %brig_types::error::chain(error), "the store failed");
    Status::unavailable("the cluster's store failed")
}
