//! The image store from outside: archives, registries, removal, mounts, full disks.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod fake_registry;
mod hostile;
mod load;
mod make;
mod pull;
mod push;
mod real_registry;
mod remove;
mod snapshot;
