//! The database of advisories: feeds in, one index file out.
//!
//! Importers read the publishers' own formats into [`Collector`]; [`Collector::write`] sorts, joins
//! the names of one flaw and writes an immutable file. [`Index`] maps that file and reads it as it
//! lies, so that opening costs nothing; each block is held against its checksum when it is first
//! read.

mod age;
mod build;
mod collect;
mod format;
pub mod import;
mod index;
mod space;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use age::Coverage;
pub use collect::{Collector, End, Flaw, Range, Row, State, Tier};
pub use index::{Index, Interval, Kev, Row as IndexRow, Space, Vulnerability};
pub(crate) use space::is_language;
pub use space::{SpaceName, language_space, os_spaces};

/// Why a database cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// There is no file yet.
    #[error("no vulnerability database at {}; make one with: brig scan db update", .0.display())]
    Missing(PathBuf),
    /// The file cannot be opened or mapped.
    #[error("cannot open the vulnerability database {}", .0.display())]
    Open(PathBuf, #[source] std::io::Error),
    /// The file is no index, or one of another version.
    #[error(
        "the vulnerability database is of another kind ({0}); make it anew with: brig scan db update"
    )]
    Foreign(String),
    /// A checksum or a reference inside the file is wrong.
    #[error(
        "the vulnerability database is damaged ({0}); fetch it again with: brig scan db update"
    )]
    Damaged(&'static str),
    /// A feed cannot be read.
    #[error("cannot read the feed {0}")]
    Feed(String, #[source] std::io::Error),
    /// A feed is larger than what is read.
    #[error("the feed {0} is larger than {1} bytes")]
    TooLarge(String, u64),
    /// Nothing in the feed was understood.
    #[error("nothing in the feed {0} is in a format that is known here")]
    Unknown(String),
    /// The index does not fit its own numbers.
    #[error("too much data for one index: more than {0}")]
    Full(&'static str),
    /// The new file cannot be written.
    #[error("cannot write the vulnerability database {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
}

/// A source of data and how old it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Its short name.
    pub name: String,
    /// Where it came from: a file, a folder or an address.
    pub origin: String,
    /// Newest day among its records (`2026-08-21`); empty when none has one.
    pub newest: String,
    /// Whether it says how urgent flaws are (KEV, EPSS): then its date is not that of an advisory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enriches: bool,
    /// The distributions and ecosystems whose advisories it has, each with the newest day of a record
    /// about it; empty when none has one. Databases of older programs do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<BTreeMap<String, String>>,
    /// When it was read.
    pub read: String,
    /// Records understood.
    pub records: u64,
    /// Records that were not.
    pub skipped: u64,
    /// One of the reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_because: Option<String>,
}

/// When a distribution's release ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its space, such as `debian:12`.
    pub space: String,
    /// Its codename.
    pub codename: String,
    /// The end of support for everybody (`2026-07-11`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The end of long-term support for everybody (Debian LTS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_lts: Option<String>,
    /// The end of support for those who pay (ELTS, ESM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_paid: Option<String>,
}

/// A source package that its distribution does not support in full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// The release it holds for, such as `debian:12`; empty for all of Debian's.
    pub space: String,
    /// Source package; `golang.*` ends in a pattern.
    pub package: String,
    /// When support ended; none where it is only limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What the distribution says about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

#[cfg(test)]
mod tests;
