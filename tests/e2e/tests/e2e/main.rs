//! End to end: real clients, a real daemon, real containers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attach;
mod contexts;
mod errors;
mod images;
mod lifecycle;
mod networks;
mod registry;
mod remote;
mod restart;
mod root_rotation;
mod secrets;
mod services;
mod side_by_side;
