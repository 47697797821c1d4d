//! The cluster's store: protobuf objects, sealed before they reach a disk, written in
//! transactions, read from memory, and watched.
//!
//! Three parts that know little of each other:
//!
//! - [`Backend`] keeps opaque records durable: one file ([`RedbBackend`]) while there is one
//!   manager, etcd ([`etcd::EtcdBackend`]) once there are several. It sees ids, sizes and keyed
//!   hashes of names, never a value.
//! - [`Sealer`] is the port through which values are encrypted; its implementation holds the keys.
//! - [`Store`] holds every object in memory with its indexes. Reads are snapshots and never wait.
//!   Writes are transactions with optimistic checks, durable before they are acknowledged or
//!   seen by anybody.
//!
//! An object's `Meta.version.index` is the revision of the transaction that wrote it, a counter
//! over the whole store.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backend;
mod error;
pub mod etcd;
mod object;
mod redb_backend;
mod reseal;
mod sealer;
mod state;
mod store;
mod tx;
mod watch;
mod writer;

pub use backend::{
    Backend, BackendError, Batch, Content, Foreign, Loaded, NameClaim, News, NewsSink, Revision,
    SealedRecord, Write,
};
pub use error::StoreError;
pub use object::{Index, Kind, Object, StoreObject};
pub use redb_backend::RedbBackend;
pub use reseal::Usage;
pub use sealer::{BlindName, KeyTag, SealError, Sealer};
pub use state::State;
pub use store::{Store, View};
pub use tx::Tx;
pub use watch::{Change, Commit, WatchError, Watcher};
