//! Connections to managers.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use brig_pki::identity::CertInfo;
use brig_pki::tls::{self, ClientStream, Connector, TlsCredentials, Validity};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// TLS name of a manager.
pub(crate) const MANAGER_NAME: &str = "swarm-manager";
/// TLS name of a manager that issues certificates.
pub(crate) const CA_NAME: &str = "swarm-ca";
/// Longest time until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the manager of a connection did not want our certificate, once it said so. It may say so
/// when the handshake is over on our side, and then the calls that fail do not know it.
pub(crate) type Refusal = Arc<OnceLock<Validity>>;

/// Connects to the manager at `host:port`, with the node's certificate; the other side has to
/// prove to be `name`.
pub(crate) async fn connect(
    address: &str,
    credentials: Arc<TlsCredentials>,
    name: &'static str,
) -> Result<(Channel, Refusal), Error> {
    let refusal = Refusal::default();
    let heard = Arc::clone(&refusal);
    let channel = dial(address, move |stream| {
        let (credentials, heard) = (Arc::clone(&credentials), Arc::clone(&heard));
        async move { Ok(Heeding { stream: credentials.connect(name, stream).await?, heard }) }
    })
    .await?;
    Ok((channel, refusal))
}

/// A connection that keeps why it broke, if that was a certificate's validity.
struct Heeding {
    stream: ClientStream<TcpStream>,
    heard: Refusal,
}

impl AsyncRead for Heeding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(validity) = tls::validity_failure(error)
        {
            self.heard.get_or_init(|| validity);
        }
        read
    }
}

impl AsyncWrite for Heeding {
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
    let channel = dial(address, move |stream| {
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
        let (address, shake) = (address.clone(), shake.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            shake(stream).await.map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector(dial).await
}
