//! A real brigd on folders of its own, and the real clients that talk to it.
//!
//! Each [`Brigd`] has its own data root, run directory, socket and swarm port, so tests run side
//! by side; dropping it removes everything it put on the machine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod client;
pub mod cosign;
pub mod daemon;
pub mod dockerd;
pub mod faults;
pub mod footprint;
pub mod history;
pub mod hosts;
pub mod http;
pub mod image;
pub mod layered;
pub mod notary;
pub mod registry;
pub mod remote;
pub mod rights;
pub mod rpc;
pub mod traces;
pub mod workload;

pub use client::{Client, Output};
pub use daemon::Brigd;

use std::time::{Duration, Instant};

/// Asks again until `check` says yes.
///
/// # Panics
/// When it has not said yes within `limit`.
pub fn eventually(what: &str, limit: Duration, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !check() {
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
