//! The TLS listener: handshakes run beside each other and with a deadline, what comes out of them
//! is served as HTTP/2 whether or not the peer negotiated it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use brig_pki::tls::{self, AcceptError, ServerStream, TlsCredentials};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::authorize::{Membership, identify};
use super::clock;
use super::connections::{ConnectionPeer, Connections, Shown, Ticket};
use super::refusals::Refusals;

/// Longest time a peer may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once.
const MAX_HANDSHAKES: usize = 256;
/// Pause after the system refused a connection, for lack of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection after its handshake.
pub(crate) struct Connection {
    stream: ServerStream<TcpStream>,
    peer: ConnectionPeer,
    /// Done when the connection is cut.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Its place in the list of connections.
    _ticket: Option<Ticket>,
}

/// Who may connect, and where those who do are noted.
#[derive(Clone)]
pub(crate) struct Door {
    /// This manager's certificate and roots.
    pub(crate) credentials: Arc<TlsCredentials>,
    /// The cluster's nodes.
    pub(crate) membership: Arc<dyn Membership>,
    /// The open connections.
    pub(crate) connections: Connections,
    /// Those that were turned away.
    pub(crate) refusals: Arc<Refusals>,
}

/// Accepts connections until `stop`; handshakes are tracked by `tracker`.
pub(crate) fn incoming(
    listener: TcpListener,
    door: Door,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> impl tokio_stream::Stream<Item = Result<Connection, Infallible>> + use<> {
    let (sender, receiver) = mpsc::channel(16);
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let own = tracker.clone();
    tracker.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let (door, sender, stop) = (door.clone(), sender.clone(), stop.clone());
            own.spawn(async move {
                let shake =
                    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, address, &door));
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = shake => done,
                };
                drop(permit);
                match done {
                    Ok(Ok(connection)) => {
                        // The server may have stopped meanwhile.
                        let _ = sender.send(connection).await;
                    }
                    Ok(Err(AcceptError::Refused { subject, refusal })) => {
                        door.refusals.handshake(address, &subject, &refusal);
                    }
                    Ok(Err(error)) => failed(address, &error, &door.refusals),
                    Err(_) => tracing::debug!(peer = %address, "TLS handshake timed out"),
                }
            });
        }
    });
    ReceiverStream::new(receiver).map(Ok)
}

/// Tells of a handshake that the peer ended. That it takes our certificate for one that is not
/// valid now means that a clock may be wrong, here or there.
fn failed(peer: SocketAddr, error: &AcceptError, refusals: &Refusals) {
    if tls::validity_failure(error).is_some() {
        let here = clock::text(std::time::SystemTime::now());
        let reason = format!(
            "it says that this manager's certificate is not valid now, and here it is {here}: one of the clocks is wrong"
        );
        refusals.handshake(peer, "", &reason);
    } else {
        let error = brig_types::error::chain(error);
        tracing::debug!(%peer, error, "TLS handshake failed");
    }
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    door: &Door,
) -> Result<Connection, AcceptError> {
    stream.set_nodelay(true).map_err(AcceptError::Handshake)?;
    let accepted = door.credentials.accept(stream, Arc::clone(&door.membership) as Arc<_>).await?;
    let certificate = accepted.peer.map(|(peer, root)| Arc::new(Shown::new(peer, root)));
    let peer = ConnectionPeer { certificate, address };
    let caller = peer.certificate.as_deref().and_then(|shown| {
        door.membership.seen(&shown.peer);
        identify(shown, door.membership.as_ref(), OffsetDateTime::now_utc()).ok()
    });
    let ticket = door.connections.add(&peer, caller.as_ref());
    let cut = ticket.as_ref().map(|ticket| ticket.cut.clone()).unwrap_or_default();
    let cut = Box::pin(cut.cancelled_owned());
    Ok(Connection { stream: accepted.stream, peer, cut, _ticket: ticket })
}

impl Connected for Connection {
    type ConnectInfo = ConnectionPeer;

    fn connect_info(&self) -> ConnectionPeer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always waits for the next frame, so this is always asked and woken.
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
