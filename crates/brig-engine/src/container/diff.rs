//! What a container changed in its root file system, from its writable layer alone.
//!
//! SECURITY: a running container changes the layer while it is read, and layers hold links: both
//! are walked by descriptors that follow none.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use brig_api::container::ChangeItem;
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};

use crate::engine::Engine;
use crate::error::EngineError;

const CHANGED: u8 = 0;
const ADDED: u8 = 1;
const DELETED: u8 = 2;
/// Most changes that are told.
const MAX_CHANGES: usize = 1 << 20;
const MAX_DEPTH: usize = 512;

/// Docker makes these below every container, so they are no change of it. The runtime makes them
/// here when the image has none.
const OWN_FILES: [&str; 6] =
    ["/.dockerenv", "/dev/console", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf"];
const OWN_DIRS: [&str; 7] =
    ["/dev", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc", "/proc", "/sys"];

impl Engine {
    /// The paths that a container changed (0), added (1) and deleted (2), by path.
    ///
    /// # Errors
    /// Unknown container; disk.
    pub async fn changes(&self, key: &str) -> Result<Vec<ChangeItem>, EngineError> {
        let container = self.registry().find(key)?;
        let upper = self.snapshots().upper_dir(&container.id);
        let lower = self.snapshots().container_layers(&container.id).unwrap_or_default();
        self.blocking(move || {
            let failed = |source| EngineError::disk("read the changes in", &upper, source);
            let open = |path: &PathBuf| brig_sys::openat::open_dir(path);
            let layers = lower.iter().map(open).collect::<Result<Vec<_>, _>>().map_err(failed)?;
            let upper = brig_sys::openat::open_dir(&upper).map_err(failed)?;
            let mut walk = Walk { lower: Lower { layers }, found: BTreeMap::new() };
            walk.directory(upper.as_fd(), Path::new("/"), 0).map_err(failed)?;
            Ok(walk
                .found
                .into_iter()
                .map(|(path, kind)| ChangeItem { path: path.display().to_string(), kind })
                .collect())
        })
        .await
    }
}

struct Walk {
    lower: Lower,
    found: BTreeMap<PathBuf, u8>,
}

impl Walk {
    fn directory(&mut self, parent: impl AsFd, path: &Path, depth: usize) -> std::io::Result<()> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(parent, c".", flags, Mode::empty())?;
        for item in Dir::read_from(&dir)? {
            let item = item?;
            let name = item.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = path.join(std::ffi::OsString::from_vec(name.to_vec()));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&dir, item.file_name(), flags, Mode::empty()) {
                Ok(fd) => self.entry(&fd, path, depth)?,
                // Gone meanwhile.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn entry(&mut self, fd: &OwnedFd, path: PathBuf, depth: usize) -> std::io::Result<()> {
        let stat = rustix::fs::fstat(fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if is_whiteout(&stat) {
            // Made and removed again: nothing was there before.
            if self.lower.find(&path)?.is_some() {
                self.note(path, DELETED);
            }
            return Ok(());
        }
        let below = self.lower.find(&path)?;
        let own = below.is_none() && is_own(&path, &stat);
        let change = match &below {
            None if own => None,
            None => Some(ADDED),
            // A directory that was only passed through on the way to a change, or got a place of
            // the engine's.
            Some(before) if kind.is_dir() && is_same_directory(before, &stat, &path) => None,
            Some(_) => Some(CHANGED),
        };
        if let Some(change) = change {
            self.note(path.clone(), change);
        }
        if kind.is_dir() {
            self.directory(fd, &path, depth + 1)?;
        }
        Ok(())
    }

    /// Notes a change, and that the directories above it are changed.
    fn note(&mut self, path: PathBuf, kind: u8) {
        if self.found.len() >= MAX_CHANGES {
            return;
        }
        for above in path.ancestors().skip(1).filter(|above| above.parent().is_some()) {
            self.found.entry(above.to_owned()).or_insert(CHANGED);
        }
        self.found.insert(path, kind);
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_same_directory(before: &Stat, now: &Stat, path: &Path) -> bool {
    (before.st_mode, before.st_uid, before.st_gid) == (now.st_mode, now.st_uid, now.st_gid)
        && ((before.st_mtime, before.st_mtime_nsec) == (now.st_mtime, now.st_mtime_nsec)
            || OWN_DIRS.iter().any(|own| Path::new(own) == path))
}

/// Whether this is a place that the engine made, and nothing more.
fn is_own(path: &Path, stat: &Stat) -> bool {
    let is = |list: &[&str]| list.iter().any(|own| Path::new(own) == path);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => is(&OWN_DIRS),
        FileType::RegularFile => stat.st_size == 0 && is(&OWN_FILES),
        _ => false,
    }
}

/// The image's layers, the top one first.
struct Lower {
    layers: Vec<OwnedFd>,
}

impl Lower {
    /// What the image has at a path.
    fn find(&self, path: &Path) -> rustix::io::Result<Option<Stat>> {
        let path = path.strip_prefix("/").unwrap_or(path);
        for layer in &self.layers {
            match self.look(layer, path)? {
                Look::Here(stat) => return Ok(Some(stat)),
                Look::Hidden => return Ok(None),
                Look::Elsewhere => {}
            }
        }
        Ok(None)
    }

    fn look(&self, layer: &OwnedFd, path: &Path) -> rustix::io::Result<Look> {
        let mut current = None;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = current.as_ref().unwrap_or(layer);
            let next = match rustix::fs::openat(dir, part.as_os_str(), flags, Mode::empty()) {
                Ok(next) => next,
                Err(rustix::io::Errno::NOENT) => {
                    // What an opaque directory doesn't have, nobody below it has.
                    let hidden = current.as_ref().is_some_and(is_opaque);
                    return Ok(if hidden { Look::Hidden } else { Look::Elsewhere });
                }
                Err(error) => return Err(error),
            };
            let stat = rustix::fs::fstat(&next)?;
            let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
            match parts.peek() {
                _ if is_whiteout(&stat) => return Ok(Look::Hidden),
                None => return Ok(Look::Here(stat)),
                // A file hides the directory of a layer below.
                Some(_) if !is_dir => return Ok(Look::Hidden),
                Some(_) => current = Some(next),
            }
        }
        Ok(Look::Elsewhere)
    }
}

enum Look {
    Here(Stat),
    /// Not in this layer, and hidden in those below it.
    Hidden,
    Elsewhere,
}

fn is_opaque(dir: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut value = [0_u8; 1];
    rustix::fs::openat(dir, c".", flags, Mode::empty())
        .and_then(|dir| rustix::fs::fgetxattr(dir, c"trusted.overlay.opaque", &mut value))
        .is_ok_and(|length| length == 1 && value == *b"y")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn changes(upper: &Path, layers: &[&Path]) -> Vec<(String, u8)> {
        let open = |path: &Path| brig_sys::openat::open_dir(path).unwrap();
        let lower = Lower { layers: layers.iter().map(|path| open(path)).collect() };
        let mut walk = Walk { lower, found: BTreeMap::new() };
        walk.directory(open(upper).as_fd(), Path::new("/"), 0).unwrap();
        walk.found.into_iter().map(|(path, kind)| (path.display().to_string(), kind)).collect()
    }

    fn whiteout(path: &Path) {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, mode, 0).unwrap();
    }

    #[test]
    fn layers_are_seen_as_the_kernel_stacks_them() {
        let top = tempfile::tempdir().unwrap();
        let [upper, one, two] = ["upper", "one", "two"].map(|name| top.path().join(name));
        fs::create_dir_all(two.join("etc/deep")).unwrap();
        fs::write(two.join("etc/deep/file"), "").unwrap();
        fs::write(two.join("gone"), "").unwrap();
        fs::create_dir_all(&one).unwrap();
        whiteout(&one.join("gone"));
        std::os::unix::fs::symlink("/etc", one.join("link")).unwrap();
        fs::create_dir_all(upper.join("etc/deep")).unwrap();
        fs::create_dir_all(upper.join("link")).unwrap();
        fs::create_dir_all(upper.join("proc")).unwrap();
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/new"), "").unwrap();
        fs::write(upper.join("gone"), "").unwrap();
        // Below a link of the image: never looked up on the host.
        fs::write(upper.join("link/passwd"), "").unwrap();
        whiteout(&upper.join("etc/deep/file"));
        whiteout(&upper.join("never"));
        let got = changes(&upper, &[&one, &two]);
        let want = [
            ("/etc", CHANGED),
            ("/etc/deep", CHANGED),
            ("/etc/deep/file", DELETED),
            ("/etc/new", ADDED),
            ("/gone", ADDED),
            ("/link", CHANGED),
            ("/link/passwd", ADDED),
        ];
        assert_eq!(got, want.map(|(path, kind)| (path.to_owned(), kind)));
    }
}
