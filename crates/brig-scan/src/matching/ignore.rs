//! The ignore file: exceptions with a reason, an owner and an end.

use serde::Deserialize;

use super::{Finding, Suppression, day, days_between, is_day};
use crate::package::Package;

/// Largest ignore file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    entries: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    ignore: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    #[serde(default)]
    packages: Vec<String>,
    reason: String,
    owner: String,
    #[serde(deserialize_with = "day")]
    expires: String,
}

/// Why an ignore file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IgnoreError {
    /// It is not TOML, or has other fields.
    #[error(
        "the ignore file cannot be read: {0}; an entry looks like this:\n[[ignore]]\nid = \"CVE-2026-1234\"\n\
         packages = [\"openssl\"]  # none: all packages\nreason = \"why\"\nowner = \"who\"\nexpires = \"2026-12-31\""
    )]
    Malformed(String),
    /// An entry lacks what makes it answerable.
    #[error("the ignore file's entry for {id} needs {what}")]
    Incomplete {
        /// Its flaw.
        id: String,
        /// What is missing.
        what: &'static str,
    },
}

impl IgnoreFile {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// [`IgnoreError`]: an exception without a reason, an owner or an end is none.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        if text.len() > MAX_FILE {
            return Err(IgnoreError::Malformed(format!("it is larger than {MAX_FILE} bytes")));
        }
        let document: Document = toml::from_str(text)
            .map_err(|error| IgnoreError::Malformed(error.message().to_owned()))?;
        for entry in &document.ignore {
            let missing = [
                (entry.id.trim().is_empty(), "the id of a flaw"),
                (entry.reason.trim().is_empty(), "a reason"),
                (entry.owner.trim().is_empty(), "an owner"),
                (!is_day(&entry.expires), "an end such as expires = \"2026-12-31\""),
            ];
            if let Some((_, what)) = missing.into_iter().find(|(missing, _)| *missing) {
                return Err(IgnoreError::Incomplete { id: entry.id.clone(), what });
            }
        }
        Ok(Self { entries: document.ignore })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn suppresses(
        &self,
        finding: &Finding,
        package: &Package,
        today: &str,
    ) -> Option<Suppression> {
        let entry = self
            .entries
            .iter()
            .find(|entry| holds(entry, today) && applies(entry, finding, package))?;
        Some(Suppression::Ignore {
            reason: entry.reason.clone(),
            owner: entry.owner.clone(),
            expires: entry.expires.clone(),
        })
    }

    /// A line for each exception that is over.
    pub(super) fn expired(&self, today: &str) -> Vec<String> {
        self.entries
            .iter()
            .filter(|entry| !holds(entry, today))
            .map(|entry| {
                format!(
                    "{} expired on {} (owner {}, {})",
                    entry.id, entry.expires, entry.owner, entry.reason
                )
            })
            .collect()
    }
}

fn holds(entry: &Entry, today: &str) -> bool {
    days_between(today, &entry.expires).is_some_and(|days| days >= 0)
}

fn applies(entry: &Entry, finding: &Finding, package: &Package) -> bool {
    finding.is_named(&entry.id)
        && (entry.packages.is_empty()
            || entry
                .packages
                .iter()
                .any(|name| *name == package.name || *name == finding.evidence.matched))
}
