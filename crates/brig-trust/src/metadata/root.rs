//! The root: which keys each of the four base roles has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Document, Expires, RoleKeys, null_is_default, type_tag};
use crate::key::{Key, KeyId};
use crate::name::Role;

type_tag!(RootTag, Root);

/// A role's keys and threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSpec {
    /// The keys' IDs.
    #[serde(rename = "keyids", default, deserialize_with = "null_is_default")]
    pub key_ids: Vec<KeyId>,
    /// How many of them must sign.
    pub threshold: usize,
}

impl RoleSpec {
    /// One key, which must sign.
    #[must_use]
    pub fn single(id: KeyId) -> Self {
        Self { key_ids: vec![id], threshold: 1 }
    }
}

/// The root document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Root {
    #[serde(rename = "_type")]
    tag: RootTag,
    /// Always false, and not acted upon.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// The end of its validity.
    pub expires: Expires,
    /// All keys; some may be of roots before.
    pub keys: BTreeMap<KeyId, Key>,
    /// Exactly the four base roles.
    pub roles: BTreeMap<Role, RoleSpec>,
    /// Its version.
    pub version: u64,
}

impl Root {
    /// How long clients let a root be valid.
    pub const DAYS: i64 = 10 * 365;

    /// A first root with one key for each role.
    #[must_use]
    pub fn new(expires: Expires, root: Key, targets: Key, snapshot: Key, timestamp: Key) -> Self {
        let mut this = Self {
            tag: RootTag::Root,
            consistent_snapshot: false,
            expires,
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
            version: 1,
        };
        for (role, key) in Role::BASE.into_iter().zip([root, targets, snapshot, timestamp]) {
            this.set_key(role, key);
        }
        this
    }

    /// Gives a role this one key. Keys that no role has any more are dropped, but for the
    /// certificates of roots before.
    pub fn set_key(&mut self, role: Role, key: Key) {
        let id = key.id();
        self.keys.insert(id.clone(), key);
        self.roles.insert(role, RoleSpec::single(id));
        let used: BTreeSet<&KeyId> =
            self.roles.values().flat_map(|role| role.key_ids.iter()).collect();
        let unused: Vec<KeyId> = self
            .keys
            .iter()
            .filter(|(id, key)| !key.keytype().is_certificate() && !used.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in unused {
            self.keys.remove(&id);
        }
    }

    /// The keys of a base role; of other roles there are none here.
    #[must_use]
    pub fn role_keys(&self, role: &Role) -> Option<RoleKeys<'_>> {
        let spec = self.roles.get(role)?;
        let keys = spec.key_ids.iter().filter_map(|id| self.keys.get_key_value(id)).collect();
        Some(RoleKeys { role: role.clone(), keys, threshold: spec.threshold })
    }
}

impl Document for Root {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> OffsetDateTime {
        self.expires.0
    }

    fn check(&self, _: &Role) -> Result<(), String> {
        for role in Role::BASE {
            let spec = self
                .roles
                .get(&role)
                .ok_or_else(|| format!("missing {role} role specification"))?;
            if spec.threshold < 1 {
                return Err(format!("{role}: threshold must be greater than 0"));
            }
            let distinct: BTreeSet<&KeyId> = spec.key_ids.iter().collect();
            if distinct.len() < spec.threshold {
                return Err(format!("{role}: fewer keys than its threshold"));
            }
            if let Some(id) = spec.key_ids.iter().find(|id| !self.keys.contains_key(*id)) {
                return Err(format!("{role}: key {id} is not in the file"));
            }
        }
        match self.roles.keys().find(|role| !Role::BASE.contains(role)) {
            Some(role) => Err(format!("{role} is not a base role")),
            None => Ok(()),
        }
    }
}
