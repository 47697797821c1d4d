//! The cluster's store: protobuf objects, sealed before they reach a disk, written in
//! transactions, read from memory, and watched.
//!
//! Three parts that know little of each other:
//!
//! - [`Backend`] keeps opaque records durable: files ([`RedbBackend`]) while there is one
//!   manager, etcd ([`etcd::EtcdBackend`]) once there are several. It sees ids, sizes and keyed
//!   hashes of names, never a value.
//! - [`Sealer`] is the port through which values are encrypted; its implementation holds the keys.
//! - [`Store`] holds every object in memory with its indexes. Reads are snapshots and never wait.
//!   Writes are transactions with optimistic checks, durable before they are acknowledged or
//!   seen by anybody.
//!
//! Transactions stand in one row, and their places in it are the store's revisions. An object's
//! `Meta.version.index` grows with every transaction that writes it. With one manager it is that
//! transaction's revision; where another manager's commit, which had nothing to do with it, came in
//! between, it is the revision that the transaction would have had without that one: a lower one,
//! and no other transaction on that object has it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backend;
mod embedded;
mod error;
pub mod etcd;
mod object;
mod reads;
mod reseal;
mod sealer;
mod state;
mod store;
mod tx;
mod watch;
mod writer;

pub use backend::{
    Backend, BackendError, Batch, Content, Foreign, Loaded, NameClaim, News, NewsSink, Revision,
    Room, SealedRecord, Write,
};
pub use embedded::RedbBackend;
#[cfg(feature = "fuzzing")]
pub use embedded::fuzz_log;
pub use error::StoreError;
pub use object::{Index, Kind, Object, StoreObject};
pub use reseal::Usage;
pub use sealer::{BlindName, KeyTag, SealError, Sealer};
pub use state::State;
pub use store::{Store, View};
pub use tx::Tx;
pub use watch::{Change, Commit, WatchError, Watcher};
