//! Links, addresses and routes (rtnetlink).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, State,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{
    LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{NLMSG_DONE, NetlinkSocket, frames};
use crate::mac::MacAddr;
use crate::subnet::Ipv4Net;

/// Loopback is the first interface of every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const SETTLE_ATTEMPTS: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// A socket for links, addresses and routes of one network namespace.
#[derive(Debug)]
pub(crate) struct RouteSocket(NetlinkSocket);

/// An interface as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Index of the bridge that it is a port of.
    pub(crate) bridge: Option<u32>,
    /// The free text that we mark our bridges with.
    pub(crate) alias: Option<String>,
    pub(crate) kind: Option<String>,
}

/// A veth pair: one end a port of a bridge, the other in a container's namespace.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge_index: u32,
    /// Whether the port is kept from the bridge's other isolated ports.
    pub(crate) isolated: bool,
    pub(crate) mtu: u32,
    pub(crate) container_ns: BorrowedFd<'a>,
    pub(crate) container_name: &'a str,
    pub(crate) mac: MacAddr,
}

/// One request and its flags besides REQUEST and ACK.
type Request = (RouteNetlinkMessage, u16);

impl RouteSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        NetlinkSocket::open(None).map(Self)
    }

    /// The index of an interface, by name.
    pub(crate) fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(self.0.as_fd(), name)?)
    }

    /// Creates a bridge that is not up yet; `AlreadyExists` if there is an interface of the name.
    pub(crate) fn create_bridge(&mut self, name: &str, mac: MacAddr, mtu: u32) -> io::Result<()> {
        let bridge = LinkBridge::new(name).address(mac.octets().to_vec()).mtu(mtu).build();
        self.run([(RouteNetlinkMessage::NewLink(bridge), NLM_F_CREATE | NLM_F_EXCL)])
    }

    /// Sets a link's alias and brings it up.
    pub(crate) fn set_alias_and_up(&mut self, index: u32, alias: &str, mtu: u32) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).alias(alias).mtu(mtu).up().build();
        self.run([(RouteNetlinkMessage::SetLink(link), 0)])
    }

    /// Adds an address; one that is there already is fine.
    pub(crate) fn ensure_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        subnet: Ipv4Net,
    ) -> io::Result<()> {
        let message = address_message(index, address, subnet);
        self.run([(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)])
    }

    /// Adds an IPv6 address that is usable at once; one that is there already is fine.
    pub(crate) fn ensure_address6(
        &mut self,
        index: u32,
        address: Ipv6Addr,
        prefix_len: u8,
    ) -> io::Result<()> {
        let message = address6_message(index, address, prefix_len);
        self.run([(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)])
    }

    /// Makes `gateway` the way out of IPv6, instead of whatever was before.
    pub(crate) fn replace_default_route6(
        &mut self,
        gateway: Ipv6Addr,
        index: u32,
    ) -> io::Result<()> {
        // The kernel would keep several beside each other.
        self.remove_default_route6()?;
        let route =
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build();
        self.run([(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)])
    }

    /// Removes the default routes of IPv6; none is fine.
    pub(crate) fn remove_default_route6(&mut self) -> io::Result<()> {
        const GONE: [Errno; 2] = [Errno::SRCH, Errno::OPNOTSUPP];
        let route = RouteMessageBuilder::<Ipv6Addr>::new().build();
        match self.run([(RouteNetlinkMessage::DelRoute(route), 0)]) {
            Err(error)
                if GONE.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Removes an address.
    pub(crate) fn remove_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        subnet: Ipv4Net,
    ) -> io::Result<()> {
        let message = address_message(index, address, subnet);
        self.run([(RouteNetlinkMessage::DelAddress(message), 0)])
    }

    /// Removes an interface; one that is gone already is fine.
    pub(crate) fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index).build();
        match self.run([(RouteNetlinkMessage::DelLink(link), 0)]) {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    /// Creates a veth pair whose other end appears in the container's namespace at once.
    pub(crate) fn create_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.container_name)
            .address(pair.mac.octets().to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.container_ns.as_raw_fd())
            .build();
        let veth = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(pair.host_name)
            .mtu(pair.mtu)
            .controller(pair.bridge_index)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        // A packet that br_netfilter redirects back to the container that sent it leaves by the
        // port it came in.
        let port = LinkBridgePort::new(0)
            .name(pair.host_name)
            .hairpin(true)
            .isolated(pair.isolated)
            .build();
        self.run([
            (RouteNetlinkMessage::NewLink(veth), NLM_F_CREATE | NLM_F_EXCL),
            (RouteNetlinkMessage::NewLink(port), 0),
        ])
    }

    /// Waits until an interface that has just got its carrier passes packets.
    ///
    /// A worker of the kernel does what follows from a new carrier (a bridge's port starts to
    /// forward, a queue is put in place); until it gets to that, packets are lost, and the first
    /// one is repeated only after a second. Being asked for the link's state, newer kernels do that
    /// work at once; older ones are waited for.
    pub(crate) fn settle(&mut self, name: &str) -> io::Result<()> {
        for attempt in 0..SETTLE_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(SETTLE_PAUSE);
            }
            let request = LinkUnspec::new_with_name(name).build();
            let answers = self.ask(RouteNetlinkMessage::GetLink(request))?;
            if answers.into_iter().any(|answer| is_operational(&answer)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Brings loopback up.
    pub(crate) fn loopback_up(&mut self) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
        self.run([(RouteNetlinkMessage::SetLink(link), 0)])
    }

    /// Gives an interface its address and brings it up, with a default route if asked for.
    pub(crate) fn configure(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        subnet: Ipv4Net,
        gateway: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let address = address_message(index, address, subnet);
        let up = LinkUnspec::new_with_index(index).up().build();
        let mut requests = vec![
            (RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL),
            (RouteNetlinkMessage::SetLink(up), 0),
        ];
        requests.extend(gateway.map(|gateway| default_route_request(gateway, index)));
        self.run(requests)
    }

    /// Makes `gateway` the way out, instead of whatever was before.
    pub(crate) fn replace_default_route(
        &mut self,
        gateway: Ipv4Addr,
        index: u32,
    ) -> io::Result<()> {
        self.run([default_route_request(gateway, index)])
    }

    /// Removes the default route; none is fine.
    pub(crate) fn remove_default_route(&mut self) -> io::Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().build();
        match self.run([(RouteNetlinkMessage::DelRoute(route), 0)]) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    /// Every interface of the namespace.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// Every IPv4 address of the namespace with its subnet and interface.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Addr, Ipv4Net)>> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let answers = self.dump(RouteNetlinkMessage::GetAddress(request))?;
        Ok(answers.into_iter().filter_map(address_of).collect())
    }

    /// Every IPv4 subnet with a route of its own; default routes are left out.
    pub(crate) fn routed_subnets(&mut self) -> io::Result<Vec<Ipv4Net>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let answers = self.dump(RouteNetlinkMessage::GetRoute(request))?;
        Ok(answers.into_iter().filter_map(route_subnet_of).collect())
    }

    /// Sends requests in one datagram and waits for all answers; the first error counts.
    fn run(&mut self, requests: impl IntoIterator<Item = Request>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let first = self.0.sequence.wrapping_add(1);
        let mut pending = 0_u32;
        for (payload, flags) in requests {
            let sequence = self.0.next_sequence();
            append(&mut bytes, payload, NLM_F_REQUEST | NLM_F_ACK | flags, sequence);
            pending += 1;
        }
        self.0.send(&bytes)?;
        let mut buffer = Vec::new();
        let mut failure: Option<(u32, i32)> = None;
        while pending > 0 {
            self.0.receive(&mut buffer, RecvFlags::empty())?;
            for frame in frames(&buffer) {
                let position = frame.sequence.wrapping_sub(first);
                if let Some(errno) = frame.error_number() {
                    pending = pending.saturating_sub(1);
                    if errno != 0 && failure.is_none_or(|(earlier, _)| position < earlier) {
                        failure = Some((position, errno));
                    }
                }
            }
        }
        match failure {
            None => Ok(()),
            Some((_, errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn dump(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.query(request, NLM_F_DUMP)
    }

    fn ask(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.query(request, NLM_F_ACK)
    }

    /// Collects answers up to the end of a dump, or the acknowledgement.
    fn query(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        let sequence = self.0.next_sequence();
        append(&mut bytes, request, NLM_F_REQUEST | flags, sequence);
        self.0.send(&bytes)?;
        let mut answers = Vec::new();
        let mut buffer = Vec::new();
        loop {
            self.0.receive(&mut buffer, RecvFlags::empty())?;
            for frame in frames(&buffer).filter(|frame| frame.sequence == sequence) {
                if frame.kind == NLMSG_DONE {
                    return Ok(answers);
                }
                match frame.error_number() {
                    None => {}
                    Some(0) => return Ok(answers),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
                // An interface with attributes that the library cannot read is not one of ours.
                if let Ok(message) = NetlinkMessage::deserialize(frame.message)
                    && let NetlinkPayload::InnerMessage(inner) = message.payload
                {
                    answers.push(inner);
                }
            }
        }
    }
}

fn append(bytes: &mut Vec<u8>, payload: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
    message.finalize();
    let start = bytes.len().next_multiple_of(4);
    bytes.resize(start + message.buffer_len(), 0);
    if let Some(target) = bytes.get_mut(start..) {
        message.serialize(target);
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn address_message(index: u32, address: Ipv4Addr, subnet: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = subnet.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(subnet.last()),
    ];
    message
}

fn address6_message(index: u32, address: Ipv6Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::V6(address)),
        // Nobody else has it: no need to ask the neighbours first, which takes a second.
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    message
}

fn default_route_request(gateway: Ipv4Addr, index: u32) -> Request {
    let route =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build();
    (RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)
}

fn is_operational(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewLink(message) = message else { return false };
    let up = |attribute: &LinkAttribute| {
        matches!(attribute, LinkAttribute::OperState(State::Up | State::Unknown))
    };
    message.attributes.iter().any(up)
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        bridge: None,
        alias: None,
        kind: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.bridge = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

fn address_of(message: RouteNetlinkMessage) -> Option<(u32, Ipv4Addr, Ipv4Net)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Some((message.header.index, address, Ipv4Net::new(address, message.header.prefix_len)))
}

fn route_subnet_of(message: RouteNetlinkMessage) -> Option<Ipv4Net> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let length = message.header.destination_prefix_length;
    if length == 0 || message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Some(Ipv4Net::new(*address, length))
        }
        _ => None,
    })
}
