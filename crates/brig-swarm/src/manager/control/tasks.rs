//! Tasks, to look at.

use std::sync::Arc;

use brig_proto::swarm::{Node, Service, Task};

use super::{Control, find};
use crate::error::ControlError;
use crate::task;

impl Control {
    /// All tasks, history included.
    #[must_use]
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.store.view().all::<Task>().cloned().collect()
    }

    /// The tasks of a service.
    #[must_use]
    pub fn tasks_of_service(&self, service: &str) -> Vec<Arc<Task>> {
        self.store.view().tasks_by_service(service).cloned().collect()
    }

    /// The tasks on a node.
    #[must_use]
    pub fn tasks_of_node(&self, node: &str) -> Vec<Arc<Task>> {
        self.store.view().tasks_by_node(node).cloned().collect()
    }

    /// A task by id, name (`<service>.<slot>.<id>`) or id prefix.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub fn task(&self, reference: &str) -> Result<Arc<Task>, ControlError> {
        let by_name = reference.rsplit('.').next().unwrap_or(reference);
        let id = if reference.contains('.') { by_name } else { reference };
        find(&self.store.view(), "task", id, |_| "").map_err(|error| match error {
            ControlError::NotFound { kind, .. } => {
                ControlError::NotFound { kind, reference: reference.to_owned() }
            }
            other => other,
        })
    }

    /// Whether a task is what its service asks for now (the filter `_up-to-date`).
    #[must_use]
    pub fn is_up_to_date(&self, task: &Task) -> bool {
        let view = self.store.view();
        let node = view.get::<Node>(&task.node_id);
        view.get::<Service>(&task.service_id)
            .is_some_and(|service| task::is_up_to_date(&service, task, node.as_deref()))
    }
}
