//! End to end: real clients, a real daemon, real containers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attach;
mod build;
mod disk_usage;
mod errors;
mod external_ca;
mod image_transfer;
mod images;
mod lifecycle;
mod networks;
mod registry;
mod restart;
mod root_rotation;
mod secrets;
mod services;
mod side_by_side;
mod three_hosts;
