//! Images of one node: pulled from registries, loaded from archives, kept unpacked, mounted as
//! container root file systems.
//!
//! The crate owns everything below `<data root>/image` and `<data root>/overlay`. It knows the
//! registry protocol (OCI distribution spec), image formats (Docker schema 2, OCI), layer archives
//! and overlayfs; it knows nothing of containers but their ids, and nothing of the API's JSON.
//!
//! Everything that comes from outside is verified before it is used: manifests, configs and layers
//! by digest and size, unpacked layers by their diff id. Limits are in [`limits::Limits`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod archive;
pub mod changes;
pub mod config;
pub mod error;
pub mod limits;
pub mod manifest;
pub mod platform;
pub mod progress;
pub mod registry;
pub mod snapshot;
pub mod store;
pub mod unpack;

mod commit;
mod context;
mod distribution;
mod import;
mod layer;
mod load;
mod login;
mod pull;
mod push;
mod save;
mod upper;

#[cfg(feature = "fuzzing")]
pub use archive::fuzz_archive;
pub use commit::CommitOptions;
pub use config::{HistoryItem, ImageConfig, RunConfig};
pub use context::BuildContext;
pub use distribution::DistributionInfo;
pub use error::{ImageError, RegistryError, UnpackError};
pub use import::ImportOptions;
pub use layer::LayerArchive;
pub use limits::Limits;
pub use load::Loaded;
pub use platform::Platform;
pub use progress::{LayerState, Progress, ProgressSink};
pub use pull::PullOutcome;
pub use push::Pushed;
pub use registry::{Credentials, RegistrySettings, SearchResult};
pub use save::{Pieces, Save};
pub use snapshot::Snapshots;
pub use upper::write_changes;

pub use store::remove::{ContainerUse, Deleted};
pub use store::{HistoryEntry, Image, ImageStore, OpenOptions};
