//! Addresses that the API listens on.

use std::path::{Path, PathBuf};

/// A place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A Unix socket of our own.
    Unix(PathBuf),
    /// The sockets that systemd hands over.
    Systemd,
}

/// An address that can't be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Neither of the known schemes.
    #[error("invalid host {0:?}: expected unix://PATH or fd://")]
    Format(String),
    /// The path of a socket must not depend on where the daemon was started.
    #[error("invalid host {0:?}: the path of the socket must be absolute")]
    Relative(String),
    /// Plain TCP: never.
    #[error(
        "refusing to listen on {0} without verified TLS: whoever reaches that port would be root on this host. \
         Reach the daemon over ssh instead (docker -H ssh://user@host), which needs no listener"
    )]
    PlainTcp(String),
    /// TCP with TLS: not in this version.
    #[error(
        "listening on {0} with TLS is not available in this version; \
         reach the daemon over ssh instead (docker -H ssh://user@host), which needs no listener"
    )]
    TlsTcp(String),
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
            "tcp" => Err(HostError::TlsTcp(text.to_owned())),
            _ => Err(HostError::Format(text.to_owned())),
        }
    }
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
    fn plain_tcp_is_refused_with_a_way_out() {
        let error = Host::parse("tcp://0.0.0.0:2375", Path::new("/s"), false).unwrap_err();
        assert!(error.to_string().contains("without verified TLS"));
        assert!(error.to_string().contains("ssh://"));
        let error = Host::parse("tcp://0.0.0.0:2376", Path::new("/s"), true).unwrap_err();
        assert!(matches!(error, HostError::TlsTcp(_)));
    }
}
