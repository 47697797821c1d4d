//! The addresses of a manager: where it listens and where others reach it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use super::InitRequest;
use crate::error::SwarmError;

/// The port of SwarmKit's protocol.
pub(crate) const DEFAULT_PORT: u16 = 2377;

/// Ports that the traffic of cluster networks may have.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u32> = 1024..=49151;
/// The longest prefix of such a network.
const LARGEST_PREFIX: u32 = 29;

/// An address outside of every real network; nothing is ever sent there.
const ELSEWHERE: &str = "192.0.2.1:9";

/// Reads `ip[:port]`; empty is every address of the machine.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, SwarmError> {
    if text.is_empty() {
        return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)));
    }
    parse(text, DEFAULT_PORT).ok_or_else(|| {
        SwarmError::InvalidArgument(
            "listen address must be an IP address or network interface (with optional port number)"
                .to_owned(),
        )
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

/// Checks what a new swarm is told of the networks of its containers, with Docker's texts.
pub(crate) fn check_networks(request: &InitRequest) -> Result<(), SwarmError> {
    let invalid = |text: String| Err(SwarmError::InvalidArgument(text));
    if !request.data_path_addr.is_empty() {
        let address: Option<IpAddr> = request.data_path_addr.parse().ok();
        if address.is_none_or(|address| address.is_unspecified()) {
            return invalid(
                "data path address must be a non-zero IP address or network interface (without a port number)"
                    .to_owned(),
            );
        }
    }
    if request.data_path_port != 0 && !DATA_PATH_PORTS.contains(&request.data_path_port) {
        return invalid(format!(
            "Datapath port number is not in valid range (1024-49151) : {}",
            request.data_path_port
        ));
    }
    let size = request.subnet_size;
    if size > LARGEST_PREFIX {
        return invalid(format!("subnet size is out of range: {size}"));
    }
    for pool in &request.default_addr_pool {
        let Some(prefix) = prefix(pool) else {
            return invalid(format!("invalid CIDR address: {pool}"));
        };
        if size != 0 && prefix > size {
            return invalid(format!(
                "invalid CIDR: \"{pool}\". Subnet size is too small for pool: {size}"
            ));
        }
    }
    Ok(())
}

/// The length of a network's prefix.
fn prefix(network: &str) -> Option<u32> {
    let (address, prefix) = network.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.parse().ok()?;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some(prefix)
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
    fn networks_of_a_new_swarm_are_checked_as_docker_does() {
        let fine = InitRequest {
            data_path_addr: "10.0.0.1".to_owned(),
            data_path_port: 1024,
            default_addr_pool: vec!["10.0.0.0/8".to_owned(), "10.1.0.0/16".to_owned()],
            subnet_size: 29,
            ..InitRequest::default()
        };
        assert!(check_networks(&fine).is_ok());
        assert!(check_networks(&InitRequest::default()).is_ok());
        let pool = |pool: &str, subnet_size| InitRequest {
            default_addr_pool: vec![pool.to_owned()],
            subnet_size,
            ..InitRequest::default()
        };
        for (request, text) in [
            (InitRequest { data_path_addr: "0.0.0.0".to_owned(), ..fine.clone() }, "non-zero IP"),
            (InitRequest { data_path_port: 1023, ..fine.clone() }, "(1024-49151) : 1023"),
            (InitRequest { data_path_port: 49152, ..fine.clone() }, "(1024-49151) : 49152"),
            (InitRequest { subnet_size: 30, ..fine }, "subnet size is out of range: 30"),
            (pool("10.0.0.0/8", 5), "Subnet size is too small for pool: 5"),
            (pool("fd00::/48", 24), "Subnet size is too small for pool: 24"),
            (pool("10.0.0.0/33", 24), "invalid CIDR address: 10.0.0.0/33"),
            (pool("10.0.0.0", 24), "invalid CIDR address: 10.0.0.0"),
        ] {
            let error = check_networks(&request).unwrap_err().to_string();
            assert!(error.contains(text), "{text:?} is not in {error:?}");
        }
    }

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
