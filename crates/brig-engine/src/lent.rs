//! Sockets of the engine that containers were lent.
//!
//! Each run of such a container has a listening socket of its own, in a directory that only root
//! can enter, bound into the container by the runtime. Who serves it is the daemon's business: it
//! gets every socket as a [`LentSocket`].
//!
//! A socket's file belongs to the socket that was bound to it and to no later one, so a new daemon
//! could not listen on what a running container has mounted. Therefore the container's conmon
//! keeps the socket open, and the next daemon takes it back from there: clients that connect in
//! between wait, and nothing in the container changes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_api::engine_access::EngineAccess;
use brig_types::id::ContainerId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::disk;

/// The socket's file in its directory.
const SOCKET: &str = "engine.sock";
/// The directory of a container's socket is for root alone: on the host nobody else comes by.
const DIR_MODE: u32 = 0o700;
/// Whoever sees the socket inside the container may connect to it.
const SOCKET_MODE: u32 = 0o666;

/// A socket to serve.
#[derive(Debug)]
pub struct LentSocket {
    /// Whose it is.
    pub container: ContainerId,
    /// In which role, and on what.
    pub access: EngineAccess,
    /// Where to accept; does not block.
    pub listener: UnixListener,
    /// Cancelled when the container's run has ended: nothing that came by it counts any more.
    pub ended: CancellationToken,
}

/// The sockets of the runs that there are.
#[derive(Debug)]
pub(crate) struct Lender {
    root: PathBuf,
    open: Mutex<BTreeMap<ContainerId, CancellationToken>>,
    sender: mpsc::UnboundedSender<LentSocket>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<LentSocket>>>,
}

impl Lender {
    pub(crate) fn new(exec_root: &Path) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            root: exec_root.join("lent"),
            open: Mutex::default(),
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    /// All sockets from now on; once.
    pub(crate) fn take(&self) -> Option<mpsc::UnboundedReceiver<LentSocket>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<ContainerId, CancellationToken>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dir(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Where a container's socket is on the host.
    pub(crate) fn socket(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).join(SOCKET)
    }

    /// Makes a socket for a run, and gives what its conmon shall keep.
    pub(crate) fn lend(&self, id: &ContainerId, access: &EngineAccess) -> io::Result<Arc<OwnedFd>> {
        self.end(id)?;
        let dir = self.dir(id);
        disk::create_dir(&self.root, DIR_MODE)?;
        disk::create_dir(&dir, DIR_MODE)?;
        // The paths of sockets are short; that of the directory need not be.
        let handle = brig_sys::openat::open_dir(&dir)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        let listener = UnixListener::bind(short.join(SOCKET))?;
        std::fs::set_permissions(self.socket(id), std::fs::Permissions::from_mode(SOCKET_MODE))?;
        let keep = Arc::new(OwnedFd::from(listener.try_clone()?));
        self.hand_out(id, access, listener)?;
        Ok(keep)
    }

    /// Goes on with the socket of a container that an earlier daemon started.
    pub(crate) fn adopt(
        &self,
        id: &ContainerId,
        access: &EngineAccess,
        kept: OwnedFd,
    ) -> io::Result<()> {
        if !rustix::net::sockopt::socket_acceptconn(&kept)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no listening socket"));
        }
        self.hand_out(id, access, UnixListener::from(kept))
    }

    fn hand_out(
        &self,
        id: &ContainerId,
        access: &EngineAccess,
        listener: UnixListener,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let ended = CancellationToken::new();
        if let Some(before) = self.open().insert(id.clone(), ended.clone()) {
            before.cancel();
        }
        let (container, access) = (id.clone(), access.clone());
        // Fails only when nobody serves sockets, which is as good as nobody accepting.
        let _ = self.sender.send(LentSocket { container, access, listener, ended });
        Ok(())
    }

    /// The run has ended: nobody listens any more, and the file is gone.
    pub(crate) fn end(&self, id: &ContainerId) -> io::Result<()> {
        if let Some(ended) = self.open().remove(id) {
            ended.cancel();
        }
        match std::fs::remove_dir_all(self.dir(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what belongs to no container.
    pub(crate) fn clear(&self, known: impl Fn(&ContainerId) -> bool) {
        let Ok(items) = std::fs::read_dir(&self.root) else { return };
        for item in items.flatten() {
            let name = item.file_name().to_string_lossy().into_owned();
            let Ok(id) = ContainerId::parse(&name) else { continue };
            if !known(&id)
                && let Err(error) = self.end(&id)
            {
                tracing::warn!(container = %id, %error, "a socket of no container stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_lives_as_long_as_its_run() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than the path of a socket may be.
        let root = dir.path().join("x".repeat(120));
        std::fs::create_dir(&root).unwrap();
        let lender = Lender::new(&root);
        let mut sockets = lender.take().unwrap();
        assert!(lender.take().is_none());
        let id = ContainerId::generate();
        let access = EngineAccess::parse("viewer").unwrap();
        let keep = lender.lend(&id, &access).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&lender.socket(&id)), mode(&lender.dir(&id))), (0o666, 0o700));
        let first = sockets.try_recv().unwrap();
        assert_eq!((&first.container, &first.access), (&id, &access));
        // The daemon goes, conmon keeps it, the next daemon takes it over.
        drop((first, sockets));
        let next = Lender::new(&root);
        let mut sockets = next.take().unwrap();
        next.adopt(&id, &access, keep.try_clone().unwrap()).unwrap();
        let second = sockets.try_recv().unwrap();
        let handle = brig_sys::openat::open_dir(&next.dir(&id)).unwrap();
        let path = format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd());
        let _client = UnixStream::connect(path).unwrap();
        second.listener.accept().unwrap();
        next.end(&id).unwrap();
        assert!(second.ended.is_cancelled() && !next.dir(&id).exists());
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(next.adopt(&id, &access, pipe).is_err());
    }
}
