//! `context …`.

mod change;
mod show;
mod transfer;

use crate::cli::Leaf;
use crate::context::Context;
use crate::contexts::Store;

/// `context …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &change::CREATE,
    &transfer::EXPORT,
    &transfer::IMPORT,
    &show::INSPECT,
    &show::LS,
    &change::RM,
    &show::SHOW,
    &change::UPDATE,
    &change::USE,
];

fn store(context: &Context) -> Store {
    Store::in_config(&context.globals.config_dir())
}

/// The name of the current context.
fn current(context: &Context) -> String {
    crate::contexts::current(&context.globals, &context.config)
}
