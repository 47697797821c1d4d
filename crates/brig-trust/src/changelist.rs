//! Changes that were made and not published, where docker's and notary's clients keep them:
//! `tuf/GUN/changelist`, a file each, in the order of their names.
//!
//! Whoever publishes next with a client that looks there takes them along, whichever client left
//! them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::{PkiError, random};
use brig_types::error::{Categorized, ErrorKind};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::edit::Change;
use crate::files;
use crate::key::{Key, KeyId};
use crate::metadata::FileMeta;
use crate::name::{Gun, Role};
use crate::repository::Repository;

/// Largest file of one change.
const MAX_CHANGE: usize = 1 << 20;
/// Most changes that may wait.
const MAX_CHANGES: usize = 4096;
const SUFFIX: &str = ".change";
const TARGET: &str = "target";
const DELEGATION: &str = "delegation";

/// Why changes cannot be taken along or left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangelistError {
    /// A file or the folder cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are too many.
    #[error("more than {MAX_CHANGES} unpublished changes wait in {}; remove what is not wanted", .0.display())]
    TooMany(PathBuf),
    /// One says what cannot be published here.
    #[error(
        "{} is an unpublished change of another client that brig cannot publish ({what}): publish it with that client, or remove the file",
        path.display()
    )]
    Unknown {
        /// The change.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no randomness for a name.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl Categorized for ChangelistError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File { .. } | Self::Pki(_) => ErrorKind::System,
            Self::TooMany(_) | Self::Unknown { .. } => ErrorKind::InvalidParameter,
        }
    }
}

/// A repository's unpublished changes.
#[derive(Clone, Debug)]
pub struct Changelist {
    dir: PathBuf,
}

/// What was waiting when it was looked at.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The changes, oldest first.
    pub changes: Vec<Change>,
    files: Vec<PathBuf>,
}

impl Waiting {
    /// How many files it is.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// A change as it is written; `data` is JSON in base64.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    action: Action,
    role: String,
    r#type: String,
    path: String,
    data: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Create,
    Update,
    Delete,
}

/// What is said of a delegation. Keys are removed by the IDs of their private halves.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WireDelegation {
    #[serde(rename = "threshold", skip_serializing_if = "Option::is_none")]
    threshold: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    add_keys: Vec<Key>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove_keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    add_paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove_paths: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    clear_paths: bool,
}

impl Changelist {
    /// In a trust folder, such as `~/.docker/trust`.
    #[must_use]
    pub fn new(trust_dir: &Path, gun: &Gun) -> Self {
        Self { dir: trust_dir.join("tuf").join(gun.as_str()).join("changelist") }
    }

    /// What waits, for a repository that is known so far. Blocks.
    ///
    /// # Errors
    /// [`ChangelistError`].
    pub fn waiting(&self, known: Option<&Repository>) -> Result<Waiting, ChangelistError> {
        let files = self.files()?;
        let mut changes = Vec::new();
        for path in &files {
            let read = files::read(path, MAX_CHANGE).map_err(|e| failed("read", path, e))?;
            // Somebody else has published it by now.
            let Some(content) = read else { continue };
            let parsed = parse(&content, known);
            changes.extend(
                parsed.map_err(|what| ChangelistError::Unknown { path: path.clone(), what })?,
            );
        }
        Ok(Waiting { changes, files })
    }

    /// Forgets what was waiting; what came since stays. Blocks.
    ///
    /// # Errors
    /// [`ChangelistError::File`].
    pub fn clear(&self, waiting: &Waiting) -> Result<(), ChangelistError> {
        for path in &waiting.files {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets everything, without reading it; how many that were. Blocks.
    ///
    /// # Errors
    /// [`ChangelistError`].
    pub fn clear_all(&self) -> Result<usize, ChangelistError> {
        let waiting = Waiting { changes: Vec::new(), files: self.files()? };
        self.clear(&waiting)?;
        Ok(waiting.len())
    }

    /// Leaves changes behind for the next publication; how many files that takes. Those of keys of
    /// base roles are not kept: they are made anew. Blocks.
    ///
    /// # Errors
    /// [`ChangelistError`].
    pub fn leave(
        &self,
        changes: &[Change],
        known: Option<&Repository>,
    ) -> Result<usize, ChangelistError> {
        let wires: Vec<Wire> = changes.iter().filter_map(|change| wire(change, known)).collect();
        for wire in &wires {
            let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos();
            let unique = hex::encode(random::bytes::<16>()?);
            let path = self.dir.join(format!("{nanoseconds:020}_{unique}{SUFFIX}"));
            let content = serde_json::to_vec(wire)
                .map_err(|error| failed("write", &path, io::Error::other(error)))?;
            files::replace(&path, &content, files::Durability::Synced)
                .map_err(|error| failed("write", &path, error))?;
        }
        Ok(wires.len())
    }

    fn files(&self) -> Result<Vec<PathBuf>, ChangelistError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("read", &self.dir, error)),
        };
        let mut found = BTreeSet::new();
        for entry in entries {
            let path = entry.map_err(|error| failed("read", &self.dir, error))?.path();
            let is_change = path.to_str().is_some_and(|path| path.ends_with(SUFFIX));
            if !is_change {
                continue;
            }
            found.insert(path);
            if found.len() > MAX_CHANGES {
                return Err(ChangelistError::TooMany(self.dir.clone()));
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ChangelistError {
    ChangelistError::File { action, path: path.to_owned(), source }
}

/// A change as it was written by anybody.
fn parse(content: &[u8], known: Option<&Repository>) -> Result<Vec<Change>, &'static str> {
    let wire: Wire = serde_json::from_slice(content).map_err(|_| "it cannot be read")?;
    let role = Role::parse(&wire.role).map_err(|_| "its role is none")?;
    let data = STANDARD.decode(wire.data.unwrap_or_default()).map_err(|_| "its data is damaged")?;
    match (wire.r#type.as_str(), wire.action) {
        (TARGET, Action::Delete) => Ok(vec![Change::Remove { role, name: wire.path }]),
        (TARGET, Action::Create | Action::Update) => {
            let meta: FileMeta =
                serde_json::from_slice(&data).map_err(|_| "what it signs cannot be read")?;
            Ok(vec![Change::Add { role, name: wire.path, meta }])
        }
        (DELEGATION, Action::Delete) => Ok(vec![Change::Withdraw { role }]),
        (DELEGATION, Action::Create | Action::Update) => {
            let said: WireDelegation =
                serde_json::from_slice(&data).map_err(|_| "its delegation cannot be read")?;
            delegation(role, said, known)
        }
        _ => Err("it is of another type"),
    }
}

fn delegation(
    role: Role,
    said: WireDelegation,
    known: Option<&Repository>,
) -> Result<Vec<Change>, &'static str> {
    let WireDelegation { threshold, add_keys, remove_keys, add_paths, remove_paths, clear_paths } =
        said;
    if clear_paths || !remove_paths.is_empty() {
        return Err("it takes paths from a delegation");
    }
    // What a client adds or removes keys with says either.
    if threshold.is_some_and(|threshold| threshold > 1) {
        return Err("it demands several signatures");
    }
    let mut changes = Vec::new();
    if !add_keys.is_empty() || !add_paths.is_empty() {
        let role = role.clone();
        changes.push(Change::Delegate { role, keys: add_keys, paths: add_paths });
    }
    if !remove_keys.is_empty() {
        let named = known.map(|known| known.signing_ids(&role)).unwrap_or_default();
        let is_meant = |id: &KeyId| remove_keys.iter().any(|removed| removed == id.as_str());
        let ids = named.into_iter().filter(|(id, own)| is_meant(id) || is_meant(own));
        let ids = ids.map(|(id, _)| id).collect();
        changes.push(Change::WithdrawKeys { role, ids });
    }
    Ok(changes)
}

/// A change as docker's clients write it.
fn wire(change: &Change, known: Option<&Repository>) -> Option<Wire> {
    let said = |action, role: &Role, r#type: &str, path: &str, data: Option<Vec<u8>>| Wire {
        action,
        role: role.to_string(),
        r#type: r#type.to_owned(),
        path: path.to_owned(),
        data: data.map(|data| STANDARD.encode(data)),
    };
    Some(match change {
        Change::Add { role, name, meta } => {
            said(Action::Create, role, TARGET, name, Some(serde_json::to_vec(meta).ok()?))
        }
        Change::Remove { role, name } => said(Action::Delete, role, TARGET, name, None),
        Change::Delegate { role, keys, paths } => {
            let data = WireDelegation {
                threshold: Some(1),
                add_keys: keys.clone(),
                add_paths: paths.clone(),
                ..WireDelegation::default()
            };
            said(Action::Create, role, DELEGATION, "", Some(serde_json::to_vec(&data).ok()?))
        }
        Change::WithdrawKeys { role, ids } => {
            let named = known.map(|known| known.signing_ids(role)).unwrap_or_default();
            let own = |id: &KeyId| {
                let found = named.iter().find(|(named, _)| named == id);
                found.map_or(id, |(_, own)| own).to_string()
            };
            let data = WireDelegation {
                remove_keys: ids.iter().map(own).collect(),
                ..WireDelegation::default()
            };
            said(Action::Update, role, DELEGATION, "", Some(serde_json::to_vec(&data).ok()?))
        }
        Change::Withdraw { role } => said(Action::Delete, role, DELEGATION, "", None),
        Change::ReplaceKey { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(folder: &Path) -> Changelist {
        Changelist::new(folder, &Gun::parse("r:5000/a").unwrap())
    }

    fn add(name: &str) -> Change {
        let meta = FileMeta::of_image([7; 32], 3);
        Change::Add { role: Role::releases(), name: name.to_owned(), meta }
    }

    #[test]
    fn what_is_left_is_found_in_its_order_and_then_gone() {
        let folder = tempfile::tempdir().unwrap();
        let list = list(folder.path());
        assert!(list.waiting(None).unwrap().is_empty());
        let role = Role::signer("zoe").unwrap();
        let changes = vec![
            add("2"),
            add("1"),
            Change::Remove { role: Role::Targets, name: "0".to_owned() },
            Change::Delegate { role: role.clone(), keys: Vec::new(), paths: vec![String::new()] },
            Change::Withdraw { role },
        ];
        assert_eq!(list.leave(&changes, None).unwrap(), changes.len());
        let waiting = list.waiting(None).unwrap();
        assert_eq!(waiting.changes, changes);
        list.leave(&[add("3")], None).unwrap();
        list.clear(&waiting).unwrap();
        assert_eq!(list.waiting(None).unwrap().changes, [add("3")]);
        assert_eq!(list.clear_all().unwrap(), 1);
        assert!(list.waiting(None).unwrap().is_empty());
    }

    #[test]
    fn what_others_wrote_is_read() {
        let read = |text: &str| parse(text.as_bytes(), None);
        let added = read(
            r#"{"action":"create","role":"targets/nigel","type":"target","path":"4","data":"eyJsZW5ndGgiOjUwMiwiaGFzaGVzIjp7InNoYTI1NiI6InVuVDhZUktrcGQvQVM0ZzlJMUhSamtaQy9iSHNhWGljaC8zRy9rWFNQME09In19"}"#,
        );
        let [Change::Add { role, name, meta }] = added.as_deref().unwrap() else {
            panic!("{added:?}")
        };
        assert_eq!((role.as_str(), name.as_str(), meta.length), ("targets/nigel", "4", 502));
        let removed = read(
            r#"{"action":"delete","role":"targets","type":"target","path":"nothere","data":null}"#,
        );
        assert_eq!(
            removed.unwrap(),
            [Change::Remove { role: Role::Targets, name: "nothere".to_owned() }]
        );
        let paths = read(
            r#"{"action":"create","role":"targets/x","type":"delegation","path":"","data":"eyJhZGRfcGF0aHMiOlsiIl19"}"#,
        );
        assert!(matches!(paths.unwrap().as_slice(), [Change::Delegate { keys, paths, .. }]
            if keys.is_empty() && paths == &[String::new()]));
        for (text, why) in [
            ("{", "it cannot be read"),
            (
                r#"{"action":"create","role":"root","type":"role","path":"","data":null}"#,
                "it is of another type",
            ),
            (
                r#"{"action":"create","role":"../x","type":"target","path":"","data":null}"#,
                "its role is none",
            ),
            (
                r#"{"action":"create","role":"targets","type":"target","path":"","data":"!"}"#,
                "its data is damaged",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), why, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&content, None);
        }
    }
}
