//! `service …`.

mod changes;
mod create;
mod flags;
mod inspect_service;
mod logs;
mod ls;
mod pretty;
mod progress;
mod references;
mod scale;
mod spec;
mod update;

use crate::cli::Leaf;

/// `service …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &create::CREATE,
    &inspect_service::INSPECT,
    &logs::LOGS,
    &ls::LS,
    &ls::PS,
    &ls::RM,
    &update::ROLLBACK,
    &scale::SCALE,
    &update::UPDATE,
];
