//! The engine's own places on the host, and mounts that would show them to a container.
//!
//! Whoever sees the engine's socket has all rights on the host, also through a read-only mount; and
//! whoever sees its roots sees other containers' files and the cluster's state. A mount of one of
//! those is refused, for everybody, unless the configuration allows it. A mount of something that
//! merely contains them, as monitoring agents have it of `/`, is made, and they are masked in it.
//!
//! What counts is what a path leads to, not how it is written: links are followed, and a directory
//! that is mounted at a second place is the same directory.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::volumes::MountOptions;

/// Where docker's clients look for an engine; all the same path on most hosts.
const USUAL: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

/// What is guarded.
#[derive(Debug)]
pub(crate) struct Guard {
    sockets: Vec<PathBuf>,
    data_root: PathBuf,
    exec_root: PathBuf,
    allowed: bool,
}

/// How a mount is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// With what is mounted below the source.
    pub(crate) recursive: bool,
    /// What is mounted in the container comes about on the host as well.
    pub(crate) shared: bool,
}

impl Reach {
    /// A volume's.
    pub(crate) const PLAIN: Self = Self { recursive: true, shared: false };
}

/// A source that may be mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fine {
    /// Without links.
    pub(crate) source: PathBuf,
    /// What in it must be masked, relative to it.
    pub(crate) masked: Vec<PathBuf>,
}

type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn mount_of(path: &Path) -> Option<u64> {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).ok()?;
    Some(found.stx_mnt_id)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The path without links; what doesn't exist yet is kept as it is written.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut known = path;
    loop {
        match (known.canonicalize(), known.parent(), known.file_name()) {
            (Ok(mut found), _, _) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            (Err(error), Some(parent), Some(name)) if is_missing(&error) => {
                missing.push(name);
                known = parent;
            }
            (Err(error), _, _) => return Err(error),
        }
    }
}

impl Guard {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        Self {
            sockets: config.sockets.clone(),
            data_root: config.data_root.clone(),
            exec_root: config.exec_root.clone(),
            allowed: config.socket_mounts_allowed,
        }
    }

    /// Guards nothing.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        let nowhere = PathBuf::from("/nonexistent");
        let (data_root, exec_root) = (nowhere.clone(), nowhere);
        Self { sockets: Vec::new(), data_root, exec_root, allowed: false }
    }

    /// Whether a source may be mounted. Blocking.
    ///
    /// # Errors
    /// [`EngineError::Forbidden`], which names the way out.
    pub(crate) fn check(&self, source: &Path, reach: Reach) -> Result<Fine, EngineError> {
        let resolved = resolve(source)
            .map_err(|error| EngineError::disk("look at the mount's source", source, error))?;
        let fine = |masked| Ok(Fine { source: resolved.clone(), masked });
        if self.allowed {
            return fine(Vec::new());
        }
        let named = source.display();
        if USUAL.iter().any(|usual| Path::new(usual) == source) && !resolved.exists() {
            return Err(refused(format!(
                "{named} does not exist: this engine does not listen there"
            )));
        }
        let own = identity(&resolved);
        let is = |path: &Path| path == resolved || (own.is_some() && identity(path) == own);
        let sockets: Vec<PathBuf> = self
            .sockets
            .iter()
            .map(|path| resolve(path).unwrap_or_else(|_| path.clone()))
            .collect();
        if sockets.iter().any(|socket| is(socket)) {
            return Err(refused(format!("{named} is the engine's own socket")));
        }
        let mut parents = sockets.iter().filter_map(|socket| socket.parent());
        if parents.any(|parent| parent != Path::new("/") && is(parent)) {
            return Err(refused(format!("{named} is the directory of the engine's own socket")));
        }
        if self.is_content_of_a_volume(&resolved) {
            return fine(Vec::new());
        }
        let roots = [&self.data_root, &self.exec_root];
        for root in roots {
            let root_id = identity(root);
            let inside = resolved.ancestors().any(|above| {
                above == root.as_path() || (root_id.is_some() && identity(above) == root_id)
            });
            if inside {
                return Err(refused(format!("{named} holds the engine's own state")));
            }
        }
        let guarded = sockets.iter().chain(roots);
        let mut masked: Vec<PathBuf> = Vec::new();
        for path in guarded.filter(|path| path.exists()) {
            let above = path.ancestors().skip(1).find(|above| is(above));
            let Some(inner) = above.and_then(|above| path.strip_prefix(above).ok()) else {
                continue;
            };
            if reach.recursive || mount_of(path) == mount_of(&resolved) {
                masked.push(inner.to_owned());
            }
        }
        if reach.shared && !masked.is_empty() {
            // The mask would be mounted over the host's own.
            return Err(refused(format!(
                "{named} contains the engine's own socket or state, which cannot be masked in a \
                 mount with shared propagation"
            )));
        }
        let all = masked.clone();
        masked.retain(|one| !all.iter().any(|other| one != other && one.starts_with(other)));
        masked.dedup();
        fine(masked)
    }

    /// As [`Guard::check_volume`], for as long as it may take: a file server that does not answer
    /// holds up whoever looks at what it has. `None` when it took longer.
    pub(crate) fn check_volume_in_time(
        self: &Arc<Self>,
        options: &BTreeMap<String, String>,
        inner: &str,
        patience: Duration,
    ) -> Option<Result<Vec<PathBuf>, EngineError>> {
        if options.is_empty() || self.allowed {
            return Some(Ok(Vec::new()));
        }
        let (guard, options, inner) = (Arc::clone(self), options.clone(), inner.to_owned());
        let (sender, receiver) = sync_channel(1);
        let look = move || {
            // Nobody may wait any more.
            let _ = sender.send(guard.check_volume(&options, &inner));
        };
        match std::thread::Builder::new().name("volume-look".to_owned()).spawn(look) {
            Ok(_) => receiver.recv_timeout(patience).ok(),
            Err(source) => Some(Err(EngineError::system("look at a volume's device", source))),
        }
    }

    /// Checks what a volume's options mount; `inner` is the part of it that is wanted. Blocking.
    ///
    /// # Errors
    /// As [`Guard::check`].
    pub(crate) fn check_volume(
        &self,
        options: &BTreeMap<String, String>,
        inner: &str,
    ) -> Result<Vec<PathBuf>, EngineError> {
        let Ok(Some(options)) = MountOptions::parse(options) else { return Ok(Vec::new()) };
        if let Some(device) = options.bound() {
            let part = device.join(inner);
            // Nothing joined would leave a slash at the end.
            let source = if inner.is_empty() { device } else { &part };
            return Ok(self.check(source, Reach::PLAIN)?.masked);
        }
        for layer in options.layers() {
            if !self.check(Path::new(layer), Reach::PLAIN)?.masked.is_empty() {
                return Err(refused(format!("{layer} contains the engine's own state")));
            }
        }
        Ok(Vec::new())
    }

    /// Volumes are there to be mounted, by whatever path.
    fn is_content_of_a_volume(&self, path: &Path) -> bool {
        let inner = path.strip_prefix(self.data_root.join("volumes"));
        inner.is_ok_and(|inner| {
            inner.components().nth(1).is_some_and(|part| part.as_os_str() == "_data")
        })
    }
}

fn refused(what: String) -> EngineError {
    EngineError::Forbidden(format!(
        "{what}, and mounting it would give the container all rights on this host; lend the \
         container a socket with a role instead (brig run --engine-access ROLE, or the label {}=ROLE), \
         or allow such mounts with \"engine-socket-mounts\": \"allow\" in brigd.json",
        brig_api::engine_access::LABEL
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Host {
        _socket: UnixListener,
        dir: tempfile::TempDir,
        guard: Guard,
    }

    fn host() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for name in ["own", "data/volumes/v/_data/x", "data/swarm", "exec/lent", "srv"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        let socket = top.join("own/brig.sock");
        let guard = Guard {
            sockets: vec![socket.clone()],
            data_root: top.join("data"),
            exec_root: top.join("exec"),
            allowed: false,
        };
        Host { _socket: UnixListener::bind(socket).unwrap(), dir, guard }
    }

    fn says(host: &Host, path: &str) -> String {
        match host.guard.check(&host.dir.path().join(path), Reach::PLAIN) {
            Ok(fine) => format!("{:?}", fine.masked),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_engines_own_is_refused_however_it_is_written() {
        let host = host();
        let top = host.dir.path();
        symlink(top.join("own"), top.join("srv/dir")).unwrap();
        symlink("../own/brig.sock", top.join("srv/socket")).unwrap();
        fs::hard_link(top.join("own/brig.sock"), top.join("srv/hard")).unwrap();
        symlink(top.join("data"), top.join("srv/data")).unwrap();
        for path in [
            "own/brig.sock",
            "own",
            "own/../own/./brig.sock",
            "srv/dir",
            "srv/dir/brig.sock",
            "srv/socket",
            "srv/hard",
            "data",
            "data/swarm",
            "data/not/yet",
            "data/volumes",
            "data/volumes/v",
            "srv/data/swarm",
            "exec",
            "exec/lent",
        ] {
            let text = says(&host, path);
            assert!(text.contains("--engine-access"), "{path}: {text}");
        }
        for path in ["srv", "srv/new", "data/volumes/v/_data", "data/volumes/v/_data/x"] {
            assert_eq!(says(&host, path), "[]", "{path}");
        }
        let allowed = Guard { allowed: true, ..host.guard };
        assert!(allowed.check(&top.join("own/brig.sock"), Reach::PLAIN).is_ok());
    }

    #[test]
    fn what_contains_it_is_masked() {
        let host = host();
        let fine = host.guard.check(host.dir.path(), Reach::PLAIN).unwrap();
        assert_eq!(fine.masked, ["own/brig.sock", "data", "exec"].map(PathBuf::from));
        let root = host.guard.check(Path::new("/"), Reach::PLAIN).unwrap();
        assert_eq!(root.masked.len(), 3);
        let shared = Reach { recursive: true, shared: true };
        let error = host.guard.check(host.dir.path(), shared).unwrap_err();
        assert!(error.to_string().contains("shared propagation"), "{error}");
        // A link below what is mounted leads nowhere that was not judged.
        let plain = Reach { recursive: false, shared: false };
        assert_eq!(host.guard.check(host.dir.path(), plain).unwrap().masked.len(), 3);
        assert!(host.guard.check(Path::new("/proc"), plain).unwrap().masked.is_empty());
    }

    #[test]
    fn volumes_are_seen_through() {
        let host = host();
        let top = host.dir.path().display().to_string();
        let volume = |kind: &str, device: String, o: String| {
            let options = [("type", kind.to_owned()), ("device", device), ("o", o)];
            let options = options.map(|(key, value)| (key.to_owned(), value)).into();
            host.guard.check_volume(&options, "").map_err(|error| error.to_string())
        };
        let bind = |device: String| volume("none", device, "bind".to_owned());
        assert!(bind(format!("{top}/own")).unwrap_err().contains("--engine-access"));
        assert!(bind(format!("{top}/own/brig.sock")).is_err());
        assert_eq!(bind(top.clone()).unwrap().len(), 3);
        assert!(bind(format!("{top}/srv")).unwrap().is_empty());
        assert!(volume("tmpfs", "tmpfs".into(), "size=1m".into()).unwrap().is_empty());
        let layers = format!("lowerdir={top}/srv:{top}/data");
        assert!(volume("overlay", "overlay".into(), layers).is_err());
        assert!(volume("overlay", "overlay".into(), format!("lowerdir={top}")).is_err());
        let fine = format!("lowerdir={top}/srv,upperdir={top}/srv/u");
        assert!(volume("overlay", "overlay".into(), fine).unwrap().is_empty());
    }
}
