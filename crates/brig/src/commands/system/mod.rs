//! `system …`, and `version`, `info`, `events`, `inspect`, `login`, `logout`.

mod df;
mod dial;
mod events;
mod expiring;
mod info;
mod inspect;
mod login;
mod version;

pub(crate) use events::EVENTS;
pub(crate) use info::INFO;
pub(crate) use inspect::INSPECT;
pub(crate) use login::{LOGIN, LOGOUT};
pub(crate) use version::VERSION;

use crate::cli::Leaf;

/// `system …`.
pub(crate) const COMMANDS: &[&Leaf] =
    &[&df::DF, &dial::DIAL_STDIO, &EVENTS, &expiring::EXPIRING, &INFO, &super::prune::SYSTEM];
