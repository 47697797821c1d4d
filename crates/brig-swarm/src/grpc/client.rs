//! Connections to managers.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use brig_pki::identity::CertInfo;
use brig_pki::tls::{self, Connector, TlsCredentials, Validity};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// TLS name of a manager.
pub(crate) const MANAGER_NAME: &str = "swarm-manager";
/// TLS name of a manager that issues certificates.
pub(crate) const CA_NAME: &str = "swarm-ca";
/// How brig's nodes introduce themselves.
pub(crate) const OWN_AGENT: &str = "brig/";
/// Longest time until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the manager at `host:port`, with the node's certificate; the other side has to
/// prove to be `name`. Answers as well what the connection broke with, once it does.
///
/// With TLS 1.3 a client has finished its handshake before the server looks at its certificate:
/// a refusal is an alert on a connection that stands, and the layers above only say that it ended.
pub(crate) async fn connect(
    address: &str,
    credentials: Arc<TlsCredentials>,
    name: &'static str,
) -> Result<(Channel, Broken), Error> {
    let broken = Broken::default();
    let note = broken.clone();
    let channel = dial(address, broken.clone(), move |stream| {
        let (credentials, note) = (Arc::clone(&credentials), note.clone());
        async move {
            let shaken = credentials.connect(name, stream).await;
            shaken.inspect_err(|error| note.set(error))
        }
    })
    .await?;
    Ok((channel, broken))
}

/// What a connection broke with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broken(Arc<OnceLock<Failure>>);

#[derive(Debug)]
struct Failure {
    text: String,
    validity: Option<Validity>,
}

impl Broken {
    /// The TLS library's text; `None` while the connection stands, or after it was closed in peace.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.0.get().map(|failure| failure.text.as_str())
    }

    /// Whose certificate is not valid now, if that is why.
    pub(crate) fn validity(&self) -> Option<Validity> {
        self.0.get().and_then(|failure| failure.validity)
    }

    fn set(&self, error: &io::Error) {
        self.0.get_or_init(|| Failure {
            text: error.to_string(),
            validity: tls::validity_failure(error),
        });
    }
}

/// A connection that remembers what it broke with.
struct Noted<S> {
    stream: S,
    broken: Broken,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.broken.set(error);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
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

/// Connects to the manager at `host:port` without a certificate; `connector` says who may answer.
/// Answers the certificate that the manager showed as well.
pub(crate) async fn connect_anonymously(
    address: &str,
    connector: Connector,
) -> Result<(Channel, Option<CertInfo>), Error> {
    let shown = Arc::new(OnceLock::new());
    let seen = Arc::clone(&shown);
    let channel = dial(address, Broken::default(), move |stream| {
        let (connector, seen) = (connector.clone(), Arc::clone(&seen));
        async move {
            let stream = connector.connect(stream).await?;
            if let Some(certificate) = tls::server_certificate(&stream) {
                seen.get_or_init(|| certificate);
            }
            Ok(stream)
        }
    })
    .await?;
    Ok((channel, shown.get().cloned()))
}

/// No HTTP/2 pings: managers of Docker Engine take them for an attack.
async fn dial<F, S>(
    address: &str,
    broken: Broken,
    shake: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
) -> Result<Channel, Error>
where
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("brig/", env!("CARGO_PKG_VERSION")))?;
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, shake, broken) = (address.clone(), shake.clone(), broken.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = shake(stream).await?;
            Ok::<_, io::Error>(TokioIo::new(Noted { stream, broken }))
        }
    });
    endpoint.connect_with_connector(dial).await
}
