//! The trust server's records in the cluster's store, and what they are there.
//!
//! A repository is one record with the list of its files and the server's keys; the files' bytes
//! are in pieces, so that none is larger than what a store takes. Pieces are there before the
//! repository's record names them, and nobody sees them until then.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use brig_pki::hash::{SHA256_LEN, hex, sha256};
use brig_proto::brig::{
    Trust, TrustChange, TrustFeed, TrustFile, TrustKey, TrustPiece, TrustRepository, trust,
};
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, KeyId, Role};
use brig_trust_server::storage::{
    Category, Change, Publication, StorageError, StoredFile, StoredKey,
};
use brig_types::id::random_hex;
use bytes::Bytes;
use time::{Duration, OffsetDateTime};

/// What repositories are found by all together.
pub(super) const REPOSITORIES: &str = "repositories";
/// The same for pages of the feed.
pub(super) const FEED: &str = "feed";
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Bytes of a file.
pub(super) const MAX_FILE: usize = 4 << 20;
/// Versions of a file that are kept. Who has read a timestamp finds what belongs to it.
const KEPT: usize = 16;
/// Versions that are kept of large files.
const KEPT_LARGE: usize = 4;
const LARGE: usize = 256 << 10;
/// Younger ones are kept as well, as long as there are not too many.
const YOUNG: Duration = Duration::minutes(10);
const MAX_KEPT: usize = 64;
/// Keys of a repository that no root names.
const MAX_UNNAMED: usize = 8;
/// Changes in a page of the feed.
const PAGE: usize = 32;

/// What a repository is found by.
pub(super) fn name_of(gun: &Gun) -> String {
    hex(&sha256(gun.as_str().as_bytes()))
}

fn nanoseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

fn moment(nanoseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanoseconds))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn damaged(what: &str) -> StorageError {
    StorageError::Format(format!("{what} in the cluster's store"))
}

/// A repository without files.
pub(super) fn new_repository(gun: &Gun) -> Trust {
    let repository = TrustRepository { gun: gun.as_str().to_owned(), ..TrustRepository::default() };
    Trust {
        id: random_hex(),
        name: name_of(gun),
        group: REPOSITORIES.to_owned(),
        record: Some(trust::Record::Repository(repository)),
        ..Trust::default()
    }
}

pub(super) fn repository(record: &Trust) -> Result<&TrustRepository, StorageError> {
    match &record.record {
        Some(trust::Record::Repository(repository)) => Ok(repository),
        _ => Err(damaged("a repository")),
    }
}

pub(super) fn repository_mut(record: &mut Trust) -> Result<&mut TrustRepository, StorageError> {
    match &mut record.record {
        Some(trust::Record::Repository(repository)) => Ok(repository),
        _ => Err(damaged("a repository")),
    }
}

/// Another number for every state of every repository that was ever there.
pub(super) fn generation(record: &Trust) -> Result<u64, StorageError> {
    let mut hasher = DefaultHasher::new();
    (&record.id, repository(record)?.changes).hash(&mut hasher);
    Ok(hasher.finish())
}

/// A file cut into pieces, and its entry in the list.
pub(super) fn cut(gun: &Gun, file: &StoredFile) -> Result<(TrustFile, Vec<Trust>), StorageError> {
    if file.bytes.len() > MAX_FILE {
        let role = file.role.clone();
        return Err(StorageError::TooLarge { role, size: file.bytes.len(), limit: MAX_FILE });
    }
    let piece = |content: &[u8]| Trust {
        id: random_hex(),
        group: name_of(gun),
        record: Some(trust::Record::Piece(TrustPiece { content: content.to_vec() })),
        ..Trust::default()
    };
    let pieces: Vec<Trust> = file.bytes.chunks(PIECE).map(piece).collect();
    let entry = TrustFile {
        role: file.role.as_str().to_owned(),
        version: file.version,
        digest: file.digest.to_vec(),
        stored: nanoseconds(file.stored),
        pieces: pieces.iter().map(|piece| piece.id.clone()).collect(),
    };
    Ok((entry, pieces))
}

/// A file put together again.
pub(super) fn whole(
    file: &TrustFile,
    find: &dyn Fn(&str) -> Option<Arc<Trust>>,
) -> Result<StoredFile, StorageError> {
    let broken = || damaged(&file.role);
    let mut bytes = Vec::new();
    for id in &file.pieces {
        let piece = find(id).ok_or_else(broken)?;
        let Some(trust::Record::Piece(piece)) = &piece.record else { return Err(broken()) };
        bytes.extend_from_slice(&piece.content);
    }
    let digest: [u8; SHA256_LEN] = file.digest.as_slice().try_into().map_err(|_| broken())?;
    if sha256(&bytes) != digest {
        return Err(broken());
    }
    Ok(StoredFile {
        role: Role::parse(&file.role).map_err(|_| broken())?,
        version: file.version,
        digest,
        bytes: Bytes::from(bytes),
        stored: moment(file.stored),
    })
}

/// The newest version of a role.
pub(super) fn newest<'a>(repository: &'a TrustRepository, role: &Role) -> Option<&'a TrustFile> {
    let of_role = repository.files.iter().filter(|file| file.role == role.as_str());
    of_role.max_by_key(|file| file.version)
}

/// Takes a publication in, or says why not; ids of pieces that nothing names any more.
pub(super) fn publish(
    repository: &mut TrustRepository,
    publication: &Publication,
    files: &[TrustFile],
) -> Result<Vec<String>, StorageError> {
    let timestamp = newest(repository, &Role::Timestamp).map(|file| file.version);
    if timestamp != publication.after {
        return Err(StorageError::Overtaken);
    }
    for file in &publication.files {
        if newest(repository, &file.role).is_some_and(|stored| file.version <= stored.version) {
            return Err(StorageError::Version);
        }
    }
    repository.files.extend_from_slice(files);
    for key in &mut repository.keys {
        key.named |= publication.named_keys.iter().any(|named| named.as_str() == key.id);
    }
    repository.due = publication.due.unix_timestamp();
    repository.changes += 1;
    let stored = publication.files.iter().map(|file| file.stored).max();
    Ok(prune(repository, stored.unwrap_or(OffsetDateTime::UNIX_EPOCH)))
}

/// Lets old versions go. All roots stay: clients walk along them.
fn prune(repository: &mut TrustRepository, now: OffsetDateTime) -> Vec<String> {
    let young = nanoseconds(now.saturating_sub(YOUNG));
    let mut gone = Vec::new();
    let mut roles: Vec<(String, Vec<u64>, bool)> = Vec::new();
    for file in &repository.files {
        let is_large = file.pieces.len() > LARGE / PIECE;
        match roles.iter_mut().find(|(role, ..)| *role == file.role) {
            Some((_, versions, large)) => {
                versions.push(file.version);
                *large |= is_large;
            }
            None => roles.push((file.role.clone(), vec![file.version], is_large)),
        }
    }
    for (_, versions, _) in &mut roles {
        versions.sort_unstable_by(|a, b| b.cmp(a));
    }
    repository.files.retain(|file| {
        if file.role == Role::Root.as_str() {
            return true;
        }
        let Some((_, versions, is_large)) = roles.iter().find(|(role, ..)| *role == file.role)
        else {
            return true;
        };
        let kept = if *is_large { KEPT_LARGE } else { KEPT };
        let place = versions.iter().position(|version| *version == file.version).unwrap_or(0);
        // One more than the snapshots that may name it.
        let keep = place <= kept || !is_large && file.stored > young && place < MAX_KEPT;
        if !keep {
            gone.extend(file.pieces.iter().cloned());
        }
        keep
    });
    gone
}

/// Forgets the files; ids of their pieces. `None` where there are none.
pub(super) fn clear(repository: &mut TrustRepository) -> Option<Vec<String>> {
    if repository.files.is_empty() {
        return None;
    }
    repository.changes += 1;
    repository.due = 0;
    let files = std::mem::take(&mut repository.files);
    Some(files.into_iter().flat_map(|file| file.pieces).collect())
}

pub(super) fn stored_key(key: &TrustKey) -> Result<StoredKey, StorageError> {
    let role = match key.role.as_str() {
        "snapshot" => ServerRole::Snapshot,
        "timestamp" => ServerRole::Timestamp,
        _ => return Err(damaged("a key")),
    };
    Ok(StoredKey {
        role,
        id: KeyId::parse(&key.id).map_err(|_| damaged("a key"))?,
        sealed: key.private.clone(),
        made: moment(key.made),
        named: key.named,
    })
}

/// Keeps a key. Of those that no root names the oldest go.
pub(super) fn add_key(repository: &mut TrustRepository, key: &StoredKey) {
    repository.keys.retain(|known| known.id != key.id.as_str());
    repository.keys.push(TrustKey {
        role: key.role.role().as_str().to_owned(),
        id: key.id.as_str().to_owned(),
        private: key.sealed.clone(),
        made: nanoseconds(key.made),
        named: key.named,
    });
    repository.keys.sort_by_key(|key| key.made);
    let unnamed = repository.keys.iter().filter(|key| !key.named).count();
    let mut surplus = unnamed.saturating_sub(MAX_UNNAMED);
    repository.keys.retain(|key| {
        let goes = !key.named && surplus > 0;
        surplus -= usize::from(goes);
        !goes
    });
}

/// Whether nobody ever published it.
pub(super) fn is_only_asked_for(repository: &TrustRepository) -> bool {
    repository.changes == 0 && repository.files.is_empty()
}

/// The changes in a page.
pub(super) fn page(record: &Trust) -> Result<&[TrustChange], StorageError> {
    match &record.record {
        Some(trust::Record::Feed(feed)) => Ok(&feed.changes),
        _ => Err(damaged("the feed")),
    }
}

/// The feed's last page with one more change, and whether it is a new one.
pub(super) fn append(
    last: Option<&Trust>,
    mut change: TrustChange,
) -> Result<(Trust, bool), StorageError> {
    let changes = last.map(page).transpose()?.unwrap_or_default();
    change.id = changes.last().map_or(0, |change| change.id).saturating_add(1);
    match last {
        Some(last) if changes.len() < PAGE => {
            let changes = changes.iter().cloned().chain([change]).collect();
            let record = Some(trust::Record::Feed(TrustFeed { changes }));
            Ok((Trust { record, ..last.clone() }, false))
        }
        _ => {
            let page = Trust {
                // In the order of their ids they are in the order of time.
                id: format!("feed-{:020}", change.id),
                group: FEED.to_owned(),
                record: Some(trust::Record::Feed(TrustFeed { changes: vec![change] })),
                ..Trust::default()
            };
            Ok((page, true))
        }
    }
}

/// What the feed says of a publication.
pub(super) fn published(publication: &Publication) -> Option<TrustChange> {
    let timestamp = publication.files.iter().find(|file| file.role == Role::Timestamp)?;
    Some(TrustChange {
        id: 0,
        at: nanoseconds(timestamp.stored),
        gun: publication.gun.as_str().to_owned(),
        version: timestamp.version,
        digest: timestamp.digest.to_vec(),
    })
}

/// What the feed says of a deletion.
pub(super) fn deleted(gun: &Gun, at: OffsetDateTime) -> TrustChange {
    TrustChange { at: nanoseconds(at), gun: gun.as_str().to_owned(), ..TrustChange::default() }
}

pub(super) fn change(change: &TrustChange) -> Change {
    let category = if change.version == 0 { Category::Deletion } else { Category::Update };
    Change {
        id: change.id,
        at: moment(change.at),
        gun: change.gun.clone(),
        version: change.version,
        digest: change.digest.as_slice().try_into().ok(),
        category,
    }
}
