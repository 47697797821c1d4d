//! Mounts: overlays, binds, detached memory file systems, the mount table.

mod info;
mod overlay;
mod tmpfs;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive,
    mount_change, mount_remount,
};

pub use info::{MountInfo, mountinfo};
pub use overlay::{OverlayOptions, overlay};
pub use tmpfs::DetachedTmpfs;

/// How to bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// Take the mounts below the source along.
    pub recursive: bool,
    /// Refuse writing through the new mount (not through mounts below it).
    pub read_only: bool,
}

/// Makes `source` visible at `target`.
///
/// # Errors
/// What the kernel answers.
pub fn bind(source: &Path, target: &Path, options: BindOptions) -> io::Result<()> {
    if options.recursive {
        mount_bind_recursive(source, target)?;
    } else {
        mount_bind(source, target)?;
    }
    if options.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        if let Err(error) = mount_remount(target, flags, c"") {
            // Never leave it writable where read-only was asked for.
            let _ = unmount(target, true);
            return Err(error.into());
        }
    }
    Ok(())
}

/// Unmounts what is mounted last at `target`. With `detach`, also when it is in use: it disappears
/// at once and ends with its last user.
///
/// # Errors
/// `InvalidInput` when it is no mount point, else what the kernel answers.
pub fn unmount(target: &Path, detach: bool) -> io::Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if detach {
        flags |= UnmountFlags::DETACH;
    }
    rustix::mount::unmount(target, flags)?;
    Ok(())
}

/// Makes `dir` a mount point whose later mounts reach mount namespaces made from this one. Doing
/// it twice changes nothing.
///
/// # Errors
/// What the kernel answers.
pub fn make_shared_mountpoint(dir: &Path) -> io::Result<()> {
    if !is_mountpoint(dir)? {
        mount_bind_recursive(dir, dir)?;
    }
    mount_change(dir, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// The mounts that a namespace made from this one would not have got by itself if they were made
/// later: those on a mount that is not shared. Id and mount point of each, because the kernel gives
/// the id of a mount that is gone to the next one.
///
/// # Errors
/// When the mount table cannot be read.
pub fn unshared_mounts() -> io::Result<BTreeSet<(u32, PathBuf)>> {
    let table = mountinfo(None)?;
    let shared: BTreeSet<u32> = table
        .iter()
        .filter(|mount| mount.propagation.iter().any(|tag| tag.starts_with("shared:")))
        .map(|mount| mount.id)
        .collect();
    Ok(table
        .into_iter()
        .filter(|mount| !shared.contains(&mount.parent))
        .map(|mount| (mount.id, mount.mount_point))
        .collect())
}

/// The mount that a path lies on. Symbolic links are followed.
///
/// # Errors
/// `NotFound` and the like.
pub fn mount_of(path: &Path) -> io::Result<MountInfo> {
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
    let table = mountinfo(None)?;
    let known = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    if let Some(found) = table.iter().find(|mount| known && u64::from(mount.id) == stat.stx_mnt_id)
    {
        return Ok(found.clone());
    }
    // Before Linux 5.8. The last of several at one place covers the others.
    let path = path.canonicalize()?;
    table
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether the path is the root of a mount. A symbolic link is not followed.
///
/// # Errors
/// `NotFound` and the like.
pub fn is_mountpoint(path: &Path) -> io::Result<bool> {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Before Linux 5.8.
    let path = path.canonicalize()?;
    Ok(mountinfo(None)?.iter().any(|mount| mount.mount_point == path))
}

#[cfg(test)]
mod tests;
