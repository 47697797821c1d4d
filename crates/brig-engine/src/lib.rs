//! The container engine of one node: containers and what they print, further processes in them,
//! volumes, secrets in their memory, events.
//!
//! It joins what the image, runtime and network crates do into Docker's model and owns the records
//! on disk. It knows nothing of HTTP and nothing of a cluster: callers hand it the Engine API's
//! own request structs, and secrets as bytes. Entry point: [`Engine::start`].
//!
//! Invariants: one engine per data root; a container's record is written before anybody is told
//! of the change; containers outlive the engine, and the next one takes them over
//! (`container::recovery`); nothing secret reaches a disk, a record or a log (`secrets`).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admission;
pub mod config;
pub mod container;
pub mod engine;
pub mod error;
pub mod events;
pub mod secrets;
pub mod volumes;

mod disk;
mod guard;
mod lent;
mod users;

pub use admission::{Admission, AdmissionRequest, Admitted, Occasion, Origin, Refusal};
pub use config::EngineConfig;
pub use container::archive::{ArchiveWrite, ByteStream};
pub use container::attach::{AttachRequest, AttachedStreams, OutputChunk, StdinWriter, Written};
pub use container::commit::CommitRequest;
pub use container::exec::{ExecStart, ExecTarget, PendingExec};
pub use container::list::ListOptions;
#[cfg(feature = "fuzzing")]
pub use container::logs::fuzz_log;
pub use container::logs::{LogLine, LogStream, LogsRequest, Tail};
pub use container::names::random_name;
pub use container::remove::RemoveOptions;
pub use container::start::StartOptions;
pub use container::stats::StatsRequest;
pub use container::wait::{WaitCondition, WaitHandle, WaitOutcome};
pub use engine::Engine;
pub use error::EngineError;
pub use events::{EventBus, EventSubscription};
pub use lent::LentSocket;
pub use secrets::SecretFile;
pub use volumes::{VolumeInfo, Volumes};
