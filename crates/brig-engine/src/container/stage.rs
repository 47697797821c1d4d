//! What a start prepares on the host: the mounted root file system, volumes, binds, devices, files,
//! and who the process runs as. Blocking; whatever fails is taken back by the caller's teardown.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brig_api::container::HostConfig;
use brig_runtime::Flavor;
use brig_runtime::spec::{
    DeviceNode, MountKind as SpecKind, MountSpec, Namespace, Propagation, Shm,
};

use super::files::GeneratedFiles;
use super::networking::Reserved;
use super::record::{MountKind, MountRecord, Record};
use super::spec::Prepared;
use super::{Container, copy_up, files, spec};
use crate::disk;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::kind;
use crate::secrets::{self, SecretFile};
use crate::users::{self, MAX_DATABASE_BYTES};

impl Engine {
    /// Mounts the root file system and what goes into it, and finds out who the process runs as.
    /// Blocking.
    pub(super) fn stage(
        &self,
        container: &Arc<Container>,
        record: &Record,
        secrets: &[SecretFile],
        configs: &[SecretFile],
    ) -> Result<Prepared, EngineError> {
        let rootfs = container.paths.rootfs.clone();
        disk::create_dir(&rootfs, 0o700)
            .map_err(|source| EngineError::disk("create", &rootfs, source))?;
        self.mount_rootfs(record, &rootfs)?;
        let root = brig_sys::openat::open_dir(&rootfs)
            .map_err(|source| EngineError::disk("open", &rootfs, source))?;
        check_databases(&root, self.runtime().flavor())?;
        let user = resolve_user(&root, &record.config.user, &record.host_config.group_add)?;
        if record.config.working_dir.len() > 1 {
            let dir = Path::new(&record.config.working_dir);
            brig_sys::openat::create_dir_all_in_root(&root, dir, (0, 0), 0o755)
                .map_err(|source| EngineError::disk("create the working directory", dir, source))?;
        }
        if record.host_config.readonly_rootfs {
            secrets::prepare_read_only_root(&root, secrets, configs)?;
        }
        let mut mounts = Vec::with_capacity(record.mounts.len() + 3);
        let mut masked = Vec::new();
        for (number, mount) in record.mounts.iter().enumerate() {
            let part = container.paths.subpaths.join(number.to_string());
            mounts.push(self.stage_mount(record, mount, &root, &part, &mut masked)?);
        }
        let files = self.generated_files(container, record)?;
        for (source, target) in files.targets() {
            if !record.mounts.iter().any(|mount| mount.destination == target) {
                let read_only = record.host_config.readonly_rootfs;
                mounts.push(MountSpec::bind(source.to_owned(), PathBuf::from(target), read_only));
            }
        }
        let host = &record.host_config;
        let devices = devices(host)?;
        let namespaces = spec::namespaces(host, |key| self.pid_of(key))?;
        let shm = self.shm(container, record, &namespaces.ipc)?;
        Ok(Prepared { rootfs, user, mounts, masked, devices, namespaces, shm })
    }

    pub(super) fn mount_rootfs(&self, record: &Record, rootfs: &Path) -> Result<(), EngineError> {
        let volatile = record.host_config.auto_remove;
        match self.snapshots().mount(&record.id, rootfs, volatile) {
            // Nothing was ever written into it, so a loss of power may have taken it.
            Err(brig_image::ImageError::NoSnapshot(_)) => {
                let image = self.images().resolve(record.image_id.as_str())?;
                self.snapshots().prepare(&record.id, &image)?;
                Ok(self.snapshots().mount(&record.id, rootfs, volatile)?)
            }
            result => Ok(result?),
        }
    }

    fn stage_mount(
        &self,
        record: &Record,
        mount: &MountRecord,
        root: &OwnedFd,
        part: &Path,
        masked: &mut Vec<String>,
    ) -> Result<MountSpec, EngineError> {
        let target = PathBuf::from(&mount.destination);
        let mut mask = |inner: Vec<PathBuf>| {
            masked.extend(inner.iter().map(|path| target.join(path).display().to_string()));
        };
        match mount.kind {
            MountKind::Tmpfs => {
                let mut options = mount.tmpfs_options.clone();
                if !mount.rw {
                    options.push("ro".to_owned());
                }
                Ok(MountSpec::tmpfs(target, options.join(",")))
            }
            MountKind::Engine => {
                Ok(MountSpec::bind(self.lender().socket(&record.id), target, false))
            }
            MountKind::Volume => {
                let mut source = self.volumes().activate(&mount.name, &record.id)?;
                mask(self.volumes().masked(&mount.name, &mount.subpath)?);
                if !mount.subpath.is_empty() {
                    source = subpath(&source, &mount.subpath, part)?;
                } else if !mount.no_copy {
                    self.volumes().fill(&mount.name, |volume, cut_off| {
                        copy_up::fill(root, &target, volume, cut_off)
                    })?;
                }
                self.mount_event(record, mount);
                Ok(MountSpec::volume(source, target, !mount.rw))
            }
            MountKind::Bind => {
                let source = PathBuf::from(&mount.source);
                // Once more: since the container was made, a link may have been put in the way.
                let fine = self.guard().check(&source, mount.reach())?;
                mask(fine.masked);
                if !source.exists() {
                    if !mount.create_source {
                        return Err(EngineError::Invalid(format!(
                            "invalid mount config for type \"bind\": bind source path does not exist: {}",
                            mount.source
                        )));
                    }
                    disk::create_dir(&source, 0o755).map_err(|error| {
                        EngineError::disk("create the bind's source", &source, error)
                    })?;
                }
                let propagation = Propagation::parse(&mount.propagation).unwrap_or_default();
                check_propagation(&mount.source, &fine.source, propagation)?;
                Ok(MountSpec {
                    target,
                    kind: SpecKind::Bind {
                        source: fine.source,
                        read_only: !mount.rw,
                        recursive: !mount.non_recursive,
                        propagation,
                    },
                })
            }
        }
    }

    fn mount_event(&self, record: &Record, mount: &MountRecord) {
        let attributes = [
            ("container", record.id.to_string()),
            ("destination", mount.destination.clone()),
            ("driver", crate::volumes::LOCAL_DRIVER.to_owned()),
            ("propagation", mount.propagation.clone()),
            ("read/write", mount.rw.to_string()),
        ];
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value)).into();
        self.events().emit(kind::VOLUME, "mount", &mount.name, attributes);
    }

    /// The files that are bound to /etc: its own, or those of the container whose network it has.
    pub(super) fn generated_files(
        &self,
        container: &Container,
        record: &Record,
    ) -> Result<GeneratedFiles, EngineError> {
        match record.host_config.network_mode.strip_prefix("container:") {
            Some(key) => Ok(GeneratedFiles::of(&self.registry().find(key)?.paths)),
            None => Ok(GeneratedFiles::of(&container.paths)),
        }
    }

    /// The process of another, running container.
    fn pid_of(&self, key: &str) -> Result<i32, EngineError> {
        let other = self.registry().find(key)?;
        let process = other.cell().record.state.process;
        process.map(|process| process.pid).ok_or_else(|| {
            EngineError::Conflict(format!(
                "cannot join a namespace of a non running container: {}",
                other.id
            ))
        })
    }

    fn shm(
        &self,
        container: &Container,
        record: &Record,
        ipc: &Namespace,
    ) -> Result<Shm, EngineError> {
        let host = &record.host_config;
        let size = u64::try_from(host.shm_size).unwrap_or_default();
        match host.ipc_mode.as_str() {
            "host" => Ok(Shm::Bind(PathBuf::from("/dev/shm"))),
            "none" => Ok(Shm::None),
            "shareable" => {
                let dir = container.paths.shm();
                disk::create_dir(&dir, 0o700)
                    .map_err(|source| EngineError::disk("create", &dir, source))?;
                let options = std::ffi::CString::new(format!("mode=1777,size={size}"))
                    .map_err(|error| EngineError::system("mount shared memory", error.into()))?;
                let flags = rustix::mount::MountFlags::NOSUID
                    | rustix::mount::MountFlags::NODEV
                    | rustix::mount::MountFlags::NOEXEC;
                rustix::mount::mount("shm", &dir, "tmpfs", flags, options.as_c_str())
                    .map_err(|error| EngineError::system("mount shared memory", error.into()))?;
                Ok(Shm::Bind(dir))
            }
            mode => match (ipc, mode.strip_prefix("container:")) {
                (Namespace::Path(_), Some(key)) => {
                    let other = self.registry().find(key)?;
                    if other.cell().record.host_config.ipc_mode != "shareable" {
                        return Err(EngineError::Conflict(format!(
                            "cannot join IPC of a non-shareable container: {}",
                            other.id
                        )));
                    }
                    Ok(Shm::Bind(other.paths.shm()))
                }
                _ => Ok(Shm::Private { size }),
            },
        }
    }

    /// Writes the container's generated files. Blocking.
    pub(super) fn write_files(
        &self,
        container: &Container,
        record: &Record,
        reserved: &Reserved,
    ) -> Result<(), EngineError> {
        if record.host_config.network_mode.starts_with("container:") {
            return Ok(());
        }
        let dns = files::dns_options(record, &self.config().dns)?;
        let resolv_conf = self.networks().resolv_conf(&container.id, &dns);
        let mut extra = self.networks().extra_hosts(&record.host_config.extra_hosts)?;
        extra.extend(super::links::hosts(self, record)?);
        files::write(record, &container.paths, &resolv_conf, &extra, &reserved.addresses())
    }
}

/// Refuses a bind that is to see later mounts on a source whose mount tells nobody of them.
fn check_propagation(
    named: &str,
    source: &Path,
    propagation: Propagation,
) -> Result<(), EngineError> {
    let (from, wanted): (&[&str], &str) = match propagation {
        Propagation::Shared | Propagation::Rshared => (&["shared:"], "shared"),
        Propagation::Slave | Propagation::Rslave => (&["shared:", "master:"], "shared or slave"),
        Propagation::Private | Propagation::Rprivate => return Ok(()),
    };
    let mount = brig_sys::mount::mount_of(source)
        .map_err(|error| EngineError::disk("find the mount of", source, error))?;
    let tells = |tag: &String| from.iter().any(|kind| tag.starts_with(kind));
    if mount.propagation.iter().any(tells) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "path {named} is mounted on {} but it is not a {wanted} mount",
        mount.mount_point.display()
    )))
}

/// Refuses a list of users or groups that the runtime would wait for. Blocking.
///
/// SECURITY: runc looks into both, even if it is told all that is in them. What a container puts in
/// their place afterwards ends with the time that a process has to start.
pub(crate) fn check_databases(root: &OwnedFd, flavor: Flavor) -> Result<(), EngineError> {
    if flavor == Flavor::Crun {
        return Ok(());
    }
    for path in ["etc/passwd", "etc/group"] {
        let (flags, mode) = (rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
        let Ok(found) = brig_sys::openat::open_in_root(root, Path::new(path), flags, mode) else {
            continue;
        };
        let stat = rustix::fs::fstat(&found)
            .map_err(|error| EngineError::disk("read", Path::new(path), error.into()))?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if !kind.is_file() && !kind.is_dir() {
            return Err(EngineError::Invalid(format!(
                "/{path} in the container is no file ({kind:?}), which runc would wait for: use crun, or replace it in the image"
            )));
        }
    }
    Ok(())
}

/// Resolves a user by the files of a mounted root file system. Blocking.
pub(crate) fn resolve_user(
    root: &OwnedFd,
    user: &str,
    group_add: &[String],
) -> Result<users::ResolvedUser, EngineError> {
    let read = |path: &str| -> Result<String, EngineError> {
        match brig_sys::openat::read_in_root(root, Path::new(path), MAX_DATABASE_BYTES) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            // No such file, or something else of that name.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound
                        | std::io::ErrorKind::NotADirectory
                        | std::io::ErrorKind::InvalidInput
                ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) =>
            {
                Ok(String::new())
            }
            Err(source) => Err(EngineError::disk("read the image's", Path::new(path), source)),
        }
    };
    users::resolve(user, group_add, &read("etc/passwd")?, &read("etc/group")?)
}

/// Mounts a part of a volume at `part`, without leaving the volume by links.
///
/// SECURITY: containers that run may put a link in the way at any moment, so the path inside the
/// volume is looked up once, and what was found is mounted where no container can change it.
fn subpath(volume: &Path, inner: &str, part: &Path) -> Result<PathBuf, EngineError> {
    let fail = |source| EngineError::disk("find the volume's subpath", Path::new(inner), source);
    let root = brig_sys::openat::open_dir(volume).map_err(fail)?;
    let flags = rustix::fs::OFlags::PATH;
    let mode = rustix::fs::Mode::empty();
    let found =
        brig_sys::openat::open_beneath(&root, Path::new(inner), flags, mode).map_err(fail)?;
    let stat = rustix::fs::fstat(&found).map_err(|error| fail(error.into()))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let mounted = || {
        if is_dir {
            disk::create_dir(part, 0o700)?;
        } else {
            disk::create_dir(part.parent().unwrap_or(part), 0o700)?;
            std::fs::File::create_new(part)?;
        }
        let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let options = brig_sys::mount::BindOptions { recursive: true, read_only: false };
        brig_sys::mount::bind(&source, part, options)
    };
    mounted().map_err(|source| EngineError::disk("mount the volume's subpath at", part, source))?;
    Ok(part.to_owned())
}

/// Unmounts the parts of volumes below `dir`. Never deletes below a mount point. Blocking.
pub(super) fn release_subpaths(dir: &Path) -> std::io::Result<()> {
    let items = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        items => items?,
    };
    for item in items {
        let item = item?;
        let part = item.path();
        while brig_sys::mount::is_mountpoint(&part)? {
            brig_sys::mount::unmount(&part, true)?;
        }
        if part.is_dir() { std::fs::remove_dir(&part) } else { std::fs::remove_file(&part) }?;
    }
    std::fs::remove_dir(dir)
}

/// The device nodes that a container gets beside the usual ones.
fn devices(host: &HostConfig) -> Result<Vec<DeviceNode>, EngineError> {
    let mut devices = Vec::new();
    if host.privileged {
        devices = brig_runtime::spec::all_devices()
            .map_err(|source| EngineError::system("list the host's devices", source))?;
    }
    for device in &host.devices {
        let access =
            if device.cgroup_permissions.is_empty() { "rwm" } else { &device.cgroup_permissions };
        let inside = if device.path_in_container.is_empty() {
            &device.path_on_host
        } else {
            &device.path_in_container
        };
        let found = brig_runtime::spec::device_nodes(
            Path::new(&device.path_on_host),
            Path::new(inside),
            access,
        );
        devices.extend(found.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => EngineError::Invalid(format!(
                "error gathering device information while adding custom device \"{}\": no such file or directory",
                device.path_on_host
            )),
            _ => EngineError::Disk {
                action: "gather device information for",
                path: PathBuf::from(&device.path_on_host),
                source,
            },
        })?);
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_part_of_a_volume_stays_what_was_found() {
        let top = tempfile::tempdir().unwrap();
        let (volume, parts) = (top.path().join("volume"), top.path().join("parts"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/inside"), "x").unwrap();
        fs::write(volume.join("file"), "y").unwrap();
        symlink("/etc", volume.join("link")).unwrap();
        assert!(subpath(&volume, "link", &parts.join("9")).is_err());
        let dir = subpath(&volume, "a/b", &parts.join("0")).unwrap();
        let file = subpath(&volume, "file", &parts.join("1")).unwrap();
        // What a container does while the runtime is on its way.
        fs::rename(volume.join("a/b"), volume.join("a/c")).unwrap();
        symlink("/etc", volume.join("a/b")).unwrap();
        let seen = (fs::read(dir.join("inside")), fs::read(&file), dir.join("passwd").exists());
        release_subpaths(&parts).unwrap();
        assert_eq!(
            (seen.0.unwrap().as_slice(), seen.1.unwrap().as_slice()),
            (&b"x"[..], &b"y"[..])
        );
        assert!(!seen.2 && !parts.exists());
        assert!(volume.join("a/c/inside").exists() && volume.join("file").exists());
        release_subpaths(&parts).unwrap();
    }
}
