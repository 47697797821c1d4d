//! Addresses that the API listens on.

use std::path::{Path, PathBuf};

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A Unix socket of our own.
    Unix(PathBuf),
    /// The sockets that systemd hands over.
    Systemd,
    /// `HOST:PORT`, with TLS that verifies its clients.
    Tls(String),
}

impl Host {
    /// The path of a socket of our own.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Unix(path) => Some(path.clone()),
            Self::Systemd | Self::Tls(_) => None,
        }
    }
}

/// The port of docker's API with TLS, where none is given.
const TLS_PORT: u16 = 2376;
/// The host where none is given: docker's default, this machine alone.
const LOCALHOST: &str = "localhost";

/// An address that can't be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Neither of the known schemes.
    #[error("invalid host {0:?}: expected unix://PATH, fd:// or tcp://ADDRESS:PORT")]
    Format(String),
    /// The path of a socket must not depend on where the daemon was started.
    #[error("invalid host {0:?}: the path of the socket must be absolute")]
    Relative(String),
    /// Plain TCP: never.
    #[error(
        "refusing to listen on {0} without verified TLS: whoever reaches that port would be root on this host. \
         Reach the daemon over ssh instead (docker -H ssh://user@host), which needs no listener, \
         let it make its own certificates: --tlsauto, \
         or let it verify its clients' certificates: --tlsverify --tlscacert FILE --tlscert FILE --tlskey FILE"
    )]
    PlainTcp(String),
    /// The address of a port does not parse.
    #[error("invalid host {0:?}: expected tcp://ADDRESS:PORT")]
    Tcp(String),
}

impl Host {
    /// Reads an address; `unix://` alone is `default_socket`.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse(text: &str, default_socket: &Path, tlsverify: bool) -> Result<Self, HostError> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| HostError::Format(text.to_owned()))?;
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix(default_socket.to_owned())),
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => Err(HostError::Relative(text.to_owned())),
            "fd" => Ok(Self::Systemd),
            // SECURITY: without a verified client certificate the port would be a root shell.
            "tcp" if !tlsverify => Err(HostError::PlainTcp(text.to_owned())),
            "tcp" => tcp(rest).map(Self::Tls).ok_or_else(|| HostError::Tcp(text.to_owned())),
            _ => Err(HostError::Format(text.to_owned())),
        }
    }
}

/// `[ADDRESS][:PORT]`, completed.
fn tcp(text: &str) -> Option<String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.rsplit_once(':') {
        // The colons of a bare IPv6 address are none before a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok()?)
        }
        Some(_) if !text.ends_with(']') => return None,
        _ => (text, TLS_PORT),
    };
    let host = if host.is_empty() { LOCALHOST } else { host };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
    };
    fits.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let default = Path::new("/run/brig/brig.sock");
        let parse = |text: &str| Host::parse(text, default, false);
        assert_eq!(
            parse("unix:///var/run/docker.sock").unwrap(),
            Host::Unix("/var/run/docker.sock".into())
        );
        assert_eq!(parse("unix://").unwrap(), Host::Unix(default.into()));
        assert_eq!(parse("fd://").unwrap(), Host::Systemd);
        assert!(matches!(parse("unix://run/x"), Err(HostError::Relative(_))));
        for text in ["", "/run/x", "http://x", "npipe:////./pipe/x"] {
            assert!(matches!(parse(text), Err(HostError::Format(_))), "{text}");
        }
    }

    #[test]
    fn ports_are_completed_as_docker_does() {
        let parse = |text: &str| Host::parse(text, Path::new("/s"), true);
        for (text, address) in [
            ("tcp://0.0.0.0:2376", "0.0.0.0:2376"),
            ("tcp://10.0.0.1", "10.0.0.1:2376"),
            ("tcp://:2377", "localhost:2377"),
            ("tcp://", "localhost:2376"),
            ("tcp://[::]:2376/", "[::]:2376"),
            ("tcp://[::1]", "[::1]:2376"),
            ("tcp://manager-1.example:2376", "manager-1.example:2376"),
        ] {
            assert_eq!(parse(text).unwrap(), Host::Tls(address.to_owned()), "{text}");
        }
        for text in
            ["tcp://h:x", "tcp://h:70000", "tcp://::1", "tcp://u@h", "tcp://h/path", "tcp://[h]:1"]
        {
            assert!(matches!(parse(text), Err(HostError::Tcp(_))), "{text}");
        }
    }

    #[test]
    fn plain_tcp_is_refused_with_a_way_out() {
        let error = Host::parse("tcp://0.0.0.0:2375", Path::new("/s"), false).unwrap_err();
        assert!(error.to_string().contains("without verified TLS"));
        assert!(error.to_string().contains("ssh://"));
        assert!(error.to_string().contains("--tlsverify"));
    }
}
