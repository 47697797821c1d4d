//! Removing trees that somebody else made.
//!
//! SECURITY: a container may make a million directories, each in the other. The standard library's
//! removal recurses, with a descriptor for each level: such a tree ends the whole process. Here
//! what lies too deep is moved up first, so that neither stack nor descriptors grow with it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Most directories that are open at once.
const MAX_OPEN: usize = 32;

/// Removes a file, or a directory with everything below it, following no symbolic link.
///
/// # Errors
/// The first thing that could not be removed; `NotFound` if there is nothing at `path`.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_at(CWD, path)
}

/// [`remove_tree`] of a name in an open directory.
///
/// # Errors
/// See [`remove_tree`].
pub fn remove_tree_at(parent: impl AsFd, name: impl Arg) -> io::Result<()> {
    let (parent, name) = (parent.as_fd(), name.into_c_str()?);
    match rustix::fs::unlinkat(parent, &*name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        answer => return Ok(answer?),
    }
    match open(parent, &name) {
        Ok(top) => empty(top)?,
        // A file after all, which the kernel does not let go.
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM.into()),
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR)?)
}

/// A directory that is being emptied.
struct Level {
    items: Dir,
    name: CString,
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn empty(top: OwnedFd) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let before = moved;
        let mut levels = vec![Level { items: Dir::read_from(&top)?, name: CString::default() }];
        loop {
            let deep = levels.len() >= MAX_OPEN;
            let Some(level) = levels.last_mut() else { break };
            let Some(item) = level.items.read() else {
                let Some(done) = levels.pop() else { break };
                if let Some(above) = levels.last() {
                    match rustix::fs::unlinkat(above.items.fd()?, &done.name, AtFlags::REMOVEDIR) {
                        // Somebody else was faster.
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                continue;
            };
            let item = item?;
            let name = item.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let dir = level.items.fd()?;
            if item.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    // The file system does not tell kinds when it lists.
                    Err(Errno::ISDIR | Errno::PERM) if item.file_type() == FileType::Unknown => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let name = name.to_owned();
            if !deep {
                match open(dir, &name) {
                    Ok(below) => levels.push(Level { items: Dir::new(below)?, name }),
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            } else if rustix::fs::unlinkat(dir, &name, AtFlags::REMOVEDIR).is_err() {
                move_up(dir, &name, top.as_fd(), &mut moved)?;
            }
        }
        // What was moved up may lie where the listing had passed already.
        if moved == before {
            return Ok(());
        }
    }
}

/// Gives a directory another name at the top.
fn move_up(
    dir: BorrowedFd<'_>,
    name: &CStr,
    top: BorrowedFd<'_>,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let new = format!(".removed-{moved}");
        match rustix::fs::renameat_with(dir, name, top, &new, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_mean_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(dir.path().join("other/kept")).unwrap();
        for part in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(tree.join(part)).unwrap();
            fs::write(tree.join(part).join("file"), "x").unwrap();
            symlink("../../other", tree.join(part).join("link")).unwrap();
        }
        fs::write(tree.join(".removed-1"), "a name that is taken").unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(dir.path().join("other/kept").is_dir());
        assert_eq!(remove_tree(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);

        symlink("other", &tree).unwrap();
        remove_tree(&tree).unwrap();
        fs::write(&tree, "").unwrap();
        remove_tree_at(CWD, &tree).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        const DEPTH: usize = 4_000;
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(CWD, dir.path(), flags, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&at, "way", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "way", flags, Mode::empty()).unwrap();
        }
        let path = dir.path().join("way");
        fs::create_dir(path.join(".removed-3")).unwrap();
        // A recursion of this depth would need far more.
        let small = std::thread::Builder::new().stack_size(64 << 10);
        small.spawn(move || remove_tree(&path)).unwrap().join().unwrap().unwrap();
        assert!(!dir.path().join("way").exists());
    }
}
