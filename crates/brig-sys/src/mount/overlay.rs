//! Overlay file systems.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};

/// Set on every overlay. Without them a kernel's defaults could make the upper directory hold
/// redirects and metadata-only copies, which mean nothing outside this very mount.
const FEATURES_OFF: [&str; 3] = ["index", "metacopy", "redirect_dir"];

/// mount(2) copies one page of options.
const MOUNT_DATA_MAX: usize = 4095;

/// How to mount an overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Never sync. After a crash the upper directory must be thrown away.
    pub volatile: bool,
}

/// Mounts an overlay at `target`: `lower` directories, topmost first, read-only below `upper`.
/// `work` is an empty directory on `upper`'s file system.
///
/// # Errors
/// `InvalidInput` without any lower directory; what the kernel answers.
pub fn overlay(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    opts: OverlayOptions,
) -> io::Result<()> {
    if lower.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an overlay needs at least one lower directory",
        ));
    }
    match by_context(lower, upper, work, target, opts) {
        // Before Linux 6.7 there is no `lowerdir+`, and a string parameter has at most 256 bytes.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            by_option_string(lower, upper, work, target, opts)
        }
        answer => answer,
    }
}

fn by_context(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    opts: OverlayOptions,
) -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = context.as_fd();
    fsconfig_set_string(fd, "source", "overlay")?;
    for dir in lower {
        fsconfig_set_string(fd, "lowerdir+", dir.as_path())?;
    }
    fsconfig_set_string(fd, "upperdir", upper)?;
    fsconfig_set_string(fd, "workdir", work)?;
    for feature in FEATURES_OFF {
        fsconfig_set_string(fd, feature, "off")?;
    }
    if opts.volatile {
        fsconfig_set_flag(fd, "volatile")?;
    }
    fsconfig_create(fd)?;
    let mount = fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(mount.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

fn by_option_string(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    opts: OverlayOptions,
) -> io::Result<()> {
    // Relative to their common parent, many more lower directories fit into the page.
    let base = common_parent(lower);
    let mut data = b"lowerdir=".to_vec();
    for (index, dir) in lower.iter().enumerate() {
        if index > 0 {
            data.push(b':');
        }
        escape(dir.strip_prefix(&base).unwrap_or(dir), &mut data);
    }
    data.extend_from_slice(b",upperdir=");
    escape(upper, &mut data);
    data.extend_from_slice(b",workdir=");
    escape(work, &mut data);
    for feature in FEATURES_OFF {
        data.extend_from_slice(format!(",{feature}=off").as_bytes());
    }
    if opts.volatile {
        data.extend_from_slice(b",volatile");
    }
    if data.len() > MOUNT_DATA_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many layers for this kernel's overlay file system",
        ));
    }
    let data = CString::new(data)?;
    let target = std::path::absolute(target)?;
    crate::ns::on_thread(move || {
        crate::ns::own_fs_context()?;
        rustix::process::chdir(&base)?;
        mount("overlay", &target, "overlay", MountFlags::empty(), Some(data.as_c_str()))?;
        Ok(())
    })
}

fn common_parent(paths: &[PathBuf]) -> PathBuf {
    let mut paths = paths.iter().filter_map(|path| path.parent());
    let mut base = paths.next().map(Path::to_owned).unwrap_or_default();
    for path in paths {
        while !path.starts_with(&base) {
            if !base.pop() {
                break;
            }
        }
    }
    if base.as_os_str().is_empty() { PathBuf::from("/") } else { base }
}

fn escape(path: &Path, out: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{mountinfo, unmount};
    use std::fs;

    type Way = fn(&[PathBuf], &Path, &Path, &Path, OverlayOptions) -> io::Result<()>;

    #[test]
    fn both_ways_layer_alike() {
        for way in [by_context as Way, by_option_string as Way] {
            let top = tempfile::tempdir().unwrap();
            let dir = |name: &str| {
                let path = top.path().join(name);
                fs::create_dir_all(&path).unwrap();
                path
            };
            let (high, low) = (dir("l/a:b,c"), dir("l/low"));
            fs::write(high.join("both"), "high").unwrap();
            fs::write(low.join("both"), "low").unwrap();
            fs::write(low.join("deep"), "low").unwrap();
            let (upper, work, target) = (dir("upper"), dir("work"), dir("target"));
            way(&[high, low], &upper, &work, &target, OverlayOptions { volatile: true }).unwrap();
            let both = fs::read_to_string(target.join("both")).unwrap();
            fs::write(target.join("deep"), "new").unwrap();
            let info = mountinfo(None).unwrap();
            let info = info.iter().find(|m| m.mount_point == target).unwrap().clone();
            unmount(&target, false).unwrap();
            assert_eq!(both, "high");
            assert_eq!(fs::read_to_string(upper.join("deep")).unwrap(), "new");
            assert_eq!(info.fs_type, "overlay");
            assert!(info.super_options.contains("volatile"), "{}", info.super_options);
        }
    }

    #[test]
    fn common_parents() {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(common_parent(&paths(&["/a/b/1", "/a/b/2"])), Path::new("/a/b"));
        assert_eq!(common_parent(&paths(&["/a/b/1", "/c/2"])), Path::new("/"));
        assert_eq!(common_parent(&paths(&["/a"])), Path::new("/"));
    }
}
