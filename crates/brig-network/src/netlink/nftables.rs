//! Packet rules by nfnetlink, without starting `nft`.
//!
//! Only what the path of a starting container needs is encoded here: map elements of published
//! ports, and the small table inside a container that leads port 53 to the name server. The host's
//! table itself is text for `nft` (see [`crate::firewall`]), written once per network.
//!
//! The format is the kernel's `linux/netfilter/nf_tables.h`: messages with nested attributes
//! between a batch's begin and end; the whole batch is applied or nothing of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rustix::net::RecvFlags;

use super::{HEADER_LEN, NetfilterSocket, frames};
use crate::ports::Protocol;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;

const NESTED: u16 = 0x8000;
/// A value's first register of 16 bytes, and the next one.
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;

const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_SNAT: i32 = 100;

const META_L4PROTO: u32 = 16;
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// Changes that are applied together.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    messages: usize,
    /// Where the newest message starts.
    last: usize,
}

/// A key of one of the port maps: the host's side of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortKey {
    /// Which family's table it is in.
    pub(crate) v6: bool,
    /// `None` for every address of the host.
    pub(crate) address: Option<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl PortKey {
    const fn family(self) -> u8 {
        if self.v6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 }
    }

    /// Components of a concatenation are padded to four bytes each.
    fn encode(self) -> Vec<u8> {
        let mut key = self.address.map(octets).unwrap_or_default();
        key.extend_from_slice(&[self.protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&self.port.to_be_bytes());
        key.extend_from_slice(&[0, 0]);
        key
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The ports on which a container's name server really listens on 127.0.0.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResolverPorts {
    pub(crate) udp: u16,
    pub(crate) tcp: u16,
}

/// Whether there is a table of IPv4 with this name.
pub(crate) fn has_table(socket: &NetfilterSocket, table: &str) -> io::Result<bool> {
    let mut request = Batch { bytes: Vec::new(), messages: 0, last: 0 };
    let kind = (SUBSYSTEM_NFTABLES << 8) | GET_TABLE;
    request.raw(kind, FLAG_REQUEST | FLAG_ACK, NFPROTO_IPV4, 0, |nla| nla.string(1, table));
    socket.0.send(&request.bytes)?;
    let mut buffer = Vec::new();
    while socket.0.receive(&mut buffer, RecvFlags::DONTWAIT)? {
        if let Some(errno) = frames(&buffer).find_map(|frame| frame.error_number()) {
            return match io::Error::from_raw_os_error(errno) {
                _ if errno == 0 => Ok(true),
                error if error.kind() == io::ErrorKind::NotFound => Ok(false),
                error => Err(error),
            };
        }
    }
    Err(io::Error::other("the kernel did not answer"))
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::with_capacity(512), messages: 0, last: 0 };
        batch.control(BATCH_BEGIN);
        batch
    }

    /// Whether nothing has been added.
    pub(crate) const fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Adds an element to a map whose values are an address of the key's family and a port.
    pub(crate) fn add_port(
        &mut self,
        table: &str,
        map: &str,
        key: PortKey,
        target: IpAddr,
        port: u16,
    ) {
        let mut value = octets(target);
        value.extend_from_slice(&port.to_be_bytes());
        value.extend_from_slice(&[0, 0]);
        self.message_of(key.family(), NEW_ELEMENT, FLAG_CREATE, |nla| {
            element(nla, table, map, &key.encode(), Some(&value));
        });
    }

    /// Removes an element; the whole batch fails with ENOENT if there is none.
    pub(crate) fn remove_port(&mut self, table: &str, map: &str, key: PortKey) {
        self.message_of(key.family(), DELETE_ELEMENT, 0, |nla| {
            element(nla, table, map, &key.encode(), None);
        });
    }

    /// Removes a table, if there is one, with everything in it.
    pub(crate) fn remove_table(&mut self, table: &str) {
        let named = |nla: &mut Attributes<'_>| nla.string(1, table);
        self.message(NEW_TABLE, FLAG_CREATE, named);
        self.message(DELETE_TABLE, 0, named);
    }

    /// Adds the table that leads `server`:53 to the ports where the name server listens.
    ///
    /// The rule of the way back matters when an answer comes so late that the kernel has forgotten
    /// the question.
    pub(crate) fn add_resolver_table(
        &mut self,
        table: &str,
        server: Ipv4Addr,
        ports: ResolverPorts,
    ) {
        self.message(NEW_TABLE, FLAG_CREATE, |nla| nla.string(1, table));
        self.nat_chain(table, "output", HOOK_OUTPUT, PRIORITY_DNAT);
        self.nat_chain(table, "postrouting", HOOK_POSTROUTING, PRIORITY_SNAT);
        for (protocol, port) in [(Protocol::Udp, ports.udp), (Protocol::Tcp, ports.tcp)] {
            self.rule(table, "output", |rule| {
                rule.payload_is(PAYLOAD_NETWORK, IPV4_DESTINATION, &server.octets());
                rule.protocol_is(protocol);
                rule.payload_is(PAYLOAD_TRANSPORT, DESTINATION_PORT, &53_u16.to_be_bytes());
                rule.nat(Nat::Destination, server, port);
            });
            self.rule(table, "postrouting", |rule| {
                rule.payload_is(PAYLOAD_NETWORK, IPV4_SOURCE, &server.octets());
                rule.protocol_is(protocol);
                rule.payload_is(PAYLOAD_TRANSPORT, SOURCE_PORT, &port.to_be_bytes());
                rule.nat(Nat::Source, server, 53);
            });
        }
    }

    fn nat_chain(&mut self, table: &str, chain: &str, hook: u32, priority: i32) {
        self.message(NEW_CHAIN, FLAG_CREATE, |nla| {
            nla.string(1, table);
            nla.string(3, chain);
            nla.nested(4, |nla| {
                nla.number(1, hook);
                nla.bytes(2, &priority.to_be_bytes());
            });
            nla.string(7, "nat");
        });
    }

    fn rule(&mut self, table: &str, chain: &str, build: impl FnOnce(&mut Expressions<'_, '_>)) {
        self.message(NEW_RULE, FLAG_CREATE | FLAG_APPEND, |nla| {
            nla.string(1, table);
            nla.string(2, chain);
            nla.nested(4, |nla| build(&mut Expressions(nla)));
        });
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.message_of(NFPROTO_IPV4, kind, flags, fill);
    }

    fn message_of(
        &mut self,
        family: u8,
        kind: u16,
        flags: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.messages += 1;
        self.last = self.bytes.len();
        let kind = (SUBSYSTEM_NFTABLES << 8) | kind;
        self.raw(kind, FLAG_REQUEST | flags, family, 0, fill);
    }

    fn control(&mut self, kind: u16) {
        self.raw(kind, FLAG_REQUEST, NFPROTO_UNSPEC, SUBSYSTEM_NFTABLES, |_| {});
    }

    /// `struct nlmsghdr`, `struct nfgenmsg`, attributes.
    fn raw(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        let sequence = u32::try_from(self.messages).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        debug_assert_eq!(self.bytes.len(), start + HEADER_LEN + 4);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// Applies the batch in the socket's network namespace: all of it or nothing.
    pub(crate) fn commit(mut self, socket: &NetfilterSocket) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // One acknowledgement says that all went well; errors are reported without being asked for.
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8)
            && let Ok(value) = <[u8; 2]>::try_from(&*flags)
        {
            flags.copy_from_slice(&(u16::from_ne_bytes(value) | FLAG_ACK).to_ne_bytes());
        }
        self.control(BATCH_END);
        socket.0.send(&self.bytes)?;
        // The kernel has worked on the batch inside the call: what it has to say is here.
        let mut buffer = Vec::new();
        let (mut acknowledged, mut failure) = (false, None);
        while socket.0.receive(&mut buffer, RecvFlags::DONTWAIT)? {
            for errno in frames(&buffer).filter_map(|frame| frame.error_number()) {
                if errno != 0 {
                    failure.get_or_insert(errno);
                }
                acknowledged = true;
            }
        }
        match failure {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None if acknowledged => Ok(()),
            None => Err(io::Error::other("the kernel did not answer")),
        }
    }
}

fn element(nla: &mut Attributes<'_>, table: &str, map: &str, key: &[u8], value: Option<&[u8]>) {
    nla.string(1, table);
    nla.string(2, map);
    nla.nested(3, |nla| {
        nla.nested(1, |nla| {
            nla.nested(1, |nla| nla.bytes(1, key));
            if let Some(value) = value {
                nla.nested(2, |nla| nla.bytes(1, value));
            }
        });
    });
}

/// Appends attributes (`struct nlattr`) to a message.
struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.with_header(kind, |bytes| bytes.extend_from_slice(value));
    }

    /// nf_tables numbers are big-endian.
    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn string(&mut self, kind: u16, value: &str) {
        self.with_header(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        });
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.with_header(kind | NESTED, |bytes| fill(&mut Attributes { bytes }));
    }

    fn with_header(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self.bytes);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[derive(Clone, Copy)]
enum Nat {
    Source,
    Destination,
}

/// The expressions of one rule.
struct Expressions<'a, 'b>(&'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nested(1, |nla| {
            nla.string(1, name);
            nla.nested(2, fill);
        });
    }

    fn equals(&mut self, value: &[u8]) {
        self.add("cmp", |nla| {
            nla.number(1, REGISTER_1);
            nla.number(2, 0);
            nla.nested(3, |nla| nla.bytes(1, value));
        });
    }

    fn payload_is(&mut self, base: u32, offset: u32, value: &[u8]) {
        self.add("payload", |nla| {
            nla.number(1, REGISTER_1);
            nla.number(2, base);
            nla.number(3, offset);
            nla.number(4, u32::try_from(value.len()).unwrap_or(u32::MAX));
        });
        self.equals(value);
    }

    fn protocol_is(&mut self, protocol: Protocol) {
        self.add("meta", |nla| {
            nla.number(1, REGISTER_1);
            nla.number(2, META_L4PROTO);
        });
        self.equals(&[protocol.number()]);
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.add("immediate", |nla| {
            nla.number(1, register);
            nla.nested(2, |nla| nla.bytes(1, value));
        });
    }

    fn nat(&mut self, direction: Nat, address: Ipv4Addr, port: u16) {
        self.immediate(REGISTER_1, &address.octets());
        self.immediate(REGISTER_2, &port.to_be_bytes());
        self.add("nat", |nla| {
            nla.number(
                1,
                match direction {
                    Nat::Source => 0,
                    Nat::Destination => 1,
                },
            );
            nla.number(2, u32::from(NFPROTO_IPV4));
            nla.number(3, REGISTER_1);
            nla.number(5, REGISTER_2);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_by_component() {
        let any = PortKey { v6: false, address: None, protocol: Protocol::Tcp, port: 8080 };
        assert_eq!(any.encode(), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        let one = PortKey {
            v6: false,
            address: Some(Ipv4Addr::LOCALHOST.into()),
            protocol: Protocol::Udp,
            port: 53,
        };
        assert_eq!(one.encode(), [127, 0, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]);
    }

    #[test]
    fn attributes_carry_their_lengths() {
        let mut bytes = Vec::new();
        let mut nla = Attributes { bytes: &mut bytes };
        nla.nested(3, |nla| nla.string(1, "ab"));
        let expected: Vec<u8> = [
            &12_u16.to_ne_bytes()[..],
            &(3 | NESTED).to_ne_bytes(),
            &7_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            b"ab\0\0",
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}
