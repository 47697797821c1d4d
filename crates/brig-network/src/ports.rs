//! Published ports: which of the host's ports a container gets, and holding them.
//!
//! Traffic is redirected by the kernel, so nothing would listen on a published port and another
//! program could take it. A socket is therefore bound to each one as long as it is published.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use brig_types::error::ErrorKind;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, ipproto, listen, shutdown, socket_with,
};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::netlink::nftables::PortKey;

/// Where the kernel says which ports are for clients and may be given away.
const EPHEMERAL_RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The IANA's dynamic ports, used when the kernel's answer cannot be read.
const DEFAULT_EPHEMERAL: (u16, u16) = (49_153, 65_535);

/// How many ports that are free at one family's addresses only are passed over.
const MAX_PASSED_OVER: usize = 64;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, where the kernel has it.
    Sctp,
}

impl Protocol {
    /// Reads `tcp`, `udp` or `sctp`, in any case.
    ///
    /// # Errors
    /// [`PortError::InvalidProtocol`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" | "" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PortError::InvalidProtocol(text.chars().take(40).collect())),
        }
    }

    /// The name in `80/tcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number in the IP header.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which port of the host is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// Any free one of the host's ephemeral ports.
    Ephemeral,
    /// This one.
    Fixed(u16),
    /// The first free one from the first to the last, both included.
    Range(u16, u16),
}

impl HostPort {
    /// Reads the API's `HostPort`: empty, `0`, `8080` or `8000-8010`.
    ///
    /// # Errors
    /// [`PortError::InvalidHostPort`].
    pub fn parse(text: &str) -> Result<Self, PortError> {
        let invalid = || PortError::InvalidHostPort(text.chars().take(40).collect());
        let port = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u16>().map_err(|_| invalid()),
            false => Err(invalid()),
        };
        match text.split_once('-') {
            None if text.is_empty() => Ok(Self::Ephemeral),
            None => Ok(match port(text)? {
                0 => Self::Ephemeral,
                fixed => Self::Fixed(fixed),
            }),
            Some((first, last)) => match (port(first)?, port(last)?) {
                (0, _) => Err(invalid()),
                (first, last) if first == last => Ok(Self::Fixed(first)),
                (first, last) if first < last => Ok(Self::Range(first, last)),
                _ => Err(invalid()),
            },
        }
    }
}

/// A container's port that should be reachable at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The port in the container.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The address of the host; `None` means all of them, unspecified all of its family.
    pub host_ip: Option<IpAddr>,
    /// The port at the host.
    pub host_port: HostPort,
}

/// A container's port that is reachable at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBound {
    /// The port in the container.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The address of the host; unspecified means all of its family.
    pub host_ip: IpAddr,
    /// The port at the host.
    pub host_port: u16,
}

impl PortBound {
    pub(crate) fn key(self) -> PortKey {
        PortKey {
            v6: self.host_ip.is_ipv6(),
            address: (!self.host_ip.is_unspecified()).then_some(self.host_ip),
            protocol: self.protocol,
            port: self.host_port,
        }
    }
}

/// Where a container's published ports lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Targets {
    /// The addresses of an endpoint.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        Some(Self { v4: endpoint.ip?, v6: endpoint.v6.map(|v6| v6.ip) })
    }

    /// Where a port leads: an address of the same family.
    pub(crate) fn of_port(self, port: PortBound) -> Option<IpAddr> {
        match port.host_ip {
            IpAddr::V4(_) => Some(self.v4.into()),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// Another container has it.
    #[error("Bind for {} failed: port is already allocated", SocketAddr::new(*host_ip, *port))]
    Allocated {
        /// The address it was wanted at.
        host_ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// Every port of the range is taken.
    #[error("Bind for {host_ip} failed: all ports are allocated")]
    AllAllocated {
        /// The address it was wanted at.
        host_ip: IpAddr,
    },
    /// The host refused it, mostly because a program has it.
    #[error("listen {protocol}{family} {at}: bind", family = if host_ip.is_ipv4() { 4 } else { 6 },
        at = SocketAddr::new(*host_ip, *port))]
    Bind {
        /// The protocol.
        protocol: Protocol,
        /// The address it was wanted at.
        host_ip: IpAddr,
        /// The port.
        port: u16,
        /// The system's reason.
        #[source]
        source: BindError,
    },
    /// An IPv6 address of the host, and a container without one.
    #[error(
        "a port at the host's IPv6 address {0} can only lead to a container that has one; create its network with --ipv6"
    )]
    Ipv6(Ipv6Addr),
    /// The host's own IPv6 loopback address.
    #[error(
        "a port cannot be published at ::1, whose packets the kernel keeps to itself; publish it at 127.0.0.1"
    )]
    Loopback6,
    /// No protocol that ports have.
    #[error("invalid protocol {0:?}")]
    InvalidProtocol(String),
    /// No port, and no range of ports.
    #[error("invalid port specification: {0:?}")]
    InvalidHostPort(String),
}

/// The system's reason for not binding, in the words of docker's answers.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// EADDRINUSE.
    #[error("address already in use")]
    InUse,
    /// EADDRNOTAVAIL.
    #[error("cannot assign requested address")]
    NotAvailable,
    /// EACCES.
    #[error("permission denied")]
    Denied,
    /// Any other error.
    #[error("{0}")]
    Other(io::Error),
}

impl From<Errno> for BindError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ADDRINUSE => Self::InUse,
            Errno::ADDRNOTAVAIL => Self::NotAvailable,
            Errno::ACCESS => Self::Denied,
            other => Self::Other(other.into()),
        }
    }
}

impl PortError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Ipv6(_)
            | Self::Loopback6
            | Self::InvalidProtocol(_)
            | Self::InvalidHostPort(_) => ErrorKind::InvalidParameter,
            Self::Allocated { .. } | Self::AllAllocated { .. } | Self::Bind { .. } => {
                ErrorKind::System
            }
        }
    }
}

impl brig_types::error::Categorized for PortError {
    fn kind(&self) -> ErrorKind {
        Self::kind(self)
    }
}

/// The host's ports that containers have.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortRegistry(Arc<Mutex<Registered>>);

#[derive(Debug, Default)]
struct Registered {
    /// The addresses at which each port is taken.
    taken: BTreeMap<(Protocol, u16), Vec<IpAddr>>,
    /// The ephemeral port given last; the next search starts after it.
    last_ephemeral: Option<u16>,
}

/// A port that nobody else gets as long as this lives.
#[derive(Debug)]
pub(crate) struct HeldPort {
    pub(crate) bound: PortBound,
    registry: PortRegistry,
    /// Never read: being bound is its purpose. None if it could not be bound again after a restart.
    _socket: Option<OwnedFd>,
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        self.registry.forget(self.bound);
    }
}

impl PortRegistry {
    /// Finds and holds a port of the host for a request: one that names no address gets the same
    /// port at both families' addresses if the container has both.
    pub(crate) fn hold(
        &self,
        request: &PortRequest,
        default_ip: Option<Ipv4Addr>,
        has_v6: bool,
    ) -> Result<Vec<HeldPort>, PortError> {
        let host_ip = match request.host_ip {
            None => default_ip.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) => return Err(PortError::Loopback6),
            Some(IpAddr::V6(ip)) if !has_v6 => return Err(PortError::Ipv6(ip)),
            Some(ip) => ip,
        };
        let both = request.host_ip.is_none() && default_ip.is_none() && has_v6;
        if !both {
            return Ok(vec![self.hold_at(request, host_ip)?]);
        }
        let mut passed_over = Vec::new();
        loop {
            let four = self.hold_at(request, host_ip)?;
            let bound = PortBound { host_ip: Ipv6Addr::UNSPECIFIED.into(), ..four.bound };
            match self.hold_one(bound) {
                Ok(six) => return Ok(vec![four, six]),
                // Free at one family only; held meanwhile, so that another one is found.
                Err(
                    PortError::Allocated { .. } | PortError::Bind { source: BindError::InUse, .. },
                ) if !matches!(request.host_port, HostPort::Fixed(_))
                    && passed_over.len() < MAX_PASSED_OVER =>
                {
                    passed_over.push(four);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn hold_at(&self, request: &PortRequest, host_ip: IpAddr) -> Result<HeldPort, PortError> {
        let bound = |host_port| PortBound {
            container_port: request.container_port,
            protocol: request.protocol,
            host_ip,
            host_port,
        };
        let (first, last, start) = match request.host_port {
            HostPort::Fixed(port) => return self.hold_one(bound(port)),
            HostPort::Range(first, last) => (first, last, first),
            HostPort::Ephemeral => {
                let (first, last) = ephemeral_range();
                let after_last = self.lock().last_ephemeral.and_then(|port| port.checked_add(1));
                let start = after_last.filter(|port| (first..=last).contains(port));
                (first, last, start.unwrap_or(first))
            }
        };
        for port in (start..=last).chain(first..start) {
            match self.hold_one(bound(port)) {
                Ok(held) => {
                    if request.host_port == HostPort::Ephemeral {
                        self.lock().last_ephemeral = Some(port);
                    }
                    return Ok(held);
                }
                Err(PortError::Allocated { .. }) => {}
                Err(PortError::Bind { source: BindError::InUse, .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Err(PortError::AllAllocated { host_ip })
    }

    fn hold_one(&self, bound: PortBound) -> Result<HeldPort, PortError> {
        self.register(bound)?;
        match reserve(bound) {
            Ok(socket) => Ok(HeldPort { bound, registry: self.clone(), _socket: Some(socket) }),
            Err(errno) => {
                self.forget(bound);
                Err(PortError::Bind {
                    protocol: bound.protocol,
                    host_ip: bound.host_ip,
                    port: bound.host_port,
                    source: errno.into(),
                })
            }
        }
    }

    /// Holds a port again that a running container already has. The container keeps it even if
    /// another program has bound it meanwhile: its traffic is redirected before that program.
    pub(crate) fn hold_again(&self, bound: PortBound) -> HeldPort {
        match self.hold_one(bound) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(
                    port = bound.host_port,
                    error = %brig_types::error::chain(&error),
                    "a published port could not be reserved again"
                );
                let key = (bound.protocol, bound.host_port);
                self.lock().taken.entry(key).or_default().push(bound.host_ip);
                HeldPort { bound, registry: self.clone(), _socket: None }
            }
        }
    }

    fn register(&self, bound: PortBound) -> Result<(), PortError> {
        let mut registered = self.lock();
        let taken = registered.taken.entry((bound.protocol, bound.host_port)).or_default();
        let conflict = taken.iter().any(|other| {
            other.is_ipv4() == bound.host_ip.is_ipv4()
                && (other.is_unspecified()
                    || bound.host_ip.is_unspecified()
                    || *other == bound.host_ip)
        });
        if conflict {
            return Err(PortError::Allocated { host_ip: bound.host_ip, port: bound.host_port });
        }
        taken.push(bound.host_ip);
        Ok(())
    }

    fn forget(&self, bound: PortBound) {
        let mut registered = self.lock();
        let key = (bound.protocol, bound.host_port);
        if let Some(taken) = registered.taken.get_mut(&key) {
            if let Some(at) = taken.iter().position(|ip| *ip == bound.host_ip) {
                taken.swap_remove(at);
            }
            if taken.is_empty() {
                registered.taken.remove(&key);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds a socket that keeps everybody else from the port but never answers.
fn reserve(bound: PortBound) -> Result<OwnedFd, Errno> {
    let (kind, protocol) = match bound.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let family = match bound.host_ip {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if bound.host_ip.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    let address = SocketAddr::new(bound.host_ip, bound.host_port);
    if bound.protocol == Protocol::Tcp {
        // With SO_REUSEADDR, connections that a former server left in TIME-WAIT do not count.
        // Listening once makes the kernel check that nobody else does, and forbid it to others;
        // the shutdown makes it refuse connections again while the port stays bound.
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, 0)?;
        set_socket_reuseaddr(&socket, false)?;
        shutdown(&socket, Shutdown::Read)?;
    } else {
        bind(&socket, &address)?;
    }
    Ok(socket)
}

fn ephemeral_range() -> (u16, u16) {
    std::fs::read_to_string(EPHEMERAL_RANGE_FILE)
        .ok()
        .and_then(|text| {
            let mut numbers = text.split_whitespace().map(str::parse::<u16>);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => {
                    Some((first, last))
                }
                _ => None,
            }
        })
        .unwrap_or(DEFAULT_EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use brig_types::error::chain;

    use super::*;

    fn request(protocol: Protocol, host_port: HostPort) -> PortRequest {
        PortRequest {
            container_port: 80,
            protocol,
            host_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host_port,
        }
    }

    /// Runs a test in a network namespace of its own, by running this program again inside it:
    /// other daemons of the machine publish ports too.
    fn isolated(name: &str, test: impl FnOnce()) {
        const INSIDE: &str = "BRIG_PORTS_TEST_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            return test();
        }
        let status = std::process::Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("ports::tests::{name}"), "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed in its namespace: {status}");
    }

    #[test]
    fn host_ports_as_the_api_writes_them() {
        assert_eq!(HostPort::parse("").unwrap(), HostPort::Ephemeral);
        assert_eq!(HostPort::parse("0").unwrap(), HostPort::Ephemeral);
        assert_eq!(HostPort::parse("8080").unwrap(), HostPort::Fixed(8080));
        assert_eq!(HostPort::parse("8000-8010").unwrap(), HostPort::Range(8000, 8010));
        for text in ["-", "1-", "-1", "+1", "65536", "9-8", "0-8", "a"] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
        assert_eq!(Protocol::parse("SCTP").unwrap(), Protocol::Sctp);
    }

    #[test]
    fn a_held_port_refuses_others_and_connections() {
        isolated("a_held_port_refuses_others_and_connections", || {
            let registry = PortRegistry::default();
            let held =
                registry.hold(&request(Protocol::Tcp, HostPort::Ephemeral), None, false).unwrap();
            let port = held[0].bound.host_port;
            // The standard library sets SO_REUSEADDR on listeners.
            let error = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            let error = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            let error = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            drop(held);
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        });
    }

    #[test]
    fn a_port_of_another_container() {
        isolated("a_port_of_another_container", || {
            let registry = PortRegistry::default();
            let held =
                registry.hold(&request(Protocol::Udp, HostPort::Ephemeral), None, false).unwrap();
            let port = held[0].bound.host_port;
            let mut again = request(Protocol::Udp, HostPort::Fixed(port));
            again.host_ip = None;
            let error = registry.hold(&again, None, false).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("Bind for 0.0.0.0:{port} failed: port is already allocated")
            );
            // Another protocol is another port.
            drop(
                registry.hold(&request(Protocol::Tcp, HostPort::Fixed(port)), None, false).unwrap(),
            );
        });
    }

    #[test]
    fn a_port_of_a_program() {
        isolated("a_port_of_a_program", || {
            let registry = PortRegistry::default();
            let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = server.local_addr().unwrap().port();
            let error = registry
                .hold(&request(Protocol::Udp, HostPort::Fixed(port)), None, false)
                .unwrap_err();
            assert_eq!(
                chain(&error),
                format!("listen udp4 127.0.0.1:{port}: bind: address already in use")
            );
            drop(server);
            // The failed attempt left nothing registered.
            registry.hold(&request(Protocol::Udp, HostPort::Fixed(port)), None, false).unwrap();
        });
    }

    #[test]
    fn a_port_that_a_server_just_left() {
        isolated("a_port_that_a_server_just_left", || {
            let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = server.local_addr().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let (accepted, _) = server.accept().unwrap();
            drop(accepted);
            drop(server);
            drop(client);
            let registry = PortRegistry::default();
            registry
                .hold(&request(Protocol::Tcp, HostPort::Fixed(address.port())), None, false)
                .unwrap();
        });
    }

    #[test]
    fn ranges_skip_what_is_taken() {
        isolated("ranges_skip_what_is_taken", || {
            let registry = PortRegistry::default();
            let first =
                registry.hold(&request(Protocol::Udp, HostPort::Ephemeral), None, false).unwrap();
            let port = first[0].bound.host_port;
            let range = request(Protocol::Udp, HostPort::Range(port, port.saturating_add(20)));
            let second = registry.hold(&range, None, false).unwrap();
            assert!(second[0].bound.host_port > port);
            let one = request(Protocol::Udp, HostPort::Range(port, port));
            assert!(registry.hold(&one, None, false).is_err());
        });
    }
}
