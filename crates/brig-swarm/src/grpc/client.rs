//! Connections to managers.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use brig_pki::identity::CertInfo;
use brig_pki::tls::{self, ClientStream, Connector, TlsCredentials};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// TLS name of a manager.
pub(crate) const MANAGER_NAME: &str = "swarm-manager";
/// TLS name of a manager that issues certificates.
pub(crate) const CA_NAME: &str = "swarm-ca";
/// Longest time until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the manager at `host:port`, with the node's certificate; the other side has to
/// prove to be `name`.
pub(crate) async fn connect(
    address: &str,
    credentials: Arc<TlsCredentials>,
    name: &'static str,
) -> Result<Channel, Error> {
    dial(address, move |stream| {
        let credentials = Arc::clone(&credentials);
        async move { credentials.connect(name, stream).await }
    })
    .await
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
async fn dial<F>(
    address: &str,
    shake: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
) -> Result<Channel, Error>
where
    F: Future<Output = io::Result<ClientStream<TcpStream>>> + Send + 'static,
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
