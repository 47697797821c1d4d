//! Writable layers of containers: overlayfs on top of an image's layers.
//!
//! ```text
//! overlay/<container id>/snapshot.json   layers (bottom first), how it was last mounted
//! overlay/<container id>/upper, work     what the container changed; the kernel's scratch space
//! ```
//!
//! A snapshot pins its image's layers, so that the image may be removed while the container stays.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_sys::mount::{self, OverlayOptions};
use brig_types::digest::Digest;
use brig_types::id::ContainerId;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::store::Image;
use crate::store::files::{self, Durability};
use crate::store::layers::{Layers, Pin};
use crate::store::trash::Trash;

const RECORD: &str = "snapshot.json";
const MAX_RECORD: u64 = 256 << 10;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Set by the kernel below the work directory while and after a volatile mount; it refuses the
/// next mount as long as it is there.
const VOLATILE_MARK: &str = "work/incompat/volatile";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    /// Diff ids, bottom first.
    layers: Vec<Digest>,
    /// Boot during which it was last mounted without syncing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volatile_boot: Option<String>,
}

#[derive(Debug)]
struct Snapshot {
    record: Record,
    /// The record survives a crash.
    durable: bool,
    _pin: Pin,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    layers: Arc<Layers>,
    trash: Arc<Trash>,
    known: Mutex<HashMap<ContainerId, Snapshot>>,
}

/// All containers' writable layers. Cheap to clone. Every call blocks.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

impl Snapshots {
    pub(crate) fn open(
        dir: PathBuf,
        layers: Arc<Layers>,
        trash: Arc<Trash>,
    ) -> Result<Self, ImageError> {
        files::make_dir(&dir)?;
        files::spread(&dir);
        let mut known = HashMap::new();
        for name in files::names(&dir)? {
            let path = dir.join(&name);
            let record = files::read(&path.join(RECORD), MAX_RECORD)
                .ok()
                .flatten()
                .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            match (ContainerId::parse(&name), record) {
                (Ok(id), Some(record)) => {
                    let pin = layers.pin(&record.layers);
                    known.insert(id, Snapshot { record, durable: true, _pin: pin });
                }
                // Made or removed halfway: the record is written last.
                _ => trash.put(&path)?,
            }
        }
        let known = Mutex::new(known);
        Ok(Self { shared: Arc::new(Shared { dir, layers, trash, known }) })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ContainerId, Snapshot>> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir(&self, container: &ContainerId) -> PathBuf {
        self.shared.dir.join(container.as_str())
    }

    /// Containers that have a writable layer, to compare with those that exist.
    #[must_use]
    pub fn list(&self) -> Vec<ContainerId> {
        self.known().keys().cloned().collect()
    }

    /// Makes an empty writable layer on top of an image.
    ///
    /// It is empty until it is mounted, and a crash before that may forget it: [`Snapshots::mount`]
    /// then answers [`ImageError::NoSnapshot`] and it can be prepared again.
    ///
    /// # Errors
    /// When it exists already, a layer of the image is gone, or the disk fails.
    pub fn prepare(&self, container: &ContainerId, image: &Image) -> Result<(), ImageError> {
        let dir = self.dir(container);
        let pin = self.shared.layers.pin(&image.layers);
        if let Some(gone) = image.layers.iter().find(|id| !self.shared.layers.contains(id)) {
            return Err(ImageError::NotFound(gone.as_str().to_owned()));
        }
        let record = Record { layers: image.layers.clone(), volatile_boot: None };
        let upper = dir.join("upper");
        std::fs::create_dir(&dir).map_err(ImageError::io("creating", &dir))?;
        let made = self
            .make_root(&upper, &image.layers)
            .map_err(ImageError::io("creating", &upper))
            .and_then(|()| files::make_dir(&dir.join("work")))
            .and_then(|()| write_record(&dir, &record, Durability::Cached));
        if let Err(error) = made {
            let _ = self.shared.trash.put(&dir);
            return Err(error);
        }
        // Synced by the first mount that keeps data; until then there is nothing to lose.
        self.known().insert(container.clone(), Snapshot { record, durable: false, _pin: pin });
        Ok(())
    }

    /// The container's root directory looks like the image's.
    fn make_root(&self, upper: &Path, layers: &[Digest]) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
        std::fs::create_dir(upper)?;
        let (mode, uid, gid) = match layers.last() {
            Some(top) => {
                let meta = std::fs::metadata(self.shared.layers.diff_dir(top))?;
                (meta.mode() & 0o7777, meta.uid(), meta.gid())
            }
            None => (0o755, 0, 0),
        };
        chown(upper, Some(uid), Some(gid))?;
        std::fs::set_permissions(upper, std::fs::Permissions::from_mode(mode))
    }

    /// Mounts a container's root file system at `target`, which must exist.
    ///
    /// `volatile` leaves out every sync, which makes unmounting fast; after the machine goes down
    /// the layer cannot be used again, so it suits containers that are removed when they end.
    ///
    /// # Errors
    /// [`ImageError::NoSnapshot`], [`ImageError::VolatileLost`], [`ImageError::Snapshot`].
    pub fn mount(
        &self,
        container: &ContainerId,
        target: &Path,
        volatile: bool,
    ) -> Result<(), ImageError> {
        let failed = |source| ImageError::Snapshot {
            doing: "mounting",
            container: container.short().to_owned(),
            source,
        };
        let dir = self.dir(container);
        let (record, durable) = {
            let known = self.known();
            let snapshot = known
                .get(container)
                .ok_or_else(|| ImageError::NoSnapshot(container.short().to_owned()))?;
            (snapshot.record.clone(), snapshot.durable)
        };
        let boot = std::fs::read_to_string(BOOT_ID).map_err(failed)?.trim().to_owned();
        let mark = dir.join("work").join(VOLATILE_MARK);
        if mark.exists() {
            if record.volatile_boot.as_deref() != Some(boot.as_str()) {
                return Err(ImageError::VolatileLost(container.short().to_owned()));
            }
            // Same boot: nothing was lost, what is not on disk is in the page cache.
            std::fs::remove_dir_all(mark.parent().unwrap_or(&mark)).map_err(failed)?;
        }
        let volatile_boot = volatile.then_some(boot);
        if record.volatile_boot != volatile_boot || (!volatile && !durable) {
            let record = Record { volatile_boot, ..record.clone() };
            // A volatile mount's record may be lost: the kernel's mark then has no boot to match.
            let durability = if volatile { Durability::Cached } else { Durability::Synced };
            write_record(&dir, &record, durability)?;
            if !volatile {
                files::sync_dir(&self.shared.dir)?;
            }
            if let Some(snapshot) = self.known().get_mut(container) {
                snapshot.record = record;
                snapshot.durable |= !volatile;
            }
        }
        let lower = self.lower_dirs(&record.layers);
        let options = OverlayOptions { volatile };
        mount::overlay(&lower, &dir.join("upper"), &dir.join("work"), target, options)
            .map_err(failed)
    }

    /// Unmounts what [`Snapshots::mount`] mounted; fine if nothing is mounted there.
    ///
    /// # Errors
    /// [`ImageError::Snapshot`].
    pub fn unmount(&self, container: &ContainerId, target: &Path) -> Result<(), ImageError> {
        match mount::unmount(target, true) {
            Ok(()) => Ok(()),
            // EINVAL: not a mount point.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())
                    || error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(source) => Err(ImageError::Snapshot {
                doing: "unmounting",
                container: container.short().to_owned(),
                source,
            }),
        }
    }

    /// Removes a container's writable layer at once; its files are deleted in the background.
    /// Fine if there is none.
    ///
    /// # Errors
    /// When the directory cannot be renamed.
    pub fn remove(&self, container: &ContainerId) -> Result<(), ImageError> {
        self.shared.trash.put(&self.dir(container))?;
        self.known().remove(container);
        Ok(())
    }

    /// Where the container's changes are: `docker diff`, sizes.
    #[must_use]
    pub fn upper_dir(&self, container: &ContainerId) -> PathBuf {
        self.dir(container).join("upper")
    }

    /// The kernel's scratch directory, next to the upper one.
    #[must_use]
    pub fn work_dir(&self, container: &ContainerId) -> PathBuf {
        self.dir(container).join("work")
    }

    /// Directories of an image's layers, top first, as overlayfs wants them.
    #[must_use]
    pub fn mounted_layers(&self, image: &Image) -> Vec<PathBuf> {
        self.lower_dirs(&image.layers)
    }

    /// Directories of a container's image layers, top first.
    #[must_use]
    pub fn container_layers(&self, container: &ContainerId) -> Option<Vec<PathBuf>> {
        let layers = self.known().get(container).map(|s| s.record.layers.clone())?;
        Some(self.lower_dirs(&layers))
    }

    /// Sum of the sizes of a container's image layers, in bytes.
    #[must_use]
    pub fn lower_size(&self, container: &ContainerId) -> Option<u64> {
        let layers = self.known().get(container).map(|s| s.record.layers.clone())?;
        Some(layers.iter().filter_map(|id| self.shared.layers.get(id)).map(|m| m.size).sum())
    }

    /// Overlayfs refuses a directory that is there twice. Of a repeated layer the topmost one
    /// decides everything that the lower ones could, so the lower ones are left out.
    fn lower_dirs(&self, layers: &[Digest]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let top_first = layers.iter().rev().filter(|id| seen.insert(*id));
        let mut dirs: Vec<PathBuf> = top_first.map(|id| self.shared.layers.diff_dir(id)).collect();
        if dirs.is_empty() {
            dirs.push(self.shared.layers.empty_dir());
        }
        dirs
    }
}

fn write_record(dir: &Path, record: &Record, durability: Durability) -> Result<(), ImageError> {
    let path = dir.join(RECORD);
    let bytes = serde_json::to_vec(record)
        .map_err(|source| ImageError::Damaged { path: path.clone(), source })?;
    files::replace(&path, &bytes, durability)
}

/// Reads a regular file of a mounted root file system, such as `/etc/passwd`, as the container
/// would see it; `None` if there is none. At most `limit` bytes are read.
///
/// SECURITY: symbolic links resolve within `rootfs`, whatever the container put there.
///
/// # Errors
/// Anything but a missing file, and files that are larger or not regular.
pub fn read_in_root(rootfs: &Path, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let root = std::fs::File::open(rootfs)?;
    let opened = rustix::fs::openat2(
        root.as_fd(),
        path.trim_start_matches('/'),
        // A pipe must not block, a device must not act.
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let file = match opened {
        Ok(fd) => std::fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
        Ok(Some(bytes))
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}
