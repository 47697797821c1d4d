//! The connection to the daemon, by its address.

use std::path::Path;

use brig_pki::engine::EngineClient;
use http::HeaderValue;
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::connection::Connection;
use super::ssh::Tunnel;
use crate::error::{Error, Result, message};

/// brig's own socket.
pub(crate) const DEFAULT_SOCKET: &str = "/run/brig/brig.sock";
/// Docker's socket, used under the name `docker` where brig's is not there.
pub(crate) const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// A daemon that can be connected to.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: Option<Address>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// What the address says.
    Plain,
    /// TLS on a port.
    Tls(EngineClient),
    /// Through ssh.
    Ssh(Tunnel),
    /// There is none, for this reason: only who wants to connect has to know.
    Unusable(String),
}

impl Endpoint {
    /// The daemon at an address; with TLS if it is a port.
    pub(crate) fn new(address: Address, tls: Option<EngineClient>) -> Self {
        let way = match (&address, tls) {
            (Address::Tcp { .. }, Some(tls)) => Way::Tls(tls),
            (Address::Ssh(ssh), _) => Way::Ssh(Tunnel::new(ssh.clone())),
            _ => Way::Plain,
        };
        Self { address: Some(address), way }
    }

    /// No daemon.
    pub(crate) fn unusable(error: &Error) -> Self {
        Self { address: None, way: Way::Unusable(error.text()) }
    }

    /// The address for a program's name when the user chose none.
    pub(crate) fn default_address(program: &str) -> Address {
        let brig = Path::new(DEFAULT_SOCKET);
        if program == "docker" && !brig.exists() {
            return Address::Unix(DOCKER_SOCKET.into());
        }
        Address::Unix(brig.to_owned())
    }

    /// What HTTP calls the host.
    pub(crate) fn host_header(&self) -> HeaderValue {
        let text = match &self.address {
            Some(address @ Address::Tcp { .. }) => address.to_string().replace("tcp://", ""),
            Some(Address::Ssh(_)) => "docker.example.com".to_owned(),
            _ => "brig".to_owned(),
        };
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("brig"))
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        match (&self.way, &self.address) {
            (Way::Unusable(reason), _) => Err(Error::Endpoint(reason.clone())),
            (Way::Ssh(tunnel), _) => tunnel.connect().map(Connection::new),
            (Way::Tls(tls), Some(Address::Tcp { host, port })) => {
                let stream = self.tcp(host, *port).await?;
                let stream = tls.connect(host, stream).await;
                stream
                    .map(Connection::new)
                    .map_err(|source| Error::Handshake { address: self.to_string(), source })
            }
            (_, Some(Address::Tcp { host, port })) => {
                self.tcp(host, *port).await.map(Connection::new)
            }
            (_, Some(Address::Unix(path))) => {
                UnixStream::connect(path).await.map(Connection::new).map_err(|error| {
                    let reason = match error.kind() {
                        std::io::ErrorKind::NotFound => "no such socket".to_owned(),
                        std::io::ErrorKind::ConnectionRefused => {
                            "nothing listens on the socket".to_owned()
                        }
                        std::io::ErrorKind::PermissionDenied => {
                            "permission denied on the socket".to_owned()
                        }
                        _ => error.to_string(),
                    };
                    Error::Connect { address: self.to_string(), reason }
                })
            }
            (_, Some(Address::Ssh(_)) | None) => Err(message("there is no way to this daemon")),
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream> {
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connect.await.map_err(|error: std::io::Error| Error::Unreachable {
            address: self.to_string(),
            reason: error.to_string(),
        })
    }

    /// What really happened when a connection broke: ssh knows more than HTTP.
    pub(crate) async fn explain(&self, error: Error) -> Error {
        match &self.way {
            Way::Ssh(tunnel) => match tunnel.failure().await {
                Some(reason) => message(format!("error during connect: {reason}")),
                None => error,
            },
            _ => error,
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("nowhere"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_named_with_the_next_step() {
        let address = Address::Unix("/nonexistent/brig.sock".into());
        let error = Endpoint::new(address, None).connect().await.unwrap_err();
        let text = error.text();
        assert!(text.contains("unix:///nonexistent/brig.sock"), "{text}");
        assert!(text.contains("systemctl start brig"), "{text}");
    }
}
