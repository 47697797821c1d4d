//! The table as text for `nft -f`. Pure.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{BridgeRules, MAP_ADDRESS, MAP_ANY};
use crate::netlink::nftables::PortKey;

/// The bit that accepted packets carry past another program's FORWARD chain.
pub(super) const MARK: u32 = 0x0100_0000;

/// Writes the transaction that replaces the table.
///
/// Names of bridges and tables come from validated types; nothing else is text.
///
/// COMPAT: docker drops what a container of one network sends to a published port of another, and
/// lets neighbours of the host reach containers past the published ports where the FORWARD policy
/// allows it. Here published means for everybody, and what is not published is for nobody outside.
///
/// SECURITY: `route_localnet` on the bridges would let containers talk to services on the host's
/// loopback addresses; the chain `raw` forbids it.
pub(super) fn table<'a>(
    table: &str,
    bridges: impl Iterator<Item = &'a BridgeRules>,
    ports: impl Iterator<Item = (PortKey, (Ipv4Addr, u16))>,
    marked: bool,
) -> String {
    let mut sets = Sets::default();
    for rules in bridges {
        sets.add(rules);
    }
    for (key, target) in ports {
        sets.add_port(key, target);
    }
    let accept = match marked {
        true => format!("meta mark set meta mark | {MARK:#x} accept"),
        false => "accept".to_owned(),
    };
    // Marks have to be there before the chain that looks at them.
    let forward_priority = if marked { "filter - 5" } else { "filter" };
    format!(
        "add table ip {table}
delete table ip {table}
table ip {table} {{
    # Our bridges; those whose containers may talk to each other, as pairs; those without a way out.
    set bridges {{ type ifname; {bridges} }}
    set same {{ type ifname . ifname; {same} }}
    set internal {{ type ifname; {internal} }}
    # All subnets, and those that are hidden behind the host's address.
    set subnets {{ type ipv4_addr; flags interval; {subnets} }}
    set hidden {{ type ipv4_addr; flags interval; {hidden} }}
    # Published ports, at every address of the host and at one of them.
    map {MAP_ANY} {{ type inet_proto . inet_service : ipv4_addr . inet_service; {any} }}
    map {MAP_ADDRESS} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {address} }}

    chain raw {{
        type filter hook prerouting priority raw; policy accept;
        # Bridges route to the host's loopback addresses, which containers must not reach.
        iifname @bridges ip daddr 127.0.0.0/8 drop
        iifname @bridges ip saddr 127.0.0.0/8 drop
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump publish
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        fib daddr type local jump publish
    }}
    chain publish {{
        dnat ip to ip daddr . meta l4proto . th dport map @{MAP_ADDRESS}
        dnat ip to meta l4proto . th dport map @{MAP_ANY}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @hidden oifname != @bridges masquerade
        # Answers to the host's own loopback and to a container that used a published port of its
        # own network have to come back through the host.
        ip saddr 127.0.0.0/8 oifname @bridges masquerade
        ip saddr @subnets oifname @bridges ct status dnat masquerade
    }}
    chain forward {{
        type filter hook forward priority {forward_priority}; policy accept;
        iifname != @bridges oifname != @bridges accept
        iifname . oifname @same {accept}
        ct state established,related {accept}
        iifname @internal drop
        oifname @internal drop
        # A published port is reachable from everywhere, other networks included.
        ct status dnat {accept}
        iifname @bridges oifname @bridges drop
        iifname @bridges {accept}
        # Nobody outside reaches a container but by a published port.
        drop
    }}
}}
",
        bridges = elements(&sets.bridges),
        same = elements(&sets.same),
        internal = elements(&sets.internal),
        subnets = elements(&sets.subnets),
        hidden = elements(&sets.hidden),
        any = elements(&sets.any),
        address = elements(&sets.address),
    )
}

#[derive(Default)]
struct Sets {
    bridges: Vec<String>,
    same: Vec<String>,
    internal: Vec<String>,
    subnets: Vec<String>,
    hidden: Vec<String>,
    any: Vec<String>,
    address: Vec<String>,
}

impl Sets {
    fn add(&mut self, rules: &BridgeRules) {
        let name = format!("\"{}\"", rules.bridge);
        if rules.icc {
            self.same.push(format!("{name} . {name}"));
        }
        if rules.internal {
            self.internal.push(name.clone());
        } else if rules.masquerade {
            self.hidden.push(rules.subnet.to_string());
        }
        self.subnets.push(rules.subnet.to_string());
        self.bridges.push(name);
    }

    fn add_port(&mut self, key: PortKey, (target, port): (Ipv4Addr, u16)) {
        let host = format!("{} . {}", key.protocol, key.port);
        match key.address {
            None => self.any.push(format!("{host} : {target} . {port}")),
            Some(ip) => self.address.push(format!("{ip} . {host} : {target} . {port}")),
        }
    }
}

/// nft takes no empty list of elements.
fn elements(elements: &[String]) -> String {
    if elements.is_empty() {
        return String::new();
    }
    let mut text = String::from("elements = { ");
    for (at, element) in elements.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{element}");
    }
    text.push_str(" };");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Protocol;

    #[test]
    fn every_kind_of_network_is_in_its_sets() {
        let rules = |bridge: &str, subnet: &str| BridgeRules {
            bridge: bridge.to_owned(),
            subnet: subnet.parse().unwrap(),
            icc: true,
            masquerade: true,
            internal: false,
        };
        let open = rules("brig0", "172.17.0.0/16");
        let inner = BridgeRules { internal: true, icc: false, ..rules("br-1", "172.18.0.0/16") };
        let ports = [
            (
                PortKey { address: None, protocol: Protocol::Tcp, port: 8080 },
                (Ipv4Addr::new(172, 17, 0, 2), 80),
            ),
            (
                PortKey { address: Some(Ipv4Addr::LOCALHOST), protocol: Protocol::Udp, port: 53 },
                (Ipv4Addr::new(172, 17, 0, 3), 5353),
            ),
        ];
        let text = table("brig", [&open, &inner].into_iter(), ports.into_iter(), true);
        for line in [
            "set bridges { type ifname; elements = { \"brig0\", \"br-1\" }; }",
            "elements = { \"brig0\" . \"brig0\" };",
            "set internal { type ifname; elements = { \"br-1\" }; }",
            "set hidden { type ipv4_addr; flags interval; elements = { 172.17.0.0/16 }; }",
            "elements = { tcp . 8080 : 172.17.0.2 . 80 };",
            "elements = { 127.0.0.1 . udp . 53 : 172.17.0.3 . 5353 };",
            "iifname @bridges meta mark set meta mark | 0x1000000 accept",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!table("brig", [].into_iter(), [].into_iter(), false).contains("elements"));
    }
}
