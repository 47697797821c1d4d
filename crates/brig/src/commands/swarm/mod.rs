//! `swarm …`.

mod ca;
mod init;
mod rotation;
mod spec;
mod token;
mod unlock;

pub(crate) use unlock::print_unlock_key;

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
