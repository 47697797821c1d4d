//! `image …` and the short forms of its commands.

mod archive;
mod ls;
mod misc;
mod pull;

pub(crate) use archive::{IMPORT, LOAD};
pub(crate) use ls::{IMAGES, LS};
pub(crate) use misc::{HISTORY, INSPECT, RM, RMI, TAG};
pub(crate) use pull::{PULL, pull_for_run};

use crate::cli::Leaf;

/// `image …`.
pub(crate) const COMMANDS: &[&Leaf] = &[&HISTORY, &IMPORT, &INSPECT, &LOAD, &LS, &PULL, &RM, &TAG];
