//! From an upload to what is published, or to the reason why it is not.
//!
//! Nothing here reads or writes: what is stored, the server's keys and the time come in, files go
//! out. Parents come before those that they vouch for, as in verification.

use std::collections::BTreeMap;

use brig_pki::hash::sha256;
use brig_trust::metadata::{Expires, MAX_TIMESTAMP};
use brig_trust::remote::ServerRole;
use brig_trust::root::{Pinning, accept_root};
use brig_trust::signed::Demands;
use brig_trust::{
    Document, FileMeta, Gun, KeyId, Role, RoleKeys, Root, Signed, Snapshot, Targets, Timestamp,
    canonical,
};
use bytes::Bytes;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::fault::{Fault, Invalid};
use crate::multipart::Part;
use crate::repository::Repository;
use crate::storage::{Publication, StoredFile};
use crate::vault::ServerKey;

/// Timestamps with less time left are signed anew in the background.
pub(crate) const TIMESTAMP_AHEAD: Duration = Duration::days(7);
/// The same for snapshots.
pub(crate) const SNAPSHOT_AHEAD: Duration = Duration::days(30);
const NO_ROOT: &str = "no pre-existing root and no root provided in update.";
const NO_TARGETS: &str = "targets must be loaded first";
const NO_SNAPSHOT_KEY: &str = "no snapshot was included in update and server does not hold \
                               current snapshot key for repository";
/// The real server's text, blanks included.
const NO_TIMESTAMP_KEY: &str = "no  timestamp keys exist on the server";

/// Where the server's keys are.
pub(crate) trait Keys {
    /// Those of these keys whose private half is held.
    fn held(&self, role: ServerRole, ids: &[KeyId]) -> Result<Vec<ServerKey>, Fault>;
}

/// The files of an upload, each role once.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    files: BTreeMap<Role, Bytes>,
}

impl Upload {
    /// Reads the names and looks whether the contents are metadata at all.
    pub(crate) fn read(parts: Vec<Part>) -> Result<Self, Fault> {
        let mut files = BTreeMap::new();
        for part in parts {
            if part.filename.is_empty() {
                return Err(Fault::no_filename());
            }
            let name = part.filename.strip_suffix(".json").unwrap_or(&part.filename);
            let role = Role::parse(name).map_err(|_| Fault::invalid_role(name))?;
            if !is_metadata(&part.content) {
                return Err(Fault::malformed_json());
            }
            if files.insert(role, part.content).is_some() {
                let text = format!("{name} is in the upload twice");
                return Err(Fault::invalid_update(Invalid::Validation, &text));
            }
        }
        Ok(Self { files })
    }
}

/// JSON with `signed`, and that with a type, an end and a version.
fn is_metadata(content: &[u8]) -> bool {
    let Ok(value) = canonical::parse(content) else { return false };
    let Some(signed) = value.get("signed") else { return false };
    let expires = signed.get("expires").and_then(Value::as_str);
    signed.get("_type").is_some_and(Value::is_string)
        && signed.get("version").is_some_and(Value::is_i64)
        && expires.is_some_and(|text| OffsetDateTime::parse(text, &Rfc3339).is_ok())
}

/// What is stored and what is sent, role by role.
struct Update<'a> {
    current: Option<&'a Repository>,
    upload: &'a Upload,
    now: OffsetDateTime,
    root: Signed<Root>,
    /// Targets and delegations that were looked at.
    loaded: BTreeMap<Role, Signed<Targets>>,
}

/// Checks an upload and completes it.
pub(crate) fn publish(
    gun: &Gun,
    current: Option<&Repository>,
    upload: &Upload,
    keys: &dyn Keys,
    now: OffsetDateTime,
) -> Result<Publication, Fault> {
    let root = root(gun, current, upload, now)?;
    let mut update = Update { current, upload, now, root, loaded: BTreeMap::new() };
    update.targets()?;
    let (snapshot, snapshot_end) = update.snapshot(keys)?;
    let (timestamp, timestamp_end) =
        sign_timestamp(&update.root.document, current, &snapshot, keys, now)?
            .ok_or_else(|| Fault::invalid_update(Invalid::Root, NO_TIMESTAMP_KEY))?;
    let sent =
        upload.files.iter().filter(|(role, _)| !matches!(role, Role::Snapshot | Role::Timestamp));
    let mut files = Vec::with_capacity(upload.files.len() + 2);
    for (role, bytes) in sent {
        let version = match update.loaded.get(role) {
            Some(targets) => targets.document.version(),
            None => update.root.document.version(),
        };
        files.push(stored(role.clone(), version, bytes.clone(), now));
    }
    files.extend([snapshot, timestamp]);
    let due = snapshot_end.min(timestamp_end);
    Ok(publication(gun, current, &update.root.document, files, due))
}

/// Signs what has less time left than these, as far as the server has the keys; `None` when there
/// is nothing to be done.
pub(crate) fn renew(
    gun: &Gun,
    current: &Repository,
    keys: &dyn Keys,
    now: OffsetDateTime,
    ahead: (Duration, Duration),
) -> Result<Option<Publication>, Fault> {
    let unreadable = |_| Fault::internal();
    let root = current.files.get(&Role::Root).ok_or_else(Fault::internal)?;
    let root = Signed::<Root>::parse(&root.bytes, &Role::Root).map_err(unreadable)?.document;
    let old = Signed::<Timestamp>::parse(&current.timestamp.bytes, &Role::Timestamp)
        .map_err(unreadable)?
        .document;
    let names = Signed::<Snapshot>::parse(&current.snapshot.bytes, &Role::Snapshot)
        .map_err(unreadable)?
        .document;
    let mut snapshot_end = names.expires();
    let mut snapshot = current.snapshot.clone();
    let mut files = Vec::new();
    if snapshot_end <= now.saturating_add(ahead.1)
        && let Some((file, end)) = sign_snapshot(&root, Some(current), names.meta, keys, now)?
    {
        snapshot_end = end;
        snapshot = file.clone();
        files.push(file);
    }
    if files.is_empty() && old.expires() > now.saturating_add(ahead.0) {
        return Ok(None);
    }
    let signed = sign_timestamp(&root, Some(current), &snapshot, keys, now)?;
    let Some((timestamp, end)) = signed else { return Ok(None) };
    files.push(timestamp);
    Ok(Some(publication(gun, Some(current), &root, files, end.min(snapshot_end))))
}

fn publication(
    gun: &Gun,
    current: Option<&Repository>,
    root: &Root,
    files: Vec<StoredFile>,
    due: OffsetDateTime,
) -> Publication {
    let ids = |role: ServerRole| key_ids(root, role);
    let named_keys = [ids(ServerRole::Snapshot), ids(ServerRole::Timestamp)].concat();
    let after = current.map(|current| current.timestamp.version);
    Publication { gun: gun.clone(), after, files, named_keys, due }
}

fn key_ids(root: &Root, role: ServerRole) -> Vec<KeyId> {
    root.roles.get(&role.role()).map(|spec| spec.key_ids.clone()).unwrap_or_default()
}

fn stored(role: Role, version: u64, bytes: Bytes, now: OffsetDateTime) -> StoredFile {
    StoredFile { role, version, digest: sha256(&bytes), bytes, stored: now }
}

/// The root that counts for this upload: the one in it, or the stored one.
fn root(
    gun: &Gun,
    current: Option<&Repository>,
    upload: &Upload,
    now: OffsetDateTime,
) -> Result<Signed<Root>, Fault> {
    let bad = |reason: &str| Fault::invalid_update(Invalid::Root, reason);
    let stored = current
        .and_then(|current| current.files.get(&Role::Root))
        .map(|file| Signed::<Root>::parse(&file.bytes, &Role::Root))
        .transpose()
        .map_err(|_| Fault::internal())?;
    let Some(bytes) = upload.files.get(&Role::Root) else {
        return stored.ok_or_else(|| Fault::invalid_update(Invalid::Validation, NO_ROOT));
    };
    let new = Signed::<Root>::parse(bytes, &Role::Root).map_err(|error| bad(&error.to_string()))?;
    let version = new.document.version();
    let known = stored.as_ref().map_or(1, |stored| stored.document.version());
    if version < known || version > known.saturating_add(1) {
        let text = format!("root version {version} does not follow version {known}");
        return Err(bad(&text));
    }
    let previous = stored.as_ref().map(|stored| &stored.document);
    accept_root(&new, previous, gun, &Pinning::default(), now)
        .map_err(|error| bad(&error.to_string()))?;
    unexpired(&new, &Role::Root, now).map_err(|reason| bad(&reason))?;
    Ok(new)
}

fn unexpired<T: Document>(
    signed: &Signed<T>,
    role: &Role,
    now: OffsetDateTime,
) -> Result<(), String> {
    signed
        .meets(role, Demands { at_least: 0, unexpired_at: Some(now) })
        .map_err(|error| error.to_string())
}

impl Update<'_> {
    /// Targets and delegations, parents first.
    fn targets(&mut self) -> Result<(), Fault> {
        let has_targets = self.upload.files.contains_key(&Role::Targets)
            || self.current.is_some_and(|current| current.files.contains_key(&Role::Targets));
        if !has_targets {
            return Err(Fault::invalid_update(Invalid::Validation, NO_TARGETS));
        }
        let mut roles: Vec<&Role> =
            self.upload.files.keys().filter(|role| role.has_targets()).collect();
        // Another root may have taken the targets' key away: then what is stored counts no more.
        if self.upload.files.contains_key(&Role::Root) && !roles.contains(&&Role::Targets) {
            roles.push(&Role::Targets);
        }
        roles.sort_by_key(|role| role.depth());
        for role in roles {
            self.load(role).map_err(|reason| Fault::invalid_update(Invalid::Targets, &reason))?;
        }
        Ok(())
    }

    /// Loads a file from the upload or else from the store, after its parents, and checks it.
    fn load(&mut self, role: &Role) -> Result<(), String> {
        // From the top down, so that a deep name costs no stack.
        let mut line = vec![role.clone()];
        while let Some(parent) = line.last().and_then(Role::parent) {
            line.push(parent);
        }
        for role in line.iter().rev() {
            if self.loaded.contains_key(role) {
                continue;
            }
            let sent = self.upload.files.get(role);
            let kept = || self.current?.files.get(role).map(|file| &file.bytes);
            let bytes = sent.or_else(kept).ok_or_else(|| format!("{role} is not there"))?;
            let signed =
                Signed::<Targets>::parse(bytes, role).map_err(|error| error.to_string())?;
            let keys = self.keys_of(role).ok_or_else(|| format!("{role} is not delegated to"))?;
            signed.verify(&keys).map_err(|error| error.to_string())?;
            if sent.is_some() {
                unexpired(&signed, role, self.now)?;
            }
            self.loaded.insert(role.clone(), signed);
        }
        Ok(())
    }

    fn keys_of(&self, role: &Role) -> Option<RoleKeys<'_>> {
        match role.parent() {
            None => self.root.document.role_keys(role),
            Some(parent) => self.loaded.get(&parent)?.document.role_keys(role),
        }
    }

    /// The snapshot in the upload, or one of our own.
    fn snapshot(&self, keys: &dyn Keys) -> Result<(StoredFile, OffsetDateTime), Fault> {
        if let Some(bytes) = self.upload.files.get(&Role::Snapshot) {
            return self
                .sent_snapshot(bytes)
                .map_err(|reason| Fault::invalid_update(Invalid::Snapshot, &reason));
        }
        let mut meta = match self.current {
            Some(current) => {
                Signed::<Snapshot>::parse(&current.snapshot.bytes, &Role::Snapshot)
                    .map_err(|_| Fault::internal())?
                    .document
                    .meta
            }
            None => BTreeMap::new(),
        };
        meta.insert(Role::Root, self.root.meta());
        for (role, signed) in &self.loaded {
            meta.insert(role.clone(), signed.meta());
        }
        sign_snapshot(&self.root.document, self.current, meta, keys, self.now)?
            .ok_or_else(|| Fault::invalid_update(Invalid::Hierarchy, NO_SNAPSHOT_KEY))
    }

    /// A publisher's own snapshot: signed, in time, and of the files that there will be.
    fn sent_snapshot(&self, bytes: &Bytes) -> Result<(StoredFile, OffsetDateTime), String> {
        let signed =
            Signed::<Snapshot>::parse(bytes, &Role::Snapshot).map_err(|error| error.to_string())?;
        let keys = self.root.document.role_keys(&Role::Snapshot);
        let keys = keys.ok_or_else(|| "the root has no snapshot role".to_owned())?;
        signed.verify(&keys).map_err(|error| error.to_string())?;
        unexpired(&signed, &Role::Snapshot, self.now)?;
        let meta = &signed.document.meta;
        let check = |role: &Role, content: &[u8]| match meta.get(role) {
            Some(meta) => meta.check(role.as_str(), content).map_err(|error| error.to_string()),
            None => Err(format!("{role} is not in the snapshot")),
        };
        check(&Role::Root, self.root.raw())?;
        for (role, loaded) in &self.loaded {
            check(role, loaded.raw())?;
        }
        // What is not sent stays as it is: a snapshot made before the newest one would take
        // others' files back.
        for (role, file) in self.current.iter().flat_map(|current| &current.files) {
            let stays = !self.upload.files.contains_key(role);
            if stays && (*role == Role::Targets || meta.contains_key(role)) {
                check(role, &file.bytes)?;
            }
        }
        let end = signed.document.expires();
        let version = signed.document.version();
        Ok((stored(Role::Snapshot, version, bytes.clone(), self.now), end))
    }
}

/// A snapshot of these files, one version up; `None` without the keys.
fn sign_snapshot(
    root: &Root,
    current: Option<&Repository>,
    meta: BTreeMap<Role, FileMeta>,
    keys: &dyn Keys,
    now: OffsetDateTime,
) -> Result<Option<(StoredFile, OffsetDateTime)>, Fault> {
    let version = current.map_or(0, |current| current.snapshot.version).saturating_add(1);
    let expires = Expires::in_days(now, Snapshot::DAYS);
    sign(root, ServerRole::Snapshot, Snapshot::new(expires, version, meta), keys, now)
}

/// A timestamp of this snapshot, one version up; `None` without the keys.
fn sign_timestamp(
    root: &Root,
    current: Option<&Repository>,
    snapshot: &StoredFile,
    keys: &dyn Keys,
    now: OffsetDateTime,
) -> Result<Option<(StoredFile, OffsetDateTime)>, Fault> {
    let version = current.map_or(0, |current| current.timestamp.version).saturating_add(1);
    let expires = Expires::in_days(now, Timestamp::DAYS);
    let document = Timestamp::new(expires, version, FileMeta::of(&snapshot.bytes));
    let signed = sign(root, ServerRole::Timestamp, document, keys, now)?;
    Ok(signed.filter(|(file, _)| file.bytes.len() <= MAX_TIMESTAMP))
}

fn sign<T: Document>(
    root: &Root,
    role: ServerRole,
    document: T,
    keys: &dyn Keys,
    now: OffsetDateTime,
) -> Result<Option<(StoredFile, OffsetDateTime)>, Fault> {
    let held = keys.held(role, &key_ids(root, role))?;
    let pairs: Vec<_> = held.iter().map(|key| (&key.id, &key.private)).collect();
    let role = role.role();
    if root.roles.get(&role).is_none_or(|spec| pairs.is_empty() || pairs.len() < spec.threshold) {
        return Ok(None);
    }
    let (version, end) = (document.version(), document.expires());
    let signed = Signed::sign(document, &role, &pairs).map_err(|error| {
        tracing::error!(%role, error = brig_types::error::chain(&error), "cannot sign");
        Fault::internal()
    })?;
    Ok(Some((stored(role, version, Bytes::copy_from_slice(signed.raw()), now), end)))
}

#[cfg(test)]
mod tests;
