//! The replicated backend: sealed records in etcd, written by several managers.
//!
//! | key, after `/brig/<cluster>/` | value |
//! | --- | --- |
//! | `s/head` | first and last revision of the last commit, and a random number that is its alone |
//! | `s/o/<kind>/<id>` | revision (8 bytes, big endian) and the sealed value |
//! | `s/n/<keyed hash in hex>` | id of the object that has the name |
//! | `s/w/<writer>` | nothing: this writer was overtaken again and again, the others let it go first |
//! | `l/…` | what ends with a manager's lease: who leads, who is there, whose agents it serves |
//!
//! Every commit is one etcd transaction that compares `s/head` with what the writer last saw and
//! replaces it. So all commits of all managers stand in one row, each writer knows everything
//! that is before its own, and revisions are counted without gaps, as in a single file. Sending
//! the same transaction again is harmless: after a lost answer the writer finds its own random
//! number in the row, or it does not.
//!
//! Sealing a record anew compares the record alone and leaves the head and the revision as they
//! are, so it stands in no row and overtakes nobody.

mod backend;
mod client;
mod layout;
mod live;
mod reseal;
mod watch;

pub use self::backend::{EtcdBackend, Limits};
pub use self::client::{EtcdClient, EtcdError, EtcdTls, MemberInfo};
pub use self::live::{Live, LiveEntries};
