//! The addresses of a manager: where it listens and where others reach it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use crate::error::SwarmError;

/// The port of SwarmKit's protocol.
pub(crate) const DEFAULT_PORT: u16 = 2377;

/// An address outside of every real network; nothing is ever sent there.
const ELSEWHERE: &str = "192.0.2.1:9";

/// Reads `ip[:port]`; empty is every address of the machine.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, SwarmError> {
    if text.is_empty() {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)));
    }
    parse(text, DEFAULT_PORT).ok_or_else(|| {
        SwarmError::InvalidArgument(format!(
            "invalid listen address {text:?}: must be an IP address, with a port or without"
        ))
    })
}

/// Where others reach a manager that listens on `listening`.
pub(crate) fn advertise(text: &str, listening: SocketAddr) -> Result<SocketAddr, SwarmError> {
    if !text.is_empty() {
        let address =
            parse(text, listening.port()).filter(|address| !address.ip().is_unspecified());
        return address.ok_or_else(|| {
            SwarmError::InvalidArgument(
                "advertise address must be a non-zero IP address or network interface (with optional port number)"
                    .to_owned(),
            )
        });
    }
    if !listening.ip().is_unspecified() {
        return Ok(listening);
    }
    towards(ELSEWHERE).map(|ip| SocketAddr::new(ip, listening.port())).ok_or_else(|| {
        SwarmError::InvalidArgument(
            "could not find the system's IP address - specify one with --advertise-addr".to_owned(),
        )
    })
}

/// Where this process itself reaches its manager.
pub(crate) fn local(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// Reads a manager's `host[:port]`; the host may be a name.
pub(crate) fn remote(text: &str) -> Result<String, SwarmError> {
    if let Some(address) = parse(text, DEFAULT_PORT) {
        return Ok(address.to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text, Some(DEFAULT_PORT)),
    };
    let is_name = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    match port {
        Some(port) if is_name => Ok(format!("{host}:{port}")),
        _ => Err(SwarmError::InvalidArgument(format!(
            "invalid address {text:?}: must be the host of a manager, with a port or without"
        ))),
    }
}

/// The host of `host:port`, without the brackets of IPv6.
pub(crate) fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The address that packets to `host:port` come from. May ask the resolver.
pub(crate) fn towards(address: &str) -> Option<IpAddr> {
    address.to_socket_addrs().ok()?.find_map(|target| {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        socket.local_addr().ok().map(|own| own.ip()).filter(|ip| !ip.is_unspecified())
    })
}

fn parse(text: &str, default_port: u16) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    text.parse::<SocketAddr>()
        .ok()
        .or_else(|| Some(SocketAddr::new(bare.parse().ok()?, default_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_defaults() {
        assert_eq!(listen("").unwrap().to_string(), "0.0.0.0:2377");
        assert_eq!(listen("10.0.0.1").unwrap().to_string(), "10.0.0.1:2377");
        assert_eq!(listen("10.0.0.1:7").unwrap().to_string(), "10.0.0.1:7");
        assert_eq!(listen("::1").unwrap().to_string(), "[::1]:2377");
        assert_eq!(listen("[::1]:7").unwrap().to_string(), "[::1]:7");
        let listening = listen("10.0.0.1:7").unwrap();
        assert_eq!(advertise("", listening).unwrap(), listening);
        let other = advertise("10.0.0.2", listening).unwrap();
        assert_eq!(other.to_string(), "10.0.0.2:7");
    }

    #[test]
    fn useless_addresses_are_refused() {
        for text in ["x", "10.0.0.1:x", "10.0.0", ":2377"] {
            assert!(listen(text).is_err(), "{text}");
        }
        let listening = listen("10.0.0.1:7").unwrap();
        assert!(advertise("0.0.0.0", listening).is_err());
    }

    #[test]
    fn managers_are_hosts_or_addresses() {
        for (text, expected) in [
            ("m1.example", "m1.example:2377"),
            ("m1:7", "m1:7"),
            ("10.0.0.1", "10.0.0.1:2377"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(remote(text).unwrap(), expected);
        }
        for text in ["", ":2377", "m:x", "m/x", "tcp://m:1", "a@b", "m m"] {
            assert!(remote(text).is_err(), "{text}");
        }
        assert_eq!((host("[::1]:7"), host("m:1")), ("::1", "m"));
        assert_eq!(towards("127.0.0.1:9").unwrap().to_string(), "127.0.0.1");
    }

    #[test]
    fn the_own_manager_is_reached_over_loopback() {
        let all = listen("0.0.0.0:7").unwrap();
        assert_eq!(local(all).to_string(), "127.0.0.1:7");
        let one = listen("10.0.0.1:7").unwrap();
        assert_eq!(local(one), one);
    }
}
