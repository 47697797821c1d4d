//! Checking files against the root, against what was seen before, and against each other.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use crate::TrustError;
use crate::cache::CachedFiles;
use crate::metadata::{Document, FileMeta, RoleKeys, Root, Snapshot, Targets, Timestamp};
use crate::name::{Gun, Role};
use crate::repository::{Repository, Skipped};
use crate::root::check_remembered;
use crate::signed::{Demands, Signed};

/// From when on a coming end is told.
const NEAR_EXPIRY: Duration = Duration::days(180);

/// The remembered root. It is the pin: one that does not hold is an error, not a reason to take
/// whatever the server has.
pub(super) fn remembered_root(
    cached: &CachedFiles,
    gun: &Gun,
) -> Result<Option<Signed<Root>>, TrustError> {
    let Some(content) = cached.get(&Role::Root) else {
        return Ok(None);
    };
    let root = Signed::<Root>::parse(content, &Role::Root)?;
    check_remembered(&root, gun)?;
    Ok(Some(root))
}

/// The versions that were seen before, of files that their keys have signed.
pub(super) struct Floors {
    pub(super) versions: BTreeMap<Role, u64>,
}

impl Floors {
    pub(super) fn of(cached: &CachedFiles, gun: &Gun) -> Self {
        fn version<T: Document>(
            cached: &CachedFiles,
            role: &Role,
            keys: Option<RoleKeys<'_>>,
        ) -> Option<(u64, Signed<T>)> {
            let file = Signed::<T>::parse(cached.get(role)?, role).ok()?;
            file.verify(&keys?).ok()?;
            Some((file.document.version(), file))
        }
        let mut versions = BTreeMap::new();
        let Ok(Some(root)) = remembered_root(cached, gun) else {
            return Self { versions };
        };
        let keys = |role: &Role| root.document.role_keys(role);
        let (timestamp, snapshot) = (Role::Timestamp, Role::Snapshot);
        if let Some((v, _)) = version::<Timestamp>(cached, &timestamp, keys(&timestamp)) {
            versions.insert(timestamp, v);
        }
        if let Some((v, _)) = version::<Snapshot>(cached, &snapshot, keys(&snapshot)) {
            versions.insert(snapshot, v);
        }
        let mut files: BTreeMap<Role, Signed<Targets>> = BTreeMap::new();
        // Parents come before their children: their names are shorter beginnings.
        for role in cached.keys().filter(|role| role.has_targets()) {
            let keys = match role.parent() {
                None => keys(role),
                Some(parent) => files.get(&parent).and_then(|f| f.document.role_keys(role)),
            };
            if let Some((v, file)) = version::<Targets>(cached, role, keys) {
                versions.insert(role.clone(), v);
                files.insert(role.clone(), file);
            }
        }
        Self { versions }
    }

    fn floor(&self, role: &Role) -> u64 {
        self.versions.get(role).copied().unwrap_or(1)
    }
}

/// Checks files against a root.
#[derive(Clone, Copy)]
pub(super) struct Verifier<'a> {
    pub(super) root: &'a Signed<Root>,
    pub(super) floors: &'a Floors,
    pub(super) now: OffsetDateTime,
}

impl Verifier<'_> {
    pub(super) fn base<T: Document>(
        &self,
        content: &[u8],
        role: &Role,
    ) -> Result<Signed<T>, TrustError> {
        let keys = self.root.document.role_keys(role);
        self.verify(content, role, keys)
    }

    fn verify<T: Document>(
        &self,
        content: &[u8],
        role: &Role,
        keys: Option<RoleKeys<'_>>,
    ) -> Result<Signed<T>, TrustError> {
        let file = Signed::<T>::parse(content, role)?;
        file.verify(&keys.ok_or_else(|| TrustError::Threshold(role.clone()))?)?;
        let at_least = self.floors.floor(role);
        file.meets(role, Demands { at_least, unexpired_at: Some(self.now) })?;
        Ok(file)
    }

    pub(super) fn snapshot(
        &self,
        content: &[u8],
        timestamp: &Signed<Timestamp>,
    ) -> Result<Signed<Snapshot>, TrustError> {
        let role = Role::Snapshot;
        if let Some(meta) = timestamp.document.snapshot() {
            meta.check(role.as_str(), content)?;
        }
        let snapshot: Signed<Snapshot> = self.base(content, &role)?;
        // The root that is believed and the one that the rest was made for are the same.
        if let Some(meta) = snapshot.document.meta.get(&Role::Root) {
            meta.check(Role::Root.as_str(), self.root.raw())?;
        }
        Ok(snapshot)
    }

    pub(super) fn targets(
        &self,
        content: &[u8],
        role: &Role,
        found: &Below,
    ) -> Result<Signed<Targets>, TrustError> {
        if let Some(meta) = found.listed(role) {
            meta.check(role.as_str(), content)?;
        }
        let keys = match role.parent() {
            None => self.root.document.role_keys(role),
            Some(parent) => found.targets.get(&parent).and_then(|f| f.document.role_keys(role)),
        };
        self.verify(content, role, keys)
    }
}

/// What was found below a root.
pub(super) struct Below {
    timestamp: Signed<Timestamp>,
    snapshot: Signed<Snapshot>,
    targets: BTreeMap<Role, Signed<Targets>>,
    skipped: BTreeMap<Role, Skipped>,
    pub(super) warnings: Vec<String>,
}

impl Below {
    pub(super) fn new(timestamp: Signed<Timestamp>, snapshot: Signed<Snapshot>) -> Self {
        Self {
            timestamp,
            snapshot,
            targets: BTreeMap::new(),
            skipped: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn listed(&self, role: &Role) -> Option<&FileMeta> {
        self.snapshot.document.meta.get(role)
    }

    pub(super) fn count(&self) -> usize {
        self.targets.len() + self.skipped.len()
    }

    /// Adds a file; what it delegates to is next, the first role last: it is taken from the end.
    pub(super) fn add(&mut self, role: Role, file: Signed<Targets>) -> Vec<Role> {
        let roles = file.document.delegations.roles.iter().rev().map(|d| d.name.clone()).collect();
        self.targets.insert(role, file);
        roles
    }

    /// Takes a delegation's file. One that is expired or lacks signatures is left out with a
    /// warning; any other fault fails everything.
    pub(super) fn take(
        &mut self,
        verifier: &Verifier<'_>,
        role: &Role,
        content: &[u8],
    ) -> Result<Option<Vec<Role>>, TrustError> {
        match verifier.targets(content, role, self) {
            Ok(file) => Ok(Some(self.add(role.clone(), file))),
            Err(error @ (TrustError::Expired { .. } | TrustError::Threshold(_))) => {
                let file = Signed::<Targets>::parse(content, role)?;
                let expired = matches!(error, TrustError::Expired { .. });
                self.skipped.insert(
                    role.clone(),
                    Skipped {
                        version: file.document.version,
                        expired: expired.then_some(file.document),
                    },
                );
                self.warnings.push(format!("Error getting {role}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn into_repository(
        self,
        gun: Gun,
        root: Signed<Root>,
        now: OffsetDateTime,
    ) -> Repository {
        let mut warnings = self.warnings;
        let mut near = |role: &Role, expires: OffsetDateTime| {
            if expires < now.saturating_add(NEAR_EXPIRY) {
                warnings.push(format!(
                    "{role} metadata is nearing expiry, you should re-sign the role metadata"
                ));
            }
        };
        near(&Role::Root, root.document.expires());
        for (role, file) in &self.targets {
            near(role, file.document.expires());
        }
        Repository {
            gun,
            root,
            timestamp: self.timestamp,
            snapshot: self.snapshot,
            targets: self.targets,
            skipped: self.skipped,
            warnings,
        }
    }
}
