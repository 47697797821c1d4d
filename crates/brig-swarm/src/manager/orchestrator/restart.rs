//! Whether a task that ended, or whose node is gone, gets a successor.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use brig_proto::swarm::{RestartPolicy, Task, TaskState, restart_policy::RestartCondition};

use crate::task::{Slot, observed};
use crate::wire_time;

/// How long a successor waits when the policy doesn't say.
pub(crate) const DEFAULT_DELAY: Duration = Duration::from_secs(5);
/// How long a successor waits for its predecessor to stop before it is started all the same.
pub(crate) const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);

/// The restarts of a service's slots, for policies that limit them. Kept in memory only: after a
/// restart of the manager counting begins anew.
#[derive(Debug, Default)]
pub(crate) struct History {
    slots: BTreeMap<Slot, SlotHistory>,
}

#[derive(Debug, Default)]
struct SlotHistory {
    spec_version: u64,
    total: u64,
    at: VecDeque<SystemTime>,
}

impl History {
    /// Whether the policy allows a successor for `task`.
    pub(crate) fn allows(&self, task: &Task, now: SystemTime) -> bool {
        let policy = policy(task);
        match condition(policy) {
            RestartCondition::None => return false,
            RestartCondition::OnFailure if observed(task) == TaskState::Complete => return false,
            RestartCondition::OnFailure | RestartCondition::Any => {}
        }
        let max_attempts = policy.map_or(0, |policy| policy.max_attempts);
        if max_attempts == 0 {
            return true;
        }
        let Some(history) = self.slots.get(&Slot::of(task)) else {
            return true;
        };
        if history.spec_version != spec_version(task) {
            return true;
        }
        let window =
            wire_time::duration(policy.and_then(|policy| policy.window.as_ref()), Duration::ZERO);
        if window.is_zero() {
            return history.total < max_attempts;
        }
        let recent = history.at.iter().filter(|at| wire_time::since(**at, now) < window).count();
        u64::try_from(recent).unwrap_or(u64::MAX) < max_attempts
    }

    /// Remembers that `task` got a successor.
    pub(crate) fn record(&mut self, task: &Task, now: SystemTime) {
        let policy = policy(task);
        let max_attempts = policy.map_or(0, |policy| policy.max_attempts);
        if max_attempts == 0 {
            return;
        }
        let history = self.slots.entry(Slot::of(task)).or_default();
        if history.spec_version != spec_version(task) {
            *history = SlotHistory { spec_version: spec_version(task), ..SlotHistory::default() };
        }
        history.total = history.total.saturating_add(1);
        history.at.push_back(now);
        let keep = usize::try_from(max_attempts).unwrap_or(usize::MAX);
        while history.at.len() > keep {
            history.at.pop_front();
        }
    }
}

/// How long the successor of a task waits before it starts.
pub(crate) fn delay(task: &Task) -> Duration {
    wire_time::duration(policy(task).and_then(|policy| policy.delay.as_ref()), DEFAULT_DELAY)
}

fn policy(task: &Task) -> Option<&RestartPolicy> {
    task.spec.as_ref()?.restart.as_ref()
}

fn condition(policy: Option<&RestartPolicy>) -> RestartCondition {
    policy.map_or(RestartCondition::Any, |policy| {
        RestartCondition::try_from(policy.condition).unwrap_or(RestartCondition::Any)
    })
}

fn spec_version(task: &Task) -> u64 {
    task.spec_version.as_ref().map_or(0, |version| version.index)
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{TaskSpec, TaskStatus, Version};

    use super::*;

    fn task(condition: RestartCondition, max_attempts: u64, window: u64, state: TaskState) -> Task {
        Task {
            slot: 1,
            spec_version: Some(Version { index: 7 }),
            spec: Some(TaskSpec {
                restart: Some(RestartPolicy {
                    condition: condition as i32,
                    max_attempts,
                    window: Some(wire_time::wire(Duration::from_secs(window))),
                    delay: None,
                }),
                ..TaskSpec::default()
            }),
            status: Some(TaskStatus { state: state as i32, ..TaskStatus::default() }),
            ..Task::default()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn conditions() {
        let history = History::default();
        let cases = [
            (RestartCondition::None, TaskState::Failed, false),
            (RestartCondition::None, TaskState::Complete, false),
            (RestartCondition::OnFailure, TaskState::Complete, false),
            (RestartCondition::OnFailure, TaskState::Failed, true),
            (RestartCondition::OnFailure, TaskState::Rejected, true),
            (RestartCondition::OnFailure, TaskState::Running, true),
            (RestartCondition::Any, TaskState::Complete, true),
            (RestartCondition::Any, TaskState::Failed, true),
        ];
        for (condition, state, expected) in cases {
            assert_eq!(
                history.allows(&task(condition, 0, 0, state), at(1)),
                expected,
                "{condition:?} {state:?}"
            );
        }
        assert!(history.allows(&Task::default(), at(1)), "no policy restarts");
    }

    #[test]
    fn attempts_without_window_are_counted_for_ever() {
        let mut history = History::default();
        let failed = task(RestartCondition::Any, 2, 0, TaskState::Failed);
        for second in [1, 1_000_000] {
            assert!(history.allows(&failed, at(second)));
            history.record(&failed, at(second));
        }
        assert!(!history.allows(&failed, at(9_000_000)));
        let other_version = Task { spec_version: Some(Version { index: 8 }), ..failed.clone() };
        assert!(history.allows(&other_version, at(9_000_000)));
    }

    #[test]
    fn attempts_outside_the_window_are_forgotten() {
        let mut history = History::default();
        let failed = task(RestartCondition::Any, 2, 10, TaskState::Failed);
        history.record(&failed, at(100));
        history.record(&failed, at(104));
        assert!(!history.allows(&failed, at(105)));
        assert!(history.allows(&failed, at(111)), "the first one is too old");
    }

    #[test]
    fn delay_defaults_to_five_seconds() {
        assert_eq!(delay(&Task::default()), DEFAULT_DELAY);
    }
}
