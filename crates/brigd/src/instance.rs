//! One daemon to a pair of roots, and several daemons side by side on different ones.
//!
//! Whatever a daemon creates outside its roots (bridges, the packet filter's table, cgroups)
//! carries the suffix of its [`Instance`], so that two never meet.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use brig_files::Durability;
use rustix::fs::{FlockOperation, flock};

use crate::config::{Config, DEFAULT_DATA_ROOT};

const LOCK_NAME: &str = "brigd.lock";
/// Digits of the suffix: short enough for the 15 bytes of an interface name.
const SUFFIX_LEN: usize = 6;
/// How long a lock may still be held by a daemon that is ending, and how often it is tried again.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// A lock file holds a process id and a newline.
const MAX_LOCK_FILE: u64 = 32;

/// The suffix that tells this daemon's things from those of another on the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance(String);

impl Instance {
    /// The instance of a data root: empty for the default one, else six hexadecimal digits.
    #[must_use]
    pub fn of(data_root: &Path) -> Self {
        if data_root == Path::new(DEFAULT_DATA_ROOT) {
            return Self(String::new());
        }
        use std::os::unix::ffi::OsStrExt as _;
        let hash = brig_pki::hash::sha256(data_root.as_os_str().as_bytes());
        let digits = brig_pki::hash::hex(&hash);
        Self(digits.get(..SUFFIX_LEN).unwrap_or_default().to_owned())
    }

    /// The suffix, empty for the default instance.
    #[must_use]
    pub fn suffix(&self) -> &str {
        &self.0
    }
}

/// The roots can't be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// A directory can't be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A lock or process id file can't be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another daemon has the root.
    #[error("{} is in use by another brigd{}; give this one its own --data-root and --exec-root",
        root.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The root.
        root: PathBuf,
        /// The other's process id, as it wrote it.
        pid: Option<String>,
    },
}

/// The roots while they are ours. Dropping it gives them back and removes the process id file.
#[derive(Debug)]
pub struct Roots {
    _locks: [File; 2],
    pidfile: PathBuf,
    instance: Instance,
}

impl Roots {
    /// Makes both roots if need be, locks them and writes the process id file.
    ///
    /// # Errors
    /// [`InstanceError`].
    pub fn take(config: &Config) -> Result<(Self, Config), InstanceError> {
        let mut config = config.clone();
        // Others may look up their own containers' directories by id, but not list them.
        config.data_root = create(&config.data_root, 0o711)?;
        config.exec_root = create(&config.exec_root, 0o711)?;
        let locks = [lock(&config.data_root)?, lock(&config.exec_root)?];
        if let Some(parent) = config.pidfile.parent() {
            create(parent, 0o755)?;
        }
        write_pid(&config.pidfile)?;
        let instance = Instance::of(&config.data_root);
        Ok((Self { _locks: locks, pidfile: config.pidfile.clone(), instance }, config))
    }

    /// The suffix for names outside the roots.
    #[must_use]
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.pidfile)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.pidfile.display(), "cannot remove the process id file");
        }
    }
}

/// Makes a directory with its parents and answers its path without symbolic links.
fn create(path: &Path, mode: u32) -> Result<PathBuf, InstanceError> {
    let error = |source| InstanceError::Create { path: path.to_owned(), source };
    if !path.is_dir() {
        if let Some(parent) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(error)?;
        }
        match std::fs::DirBuilder::new().mode(mode).create(path) {
            Ok(()) => {
                // The umask of whoever starts us must not decide.
                let exact = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(path, exact).map_err(error)?;
            }
            Err(failed) if failed.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(failed) => return Err(error(failed)),
        }
    }
    path.canonicalize().map_err(error)
}

fn lock(root: &Path) -> Result<File, InstanceError> {
    let path = root.join(LOCK_NAME);
    let error = |source| InstanceError::Write { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(error)?;
    match patiently(&file) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = (&file).take(MAX_LOCK_FILE).read_to_string(&mut text);
            let pid = text.trim();
            let known = read.is_ok() && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
            return Err(InstanceError::InUse {
                root: root.to_owned(),
                pid: known.then(|| pid.to_owned()),
            });
        }
        Err(errno) => return Err(error(errno.into())),
    }
    file.set_len(0).map_err(error)?;
    writeln!(file, "{}", std::process::id()).map_err(error)?;
    Ok(file)
}

/// Takes the lock. A daemon that was killed holds it until the kernel has taken its memory apart:
/// whoever starts the next one at once must not be told that it is still there.
fn patiently(file: &File) -> rustix::io::Result<()> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(LOCK_RETRY);
            }
            outcome => return outcome,
        }
    }
}

fn write_pid(path: &Path) -> Result<(), InstanceError> {
    let error = |source| InstanceError::Write { path: path.to_owned(), source };
    let line = format!("{}\n", std::process::id());
    brig_files::replace(path, line.as_bytes(), 0o644, Durability::Cached).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, name: &str) -> Config {
        let json = serde_json::json!({
            "data-root": dir.join(name).join("data"),
            "exec-root": dir.join(name).join("exec"),
        });
        Config::resolve(serde_json::from_value(json).unwrap()).unwrap()
    }

    #[test]
    fn the_default_instance_has_no_suffix() {
        assert_eq!(Instance::of(Path::new("/var/lib/brig")).suffix(), "");
        let other = Instance::of(Path::new("/var/lib/brig2"));
        assert_eq!(other.suffix().len(), SUFFIX_LEN);
        assert_ne!(other, Instance::of(Path::new("/var/lib/brig3")));
    }

    #[test]
    fn two_daemons_never_share_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "a");
        let (roots, _) = Roots::take(&config).unwrap();
        let pid = std::fs::read_to_string(&config.pidfile).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string());
        let refused = Roots::take(&config).unwrap_err().to_string();
        assert!(refused.contains("is in use by another brigd"), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        let mut sharing_one = self::config(dir.path(), "b");
        sharing_one.exec_root.clone_from(&config.exec_root);
        assert!(matches!(Roots::take(&sharing_one), Err(InstanceError::InUse { .. })));
        drop(roots);
        assert!(!config.pidfile.exists());
        assert!(Roots::take(&config).is_ok());
    }

    #[test]
    fn roots_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let (_roots, config) = Roots::take(&config(dir.path(), "a")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&config.data_root), 0o711);
        assert_eq!(mode(&config.data_root.join(LOCK_NAME)), 0o600);
    }
}
