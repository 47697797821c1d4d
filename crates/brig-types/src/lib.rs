//! The vocabulary of brig: identifiers, digests, references, names, signals, secrets that cannot
//! be printed, servers' challenges, and the categories that every error falls into.
//!
//! Nothing here does I/O or is async, so every other crate may depend on it. The constructors of
//! these types are the only validators: whoever holds one holds a valid one.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod challenge;
pub mod digest;
pub mod error;
pub mod id;
pub mod name;
pub mod prefix;
pub mod reference;
pub mod secret;
pub mod signal;

use std::collections::BTreeMap;

/// Free-form key-value labels, ordered so that every listing is stable.
pub type Labels = BTreeMap<String, String>;
