//! The TLS listener: handshakes run beside each other and with a deadline, what comes out of them
//! is served as HTTP/2 whether or not the peer negotiated it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use brig_pki::tls::{self, Peer, ServerStream, TlsCredentials};
use brig_types::id::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::clock;

/// Longest time a peer may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two warnings about certificates outside their validity.
const CLOCK_WARNING_PAUSE: Duration = Duration::from_secs(60);
/// Handshakes under way at once.
const MAX_HANDSHAKES: usize = 256;
/// Pause after the system refused a connection, for lack of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionPeer {
    /// The verified certificate; `None` when the peer showed none.
    pub(crate) certificate: Option<Arc<Peer>>,
    /// Where it comes from.
    pub(crate) address: SocketAddr,
}

/// The open connections of nodes, so that those of a node can be cut.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<BTreeMap<NodeId, CancellationToken>>>);

impl Connections {
    /// Closes every connection that the node has now, whatever runs over it.
    pub(crate) fn cut(&self, node: &NodeId) {
        if let Some(connections) = self.lock().remove(node) {
            connections.cancel();
        }
    }

    fn add(&self, node: &NodeId) -> CancellationToken {
        self.lock().entry(node.clone()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection after its handshake.
pub(crate) struct Connection {
    stream: ServerStream<TcpStream>,
    peer: ConnectionPeer,
    /// Done when the connection is cut.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Accepts connections until `stop`; handshakes are tracked by `tracker`.
pub(crate) fn incoming(
    listener: TcpListener,
    credentials: Arc<TlsCredentials>,
    connections: Connections,
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
            let (credentials, sender, stop) =
                (Arc::clone(&credentials), sender.clone(), stop.clone());
            let connections = connections.clone();
            own.spawn(async move {
                let shake = tokio::time::timeout(
                    HANDSHAKE_TIMEOUT,
                    handshake(stream, address, &credentials, &connections),
                );
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
                    Ok(Err(error)) => refused(address, &error),
                    Err(_) => tracing::debug!(peer = %address, "TLS handshake timed out"),
                }
            });
        }
    });
    ReceiverStream::new(receiver).map(Ok)
}

/// Tells of a handshake that failed. A certificate outside its validity means that a clock may be
/// wrong, here or there; the reason has the times. Whoever can connect can cause such a line, so
/// there is one a minute.
fn refused(peer: SocketAddr, error: &io::Error) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    if tls::validity_failure(error).is_some() {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= CLOCK_WARNING_PAUSE) {
            *last = Some(Instant::now());
            drop(last);
            let here = clock::text(std::time::SystemTime::now());
            tracing::warn!(peer = %peer, here, error = %error, "a node was not let in: its certificate has ended, or one of the two clocks is wrong");
            return;
        }
    }
    tracing::debug!(peer = %peer, error = %error, "TLS handshake failed");
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    credentials: &TlsCredentials,
    connections: &Connections,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = credentials.accept(stream).await?;
    let certificate = tls::peer(&stream).map_err(io::Error::other)?.map(Arc::new);
    let cut = match &certificate {
        Some(peer) => connections.add(&peer.identity.node),
        None => CancellationToken::new(),
    };
    let cut = Box::pin(cut.cancelled_owned());
    Ok(Connection { stream, peer: ConnectionPeer { certificate, address }, cut })
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
