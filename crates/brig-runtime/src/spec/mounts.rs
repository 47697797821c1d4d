//! What is mounted in a container.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::SpecError;
use super::input::{ContainerSpecInput, MountKind, MountSpec, Propagation, Shm};
use crate::facts::HostFacts;

/// Where a memory file system may not be made read-only with the rest.
const KEPT_WRITABLE: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];

pub(super) fn build(
    input: &ContainerSpecInput,
    _host: &HostFacts,
) -> Result<Vec<Mount>, SpecError> {
    let replaced = |path: &Path| {
        input.mounts.iter().any(|mount| {
            mount.target == path || (mount.target == Path::new("/dev") && path.starts_with("/dev"))
        })
    };
    let mut mounts: Vec<Mount> =
        system_mounts(input).into_iter().filter(|mount| !replaced(mount.destination())).collect();
    if input.readonly_rootfs {
        for mount in &mut mounts {
            let kept = KEPT_WRITABLE.iter().any(|path| mount.destination() == Path::new(path));
            if !kept {
                add_option(mount, "ro");
            }
        }
    }
    let mut own: Vec<&MountSpec> = input.mounts.iter().collect();
    // Parents before what lies below them; else in the order that was asked for.
    own.sort_by_key(|mount| mount.target.components().count());
    for mount in own {
        mounts.push(user_mount(mount)?);
    }
    Ok(mounts)
}

fn system_mounts(input: &ContainerSpecInput) -> Vec<Mount> {
    // COMPAT: a privileged container may write to /sys.
    let sys: &[&str] = if input.process.capabilities.privileged {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    let cgroup: &[&str] = if input.process.capabilities.privileged {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["ro", "nosuid", "noexec", "nodev"]
    };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", sys),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    match &input.shm {
        Shm::Private { size } => mounts.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &format!("size={size}")],
        )),
        Shm::Bind(source) => {
            mounts.push(bind_mount(source, "/dev/shm".as_ref(), &["rbind", "rprivate"]));
        }
        Shm::None => {}
    }
    mounts
}

fn user_mount(spec: &MountSpec) -> Result<Mount, SpecError> {
    Ok(match &spec.kind {
        MountKind::Bind { source, read_only, recursive, propagation } => {
            let mut options = vec![if *recursive { "rbind" } else { "bind" }];
            if *read_only {
                options.push("ro");
            }
            options.push(propagation.as_str());
            bind_mount(source, &spec.target, &options)
        }
        MountKind::Volume { source, read_only } => {
            let options: &[&str] = if *read_only { &["rbind", "ro"] } else { &["rbind"] };
            bind_mount(source, &spec.target, options)
        }
        MountKind::Tmpfs { options } => {
            let options = tmpfs_options(options)?;
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            typed(&spec.target, "tmpfs", Path::new("tmpfs"), &options)
        }
    })
}

/// A shared or slave bind only works when the root file system's mounts let it through.
pub(super) fn rootfs_propagation(input: &ContainerSpecInput) -> Option<String> {
    let mut answer = None;
    for mount in &input.mounts {
        if let MountKind::Bind { propagation, .. } = mount.kind {
            match propagation {
                Propagation::Shared | Propagation::Rshared => return Some("shared".to_owned()),
                Propagation::Slave | Propagation::Rslave => answer = Some("slave".to_owned()),
                Propagation::Private | Propagation::Rprivate => {}
            }
        }
    }
    answer
}

/// The mount options of a memory file system: the given ones, comma-separated, over
/// `noexec,nosuid,nodev,rprivate`, without those that a later one contradicts.
///
/// # Errors
/// [`SpecError::TmpfsOption`] for one that tmpfs does not know.
pub fn tmpfs_options(given: &str) -> Result<Vec<String>, SpecError> {
    const DEFAULT: [&str; 4] = ["noexec", "nosuid", "nodev", "rprivate"];
    let given = given.split(',').map(str::trim).filter(|option| !option.is_empty());
    let mut kept: Vec<(&str, &str)> = Vec::new();
    for option in DEFAULT.into_iter().chain(given) {
        let group = option_group(option)
            .ok_or_else(|| SpecError::TmpfsOption(option.chars().take(80).collect()))?;
        kept.retain(|(other, _)| *other != group);
        kept.push((group, option));
    }
    Ok(kept.into_iter().map(|(_, option)| option.to_owned()).collect())
}

/// Options of the same group exclude each other.
fn option_group(option: &str) -> Option<&str> {
    Some(match option {
        "ro" | "rw" => "ro",
        "exec" | "noexec" => "exec",
        "suid" | "nosuid" => "suid",
        "dev" | "nodev" => "dev",
        "sync" | "async" => "sync",
        "dirsync" => "dirsync",
        "mand" | "nomand" => "mand",
        "atime" | "noatime" => "atime",
        "diratime" | "nodiratime" => "diratime",
        "relatime" | "norelatime" => "relatime",
        "strictatime" | "nostrictatime" => "strictatime",
        "defaults" => "defaults",
        "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
        | "runbindable" => "propagation",
        other => {
            let (key, value) = other.split_once('=')?;
            let known = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
            if value.is_empty() {
                return None;
            }
            return known.into_iter().find(|name| *name == key);
        }
    })
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    typed(target.as_ref(), kind, source.as_ref(), options)
}

pub(super) fn bind_mount(source: &Path, target: &Path, options: &[&str]) -> Mount {
    typed(target, "bind", source, options)
}

fn typed(target: &Path, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = MountBuilder::default().build().unwrap_or_default();
    mount
        .set_destination(target.to_owned())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

fn add_option(mount: &mut Mount, option: &str) {
    let mut options = mount.options().clone().unwrap_or_default();
    if !options.iter().any(|present| present == option) {
        options.push(option.to_owned());
        mount.set_options(Some(options));
    }
}
