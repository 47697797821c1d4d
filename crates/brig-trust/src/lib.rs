//! Content trust: Notary v1's flavour of TUF, as docker's clients and trust servers speak it.
//!
//! What the metadata is and when it may be believed; keys and the files they are kept in; reading
//! a repository's trust data from a server and publishing to it. A tag is believed because keys
//! signed it, not because a server said it: nothing here trusts the network, the server, or the
//! order in which its answers come.
//!
//! Beside it, cosign's signatures by key pair, and as much of a registry as they take.
//!
//! It knows no layers and no containers. Cryptography comes from `brig-pki`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod cache;
pub mod canonical;
pub mod changelist;
pub mod cosign;
pub mod edit;
pub mod error;
pub mod key;
pub mod keystore;
pub mod metadata;
pub mod name;
pub mod policy;
pub mod publish;
pub mod registry;
pub mod remote;
pub mod repository;
pub mod root;
pub mod signed;
pub mod update;

mod files;

pub use edit::{Change, EditError};
pub use error::TrustError;
pub use key::{Key, KeyId, KeyType};
pub use metadata::{
    Delegation, Delegations, Document, FileMeta, RoleKeys, Root, Snapshot, Targets, Timestamp,
};
pub use name::{Gun, Role};
pub use publish::{Keeper, PublishError, Publisher};
pub use repository::{LookupError, Repository, Target};
pub use root::{FirstUse, Pinning, accept_root, check_pinned};
pub use signed::{Demands, Signature, Signed};
pub use update::{Reading, RootCheck, Stale, UpdateError, read_offline, update};
