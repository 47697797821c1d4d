//! What a container changed, as a layer's archive: overlayfs' marks become OCI whiteouts.
//!
//! SECURITY: the container may be running and may change its tree meanwhile. Every name is opened
//! relative to its directory's handle and never through a symbolic link, so that nothing outside
//! of the tree gets into the archive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};

use crate::limits::{MAX_DEPTH, MAX_PATH, MAX_XATTR};

const OPAQUE: &str = "trusted.overlay.opaque";
/// Longest list of a file's attribute names.
const MAX_NAMES: usize = 64 << 10;

/// Writes the tree of a writable layer as an archive. Blocks. The same tree gives the same bytes.
///
/// `placeholders` are paths without leading slash: empty files and folders there are only what the
/// runtime mounts something on, and are left out.
///
/// # Errors
/// The writer's, and those of reading the tree.
pub fn write_changes(upper: &Path, placeholders: &[String], writer: impl Write) -> io::Result<()> {
    let root =
        fs::open(upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut walk = Walk { tar: tar::Builder::new(writer), links: HashMap::new(), placeholders };
    walk.tree(root)?;
    walk.tar.into_inner()?.flush()
}

struct Walk<'a, W: Write> {
    tar: tar::Builder<W>,
    /// Files with several names: where the first one is.
    links: HashMap<(u64, u64), Vec<u8>>,
    placeholders: &'a [String],
}

/// A directory on the way down.
struct Level {
    dir: OwnedFd,
    /// What of it is still to come.
    names: std::vec::IntoIter<Vec<u8>>,
    /// Length of its path.
    length: usize,
}

impl<W: Write> Walk<'_, W> {
    /// Walks without recursion: how deep a tree is is the container's choice.
    fn tree(&mut self, root: OwnedFd) -> io::Result<()> {
        let mut path = Vec::new();
        let mut levels = vec![Level { names: names(&root)?.into_iter(), dir: root, length: 0 }];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.length);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if path.len() > MAX_PATH {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
            let below = match self.entry(&level.dir, &name, &path) {
                // Removed while we were looking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                other => other?,
            };
            let Some(dir) = below else { continue };
            if levels.len() > MAX_DEPTH {
                let begin = String::from_utf8_lossy(path.get(..64).unwrap_or(&path)).into_owned();
                return Err(io::Error::other(format!(
                    "{begin:?}… lies too deep: below more than {MAX_DEPTH} directories"
                )));
            }
            levels.push(Level { names: names(&dir)?.into_iter(), dir, length: path.len() });
        }
        Ok(())
    }

    /// Writes what is there; a directory is answered, to be walked next.
    fn entry(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let below = open(dir.as_fd(), name, OFlags::DIRECTORY)?;
                if self.is_placeholder(path) && names(&below)?.is_empty() {
                    return Ok(None);
                }
                self.attributes(below.as_fd())?;
                let mut header = header(&fs::fstat(&below)?, tar::EntryType::Directory);
                self.append(&mut header, path, io::empty())?;
                if is_opaque(below.as_fd()) {
                    let mark = [path, b"/.wh..wh..opq"].concat();
                    self.append(&mut whiteout(&stat), &mark, io::empty())?;
                }
                return Ok(Some(below));
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let (parent, _) = split(path);
                let mark = [parent, b".wh.", name].concat();
                self.append(&mut whiteout(&stat), &mark, io::empty())?;
            }
            FileType::RegularFile => self.file(dir, name, path)?,
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new())?;
                let mut header = header(&stat, tar::EntryType::Symlink);
                self.tar.append_link(&mut header, path_of(path), path_of(target.to_bytes()))?;
            }
            FileType::CharacterDevice => self.device(&stat, tar::EntryType::Char, path)?,
            FileType::BlockDevice => self.device(&stat, tar::EntryType::Block, path)?,
            FileType::Fifo => {
                self.append(&mut header(&stat, tar::EntryType::Fifo), path, io::empty())?;
            }
            // Sockets mean nothing without their process.
            _ => {}
        }
        Ok(None)
    }

    fn file(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        let file = File::from(open(dir.as_fd(), name, OFlags::NONBLOCK)?);
        // What was opened counts, not what was there before.
        let stat = fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 && self.is_placeholder(path) {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            match self.links.entry((stat.st_dev, stat.st_ino)) {
                Entry::Occupied(first) => {
                    let mut header = header(&stat, tar::EntryType::Link);
                    let target = first.get().clone();
                    return self.tar.append_link(&mut header, path_of(path), path_of(&target));
                }
                Entry::Vacant(slot) => {
                    slot.insert(path.to_vec());
                }
            }
        }
        self.attributes(file.as_fd())?;
        let mut header = header(&stat, tar::EntryType::Regular);
        header.set_size(size);
        // A file that shrinks meanwhile is filled up: its length is said already.
        self.append(&mut header, path, file.chain(io::repeat(0)).take(size))
    }

    fn device(&mut self, stat: &Stat, kind: tar::EntryType, path: &[u8]) -> io::Result<()> {
        let mut header = header(stat, kind);
        header.set_device_major(fs::major(stat.st_rdev))?;
        header.set_device_minor(fs::minor(stat.st_rdev))?;
        self.append(&mut header, path, io::empty())
    }

    /// File capabilities and the user's own attributes, in a header before the file's.
    fn attributes(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut names = vec![0; MAX_NAMES];
        let Ok(length) = fs::flistxattr(file, &mut names[..]) else { return Ok(()) };
        names.truncate(length);
        let mut records = Vec::new();
        for name in names.split(|&b| b == 0) {
            if name != b"security.capability" && !name.starts_with(b"user.") {
                continue;
            }
            let Ok(text) = std::str::from_utf8(name) else { continue };
            let mut value = vec![0; MAX_XATTR];
            if let Ok(length) = fs::fgetxattr(file, name, &mut value[..]) {
                value.truncate(length);
                records.push((format!("SCHILY.xattr.{text}"), value));
            }
        }
        records.sort();
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(records)
    }

    fn append(&mut self, header: &mut tar::Header, path: &[u8], data: impl Read) -> io::Result<()> {
        self.tar.append_data(header, path_of(path), data)
    }

    fn is_placeholder(&self, path: &[u8]) -> bool {
        self.placeholders.iter().any(|known| known.as_bytes() == path)
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// The directory with its slash, and the name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1))
}

fn open(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(fs::openat2(
        dir,
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )?)
}

/// What is in a directory, in order.
fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0; 2];
    fs::fgetxattr(dir, OPAQUE, &mut value[..]).is_ok_and(|length| value.get(..length) == Some(b"y"))
}

fn header(stat: &Stat, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

fn whiteout(stat: &Stat) -> tar::Header {
    let mut header = header(stat, tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use std::fs as disk;
    use std::os::unix::fs::symlink;

    use super::*;

    fn entries(bytes: &[u8]) -> Vec<(String, tar::EntryType)> {
        let mut archive = tar::Archive::new(bytes);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().entry_type())
            })
            .collect()
    }

    #[test]
    fn a_tree_may_be_deep_but_not_without_end() {
        let write = |depth: usize| {
            let dir = tempfile::tempdir().unwrap();
            disk::create_dir_all(dir.path().join("d/".repeat(depth))).unwrap();
            let path = dir.path().to_owned();
            // Less than what a thread has, so that depth must not cost any.
            let small = std::thread::Builder::new().stack_size(256 << 10);
            let walk = move || write_changes(&path, &[], Vec::new());
            small.spawn(walk).unwrap().join().unwrap()
        };
        write(MAX_DEPTH).unwrap();
        let error = write(MAX_DEPTH + 1).unwrap_err().to_string();
        assert!(error.ends_with("lies too deep: below more than 512 directories"), "{error}");
    }

    #[test]
    fn overlay_marks_become_whiteouts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        disk::create_dir_all(root.join("d/empty")).unwrap();
        disk::create_dir_all(root.join("proc")).unwrap();
        disk::create_dir_all(root.join("etc")).unwrap();
        disk::write(root.join("etc/hosts"), "").unwrap();
        disk::write(root.join("etc/hostname"), "mine").unwrap();
        disk::write(root.join("d/file"), "content").unwrap();
        disk::hard_link(root.join("d/file"), root.join("d/other")).unwrap();
        symlink("/etc/shadow", root.join("d/way")).unwrap();
        let long = format!("d/{}", "n".repeat(200));
        disk::write(root.join(&long), "long").unwrap();
        let handle = File::open(root).unwrap();
        let null = Mode::empty();
        fs::mknodat(&handle, "gone", FileType::CharacterDevice, null, 0).unwrap();
        fs::mknodat(&handle, "d/gone", FileType::CharacterDevice, null, 0).unwrap();
        fs::mknodat(&handle, "d/pipe", FileType::Fifo, null, 0).unwrap();
        let flags = fs::XattrFlags::empty();
        fs::setxattr(root.join("d"), OPAQUE, b"y", flags).unwrap();
        fs::setxattr(root.join("d"), "trusted.overlay.origin", b"x", flags).unwrap();
        fs::setxattr(root.join("d/file"), "user.note", b"kept", flags).unwrap();
        let placeholders: Vec<String> =
            ["proc", "etc/hosts", "etc/hostname"].map(str::to_owned).to_vec();
        let mut bytes = Vec::new();
        write_changes(root, &placeholders, &mut bytes).unwrap();
        let mut again = Vec::new();
        write_changes(root, &placeholders, &mut again).unwrap();
        assert_eq!(bytes, again);
        let found = entries(&bytes);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "d",
                "d/.wh..wh..opq",
                "d/empty",
                "d/file",
                "d/.wh.gone",
                &long,
                "d/other",
                "d/pipe",
                "d/way",
                "etc",
                "etc/hostname",
                ".wh.gone",
            ]
        );
        let kind = |name: &str| found.iter().find(|(known, _)| known == name).unwrap().1;
        assert_eq!(kind("d/other"), tar::EntryType::Link);
        assert_eq!(kind("d/way"), tar::EntryType::Symlink);
        assert!(bytes.windows(22).any(|w| w == b"SCHILY.xattr.user.note"));
        assert!(!bytes.windows(15).any(|w| w == b"trusted.overlay"));
    }
}
