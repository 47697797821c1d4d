//! A container's files as it sees them, with everything that is mounted into it.
//!
//! Of one that runs it is its own root, seen through its process: volumes, memory file systems
//! and what it mounted itself are there. For one that doesn't run, its root file system and its
//! volumes are mounted in a mount namespace that nothing else uses and that ends with the view;
//! the caller holds the container's operation lock, so that it cannot be started meanwhile.
//!
//! SECURITY: everything is reached from one directory descriptor by openat2(2), with links kept
//! inside; neither this process nor a thread of it enters the container.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brig_sys::mount::{self, BindOptions};
use brig_sys::ns::PrivateMounts;
use rustix::fs::{OFlags, Stat, StatVfsMountFlags};
use rustix::mount::MountFlags;

use crate::container::Container;
use crate::container::record::{MountKind, MountRecord, Record};
use crate::container::state::{ProcessFacts, Status};
use crate::disk;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::secrets::SECRETS_SOURCE;

/// How often, and how far apart, a container that is about to end is looked at.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(25);

/// What a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything the container sees.
    Everything,
    /// The root file system alone, as `export` has it.
    Root,
}

/// A container's files.
#[derive(Debug)]
pub(super) struct View {
    /// The root directory; dropped before the namespace below.
    root: OwnedFd,
    /// Mount points of secrets, as the container sees them.
    secrets: Vec<PathBuf>,
    /// File systems that hold secrets.
    secret_devices: Vec<u64>,
    _mounted: Option<Mounted>,
}

/// What was mounted for a view.
struct Mounted {
    engine: Engine,
    container: Arc<Container>,
    volumes: Vec<String>,
    namespace: PrivateMounts,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted").field("container", &self.container.id).finish_non_exhaustive()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let rootfs = self.container.paths.rootfs.clone();
        // The layer must be free before the container may be started.
        let unmounted = self.namespace.run({
            let rootfs = rootfs.clone();
            move || mount::unmount(&rootfs, true)
        });
        if let Ok(Err(error)) | Err(error) = unmounted {
            tracing::debug!(container = %self.container.id, %error, "a view was not unmounted");
        }
        for name in &self.volumes {
            self.engine.volumes().deactivate(name, &self.container.id);
        }
        // Only an empty directory goes.
        let _ = std::fs::remove_dir(&rootfs);
    }
}

impl View {
    pub(super) const fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Whether a file lies on a file system of secrets.
    pub(super) fn is_secret(&self, stat: &Stat) -> bool {
        self.secret_devices.contains(&stat.st_dev)
    }

    /// The first mount point of secrets that lies in this directory.
    pub(super) fn secrets_below(&self, dir: &Stat) -> Option<&Path> {
        let is_dir = |path: &Path| {
            brig_archive::open(&self.root, path, brig_archive::Links::InRoot, OFlags::empty())
                .and_then(|fd| rustix::fs::fstat(&fd))
                .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (dir.st_dev, dir.st_ino))
        };
        self.secrets.iter().find(|point| point.ancestors().any(is_dir)).map(PathBuf::as_path)
    }

    /// Why nothing can be written at this directory, in docker's words.
    pub(super) fn check_writable(&self, dir: &OwnedFd) -> Result<(), EngineError> {
        let failed =
            |error: rustix::io::Errno| EngineError::system("look at the mount", error.into());
        let read_only =
            rustix::fs::fstatvfs(dir).map_err(failed)?.f_flag.contains(StatVfsMountFlags::RDONLY);
        if !read_only {
            return Ok(());
        }
        let device = |fd| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
        let on_root = device(dir).map_err(failed)? == device(&self.root).map_err(failed)?;
        Err(EngineError::Forbidden(if on_root {
            "container rootfs is marked read-only".to_owned()
        } else {
            "mounted volume is marked read-only".to_owned()
        }))
    }

    /// The files of a running container; `None` when it ended meanwhile.
    fn of_process(process: ProcessFacts) -> Result<Option<Self>, EngineError> {
        let failed = |source| EngineError::system("look into the container", source);
        let path = PathBuf::from(format!("/proc/{}/root", process.pid));
        let root = match brig_sys::openat::open_dir(&path) {
            Ok(root) => root,
            Err(error) if is_over(&error) || !is_alive(process) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let table = match mount::mountinfo(Some(process.pid)) {
            Ok(table) => table,
            Err(error) if is_over(&error) || !is_alive(process) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // Checked last: what was opened is this process's, not that of one with its number.
        if !is_alive(process) {
            return Ok(None);
        }
        let secrets: Vec<PathBuf> = table
            .into_iter()
            .filter(|mount| mount.source == SECRETS_SOURCE)
            .map(|mount| mount.mount_point)
            .collect();
        let secret_devices = secrets
            .iter()
            .map(|point| {
                let flags = OFlags::NOFOLLOW;
                let fd = brig_archive::open(&root, point, brig_archive::Links::InRoot, flags)?;
                Ok(rustix::fs::fstat(&fd)?.st_dev)
            })
            .collect::<rustix::io::Result<Vec<u64>>>()
            .map_err(|error| failed(error.into()))?;
        Ok(Some(Self { root, secrets, secret_devices, _mounted: None }))
    }
}

/// What the kernel says of a process that has ended and was not waited for yet: it has no root and
/// no mounts any more.
fn is_over(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidInput)
}

fn is_alive(process: ProcessFacts) -> bool {
    brig_sys::process::alive(process.pid, process.pid_start)
}

impl Engine {
    /// Runs blocking work on a container's files. The container cannot be started or removed
    /// before it is done, unless it runs.
    pub(super) async fn with_view<T, F>(
        &self,
        container: &Arc<Container>,
        scope: Scope,
        work: F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> Result<T, EngineError> + Send + 'static,
    {
        let mut guard = None;
        // An end is noticed shortly after it came.
        for _ in 0..ATTEMPTS {
            let process = container.cell().record.state.process;
            if let Some(process) = process {
                let this = Arc::clone(container);
                let view = self.blocking(move || match scope {
                    Scope::Everything => View::of_process(process),
                    Scope::Root => of_mounted_root(&this.paths.rootfs),
                });
                if let Some(view) = view.await? {
                    drop(guard);
                    return self.blocking(move || work(&view)).await;
                }
            } else if guard.is_some() {
                let (engine, this) = (self.clone(), Arc::clone(container));
                return self
                    .blocking(move || {
                        let view = engine.mount_view(&this, scope)?;
                        work(&view)
                    })
                    .await;
            }
            // Ended, or ending: once the lock is held it is settled which.
            match &guard {
                None => guard = Some(container.op.lock().await),
                Some(_) => tokio::time::sleep(PAUSE).await,
            }
            container.wait_clean().await;
            let status = container.cell().record.state.status;
            if matches!(status, Status::Removing | Status::Dead) {
                return Err(EngineError::Conflict(format!(
                    "container {} is marked for removal and its files cannot be reached",
                    container.id
                )));
            }
        }
        Err(EngineError::Conflict(format!(
            "the files of container {} cannot be reached: it is neither running nor stopped",
            container.id
        )))
    }

    /// Mounts the files of a container that doesn't run. Blocking.
    fn mount_view(&self, container: &Arc<Container>, scope: Scope) -> Result<View, EngineError> {
        let record = container.record();
        let rootfs = container.paths.rootfs.clone();
        disk::create_dir(&rootfs, 0o700)
            .map_err(|source| EngineError::disk("create", &rootfs, source))?;
        let failed = |source| EngineError::system("mount the container's files", source);
        let mut volumes = Vec::new();
        let mut sources = Vec::new();
        let activated = match scope {
            Scope::Everything => self.view_sources(&record, &mut volumes, &mut sources),
            Scope::Root => Ok(()),
        };
        let namespace = match activated.and_then(|()| PrivateMounts::new(&[]).map_err(failed)) {
            Ok(namespace) => namespace,
            Err(error) => {
                for name in &volumes {
                    self.volumes().deactivate(name, &container.id);
                }
                return Err(error);
            }
        };
        let mounted =
            Mounted { engine: self.clone(), container: Arc::clone(container), volumes, namespace };
        let files = match scope {
            Scope::Everything => self.generated_files(container, &record)?,
            Scope::Root => super::super::files::GeneratedFiles::of(&container.paths),
        };
        let engine = self.clone();
        let root = mounted
            .namespace
            .run(move || -> Result<OwnedFd, EngineError> {
                engine.mount_rootfs(&record, &rootfs)?;
                let open = || brig_sys::openat::open_dir(&rootfs).map_err(failed);
                if scope == Scope::Root {
                    return open();
                }
                let root = open()?;
                for (mount, source) in &sources {
                    place(&root, source, mount).map_err(|source| {
                        EngineError::disk("mount", Path::new(&mount.destination), source)
                    })?;
                }
                for (source, target) in files.targets() {
                    let taken = record.mounts.iter().any(|mount| mount.destination == target);
                    // They exist from the first start on.
                    if !taken && source.exists() {
                        bind(&root, source, target, false, false).map_err(failed)?;
                    }
                }
                if record.host_config.readonly_rootfs {
                    let flags = MountFlags::BIND | MountFlags::RDONLY;
                    rustix::mount::mount_remount(&rootfs, flags, c"")
                        .map_err(|error| failed(error.into()))?;
                }
                Ok(root)
            })
            .map_err(failed)??;
        Ok(View { root, secrets: Vec::new(), secret_devices: Vec::new(), _mounted: Some(mounted) })
    }

    /// Where the mounts of a container come from, with its volumes made ready. Memory file
    /// systems exist only while it runs.
    fn view_sources(
        &self,
        record: &Record,
        volumes: &mut Vec<String>,
        sources: &mut Vec<(MountRecord, PathBuf)>,
    ) -> Result<(), EngineError> {
        for mount in &record.mounts {
            match mount.kind {
                MountKind::Tmpfs | MountKind::Engine => {}
                MountKind::Bind => sources.push((mount.clone(), PathBuf::from(&mount.source))),
                MountKind::Volume => {
                    let source = self.volumes().activate(&mount.name, &record.id)?;
                    volumes.push(mount.name.clone());
                    sources.push((mount.clone(), source));
                }
            }
        }
        Ok(())
    }
}

/// The root file system of a running container, as it is mounted on the host.
fn of_mounted_root(rootfs: &Path) -> Result<Option<View>, EngineError> {
    match mount::is_mountpoint(rootfs) {
        Ok(true) => {
            let root = brig_sys::openat::open_dir(rootfs)
                .map_err(|source| EngineError::disk("open", rootfs, source))?;
            Ok(Some(View { root, secrets: Vec::new(), secret_devices: Vec::new(), _mounted: None }))
        }
        Ok(false) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EngineError::disk("look at", rootfs, source)),
    }
}

fn place(root: &OwnedFd, source: &Path, mount: &MountRecord) -> std::io::Result<()> {
    if mount.subpath.is_empty() {
        return match bind(root, source, &mount.destination, !mount.non_recursive, !mount.rw) {
            // A bind whose source is gone is made at the start, or makes the start fail.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
    }
    let volume = brig_sys::openat::open_dir(source)?;
    let part = brig_sys::openat::open_beneath(
        &volume,
        Path::new(&mount.subpath),
        OFlags::PATH,
        rustix::fs::Mode::empty(),
    )?;
    bind(root, &magic(&part), &mount.destination, true, !mount.rw)
}

/// Mounts `source` at a place inside of `root`, which is made if it is missing.
fn bind(
    root: &OwnedFd,
    source: &Path,
    target: &str,
    recursive: bool,
    read_only: bool,
) -> std::io::Result<()> {
    let path = Path::new(target);
    let is_dir = std::fs::metadata(source)?.is_dir();
    let flags = OFlags::empty();
    let open = || brig_archive::open(root, path, brig_archive::Links::InRoot, flags);
    let place = match open() {
        Err(rustix::io::Errno::NOENT) => {
            let dir = if is_dir { path } else { path.parent().unwrap_or(path) };
            let dir = brig_sys::openat::create_dir_all_in_root(root, dir, (0, 0), 0o755)?;
            if !is_dir {
                let name = path.file_name().unwrap_or_default();
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                brig_sys::openat::open_beneath(&dir, Path::new(name), flags, mode)?;
            }
            open()?
        }
        found => found?,
    };
    mount::bind(source, &magic(&place), BindOptions { recursive, read_only: false })?;
    if read_only {
        // Opened once more: the descriptor from before holds what lies below the mount.
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(magic(&open()?), flags, c"")?;
    }
    Ok(())
}

fn magic(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
