//! May an image with this report start? A policy, exceptions to it, and facts go in; a decision that
//! carries every sentence of a refusal comes out. Nothing here reads a clock, a file or a database.

mod decide;
mod decision;
mod exception;
mod policy;

pub use decide::{Facts, Subject, decide};
pub use decision::{Excepted, Flaw, GateDecision, Outcome, Reason, Trigger, What};
pub use exception::{Exception, Exceptions, Scope};
pub use policy::{Action, DoubtKind, Doubts, Mode, Policy, Rule};

/// Largest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 256 << 10;
/// Most rules of a policy.
const MAX_RULES: usize = 1000;
/// Most exceptions.
const MAX_EXCEPTIONS: usize = 2000;
/// Longest reason or owner of an exception, in bytes.
const MAX_WORDS: usize = 1000;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is larger than what is read.
    #[error("the document has {0} bytes; at most {MAX_DOCUMENT} are read")]
    TooLarge(usize),
    /// It is not UTF-8.
    #[error("the document is not UTF-8")]
    Encoding,
    /// It is neither JSON nor TOML, or has other fields.
    #[error("the document cannot be read: {0}")]
    Malformed(String),
    /// A field's value makes no sense.
    #[error("{field}: {why}")]
    Field {
        /// Which one: `rules[2].epss`.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be written.
    #[error("the document cannot be written")]
    Write(#[source] serde_json::Error),
}

/// Reads JSON, or TOML where it does not begin as JSON does.
fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, DocumentError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(DocumentError::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::Encoding)?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|error| DocumentError::Malformed(error.to_string()));
    }
    toml::from_str(text)
        .map_err(|error| DocumentError::Malformed(error.to_string().trim_end().to_owned()))
}

#[cfg(test)]
mod tests;
