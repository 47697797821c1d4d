//! Trees of files as tar archives, both ways: what `cp` and `export` send and take.
//!
//! Both sides of a copy use it: the daemon inside a container's root, the CLI in a local folder.
//! One of the two trees is always somebody else's, so every path is opened by the kernel below a
//! directory that is already open, and no link leads out of it: [`Wanted`] for paths that a caller
//! chose, [`extract`] for those an archive chose. [`pack`] follows no link at all.
//!
//! Nothing is collected: archives stream, whatever their size. Everything here blocks.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod budget;
mod extract;
mod header;
mod node;
mod pack;
mod resolve;

#[cfg(test)]
mod tests;

pub use extract::{ExtractError, ExtractOptions, Owner, extract};
pub use pack::{PackError, pack};
pub use resolve::{Links, Wanted, base_name, clean, evaluate, open};
