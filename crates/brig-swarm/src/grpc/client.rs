//! Connections to managers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::tls::TlsCredentials;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// TLS name of a manager.
pub(crate) const MANAGER_NAME: &str = "swarm-manager";
/// Longest time until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to the manager at `host:port`, with the node's certificate; the other side has to
/// prove to be `name`. No HTTP/2 pings: managers of Docker Engine take them for an attack.
pub(crate) async fn connect(
    address: &str,
    credentials: Arc<TlsCredentials>,
    name: &'static str,
) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("brig/", env!("CARGO_PKG_VERSION")))?;
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, credentials) = (address.clone(), Arc::clone(&credentials));
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = credentials.connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint.connect_with_connector(dial).await
}
