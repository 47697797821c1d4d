//! What the server keeps: every file ever published, its own keys, and the feed of changes.
//!
//! A publication is one transaction. There is no pointer to "the newest" files that could be
//! behind or ahead of them: the newest timestamp names its snapshot by hash, the snapshot all
//! others, and [`crate::repository`] walks that way.

mod embedded;
mod group;
mod records;

use std::fmt::Debug;
use std::path::PathBuf;

use brig_pki::hash::SHA256_LEN;
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, KeyId, Role};
use bytes::Bytes;
use time::OffsetDateTime;

pub use embedded::EmbeddedStorage;

/// A file as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its role.
    pub role: Role,
    /// Its version.
    pub version: u64,
    /// SHA-256 of the bytes.
    pub digest: [u8; SHA256_LEN],
    /// The bytes as they came.
    pub bytes: Bytes,
    /// When it was stored.
    pub stored: OffsetDateTime,
}

/// One of the server's private keys, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// What it signs.
    pub role: ServerRole,
    /// The id of its public half.
    pub id: KeyId,
    /// The private key, sealed for this repository, role and id.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub made: OffsetDateTime,
    /// Whether a published root named it.
    pub named: bool,
}

/// Files that become visible together.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The repository.
    pub gun: Gun,
    /// Version of the timestamp that this was made after; `None` for the first publication.
    pub after: Option<u64>,
    /// The files, a timestamp among them.
    pub files: Vec<StoredFile>,
    /// Keys of the server that the root names.
    pub named_keys: Vec<KeyId>,
    /// When the first of timestamp and snapshot has to be signed anew.
    pub due: OffsetDateTime,
}

/// What happened to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Files were published.
    Update,
    /// The repository was deleted.
    Deletion,
}

/// One record of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the feed, from 1.
    pub id: u64,
    /// When.
    pub at: OffsetDateTime,
    /// Which repository.
    pub gun: String,
    /// The timestamp's version; 0 for a deletion.
    pub version: u64,
    /// The timestamp's SHA-256; `None` for a deletion.
    pub digest: Option<[u8; SHA256_LEN]>,
    /// What.
    pub category: Category,
}

/// A stretch of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Records after this id.
    After(u64),
    /// The last ones before this id; `None` for the end.
    Before(Option<u64>),
}

/// Why storage did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A role's version is not above what is stored.
    #[error("a newer version is stored already")]
    Version,
    /// Somebody else published meanwhile.
    #[error("the repository was changed meanwhile")]
    Overtaken,
    /// Another process has the file open.
    #[error("{} is in use by another process: stop the trust server that serves it", .0.display())]
    InUse(PathBuf),
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is stored is not what this version writes.
    #[error("the trust database is damaged or of another version: {0}")]
    Format(String),
    /// Reading or writing failed.
    #[error("the trust database failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where it is kept. Calls block; what is written is durable when they return.
pub trait Storage: Debug + Send + Sync {
    /// The file of a role with the highest version.
    ///
    /// # Errors
    /// [`StorageError`], as of all of these.
    fn newest(&self, gun: &Gun, role: &Role) -> Result<Option<StoredFile>, StorageError>;

    /// The file of a role with this version.
    ///
    /// # Errors
    /// [`StorageError`].
    fn version(
        &self,
        gun: &Gun,
        role: &Role,
        version: u64,
    ) -> Result<Option<StoredFile>, StorageError>;

    /// The file with this hash, whatever its role.
    ///
    /// # Errors
    /// [`StorageError`].
    fn by_digest(
        &self,
        gun: &Gun,
        digest: &[u8; SHA256_LEN],
    ) -> Result<Option<StoredFile>, StorageError>;

    /// Makes files visible, all or none.
    ///
    /// # Errors
    /// [`StorageError::Version`], [`StorageError::Overtaken`] and the others.
    fn publish(&self, publication: Publication) -> Result<(), StorageError>;

    /// Forgets a repository's files; its keys stay. Says whether there was one.
    ///
    /// # Errors
    /// [`StorageError`].
    fn delete(&self, gun: &Gun, at: OffsetDateTime) -> Result<bool, StorageError>;

    /// The server's keys for a repository, oldest first.
    ///
    /// # Errors
    /// [`StorageError`].
    fn keys(&self, gun: &Gun) -> Result<Vec<StoredKey>, StorageError>;

    /// Keeps a new key. Keys that no root ever named are bounded in number: the oldest go.
    ///
    /// # Errors
    /// [`StorageError`].
    fn add_key(&self, gun: &Gun, key: StoredKey) -> Result<(), StorageError>;

    /// A stretch of the feed, oldest first.
    ///
    /// # Errors
    /// [`StorageError`].
    fn changes(
        &self,
        gun: Option<&Gun>,
        stretch: Stretch,
        limit: usize,
    ) -> Result<Vec<Change>, StorageError>;

    /// Repositories that have something to be signed anew before this time, after `from`.
    ///
    /// # Errors
    /// [`StorageError`].
    fn due(
        &self,
        before: OffsetDateTime,
        from: Option<&Gun>,
        limit: usize,
    ) -> Result<Vec<Gun>, StorageError>;

    /// Whether reading works.
    ///
    /// # Errors
    /// [`StorageError`].
    fn check(&self) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests;
