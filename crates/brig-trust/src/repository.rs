//! A repository whose metadata was verified, and what it says about tags.

use std::collections::{BTreeMap, VecDeque};

use brig_types::error::{Categorized, ErrorKind};

use crate::key::KeyId;
use crate::metadata::{Delegation, FileMeta, Root, Snapshot, Targets, Timestamp};
use crate::name::{Gun, Role};
use crate::signed::Signed;

/// Verified metadata of one repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Its name.
    pub gun: Gun,
    /// Who has which key.
    pub root: Signed<Root>,
    /// The proof that the rest is recent.
    pub timestamp: Signed<Timestamp>,
    /// What belongs together.
    pub snapshot: Signed<Snapshot>,
    /// `targets` and every delegation that holds.
    pub targets: BTreeMap<Role, Signed<Targets>>,
    /// Delegations that do not hold now.
    pub skipped: BTreeMap<Role, Skipped>,
    /// What a user should know although it stopped nothing.
    pub warnings: Vec<String>,
}

/// A delegation's file that does not count.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// Its version: what is signed next must be above it.
    pub version: u64,
    /// Its content, where only its time has passed.
    pub expired: Option<Targets>,
}

/// A tag as some role has signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The tag.
    pub name: String,
    /// Who signed it.
    pub role: Role,
    /// What it is.
    pub meta: FileMeta,
}

impl Target {
    /// The image's digest, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.meta.sha256().map(|hash| format!("sha256:{}", brig_pki::hash::hex(&hash)))
    }

    /// Whether clients take the tag from this role.
    #[must_use]
    pub fn is_released(&self) -> bool {
        is_released_by(&self.role)
    }
}

/// A role that clients take tags from: the others only say who else agrees.
#[must_use]
pub fn is_released_by(role: &Role) -> bool {
    *role == Role::Targets || *role == Role::releases()
}

/// A tag that has no trust data. The texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nobody has signed it.
    #[error("No valid trust data for {0}")]
    Unknown(String),
    /// Somebody has, but it is not released.
    #[error("No trust data for {0}")]
    NotReleased(String),
}

impl Categorized for LookupError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NotFound
    }
}

impl Repository {
    /// The released image of a tag.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn released(&self, tag: &str) -> Result<Target, LookupError> {
        let found = self
            .find(tag, &Role::releases())
            .or_else(|| self.find(tag, &Role::Targets))
            .filter(|target| target.meta.sha256().is_some())
            .ok_or_else(|| LookupError::Unknown(tag.to_owned()))?;
        if found.is_released() { Ok(found) } else { Err(LookupError::NotReleased(tag.to_owned())) }
    }

    /// The first target of this name in a role or below it.
    fn find(&self, name: &str, below: &Role) -> Option<Target> {
        let mut found = None;
        self.walk(Some(name), below, &mut |role, targets| {
            if found.is_none()
                && let Some(meta) = targets.targets.get(name)
            {
                found =
                    Some(Target { name: name.to_owned(), role: role.clone(), meta: meta.clone() });
            }
            found.is_none()
        });
        found
    }

    /// Everything that roles sign within their paths, in the order of a search.
    #[must_use]
    pub fn all_targets(&self) -> Vec<Target> {
        let mut all = Vec::new();
        self.walk_with_paths(None, &Role::Targets, &mut |role, paths, targets| {
            for (name, meta) in &targets.targets {
                if paths.iter().any(|path| name.starts_with(path.as_str())) {
                    all.push(Target { name: name.clone(), role: role.clone(), meta: meta.clone() });
                }
            }
            true
        });
        all
    }

    /// Everything that is released, each tag once, the releases role first.
    #[must_use]
    pub fn all_released(&self) -> BTreeMap<String, Target> {
        let mut released = BTreeMap::new();
        let all = self.all_targets();
        let of = |role: Role| all.iter().filter(move |target| target.role == role);
        for target in of(Role::releases()).chain(of(Role::Targets)) {
            released.entry(target.name.clone()).or_insert_with(|| target.clone());
        }
        released
    }

    fn walk(
        &self,
        name: Option<&str>,
        below: &Role,
        visit: &mut dyn FnMut(&Role, &Targets) -> bool,
    ) {
        self.walk_with_paths(name, below, &mut |role, _, targets| visit(role, targets));
    }

    /// Visits roles breadth first, from `targets` down to `below` and what is under it, as long as
    /// `visit` says so. With a name, only roles that may sign it count, and those under them.
    fn walk_with_paths(
        &self,
        name: Option<&str>,
        below: &Role,
        visit: &mut dyn FnMut(&Role, &[String], &Targets) -> bool,
    ) {
        let mut waiting = VecDeque::from([(Role::Targets, vec![String::new()])]);
        while let Some((role, paths)) = waiting.pop_front() {
            let Some(file) = self.targets.get(&role) else {
                continue;
            };
            let targets = &file.document;
            let is_above = is_below(below, &role) && *below != role;
            if !is_above {
                let may =
                    name.is_none_or(|name| paths.iter().any(|p| name.starts_with(p.as_str())));
                if !may || !is_below(&role, below) {
                    continue;
                }
                if !visit(&role, &paths, targets) {
                    return;
                }
            }
            for delegation in &targets.delegations.roles {
                let allowed = delegation.within(&paths);
                if !allowed.is_empty() {
                    waiting.push_back((delegation.name.clone(), allowed));
                }
            }
        }
    }

    /// All delegations, those of `targets` first, with the file that lists each.
    pub fn delegations(&self) -> impl Iterator<Item = (&Role, &Delegation)> {
        self.targets.iter().flat_map(|(role, file)| {
            file.document.delegations.roles.iter().map(move |delegation| (role, delegation))
        })
    }

    /// The keys that may sign for a role, under the IDs that private keys are filed by; a key
    /// whose certificate cannot be read is left out.
    #[must_use]
    pub fn signing_ids(&self, role: &Role) -> Vec<(KeyId, KeyId)> {
        let keys = match role.parent() {
            None => self.root.document.role_keys(role),
            Some(parent) => self.targets.get(&parent).and_then(|f| f.document.role_keys(role)),
        };
        keys.map(|keys| {
            keys.keys
                .iter()
                .filter_map(|(id, key)| Some(((*id).clone(), key.canonical_id().ok()?)))
                .collect()
        })
        .unwrap_or_default()
    }
}

/// Whether a role is another one or under it.
fn is_below(role: &Role, other: &Role) -> bool {
    role == other
        || (other.has_targets()
            && role.as_str().strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/')))
}
