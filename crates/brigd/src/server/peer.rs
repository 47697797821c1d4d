//! The other end of a connection: is it still there, is it still welcome?

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use brig_pki::engine::{ClientCertificate, EngineServer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio_util::sync::CancellationToken;

use super::open::Standing;
use super::pool::Slot;

/// How often a request under way looks whether its client still exists.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a client elsewhere gets to read what was sent to it.
const SETTLE: Duration = Duration::from_millis(20);
/// How often it is looked whether a client here has read what was sent to it, and for how long.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(1);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(1);

/// How long a client that is still sending may take to read its answer.
const LINGER: Duration = Duration::from_millis(500);
/// How often it is looked whether it has hung up meanwhile.
const LINGER_INTERVAL: Duration = Duration::from_millis(10);

/// Watches a connection's client.
///
/// A client may close only its sending side and still want the answer, so the end of its data
/// tells nothing; the kernel's hang-up flag does.
#[derive(Clone, Debug)]
pub struct PeerWatch {
    fd: Arc<OwnedFd>,
    slot: Slot,
    certificate: Option<Certificate>,
    /// Cancelled when the container ends that the connection's socket was lent to, or the key is
    /// taken away that it was made for.
    lease: Option<CancellationToken>,
    /// Set when a request was answered whose body was not read to its end.
    unread: Arc<AtomicBool>,
    /// Kept, not read: while anybody watches the client, its request is under way.
    _standing: Option<Arc<Standing>>,
}

#[derive(Clone, Debug)]
struct Certificate {
    server: Arc<EngineServer>,
    client: Arc<ClientCertificate>,
}

impl PeerWatch {
    /// Watches a local client.
    pub(super) fn local(socket: impl AsFd, slot: Slot) -> std::io::Result<Self> {
        let fd = Arc::new(socket.as_fd().try_clone_to_owned()?);
        let unread = Arc::default();
        Ok(Self { fd, slot, certificate: None, lease: None, unread, _standing: None })
    }

    /// Watches a client that came by a socket which is good for a while: as long as the container
    /// lives that it was lent to, or as long as the key of SSH counts that it was made for.
    pub(super) fn leased(
        socket: impl AsFd,
        slot: Slot,
        lease: CancellationToken,
    ) -> std::io::Result<Self> {
        Ok(Self { lease: Some(lease), ..Self::local(socket, slot)? })
    }

    /// The same client, during one request.
    pub(super) fn during(&self, standing: Arc<Standing>) -> Self {
        Self { _standing: Some(standing), ..self.clone() }
    }

    /// Watches a client that showed a certificate.
    pub(super) fn remote(
        socket: impl AsFd,
        slot: Slot,
        server: Arc<EngineServer>,
        client: Arc<ClientCertificate>,
    ) -> std::io::Result<Self> {
        let certificate = Some(Certificate { server, client });
        Ok(Self { certificate, ..Self::local(socket, slot)? })
    }

    /// The connection's place.
    pub(super) const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Returns once the client is gone, or not welcome any more.
    pub async fn gone(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if self.hung_up() || !self.is_welcome() {
                return;
            }
        }
    }

    fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(&*self.fd, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut fds, Some(&now)), Ok(0) | Err(rustix::io::Errno::INTR))
    }

    /// Where it is noted that a body was not read to its end.
    pub(super) fn unread(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unread)
    }

    /// Keeps the socket open after its last answer while the client may still be sending: a write
    /// that fails would keep it from reading why its request was refused.
    pub(super) async fn linger(&self) {
        if !self.unread.load(Ordering::Relaxed) {
            return;
        }
        let hung_up = async {
            while !self.hung_up() {
                tokio::time::sleep(LINGER_INTERVAL).await;
            }
        };
        // Whoever has not read its answer by now will not.
        let _ = tokio::time::timeout(LINGER, hung_up).await;
    }

    /// Returns once the client has read everything that was sent to it. How far a client has read
    /// is known of one on this machine only; of others it is taken for granted after a moment.
    pub(super) async fn caught_up(&self) {
        if self.lease.is_some() || self.certificate.is_some() {
            return tokio::time::sleep(SETTLE).await;
        }
        let all_read = async {
            while brig_sys::peer::unread(&*self.fd).is_ok_and(|left| left > 0) {
                tokio::time::sleep(CATCH_UP_INTERVAL).await;
            }
        };
        // A client that reads nothing may have its output as well.
        let _ = tokio::time::timeout(CATCH_UP_LIMIT, all_read).await;
    }

    /// Returns once the client's certificate has expired, was revoked or lost its authority, or
    /// the container has ended that it came from, or its key was taken away.
    pub async fn unwelcome(&self) {
        if let Some(lease) = &self.lease {
            return lease.cancelled().await;
        }
        if self.certificate.is_none() {
            return std::future::pending().await;
        }
        while self.is_welcome() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn is_welcome(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| !lease.is_cancelled())
            && self
                .certificate
                .as_ref()
                .is_none_or(|known| known.server.still_trusts(&known.client))
    }

    /// Closes the socket for everybody who still holds it.
    pub(super) fn sever(&self) {
        // Fails only when the client has done so already.
        let _ = rustix::net::shutdown(&*self.fd, rustix::net::Shutdown::Both);
    }

    /// Closes the socket if the certificate does not count any more.
    pub(super) fn sever_if_unwelcome(&self) {
        if !self.is_welcome() {
            if let Some(Certificate { client, .. }) = &self.certificate {
                tracing::warn!(
                    common_name = ?client.common_name,
                    fingerprint = client.fingerprint,
                    "connection cut: the client's certificate does not count any more"
                );
            }
            self.sever();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::super::pool::a_place;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_here_has_caught_up_when_it_has_read_everything() {
        use tokio::io::AsyncReadExt as _;
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let watch = PeerWatch::local(&ours, a_place()).unwrap();
        watch.caught_up().await;
        ours.write_all(b"head").await.unwrap();
        let waited = tokio::time::timeout(CATCH_UP_LIMIT / 20, watch.caught_up()).await;
        assert!(waited.is_err(), "nothing was read yet");
        theirs.read_exact(&mut [0; 4]).await.unwrap();
        let start = tokio::time::Instant::now();
        watch.caught_up().await;
        assert!(start.elapsed() < CATCH_UP_LIMIT, "it was not noticed");
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_may_still_be_sending_is_waited_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let watch = PeerWatch::local(&ours, a_place()).unwrap();
        let start = tokio::time::Instant::now();
        watch.linger().await;
        assert!(start.elapsed() < LINGER, "everything was read");
        watch.unread().store(true, Ordering::Relaxed);
        watch.linger().await;
        assert!(start.elapsed() >= LINGER, "it is still there");
        drop(theirs);
        let start = tokio::time::Instant::now();
        watch.linger().await;
        assert!(start.elapsed() < LINGER, "it has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_close_is_no_hang_up() {
        let slot = a_place();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let watch = PeerWatch::local(&ours, slot).unwrap();
        theirs.shutdown().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(10), watch.gone()).await;
        assert!(waited.is_err());
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(10), watch.gone()).await.unwrap();
    }
}
