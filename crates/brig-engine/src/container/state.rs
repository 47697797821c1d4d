//! The states of a container and which change follows which: one pure table.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A container's status; the names are the Engine API's `State.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Created and never started, or its first start failed.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It exited and the restart policy will start it again.
    Restarting,
    /// It ran and ended.
    Exited,
    /// Its removal failed; only removal is left.
    Dead,
    /// It is being removed and no longer listed.
    Removing,
}

/// What can happen to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The process was started.
    Start,
    /// A start failed before the process ran.
    StartFailed,
    /// The processes were frozen.
    Pause,
    /// The processes were thawed.
    Unpause,
    /// The process ended and stays down.
    Exit,
    /// The process ended and the restart policy will start it again.
    ExitAndRestart,
    /// The wait for the next automatic start was given up.
    CancelRestart,
    /// Removal began.
    Remove,
    /// Removal failed.
    RemoveFailed,
}

impl Status {
    /// Every status, for tables and filters.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Exited,
        Self::Dead,
        Self::Removing,
    ];

    /// The Engine API's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
            Self::Removing => "removing",
        }
    }

    /// Reads the Engine API's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether a process exists right now.
    #[must_use]
    pub const fn has_process(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether the Engine API calls it running: with a process, or about to get one again.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// The status after `transition`, or `None` where it is not possible.
    #[must_use]
    pub const fn after(self, transition: Transition) -> Option<Self> {
        use Transition as T;
        match (self, transition) {
            (Self::Created | Self::Exited | Self::Restarting, T::Start)
            | (Self::Paused, T::Unpause) => Some(Self::Running),
            (Self::Created, T::StartFailed) => Some(Self::Created),
            (Self::Exited | Self::Restarting, T::StartFailed)
            | (Self::Running | Self::Paused, T::Exit)
            | (Self::Restarting, T::CancelRestart) => Some(Self::Exited),
            (Self::Running, T::Pause) => Some(Self::Paused),
            (Self::Running | Self::Paused, T::ExitAndRestart) => Some(Self::Restarting),
            (Self::Created | Self::Exited | Self::Dead, T::Remove) => Some(Self::Removing),
            (Self::Removing, T::RemoveFailed) => Some(Self::Dead),
            _ => None,
        }
    }
}

/// The process of a running container, as it is found again after a restart of the daemon.
///
/// A pid alone may have been reused; with its start time (field 22 of `/proc/PID/stat`) it is one
/// process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// The container's init process.
    pub pid: i32,
    /// Its start time in clock ticks after boot.
    pub pid_start: u64,
    /// The monitor of the container.
    pub conmon_pid: i32,
    /// The monitor's start time.
    pub conmon_start: u64,
}

/// The recorded state of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// The running process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessFacts>,
    /// The last exit code; 0 before the first.
    #[serde(default)]
    pub exit_code: i32,
    /// Whether the kernel killed a process of the last run for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Why the last start failed, or what was wrong with the last run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// When the last run began.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub started_at: Option<OffsetDateTime>,
    /// When the last run ended.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub finished_at: Option<OffsetDateTime>,
}

impl State {
    /// Applies a transition; `false` (and nothing changed) where the table has none.
    pub fn apply(&mut self, transition: Transition) -> bool {
        match self.status.after(transition) {
            Some(next) => {
                self.status = next;
                if !next.has_process() {
                    self.process = None;
                }
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRANSITIONS: [Transition; 9] = [
        Transition::Start,
        Transition::StartFailed,
        Transition::Pause,
        Transition::Unpause,
        Transition::Exit,
        Transition::ExitAndRestart,
        Transition::CancelRestart,
        Transition::Remove,
        Transition::RemoveFailed,
    ];

    #[test]
    fn words_are_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("bogus"), None);
    }

    #[test]
    fn a_container_with_a_process_cannot_be_started_or_removed() {
        for status in Status::ALL.into_iter().filter(|s| s.has_process()) {
            assert_eq!(status.after(Transition::Start), None);
            assert_eq!(status.after(Transition::Remove), None);
        }
    }

    #[test]
    fn nothing_leaves_removal_but_failure() {
        for transition in TRANSITIONS {
            let next = Status::Removing.after(transition);
            assert_eq!(next.is_some(), transition == Transition::RemoveFailed);
        }
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_process_and_status_together(steps in prop::collection::vec(0..9_usize, 0..40)) {
            let mut state = State::default();
            for step in steps {
                let before = state.status;
                let transition = TRANSITIONS[step];
                let moved = state.apply(transition);
                prop_assert_eq!(moved, before.after(transition).is_some());
                if moved && transition == Transition::Start {
                    state.process = Some(ProcessFacts { pid: 7, pid_start: 1, conmon_pid: 6, conmon_start: 1 });
                }
                prop_assert_eq!(state.process.is_some(), state.status.has_process());
            }
        }
    }
}
