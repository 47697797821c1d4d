//! What can go wrong with a container's processes.

use std::io;
use std::path::PathBuf;

use brig_types::error::{Categorized, ErrorKind};

use crate::failure::Failure;
use crate::spec::SpecError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A program that brig needs is not installed.
    #[error("{program} is not installed: install the package {package}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A program that the configuration names cannot be run.
    #[error("{} cannot be used as {purpose}", path.display())]
    Program {
        /// What it is for.
        purpose: &'static str,
        /// The configured path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A setting of the container is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file or folder of the runtime.
    #[error("{step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel refused something that has no path.
    #[error("{step}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The OCI runtime could not create the container.
    #[error("failed to create task for container: OCI runtime create failed: {0}: unknown")]
    Create(Failure),
    /// The OCI runtime could not start the container.
    #[error("failed to start task for container: OCI runtime start failed: {0}: unknown")]
    Start(Failure),
    /// The OCI runtime could not start another process.
    #[error("OCI runtime exec failed: exec failed: {0}: unknown")]
    Exec(Failure),
    /// The OCI runtime refused something else.
    #[error("OCI runtime {operation} failed: {message}")]
    Oci {
        /// Its command.
        operation: &'static str,
        /// What it said.
        message: String,
    },
    /// conmon did not do its part.
    #[error("the container's monitor failed: {0}")]
    Monitor(String),
    /// Somebody did not answer.
    #[error("{operation} took longer than {seconds} seconds")]
    Timeout {
        /// What was waited for.
        operation: &'static str,
        /// How long.
        seconds: u64,
    },
    /// There is no such container here.
    #[error("container {0} is not known to the runtime")]
    NotFound(String),
    /// The container has no process.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// The daemon is shutting down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

impl RuntimeError {
    /// The exit status that `docker run` and `docker exec` report for this error: 127 when there is
    /// no such command, 126 when it cannot be run, 125 for everything else.
    #[must_use]
    pub const fn exit_code(&self) -> i32 {
        match self {
            Self::Create(failure) | Self::Start(failure) | Self::Exec(failure) => failure.exit_code,
            _ => 125,
        }
    }

    pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { step, path: path.into(), source }
    }

    pub(crate) const fn system(step: &'static str, source: io::Error) -> Self {
        Self::System { step, source }
    }
}

impl Categorized for RuntimeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec(error) => error.kind(),
            Self::Create(failure) | Self::Start(failure) | Self::Exec(failure)
                if failure.exit_code != 125 =>
            {
                ErrorKind::InvalidParameter
            }
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NotRunning(_) => ErrorKind::Conflict,
            Self::ShuttingDown => ErrorKind::Unavailable,
            _ => ErrorKind::System,
        }
    }
}
