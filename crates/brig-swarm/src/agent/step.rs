//! What an agent does next with a task: a table over what is wanted and what was observed.

use brig_proto::swarm::TaskState;

/// The next thing to do with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing until something changes.
    Pause,
    /// Just report the next state.
    Advance(TaskState, &'static str),
    /// Prepare, then report `READY`.
    Prepare,
    /// Start, then report `RUNNING`.
    Start,
    /// Wait for the end, then report `COMPLETE` or `FAILED`.
    Wait,
    /// Stop, then report `SHUTDOWN`.
    Shutdown,
}

/// Decides the next step.
pub(crate) fn next(desired: TaskState, observed: TaskState) -> Step {
    if desired >= TaskState::Shutdown {
        return if observed >= TaskState::Complete { Step::Pause } else { Step::Shutdown };
    }
    if observed > desired {
        return Step::Pause;
    }
    match observed {
        TaskState::Preparing => Step::Prepare,
        TaskState::Starting => Step::Start,
        TaskState::Running => Step::Wait,
        _ if observed >= desired => Step::Pause,
        TaskState::New | TaskState::Pending | TaskState::Assigned => {
            Step::Advance(TaskState::Accepted, "accepted")
        }
        TaskState::Accepted => Step::Advance(TaskState::Preparing, "preparing"),
        TaskState::Ready => Step::Advance(TaskState::Starting, "starting"),
        TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Remove
        | TaskState::Orphaned => Step::Pause,
    }
}

/// The state after a step that ended in an error that cannot be tried again.
pub(crate) fn after_error(observed: TaskState) -> TaskState {
    if observed < TaskState::Starting { TaskState::Rejected } else { TaskState::Failed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [TaskState; 14] = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Remove,
        TaskState::Orphaned,
    ];

    /// The state that a step leads to when all goes well.
    fn success(step: Step, observed: TaskState) -> TaskState {
        match step {
            Step::Pause => observed,
            Step::Advance(state, _) => state,
            Step::Prepare => TaskState::Ready,
            Step::Start => TaskState::Running,
            Step::Wait => TaskState::Complete,
            Step::Shutdown => TaskState::Shutdown,
        }
    }

    #[test]
    fn a_good_task_goes_through_all_states() {
        let mut state = TaskState::Assigned;
        let mut seen = Vec::new();
        while state < TaskState::Running {
            state = success(next(TaskState::Running, state), state);
            seen.push(state);
        }
        assert_eq!(
            seen,
            [
                TaskState::Accepted,
                TaskState::Preparing,
                TaskState::Ready,
                TaskState::Starting,
                TaskState::Running
            ]
        );
        assert_eq!(next(TaskState::Running, TaskState::Running), Step::Wait);
    }

    #[test]
    fn a_waiting_task_pauses_when_ready() {
        assert_eq!(next(TaskState::Ready, TaskState::Preparing), Step::Prepare);
        assert_eq!(next(TaskState::Ready, TaskState::Ready), Step::Pause);
        assert_eq!(
            next(TaskState::Running, TaskState::Ready),
            Step::Advance(TaskState::Starting, "starting")
        );
    }

    #[test]
    fn unwanted_tasks_are_stopped_once() {
        for state in ALL {
            let expected = if state >= TaskState::Complete { Step::Pause } else { Step::Shutdown };
            assert_eq!(next(TaskState::Shutdown, state), expected);
            assert_eq!(next(TaskState::Remove, state), expected);
        }
    }

    #[test]
    fn errors_reject_before_the_start_and_fail_after() {
        assert_eq!(after_error(TaskState::Preparing), TaskState::Rejected);
        assert_eq!(after_error(TaskState::Starting), TaskState::Failed);
        assert_eq!(after_error(TaskState::Running), TaskState::Failed);
    }

    proptest! {
        #[test]
        fn states_only_go_up_and_every_task_comes_to_rest(
            desired in prop::sample::select(ALL.to_vec()),
            start in prop::sample::select(ALL.to_vec()),
        ) {
            let mut state = start;
            for _ in 0..ALL.len() {
                let step = next(desired, state);
                if step == Step::Pause {
                    return Ok(());
                }
                let after = success(step, state);
                prop_assert!(after > state, "{state:?} -> {after:?}");
                prop_assert!(after_error(state) > state);
                state = after;
            }
            prop_assert!(false, "no rest from {start:?} to {desired:?}");
        }
    }
}
