//! What can go wrong in the engine, in the words that docker's users and tools know.

use std::io;
use std::path::{Path, PathBuf};

use brig_types::error::{Categorized, ErrorKind};
use brig_types::id::ContainerId;

/// An error of the engine. The texts of what callers can cause are docker's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A request that is wrong in itself.
    #[error("{0}")]
    Invalid(String),
    /// No container has that name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// More than one id begins so.
    #[error("Multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// The name belongs to another container.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The wanted name.
        name: String,
        /// Who has it.
        owner: String,
    },
    /// A rename to a taken name.
    #[error("Error when allocating new name: {0}")]
    Rename(#[source] Box<EngineError>),
    /// The operation needs a running container.
    #[error("Container {0} is not running")]
    NotRunning(String),
    /// A signal for a container that doesn't run.
    #[error("Cannot kill container: {name}: Container {id} is not running")]
    KillNotRunning {
        /// What the caller called it.
        name: String,
        /// Its id.
        id: ContainerId,
    },
    /// The state does not allow the operation.
    #[error("{0}")]
    Conflict(String),
    /// A running container can only be removed by force.
    #[error(
        "You cannot remove a running container {0}. Stop the container before attempting removal or force remove"
    )]
    RemoveRunning(ContainerId),
    /// It is already as it should be.
    #[error("nothing to do")]
    NotModified,
    /// Not paused.
    #[error("Container {0} is not paused")]
    NotPaused(String),
    /// Unknown exec instance.
    #[error("No such exec instance: {0}")]
    NoSuchExec(String),
    /// Unknown volume.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// Unknown volume driver.
    #[error(
        "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )]
    NoSuchVolumeDriver {
        /// The volume.
        name: String,
        /// The driver asked for.
        driver: String,
    },
    /// Containers have the volume.
    #[error("remove {name}: volume is in use - [{users}]")]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Ids of the containers.
        users: String,
    },
    /// A volume's own mount options failed.
    #[error("failed to mount local volume {name}")]
    VolumeMount {
        /// The volume.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A volume's own mount takes too long.
    #[error(
        "failed to mount local volume {name}: {device} did not answer within {seconds} seconds; check that its server is reachable from this host, then start the container again"
    )]
    VolumeMountTime {
        /// The volume.
        name: String,
        /// What was to be mounted.
        device: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The feature is not there.
    #[error("{0}")]
    NotImplemented(&'static str),
    /// A container's settings could not be changed.
    #[error("Cannot update container {id}")]
    Update {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: Box<EngineError>,
    },
    /// It is not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// No such path in a container.
    #[error("Could not find the file {path} in container {container}")]
    NoSuchFile {
        /// The path as the caller wrote it.
        path: String,
        /// The container as the caller called it.
        container: String,
    },
    /// An archive could not be extracted.
    #[error(transparent)]
    Extract(#[from] brig_archive::ExtractError),
    /// The engine is going down.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// A file or directory of the engine's own.
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
    /// A kernel operation for a container failed.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// From the image store.
    #[error(transparent)]
    Image(#[from] brig_image::ImageError),
    /// From the runtime.
    #[error(transparent)]
    Runtime(#[from] brig_runtime::RuntimeError),
    /// From a container's streams.
    #[error(transparent)]
    Console(#[from] brig_runtime::ConsoleError),
    /// From the networks.
    #[error(transparent)]
    Network(#[from] brig_network::NetworkError),
}

impl EngineError {
    pub(crate) fn disk(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Disk { action, path: path.to_owned(), source }
    }

    pub(crate) fn system(action: &'static str, source: io::Error) -> Self {
        Self::System { action, source }
    }

    /// The exit code that a container gets whose start failed with this.
    #[must_use]
    pub fn start_exit_code(&self) -> i32 {
        match self {
            Self::Runtime(error) if matches!(error.exit_code(), 126 | 127) => error.exit_code(),
            _ => 128,
        }
    }
}

impl Categorized for EngineError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::AmbiguousId(_) => ErrorKind::InvalidParameter,
            Self::Extract(brig_archive::ExtractError::Write { .. }) => ErrorKind::System,
            Self::Extract(_) => ErrorKind::InvalidParameter,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Update { source, .. } => source.kind(),
            Self::NoSuchContainer(_)
            | Self::NoSuchFile { .. }
            | Self::NoSuchExec(_)
            | Self::NoSuchVolume(_)
            | Self::NoSuchVolumeDriver { .. } => ErrorKind::NotFound,
            Self::NameInUse { .. }
            | Self::Rename(_)
            | Self::NotRunning(_)
            | Self::KillNotRunning { .. }
            | Self::Conflict(_)
            | Self::RemoveRunning(_)
            | Self::VolumeInUse { .. } => ErrorKind::Conflict,
            Self::NotModified => ErrorKind::NotModified,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::ShuttingDown => ErrorKind::Unavailable,
            Self::NotPaused(_)
            | Self::VolumeMount { .. }
            | Self::VolumeMountTime { .. }
            | Self::Disk { .. }
            | Self::System { .. } => ErrorKind::System,
            Self::Image(error) => error.kind(),
            Self::Runtime(error) => error.kind(),
            Self::Network(error) => error.kind(),
            Self::Console(error) => error.kind(),
        }
    }
}
