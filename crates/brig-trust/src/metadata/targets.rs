//! Targets: tags and their digests, and who else may sign some.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Document, Expires, FileMeta, RoleKeys, null_is_default, type_tag};
use crate::key::{Key, KeyId};
use crate::name::Role;

type_tag!(TargetsTag, Targets);

/// A role that this file delegates to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Its keys' IDs; none where all were taken away.
    #[serde(rename = "keyids", default, deserialize_with = "null_is_default")]
    pub key_ids: Vec<KeyId>,
    /// Its name.
    pub name: Role,
    /// Beginnings of the names that it may sign; the empty one allows all, none allows nothing.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// How many of its keys must sign.
    pub threshold: usize,
}

impl Delegation {
    /// Whether it may sign a name, by its own paths alone.
    #[must_use]
    pub fn allows(&self, target: &str) -> bool {
        self.paths.iter().any(|path| target.starts_with(path.as_str()))
    }

    /// Its paths as far as they lie within the paths of the role above.
    #[must_use]
    pub fn within(&self, above: &[String]) -> Vec<String> {
        let allowed = |path: &&String| above.iter().any(|outer| path.starts_with(outer.as_str()));
        self.paths.iter().filter(allowed).cloned().collect()
    }
}

/// Roles that a file delegates to, in the order in which they are searched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations {
    /// Their keys.
    #[serde(default, deserialize_with = "null_is_default")]
    pub keys: BTreeMap<KeyId, Key>,
    /// The roles.
    #[serde(default, deserialize_with = "null_is_default")]
    pub roles: Vec<Delegation>,
}

/// The targets document, of `targets` and of every delegation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    #[serde(rename = "_type")]
    tag: TargetsTag,
    /// Who else may sign.
    #[serde(default, deserialize_with = "null_is_default")]
    pub delegations: Delegations,
    /// The end of its validity.
    pub expires: Expires,
    /// Tags and what they are.
    #[serde(default, deserialize_with = "null_is_default")]
    pub targets: BTreeMap<String, FileMeta>,
    /// Its version.
    pub version: u64,
}

impl Targets {
    /// How long clients let targets be valid.
    pub const DAYS: i64 = 3 * 365;

    /// A file without any tag.
    #[must_use]
    pub fn new(expires: Expires, version: u64) -> Self {
        Self {
            tag: TargetsTag::Targets,
            delegations: Delegations::default(),
            expires,
            targets: BTreeMap::new(),
            version,
        }
    }

    /// A role that this file delegates to.
    #[must_use]
    pub fn delegation(&self, role: &Role) -> Option<&Delegation> {
        self.delegations.roles.iter().find(|delegation| delegation.name == *role)
    }

    /// The keys of a role that this file delegates to.
    #[must_use]
    pub fn role_keys(&self, role: &Role) -> Option<RoleKeys<'_>> {
        let delegation = self.delegation(role)?;
        let all = &self.delegations.keys;
        let keys = delegation.key_ids.iter().filter_map(|id| all.get_key_value(id)).collect();
        Some(RoleKeys { role: role.clone(), keys, threshold: delegation.threshold })
    }

    /// Gives a role these keys too, making the role with these paths where it is not there yet.
    pub fn delegate(&mut self, role: &Role, keys: &[Key], paths: &[String]) {
        let at = match self.delegations.roles.iter().position(|known| known.name == *role) {
            Some(at) => at,
            None => {
                self.delegations.roles.push(Delegation {
                    key_ids: Vec::new(),
                    name: role.clone(),
                    paths: Vec::new(),
                    threshold: 1,
                });
                self.delegations.roles.len() - 1
            }
        };
        let Some(delegation) = self.delegations.roles.get_mut(at) else {
            return;
        };
        for key in keys {
            let id = key.id();
            if !delegation.key_ids.contains(&id) {
                delegation.key_ids.push(id.clone());
            }
            self.delegations.keys.insert(id, key.clone());
        }
        for path in paths {
            if !delegation.paths.contains(path) {
                delegation.paths.push(path.clone());
            }
        }
    }

    /// Takes keys away from a role; the role stays, even with none.
    pub fn withdraw_keys(&mut self, role: &Role, ids: &[KeyId]) {
        for delegation in self.delegations.roles.iter_mut().filter(|known| known.name == *role) {
            delegation.key_ids.retain(|id| !ids.contains(id));
        }
        self.drop_unused_keys();
    }

    /// Takes a role away.
    pub fn withdraw(&mut self, role: &Role) {
        self.delegations.roles.retain(|known| known.name != *role);
        self.drop_unused_keys();
    }

    fn drop_unused_keys(&mut self) {
        let used: BTreeSet<KeyId> =
            self.delegations.roles.iter().flat_map(|role| role.key_ids.iter().cloned()).collect();
        self.delegations.keys.retain(|id, _| used.contains(id));
    }
}

impl Document for Targets {
    fn version(&self) -> u64 {
        self.version
    }

    fn expires(&self) -> OffsetDateTime {
        self.expires.0
    }

    fn check(&self, role: &Role) -> Result<(), String> {
        if !role.has_targets() {
            return Err(format!("{role} has no targets"));
        }
        let mut seen = BTreeSet::new();
        for delegation in &self.delegations.roles {
            let name = &delegation.name;
            if name.parent().as_ref() != Some(role) {
                return Err(format!("delegation role {name} invalid: not below {role}"));
            }
            if !seen.insert(name) {
                return Err(format!("delegation role {name} comes twice"));
            }
            if delegation.threshold < 1 {
                return Err(format!("{name}: threshold must be greater than 0"));
            }
        }
        Ok(())
    }
}
