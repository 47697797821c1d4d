//! Why something was not built.

use std::io;
use std::path::{Path, PathBuf};

use brig_image::ImageError;
use brig_network::NetworkError;
use brig_types::error::{Categorized, ErrorKind};

/// Why something was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no buildah.
    #[error(
        "this engine builds with buildah, which is not installed: apt-get install buildah; or use \
         \"docker buildx\" with the docker-container or remote driver"
    )]
    NoBuildah,
    /// The Dockerfile is not in the context.
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    /// The Dockerfile is not text.
    #[error("the Dockerfile is not text")]
    NotText,
    /// A step failed (docker's text).
    #[error("{message}")]
    Failed {
        /// What docker says.
        message: String,
        /// What its client exits with.
        code: i64,
    },
    /// buildah failed beside the build itself.
    #[error("buildah cannot {action}: {detail}")]
    Buildah {
        /// What it was to do.
        action: &'static str,
        /// Its words.
        detail: String,
    },
    /// A build is running.
    #[error("a build is running; try again when it has ended")]
    Busy,
    /// A base image may not be run here.
    #[error(transparent)]
    Refused(#[from] crate::admission::Refused),
    /// The image store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The network of the steps.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The builder's files.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The builder's processes.
    #[error("cannot {action}")]
    Sandbox {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    pub(super) fn sandbox(action: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Sandbox { action, source }
    }

    pub(super) fn disk<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Disk { action, path: path.to_owned(), source }
    }
}

impl Categorized for BuildError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoBuildah => ErrorKind::NotImplemented,
            Self::NoDockerfile(_) | Self::NotText => ErrorKind::InvalidParameter,
            Self::Busy => ErrorKind::Conflict,
            Self::Refused(refused) => refused.kind(),
            Self::Image(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Failed { .. }
            | Self::Buildah { .. }
            | Self::Disk { .. }
            | Self::Sandbox { .. } => ErrorKind::System,
        }
    }
}
