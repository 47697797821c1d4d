//! The table as text for `nft -f`. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

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
///
/// IPv6 has a table of the same name of its own, where any network has IPv6: bridges without it are
/// in it too, so that nothing is forwarded for them.
pub(super) fn table<'a>(
    table: &str,
    bridges: impl Iterator<Item = &'a BridgeRules>,
    ports: impl Iterator<Item = (PortKey, (IpAddr, u16))>,
    marked: bool,
    ipv6: bool,
) -> String {
    let (mut four, mut six) = (Sets::default(), Sets::default());
    let mut wants_six = false;
    for rules in bridges {
        wants_six |= rules.subnet6.is_some();
        four.add(rules, Some(rules.subnet.to_string()));
        six.add(rules, rules.subnet6.map(|subnet| subnet.to_string()));
    }
    for (key, target) in ports {
        if key.v6 { &mut six } else { &mut four }.add_port(key, target);
    }
    let mut text = family(&FOUR, table, &four, marked);
    if ipv6 {
        let _ = write!(text, "add table ip6 {table}\ndelete table ip6 {table}\n");
    }
    if ipv6 && wants_six {
        text.push_str(&family(&SIX, table, &six, marked));
    }
    text
}

/// What differs between the tables of the two families.
struct Family {
    name: &'static str,
    address: &'static str,
    /// Rules that keep the host's loopback addresses from containers.
    loopback: &'static str,
    local: &'static str,
    /// Rules for addresses of the host whose packets the kernel does not lead out.
    unroutable: &'static str,
}

const FOUR: Family = Family {
    name: "ip",
    address: "ipv4_addr",
    loopback:
        "        # Bridges route to the host's loopback addresses, which containers must not reach.
        iifname @bridges ip daddr 127.0.0.0/8 drop
        iifname @bridges ip saddr 127.0.0.0/8 drop
",
    local: "127.0.0.0/8",
    unroutable: "",
};

const SIX: Family = Family {
    name: "ip6",
    address: "ipv6_addr",
    loopback: "",
    local: "::1",
    // Answers to ::1 that come in by a bridge find no route; without this rule whoever tries it
    // first, as for "localhost", would wait instead of being refused and going on to 127.0.0.1.
    unroutable: "        ip6 daddr ::1 return\n",
};

fn family(family: &Family, table: &str, sets: &Sets, marked: bool) -> String {
    let Family { name, address: kind, loopback, local, unroutable } = family;
    let accept = match marked {
        true => format!("meta mark set meta mark | {MARK:#x} accept"),
        false => "accept".to_owned(),
    };
    // Marks have to be there before the chain that looks at them.
    let forward_priority = if marked { "filter - 5" } else { "filter" };
    format!(
        "add table {name} {table}
delete table {name} {table}
table {name} {table} {{
    # Our bridges; those whose containers may talk to each other, as pairs; those without a way out.
    set bridges {{ type ifname; {bridges} }}
    set same {{ type ifname . ifname; {same} }}
    set internal {{ type ifname; {internal} }}
    # All subnets, and those that are hidden behind the host's address.
    set subnets {{ type {kind}; flags interval; {subnets} }}
    set hidden {{ type {kind}; flags interval; {hidden} }}
    # Published ports, at every address of the host and at one of them.
    map {MAP_ANY} {{ type inet_proto . inet_service : {kind} . inet_service; {any} }}
    map {MAP_ADDRESS} {{ type {kind} . inet_proto . inet_service : {kind} . inet_service; {address} }}

    chain raw {{
        type filter hook prerouting priority raw; policy accept;
{loopback}    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump publish
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
{unroutable}        fib daddr type local jump publish
    }}
    chain publish {{
        dnat {name} to {name} daddr . meta l4proto . th dport map @{MAP_ADDRESS}
        dnat {name} to meta l4proto . th dport map @{MAP_ANY}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {name} saddr @hidden oifname != @bridges masquerade
        # Answers to the host's own loopback and to a container that used a published port of its
        # own network have to come back through the host.
        {name} saddr {local} oifname @bridges masquerade
        {name} saddr @subnets oifname @bridges ct status dnat masquerade
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
    /// A bridge without a subnet of the family has no way out by it.
    fn add(&mut self, rules: &BridgeRules, subnet: Option<String>) {
        let name = format!("\"{}\"", rules.bridge);
        if rules.icc {
            self.same.push(format!("{name} . {name}"));
        }
        match (&subnet, rules.internal) {
            (None, _) | (_, true) => self.internal.push(name.clone()),
            (Some(subnet), false) if rules.masquerade => self.hidden.push(subnet.clone()),
            (Some(_), false) => {}
        }
        self.subnets.extend(subnet);
        self.bridges.push(name);
    }

    fn add_port(&mut self, key: PortKey, (target, port): (IpAddr, u16)) {
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
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::ports::Protocol;

    #[test]
    fn every_kind_of_network_is_in_its_sets() {
        let rules = |bridge: &str, subnet: &str| BridgeRules {
            bridge: bridge.to_owned(),
            subnet: subnet.parse().unwrap(),
            subnet6: None,
            icc: true,
            masquerade: true,
            internal: false,
        };
        let open = rules("brig0", "172.17.0.0/16");
        let inner = BridgeRules { internal: true, icc: false, ..rules("br-1", "172.18.0.0/16") };
        let ports = [
            (
                PortKey { v6: false, address: None, protocol: Protocol::Tcp, port: 8080 },
                (Ipv4Addr::new(172, 17, 0, 2).into(), 80),
            ),
            (
                PortKey {
                    v6: false,
                    address: Some(Ipv4Addr::LOCALHOST.into()),
                    protocol: Protocol::Udp,
                    port: 53,
                },
                (Ipv4Addr::new(172, 17, 0, 3).into(), 5353),
            ),
        ];
        let text = table("brig", [&open, &inner].into_iter(), ports.into_iter(), true, true);
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
        assert!(!text.contains("table ip6 brig {"), "nobody has IPv6");
        assert!(!table("brig", [].into_iter(), [].into_iter(), false, true).contains("elements"));
    }

    #[test]
    fn the_other_family_has_a_table_of_its_own() {
        let rules = |bridge: &str, subnet6: Option<&str>| BridgeRules {
            bridge: bridge.to_owned(),
            subnet: "172.17.0.0/16".parse().unwrap(),
            subnet6: subnet6.map(|subnet| subnet.parse().unwrap()),
            icc: true,
            masquerade: true,
            internal: false,
        };
        let (plain, dual) = (rules("brig0", None), rules("br-6", Some("fd00::/64")));
        let key = PortKey { v6: true, address: None, protocol: Protocol::Tcp, port: 80 };
        let target = "fd00::2".parse::<Ipv6Addr>().unwrap();
        let ports = || [(key, (target.into(), 8080))].into_iter();
        let text = table("brig", [&plain, &dual].into_iter(), ports(), false, true);
        let (four, six) = text.split_once("table ip6 brig {").unwrap();
        for line in [
            "set internal { type ifname; elements = { \"brig0\" }; }",
            "set hidden { type ipv6_addr; flags interval; elements = { fd00::/64 }; }",
            "elements = { tcp . 80 : fd00::2 . 8080 };",
            "ip6 daddr ::1 return",
        ] {
            assert!(six.contains(line) && !four.contains(line), "{line} is not in\n{six}");
        }
        // A kernel without IPv6 is not asked for any of it.
        let text = table("brig", [&plain, &dual].into_iter(), ports(), false, false);
        assert!(!text.contains("ip6"));
    }
}
