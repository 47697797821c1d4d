//! One line of the audit log.
//!
//! A line is `{"hash":"…","entry":{…}}`. The hash is SHA-256 over the previous line's hash and
//! the bytes of the entry exactly as they stand, so nothing about a line can change, and no line
//! can go or move, without all later hashes being wrong.

use brig_pki::hash;
use serde::{Deserialize, Serialize};

/// What the first line's hash builds on.
pub const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const OPEN: &str = "{\"hash\":\"";
const MIDDLE: &str = "\",\"entry\":";
const HASH_LEN: usize = START.len();

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something was allowed or denied.
    #[default]
    Decision,
    /// Something that was allowed was answered.
    Outcome,
    /// The rules were read.
    Rules,
    /// The log itself was found damaged.
    Alarm,
}

/// An entry. Bodies and secrets are never part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// What happened.
    pub kind: Kind,
    /// Ties a decision to its outcome.
    pub request: String,
    /// Who: `uid:0`, `cert:ci`.
    pub principal: String,
    /// `unix`, `tls`, `ssh`, `lent`.
    pub transport: String,
    /// The container by whose lent socket it came.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// `service.update`.
    pub action: String,
    /// Name of the object.
    pub object: String,
    /// The role that counted.
    pub role: String,
    /// The policy that decided.
    pub rule: String,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// In words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The hash of an entry after another.
#[must_use]
pub fn chained(previous: &str, entry: &str) -> String {
    let mut sum = hash::Sha256::new();
    sum.update(previous.as_bytes());
    sum.update(entry.as_bytes());
    hash::hex(&sum.finish())
}

/// The line of an entry, with its newline, and its hash.
///
/// # Errors
/// When the entry can't be written as JSON.
pub fn line(previous: &str, entry: &Entry) -> Result<(String, String), serde_json::Error> {
    let text = serde_json::to_string(entry)?;
    let sum = chained(previous, &text);
    Ok((format!("{OPEN}{sum}{MIDDLE}{text}}}\n"), sum))
}

/// Splits a line without its newline into its hash and its entry's text.
#[must_use]
pub fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix(OPEN)?;
    let (sum, rest) = rest.split_at_checked(HASH_LEN)?;
    let entry = rest.strip_prefix(MIDDLE)?.strip_suffix('}')?;
    sum.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some((sum, entry))
}
