//! `swarm …`.

mod ca;
mod init;
mod rotation;
mod spec;
mod token;
mod unlock;

use crate::cli::Leaf;

/// `swarm …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &ca::CA,
    &init::INIT,
    &init::JOIN,
    &token::JOIN_TOKEN,
    &init::LEAVE,
    &unlock::UNLOCK,
    &unlock::UNLOCK_KEY,
    &spec::UPDATE,
];
