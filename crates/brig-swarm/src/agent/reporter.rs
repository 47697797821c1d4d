//! Task statuses on their way to the manager: the newest of each task, sent at once while the
//! manager is reachable and kept until it has taken them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use brig_proto::swarm::{
    TaskStatus, UpdateTaskStatusRequest, dispatcher_client::DispatcherClient,
    update_task_status_request::TaskStatusUpdate,
};
use tokio::sync::Notify;
use tonic::transport::Channel;

/// Statuses that no manager has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    statuses: Mutex<Statuses>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Statuses {
    known: BTreeMap<String, TaskStatus>,
    pending: BTreeMap<String, TaskStatus>,
}

impl Reporter {
    /// Queues a status; an older one of the same task is not sent any more.
    pub(crate) fn report(&self, task: &str, status: TaskStatus) {
        let mut statuses = self.lock();
        statuses.known.insert(task.to_owned(), status.clone());
        statuses.pending.insert(task.to_owned(), status);
        drop(statuses);
        self.wake.notify_one();
    }

    /// Queues the last status of every task again, for a manager that may have missed some.
    pub(crate) fn report_all(&self) {
        let mut statuses = self.lock();
        statuses.pending = statuses.known.clone();
        drop(statuses);
        self.wake.notify_one();
    }

    /// Drops what is queued of a task that was removed.
    pub(crate) fn forget(&self, task: &str) {
        let mut statuses = self.lock();
        statuses.known.remove(task);
        statuses.pending.remove(task);
    }

    /// Sends what is queued until the session breaks. Sending one batch while the next gathers is
    /// all the batching there is.
    pub(crate) async fn run(
        &self,
        mut client: DispatcherClient<Channel>,
        session: &str,
    ) -> tonic::Status {
        loop {
            let batch = std::mem::take(&mut self.lock().pending);
            if batch.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let request = UpdateTaskStatusRequest {
                session_id: session.to_owned(),
                updates: batch
                    .iter()
                    .map(|(task, status)| TaskStatusUpdate {
                        task_id: task.clone(),
                        status: Some(status.clone()),
                    })
                    .collect(),
            };
            if let Err(error) = client.update_task_status(request).await {
                let mut statuses = self.lock();
                for (task, status) in batch {
                    statuses.pending.entry(task).or_insert(status);
                }
                return error;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Statuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
