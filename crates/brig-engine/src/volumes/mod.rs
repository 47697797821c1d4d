//! Volumes of the `local` driver: one directory each under the data root, kept until removed.
//!
//! The store knows which containers use a volume, so that none is removed under them. Everything
//! here is short blocking file work.

mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brig_types::Labels;
use brig_types::id::{ContainerId, random_hex};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::disk::{self, Durability};
use crate::error::EngineError;

pub(crate) use options::MountOptions;

/// The one driver there is.
pub const LOCAL_DRIVER: &str = "local";
/// The label that says nobody named it: a prune takes those by default.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

const RECORD_FILE: &str = "volume.json";
const DATA_DIR: &str = "_data";
/// Largest record that is read back.
const MAX_RECORD_BYTES: u64 = 1 << 20;
const REMOVING_PREFIX: &str = ".removing-";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// The creator's labels.
    #[serde(default)]
    pub labels: Labels,
    /// Mount options as given: `type`, `o`, `device`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The directory that containers see.
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

impl VolumeInfo {
    /// Whether it was made without a name.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }
}

#[derive(Debug)]
struct Entry {
    info: VolumeInfo,
    /// Containers, running or not, that have it in their configuration.
    users: BTreeSet<ContainerId>,
    /// Containers that run with it: while there are any, its mount options are in force.
    active: BTreeSet<ContainerId>,
}

/// All volumes of the node.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Volumes {
    /// Reads the volumes below `root`; what a killed daemon left half made or half removed goes.
    pub(crate) fn open(root: &Path) -> Result<Self, EngineError> {
        disk::create_dir(root, 0o701)
            .map_err(|source| EngineError::disk("create", root, source))?;
        let mut entries = BTreeMap::new();
        let listing =
            std::fs::read_dir(root).map_err(|source| EngineError::disk("read", root, source))?;
        for item in listing {
            let item = item.map_err(|source| EngineError::disk("read", root, source))?;
            let dir = item.path();
            let name = item.file_name().to_string_lossy().into_owned();
            if name.starts_with(REMOVING_PREFIX) {
                if let Err(error) = disk::remove_tree(&dir) {
                    tracing::warn!(dir = %dir.display(), %error, "a removed volume's files stay");
                }
                continue;
            }
            match read_record(&dir) {
                Ok(info) if info.name == name => {
                    let entry = Entry { info, users: BTreeSet::new(), active: BTreeSet::new() };
                    entries.insert(name, entry);
                }
                Ok(_) | Err(_) if is_empty(&dir.join(DATA_DIR)) => {
                    if let Err(error) = disk::remove_tree(&dir) {
                        tracing::warn!(dir = %dir.display(), %error, "a half-made volume stays");
                    }
                }
                Ok(_) | Err(_) => {
                    tracing::warn!(dir = %dir.display(), "a volume's record is unreadable; its data is left alone");
                }
            }
        }
        Ok(Self { root: root.to_owned(), entries: Mutex::new(entries) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a volume, or gives the one of that name. An empty name makes an anonymous one.
    /// The second value says whether it is new.
    ///
    /// # Errors
    /// Docker's texts for a bad name, driver or option; disk errors.
    pub fn create(
        &self,
        name: &str,
        driver: &str,
        options: &BTreeMap<String, String>,
        labels: &Labels,
    ) -> Result<(VolumeInfo, bool), EngineError> {
        let mut labels = labels.clone();
        let name = if name.is_empty() {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            random_hex()
        } else {
            name.to_owned()
        };
        let fail = |text: String| EngineError::Invalid(format!("create {name}: {text}"));
        if !matches!(driver, "" | LOCAL_DRIVER) {
            return Err(EngineError::NoSuchVolumeDriver { name, driver: driver.to_owned() });
        }
        if !brig_types::name::is_restricted_name(&name) {
            return Err(fail(format!(
                "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&name) {
            return Ok((entry.info.clone(), false));
        }
        MountOptions::parse(options).map_err(fail)?;
        let dir = self.root.join(&name);
        let info = VolumeInfo {
            name: name.clone(),
            created: OffsetDateTime::now_utc(),
            labels,
            options: options.clone(),
            mountpoint: dir.join(DATA_DIR),
        };
        let made = disk::create_dir(&info.mountpoint, 0o755)
            .and_then(|()| serde_json::to_vec(&info).map_err(io::Error::other))
            .and_then(|json| {
                disk::write_file(&dir.join(RECORD_FILE), &json, 0o600, Durability::Flushed)
            });
        if let Err(source) = made {
            let _ = disk::remove_tree(&dir);
            return Err(EngineError::disk("create", &dir, source));
        }
        let entry = Entry { info: info.clone(), users: BTreeSet::new(), active: BTreeSet::new() };
        entries.insert(name, entry);
        Ok((info, true))
    }

    /// One volume.
    ///
    /// # Errors
    /// [`EngineError::NoSuchVolume`].
    pub fn get(&self, name: &str) -> Result<VolumeInfo, EngineError> {
        self.lock()
            .get(name)
            .map(|entry| entry.info.clone())
            .ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))
    }

    /// All volumes by name, each with the containers that use it.
    #[must_use]
    pub fn list(&self) -> Vec<(VolumeInfo, BTreeSet<ContainerId>)> {
        self.lock().values().map(|entry| (entry.info.clone(), entry.users.clone())).collect()
    }

    /// Removes a volume and its files.
    ///
    /// # Errors
    /// Not found, in use, or disk errors.
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        let grave = self.root.join(format!("{REMOVING_PREFIX}{}", random_hex()));
        {
            let mut entries = self.lock();
            let entry =
                entries.get(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
            if !entry.users.is_empty() {
                let users: Vec<&str> = entry.users.iter().map(ContainerId::as_str).collect();
                return Err(EngineError::VolumeInUse {
                    name: name.to_owned(),
                    users: users.join(", "),
                });
            }
            let dir = self.root.join(name);
            // Never below a mount point: that would delete what is mounted there. A daemon that was
            // killed may have left one.
            let data = &entry.info.mountpoint;
            while brig_sys::mount::is_mountpoint(data).unwrap_or(false) {
                brig_sys::mount::unmount(data, true)
                    .map_err(|source| EngineError::disk("unmount", data, source))?;
            }
            std::fs::rename(&dir, &grave)
                .map_err(|source| EngineError::disk("remove", &dir, source))?;
            entries.remove(name);
        }
        disk::remove_tree(&grave).map_err(|source| EngineError::disk("remove", &grave, source))
    }

    /// Notes that a container's configuration has the volume.
    pub(crate) fn acquire(&self, name: &str, container: &ContainerId) -> Result<(), EngineError> {
        let mut entries = self.lock();
        let entry =
            entries.get_mut(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
        entry.users.insert(container.clone());
        Ok(())
    }

    /// The container is gone.
    pub(crate) fn release(&self, name: &str, container: &ContainerId) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.users.remove(container);
        }
    }

    /// Notes that a container starts with the volume, and puts its mount options in force when it
    /// is the first. Gives the directory to bind.
    pub(crate) fn activate(
        &self,
        name: &str,
        container: &ContainerId,
    ) -> Result<PathBuf, EngineError> {
        let mut entries = self.lock();
        let entry =
            entries.get_mut(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
        let target = entry.info.mountpoint.clone();
        if entry.active.is_empty() && !entry.info.options.is_empty() {
            let options = MountOptions::parse(&entry.info.options).map_err(EngineError::Invalid)?;
            let mounted = brig_sys::mount::is_mountpoint(&target)
                .map_err(|source| EngineError::disk("look at", &target, source))?;
            if let (Some(options), false) = (options, mounted) {
                options
                    .mount(&target)
                    .map_err(|source| EngineError::VolumeMount { name: name.to_owned(), source })?;
            }
        }
        entry.active.insert(container.clone());
        Ok(target)
    }

    /// The container stopped; the last one takes the volume's own mount away.
    pub(crate) fn deactivate(&self, name: &str, container: &ContainerId) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else { return };
        let was = entry.active.remove(container);
        if was && entry.active.is_empty() && !entry.info.options.is_empty() {
            let target = &entry.info.mountpoint;
            if let Err(error) = brig_sys::mount::unmount(target, true)
                && error.kind() != io::ErrorKind::InvalidInput
            {
                tracing::warn!(volume = name, %error, "a volume stays mounted");
            }
        }
    }

    /// A container that was adopted runs with the volume already.
    pub(crate) fn note_active(&self, name: &str, container: &ContainerId) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.active.insert(container.clone());
        }
    }
}

fn read_record(dir: &Path) -> io::Result<VolumeInfo> {
    let json = disk::read_limited(&dir.join(RECORD_FILE), MAX_RECORD_BYTES)?;
    let mut info: VolumeInfo = serde_json::from_slice(&json).map_err(io::Error::other)?;
    info.mountpoint = dir.join(DATA_DIR);
    Ok(info)
}

fn is_empty(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut items) => items.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    #[test]
    fn life_of_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
        let (made, new) = volumes.create("data", "local", &none(), &labels).unwrap();
        assert!(new && made.mountpoint.is_dir());
        let (again, new) = volumes.create("data", "", &none(), &none()).unwrap();
        assert!(!new);
        assert_eq!(again, made);
        let container = ContainerId::generate();
        volumes.acquire("data", &container).unwrap();
        let error = volumes.remove("data").unwrap_err();
        assert_eq!(error.to_string(), format!("remove data: volume is in use - [{container}]"));
        let reopened = Volumes::open(dir.path()).unwrap();
        assert_eq!(reopened.get("data").unwrap(), made);
        volumes.release("data", &container);
        volumes.remove("data").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(volumes.get("data").unwrap_err().to_string(), "get data: no such volume");
    }

    #[test]
    fn anonymous_ones_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let (made, _) = volumes.create("", "local", &none(), &none()).unwrap();
        assert!(made.is_anonymous());
        assert_eq!(made.name.len(), 64);
    }

    #[test]
    fn bad_requests() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        assert!(volumes.create("x y", "", &none(), &none()).is_err());
        assert!(volumes.create("../x", "", &none(), &none()).is_err());
        assert!(volumes.create("x1", "nope", &none(), &none()).is_err());
        let options = BTreeMap::from([("bogus".to_owned(), "1".to_owned())]);
        let error = volumes.create("x1", "", &options, &none()).unwrap_err();
        assert_eq!(error.to_string(), "create x1: invalid option: \"bogus\"");
        assert!(volumes.list().is_empty());
    }

    #[test]
    fn what_is_mounted_over_a_removed_volume_is_kept() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("precious"), "x").unwrap();
        let options = BTreeMap::from([
            ("type".to_owned(), "none".to_owned()),
            ("o".to_owned(), "bind".to_owned()),
            ("device".to_owned(), outside.path().display().to_string()),
        ]);
        let before = Volumes::open(dir.path()).unwrap();
        before.create("data", "", &options, &none()).unwrap();
        before.activate("data", &ContainerId::generate()).unwrap();
        // The daemon was killed and the container is gone when the next one comes up.
        let after = Volumes::open(dir.path()).unwrap();
        after.remove("data").unwrap();
        assert!(outside.path().join("precious").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_daemon_left_is_cleared_but_data_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        for half in ["half/_data", ".removing-1/_data", "kept/_data"] {
            std::fs::create_dir_all(dir.path().join(half)).unwrap();
        }
        std::fs::write(dir.path().join("kept/_data/file"), "x").unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        assert!(volumes.list().is_empty());
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }
}
