//! Asking the name servers of the outside.
//!
//! A question goes out as it came, EDNS and all, under an id and from a port of its own; only an
//! answer that repeats the question is believed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::{HEADER_LEN, Transport};

/// How long one server may take; docker's value, below the five seconds of the C library.
const SERVER_TIMEOUT: Duration = Duration::from_secs(4);
/// How many servers are asked one after another.
const MAX_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;
const MAX_MESSAGE: usize = 65_535;

const RCODE_SERVER_FAILURE: u8 = 2;
const RCODE_REFUSED: u8 = 5;

/// From where a server is asked.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The host's network.
    Host,
    /// A container's network: a loopback address that the user named means the container's.
    Container(Arc<OwnedFd>),
}

/// A name server of the outside.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    origin: Origin,
}

impl Upstream {
    pub(crate) fn new(ip: IpAddr, origin: Origin) -> Self {
        Self { address: SocketAddr::new(ip, DNS_PORT), origin }
    }

    #[cfg(test)]
    pub(super) const fn at(address: SocketAddr) -> Self {
        Self { address, origin: Origin::Host }
    }
}

/// Asks the servers in turn; `None` when none of them answers.
pub(super) async fn ask(
    query: &[u8],
    transport: Transport,
    servers: &[Upstream],
) -> Option<Vec<u8>> {
    let mut last = None;
    for server in servers.iter().take(MAX_SERVERS) {
        let asked = timeout(SERVER_TIMEOUT, async {
            match transport {
                Transport::Udp => ask_udp(query, server).await,
                Transport::Tcp => ask_tcp(query, server).await,
            }
        });
        match asked.await {
            Ok(Ok(answer)) if server_failed(&answer) => last = Some(answer),
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(server = %server.address, %error, "a name server did not answer");
            }
            Err(_) => tracing::debug!(server = %server.address, "a name server took too long"),
        }
    }
    last
}

async fn ask_udp(query: &[u8], server: &Upstream) -> io::Result<Vec<u8>> {
    let socket = udp_socket(server).await?;
    socket.connect(server.address).await?;
    let (sent, id) = with_random_id(query)?;
    socket.send(&sent).await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length)
            && answers_to(answer, query, id)
        {
            return Ok(with_id_of(query, answer));
        }
    }
}

async fn ask_tcp(query: &[u8], server: &Upstream) -> io::Result<Vec<u8>> {
    let mut stream = tcp_stream(server).await?;
    let (sent, id) = with_random_id(query)?;
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&sent);
    stream.write_all(&framed).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if answers_to(&answer, query, id) {
        Ok(with_id_of(query, &answer))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is for another question"))
    }
}

async fn udp_socket(server: &Upstream) -> io::Result<UdpSocket> {
    let any = match server.address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    match &server.origin {
        Origin::Host => UdpSocket::bind(any).await,
        Origin::Container(ns) => {
            let ns = Arc::clone(ns);
            let socket = in_container(ns, move || {
                let socket = std::net::UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            });
            UdpSocket::from_std(socket.await?)
        }
    }
}

async fn tcp_stream(server: &Upstream) -> io::Result<TcpStream> {
    let address = server.address;
    let new = move || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = match &server.origin {
        Origin::Host => new()?,
        Origin::Container(ns) => in_container(Arc::clone(ns), new).await?,
    };
    socket.connect(address).await
}

async fn in_container<T: Send + 'static>(
    ns: Arc<OwnedFd>,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(move || brig_sys::ns::in_net(ns.as_fd(), open))
        .await
        .map_err(io::Error::other)?
}

fn with_random_id(query: &[u8]) -> io::Result<(Vec<u8>, [u8; 2])> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let mut sent = query.to_vec();
    match sent.get_mut(..2) {
        Some(field) => field.copy_from_slice(&id),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok((sent, id))
}

fn with_id_of(query: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    if let (Some(target), Some(id)) = (answer.get_mut(..2), query.get(..2)) {
        target.copy_from_slice(id);
    }
    answer
}

/// Whether `answer` is a response with this id to the question of `query`.
fn answers_to(answer: &[u8], query: &[u8], id: [u8; 2]) -> bool {
    let response = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    if answer.len() < HEADER_LEN || !answer.starts_with(&id) || !response {
        return false;
    }
    match (question(answer), question(query)) {
        (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
        // A server that cannot read the question may leave it out of its complaint.
        (None, Some(_)) => answer.get(4..6) == Some(&[0, 0]) && response_code(answer) != 0,
        (_, None) => false,
    }
}

/// The bytes of a message's only question: name, type, class.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER_LEN;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => return message.get(HEADER_LEN..at + 4),
            // A question comes first: there is nothing before it that it could point to.
            1..=63 => at += length,
            _ => return None,
        }
    }
}

fn response_code(message: &[u8]) -> u8 {
    message.get(3).map_or(0, |flags| flags & 0x0f)
}

fn server_failed(answer: &[u8]) -> bool {
    matches!(response_code(answer), RCODE_SERVER_FAILURE | RCODE_REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(b"\x07example\x03com\0\0\x01\0\x01");
        bytes
    }

    fn answer_to(query: &[u8], code: u8) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[3] |= code;
        answer
    }

    #[test]
    fn only_the_asked_question_counts() {
        let query = query();
        let id = [0xab, 0xcd];
        assert!(answers_to(&answer_to(&query, 0), &query, id));
        assert!(!answers_to(&answer_to(&query, 0), &query, [0, 0]));
        assert!(!answers_to(&query, &query, id));
        let mut other = answer_to(&query, 0);
        other[14] = b'q';
        assert!(!answers_to(&other, &query, id));
        let mut upper = answer_to(&query, 0);
        upper[13..20].make_ascii_uppercase();
        assert!(answers_to(&upper, &query, id));
        for cut in 0..query.len() {
            let _ = answers_to(&query[..cut], &query, id);
        }
    }

    async fn server(code: u8, wrong_first: bool) -> (SocketAddr, tokio::task::JoinSet<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let mut buffer = [0; 512];
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            if wrong_first {
                let mut forged = answer_to(&buffer[..length], 3);
                forged[0] ^= 1;
                socket.send_to(&forged, peer).await.unwrap();
            }
            socket.send_to(&answer_to(&buffer[..length], code), peer).await.unwrap();
        });
        (address, task)
    }

    #[tokio::test]
    async fn the_next_server_is_asked_when_one_fails() {
        let (first, _first) = server(RCODE_SERVER_FAILURE, false).await;
        let (second, _second) = server(0, true).await;
        let servers = [Upstream::at(first), Upstream::at(second)];
        let answer = ask(&query(), Transport::Udp, &servers).await.unwrap();
        assert_eq!(answer, answer_to(&query(), 0));
    }

    #[tokio::test]
    async fn the_last_failure_is_handed_on() {
        let (refused, _task) = server(RCODE_REFUSED, false).await;
        let answer = ask(&query(), Transport::Udp, &[Upstream::at(refused)]).await.unwrap();
        assert_eq!(response_code(&answer), RCODE_REFUSED);
        assert_eq!(ask(&query(), Transport::Udp, &[]).await, None);
    }
}
