//! From changes to the files that have to be signed and sent for them. Pure but for the keys.

use std::collections::{BTreeMap, BTreeSet};

use brig_pki::signing::SigningKey;
use brig_types::error::{Categorized, ErrorKind};
use time::OffsetDateTime;

use crate::TrustError;
use crate::key::{Key, KeyId};
use crate::keystore::{KeyStore, KeyStoreError, Passphrases};
use crate::metadata::{Document, Expires, FileMeta, RoleKeys, Root, Snapshot, Targets};
use crate::name::Role;
use crate::repository::Repository;
use crate::signed::Signed;

/// What is to be different.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A role signs a tag.
    Add {
        /// Who signs it.
        role: Role,
        /// The tag.
        name: String,
        /// What it is.
        meta: FileMeta,
    },
    /// A role does not sign a tag any more.
    Remove {
        /// Which role.
        role: Role,
        /// The tag.
        name: String,
    },
    /// A delegation gets keys and paths; it is made if it is not there.
    Delegate {
        /// The delegation.
        role: Role,
        /// More keys for it.
        keys: Vec<Key>,
        /// More paths for it.
        paths: Vec<String>,
    },
    /// A delegation loses keys.
    WithdrawKeys {
        /// The delegation.
        role: Role,
        /// Their IDs as the delegating file has them.
        ids: Vec<KeyId>,
    },
    /// A delegation is no more.
    Withdraw {
        /// The delegation.
        role: Role,
    },
    /// A base role gets another key in place of those it has.
    ReplaceKey {
        /// The role.
        role: Role,
        /// Its new key; of root a certificate.
        key: Key,
    },
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// None of a role's keys is here. The text is docker's.
    #[error(
        "could not find necessary signing keys, at least one of these keys must be available: {}",
        listed(.0)
    )]
    NoKey(Vec<KeyId>),
    /// A role that nobody delegates to.
    #[error("{0} does not exist: add its signer first with `brig trust signer add`")]
    NoSuchRole(Role),
    /// A key cannot be opened.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The result cannot be written.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl Categorized for EditError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoKey(_) => ErrorKind::Forbidden,
            Self::NoSuchRole(_) => ErrorKind::NotFound,
            Self::Keys(error) => error.kind(),
            Self::Trust(error) => error.kind(),
        }
    }
}

fn listed(ids: &[KeyId]) -> String {
    ids.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", ")
}

/// A repository while it is changed.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    old: Option<&'a Repository>,
    root: Root,
    root_changed: bool,
    targets: BTreeMap<Role, Targets>,
    changed: BTreeSet<Role>,
    now: OffsetDateTime,
}

impl<'a> Edit<'a> {
    /// Of a repository that is there.
    pub(crate) fn of(old: &'a Repository, now: OffsetDateTime) -> Self {
        let targets =
            old.targets.iter().map(|(role, file)| (role.clone(), file.document.clone())).collect();
        Self {
            old: Some(old),
            root: old.root.document.clone(),
            root_changed: false,
            targets,
            changed: BTreeSet::new(),
            now,
        }
    }

    /// Of a new repository: root and targets are sent in any case.
    pub(crate) fn first(root: Root, now: OffsetDateTime) -> Self {
        let targets = Targets::new(Expires::in_days(now, Targets::DAYS), 0);
        Self {
            old: None,
            root,
            root_changed: true,
            targets: BTreeMap::from([(Role::Targets, targets)]),
            changed: BTreeSet::from([Role::Targets]),
            now,
        }
    }

    /// Whether nothing would be different.
    pub(crate) fn is_empty(&self) -> bool {
        !self.root_changed && self.changed.is_empty()
    }

    /// Makes a change; one that changes nothing needs no key.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), EditError> {
        match change {
            Change::Add { role, name, meta } => self.change(role, |targets| {
                targets.targets.insert(name.clone(), meta.clone());
            }),
            Change::Remove { role, name } => self.change(role, |targets| {
                targets.targets.remove(name);
            }),
            Change::Delegate { role, keys, paths } => {
                self.change_parent(role, |targets| targets.delegate(role, keys, paths))
            }
            Change::WithdrawKeys { role, ids } => {
                self.change_parent(role, |targets| targets.withdraw_keys(role, ids))
            }
            Change::Withdraw { role } => self.change_parent(role, |targets| targets.withdraw(role)),
            Change::ReplaceKey { role, key } => {
                if !Role::BASE.contains(role) {
                    return Err(EditError::NoSuchRole(role.clone()));
                }
                self.root.set_key(role.clone(), key.clone());
                self.root_changed = true;
                if *role == Role::Targets {
                    self.changed.insert(Role::Targets);
                }
                Ok(())
            }
        }
    }

    fn change_parent(
        &mut self,
        role: &Role,
        change: impl FnOnce(&mut Targets),
    ) -> Result<(), EditError> {
        let parent = role.parent().ok_or_else(|| EditError::NoSuchRole(role.clone()))?;
        self.change(&parent, change)
    }

    fn change(&mut self, role: &Role, change: impl FnOnce(&mut Targets)) -> Result<(), EditError> {
        let before = match self.targets.get(role) {
            Some(targets) => targets.clone(),
            None => self.unsigned(role)?,
        };
        let mut after = before.clone();
        change(&mut after);
        // A file that is not there yet, or that does not count, is made good by any change.
        if after != before || !self.targets.contains_key(role) {
            self.targets.insert(role.clone(), after);
            self.changed.insert(role.clone());
        }
        Ok(())
    }

    /// A delegation's file that is not there, or does not count: what it may begin with.
    fn unsigned(&self, role: &Role) -> Result<Targets, EditError> {
        let known = role
            .parent()
            .and_then(|parent| self.targets.get(&parent))
            .is_some_and(|targets| targets.delegation(role).is_some());
        if !known {
            return Err(EditError::NoSuchRole(role.clone()));
        }
        let skipped = self.old.and_then(|old| old.skipped.get(role));
        let fresh = || {
            let version = skipped.map_or(0, |skipped| skipped.version);
            Targets::new(Expires::in_days(self.now, Targets::DAYS), version)
        };
        Ok(skipped.and_then(|skipped| skipped.expired.clone()).unwrap_or_else(fresh))
    }

    /// Signs what has changed: the files to send, all of them together.
    pub(crate) fn sign(
        mut self,
        keys: &mut KeyStore,
        passphrases: &mut dyn Passphrases,
    ) -> Result<Vec<(Role, Vec<u8>)>, EditError> {
        let mut files: Vec<(Role, Vec<u8>)> = Vec::new();
        if self.root_changed {
            let root = self.signed_root(keys, passphrases)?;
            files.push((Role::Root, root));
        }
        for role in std::mem::take(&mut self.changed) {
            let Some(mut targets) = self.targets.get(&role).cloned() else {
                continue;
            };
            targets.version += 1;
            targets.expires = Expires::in_days(self.now, Targets::DAYS);
            let spec = match role.parent() {
                None => self.root.role_keys(&role),
                Some(parent) => self.targets.get(&parent).and_then(|p| p.role_keys(&role)),
            };
            // A delegation that was changed and then withdrawn has nothing to say.
            let Some(spec) = spec else {
                continue;
            };
            let signers = signers(&spec, keys, passphrases)?;
            let raw = signed(targets, &role, &signers, keys)?;
            files.push((role, raw));
        }
        if let Some(snapshot) = self.own_snapshot(&files, keys, passphrases)? {
            files.push((Role::Snapshot, snapshot));
        }
        Ok(files)
    }

    /// The root, signed by the keys that it names and by those that its predecessor named.
    fn signed_root(
        &self,
        keys: &mut KeyStore,
        passphrases: &mut dyn Passphrases,
    ) -> Result<Vec<u8>, EditError> {
        let mut root = self.root.clone();
        let missing = || TrustError::Threshold(Role::Root);
        let mut by = signers(&root.role_keys(&Role::Root).ok_or_else(missing)?, keys, passphrases)?;
        if let Some(old) = self.old {
            root.version = old.root.document.version + 1;
            root.expires = Expires::in_days(self.now, Root::DAYS);
            let before = old.root.document.role_keys(&Role::Root).ok_or_else(missing)?;
            for signer in signers(&before, keys, passphrases)? {
                if !by.contains(&signer) {
                    by.push(signer);
                }
            }
        }
        signed(root, &Role::Root, &by, keys)
    }

    /// A snapshot, if its key is kept here and not by the server.
    fn own_snapshot(
        &self,
        files: &[(Role, Vec<u8>)],
        keys: &mut KeyStore,
        passphrases: &mut dyn Passphrases,
    ) -> Result<Option<Vec<u8>>, EditError> {
        let role = Role::Snapshot;
        let Some(spec) = self.root.role_keys(&role) else {
            return Ok(None);
        };
        let here =
            spec.keys.iter().any(|(_, key)| key.canonical_id().is_ok_and(|id| keys.has(&id)));
        if !here {
            return Ok(None);
        }
        let (mut meta, version) = match self.old {
            Some(old) => {
                let snapshot = &old.snapshot.document;
                (snapshot.meta.clone(), snapshot.version)
            }
            None => (BTreeMap::new(), 0),
        };
        meta.extend(files.iter().map(|(role, raw)| (role.clone(), FileMeta::of(raw))));
        let expires = Expires::in_days(self.now, Snapshot::DAYS);
        let signers = signers(&spec, keys, passphrases)?;
        signed(Snapshot::new(expires, version + 1, meta), &role, &signers, keys).map(Some)
    }
}

/// A key's ID in metadata, and the one that its private half is filed under.
type Signer = (KeyId, KeyId);

/// Opens those of a role's keys that are here.
fn signers(
    spec: &RoleKeys<'_>,
    keys: &mut KeyStore,
    passphrases: &mut dyn Passphrases,
) -> Result<Vec<Signer>, EditError> {
    let mut wanted = Vec::new();
    let mut opened = Vec::new();
    let mut refused = None;
    for (id, key) in &spec.keys {
        let Ok(canonical) = key.canonical_id() else {
            continue;
        };
        wanted.push(canonical.clone());
        if !keys.has(&canonical) {
            continue;
        }
        match keys.open(&canonical, passphrases) {
            Ok(_) => opened.push(((*id).clone(), canonical)),
            Err(error) => refused = Some(error),
        }
    }
    if opened.len() >= spec.threshold.max(1) {
        return Ok(opened);
    }
    Err(refused.map_or(EditError::NoKey(wanted), EditError::Keys))
}

fn signed<T: Document>(
    document: T,
    role: &Role,
    signers: &[Signer],
    keys: &KeyStore,
) -> Result<Vec<u8>, EditError> {
    let pairs: Vec<(&KeyId, &SigningKey)> =
        signers.iter().filter_map(|(id, canonical)| Some((id, keys.opened(canonical)?))).collect();
    Ok(Signed::sign(document, role, &pairs)?.raw().to_vec())
}
