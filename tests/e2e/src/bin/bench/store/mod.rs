//! The cluster's store: writes per second beside dockerd's raft and beside bare etcd, how long it
//! takes until a write is accepted after the loss of the leader, and a manager with many objects.

mod crowd;
mod failover;
mod load;
mod members;
mod write;
mod write3;

use crate::{report, setting};

/// A part of the suite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Writes with one manager.
    Write,
    /// Writes with three.
    Write3,
    /// The leader's host loses power.
    Failover,
    /// Out of a backup.
    Restore,
    /// Starting with what is there.
    Start,
}

impl Part {
    pub(crate) const ALL: [Self; 5] =
        [Self::Write, Self::Write3, Self::Failover, Self::Restore, Self::Start];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Write3 => "write3",
            Self::Failover => "failover",
            Self::Restore => "restore",
            Self::Start => "start",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

pub(crate) fn measure(parts: &[Part]) {
    let rounds = setting("BENCH_ROUNDS", 3);
    for part in parts {
        match part {
            Part::Write => write::measure(rounds),
            Part::Write3 => write3::measure(rounds),
            Part::Failover => failover::measure(rounds),
            Part::Restore => crowd::restore(),
            Part::Start => crowd::start(setting("BENCH_OBJECTS", 100_000)),
        }
    }
}

fn print(what: &str, value: f64, unit: &str, goal: Option<f64>) {
    let goal_text = goal.map(|goal| format!(" (goal: under {goal} {unit})")).unwrap_or_default();
    println!("{what:<44} {value:>9.2} {unit}{goal_text}");
    report::load(what, value, unit, goal);
}
