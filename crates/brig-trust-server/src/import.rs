//! Fetching a whole repository from another trust server, to take it over.
//!
//! Everything is fetched by the hash that the file above it gives; whether it holds together is
//! checked before it is stored.

use brig_trust::metadata::MAX_TIMESTAMP;
use brig_trust::remote::{Remote, RemoteError, RemoteFile};
use brig_trust::{Document as _, Gun, KeyId, Role, Root, Signed, Snapshot, Timestamp, TrustError};
use bytes::Bytes;

/// Bytes of one file. A server that sends more is not taken over from.
const MAX_FILE: usize = 32 << 20;
/// Roots that are fetched.
const MAX_ROOTS: u64 = 1024;
/// Roles that are fetched.
const MAX_ROLES: usize = 1024;

/// Why a repository cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server.
    #[error("cannot fetch {file}")]
    Remote {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: RemoteError,
    },
    /// The server does not have it.
    #[error("{host} does not have trust data for {gun}")]
    NoTrustData {
        /// The server.
        host: String,
        /// The repository.
        gun: Gun,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// More than is taken over.
    #[error("the repository has more {0} than are taken over")]
    TooMany(&'static str),
}

/// A repository's files.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Every root, and the newest file of each other role.
    pub files: Vec<(Role, Bytes)>,
    /// The root keys, by their own IDs: what the owner can be asked for.
    pub root_keys: Vec<KeyId>,
    /// The IDs of the certificates around them, which `trust inspect` shows.
    pub root_certificates: Vec<KeyId>,
}

/// Fetches everything that is needed to go on elsewhere.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch<R: Remote>(remote: &R, gun: &Gun) -> Result<Fetched, FetchError> {
    let get = async |file: RemoteFile, limit: usize| {
        let failed = |source| FetchError::Remote { file: file.name(), source };
        remote.fetch(gun, &file, limit).await.map(|found| found.map(Bytes::from)).map_err(failed)
    };
    let missing = || FetchError::NoTrustData { host: remote.host().to_owned(), gun: gun.clone() };
    let unreadable = |role: Role| {
        move |source| FetchError::Unreadable { file: role.as_str().to_owned(), source }
    };
    let newest = get(RemoteFile::Newest(Role::Root), MAX_FILE).await?.ok_or_else(missing)?;
    let root = Signed::<Root>::parse(&newest, &Role::Root).map_err(unreadable(Role::Root))?;
    let version = root.document.version();
    if version > MAX_ROOTS {
        return Err(FetchError::TooMany("roots"));
    }
    let mut files = Vec::new();
    for older in 1..version {
        // The first one may be version 2.
        if let Some(bytes) = get(RemoteFile::Version(Role::Root, older), MAX_FILE).await? {
            files.push((Role::Root, bytes));
        }
    }
    files.push((Role::Root, newest));
    let bytes = get(RemoteFile::Newest(Role::Timestamp), MAX_TIMESTAMP).await?;
    let bytes = bytes.ok_or_else(missing)?;
    let timestamp = Signed::<Timestamp>::parse(&bytes, &Role::Timestamp)
        .map_err(unreadable(Role::Timestamp))?;
    files.push((Role::Timestamp, bytes));
    let digest = timestamp.document.snapshot().and_then(|meta| meta.sha256());
    let digest = digest.ok_or_else(missing)?;
    let bytes = get(RemoteFile::Hash(Role::Snapshot, digest), MAX_FILE).await?;
    let bytes = bytes.ok_or_else(missing)?;
    let snapshot =
        Signed::<Snapshot>::parse(&bytes, &Role::Snapshot).map_err(unreadable(Role::Snapshot))?;
    files.push((Role::Snapshot, bytes));
    if snapshot.document.meta.len() > MAX_ROLES {
        return Err(FetchError::TooMany("roles"));
    }
    for (role, meta) in &snapshot.document.meta {
        let Some(digest) = meta.sha256().filter(|_| *role != Role::Root) else { continue };
        // A role that was taken away stays named; its file may be gone.
        if let Some(bytes) = get(RemoteFile::Hash(role.clone(), digest), MAX_FILE).await? {
            files.push((role.clone(), bytes));
        }
    }
    let keys = root.document.role_keys(&Role::Root).map(|role| role.keys).unwrap_or_default();
    let root_keys = keys.iter().filter_map(|(_, key)| key.canonical_id().ok()).collect();
    let root_certificates = keys.iter().map(|(id, _)| (*id).clone()).collect();
    Ok(Fetched { files, root_keys, root_certificates })
}
