//! The replicated backend: sealed records in etcd, written by several managers.
//!
//! | key, after `/brig/<cluster>/` | value |
//! | --- | --- |
//! | `s/head` | first and last revision of the last commit, its writer, and a random number |
//! | `s/o/<kind>/<id>` | version (8 bytes, big endian) and the sealed value |
//! | `s/n/<keyed hash in hex>` | id of the object that has the name |
//! | `s/w/<writer>` | nothing: this writer was overtaken, the others let it go first |
//! | `l/…` | what ends with a manager's lease: who leads, who is there, whose agents it serves |
//!
//! Every commit is one etcd transaction that compares `s/head` with what the writer last saw and
//! replaces it. So all commits of all managers stand in one row, each writer knows everything
//! that is before its own, and revisions are counted without gaps, as in a single file. Sending
//! the same transaction again is harmless: after a lost answer the writer finds its own random
//! number in the row, or it does not.
//!
//! Many are written together: a commit takes everything that waits at its manager. What another
//! manager committed first overtakes only those transactions that it has to do with (`reads`); the
//! others stand behind it as they are. While several managers write they take turns (`turns`), for
//! of those that send at the same time one gets through.
//!
//! Sealing a record anew compares the record alone and leaves the head and the revision as they
//! are, so it stands in no row and overtakes nobody.

mod backend;
mod client;
mod layout;
mod live;
mod reseal;
mod turns;
mod watch;

pub use self::backend::{EtcdBackend, Limits};
pub use self::client::{EtcdClient, EtcdError, EtcdTls, MemberInfo};
pub use self::live::{Live, LiveEntries};
