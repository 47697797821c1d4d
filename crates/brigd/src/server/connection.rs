//! Our own accept loop over hyper's HTTP/1.1.
//!
//! It is our own because it must know the peer's credentials, bound the number of connections and
//! the time for headers, let clients half-close, and drain.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::listener::Listener;
use super::service::ApiService;
use crate::access::Principal;

/// Connections at a time over all listeners; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 1024;
/// Time for a request's headers to arrive, and for an idle connection to be used again.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_HEADERS: usize = 100;
/// Bytes of a request's line and headers.
const MAX_HEAD: usize = 64 << 10;
/// How often a request under way looks whether its client still exists.
const HANG_UP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after the kernel refused a connection, as when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Watches whether the client closed its socket altogether.
///
/// A client may close only its sending side and still want the answer, so the end of its data
/// tells nothing; the kernel's hang-up flag does.
#[derive(Clone, Debug)]
pub struct PeerWatch(Arc<OwnedFd>);

impl PeerWatch {
    pub(super) fn new(stream: &UnixStream) -> std::io::Result<Self> {
        Ok(Self(Arc::new(stream.as_fd().try_clone_to_owned()?)))
    }

    /// Returns once the client is gone.
    pub async fn gone(&self) {
        loop {
            tokio::time::sleep(HANG_UP_INTERVAL).await;
            let mut fds = [PollFd::new(&*self.0, PollFlags::empty())];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, Some(&now)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// Accepts until told to stop. Connections run as tasks of the daemon; when it stops they finish
/// the request they are in.
pub async fn accept(
    listener: Arc<Listener>,
    service: ApiService,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
) {
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => return,
            slot = Arc::clone(&slots).acquire_owned() => match slot {
                Ok(slot) => slot,
                Err(_) => return,
            },
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let (service, stop) = (service.clone(), stop.clone());
                service.state().tasks.clone().spawn(async move {
                    serve(stream, service, stop).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, service: ApiService, stop: CancellationToken) {
    let (principal, peer) = match identify(&stream) {
        Ok(known) => known,
        Err(error) => {
            // SECURITY: nobody in particular gets no answer.
            tracing::warn!(%error, "cannot tell who connected");
            return;
        }
    };
    let watch = peer.clone();
    let principal = Arc::new(principal);
    let answer = service_fn(move |request| {
        let (service, peer) = (service.clone(), peer.clone());
        let principal = Arc::clone(&principal);
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, principal, peer).await) }
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    tokio::pin!(connection);
    let mut draining = false;
    let gone = watch.gone();
    tokio::pin!(gone);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended early");
                }
                return;
            }
            () = gone.as_mut() => return,
            () = stop.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn identify(stream: &UnixStream) -> std::io::Result<(Principal, PeerWatch)> {
    let cred = brig_sys::peer::of(stream)?;
    let principal = Principal::Local { uid: cred.uid, gid: cred.gid, pid: cred.pid };
    Ok((principal, PeerWatch::new(stream)?))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_close_is_no_hang_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let watch = PeerWatch::new(&ours).unwrap();
        theirs.shutdown().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(10), watch.gone()).await;
        assert!(waited.is_err());
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(10), watch.gone()).await.unwrap();
    }
}
