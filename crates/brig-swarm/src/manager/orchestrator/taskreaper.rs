//! Which finished tasks are deleted: those that nobody wants any more, and the oldest of each
//! slot beyond the history that is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use brig_proto::swarm::{Task, TaskState};

use crate::task::{self, Slot};
use crate::wire_time;

/// The ids of a service's tasks to delete. `retention` is how many finished tasks of a slot are
/// kept beside the wanted one; negative keeps all.
pub(crate) fn plan(tasks: &[Arc<Task>], service_exists: bool, retention: i64) -> Vec<String> {
    let mut gone: Vec<String> = Vec::new();
    let mut history: BTreeMap<Slot, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in tasks {
        if is_abandoned(task, service_exists) {
            gone.push(task.id.clone());
        } else if task::desired(task) > TaskState::Running && !may_still_run(task) {
            history.entry(Slot::of(task)).or_default().push(task);
        }
    }
    let Ok(keep) = usize::try_from(retention) else {
        return gone;
    };
    for (slot, mut finished) in history {
        let has_wanted = tasks.iter().any(|task| Slot::of(task) == slot && task::is_wanted(task));
        // A slot without a wanted task shows its last one as long as the service is there.
        let keep = if has_wanted { keep } else { keep.max(1) };
        let surplus = finished.len().saturating_sub(keep);
        finished.sort_by_key(|task| {
            wire_time::instant(task.meta.as_ref().and_then(|meta| meta.created_at.as_ref()))
        });
        gone.extend(finished.iter().take(surplus).map(|task| task.id.clone()));
    }
    gone
}

fn is_abandoned(task: &Task, service_exists: bool) -> bool {
    let unwanted = task::desired(task) >= TaskState::Remove || !service_exists;
    unwanted && !may_still_run(task)
}

/// Whether an agent may still have something of this task.
fn may_still_run(task: &Task) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&task::observed(task))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use brig_proto::swarm::{Meta, TaskStatus};
    use proptest::prelude::*;

    use super::*;

    fn task(id: &str, slot: u64, created: u64, state: TaskState, desired: TaskState) -> Arc<Task> {
        Arc::new(Task {
            id: id.to_owned(),
            slot,
            desired_state: desired as i32,
            status: Some(TaskStatus { state: state as i32, ..TaskStatus::default() }),
            meta: Some(Meta {
                created_at: Some(wire_time::timestamp(
                    SystemTime::UNIX_EPOCH + Duration::from_secs(created),
                )),
                ..Meta::default()
            }),
            ..Task::default()
        })
    }

    #[test]
    fn the_oldest_beyond_the_history_go() {
        let mut tasks = vec![task("live", 1, 9, TaskState::Running, TaskState::Running)];
        for (age, id) in ["a", "b", "c"].into_iter().enumerate() {
            tasks.push(task(id, 1, age as u64, TaskState::Failed, TaskState::Shutdown));
        }
        assert_eq!(plan(&tasks, true, 2), ["a"]);
        assert_eq!(plan(&tasks, true, 0), ["a", "b", "c"]);
        assert!(plan(&tasks, true, -1).is_empty());
        assert!(plan(&tasks, true, 5).is_empty());
    }

    #[test]
    fn removed_tasks_go_once_they_stopped() {
        let tasks = [
            task("runs", 1, 1, TaskState::Running, TaskState::Remove),
            task("stopped", 2, 1, TaskState::Shutdown, TaskState::Remove),
            task("never-assigned", 3, 1, TaskState::Pending, TaskState::Remove),
        ];
        assert_eq!(plan(&tasks, true, 5), ["stopped", "never-assigned"]);
    }

    #[test]
    fn tasks_of_a_removed_service_go() {
        let tasks = [
            task("done", 1, 1, TaskState::Complete, TaskState::Shutdown),
            task("orphan", 2, 1, TaskState::Orphaned, TaskState::Running),
            task("runs", 3, 1, TaskState::Running, TaskState::Running),
        ];
        assert_eq!(plan(&tasks, false, 5), ["done", "orphan"]);
    }

    fn any_state() -> impl Strategy<Value = TaskState> {
        prop::sample::select(vec![
            TaskState::New,
            TaskState::Assigned,
            TaskState::Running,
            TaskState::Complete,
            TaskState::Shutdown,
            TaskState::Failed,
            TaskState::Orphaned,
        ])
    }

    proptest! {
        #[test]
        fn nothing_that_may_run_is_deleted(
            states in prop::collection::vec((1_u64..4, any_state(), any_state()), 0..20),
            exists: bool,
            retention in -1_i64..4,
        ) {
            let tasks: Vec<_> = states
                .iter()
                .enumerate()
                .map(|(i, (slot, state, desired))| {
                    task(&i.to_string(), *slot, i as u64, *state, *desired)
                })
                .collect();
            for id in plan(&tasks, exists, retention) {
                let task = tasks.iter().find(|task| task.id == id).unwrap();
                prop_assert!(!may_still_run(task));
                prop_assert!(!exists || !task::is_wanted(task));
            }
        }
    }
}
