//! `image …` and the short forms of its commands.

mod archive;
mod build;
mod context;
pub(crate) mod export;
mod ls;
mod misc;
mod pull;
mod search;

pub(crate) use archive::{IMPORT, LOAD};
pub(crate) use build::BUILD;
pub(crate) use export::{PUSH, SAVE, push_for_signing};
pub(crate) use ls::{IMAGES, LS, image_rows};
pub(crate) use misc::{HISTORY, INSPECT, RM, RMI, TAG};
pub(crate) use pull::{PULL, pull_for_run};
pub(crate) use search::SEARCH;

use crate::cli::Leaf;

/// `image …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &BUILD,
    &HISTORY,
    &IMPORT,
    &INSPECT,
    &LOAD,
    &LS,
    &super::prune::IMAGE,
    &PULL,
    &PUSH,
    &RM,
    &SAVE,
    &TAG,
];
