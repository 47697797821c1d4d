//! What can go wrong in the CLI, and the exit status that each case has.

use std::io;

/// Exit status of `run`, `create` and bad flags when the container itself never ran.
pub(crate) const STATUS_FAILED_TO_RUN: u8 = 125;
/// Exit status when the command exists but cannot be invoked.
pub(crate) const STATUS_NOT_EXECUTABLE: u8 = 126;
/// Exit status when the command does not exist.
pub(crate) const STATUS_NOT_FOUND: u8 = 127;

/// The CLI's result.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The daemon's text.
        message: String,
    },
    /// The context in use names no endpoint.
    #[error("Failed to initialize: unable to resolve docker endpoint: {0}")]
    Endpoint(String),
    /// There is no daemon at the address.
    #[error(
        "Cannot connect to the brig daemon at {address}: {reason}. Is the brig daemon running? Start it with: systemctl start brig"
    )]
    Connect {
        /// The endpoint, as a URL.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Nothing answers at the address of another host.
    #[error(
        "Cannot connect to the brig daemon at {address}: {reason}. Is the brig daemon running? Check the address, and that brigd listens there: -H tcp://ADDRESS:PORT --tlsverify"
    )]
    Unreachable {
        /// The endpoint, as a URL.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Client and daemon do not believe each other.
    #[error("error during connect: TLS handshake with {address}")]
    Handshake {
        /// The endpoint, as a URL.
        address: String,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the answer was not HTTP.
    #[error("error during connect: {what}")]
    Http {
        /// What was being done.
        what: &'static str,
        /// The HTTP library's error.
        #[source]
        source: hyper::Error,
    },
    /// The daemon's answer is not what the API says.
    #[error("the daemon's answer to {path} cannot be read")]
    Answer {
        /// The request's path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file or the terminal.
    #[error("{what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whoever read our output has gone: not an error.
    #[error("broken pipe")]
    BrokenPipe,
    /// The command line is wrong.
    #[error("{text}")]
    Usage {
        /// The whole text, hint included.
        text: String,
        /// Exit status.
        status: u8,
    },
    /// Text for the user.
    #[error("{0}")]
    Message(String),
    /// Another error with a status of its own.
    #[error("{text}")]
    Failed {
        /// The whole text.
        text: String,
        /// Exit status.
        status: u8,
    },
    /// Nothing to say: the exit status is the message.
    #[error("exit status {0}")]
    Status(u8),
}

impl Error {
    /// An I/O error with what was being done.
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The process's exit status.
    pub(crate) const fn exit_status(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Usage { status, .. } | Self::Failed { status, .. } | Self::Status(status) => {
                *status
            }
            _ => 1,
        }
    }

    /// Whether there is something to print.
    pub(crate) const fn is_silent(&self) -> bool {
        matches!(self, Self::BrokenPipe | Self::Status(_))
    }

    /// Whether the daemon has no such object.
    pub(crate) const fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { status: 404, .. })
    }

    /// The error and its causes in one line.
    pub(crate) fn text(&self) -> String {
        brig_types::error::chain(self)
    }

    /// What `run`, `create` and `start -a` exit with when the daemon could not start the
    /// container: docker's rule looks at the text.
    pub(crate) fn run_status(&self) -> u8 {
        let text = self.text();
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if has(&[
            "executable file not found",
            "no such file or directory",
            "system cannot find the file specified",
        ]) {
            STATUS_NOT_FOUND
        } else if has(&["permission denied", "is a directory"]) {
            STATUS_NOT_EXECUTABLE
        } else {
            STATUS_FAILED_TO_RUN
        }
    }
}

/// Shorthand for text errors.
pub(crate) fn message(text: impl Into<String>) -> Error {
    Error::Message(text.into())
}

/// Runs through several targets: successes are handled as they come, failures are collected into
/// one error, as docker does for `stop a b c`.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Keeps an error for the end; a broken pipe ends everything.
    pub(crate) fn keep<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::BrokenPipe) => Err(Error::BrokenPipe),
            Err(error) => {
                self.0.push(error.text());
                Ok(None)
            }
        }
    }

    /// All errors as one.
    pub(crate) fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(message(self.0.join("\n"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_status_follows_the_daemons_text() {
        let api = |m: &str| Error::Api { status: 400, message: m.to_owned() };
        assert_eq!(api("x: executable file not found in $PATH: unknown").run_status(), 127);
        assert_eq!(api("exec: \"/etc\": permission denied").run_status(), 126);
        assert_eq!(api("exec: \"/etc\": is a directory").run_status(), 126);
        assert_eq!(api("Conflict.").run_status(), 125);
    }

    #[test]
    fn failures_are_one_error_at_the_end() {
        let mut failures = Failures::default();
        assert_eq!(failures.keep(Ok(1)).unwrap(), Some(1));
        assert_eq!(failures.keep::<()>(Err(message("a"))).unwrap(), None);
        assert_eq!(failures.keep::<()>(Err(message("b"))).unwrap(), None);
        assert!(failures.keep::<()>(Err(Error::BrokenPipe)).is_err());
        assert_eq!(failures.finish().unwrap_err().text(), "a\nb");
    }
}
