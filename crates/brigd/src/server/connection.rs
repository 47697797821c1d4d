//! Our own accept loop over hyper's HTTP/1.1.
//!
//! It is our own because it must know the peer's credentials, bound the number of connections and
//! the time for headers, let clients half-close, and drain.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::listener::Listener;
use super::pace::{Head, Paced};
use super::peer::PeerWatch;
use super::pool::{Limits, Pool, Slot};
use super::service::ApiService;
use crate::access::Principal;

/// Connections of one kind of listener at a time.
pub const MAX_CONNECTIONS: usize = 1024;
/// Those of them that have not shown yet who they are.
pub const MAX_HANDSHAKES: usize = 256;
/// Time for an idle connection to be used again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_HEADERS: usize = 100;
/// Bytes of a request's line and headers.
const MAX_HEAD: usize = 64 << 10;
/// Pause after the kernel refused a connection, as when there are no descriptors left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Places for the connections of one kind of listener. Each kind has its own, so that whoever
/// floods the port takes nothing from whoever is on the host.
#[must_use]
pub fn pool() -> Arc<Pool> {
    Pool::new(Limits { total: MAX_CONNECTIONS, handshakes: MAX_HANDSHAKES })
}

/// Accepts until told to stop. Connections run as tasks of the daemon; when it stops they finish
/// the request they are in.
pub async fn accept(
    listener: Arc<Listener>,
    service: ApiService,
    pool: Arc<Pool>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let Some(slot) = stop.run_until_cancelled(pool.admit()).await else { return };
                let (service, stop) = (service.clone(), stop.clone());
                service.state().tasks.clone().spawn(local(stream, slot, service, stop));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn local(stream: UnixStream, slot: Slot, service: ApiService, stop: CancellationToken) {
    let known = brig_sys::peer::of(&stream)
        .and_then(|cred| Ok((cred, PeerWatch::local(&stream, slot.clone())?)));
    match known {
        Ok((cred, peer)) => {
            slot.established();
            let principal = Principal::Local { uid: cred.uid, gid: cred.gid, pid: cred.pid };
            serve(stream, principal, peer, true, service, stop).await;
        }
        // SECURITY: nobody in particular gets no answer.
        Err(error) => tracing::warn!(%error, "cannot tell who connected"),
    }
}

/// Who comes over a socket that was made for one key of SSH.
#[derive(Clone, Debug)]
pub struct KeyHolder {
    /// The key's holder.
    pub principal: Arc<Principal>,
    /// The login that sshd lets the holder in as.
    pub uid: u32,
    /// Cancelled when the key is taken away.
    pub revoked: CancellationToken,
}

/// Accepts the connections of a key's holder, until told to stop or the key is taken away.
pub async fn accept_key(
    listener: Arc<Listener>,
    holder: KeyHolder,
    service: ApiService,
    pool: Arc<Pool>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = holder.revoked.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let Some(slot) = stop.run_until_cancelled(pool.admit()).await else { return };
                let (service, stop, holder) = (service.clone(), stop.clone(), holder.clone());
                service
                    .state()
                    .tasks
                    .clone()
                    .spawn(key_holder(stream, slot, holder, service, stop));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn key_holder(
    stream: UnixStream,
    slot: Slot,
    holder: KeyHolder,
    service: ApiService,
    stop: CancellationToken,
) {
    let known = brig_sys::peer::of(&stream).and_then(|cred| {
        Ok((cred, PeerWatch::leased(&stream, slot.clone(), holder.revoked.clone())?))
    });
    match known {
        Ok((cred, peer)) if cred.uid == holder.uid || cred.uid == 0 => {
            slot.established();
            let principal = (*holder.principal).clone();
            serve(stream, principal, peer, true, service, stop).await;
        }
        Ok((cred, _)) => tracing::warn!(uid = cred.uid, "another login's socket"),
        // SECURITY: nobody in particular gets no answer.
        Err(error) => tracing::warn!(%error, "cannot tell who connected"),
    }
}

/// Serves the requests of one client.
///
/// With `half_close` the end of the client's data is not the end of its request: it may have
/// closed its sending side only. Over TLS nobody does that before an upgrade, and the end of data
/// is the only sign that a client has gone.
pub(super) async fn serve<IO>(
    io: IO,
    principal: Principal,
    peer: PeerWatch,
    half_close: bool,
    service: ApiService,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let head = Head::default();
    let io = Paced::new(io, head.clone(), peer.slot().clone());
    let (watch, arrived) = (peer.clone(), head.clone());
    let principal = Arc::new(principal);
    let answer = service_fn(move |request| {
        // Now, not when the answer is first worked at: what arrives of the body until then would be
        // taken for the beginning of another head.
        let busy = peer.slot().begin();
        arrived.complete();
        let (service, peer, principal) = (service.clone(), peer.clone(), Arc::clone(&principal));
        async move {
            Ok::<_, std::convert::Infallible>(service.answer(request, principal, peer, busy).await)
        }
    });
    let connection = http1::Builder::new()
        .half_close(half_close)
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(io), answer)
        .with_upgrades();
    tokio::pin!(connection);
    let mut draining = false;
    let ended = async {
        tokio::select! {
            () = watch.gone() => watch.sever_if_unwelcome(),
            () = head.overdue() => tracing::debug!("the head of a request did not arrive in time"),
        }
    };
    tokio::pin!(ended);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended early");
                }
                return watch.linger().await;
            }
            () = ended.as_mut() => return,
            () = watch.slot().cut().cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = stop.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
