//! The kernel's memory of connections (ctnetlink, `linux/netfilter/nfnetlink_conntrack.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::RecvFlags;

use super::nftables::PortKey;
use super::{HEADER_LEN, NLMSG_DONE, NetfilterSocket, frames};
use crate::ports::Protocol;

const NFPROTO_IPV4: u8 = 2;
const SUBSYSTEM_CONNTRACK: u16 = 1;
const GET: u16 = (SUBSYSTEM_CONNTRACK << 8) | 1;
const DELETE: u16 = (SUBSYSTEM_CONNTRACK << 8) | 2;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_DUMP: u16 = 0x300;

/// Length of `struct nfgenmsg`.
const FAMILY_HEADER_LEN: usize = 4;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The bits of an attribute's type that are not flags.
const TYPE_MASK: u16 = 0x3fff;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IPV4_DESTINATION: u16 = 2;
const IPV6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION: u16 = 3;

/// Requests per datagram; each that fails is answered, and the answers have to fit the buffer.
const MAX_DELETES: usize = 64;

/// Makes the kernel forget every UDP connection that began at one of the host's ports.
pub(crate) fn forget_udp(socket: &NetfilterSocket, ports: &[PortKey]) -> io::Result<()> {
    let tuples = matching(socket, ports)?;
    for tuples in tuples.chunks(MAX_DELETES) {
        let mut requests = Vec::new();
        for tuple in tuples {
            append(&mut requests, DELETE, FLAG_REQUEST, tuple);
        }
        socket.0.send(&requests)?;
        // What has ended by itself meanwhile is no error.
        let mut buffer = Vec::new();
        while socket.0.receive(&mut buffer, RecvFlags::DONTWAIT)? {}
    }
    Ok(())
}

/// The original tuples, as attributes, of the connections to the ports.
fn matching(socket: &NetfilterSocket, ports: &[PortKey]) -> io::Result<Vec<Vec<u8>>> {
    let mut request = Vec::new();
    append(&mut request, GET, FLAG_REQUEST | FLAG_DUMP, &[]);
    socket.0.send(&request)?;
    let mut tuples = Vec::new();
    let mut buffer = Vec::new();
    loop {
        socket.0.receive(&mut buffer, RecvFlags::empty())?;
        for frame in frames(&buffer) {
            if frame.kind == NLMSG_DONE {
                return Ok(tuples);
            }
            if let Some(errno) = frame.error_number() {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let body = frame.message.get(HEADER_LEN + FAMILY_HEADER_LEN..).unwrap_or_default();
            if let Some(original) = attribute(body, TUPLE_ORIGINAL)
                && goes_to(original.value, ports) == Some(true)
            {
                tuples.push(original.whole.to_vec());
            }
        }
    }
}

/// Whether a tuple is UDP to one of the ports; nothing if it cannot be read.
fn goes_to(tuple: &[u8], ports: &[PortKey]) -> Option<bool> {
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?.value;
    let number = *attribute(protocol, PROTOCOL_NUMBER)?.value.first()?;
    if number != Protocol::Udp.number() {
        return Some(false);
    }
    let port = attribute(protocol, PROTOCOL_DESTINATION)?.value.first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    let ip = attribute(tuple, TUPLE_IP)?.value;
    let address: IpAddr = match attribute(ip, IPV4_DESTINATION) {
        Some(four) => Ipv4Addr::from(*four.value.first_chunk::<4>()?).into(),
        None => {
            let six = attribute(ip, IPV6_DESTINATION)?;
            Ipv6Addr::from(*six.value.first_chunk::<16>()?).into()
        }
    };
    Some(ports.iter().any(|key| {
        key.port == port
            && key.v6 == address.is_ipv6()
            && key.address.is_none_or(|published| published == address)
    }))
}

struct Attribute<'a> {
    value: &'a [u8],
    /// With its header and padding.
    whole: &'a [u8],
}

/// The first attribute of a kind.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<Attribute<'_>> {
    loop {
        let length = usize::from(super::u16_at(bytes, 0)?);
        let found = super::u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
        let padded = length.next_multiple_of(4).min(bytes.len());
        let (whole, rest) = bytes.split_at_checked(padded)?;
        if found == kind {
            return Some(Attribute { value, whole });
        }
        bytes = rest;
    }
}

fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, attributes: &[u8]) {
    let length = HEADER_LEN + FAMILY_HEADER_LEN + attributes.len();
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[NFPROTO_IPV4, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = PortKey { v6: false, address: None, protocol: Protocol::Udp, port: 53 };
            let _ = goes_to(&bytes, &[key]);
            let _ = attribute(&bytes, 1);
        }
    }
}
