//! A container's name server: its sockets and what happens on them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Decision, Transport, decide, failure};
use super::forward::{Upstream, ask};
use super::{Directory, SERVER_ADDRESS, Scope};
use crate::netlink::nftables::ResolverPorts;

/// Largest question over UDP.
const MAX_UDP_QUESTION: usize = 4096;
/// Questions of one container that may be on their way outside.
const MAX_IN_FLIGHT: usize = 64;
/// The same for all containers of the node.
const MAX_IN_FLIGHT_TOTAL: usize = 1024;
/// TCP connections of one container.
const MAX_CONNECTIONS: usize = 16;
/// How long a TCP connection may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an error of a socket, so that a lasting one does not use up a core.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Sockets that were opened in a container's namespace.
#[derive(Debug)]
pub(crate) struct ResolverSockets {
    udp: StdUdpSocket,
    tcp: StdTcpListener,
}

impl ResolverSockets {
    /// Opens both sockets on free ports of 127.0.0.11 in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let udp = StdUdpSocket::bind((SERVER_ADDRESS, 0))?;
        let tcp = StdTcpListener::bind((SERVER_ADDRESS, 0))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }

    pub(crate) fn ports(&self) -> io::Result<ResolverPorts> {
        Ok(ResolverPorts { udp: self.udp.local_addr()?.port(), tcp: self.tcp.local_addr()?.port() })
    }
}

/// What the name servers of all containers share.
#[derive(Clone, Debug)]
pub(crate) struct ResolverService {
    pub(crate) directory: Directory,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    in_flight: Arc<Semaphore>,
}

/// What a container may see.
#[derive(Clone, Debug, Default)]
struct View {
    /// Where its names are looked up.
    scope: Scope,
    /// Servers of the outside; none while all its networks are internal.
    upstreams: Vec<Upstream>,
}

/// A running name server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Resolver {
    view: Arc<RwLock<View>>,
    stop: CancellationToken,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Resolver {
    /// Changes what the container may see.
    pub(crate) fn set_view(&self, scope: Scope, upstreams: Vec<Upstream>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = View { scope, upstreams };
    }
}

impl ResolverService {
    pub(crate) fn new(directory: Directory) -> Self {
        Self {
            directory,
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT_TOTAL)),
        }
    }

    /// Serves a container's sockets from now on. Must be called within a tokio runtime.
    pub(crate) fn start(
        &self,
        sockets: ResolverSockets,
        scope: Scope,
        upstreams: Vec<Upstream>,
    ) -> io::Result<Resolver> {
        let udp = UdpSocket::from_std(sockets.udp)?;
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let view = Arc::new(RwLock::new(View { scope, upstreams }));
        let stop = self.shutdown.child_token();
        let worker = Worker {
            service: self.clone(),
            view: Arc::clone(&view),
            stop: stop.clone(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        };
        self.tracker.spawn(worker.clone().serve_udp(Arc::new(udp)));
        self.tracker.spawn(worker.serve_tcp(tcp));
        Ok(Resolver { view, stop })
    }

    /// Ends every name server and waits until their tasks are gone.
    pub(crate) async fn shutdown(&self) {
        self.shutdown.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[derive(Clone)]
struct Worker {
    service: ResolverService,
    view: Arc<RwLock<View>>,
    stop: CancellationToken,
    in_flight: Arc<Semaphore>,
}

/// The right to ask the outside: one of the container's and one of the node's.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Worker {
    fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn permits(&self) -> Option<Permits> {
        let own = Arc::clone(&self.in_flight).try_acquire_owned().ok()?;
        let shared = Arc::clone(&self.service.in_flight).try_acquire_owned().ok()?;
        Some((own, shared))
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.service.tracker.spawn(async move {
            let _ = stop.run_until_cancelled(work).await;
        });
    }

    async fn serve_udp(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; MAX_UDP_QUESTION];
        loop {
            let received = tokio::select! {
                () = self.stop.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            match received {
                Ok((length, peer)) => {
                    if let Some(packet) = buffer.get(..length) {
                        self.on_packet(packet, peer, &socket).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a name server's socket reported an error");
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn on_packet(&self, packet: &[u8], peer: SocketAddr, socket: &Arc<UdpSocket>) {
        let view = self.view();
        match decide(packet, Transport::Udp, &self.service.directory, &view.scope) {
            Decision::Ignore => {}
            Decision::Reply(reply) => send(socket, &reply, peer).await,
            Decision::Forward => match self.permits() {
                None => {
                    if let Some(reply) = failure(packet) {
                        send(socket, &reply, peer).await;
                    }
                }
                Some(permits) => {
                    let (packet, socket) = (packet.to_vec(), Arc::clone(socket));
                    self.spawn(async move {
                        let _permits = permits;
                        let answer = ask(&packet, Transport::Udp, &view.upstreams).await;
                        if let Some(reply) = answer.or_else(|| failure(&packet)) {
                            send(&socket, &reply, peer).await;
                        }
                    });
                }
            },
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // Above the limit the connection is closed at once.
                Ok((stream, _)) => {
                    if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                        let worker = self.clone();
                        self.spawn(async move {
                            let _permit = permit;
                            if let Err(error) = worker.serve_connection(stream).await {
                                tracing::debug!(%error, "a DNS connection ended early");
                            }
                        });
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a name server's listener reported an error");
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    /// Questions one after another, each behind its length (RFC 1035, 4.2.2).
    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let packet = match timeout(IDLE_TIMEOUT, read_framed(&mut stream)).await {
                Ok(Ok(packet)) => packet,
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            let view = self.view();
            let scope = &view.scope;
            let reply = match decide(&packet, Transport::Tcp, &self.service.directory, scope) {
                Decision::Ignore => return Ok(()),
                Decision::Reply(reply) => Some(reply),
                Decision::Forward => match self.permits() {
                    None => failure(&packet),
                    Some(_permits) => ask(&packet, Transport::Tcp, &view.upstreams)
                        .await
                        .or_else(|| failure(&packet)),
                },
            };
            let Some(reply) = reply else { return Ok(()) };
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&reply);
            timeout(IDLE_TIMEOUT, stream.write_all(&framed)).await.map_err(io::Error::other)??;
        }
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

async fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(reply, peer).await {
        tracing::debug!(%error, "an answer to a container could not be sent");
    }
}
