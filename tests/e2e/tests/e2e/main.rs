//! End to end: real clients, a real daemon, real containers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod access_commands;
mod attach;
mod autolock;
mod backup;
mod build;
mod compose;
mod content_trust;
mod contexts;
mod deployer;
mod disk_usage;
mod dual_stack;
mod errors;
mod external_ca;
mod files;
mod hostile;
mod image_transfer;
mod images;
mod lent;
mod lifecycle;
mod logs;
mod managers;
mod networks;
mod parity;
mod registry;
mod remote;
mod resources;
mod restart;
mod root_rotation;
mod secrets;
mod services;
mod side_by_side;
mod storm;
mod three_hosts;
