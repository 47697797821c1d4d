//! Device nodes and rights.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::SpecError;
use super::input::{ContainerSpecInput, DeviceNode, DeviceType};

/// What containers may use without asking: zero, null, urandom, random, tty, console. The last
/// entry refuses fuse, which an older default allowed.
const DEFAULT_RULES: [(bool, i64, i64); 7] = [
    (true, 1, 5),
    (true, 1, 3),
    (true, 1, 9),
    (true, 1, 8),
    (true, 5, 0),
    (true, 5, 1),
    (false, 10, 229),
];

/// Deeper trees than this below /dev are somebody's mistake.
const MAX_DEPTH: usize = 8;

pub(super) fn nodes(devices: &[DeviceNode]) -> Vec<LinuxDevice> {
    devices
        .iter()
        .map(|device| {
            let mut node = LinuxDevice::default();
            node.set_path(device.path.clone())
                .set_typ(oci_type(device.kind))
                .set_major(device.major)
                .set_minor(device.minor)
                .set_file_mode(Some(device.mode))
                .set_uid(Some(device.uid))
                .set_gid(Some(device.gid));
            node
        })
        .collect()
}

pub(super) fn rules(input: &ContainerSpecInput) -> Result<Vec<LinuxDeviceCgroup>, SpecError> {
    if input.process.capabilities.privileged {
        return Ok(vec![rule(true, None, None, None, "rwm")]);
    }
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    for (allow, major, minor) in DEFAULT_RULES {
        rules.push(rule(allow, Some(LinuxDeviceType::C), Some(major), Some(minor), "rwm"));
    }
    for device in input.devices.iter().filter(|device| device.kind != DeviceType::Fifo) {
        check_access(&device.access)?;
        rules.push(rule(
            true,
            Some(oci_type(device.kind)),
            Some(device.major),
            Some(device.minor),
            &device.access,
        ));
    }
    for wanted in &input.device_rules {
        check_access(&wanted.access)?;
        let kind = Some(oci_type(wanted.kind));
        rules.push(rule(true, kind, wanted.major, wanted.minor, &wanted.access));
    }
    Ok(rules)
}

fn check_access(access: &str) -> Result<(), SpecError> {
    let valid = !access.is_empty() && access.chars().all(|c| matches!(c, 'r' | 'w' | 'm'));
    if valid { Ok(()) } else { Err(SpecError::DeviceAccess(access.chars().take(20).collect())) }
}

fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(kind)
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

const fn oci_type(kind: DeviceType) -> LinuxDeviceType {
    match kind {
        DeviceType::All => LinuxDeviceType::A,
        DeviceType::Char => LinuxDeviceType::C,
        DeviceType::Block => LinuxDeviceType::B,
        DeviceType::Fifo => LinuxDeviceType::P,
    }
}

/// The nodes that `--device host:inside:access` means: one, or all below a directory. Blocks.
///
/// # Errors
/// When the path cannot be read or has no device.
pub fn device_nodes(host: &Path, inside: &Path, access: &str) -> io::Result<Vec<DeviceNode>> {
    // A link is followed, as in /dev/disk/by-id.
    let real = host.canonicalize()?;
    if let Some(node) = node(&real, inside, access)? {
        return Ok(vec![node]);
    }
    let mut found = Vec::new();
    if real.is_dir() {
        walk(&real, inside, access, MAX_DEPTH, &mut found)?;
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device node"));
    }
    Ok(found)
}

/// Every device of the host, for a privileged container. Blocks.
///
/// # Errors
/// When /dev cannot be read.
pub fn all_devices() -> io::Result<Vec<DeviceNode>> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), "rwm", MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn walk(
    dir: &Path,
    inside: &Path,
    access: &str,
    depth: usize,
    found: &mut Vec<DeviceNode>,
) -> io::Result<()> {
    // The container has its own of these, or must not have the host's.
    const SKIPPED: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let (path, inside) = (entry.path(), inside.join(&name));
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth > 0 && !SKIPPED.iter().any(|skipped| name == *skipped) {
                walk(&path, &inside, access, depth - 1, found)?;
            }
        } else if name != "console"
            && let Ok(Some(node)) = node(&path, &inside, access)
        {
            found.push(node);
        }
    }
    Ok(())
}

fn node(path: &Path, inside: &Path, access: &str) -> io::Result<Option<DeviceNode>> {
    let meta = fs::symlink_metadata(path)?;
    let kind = if meta.file_type().is_char_device() {
        DeviceType::Char
    } else if meta.file_type().is_block_device() {
        DeviceType::Block
    } else {
        return Ok(None);
    };
    let device = meta.rdev();
    Ok(Some(DeviceNode {
        path: inside.to_owned(),
        kind,
        major: i64::from(rustix::fs::major(device)),
        minor: i64::from(rustix::fs::minor(device)),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    }))
}
