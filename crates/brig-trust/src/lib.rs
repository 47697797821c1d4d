//! Content trust: Notary v1's flavour of TUF, as docker's clients and trust servers speak it.
//!
//! What the metadata is and when it may be believed; keys and the files they are kept in; reading
//! a repository's trust data from a server and publishing to it. A tag is believed because keys
//! signed it, not because a server said it: nothing here trusts the network, the server, or the
//! order in which its answers come.
//!
//! It knows no images and no containers. Cryptography comes from `brig-pki`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod canonical;
pub mod error;
pub mod key;
pub mod metadata;
pub mod name;
pub mod root;
pub mod signed;

pub use error::TrustError;
pub use key::{Key, KeyId, KeyType};
pub use metadata::{
    Delegation, Delegations, Document, FileMeta, RoleKeys, Root, Snapshot, Targets, Timestamp,
};
pub use name::{Gun, Role};
pub use root::{Pinning, accept_root};
pub use signed::{Signature, Signed};
