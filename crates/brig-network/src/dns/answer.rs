//! What to do with one packet from a container (RFC 1035, RFC 6891). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::{Directory, Scope};

/// Docker's time to live of a container's name, in seconds.
const TTL: u32 = 600;
/// Length of a message's fixed part.
pub(super) const HEADER_LEN: usize = 12;
/// Largest answer over UDP without EDNS.
const PLAIN_UDP: u16 = 512;
/// The payload that our own answers announce and keep to, whatever the client allows.
const OUR_UDP: u16 = 1232;

/// What is to be done with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// The name is not ours: ask the outside.
    Forward,
    /// It is no question; whoever answers such things keeps a loop going.
    Ignore,
}

/// How the packet came, which limits the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Decides about a packet from a container that sees `view`.
pub(super) fn decide(
    packet: &[u8],
    transport: Transport,
    directory: &Directory,
    view: &Scope,
) -> Decision {
    let reply = |bytes: Option<Vec<u8>>| bytes.map_or(Decision::Ignore, Decision::Reply);
    if packet.len() < HEADER_LEN || is_response(packet) {
        return Decision::Ignore;
    }
    let Ok(message) = Message::from_vec(packet) else {
        return Decision::Reply(header_only(packet, ResponseCode::FormErr));
    };
    if message.metadata.message_type != MessageType::Query {
        return Decision::Ignore;
    }
    if message.metadata.op_code != OpCode::Query {
        return reply(encode(&error(&message, ResponseCode::NotImp)));
    }
    let [query] = message.queries.as_slice() else {
        return reply(encode(&error(&message, ResponseCode::FormErr)));
    };
    if query.query_class() != DNSClass::IN {
        return Decision::Forward;
    }
    match answers(query, directory, view, usize::from(message.metadata.id)) {
        None => Decision::Forward,
        Some(records) => {
            let mut response = error(&message, ResponseCode::NoError);
            response.add_answers(records);
            reply(fit(&response, &message, transport))
        }
    }
}

/// The answer to a question that could not be passed on.
pub(super) fn failure(packet: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(packet).ok()?;
    encode(&error(&message, ResponseCode::ServFail))
}

/// The records for a name that is ours (maybe none of the asked type), or nothing.
fn answers(
    query: &Query,
    directory: &Directory,
    view: &Scope,
    rotation: usize,
) -> Option<Vec<Record>> {
    let name = query.name().to_ascii();
    if query.query_type() == RecordType::PTR
        && let Some(owner) =
            reverse_address(&name).and_then(|ip| directory.owner(&view.networks, ip))
    {
        let target = Name::from_ascii(format!("{owner}.")).ok()?;
        return Some(vec![record(query, RData::PTR(PTR(target)))]);
    }
    let mut addresses = directory.addresses(&view.networks, view.target(&name))?;
    // The name exists: where it has nothing of this type the answer is empty, so that nobody outside
    // is asked for it.
    let kind = query.query_type();
    addresses.retain(|address| match address {
        IpAddr::V4(_) => kind == RecordType::A,
        IpAddr::V6(_) => kind == RecordType::AAAA,
    });
    // Several containers with one alias take turns at being first.
    let count = addresses.len().max(1);
    addresses.rotate_left(rotation % count);
    let data = |address| match address {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Some(addresses.into_iter().map(|address| record(query, data(address))).collect())
}

fn record(query: &Query, data: RData) -> Record {
    Record::from_rdata(query.name().clone(), TTL, data)
}

/// The address in `4.3.2.1.in-addr.arpa.`, or in 32 hexadecimal digits below `ip6.arpa.`.
fn reverse_address(name: &str) -> Option<IpAddr> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let mut bits = 0_u128;
        let mut labels = digits.split('.').rev();
        for _ in 0..32 {
            let label = labels.next().filter(|label| label.len() == 1)?;
            bits = bits << 4 | u128::from_str_radix(label, 16).ok()?;
        }
        return labels.next().is_none().then(|| Ipv6Addr::from_bits(bits).into());
    }
    let mut octets = [0_u8; 4];
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.').rev();
    for octet in &mut octets {
        *octet = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

/// A response without records.
fn error(message: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(message.metadata.id, message.metadata.op_code);
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_queries(message.queries.iter().take(1).cloned());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_UDP);
        response.set_edns(edns);
    }
    response
}

/// Encodes a response, cut down to its question if the client cannot take all of it.
fn fit(response: &Message, query: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = encode(response)?;
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp if query.edns.is_some() => {
            usize::from(query.max_payload().clamp(PLAIN_UDP, OUR_UDP))
        }
        Transport::Udp => usize::from(PLAIN_UDP),
    };
    if bytes.len() <= limit { Some(bytes) } else { encode(&response.truncate()) }
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

fn is_response(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

/// The answer to a packet of which nothing but the header can be read.
fn header_only(packet: &[u8], code: ResponseCode) -> Vec<u8> {
    let id = packet.first_chunk::<2>().copied().map_or(0, u16::from_be_bytes);
    let message = Message::error_msg(id, OpCode::Query, code);
    message.to_vec().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use brig_types::id::{EndpointId, NetworkId};
    use proptest::prelude::*;

    use super::*;

    fn directory(containers: u8) -> (Directory, Scope) {
        let directory = Directory::default();
        let network = NetworkId::generate();
        for last in 2..2 + containers {
            directory.insert(
                &network,
                "net",
                &EndpointId::generate(),
                &[
                    Ipv4Addr::new(172, 18, 0, last).into(),
                    Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, last.into()).into(),
                ],
                &[format!("c{last}"), "all".to_owned()],
            );
        }
        (directory, vec![network].into())
    }

    fn question(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(payload) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn ask(packet: &[u8], transport: Transport, containers: u8) -> Option<Message> {
        let (directory, view) = directory(containers);
        match decide(packet, transport, &directory, &view) {
            Decision::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap()),
            Decision::Forward => None,
            Decision::Ignore => panic!("ignored"),
        }
    }

    #[test]
    fn a_container_has_an_a_record() {
        let reply = ask(&question("C2.", RecordType::A, None), Transport::Udp, 1).unwrap();
        assert_eq!(reply.metadata.id, 7);
        assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
        assert!(!reply.metadata.authoritative);
        let [record] = reply.answers.as_slice() else { panic!("{reply:?}") };
        assert_eq!(record.ttl, 600);
        assert_eq!(record.data, RData::A(A(Ipv4Addr::new(172, 18, 0, 2))));
        assert!(ask(&question("c2.net.", RecordType::A, None), Transport::Udp, 1).is_some());
    }

    #[test]
    fn the_other_family() {
        let reply = ask(&question("c2.", RecordType::AAAA, None), Transport::Udp, 1).unwrap();
        let [answer] = reply.answers.as_slice() else { panic!("{reply:?}") };
        assert_eq!(answer.data, RData::AAAA(AAAA("fd::2".parse().unwrap())));
        let name = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.0.0.ip6.arpa.";
        let reply = ask(&question(name, RecordType::PTR, None), Transport::Udp, 1).unwrap();
        assert_eq!(reply.answers.len(), 1);
        for bad in ["2.ip6.arpa", "x.0.ip6.arpa", &format!("0.{name}")] {
            assert_eq!(reverse_address(bad), None, "{bad}");
        }
    }

    #[test]
    fn other_types_are_empty_and_stay_inside() {
        for kind in [RecordType::SRV, RecordType::MX, RecordType::TXT] {
            let reply = ask(&question("c2.", kind, Some(4096)), Transport::Udp, 1).unwrap();
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
            assert!(reply.answers.is_empty());
            assert!(reply.edns.is_some());
        }
    }

    #[test]
    fn reverse_lookups() {
        let packet = question("2.0.18.172.in-addr.arpa.", RecordType::PTR, None);
        let reply = ask(&packet, Transport::Udp, 1).unwrap();
        let [record] = reply.answers.as_slice() else { panic!("{reply:?}") };
        assert_eq!(record.data, RData::PTR(PTR(Name::from_ascii("c2.net.").unwrap())));
        let packet = question("9.0.18.172.in-addr.arpa.", RecordType::PTR, None);
        assert!(ask(&packet, Transport::Udp, 1).is_none());
    }

    #[test]
    fn unknown_names_go_outside() {
        for name in ["example.com.", "c2.example.com.", "."] {
            assert!(ask(&question(name, RecordType::A, None), Transport::Udp, 1).is_none());
        }
    }

    #[test]
    fn what_does_not_fit_is_truncated() {
        let packet = question("all.", RecordType::A, None);
        let reply = ask(&packet, Transport::Udp, 100).unwrap();
        assert!(reply.metadata.truncation && reply.answers.is_empty());
        let reply = ask(&packet, Transport::Tcp, 100).unwrap();
        assert!(!reply.metadata.truncation);
        assert_eq!(reply.answers.len(), 100);
    }

    #[test]
    fn malformed_questions() {
        let (directory, view) = directory(1);
        let mut packet = question("c2.", RecordType::A, None);
        packet.truncate(14);
        let Decision::Reply(bytes) = decide(&packet, Transport::Udp, &directory, &view) else {
            panic!("no reply")
        };
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
        let mut response = question("c2.", RecordType::A, None);
        response[2] |= 0x80;
        assert_eq!(decide(&response, Transport::Udp, &directory, &view), Decision::Ignore);
        assert_eq!(decide(&[0; 11], Transport::Udp, &directory, &view), Decision::Ignore);
        let failure = failure(&question("x.", RecordType::A, None)).unwrap();
        assert_eq!(
            Message::from_vec(&failure).unwrap().metadata.response_code,
            ResponseCode::ServFail
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (directory, view) = directory(3);
            let _ = decide(&bytes, Transport::Udp, &directory, &view);
            let _ = failure(&bytes);
        }

        #[test]
        fn damaged_questions_are_survived(
            changes in proptest::collection::vec((0_usize..60, any::<u8>()), 1..8),
            cut in 0_usize..60,
        ) {
            let (directory, view) = directory(3);
            let mut packet = question("all.net.", RecordType::A, Some(1232));
            for (at, value) in changes {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            packet.truncate(packet.len().saturating_sub(cut / 10));
            for transport in [Transport::Udp, Transport::Tcp] {
                if let Decision::Reply(bytes) = decide(&packet, transport, &directory, &view) {
                    prop_assert!(Message::from_vec(&bytes).is_ok());
                }
            }
        }
    }
}
