//! `cluster …`: what the cluster's store is sealed with, and copies of it.

mod backup;
mod keys;
mod opening;
mod restore;

use crate::cli::Leaf;

/// `cluster …`.
pub(crate) const COMMANDS: &[&Leaf] = &[&backup::BACKUP, &keys::KEYS, &restore::RESTORE];
