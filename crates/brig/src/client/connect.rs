//! Where the daemon is, and the connection to it.

use std::path::{Path, PathBuf};

use http::HeaderValue;
use tokio::net::UnixStream;

use crate::error::{Error, Result, message};

/// brig's own socket.
pub(crate) const DEFAULT_SOCKET: &str = "/run/brig/brig.sock";
/// Docker's socket, used under the name `docker` where brig's is not there.
pub(crate) const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `unix:///path`, or a bare absolute path.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let later = |kind: &str| {
            message(format!(
                "{kind} hosts are not available in this version of brig: use unix:// (got {text:?})"
            ))
        };
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp" | "http" | "https", _)) => Err(later("TCP")),
            Some(("ssh", _)) => Err(later("SSH")),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            _ => Err(message(format!("unable to parse docker host `{text}`"))),
        }
    }

    /// The endpoint for a program's name when the user chose none.
    pub(crate) fn default_for(program: &str) -> Self {
        let brig = Path::new(DEFAULT_SOCKET);
        if program == "docker" && !brig.exists() {
            return Self::Unix(DOCKER_SOCKET.into());
        }
        Self::Unix(brig.to_owned())
    }

    /// What HTTP calls the host.
    pub(crate) const fn host_header(&self) -> HeaderValue {
        match self {
            Self::Unix(_) => HeaderValue::from_static("brig"),
        }
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<UnixStream> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).await.map_err(|error| {
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
            }),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_sockets_for_now() {
        let socket = Endpoint::Unix("/run/x.sock".into());
        assert_eq!(Endpoint::parse("unix:///run/x.sock").unwrap(), socket);
        assert_eq!(Endpoint::parse("/run/x.sock").unwrap(), socket);
        assert_eq!(socket.to_string(), "unix:///run/x.sock");
        for (text, part) in
            [("tcp://h:2376", "TCP"), ("ssh://h", "SSH"), ("x", "unable"), ("unix://", "unable")]
        {
            assert!(Endpoint::parse(text).unwrap_err().text().contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_named_with_the_next_step() {
        let error = Endpoint::Unix("/nonexistent/brig.sock".into()).connect().await.unwrap_err();
        let text = error.text();
        assert!(text.contains("unix:///nonexistent/brig.sock"), "{text}");
        assert!(text.contains("systemctl start brig"), "{text}");
    }
}
