//! One HTTPS request to an external authority.

use std::sync::Arc;
use std::time::Duration;

use brig_pki::PkiError;
use brig_pki::tls::{ClientStream, Connector, TlsCredentials};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest time that one server gets, from the connection to the end of its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer.
const MAX_ANSWER: usize = 256 << 10;
/// Port of `https://` addresses that name none.
const HTTPS_PORT: u16 = 443;

/// Where an external authority is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    authority: String,
    target: String,
}

/// Why an address is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// Not a URL.
    #[error("it is not a URL")]
    Syntax,
    /// Another scheme: requests would go out in clear.
    #[error("invalid HTTP scheme: it has to begin with https://")]
    Scheme,
    /// User and password: everybody who may see the cluster's settings would see them.
    #[error("it must not hold a user or a password")]
    Credentials,
}

impl Endpoint {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError::Syntax)?;
        if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(UrlError::Scheme);
        }
        let authority = uri.authority().ok_or(UrlError::Syntax)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => HTTPS_PORT,
            Some(port) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
                port.ok_or(UrlError::Syntax)?
            }
            None => return Err(UrlError::Syntax),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(UrlError::Syntax);
        }
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self {
            host: bare.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            // The path of a URL without one is `/`.
            target: format!("{}{query}", uri.path()),
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The handshake failed: another root vouches for the server, or the server does not accept
    /// this node's certificate.
    #[error("no TLS with {address}")]
    Handshake {
        /// With whom.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The roots or the host's name cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[source] PkiError),
    /// The connection broke, or what came is not HTTP.
    #[error("the request was not answered")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Too much came.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// Nothing came.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
}

/// Who asks, and whom it believes.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The node, if it has a certificate yet.
    pub(super) identity: Option<Arc<TlsCredentials>>,
    /// Roots that may vouch for the server, PEM.
    pub(super) trust: Vec<u8>,
}

impl Client {
    /// Connects and shakes hands, nothing more.
    pub(super) async fn dial(&self, to: &Endpoint) -> Result<(), PostError> {
        within(self.connect(to)).await.map(drop)
    }

    /// Posts JSON; answers status and body.
    pub(super) async fn post(
        &self,
        to: &Endpoint,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), PostError> {
        within(async {
            let stream = self.connect(to).await?;
            exchange(stream, to, body).await
        })
        .await
    }

    async fn connect(&self, to: &Endpoint) -> Result<ClientStream<TcpStream>, PostError> {
        let connector = match &self.identity {
            Some(identity) => identity.https_connector(&self.trust, &to.host),
            None => Connector::anonymous_https(&self.trust, &to.host),
        };
        let connector = connector.map_err(PostError::Tls)?;
        let address = || format!("{}:{}", to.host, to.port);
        let stream = TcpStream::connect((to.host.as_str(), to.port))
            .await
            .map_err(|source| PostError::Connect { address: address(), source })?;
        connector
            .connect(stream)
            .await
            .map_err(|source| PostError::Handshake { address: address(), source })
    }
}

async fn exchange(
    stream: ClientStream<TcpStream>,
    to: &Endpoint,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), PostError> {
    let broken = |error: hyper::Error| PostError::Exchange(error.into());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&to.target)
        .header(header::HOST, &to.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("brig/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| PostError::Exchange(error.into()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                PostError::TooLong
            } else {
                PostError::Exchange(error)
            }
        })?;
        Ok((status, body.to_bytes()))
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    tokio::select! {
        answer = &mut answer => answer,
        // Its failure, if it is one, is the request's as well.
        _ = &mut connection => answer.await,
    }
}

async fn within<T>(work: impl Future<Output = Result<T, PostError>>) -> Result<T, PostError> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Err(PostError::Timeout))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_read() {
        let at = |url| Endpoint::parse(url).unwrap();
        let ca = at("https://ca.example:8888/api/v1/cfssl/sign?x=y");
        assert_eq!((ca.host.as_str(), ca.port), ("ca.example", 8888));
        assert_eq!(ca.target, "/api/v1/cfssl/sign?x=y");
        assert_eq!((at("https://ca").port, at("https://ca").target.as_str()), (443, "/"));
        assert_eq!(at("https://ca?x").target, "/?x");
        let six = at("https://[::1]:8443/x");
        assert_eq!(
            (six.host.as_str(), six.port, six.authority.as_str()),
            ("::1", 8443, "[::1]:8443")
        );
        for (url, reason) in [
            ("http://ca/x", UrlError::Scheme),
            ("ca:8888", UrlError::Scheme),
            ("/x", UrlError::Scheme),
            ("", UrlError::Syntax),
            ("https://", UrlError::Syntax),
            ("https://ca:99999/", UrlError::Syntax),
            ("https://ca:x/", UrlError::Syntax),
            ("https://ca:/", UrlError::Syntax),
            ("https://me:secret@ca/", UrlError::Credentials),
        ] {
            assert_eq!(Endpoint::parse(url), Err(reason), "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(url in "(https://)?\\PC{0,40}") {
            if let Ok(endpoint) = Endpoint::parse(&url) {
                prop_assert!(url.to_ascii_lowercase().starts_with("https://"));
                prop_assert!(!endpoint.host.is_empty());
                prop_assert!(endpoint.target.starts_with('/'));
            }
        }
    }
}
