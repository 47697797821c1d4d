//! The way to a server: straight, or by a proxy that the environment names (`HTTPS_PROXY`,
//! `ALL_PROXY`, `NO_PROXY`), as pulls from registries go.

use std::io;
use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Largest answer of a proxy, in bytes.
const MAX_ANSWER: usize = 8 << 10;
/// Where a proxy listens that names no port.
const PROXY_PORT: u16 = 80;

/// Connects to the host of an address, which has no brackets here.
pub(super) async fn connect(uri: &Uri, host: &str, port: u16) -> io::Result<TcpStream> {
    let proxy = if is_this_machine(host) { None } else { Matcher::from_env().intercept(uri) };
    let Some(proxy) = proxy else { return TcpStream::connect((host, port)).await };
    let address = proxy.uri();
    let bad = |what: &str| io::Error::other(format!("the proxy {address} {what}"));
    if address.scheme_str() != Some("http") {
        return Err(bad("is not http://"));
    }
    let name = address.host().ok_or_else(|| bad("names no host"))?.trim_matches(['[', ']']);
    let place = (name, address.port_u16().unwrap_or(PROXY_PORT));
    let mut stream = TcpStream::connect(place)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("the proxy {address}: {error}")))?;
    let wanted =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    tunnel(&mut stream, &wanted, proxy.basic_auth().map(http::HeaderValue::as_bytes))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("the proxy {address}: {error}")))?;
    Ok(stream)
}

/// The machine's own servers are never behind a proxy.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Asks a proxy to connect the stream with a server.
async fn tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    wanted: &str,
    authorization: Option<&[u8]>,
) -> io::Result<()> {
    let mut request = format!("CONNECT {wanted} HTTP/1.1\r\nHost: {wanted}\r\n").into_bytes();
    if let Some(value) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await?;
    stream.flush().await?;
    // Byte by byte: what comes behind the head is the server's.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_ANSWER {
            return Err(io::Error::other("its answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    match (words.next(), words.next()) {
        (Some("HTTP/1.0" | "HTTP/1.1"), Some("200")) => Ok(()),
        _ => Err(io::Error::other(format!("it answers {line:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answer: &str) -> (io::Result<()>, String) {
        let (mut near, mut far) = tokio::io::duplex(MAX_ANSWER * 2);
        far.write_all(answer.as_bytes()).await.unwrap();
        let result = tunnel(&mut near, "feeds.example:443", Some(b"Basic eA==")).await;
        drop(near);
        let mut request = String::new();
        far.read_to_string(&mut request).await.unwrap();
        (result, request)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_server() {
        let (result, request) =
            asked("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        result.unwrap();
        assert_eq!(
            request,
            "CONNECT feeds.example:443 HTTP/1.1\r\nHost: feeds.example:443\r\nProxy-Authorization: Basic eA==\r\n\r\n"
        );
        let refused = asked("HTTP/1.1 407 Who are you\r\n\r\n").await.0.unwrap_err().to_string();
        assert!(refused.contains("407 Who are you"), "{refused}");
        assert!(asked(&"x".repeat(MAX_ANSWER + 1)).await.0.is_err());
    }

    #[test]
    fn what_is_here_is_asked_straight() {
        for host in ["localhost", "127.0.0.1", "::1", "LOCALHOST"] {
            assert!(is_this_machine(host), "{host}");
        }
        assert!(!is_this_machine("localhost.example"));
    }
}
