//! Errors of images. Texts that people script against are docker's.

use std::io;
use std::path::{Path, PathBuf};

use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind};
use brig_types::reference::InvalidReference;

/// Anything that goes wrong with images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file operation in the store failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file system is full.
    #[error("{doing} {}: no space left on device", path.display())]
    NoSpace {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// The file system has less room than an image's missing layers take even compressed.
    #[error(
        "no space left on device: the image's missing layers are {needed} bytes before they are \
         unpacked, and {} has {free} bytes free: \"brig system df\" and \"brig image prune -a\" find \
         more",
        path.display()
    )]
    NoRoom {
        /// Where images are kept.
        path: PathBuf,
        /// What the layers' descriptors add up to.
        needed: u64,
        /// What the file system says is left.
        free: u64,
    },
    /// A stored file does not have the expected content.
    #[error("the image store's {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is no such image.
    #[error("No such image: {0}")]
    NotFound(String),
    /// Removal is refused (docker's texts).
    #[error("{0}")]
    Conflict(String),
    /// The reference is malformed.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A tag was expected.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    /// The platform is malformed.
    #[error(transparent)]
    Platform(#[from] crate::platform::InvalidPlatform),
    /// The registry or the way to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer cannot be unpacked.
    #[error("failed to register layer {layer}")]
    Layer {
        /// Digest or diff id of the layer, shortened.
        layer: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// An image's manifest or configuration cannot be used.
    #[error("invalid image: {0}")]
    InvalidImage(String),
    /// The image is for something else than this machine.
    #[error("image operating system {0:?} cannot be used on this platform")]
    WrongOs(String),
    /// An image is there, but for another platform than was asked for.
    #[error(
        "image with reference {reference} was found but does not match the specified platform: \
         wanted {wanted}, actual: {actual}"
    )]
    WrongPlatform {
        /// The reference.
        reference: String,
        /// What was asked for.
        wanted: String,
        /// What is there.
        actual: String,
    },
    /// A `docker save` or OCI archive cannot be used.
    #[error("invalid archive: {0}")]
    Archive(String),
    /// An archive cannot be read.
    #[error("reading the archive")]
    ArchiveRead(#[source] io::Error),
    /// A `--change` directive is wrong.
    #[error("{0}")]
    Change(String),
    /// A layer went away while it was needed.
    #[error("layer {0} is gone")]
    LayerGone(String),
    /// A layer that was unpacked before headers were noted.
    #[error(
        "layer {0} was stored by an earlier version, which did not keep what saving and pushing \
         need: remove the image and pull or load it again"
    )]
    NoArchive(String),
    /// A saved tag does not exist (docker's text).
    #[error("reference does not exist")]
    NoReference,
    /// What a push is about is not here (docker's texts).
    #[error("{0}")]
    NotPushable(String),
    /// The registry has no index to search (docker's texts).
    #[error("{0}")]
    Search(String),
    /// A container's layers cannot be mounted or taken away.
    #[error("{doing} the root file system of container {container}")]
    Snapshot {
        /// What was tried.
        doing: &'static str,
        /// The container.
        container: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are no layers for the container.
    #[error("container {0} has no root file system")]
    NoSnapshot(String),
    /// The machine went down while the container's layer was mounted without syncing.
    #[error(
        "the writable layer of container {0} was not synced before the machine went down and \
         cannot be used again"
    )]
    VolatileLost(String),
    /// A worker thread ended unexpectedly.
    #[error("an image task ended unexpectedly")]
    Task(#[source] tokio::task::JoinError),
}

impl ImageError {
    /// Wraps an I/O error, telling a full disk apart.
    pub(crate) fn io<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| {
            if is_full(&source) {
                Self::NoSpace { doing, path: path.to_owned() }
            } else {
                Self::Io { doing, path: path.to_owned(), source }
            }
        }
    }

    pub(crate) fn layer(id: &Digest) -> impl FnOnce(UnpackError) -> Self {
        let layer = id.short().to_owned();
        move |source| Self::Layer { layer, source }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Categorized for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_)
            | Self::NoReference
            | Self::NotPushable(_)
            | Self::NoSnapshot(_)
            | Self::WrongPlatform { .. } => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Reference(_)
            | Self::TagWithDigest
            | Self::Platform(_)
            | Self::Change(_)
            | Self::Archive(_)
            | Self::InvalidImage(_)
            | Self::WrongOs(_) => ErrorKind::InvalidParameter,
            Self::Registry(error) => error.kind(),
            Self::Layer { .. }
            | Self::Io { .. }
            | Self::NoSpace { .. }
            | Self::NoRoom { .. }
            | Self::Damaged { .. }
            | Self::ArchiveRead(_)
            | Self::LayerGone(_)
            | Self::NoArchive(_)
            | Self::Search(_)
            | Self::Snapshot { .. }
            | Self::VolatileLost(_)
            | Self::Task(_) => ErrorKind::System,
        }
    }
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The path leads out of the layer.
    #[error("layer entry {0:?} escapes the root")]
    Escapes(String),
    /// The entry makes no sense.
    #[error("layer entry {entry:?} is invalid: {reason}")]
    Invalid {
        /// The entry's path.
        entry: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A kind of entry that does not exist in layers.
    #[error("layer entry {entry:?} has the unknown type {kind:?}")]
    UnknownType {
        /// The entry's path.
        entry: String,
        /// The type flag of its header.
        kind: char,
    },
    /// A bound was passed.
    #[error("layer is too large: more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The archive or its compression is broken, or its source failed.
    #[error("reading the layer archive")]
    Read(#[source] io::Error),
    /// What the archive has beside its files cannot be noted.
    #[error("noting the layer's headers")]
    Log(#[source] io::Error),
    /// A compression that layers do not use.
    #[error("layer is compressed with {0}, which is not supported")]
    Compression(&'static str),
    /// A file could not be made.
    #[error("creating {entry:?}")]
    Create {
        /// The entry's path.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system is full.
    #[error("creating {entry:?}: no space left on device")]
    NoSpace {
        /// The entry's path.
        entry: String,
    },
    /// The compressed bytes are not what the manifest names.
    #[error("filesystem layer verification failed for digest {expected}: got {actual}")]
    WrongDigest {
        /// The manifest's digest.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The compressed bytes are more or fewer than the manifest says.
    #[error("layer has {actual} bytes instead of {expected}")]
    WrongSize {
        /// The manifest's size.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The unpacked bytes are not what the configuration names.
    #[error("layer's content {actual} does not match its diff id {expected}")]
    WrongDiffId {
        /// The configuration's diff id.
        expected: Digest,
        /// The hash of what came.
        actual: Digest,
    },
}

/// What registries answer, or fail to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No answer.
    #[error("{method} \"{url}\"")]
    Request {
        /// `Get`, `Head`, `Post`.
        method: &'static str,
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("setting up TLS for registries: {0}")]
    Setup(String),
    /// The registry wants a login and there is none.
    #[error("{method} \"{url}\": no basic auth credentials")]
    NoCredentials {
        /// `Get` or `Head`.
        method: &'static str,
        /// Where.
        url: String,
    },
    /// The manifest is not there.
    #[error("manifest for {reference} not found: {detail}")]
    ManifestUnknown {
        /// The reference as docker shows it.
        reference: String,
        /// The registry's words.
        detail: String,
    },
    /// The repository is not there.
    #[error("repository {name} not found: {detail}")]
    NameUnknown {
        /// The repository as docker shows it.
        name: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry does not give it to this caller.
    #[error(
        "pull access denied for {name}, repository does not exist or may require 'docker login': \
         {detail}"
    )]
    Denied {
        /// The repository as docker shows it.
        name: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry does not take it from this caller.
    #[error("{0}")]
    PushDenied(String),
    /// Nothing came back within the time that is waited.
    #[error("{method} \"{url}\": no answer")]
    NoAnswer {
        /// `Put`, `Patch`.
        method: &'static str,
        /// Where.
        url: String,
    },
    /// Wrong or missing credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// The registry's rate limit.
    #[error("toomanyrequests: {0}")]
    TooManyRequests(String),
    /// Another error answer.
    #[error("{method} \"{url}\": received unexpected HTTP status: {status}{detail}")]
    Status {
        /// `Get`, `Head`, `Post`.
        method: &'static str,
        /// Where.
        url: String,
        /// The status line.
        status: String,
        /// The registry's words, if any, after a colon.
        detail: String,
    },
    /// An answer passed its bound.
    #[error("the registry's {what} is larger than {limit} bytes")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Content that does not have its digest.
    #[error("{what} verification failed for digest {expected}: got {actual}")]
    WrongDigest {
        /// What was read.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Content that does not have its size.
    #[error("{what} has {actual} bytes instead of {expected}")]
    WrongSize {
        /// What was read.
        what: &'static str,
        /// What the descriptor says.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// An answer that cannot be understood.
    #[error("invalid answer from the registry: {0}")]
    Invalid(String),
    /// The token server is not to be trusted with credentials.
    #[error("refusing the token server {0:?}: only https is allowed")]
    Realm(String),
    /// A redirect to where it must not go.
    #[error("refusing the redirect to {0:?}")]
    Redirect(String),
    /// The manifest list has nothing for this machine.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    /// The registry stopped in the middle of a layer, again and again.
    #[error("the transfer of {digest} broke off at byte {at} of {size}")]
    Broken {
        /// The layer.
        digest: Digest,
        /// How far it got.
        at: u64,
        /// How far it should get.
        size: u64,
    },
}

impl Categorized for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ManifestUnknown { .. }
            | Self::NameUnknown { .. }
            | Self::Denied { .. }
            | Self::NoPlatform(_) => ErrorKind::NotFound,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Request { .. }
            | Self::Setup(_)
            | Self::NoCredentials { .. }
            | Self::PushDenied(_)
            | Self::NoAnswer { .. }
            | Self::TooManyRequests(_)
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::Invalid(_)
            | Self::Realm(_)
            | Self::Redirect(_)
            | Self::Broken { .. } => ErrorKind::System,
        }
    }
}
