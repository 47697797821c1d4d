//! The port: mutual TLS, nobody without a certificate gets as far as HTTP. Newcomers who want one
//! get as far as [`crate::access::enrol::newcomers`], while an administrator allows it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::engine::{Accepted, EngineServer};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connection::{ACCEPT_PAUSE, serve};
use super::listener::ListenError;
use super::peer::PeerWatch;
use super::pool::{Pool, Slot};
use super::service::ApiService;
use crate::access::Principal;

/// Time from the connection to the end of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the files are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// A client that vanished is asked for after this time, and then this often.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);
/// Days before the certificate's end when that is worth a line in the log.
const LADDER: [i64; 3] = [30, 7, 1];
/// First byte of a TLS connection.
const HANDSHAKE_RECORD: u8 = 0x16;
/// What Go's servers answer to plain HTTP, byte by byte: clients look for the text.
const PLAIN_ANSWER: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// How long and how much is still read from such a client, so that the answer reaches it.
const PLAIN_LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 10);

/// A port that is listened on.
#[derive(Debug)]
pub struct TlsListener {
    socket: TcpListener,
    server: Arc<EngineServer>,
}

impl TlsListener {
    /// Listens on `HOST:PORT`.
    ///
    /// # Errors
    /// [`ListenError::Tcp`].
    pub async fn bind(address: &str, server: Arc<EngineServer>) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Tcp { address: address.to_owned(), source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { socket, server })
    }
}

/// Accepts until told to stop, as [`super::connection::accept`].
pub async fn accept(
    listener: Arc<TlsListener>,
    service: ApiService,
    pool: Arc<Pool>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(slot) = stop.run_until_cancelled(pool.admit()).await else { return };
                let server = Arc::clone(&listener.server);
                let (service, stop) = (service.clone(), stop.clone());
                service.state().tasks.clone().spawn(async move {
                    let cut = slot.cut().clone();
                    match remote(stream, from, server, slot, service, stop).await {
                        Ok(()) => {}
                        // A flood must not fill the log.
                        Err(_) if cut.is_cancelled() => {
                            tracing::debug!(%from, "gave its place away")
                        }
                        Err(error) => tracing::info!(%from, %error, "no connection"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn remote(
    stream: TcpStream,
    from: SocketAddr,
    server: Arc<EngineServer>,
    slot: Slot,
    service: ApiService,
    stop: CancellationToken,
) -> io::Result<()> {
    tune(&stream)?;
    let fd = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned()?;
    let handshake = async {
        if is_plain_http(&stream).await? {
            refuse_plain(stream).await;
            return Err(io::Error::other("the client spoke plain HTTP"));
        }
        server.accept(stream, service.state().newcomers.is_open()).await
    };
    let accepted = tokio::select! {
        outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => {
            outcome.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?
        }
        () = slot.cut().cancelled() => {
            return Err(io::Error::other("too many others came while it shook hands"));
        }
        () = stop.cancelled() => return Ok(()),
    };
    let (stream, client) = match accepted {
        Accepted::Client(stream, client) => (stream, client),
        Accepted::Newcomer(stream, server_key) => {
            slot.established();
            let state = service.state();
            return tokio::select! {
                served = state.newcomers.serve(stream, &server_key, from) => served,
                () = slot.cut().cancelled() => Ok(()),
                () = stop.cancelled() => Ok(()),
            };
        }
    };
    let Some(grants) = service.state().authority.admitted(&client) else {
        return Err(io::Error::other("the certificate was taken away"));
    };
    let principal = Principal::Certificate {
        name: client.common_name.clone(),
        fingerprint: client.fingerprint.clone(),
        grants,
    };
    tracing::debug!(%from, %principal, "connected");
    let peer = PeerWatch::remote(&fd, slot.clone(), server, Arc::new(client))?;
    drop(fd);
    slot.established();
    serve(stream, principal, peer, false, service, stop).await;
    Ok(())
}

/// Small messages go out at once; a client whose host vanished is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE.0)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, KEEPALIVE.1)?;
    Ok(rustix::net::sockopt::set_tcp_keepcnt(stream, KEEPALIVE.2)?)
}

async fn is_plain_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let n = stream.peek(&mut first).await?;
    Ok(n == 1 && first != [HANDSHAKE_RECORD] && first.iter().all(u8::is_ascii_uppercase))
}

async fn refuse_plain(mut stream: TcpStream) {
    let answer = async {
        stream.write_all(PLAIN_ANSWER).await?;
        stream.shutdown().await?;
        // Closed with bytes unread, the kernel would throw the answer away.
        tokio::io::copy(&mut (&mut stream).take(PLAIN_LINGER.1), &mut tokio::io::sink()).await
    };
    // Whoever does not want the answer does not get it.
    let _ = tokio::time::timeout(PLAIN_LINGER.0, answer).await;
}

/// Reads the files again. When they are no good, everything stays as it was.
pub fn reload(server: &EngineServer) {
    match server.reload() {
        Ok(true) => tracing::info!(
            not_after = %server.not_after(),
            revoked = server.revoked(),
            "TLS files read again"
        ),
        Ok(false) => {}
        Err(error) => {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "the TLS files are kept as they were");
        }
    }
}

/// Follows the files: what changes is read once it has stayed the same for a moment, because
/// certificate and key are written one after the other. Warns before the certificate's end.
pub async fn follow(server: Arc<EngineServer>, stop: CancellationToken) {
    let mut known = server.stamps();
    let mut changing = None;
    let mut warned = None;
    loop {
        warn_of_expiry(&server, &mut warned);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FILES_INTERVAL) => {}
        }
        let now = server.stamps();
        if now == known {
            changing = None;
        } else if changing.as_ref() == Some(&now) {
            reload(&server);
            known = now;
            changing = None;
        } else {
            changing = Some(now);
        }
    }
}

/// One line for each step of the ladder; another certificate starts it again.
fn warn_of_expiry(server: &EngineServer, warned: &mut Option<(OffsetDateTime, i64)>) {
    let not_after = server.not_after();
    let left = not_after - OffsetDateTime::now_utc();
    let Some(step) = step(left) else { return };
    if *warned == Some((not_after, step)) {
        return;
    }
    *warned = Some((not_after, step));
    if left.is_negative() {
        tracing::error!(%not_after, "the server certificate has expired: clients refuse it");
    } else {
        tracing::warn!(%not_after, days = left.whole_days(), "the server certificate expires soon");
    }
}

/// The smallest step that is left; 0 when it is over.
fn step(left: time::Duration) -> Option<i64> {
    if left.is_negative() {
        return Some(0);
    }
    LADDER.into_iter().filter(|days| left <= time::Duration::days(*days)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_announced_in_steps() {
        let days = time::Duration::days;
        assert_eq!(step(days(31)), None);
        assert_eq!(step(days(30)), Some(30));
        assert_eq!(step(days(8)), Some(30));
        assert_eq!(step(days(7)), Some(7));
        assert_eq!(step(time::Duration::hours(3)), Some(1));
        assert_eq!(step(days(-1)), Some(0));
    }
}
