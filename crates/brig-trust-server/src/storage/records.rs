//! Values in the tables: a few fixed bytes, then what varies.

use brig_pki::hash::SHA256_LEN;
use time::OffsetDateTime;

use super::{Category, Change, StorageError};

fn damaged(what: &str) -> StorageError {
    StorageError::Format(format!("{what} is too short"))
}

fn nanoseconds(at: OffsetDateTime) -> [u8; 8] {
    // Good until the year 2262.
    i64::try_from(at.unix_timestamp_nanos()).unwrap_or(i64::MAX).to_be_bytes()
}

fn moment(bytes: [u8; 8]) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(i64::from_be_bytes(bytes)))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// When it was stored, its hash, its bytes.
pub(super) fn file(at: OffsetDateTime, digest: &[u8; SHA256_LEN], bytes: &[u8]) -> Vec<u8> {
    [&nanoseconds(at)[..], digest, bytes].concat()
}

pub(super) fn read_file(
    value: &[u8],
) -> Result<(OffsetDateTime, [u8; SHA256_LEN], &[u8]), StorageError> {
    let (at, rest) = value.split_first_chunk::<8>().ok_or_else(|| damaged("a file"))?;
    let (digest, bytes) = rest.split_first_chunk().ok_or_else(|| damaged("a file"))?;
    Ok((moment(*at), *digest, bytes))
}

/// When it was made, whether a root named it, the sealed key.
pub(super) fn key(at: OffsetDateTime, named: bool, sealed: &[u8]) -> Vec<u8> {
    [&nanoseconds(at)[..], &[u8::from(named)], sealed].concat()
}

pub(super) fn read_key(value: &[u8]) -> Result<(OffsetDateTime, bool, &[u8]), StorageError> {
    let (at, rest) = value.split_first_chunk::<8>().ok_or_else(|| damaged("a key"))?;
    let (named, sealed) = rest.split_first().ok_or_else(|| damaged("a key"))?;
    Ok((moment(*at), *named != 0, sealed))
}

/// When, version, hash (zeros for a deletion, which has version 0), name.
pub(super) fn change(change: &Change) -> Vec<u8> {
    [
        &nanoseconds(change.at)[..],
        &change.version.to_be_bytes(),
        &change.digest.unwrap_or_default(),
        change.gun.as_bytes(),
    ]
    .concat()
}

pub(super) fn read_change(id: u64, value: &[u8]) -> Result<Change, StorageError> {
    const WHAT: &str = "a record of the feed";
    let (at, rest) = value.split_first_chunk::<8>().ok_or_else(|| damaged(WHAT))?;
    let (version, rest) = rest.split_first_chunk::<8>().ok_or_else(|| damaged(WHAT))?;
    let (digest, gun) = rest.split_first_chunk::<SHA256_LEN>().ok_or_else(|| damaged(WHAT))?;
    let version = u64::from_be_bytes(*version);
    let category = if version == 0 { Category::Deletion } else { Category::Update };
    Ok(Change {
        id,
        at: moment(*at),
        gun: String::from_utf8_lossy(gun).into_owned(),
        version,
        digest: (version != 0).then_some(*digest),
        category,
    })
}
