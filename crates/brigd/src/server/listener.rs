//! Sockets to listen on: our own, with the right owner from the first moment, or systemd's.

use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Groups that get the socket when none is configured, the first that exists.
const DEFAULT_GROUPS: [&str; 2] = ["docker", "brig"];
const GROUP_FILE: &str = "/etc/group";
/// Largest group file that is read.
const MAX_GROUP_FILE: u64 = 4 << 20;

/// A socket that accepts connections. Dropping it removes the file of a socket of our own.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    own: Option<OwnFile>,
}

#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    inode: (u64, u64),
}

/// A socket that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The group doesn't exist.
    #[error("there is no group {0:?} to give the socket to")]
    NoSuchGroup(String),
    /// The list of groups can't be read.
    #[error("cannot read the groups of this host")]
    Groups(#[source] io::Error),
    /// Somebody answers there already.
    #[error("{} is in use by another daemon", .0.display())]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("cannot listen on {}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A port can't be had.
    #[error("cannot listen on tcp://{address}")]
    Tcp {
        /// Host and port.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `fd://` without systemd.
    #[error(
        "-H fd:// needs a socket from systemd, and none was handed over; \
         start the daemon through its socket unit or listen on unix://"
    )]
    NothingHandedOver,
    /// A handed over descriptor can't be used.
    #[error("the socket handed over by systemd cannot be used")]
    HandedOver(#[source] io::Error),
}

impl Listener {
    /// Listens on a path, replacing a socket that nobody answers on any more.
    ///
    /// The socket is made in a directory that only we can enter, given its owner and mode, and
    /// then moved to its place: nobody can connect in between.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        let gid = socket_group(group)?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket(path.to_owned()));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(ListenError::InUse(path.to_owned()));
            }
            _ => {}
        }
        Self::bind_as(path, gid)
            .map_err(|source| ListenError::Bind { path: path.to_owned(), source })
    }

    fn bind_as(path: &Path, gid: Option<u32>) -> io::Result<Self> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        let private = parent.join(format!(".listen-{}", std::process::id()));
        match std::fs::remove_dir_all(&private) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(&private)?;
        let made = Self::bind_in(&private, path, gid);
        let removed = std::fs::remove_dir_all(&private);
        let listener = made?;
        removed?;
        Ok(listener)
    }

    fn bind_in(private: &Path, path: &Path, gid: Option<u32>) -> io::Result<Self> {
        let temporary = private.join("s");
        let socket = UnixListener::bind(&temporary)?;
        chown(&temporary, None, gid)?;
        let mode = if gid.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))?;
        let made = std::fs::symlink_metadata(&temporary)?;
        std::fs::rename(&temporary, path)?;
        let own = OwnFile { path: path.to_owned(), inode: (made.dev(), made.ino()) };
        Ok(Self { socket, own: Some(own) })
    }

    /// Listens on a path for one user of this host.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind_for(path: &Path, uid: u32) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { path: path.to_owned(), source };
        let bind = || -> io::Result<Self> {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = Self::bind_as(path, None)?;
            // Nobody but root could open it until here.
            chown(path, Some(uid), None)?;
            Ok(listener)
        };
        bind().map_err(failed)
    }

    /// Takes a socket from systemd.
    ///
    /// # Errors
    /// [`ListenError::HandedOver`].
    pub fn from_systemd(socket: std::os::unix::net::UnixListener) -> Result<Self, ListenError> {
        let adopt = || {
            // conmon and the containers' processes must not inherit it.
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
            socket.set_nonblocking(true)?;
            UnixListener::from_std(socket)
        };
        Ok(Self { socket: adopt().map_err(ListenError::HandedOver)?, own: None })
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        // Another daemon may have put its own there by now.
        let ours = std::fs::symlink_metadata(&own.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == own.inode);
        if ours && let Err(error) = std::fs::remove_file(&own.path) {
            tracing::debug!(%error, path = %own.path.display(), "cannot remove the socket");
        }
    }
}

/// The group of the socket: the configured one, which must exist, or the first default one.
fn socket_group(configured: Option<&str>) -> Result<Option<u32>, ListenError> {
    let groups = read_groups().map_err(ListenError::Groups)?;
    match configured {
        Some(name) => match name.parse().ok().or_else(|| find_group(&groups, name)) {
            Some(0) => Ok(None),
            Some(gid) => Ok(Some(gid)),
            None => Err(ListenError::NoSuchGroup(name.to_owned())),
        },
        None => Ok(DEFAULT_GROUPS.iter().find_map(|name| find_group(&groups, name))),
    }
}

fn read_groups() -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    match std::fs::File::open(GROUP_FILE) {
        Ok(file) => {
            file.take(MAX_GROUP_FILE).read_to_string(&mut text)?;
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text),
        Err(error) => Err(error),
    }
}

/// Finds a group in the text of group(5).
fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let text = "root:x:0:\ndocker:x:998:ann,bob\nbroken\nbrig:x:none:\n";
        assert_eq!(find_group(text, "docker"), Some(998));
        assert_eq!(find_group(text, "brig"), None);
        assert_eq!(find_group(text, "dock"), None);
    }

    #[tokio::test]
    async fn the_socket_is_private_and_replaced_only_when_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/b.sock");
        let listener = Listener::bind(&path, Some("0")).unwrap();
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Listener::bind(&path, Some("0")), Err(ListenError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
        // What a killed daemon leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&path, Some("12345")).unwrap();
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, 12345));
        assert_eq!(std::fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
        drop(listener);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(Listener::bind(&path, Some("0")), Err(ListenError::NotASocket(_))));
        assert!(matches!(
            Listener::bind(&path, Some("no-such-group")),
            Err(ListenError::NoSuchGroup(_))
        ));
    }
}
