//! A memory file system that is mounted nowhere until it is moved into another mount namespace.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

const ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A swap-free memory file system held by a descriptor only. Dropping it before [`attach_in`]
/// frees the memory; afterwards it lives as long as the mount namespace it was moved into. It
/// never shows in the mount table of the namespace that made it.
///
/// [`attach_in`]: DetachedTmpfs::attach_in
#[derive(Debug)]
pub struct DetachedTmpfs {
    mount: OwnedFd,
}

impl DetachedTmpfs {
    /// Makes an empty one: mode 0755, `nosuid,nodev,noexec`. `source` is what the mount table
    /// shows as its source, `size` counts bytes (every file takes whole pages), `inodes` files
    /// including the root directory.
    ///
    /// It is a tmpfs with `noswap`; where the kernel does not know that option (before 6.4), a
    /// ramfs, which is never swapped and knows no limits.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(source: &str, size: u64, inodes: u64) -> io::Result<Self> {
        match Self::tmpfs(source, size, inodes) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::ramfs(source),
            answer => answer,
        }
    }

    fn tmpfs(source: &str, size: u64, inodes: u64) -> io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fd = context.as_fd();
        fsconfig_set_flag(fd, "noswap")?;
        fsconfig_set_string(fd, "source", source)?;
        fsconfig_set_string(fd, "size", size.to_string())?;
        fsconfig_set_string(fd, "nr_inodes", inodes.to_string())?;
        fsconfig_set_string(fd, "mode", "0755")?;
        fsconfig_create(fd)?;
        let mount = fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, ATTRIBUTES)?;
        Ok(Self { mount })
    }

    fn ramfs(source: &str) -> io::Result<Self> {
        let context = fsopen("ramfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fd = context.as_fd();
        fsconfig_set_string(fd, "source", source)?;
        fsconfig_set_string(fd, "mode", "0755")?;
        fsconfig_create(fd)?;
        let mount = fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, ATTRIBUTES)?;
        Ok(Self { mount })
    }

    /// Writes a file into its top directory.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is no plain file name, `AlreadyExists` for the second of the
    /// same name, `StorageFull` beyond the size.
    pub fn add_file(
        &self,
        name: &str,
        data: &[u8],
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> io::Result<()> {
        if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"));
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.mount, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(data)?;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        // After the owner: changing that clears the set-id bits.
        fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(())
    }

    /// Makes the mount read-only, for good.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn seal_read_only(&self) -> io::Result<()> {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_RDONLY,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        // SAFETY: the path is a C string, the struct is of the size that is passed, the
        // descriptor is open; the kernel only reads all of them. rustix has no mount_setattr.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Moves it to `target` in another mount namespace; the directory is made there if missing.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn attach_in(self, mnt_ns: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
        self.attach_files_in(mnt_ns, target, &[])
    }

    /// Like [`DetachedTmpfs::attach_in`], and binds single files of it to other places of that
    /// namespace: pairs of a file's name and the absolute path where it shall be seen too. Empty
    /// files are made there to bind over.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn attach_files_in(
        self,
        mnt_ns: BorrowedFd<'_>,
        target: &Path,
        files: &[(String, PathBuf)],
    ) -> io::Result<()> {
        crate::ns::in_mount(mnt_ns, || {
            // The directories are the container's, whatever umask this process has. This thread
            // has an umask of its own.
            rustix::process::umask(Mode::empty());
            make_directories(target)?;
            move_mount(
                self.mount.as_fd(),
                "",
                CWD,
                target,
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            for (name, path) in files {
                if let Some(parent) = path.parent() {
                    make_directories(parent)?;
                }
                make_file(path)?;
                let clone = open_tree(
                    self.mount.as_fd(),
                    name.as_str(),
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
                )?;
                move_mount(
                    clone.as_fd(),
                    "",
                    CWD,
                    path.as_path(),
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
                )?;
            }
            Ok(())
        })
    }
}

fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn make_file(path: &Path) -> io::Result<()> {
    let exists = rustix::fs::statat(CWD, path, AtFlags::empty()).is_ok();
    if exists {
        return Ok(());
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}
