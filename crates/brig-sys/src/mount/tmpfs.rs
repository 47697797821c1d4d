//! A memory file system that is mounted nowhere until it is moved into another mount namespace.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat as open_at};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::openat;

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
        let mut file = File::from(open_at(&self.mount, name, flags, Mode::RUSR | Mode::WUSR)?);
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
    /// `InvalidInput` for a path with `..`, `FilesystemLoop` for one that goes through a magic link
    /// of /proc; else what the kernel answers.
    pub fn attach_in(self, mnt_ns: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
        self.attach_files_in(mnt_ns, target, &[])
    }

    /// Like [`DetachedTmpfs::attach_in`], and binds single files of it to other places of that
    /// namespace: pairs of a file's name and the absolute path where it shall be seen too. Empty
    /// files are made there to bind over.
    ///
    /// # Errors
    /// As [`DetachedTmpfs::attach_in`], and `AlreadyExists` for a dangling link in a file's place.
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
            // SECURITY: what lies there is the image's choice. Every path is walked below the
            // container's root and not through magic links: with the host's processes in sight,
            // /proc/1/root leads out of it. What was found is held and mounted on, so that nothing
            // is looked up twice.
            let root = openat::open_dir(Path::new("/"))?;
            let directory = make_directories(&root, target)?;
            mount_on(&self.mount, &directory)?;
            for (name, path) in files {
                let place = make_file(&root, path)?;
                let clone = open_tree(
                    self.mount.as_fd(),
                    name.as_str(),
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
                )?;
                mount_on(&clone, &place)?;
            }
            Ok(())
        })
    }
}

fn mount_on(mount: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount.as_fd(), "", place.as_fd(), "", flags)?)
}

fn make_directories(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    openat::create_dir_all_in_root(root, path, (0, 0), 0o755)
}

/// What is at `path`, for mounting on it; an empty file is made where there is nothing.
fn make_file(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let look = || openat::open_in_root(root, path, OFlags::PATH, Mode::empty());
    match look() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let parent = make_directories(root, path.parent().unwrap_or(Path::new("/")))?;
    let name = Path::new(path.file_name().unwrap_or_default());
    // A link that leads nowhere is in the way: it is not followed to make its target.
    let flags = OFlags::CREATE
        | OFlags::EXCL
        | OFlags::WRONLY
        | OFlags::NONBLOCK
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC;
    openat::open_beneath(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    openat::open_beneath(&parent, name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
}
