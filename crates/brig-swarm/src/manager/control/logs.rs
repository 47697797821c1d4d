//! The logs of services and tasks, from all nodes that have them.

use brig_proto::swarm::{LogMessage, LogSelector, LogSubscriptionOptions, Task};

use tokio::sync::mpsc;

use super::{Control, find};
use crate::error::ControlError;
use crate::manager::logbroker::LogReader;
use crate::task;

/// Lines of the selected tasks as they come in. Dropping it ends the subscription.
pub struct LogStream {
    reader: LogReader,
    /// What other managers' agents have.
    others: mpsc::Receiver<LogMessage>,
    /// Nodes that have selected tasks but could not be asked.
    missing_nodes: Vec<String>,
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

impl LogStream {
    /// The next line; `None` when all nodes are done. Cancel-safe.
    pub async fn next(&mut self) -> Option<LogMessage> {
        tokio::select! {
            Some(line) = self.reader.next() => Some(line),
            Some(line) = self.others.recv() => Some(line),
            else => None,
        }
    }

    /// Nodes that have selected tasks but could not be asked.
    #[must_use]
    pub fn missing_nodes(&self) -> &[String] {
        &self.missing_nodes
    }
}

impl Control {
    /// Reads the logs of services and tasks; the selector names full ids.
    ///
    /// # Errors
    /// [`ControlError::InvalidArgument`] for an empty selector, [`ControlError::NotFound`].
    pub fn service_logs(
        &self,
        selector: LogSelector,
        options: LogSubscriptionOptions,
    ) -> Result<LogStream, ControlError> {
        if selector.service_ids.is_empty()
            && selector.task_ids.is_empty()
            && selector.node_ids.is_empty()
        {
            return Err(ControlError::InvalidArgument("log selector must not be empty".to_owned()));
        }
        let view = self.store.view();
        for id in &selector.task_ids {
            find::<Task>(&view, "task", id, |_| "")?;
        }
        let listening = self.logs.listening();
        let mut missing_nodes: Vec<String> = view
            .all::<Task>()
            .filter(|task| {
                selector.service_ids.contains(&task.service_id)
                    || selector.task_ids.contains(&task.id)
                    || selector.node_ids.contains(&task.node_id)
            })
            .filter(|task| !task.node_id.is_empty() && !task::is_finished(task))
            .map(|task| task.node_id.clone())
            .filter(|node| !listening.contains(node) && !self.other_logs.is_served(node))
            .collect();
        missing_nodes.sort();
        missing_nodes.dedup();
        let others = self.other_logs.subscribe(&selector, &options);
        Ok(LogStream { reader: self.logs.subscribe(selector, options), others, missing_nodes })
    }
}
