//! The categories every error falls into.
//!
//! Crates keep their own typed errors; the edges (HTTP status, gRPC code, exit status) only look
//! at the category, so that one table decides them.

/// What kind of failure an error is, from the caller's point of view.
///
/// The comments name the HTTP status that the Docker Engine API uses for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong (400).
    InvalidParameter,
    /// The caller did not prove who it is (401).
    Unauthorized,
    /// The caller may not do this (403).
    Forbidden,
    /// There is no such object (404).
    NotFound,
    /// The object's state does not allow it, or the name is taken (409).
    Conflict,
    /// There is nothing to do (304).
    NotModified,
    /// The feature is not there (501).
    NotImplemented,
    /// Not now: the node is not a manager, is locked, or is shutting down (503).
    Unavailable,
    /// Anything else: disk, kernel, a bug (500).
    System,
}

impl ErrorKind {
    /// The HTTP status of the Engine API for this kind.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidParameter => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::NotModified => 304,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
            Self::System => 500,
        }
    }
}

/// An error that knows its category.
pub trait Categorized: std::error::Error {
    /// The category that the edges translate into a status.
    fn kind(&self) -> ErrorKind;
}

/// Writes an error and its chain of causes as one line, `: ` between them.
///
/// Causes are never repeated in `Display`, so the chain reads as one sentence.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !text.is_empty() && !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = next.source();
    }
    line
}
