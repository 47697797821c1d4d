//! `container …` and the short forms of its commands.

mod attach;
mod commit;
mod create;
mod exec;
mod flags;
mod lifecycle;
mod logs;
mod misc;
mod ps;
mod request;
mod run;
mod session;

pub(crate) use attach::ATTACH;
pub(crate) use commit::COMMIT;
pub(crate) use create::CREATE;
pub(crate) use exec::EXEC;
pub(crate) use lifecycle::{KILL, PAUSE, RENAME, RESTART, RM, START, STOP, UNPAUSE, WAIT};
pub(crate) use logs::LOGS;
pub(crate) use logs::LogFlags;
pub(crate) use misc::{INSPECT, PORT, TOP};
pub(crate) use ps::{LS, PS, summary_row};
pub(crate) use request::HealthFlags;
pub(crate) use run::RUN;
pub(crate) use session::copy_frames;

use crate::cli::Leaf;

/// `container …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &ATTACH, &COMMIT, &CREATE, &EXEC, &INSPECT, &KILL, &LOGS, &LS, &PAUSE, &PORT, &RENAME,
    &RESTART, &RM, &RUN, &START, &STOP, &TOP, &UNPAUSE, &WAIT,
];
