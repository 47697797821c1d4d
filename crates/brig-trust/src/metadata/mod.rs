//! The four kinds of documents, field for field.

use std::collections::BTreeMap;
use std::fmt;

use brig_pki::hash;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::key::{Key, KeyId};
use crate::name::Role;
use crate::{TrustError, canonical};

mod root;
mod targets;

pub use root::{RoleSpec, Root};
pub use targets::{Delegation, Delegations, Targets};

/// Largest timestamp, in bytes: it is read before anything vouches for its length.
pub const MAX_TIMESTAMP: usize = 1 << 20;

/// A document that is signed.
pub trait Document: Serialize + DeserializeOwned + fmt::Debug {
    /// Largest file, in bytes.
    const MAX_SIZE: usize = canonical::MAX_FILE;

    /// Its version, from 1 on.
    fn version(&self) -> u64;

    /// The end of its validity.
    fn expires(&self) -> OffsetDateTime;

    /// Checks the structure as a file of this role.
    ///
    /// # Errors
    /// Which rule it breaks.
    fn check(&self, role: &Role) -> Result<(), String>;
}

/// The keys that may sign for a role, and how many of them must.
#[derive(Clone, Debug)]
pub struct RoleKeys<'a> {
    /// The role.
    pub role: Role,
    /// Its keys by the IDs that the delegating file gives them.
    pub keys: Vec<(&'a KeyId, &'a Key)>,
    /// How many must sign.
    pub threshold: usize,
}

/// A time in a document; written as Go's clients write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expires(pub OffsetDateTime);

impl Expires {
    /// So many days of 24 hours from now, in whole seconds.
    #[must_use]
    pub fn in_days(now: OffsetDateTime, days: i64) -> Self {
        let at = now.to_offset(UtcOffset::UTC).saturating_add(time::Duration::days(days));
        Self(at.replace_nanosecond(0).unwrap_or(at))
    }
}

impl Serialize for Expires {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text =
            self.0.to_offset(UtcOffset::UTC).format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Expires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What one file says about another one, or about an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Hashes by their algorithms' names.
    #[serde(default, deserialize_with = "null_is_default")]
    pub hashes: BTreeMap<String, Hash>,
    /// Size in bytes.
    #[serde(default)]
    pub length: u64,
    /// What a publisher adds for himself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<serde_json::Value>,
}

/// A hash's bytes; base64 in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash(#[serde(with = "base64_bytes")] pub Vec<u8>);

const SHA256: &str = "sha256";
const SHA512: &str = "sha512";

impl FileMeta {
    /// Describes a file with both hashes.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let hashes = BTreeMap::from([
            (SHA256.to_owned(), Hash(hash::sha256(content).to_vec())),
            (SHA512.to_owned(), Hash(hash::sha512(content).to_vec())),
        ]);
        Self { hashes, length: content.len() as u64, custom: None }
    }

    /// Describes an image as docker does: its manifest's digest and size.
    #[must_use]
    pub fn of_image(sha256: [u8; hash::SHA256_LEN], length: u64) -> Self {
        let hashes = BTreeMap::from([(SHA256.to_owned(), Hash(sha256.to_vec()))]);
        Self { hashes, length, custom: None }
    }

    /// The SHA-256 value.
    #[must_use]
    pub fn sha256(&self) -> Option<[u8; hash::SHA256_LEN]> {
        self.hashes.get(SHA256).and_then(|hash| hash.0.as_slice().try_into().ok())
    }

    /// Checks that these are the bytes: length and every known hash, SHA-256 at least.
    ///
    /// # Errors
    /// [`TrustError::Checksum`], [`TrustError::Length`].
    pub fn check(&self, name: &str, content: &[u8]) -> Result<(), TrustError> {
        let wrong = |algorithm, expected: &[u8]| TrustError::Checksum {
            role: name.to_owned(),
            algorithm,
            expected: hash::hex(expected),
        };
        let sha256 = self.hashes.get(SHA256).ok_or_else(|| wrong(SHA256, b""))?;
        if sha256.0 != hash::sha256(content) {
            return Err(wrong(SHA256, &sha256.0));
        }
        if let Some(sha512) = self.hashes.get(SHA512)
            && sha512.0 != hash::sha512(content)
        {
            return Err(wrong(SHA512, &sha512.0));
        }
        let found = content.len() as u64;
        if found == self.length {
            Ok(())
        } else {
            Err(TrustError::Length { role: name.to_owned(), found, expected: self.length })
        }
    }
}

/// `_type`, which every document begins with.
macro_rules! type_tag {
    ($name:ident, $text:ident) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub(crate) enum $name {
            #[default]
            $text,
        }
    };
}
pub(crate) use type_tag;

type_tag!(SnapshotTag, Snapshot);
type_tag!(TimestampTag, Timestamp);

/// Which versions of all other files belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(rename = "_type")]
    tag: SnapshotTag,
    /// The end of its validity.
    pub expires: Expires,
    /// Its version.
    pub version: u64,
    /// The files, by role.
    #[serde(default, deserialize_with = "null_is_default")]
    pub meta: BTreeMap<Role, FileMeta>,
}

impl Snapshot {
    /// How long clients and servers let a snapshot be valid.
    pub const DAYS: i64 = 3 * 365;

    /// A snapshot of these files.
    #[must_use]
    pub const fn new(expires: Expires, version: u64, meta: BTreeMap<Role, FileMeta>) -> Self {
        Self { tag: SnapshotTag::Snapshot, expires, version, meta }
    }
}

impl Document for Snapshot {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> OffsetDateTime {
        self.expires.0
    }

    fn check(&self, _: &Role) -> Result<(), String> {
        for role in [Role::Root, Role::Targets] {
            if self.meta.get(&role).is_none_or(|meta| meta.sha256().is_none()) {
                return Err(format!("missing {role} sha256 checksum information"));
            }
        }
        Ok(())
    }
}

/// Which snapshot is the newest, for a short time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timestamp {
    #[serde(rename = "_type")]
    tag: TimestampTag,
    /// The end of its validity.
    pub expires: Expires,
    /// Its version.
    pub version: u64,
    /// The snapshot.
    #[serde(default, deserialize_with = "null_is_default")]
    pub meta: BTreeMap<Role, FileMeta>,
}

impl Timestamp {
    /// How long servers let a timestamp be valid.
    pub const DAYS: i64 = 14;

    /// A timestamp of a snapshot.
    #[must_use]
    pub fn new(expires: Expires, version: u64, snapshot: FileMeta) -> Self {
        let meta = BTreeMap::from([(Role::Snapshot, snapshot)]);
        Self { tag: TimestampTag::Timestamp, expires, version, meta }
    }

    /// What it says about the snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<&FileMeta> {
        self.meta.get(&Role::Snapshot)
    }
}

impl Document for Timestamp {
    const MAX_SIZE: usize = MAX_TIMESTAMP;

    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> OffsetDateTime {
        self.expires.0
    }

    fn check(&self, _: &Role) -> Result<(), String> {
        if self.snapshot().is_none_or(|meta| meta.sha256().is_none()) {
            return Err("missing snapshot sha256 checksum information".to_owned());
        }
        Ok(())
    }
}

/// `null` for an empty list or map, as Go writes it.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Bytes as base64 text.
pub(crate) mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
