//! Docker's way of writing where a daemon is.

use std::path::PathBuf;

use crate::error::{Result, message};

/// Docker's ports: without and with TLS.
const PORTS: (u16, u16) = (2375, 2376);
/// Characters that need no quotes in a shell.
const SHELL_SAFE: &[u8] = b"/._-+=:@,%";

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The far end of `system dial-stdio`.
    Ssh(SshAddress),
}

/// `ssh://[USER@]HOST[:PORT][/SOCKET]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SshAddress {
    /// The user, if not ssh's own choice.
    pub(crate) user: Option<String>,
    /// The host.
    pub(crate) host: String,
    /// The port, if not ssh's own choice.
    pub(crate) port: Option<u16>,
    /// The daemon's socket on the far side, if not that CLI's own choice.
    pub(crate) socket: Option<String>,
}

impl Address {
    /// Reads an address; what has no scheme and is no path is a host.
    pub(crate) fn parse(text: &str, tls: bool) -> Result<Self> {
        let invalid = || message(format!("unable to parse docker host `{text}`"));
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", rest)) => tcp(text, rest, tls),
            Some(("ssh", rest)) => SshAddress::parse(rest).map(Self::Ssh),
            Some(("unix", _)) => Err(invalid()),
            Some(_) => Err(message(format!("invalid bind address format: {text}"))),
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            None if text.is_empty() => Err(invalid()),
            None => tcp(text, text, tls),
        }
    }
}

fn tcp(text: &str, rest: &str, tls: bool) -> Result<Address> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = host_and_port(rest)
        .ok_or_else(|| message(format!("invalid bind address format: {text}")))?;
    let port = match port {
        None if tls => PORTS.1,
        None => PORTS.0,
        Some(port) => port
            .parse()
            .map_err(|_| message(format!("parse {text:?}: invalid port {port:?} after host")))?,
    };
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(Address::Tcp { host: host.to_owned(), port })
}

/// `HOST[:PORT]`; the colons of an IPv6 address stand in brackets, which are taken off.
fn host_and_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port).filter(|port| !port.is_empty()))),
        None => Some((text, None)),
    }
}

impl SshAddress {
    fn parse(rest: &str) -> Result<Self> {
        let invalid = |reason: String| {
            message(format!("ssh host connection is not valid: invalid SSH URL: {reason}"))
        };
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(invalid("plain-text password is not supported".to_owned()));
        }
        let Some((host, port)) = host_and_port(place) else {
            return Err(invalid(format!("invalid host {place:?}")));
        };
        if host.is_empty() {
            return Err(invalid("no host specified".to_owned()));
        }
        if !query.is_empty() {
            return Err(invalid(format!("query parameters are not allowed: {query:?}")));
        }
        if !fragment.is_empty() {
            return Err(invalid(format!("fragments are not allowed: {fragment:?}")));
        }
        let port = match port {
            None => None,
            Some(port) => {
                Some(port.parse().map_err(|_| invalid(format!("invalid port {port:?}")))?)
            }
        };
        let user = user.filter(|user| !user.is_empty()).map(str::to_owned);
        // SECURITY: ssh would read these as flags.
        if host.starts_with('-') || user.as_ref().is_some_and(|user| user.starts_with('-')) {
            return Err(invalid("user and host must not begin with a dash".to_owned()));
        }
        let socket = (path.len() > 1).then(|| path.to_owned());
        Ok(Self { user, host: host.to_owned(), port, socket })
    }

    /// What ssh is called with, before the options that are ours.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if let Some(socket) = &self.socket {
            // The far side's shell reads this.
            arguments.push(quoted(&format!("--host=unix://{socket}")));
        }
        arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        arguments
    }
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || SHELL_SAFE.contains(&b)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(ssh) => {
                f.write_str("ssh://")?;
                if let Some(user) = &ssh.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&ssh.host)?;
                if let Some(port) = ssh.port {
                    write!(f, ":{port}")?;
                }
                f.write_str(ssh.socket.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_does() {
        let socket = Address::Unix("/run/x.sock".into());
        assert_eq!(Address::parse("unix:///run/x.sock", false).unwrap(), socket);
        assert_eq!(Address::parse("/run/x.sock", false).unwrap(), socket);
        for (text, tls, shown) in [
            ("tcp://h", false, "tcp://h:2375"),
            ("tcp://h", true, "tcp://h:2376"),
            ("tcp://h:1/", true, "tcp://h:1"),
            ("tcp://:5", true, "tcp://localhost:5"),
            ("h:7", false, "tcp://h:7"),
            ("tcp://[::1]", true, "tcp://[::1]:2376"),
            ("ssh://h", false, "ssh://h"),
            ("ssh://u@h:22/run/x.sock", false, "ssh://u@h:22/run/x.sock"),
            ("ssh://h/", false, "ssh://h"),
        ] {
            assert_eq!(Address::parse(text, tls).unwrap().to_string(), shown, "{text}");
        }
        for (text, part) in [
            ("unix://", "unable to parse"),
            ("", "unable to parse"),
            ("foo://h", "invalid bind address format: foo://h"),
            ("tcp://h:x", "invalid port"),
            ("tcp://::1", "invalid bind address"),
            ("tcp://u@h", "invalid bind address"),
            ("ssh://u:p@h", "plain-text password is not supported"),
            ("ssh://", "no host specified"),
            ("ssh://h?x=1", "query parameters are not allowed: \"x=1\""),
            ("ssh://h#x", "fragments are not allowed"),
            ("ssh://-oProxyCommand=x", "must not begin with a dash"),
            ("ssh://-x@h", "must not begin with a dash"),
        ] {
            let error = Address::parse(text, false).unwrap_err().text();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn ssh_is_called_as_docker_calls_it() {
        let arguments = |text: &str| match Address::parse(text, false).unwrap() {
            Address::Ssh(ssh) => ssh.arguments().join(" "),
            other => panic!("{other}"),
        };
        assert_eq!(arguments("ssh://h"), "-- h docker system dial-stdio");
        assert_eq!(arguments("ssh://u@h:23"), "-l u -p 23 -- h docker system dial-stdio");
        assert_eq!(
            arguments("ssh://h/a b;'.sock"),
            r"-- h docker '--host=unix:///a b;'\''.sock' system dial-stdio"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(tcp|ssh|unix|x)?(://)?.{0,40}") {
            if let Ok(address) = Address::parse(&text, true) {
                let _ = address.to_string();
            }
        }
    }
}
