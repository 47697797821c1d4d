//! Directories: an image's unpacked root, or a project.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};

use super::detect::Reader;
use super::layer::{Collector, LayerInventory};
use super::merge::{merge, nothing};
use super::tar::Kind;
use super::{Options, ScanError};
use crate::package::{ImageFacts, Inventory, Layer};

/// Deepest directory that is entered.
const MAX_DEPTH: usize = 512;

/// Whether a directory has an entry of this name.
pub(super) fn has(dir: &File, name: &str) -> bool {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Opens a regular file of a directory, without following a link as its last part.
pub(super) fn open(dir: impl AsFd, name: &OsStr) -> Result<File, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(dir, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(rustix::io::Errno::INVAL);
    }
    Ok(File::from(file))
}

/// The inventory of a directory.
pub(super) fn read(dir: &File, options: &Options) -> Result<Inventory, ScanError> {
    let layer = read_tree(dir, options)?;
    let facts = Layer { diff_id: nothing(), created_by: None, created: None, size: layer.size };
    let mut inventory = merge(&[(facts, &layer)], ImageFacts::default());
    inventory.layers.clear();
    Ok(inventory)
}

/// What the files of a directory say: an image's root, or one layer's snapshot with the marks of
/// overlayfs (a character device 0/0 removes, `trusted.overlay.opaque` hides).
///
/// # Errors
/// [`ScanError`] when the directory cannot be read or passes a bound.
pub fn read_tree(dir: &File, options: &Options) -> Result<LayerInventory, ScanError> {
    let mut collector = Collector::new(&options.limits).with_lock_files(options.lock_files);
    let device = rustix::fs::fstat(dir).map_err(|errno| ScanError::Read(errno.into()))?.st_dev;
    let root = dir.as_fd().try_clone_to_owned().map_err(ScanError::Read)?;
    let mut walk = Walk { collector: &mut collector, device };
    walk.folder(root, "", 0)?;
    collector.finish(None)
}

struct Walk<'w, 'l> {
    collector: &'w mut Collector<'l>,
    device: u64,
}

impl Walk<'_, '_> {
    fn folder(&mut self, dir: OwnedFd, path: &str, depth: usize) -> Result<(), ScanError> {
        if depth >= MAX_DEPTH {
            self.collector.unread(path, Reader::Program, "it lies too deep");
            return Ok(());
        }
        let mut names = Vec::new();
        let entries = match Dir::read_from(&dir) {
            Ok(entries) => entries,
            Err(error) => {
                self.collector.unread(path, Reader::Program, error.to_string());
                return Ok(());
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().to_bytes().to_vec();
                    if name != b"." && name != b".." {
                        self.collector.count()?;
                        names.push(name);
                    }
                }
                Err(error) => {
                    self.collector.unread(path, Reader::Program, error.to_string());
                    break;
                }
            }
        }
        names.sort_unstable();
        for name in names {
            self.entry(&dir, path, &name, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        parent: &str,
        name: &[u8],
        depth: usize,
    ) -> Result<(), ScanError> {
        let shown = String::from_utf8_lossy(name);
        let path = if parent.is_empty() { shown.into_owned() } else { format!("{parent}/{shown}") };
        let name = OsStr::from_bytes(name);
        let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory {
            self.collector.cover(&path);
        }
        match kind {
            // Other file systems below are not the image's.
            FileType::Directory if stat.st_dev == self.device => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(dir, name, flags, Mode::empty()) {
                    Ok(inner) => {
                        let mut value = [0_u8; 4];
                        if rustix::fs::fgetxattr(&inner, "trusted.overlay.opaque", &mut value)
                            .is_ok_and(|length| length == 1 && value.first() == Some(&b'y'))
                        {
                            self.collector.opaque(&path);
                        }
                        self.folder(inner, &path, depth + 1)?;
                    }
                    Err(error) => {
                        self.collector.unread(&path, Reader::Program, error.to_string());
                    }
                }
            }
            FileType::RegularFile => self.file(dir, name, &path, stat.st_mode)?,
            FileType::Symlink => {
                if let Ok(target) = readlinkat(dir, name, Vec::new()) {
                    self.collector.link(&path, target.to_string_lossy().into_owned());
                }
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                self.collector.whiteout(&path, Kind::Removed);
            }
            _ => {}
        }
        Ok(())
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &str,
        mode: u32,
    ) -> Result<(), ScanError> {
        if !self.collector.wants(path, mode) {
            return Ok(());
        }
        let reader = super::detect::reader(path).unwrap_or(Reader::Program);
        match open(dir, name) {
            Ok(file) => {
                let size = file.metadata().map_err(ScanError::Read)?.len();
                self.collector.plain_file(path, mode, &file, size)
            }
            Err(error) => {
                self.collector.unread(path, reader, error.to_string());
                Ok(())
            }
        }
    }
}
