//! Containers' processes: an OCI runtime (crun, else runc) under conmon.
//!
//! [`spec`] turns a container's settings into an OCI configuration without touching anything.
//! [`Runtime`] creates, starts, signals and deletes containers, runs more processes in them, hands
//! out their terminals ([`Console`]) and reports how they ended ([`Exits`]). conmon, one per
//! container, keeps them running while the daemon is away; [`Runtime::recover`] finds them again.
//!
//! This crate knows nothing of images, networks, names or the Engine API.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod apparmor;
mod config;
mod conmon;
mod console;
mod control;
mod create;
mod error;
mod exec;
mod exits;
mod facts;
mod failure;
mod launch;
mod recover;
mod runtime;
mod sealed;
mod seccomp;
pub mod spec;
mod supervise;

pub use apparmor::AppArmor;
pub use config::{Flavor, RuntimeConfig};
pub use console::{
    Console, ConsoleError, ConsoleOutput, OutputChunk, PIECE_COST, STALL_LIMIT, SUBSCRIBER_BUFFER,
    StdStream,
};
pub use control::{OciState, OciStatus};
pub use create::{CreateRequest, Created, LogTarget};
pub use error::RuntimeError;
pub use exec::{Exec, ExecExit, ExecRequest};
pub use exits::{ExitInfo, Exits};
pub use facts::HostFacts;
pub use failure::Failure;
pub use recover::{Adopted, ContainerRecord};
pub use runtime::Runtime;
