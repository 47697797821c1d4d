//! `trust serve` and `trust import`: a trust server of one's own.

mod serve;

use crate::cli::Leaf;

pub(crate) use serve::SERVE;

/// What there is.
pub(crate) const COMMANDS: &[&Leaf] = &[&SERVE];
