//! The trait of whatever keeps records durable, and what crosses it.

use std::path::PathBuf;
use std::time::Instant;

use crate::object::Kind;
use crate::sealer::BlindName;

/// Counts transactions over the whole store; the first one writes revision 1.
pub type Revision = u64;

/// A stored object as the backend sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    /// Kind of the object.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its version.
    pub revision: Revision,
    /// The sealed value.
    pub value: Vec<u8>,
}

/// Everything in a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The last transaction's revision.
    pub revision: Revision,
    /// All objects, in no particular order.
    pub records: Vec<SealedRecord>,
}

/// One object's part in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Kind of the object.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Version that the object must have now; `None`: it must not exist.
    pub expected: Option<Revision>,
    /// The new sealed value; `None` removes the object.
    pub value: Option<Vec<u8>>,
}

/// A name taken or given back, as a keyed hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameClaim {
    /// The name.
    pub name: BlindName,
    /// Whose name it must be now; `None`: nobody's.
    pub from: Option<String>,
    /// Whose name it becomes; `None`: nobody's.
    pub to: Option<String>,
}

/// A transaction: all of it happens or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Objects, each at most once.
    pub writes: Vec<Write>,
    /// Names, each at most once.
    pub names: Vec<NameClaim>,
    /// Version of the objects that it writes; `None`: the transaction's revision. It may be lower
    /// than that.
    pub version: Option<Revision>,
}

/// What somebody else did to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Kind of the object.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its version, and the sealed value; `None`: it is gone.
    pub value: Option<(Revision, Vec<u8>)>,
}

/// What a shared backend tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Transactions that became durable together, whoever wrote them.
    Committed {
        /// Revision of the first one.
        first: Revision,
        /// Revision of the last one.
        last: Revision,
        /// What they left, each object once.
        changes: Vec<Foreign>,
    },
    /// Some were missed: this is everything now.
    Reloaded(Loaded),
}

/// Takes news in; quick, and called from one task at a time.
pub type NewsSink = Box<dyn Fn(News) + Send + Sync>;

/// Everything that is stored, to be put elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The objects.
    pub loaded: Loaded,
    /// The names and who has them.
    pub names: Vec<(BlindName, String)>,
}

/// What one transaction may weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Objects that it writes or removes, each of which may have a name.
    pub objects: usize,
    /// Bytes of what it writes.
    pub bytes: usize,
}

impl Room {
    /// As much as anybody likes.
    pub const ENDLESS: Self = Self { objects: usize::MAX, bytes: usize::MAX };
}

/// Keeps sealed records. Every implementation passes the same tests.
pub trait Backend: Send + Sync + 'static {
    /// Whether others write to it as well. [`BackendError::Conflict`] then means that the caller
    /// has to take their [`News`] in and try again.
    fn is_shared(&self) -> bool {
        false
    }

    /// Tells of every transaction after what was loaded, in order and the caller's own ones too,
    /// until it is closed. Only a shared backend does.
    fn follow(&self, sink: NewsSink) {
        drop(sink);
    }

    /// Whether what it knows is what is stored now. One that is cut off does not know.
    fn is_current(&self) -> bool {
        true
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`BackendError`] when that is not possible.
    fn load(&self) -> Result<Loaded, BackendError>;

    /// Applies transactions in order, all or none, and returns when they are durable.
    ///
    /// `first` is the revision of the first one; the others count up from it. Blocks.
    ///
    /// # Errors
    /// [`BackendError::Conflict`] when an expectation does not hold or `first` is not the next
    /// revision. After any error but [`BackendError::Fatal`] nothing has changed.
    fn commit(&self, first: Revision, group: &[Batch]) -> Result<(), BackendError>;

    /// Sealed records in a fixed order, at most `limit`, from the first after `after`. Blocks.
    ///
    /// # Errors
    /// [`BackendError`] when that is not possible.
    fn page(
        &self,
        after: Option<&SealedRecord>,
        limit: usize,
    ) -> Result<Vec<SealedRecord>, BackendError> {
        let _ = (after, limit);
        Err(BackendError::Unsupported("reading records page by page"))
    }

    /// Replaces sealed values by other ones with the same content, and returns how many were
    /// replaced when that is durable. Revisions stay: an object that is sealed with another key has
    /// not changed for anybody. Each record is replaced only while it has the revision that it has
    /// here; what was written or removed meanwhile is passed over. Blocks.
    ///
    /// # Errors
    /// As [`Backend::commit`].
    fn reseal(&self, records: &[SealedRecord]) -> Result<usize, BackendError> {
        let _ = records;
        Err(BackendError::Unsupported("sealing records anew"))
    }

    /// Until when the caller should leave it to others to commit; what they commit may end that
    /// earlier. Whoever commits all the same does no harm.
    fn turn(&self) -> Option<Instant> {
        None
    }

    /// What a transaction may surely weigh. A larger one may be refused.
    fn room(&self) -> Room {
        Room::ENDLESS
    }

    /// How many of these transactions, from the first on, can be committed at a time; at least 1.
    fn fits(&self, group: &[Batch]) -> usize {
        group.len().max(1)
    }

    /// Lets go of what it holds, so that somebody else can open it. What comes after fails.
    fn close(&self);
}

/// Why a backend did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Somebody else changed the store, or the caller is wrong about its content.
    #[error("the stored state is not the expected one")]
    Conflict,
    /// No room; nothing has changed.
    #[error("no space left on the device of {}", .0.display())]
    Full(PathBuf),
    /// Another process has the file.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file was written by a newer version, or is no store at all.
    #[error("{} is not a store that this version can read: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be created or opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The backend has no such operation.
    #[error("this store does not support {0}")]
    Unsupported(&'static str),
    /// A transaction has more parts or bytes than the backend takes at a time.
    #[error("the transaction is too large for the cluster store: {0}")]
    TooLarge(String),
    /// The quota of the replicated store is used up; nothing has changed.
    #[error("the replicated store is full: its quota is used up")]
    Quota,
    /// The replicated store does not answer, or has lost its quorum. It is unknown whether the
    /// transaction becomes durable once it does.
    #[error("the replicated store takes no writes: {0}")]
    Unavailable(String),
    /// It is unknown what is durable; only a restart can tell.
    #[error("the store's file failed")]
    Fatal(#[source] Box<dyn std::error::Error + Send + Sync>),
}
