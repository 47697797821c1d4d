//! Which control group version this host runs, and moving a process into a group.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};

/// Where systemd and everybody else mount control groups.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Where a hybrid host mounts the version 2 hierarchy beside the version 1 controllers.
pub const HYBRID_UNIFIED: &str = "/sys/fs/cgroup/unified";

/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// Version 1 controllers only.
    V1,
    /// The unified hierarchy.
    V2,
    /// Version 1 controllers, and a version 2 hierarchy without controllers at
    /// [`HYBRID_UNIFIED`].
    Hybrid,
}

/// The version of this mount namespace.
#[must_use]
pub fn mode() -> CgroupMode {
    if is_cgroup2(Path::new(ROOT)) {
        CgroupMode::V2
    } else if is_cgroup2(Path::new(HYBRID_UNIFIED)) {
        CgroupMode::Hybrid
    } else {
        CgroupMode::V1
    }
}

fn is_cgroup2(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
        .and_then(fstatfs)
        .is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|magic| magic == CGROUP2_MAGIC))
}

/// Whether block devices can be given weights. On version 2 the runtime finds where.
#[must_use]
pub fn has_weights() -> bool {
    let legacy = Path::new(ROOT).join("blkio");
    mode() == CgroupMode::V2
        || ["blkio.weight", "blkio.bfq.weight"].iter().any(|file| legacy.join(file).exists())
}

/// The mount points of the hierarchies that an init system tracks processes by: `name=systemd` on
/// version 1, the unified one elsewhere. Resource controllers of version 1 are not among them.
#[must_use]
pub fn tracking_hierarchies() -> Vec<PathBuf> {
    let candidates: &[&str] = match mode() {
        CgroupMode::V2 => &[ROOT],
        CgroupMode::V1 => &["/sys/fs/cgroup/systemd"],
        CgroupMode::Hybrid => &["/sys/fs/cgroup/systemd", HYBRID_UNIFIED],
    };
    candidates.iter().map(PathBuf::from).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Where a group lies in a hierarchy; `group` is taken below the mount point whether or not it
/// starts with a slash.
///
/// # Errors
/// `InvalidInput` when `group` has a `..`.
pub fn group_path(hierarchy: &Path, group: &str) -> io::Result<PathBuf> {
    let mut path = hierarchy.to_owned();
    for component in Path::new(group).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a control group's path cannot leave its hierarchy",
                ));
            }
        }
    }
    Ok(path)
}

/// Makes the group in every tracking hierarchy and returns its directories.
///
/// # Errors
/// The first directory that cannot be made.
pub fn create_tracking_group(group: &str) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for hierarchy in tracking_hierarchies() {
        let path = group_path(&hierarchy, group)?;
        fs::create_dir_all(&path)?;
        made.push(path);
    }
    Ok(made)
}

/// Moves a process into the group at this directory.
///
/// # Errors
/// What writing `cgroup.procs` answers.
pub fn attach(group_dir: &Path, pid: i32) -> io::Result<()> {
    fs::write(group_dir.join("cgroup.procs"), pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_agrees_with_the_mount_table() {
        let mounts = crate::mount::mountinfo(None).unwrap();
        let at = |path: &str| {
            mounts
                .iter()
                .rfind(|m| m.mount_point == Path::new(path))
                .map(|m| m.fs_type.clone())
                .unwrap_or_default()
        };
        let expected = match (at(ROOT).as_str(), at(HYBRID_UNIFIED).as_str()) {
            ("cgroup2", _) => CgroupMode::V2,
            (_, "cgroup2") => CgroupMode::Hybrid,
            _ => CgroupMode::V1,
        };
        assert_eq!(mode(), expected);
    }

    #[test]
    fn a_child_can_be_moved() {
        let group = format!("/brig-sys-test-{}", std::process::id());
        let dirs = create_tracking_group(&group).unwrap();
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        for dir in &dirs {
            attach(dir, pid).unwrap();
        }
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for dir in &dirs {
            fs::remove_dir(dir).unwrap();
        }
        assert_eq!(table.matches(&group).count(), dirs.len(), "{table}");
    }

    #[test]
    fn groups_stay_in_their_hierarchy() {
        let base = Path::new("/h");
        assert_eq!(group_path(base, "/a/b").unwrap(), Path::new("/h/a/b"));
        assert!(group_path(base, "a/../../b").is_err());
    }
}
