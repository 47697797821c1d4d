//! Secrets and configs as files in a container's memory.
//!
//! SECURITY: the content is written into a memory file system that is mounted nowhere (no swap,
//! read-only once filled), which is then moved into the container's mount namespace between its
//! creation and its start. It is never on disk, in the host's mount table, in a record or in an
//! argument; until it is attached it dies with this process, afterwards with the container.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use brig_sys::mount::DetachedTmpfs;
use brig_sys::ns::{self, NsKind};
use brig_types::secret::SecretBytes;

use crate::error::EngineError;

/// Where secrets with a relative target are.
pub const SECRETS_DIR: &str = "/run/secrets";
/// Most files of one container.
pub const MAX_FILES: usize = 4096;

/// What file systems of secrets are mounted from.
pub(crate) const SECRETS_SOURCE: &str = "brig-secrets";
const CONFIGS_SOURCE: &str = "brig-configs";
const PAGE: u64 = 4096;
/// Where files are placed from: /dev is a memory file system of every container's own.
const STAGE_PREFIX: &str = "/dev/.brig-";

/// A file that exists in a container's memory only.
#[derive(Clone, Debug)]
pub struct SecretFile {
    /// Its name in the default directory, or an absolute path.
    pub target: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Content; wiped when dropped.
    pub data: SecretBytes,
}

/// Files with their places, ready to be attached.
#[derive(Debug)]
struct Placed {
    path: PathBuf,
    file: SecretFile,
}

/// Whether something lies deeper in the directory of secrets, which then cannot be one read-only
/// mount: every file is bound by itself instead.
fn is_nested(mut paths: impl Iterator<Item = PathBuf>) -> bool {
    let dir = Path::new(SECRETS_DIR);
    paths.any(|path| path.starts_with(dir) && path.parent() != Some(dir))
}

fn place(files: Vec<SecretFile>, base: &Path) -> Result<Vec<Placed>, EngineError> {
    if files.len() > MAX_FILES {
        return Err(EngineError::Invalid("too many secrets or configs".to_owned()));
    }
    let mut taken = BTreeSet::new();
    files
        .into_iter()
        .map(|file| {
            let invalid = || {
                EngineError::Invalid(format!(
                    "invalid target for a secret or config: {:?}",
                    file.target.chars().take(200).collect::<String>()
                ))
            };
            let path = base.join(&file.target);
            let plain = path
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            let named = !file.target.is_empty() && !file.target.ends_with('/');
            if !plain || !named || file.target.contains('\0') || !taken.insert(path.clone()) {
                return Err(invalid());
            }
            Ok(Placed { path, file })
        })
        .collect()
}

/// Makes the places inside a root file system that will be read-only; they cannot be made later.
/// Blocking.
pub(crate) fn prepare_read_only_root(
    rootfs: &OwnedFd,
    secrets: &[SecretFile],
    configs: &[SecretFile],
) -> Result<(), EngineError> {
    let failed = |source| EngineError::system("make room for secrets", source);
    let nested = is_nested(secrets.iter().map(|file| Path::new(SECRETS_DIR).join(&file.target)));
    let targets = secrets
        .iter()
        .map(|file| Path::new(SECRETS_DIR).join(&file.target))
        .chain(configs.iter().map(|file| Path::new("/").join(&file.target)));
    for target in targets {
        let parent = target.parent().unwrap_or(Path::new("/"));
        let dir = brig_sys::openat::create_dir_all_in_root(rootfs, parent, (0, 0), 0o755)
            .map_err(failed)?;
        if parent == Path::new(SECRETS_DIR) && !nested {
            continue;
        }
        let name = target.file_name().unwrap_or_default();
        let flags =
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::WRONLY;
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        // SECURITY: only made, never opened: what an image has there may be a pipe, which keeps
        // whoever opens it waiting, a device or a link.
        match brig_sys::openat::open_beneath(&dir, Path::new(name), flags, mode) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Attaches secrets and configs to the created, not yet started container of process `pid`.
/// The content is wiped when this returns. Blocking.
pub(crate) fn attach(
    pid: i32,
    secrets: Vec<SecretFile>,
    configs: Vec<SecretFile>,
) -> Result<(), EngineError> {
    if secrets.is_empty() && configs.is_empty() {
        return Ok(());
    }
    let secrets = place(secrets, Path::new(SECRETS_DIR))?;
    let configs = place(configs, Path::new("/"))?;
    let failed = |source| EngineError::system("give the container its secrets", source);
    let mount_ns = ns::open(pid, NsKind::Mnt).map_err(failed)?;
    let dir = Path::new(SECRETS_DIR);
    let nested = is_nested(secrets.iter().map(|placed| placed.path.clone()));
    let (in_dir, elsewhere): (Vec<Placed>, Vec<Placed>) =
        secrets.into_iter().partition(|placed| !nested && placed.path.parent() == Some(dir));
    if !in_dir.is_empty() {
        let names = in_dir.iter().map(|placed| {
            placed.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        });
        let tmpfs = filled(SECRETS_SOURCE, names, &in_dir).map_err(failed)?;
        tmpfs.attach_in(mount_ns.as_fd(), dir).map_err(failed)?;
    }
    scatter(SECRETS_SOURCE, &mount_ns, elsewhere).map_err(failed)?;
    scatter(CONFIGS_SOURCE, &mount_ns, configs).map_err(failed)
}

fn filled(
    source: &str,
    names: impl Iterator<Item = String>,
    files: &[Placed],
) -> io::Result<DetachedTmpfs> {
    let pages = |placed: &Placed| (placed.file.data.len() as u64).div_ceil(PAGE);
    let size: u64 = files.iter().map(pages).sum::<u64>().max(1) * PAGE;
    let inodes = files.len() as u64 + 1;
    let tmpfs = DetachedTmpfs::new(source, size, inodes)?;
    for (name, placed) in names.zip(files) {
        let file = &placed.file;
        tmpfs.add_file(&name, file.data.expose_secret(), file.uid, file.gid, file.mode & 0o7777)?;
    }
    tmpfs.seal_read_only()?;
    Ok(tmpfs)
}

/// Attaches a memory file system at a passing place and binds its files to where they belong.
fn scatter(source: &str, mount_ns: &OwnedFd, files: Vec<Placed>) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = (0..files.len()).map(|index| index.to_string()).collect();
    let tmpfs = filled(source, names.iter().cloned(), &files)?;
    let stage = format!("{STAGE_PREFIX}{}", brig_types::id::random_swarm_id());
    let stage = PathBuf::from(stage);
    let pairs: Vec<(String, PathBuf)> =
        names.into_iter().zip(files.iter().map(|placed| placed.path.clone())).collect();
    drop(files);
    let attached = tmpfs.attach_files_in(mount_ns.as_fd(), &stage, &pairs);
    let cleared = ns::in_mount(mount_ns.as_fd(), || {
        // The binds keep the files; the passing place need not be seen.
        match brig_sys::mount::unmount(&stage, true) {
            Err(error) if attached.is_ok() => return Err(error),
            _ => {}
        }
        match std::fs::remove_dir(&stage) {
            Err(error) if attached.is_ok() => Err(error),
            _ => Ok(()),
        }
    });
    attached.and(cleared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(target: &str, data: &[u8]) -> SecretFile {
        SecretFile {
            target: target.to_owned(),
            uid: 1000,
            gid: 1001,
            mode: 0o440,
            data: SecretBytes::new(data.to_vec()),
        }
    }

    #[test]
    fn places() {
        let placed =
            place(vec![file("a", b""), file("/etc/b", b"")], Path::new(SECRETS_DIR)).unwrap();
        assert_eq!(placed[0].path, Path::new("/run/secrets/a"));
        assert_eq!(placed[1].path, Path::new("/etc/b"));
        for bad in ["", "/", "../a", "a/", "/etc/../b", "a\0"] {
            assert!(place(vec![file(bad, b"")], Path::new(SECRETS_DIR)).is_err(), "{bad:?}");
        }
        assert!(
            place(vec![file("a", b""), file("/run/secrets/a", b"")], Path::new(SECRETS_DIR))
                .is_err()
        );
    }

    #[test]
    fn what_an_image_has_in_the_way_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let pipe = dir.path().join("etc/pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("etc/link")).unwrap();
        let root = brig_sys::openat::open_dir(dir.path()).unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let files = [file("/etc/pipe", b""), file("/etc/link", b""), file("new", b"")];
            done.send(prepare_read_only_root(&root, &[], &files)).unwrap();
        });
        ended.recv_timeout(std::time::Duration::from_secs(5)).unwrap().unwrap();
        assert!(dir.path().join("new").is_file());
    }

    #[test]
    fn debug_shows_no_content() {
        assert!(!format!("{:?}", file("a", b"hunter2")).contains("hunter2"));
    }
}
