//! Volumes of the `local` driver: one directory each under the data root, kept until removed.
//!
//! The store knows which containers use a volume, so that none is removed under them. Everything
//! here is short blocking file work.

mod gate;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brig_types::Labels;
use brig_types::id::{ContainerId, random_hex};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::disk::{self, Durability};
use crate::error::EngineError;
use crate::guard::Guard;

use gate::Gate;
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
/// How long a volume's own mount may take, and how long to wait for one that is under way.
const MOUNT_PATIENCE: Duration = Duration::from_secs(30);
/// How long whoever makes a volume waits for a look at its device.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Beside the volume's directory while an image's content is copied into it.
const FILLING_FILE: &str = "filling";
/// Beside an anonymous volume's directory until the container that it is made for is recorded:
/// that container's id.
const OWNER_FILE: &str = "made-for";

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
    /// Whose turn it is to mount, unmount or remove it.
    gate: Arc<Gate>,
    /// Held while an image's content is copied into it.
    filling: Arc<Mutex<()>>,
}

impl Entry {
    fn new(info: VolumeInfo) -> Self {
        Self {
            info,
            users: BTreeSet::new(),
            active: BTreeSet::new(),
            gate: Arc::default(),
            filling: Arc::default(),
        }
    }
}

/// All volumes of the node.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    guard: Arc<Guard>,
    /// Held for moments only: what may take long is done in the volume's own turn.
    entries: Mutex<BTreeMap<String, Entry>>,
    patience: Duration,
}

impl Volumes {
    /// Reads the volumes below `root`; what a killed daemon left half made or half removed goes.
    pub(crate) fn open(root: &Path, guard: Arc<Guard>) -> Result<Self, EngineError> {
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
                    entries.insert(name, Entry::new(info));
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
        let (root, entries) = (root.to_owned(), Mutex::new(entries));
        Ok(Self { root, guard, entries, patience: MOUNT_PATIENCE })
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
        self.create_for(None, name, driver, options, labels)
    }

    /// Like [`Volumes::create`], for a container that is being created: an anonymous volume goes if
    /// the daemon dies before it has recorded the container and called [`Volumes::settle`].
    ///
    /// # Errors
    /// As [`Volumes::create`].
    pub(crate) fn create_for(
        &self,
        owner: Option<&ContainerId>,
        name: &str,
        driver: &str,
        options: &BTreeMap<String, String>,
        labels: &Labels,
    ) -> Result<(VolumeInfo, bool), EngineError> {
        let owner = owner.filter(|_| name.is_empty());
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
        // Not with the lock; and what doesn't answer in time is looked at when it is mounted.
        if let Some(Err(refused)) = self.guard.check_volume_in_time(options, "", LOOK_PATIENCE) {
            return Err(refused);
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
            .and_then(|()| match owner {
                Some(id) => {
                    let file = dir.join(OWNER_FILE);
                    disk::write_file(&file, id.as_str().as_bytes(), 0o600, Durability::Cached)
                }
                None => Ok(()),
            })
            .and_then(|()| serde_json::to_vec(&info).map_err(io::Error::other))
            .and_then(|json| {
                disk::write_file(&dir.join(RECORD_FILE), &json, 0o600, Durability::Synced)
            });
        if let Err(source) = made {
            let _ = disk::remove_tree(&dir);
            return Err(EngineError::disk("create", &dir, source));
        }
        entries.insert(name, Entry::new(info.clone()));
        Ok((info, true))
    }

    /// The container that the volume was made for is recorded: from now on only its removal, or
    /// somebody's wish, ends the volume.
    pub(crate) fn settle(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.root.join(name).join(OWNER_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// After a restart: removes the anonymous volumes of containers that an earlier daemon did not
    /// come to record. `known` says which containers there are.
    pub(crate) fn remove_unowned(&self, known: impl Fn(&ContainerId) -> bool) {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        for name in names {
            let file = self.root.join(&name).join(OWNER_FILE);
            let owner = match disk::read_limited(&file, MAX_RECORD_BYTES) {
                Ok(text) => ContainerId::parse(String::from_utf8_lossy(&text).trim()),
                Err(_) => continue,
            };
            let outcome = match owner {
                Ok(id) if known(&id) => {
                    self.settle(&name).map_err(|error| EngineError::disk("remove", &file, error))
                }
                _ => self.remove(&name),
            };
            if let Err(error) = outcome {
                let error = brig_types::error::chain(&error);
                tracing::warn!(volume = name, error, "a volume of no container stays");
            }
        }
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
        let (data, gate) = {
            let entries = self.lock();
            let entry = removable(&entries, name)?;
            (entry.info.mountpoint.clone(), Arc::clone(&entry.gate))
        };
        let turn = gate.enter(self.patience).ok_or_else(|| self.busy(name))?;
        // Never below a mount point: that would delete what is mounted there. A daemon that was
        // killed may have left one.
        while brig_sys::mount::is_mountpoint(&data).unwrap_or(false) {
            brig_sys::mount::unmount(&data, true)
                .map_err(|source| EngineError::disk("unmount", &data, source))?;
        }
        {
            let mut entries = self.lock();
            // Somebody may have come to use it, or been faster, in the meantime.
            removable(&entries, name)?;
            let dir = self.root.join(name);
            std::fs::rename(&dir, &grave)
                .map_err(|source| EngineError::disk("remove", &dir, source))?;
            entries.remove(name);
        }
        drop(turn);
        disk::remove_tree(&grave).map_err(|source| EngineError::disk("remove", &grave, source))
    }

    fn busy(&self, name: &str) -> EngineError {
        EngineError::Conflict(format!(
            "volume {name} is still being mounted, and has been for more than {} seconds: does its file server answer? `docker volume inspect {name}` shows its options",
            self.patience.as_secs()
        ))
    }

    /// What must be masked where a volume, or a part of it, is mounted. Blocking, for a bounded
    /// time.
    pub(crate) fn masked(&self, name: &str, subpath: &str) -> Result<Vec<PathBuf>, EngineError> {
        let options = self.get(name)?.options;
        let looked = self.guard.check_volume_in_time(&options, subpath, self.patience);
        looked.unwrap_or_else(|| Err(self.busy(name)))
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
    /// is the first. Gives the directory to bind. Blocking, for a bounded time.
    pub(crate) fn activate(
        &self,
        name: &str,
        container: &ContainerId,
    ) -> Result<PathBuf, EngineError> {
        let (info, gate, first_use) = {
            let mut entries = self.lock();
            let entry =
                entries.get_mut(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
            // Before it is mounted: whoever lets go of it meanwhile must not take the mount away.
            let first_use = entry.active.insert(container.clone());
            (entry.info.clone(), Arc::clone(&entry.gate), first_use)
        };
        let mounted = self.mount(&info, &gate);
        if mounted.is_err()
            && first_use
            && let Some(entry) = self.lock().get_mut(name)
        {
            entry.active.remove(container);
        }
        mounted.map(|()| info.mountpoint)
    }

    fn mount(&self, info: &VolumeInfo, gate: &Arc<Gate>) -> Result<(), EngineError> {
        let Some(options) = MountOptions::parse(&info.options).map_err(EngineError::Invalid)?
        else {
            return Ok(());
        };
        let turn = gate.enter(self.patience).ok_or_else(|| self.busy(&info.name))?;
        let target = info.mountpoint.clone();
        if brig_sys::mount::is_mountpoint(&target)
            .map_err(|source| EngineError::disk("look at", &target, source))?
        {
            return Ok(());
        }
        let device = options.device().to_owned();
        let undo = target.clone();
        let (guard, given) = (Arc::clone(&self.guard), info.options.clone());
        gate::bounded(
            turn,
            self.patience,
            move || {
                // What the device leads to may have changed since the volume was made.
                guard.check_volume(&given, "").map_err(io::Error::other)?;
                options.mount(&target)
            },
            move || {
                if let Err(error) = brig_sys::mount::unmount(&undo, true) {
                    tracing::warn!(target = %undo.display(), %error, "a volume that was mounted too late stays mounted");
                }
            },
        )
        .map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => EngineError::VolumeMountTime {
                name: info.name.clone(),
                device,
                seconds: self.patience.as_secs(),
            },
            _ => match source.downcast::<EngineError>() {
                Ok(refused) => refused,
                Err(source) => EngineError::VolumeMount { name: info.name.clone(), source },
            },
        })
    }

    /// The container stopped; the last one takes the volume's own mount away. Blocking, for a
    /// bounded time.
    pub(crate) fn deactivate(&self, name: &str, container: &ContainerId) {
        let (target, gate) = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(name) else { return };
            let was = entry.active.remove(container);
            if !was || !entry.active.is_empty() || entry.info.options.is_empty() {
                return;
            }
            (entry.info.mountpoint.clone(), Arc::clone(&entry.gate))
        };
        let Some(_turn) = gate.enter(self.patience) else {
            // Whoever has the turn came to mount it; that it is nobody's is seen with the next use.
            tracing::warn!(volume = name, "a volume is still being mounted");
            return;
        };
        if self.lock().get(name).is_none_or(|entry| !entry.active.is_empty()) {
            return;
        }
        if let Err(error) = brig_sys::mount::unmount(&target, true)
            && error.kind() != io::ErrorKind::InvalidInput
        {
            tracing::warn!(volume = name, %error, "a volume stays mounted");
        }
    }

    /// Copies an image's content into the volume with `copy`, unless it has content already.
    /// `copy` is told whether it goes on with a copy that was cut off.
    ///
    /// One container at a time: two that start together would be in each other's way.
    pub(crate) fn fill(
        &self,
        name: &str,
        copy: impl FnOnce(&Path, bool) -> io::Result<()>,
    ) -> Result<(), EngineError> {
        let (data, filling) = {
            let entries = self.lock();
            let entry =
                entries.get(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
            (entry.info.mountpoint.clone(), Arc::clone(&entry.filling))
        };
        let _filling = filling.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| EngineError::disk("copy the image's content into", &data, error);
        let marker = self.root.join(name).join(FILLING_FILE);
        let cut_off = marker.exists();
        if !cut_off && !is_empty(&data) {
            return Ok(());
        }
        // There until all is copied: whoever comes after a daemon that was killed, or after a disk
        // that was full, must not take a part for the whole.
        disk::write_file(&marker, b"", 0o600, Durability::Cached).map_err(failed)?;
        copy(&data, cut_off).map_err(failed)?;
        std::fs::remove_file(&marker).map_err(failed)
    }

    /// A container that was adopted runs with the volume already.
    pub(crate) fn note_active(&self, name: &str, container: &ContainerId) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.active.insert(container.clone());
        }
    }
}

/// The volume of this name, if it may be removed.
fn removable<'a>(
    entries: &'a BTreeMap<String, Entry>,
    name: &str,
) -> Result<&'a Entry, EngineError> {
    let entry = entries.get(name).ok_or_else(|| EngineError::NoSuchVolume(name.to_owned()))?;
    if entry.users.is_empty() {
        return Ok(entry);
    }
    let users: Vec<&str> = entry.users.iter().map(ContainerId::as_str).collect();
    Err(EngineError::VolumeInUse { name: name.to_owned(), users: users.join(", ") })
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
mod tests;
