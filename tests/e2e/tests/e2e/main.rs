//! End to end: real clients, a real daemon, real containers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attach;
mod errors;
mod images;
mod lifecycle;
mod networks;
mod parity;
mod registry;
mod restart;
mod secrets;
mod services;
mod side_by_side;
