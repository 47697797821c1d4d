//! One connection that is kept for the next request: TLS, or plain where that was asked for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brig_pki::web::WebConnector;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::RemoteError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the end of its answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(120);
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// Where a trust server is: `https://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    host: String,
    port: u16,
    /// As the user wrote it: host, and port if it was given.
    authority: String,
    /// Without a slash at its end.
    path: String,
}

impl ServerAddress {
    /// Reads a URL; anything but `https` is refused, names and passwords in it too.
    ///
    /// # Errors
    /// [`RemoteError::Address`].
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        Self::parse_uri(text).map(|(address, _)| address)
    }

    /// As [`ServerAddress::parse`], with the query.
    pub(crate) fn parse_uri(text: &str) -> Result<(Self, String), RemoteError> {
        Self::of(text, "https", HTTPS_PORT)
    }

    /// Reads an `http` URL, for a server on this machine or one that the user listed.
    pub(crate) fn parse_plain(text: &str) -> Result<Self, RemoteError> {
        Self::of(text, "http", HTTP_PORT).map(|(address, _)| address)
    }

    fn of(text: &str, scheme: &str, port: u16) -> Result<(Self, String), RemoteError> {
        let invalid = || RemoteError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let authority = uri.authority().ok_or_else(invalid)?;
        if uri.scheme_str() != Some(scheme) || authority.as_str().contains('@') {
            return Err(invalid());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid());
        }
        let address = Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            authority: authority.as_str().to_owned(),
            path: uri.path().trim_end_matches('/').to_owned(),
        };
        Ok((address, uri.query().unwrap_or_default().to_owned()))
    }

    /// The host, without port and brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host and port as they were written.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path that everything is below; empty if there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// What a connection goes over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A server, and a connection to it if one is open.
#[derive(Debug)]
pub(crate) struct Connection {
    address: ServerAddress,
    /// `None`: plain HTTP.
    tls: Option<WebConnector>,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
    /// What drives connections; ends with this.
    drivers: Mutex<JoinSet<()>>,
}

impl Connection {
    pub(crate) fn new(address: ServerAddress, tls: WebConnector) -> Self {
        Self { address, tls: Some(tls), idle: Mutex::default(), drivers: Mutex::default() }
    }

    /// Without TLS.
    pub(crate) fn plain(address: ServerAddress) -> Self {
        Self { address, tls: None, idle: Mutex::default(), drivers: Mutex::default() }
    }

    pub(crate) const fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Sends a request and reads its answer, of at most `limit` bytes.
    pub(crate) async fn exchange(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, RemoteError> {
        let name = request.uri().path().to_owned();
        let exchange = async {
            let (parts, body) = request.into_parts();
            let build = || {
                let mut request = Request::new(Full::new(body.clone()));
                *request.method_mut() = parts.method.clone();
                *request.uri_mut() = parts.uri.clone();
                *request.headers_mut() = parts.headers.clone();
                if let Ok(host) = HeaderValue::try_from(self.address.authority.as_str()) {
                    request.headers_mut().insert(HOST, host);
                }
                request
            };
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut kept = match kept {
                Some(mut sender) => sender.ready().await.ok().map(|()| sender),
                None => None,
            };
            let mut response = match &mut kept {
                Some(sender) => sender.try_send_request(build()).await.map_err(|e| {
                    // Not sent at all: the server closed the connection meanwhile.
                    (e.message().is_some(), self.broken(e.into_error()))
                }),
                None => Err((true, RemoteError::Answer("connection"))),
            };
            if let Err((true, _)) = response {
                let mut sender = self.open().await?;
                response = sender.send_request(build()).await.map_err(|e| (false, self.broken(e)));
                kept = Some(sender);
            }
            let response = response.map_err(|(_, error)| error)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limit).collect().await.map_err(|error| match error
                .downcast::<hyper::Error>(
            ) {
                Ok(error) => self.broken(*error),
                Err(_) => RemoteError::TooLarge { name: name.clone(), limit },
            })?;
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = kept;
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes().to_vec(),
            })
        };
        timeout(EXCHANGE_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(self.failed("get an answer from")(timed_out())))
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, RemoteError> {
        let target = (self.address.host.as_str(), self.address.port);
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(target))
            .await
            .unwrap_or_else(|_| Err(timed_out()))
            .map_err(self.failed("connect to"))?;
        stream.set_nodelay(true).map_err(self.failed("connect to"))?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => {
                let stream = timeout(TLS_TIMEOUT, tls.connect(&self.address.host, stream))
                    .await
                    .unwrap_or_else(|_| Err(timed_out()))
                    .map_err(self.failed("establish TLS with"))?;
                Box::new(stream)
            }
            None => Box::new(stream),
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(e))?;
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            // What breaks a connection is told to whoever waits for an answer on it.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(std::io::Error) -> RemoteError + use<> {
        let host = self.address.authority.clone();
        move |source| RemoteError::Connect { what, host, source }
    }

    fn broken(&self, source: hyper::Error) -> RemoteError {
        RemoteError::Http { host: self.address.authority.clone(), source }
    }
}

fn timed_out() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let plain = ServerAddress::parse("https://trust.example").unwrap();
        assert_eq!((plain.host(), plain.port, plain.path()), ("trust.example", 443, ""));
        let full = ServerAddress::parse("https://[::1]:4443/a/b/").unwrap();
        assert_eq!((full.host(), full.port, full.path()), ("::1", 4443, "/a/b"));
        assert_eq!(full.authority(), "[::1]:4443");
        for bad in [
            "",
            "trust.example",
            "http://trust.example",
            "https://",
            "https://u:p@h",
            "ftp://h",
            "https:///x",
        ] {
            let text = ServerAddress::parse(bad).unwrap_err().to_string();
            assert_eq!(text, format!("valid https URL required for trust server, got {bad}"));
        }
    }
}
