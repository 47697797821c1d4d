//! Swarm mode: what makes several nodes one cluster.
//!
//! - [`Swarm`] is this node's membership: creating a swarm or joining one, taking it up again after a restart,
//!   leaving it.
//! - [`Control`] is the cluster as managers see it: services, tasks, nodes, secrets, configs.
//! - [`Executor`] and [`Controller`] are the port through which the agent runs containers; the
//!   daemon plugs its engine in there.
//!
//! Managers and agents talk SwarmKit's gRPC over mutual TLS, also inside one process, so there is
//! one way for a task from the store to a container. Nothing here knows the engine, and nothing
//! knows the HTTP API.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod agent;
mod backup;
mod error;
mod executor;
mod expiry;
mod grpc;
mod inventories;
mod manager;
mod node;
mod replica;
mod task;
mod validate;
mod wire_time;

#[cfg(feature = "fuzzing")]
pub use backup::fuzz_backup;
pub use backup::{Backup, BackupError, BackupHeader, BackupSummary, Snapshot};
pub use error::{ControlError, SwarmError};
pub use executor::{Controller, Dependencies, Executor, ExitStatus, TaskError};
pub use expiry::{Expiry, ExpiryKind, ExpiryState};
pub use grpc::clock::ClockOffset;
pub use inventories::ImageInventories;
#[cfg(feature = "fuzzing")]
pub use manager::ca::external::fuzz_answer;
pub use manager::control::{
    BehindReason, Control, LogStream, NodeBehind, RegistryAuthFrom, TokenRotation, TrustRecords,
    UpdateOptions,
};
pub use manager::join_tokens::TokenLimit;
pub use manager::keys::DataKeyStatus;
pub use manager::scan_files::{FetchError, scan_file_name};
pub use node::{
    InitRequest, JoinRequest, LocalNodeState, RestoreRequest, Swarm, SwarmConfig, SwarmStatus,
};
pub use replica::{ExternalStore, StoreSettings};
