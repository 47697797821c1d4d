//! What happens while images move, in the words docker's clients show.

use brig_types::digest::Digest;
use brig_types::reference::Reference;

/// Receives progress; called often and from the task that moves the image, so it must not block.
pub type ProgressSink = dyn Fn(Progress) + Send + Sync;

/// One step of a pull or load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A pull begins.
    PullingFrom {
        /// The repository's path on its registry.
        repository: String,
        /// The tag or digest.
        tag: String,
    },
    /// A layer changed state.
    Layer {
        /// First twelve digits of the layer's digest.
        id: String,
        /// Its new state.
        state: LayerState,
    },
    /// A push begins.
    PushingTo {
        /// The repository's full name.
        repository: String,
    },
    /// A tag is published.
    Pushed {
        /// The tag.
        tag: String,
        /// Digest of its manifest.
        digest: Digest,
        /// Size of its manifest.
        size: u64,
    },
    /// A layer was taken from another repository of the registry.
    Mounted {
        /// First twelve digits of the layer's diff id.
        id: String,
        /// The repository's path.
        from: String,
    },
    /// The digest that the reference stood for.
    Digest(Digest),
    /// The pull's last line: whether anything changed.
    Done {
        /// The reference as docker shows it.
        reference: String,
        /// Nothing had to be fetched.
        up_to_date: bool,
    },
    /// A loaded tag was taken from another image, which has no other name now.
    Renamed {
        /// The tag.
        reference: Reference,
        /// The image that lost it.
        old: Digest,
    },
}

/// State of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// Known to be missing here.
    PullingFsLayer,
    /// Other layers come first.
    Waiting,
    /// Bytes arrive.
    Downloading {
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The transfer broke; another attempt follows.
    Retrying {
        /// Seconds until then, rounded up.
        seconds: u64,
    },
    /// Digest and size are compared.
    VerifyingChecksum,
    /// All bytes are here and right.
    DownloadComplete,
    /// Files are written.
    Extracting {
        /// Compressed bytes consumed.
        current: u64,
        /// Compressed bytes in all.
        total: u64,
    },
    /// The layer is usable.
    PullComplete,
    /// The layer was here already.
    AlreadyExists,
    /// A push looks at the layer.
    Preparing,
    /// Bytes are sent.
    Pushing {
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The registry has it now.
    Pushed,
    /// The registry had it already.
    LayerAlreadyExists,
    /// A layer of an archive is unpacked.
    Loading {
        /// Archive bytes consumed.
        current: u64,
        /// Archive bytes in all.
        total: u64,
    },
}

impl LayerState {
    /// The status text of docker's progress stream.
    #[must_use]
    pub fn status(&self) -> String {
        match self {
            Self::PullingFsLayer => "Pulling fs layer".to_owned(),
            Self::Waiting => "Waiting".to_owned(),
            Self::Downloading { .. } => "Downloading".to_owned(),
            Self::Retrying { seconds: 1 } => "Retrying in 1 second".to_owned(),
            Self::Retrying { seconds } => format!("Retrying in {seconds} seconds"),
            Self::VerifyingChecksum => "Verifying Checksum".to_owned(),
            Self::DownloadComplete => "Download complete".to_owned(),
            Self::Extracting { .. } => "Extracting".to_owned(),
            Self::PullComplete => "Pull complete".to_owned(),
            Self::AlreadyExists => "Already exists".to_owned(),
            Self::Preparing => "Preparing".to_owned(),
            Self::Pushing { .. } => "Pushing".to_owned(),
            Self::Pushed => "Pushed".to_owned(),
            Self::LayerAlreadyExists => "Layer already exists".to_owned(),
            Self::Loading { .. } => "Loading layer".to_owned(),
        }
    }

    /// Bytes done and in all, where the state has them.
    #[must_use]
    pub const fn bytes(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Downloading { current, total }
            | Self::Extracting { current, total }
            | Self::Pushing { current, total }
            | Self::Loading { current, total } => Some((current, total)),
            _ => None,
        }
    }
}
