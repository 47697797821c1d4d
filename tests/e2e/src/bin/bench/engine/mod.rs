//! One engine each: containers, images, logs, secrets, services.

mod basics;
mod crowd;
mod image;
mod streams;
mod transfer;

use crate::engines::{Brig, Docker, Engine};
use crate::measure::Comparison;

/// Rounds of what takes seconds.
const FEW: usize = 5;
/// Rounds of what takes a minute.
const VERY_FEW: usize = 3;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A container of one command.
    Run,
    /// A secret, a service with it.
    Swarm,
    /// A pull from a registry beside.
    Pull,
    /// An archive.
    Load,
    /// A command in a running container.
    Exec,
    /// A container that prints much.
    Logs,
    /// Many containers at once, and what they take.
    Parallel,
    /// Listing many containers.
    Ps,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Run,
        Self::Swarm,
        Self::Pull,
        Self::Load,
        Self::Exec,
        Self::Logs,
        Self::Parallel,
        Self::Ps,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Swarm => "swarm",
            Self::Pull => "pull",
            Self::Load => "load",
            Self::Exec => "exec",
            Self::Logs => "logs",
            Self::Parallel => "parallel",
            Self::Ps => "ps",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// Compares one engine of each.
pub(crate) fn measure(parts: &[Part], rounds: usize) {
    let docker = Docker::start();
    let brig = Brig::start();
    let engines: [&dyn Engine; 2] = [&docker, &brig];
    for engine in engines {
        engine.cli(&["load", "-q", "-i", &brig_e2e::image::busybox().display().to_string()]);
        engine.swarm_init();
        engine.cli(&["run", "--rm", "busybox", "true"]);
    }
    println!(
        "{rounds} rounds each (fewer of what takes long), in turns; milliseconds; client and daemon of each side\n"
    );
    println!("{}", Comparison::header());
    for part in parts {
        match part {
            Part::Run => basics::run(engines, rounds),
            Part::Swarm => basics::swarm(engines, rounds),
            Part::Pull => transfer::pull(engines, rounds.min(FEW)),
            Part::Load => transfer::load(engines, rounds.min(FEW)),
            Part::Exec => streams::exec(engines, rounds * 2),
            Part::Logs => streams::logs(engines, rounds.min(VERY_FEW)),
            Part::Parallel => crowd::parallel(engines, rounds.min(VERY_FEW)),
            Part::Ps => crowd::list(engines, rounds * 2),
        }
    }
}
