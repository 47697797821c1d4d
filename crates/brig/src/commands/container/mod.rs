//! `container …` and the short forms of its commands.

mod attach;
mod commit;
mod cp;
mod create;
mod exec;
mod files;
mod flags;
mod lifecycle;
mod logs;
mod misc;
mod ps;
mod request;
mod run;
mod session;
mod stats;
mod update;

pub(crate) use attach::ATTACH;
pub(crate) use commit::COMMIT;
pub(crate) use cp::CP;
pub(crate) use create::CREATE;
pub(crate) use exec::EXEC;
pub(crate) use files::{DIFF, EXPORT};
pub(crate) use lifecycle::{KILL, PAUSE, RENAME, RESTART, RM, START, STOP, UNPAUSE, WAIT};
pub(crate) use logs::LOGS;
pub(crate) use logs::LogFlags;
pub(crate) use misc::{INSPECT, PORT, TOP};
pub(crate) use ps::{LS, PS, summary_row};
pub(crate) use request::HealthFlags;
pub(crate) use run::RUN;
pub(crate) use session::copy_frames;
pub(crate) use stats::STATS;
pub(crate) use update::UPDATE;

use super::prune::CONTAINER as CONTAINER_PRUNE;
use crate::cli::Leaf;

/// `container …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &ATTACH,
    &COMMIT,
    &CP,
    &CREATE,
    &DIFF,
    &EXEC,
    &EXPORT,
    &INSPECT,
    &KILL,
    &LOGS,
    &LS,
    &PAUSE,
    &PORT,
    &CONTAINER_PRUNE,
    &RENAME,
    &RESTART,
    &RM,
    &RUN,
    &START,
    &STATS,
    &STOP,
    &TOP,
    &UNPAUSE,
    &UPDATE,
    &WAIT,
];
