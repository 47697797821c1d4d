//! The host's packet rules: one nftables table per instance.
//!
//! The table is text for `nft`, loaded as one transaction whenever a network comes or goes; it
//! holds everything, so a load after a restart repairs whatever was changed meanwhile and no
//! published port is unreachable in between. Published ports that come and go with containers are
//! single map elements, added and removed by nfnetlink.

mod coexist;
mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::NetworkError;
use crate::netlink::nftables::{self, Batch, PortKey};
use crate::netlink::{NetfilterSocket, conntrack};
use crate::ports::{PortBound, Protocol, Targets};
use crate::process;
use crate::subnet::{Ipv4Net, Ipv6Net};

/// There on hosts whose kernel speaks IPv6.
const IPV6_PRESENT: &str = "/proc/net/if_inet6";
const MAP_ANY: &str = "ports";
const MAP_ADDRESS: &str = "ports_addr";
/// Ports per transaction: a message to the kernel is limited by the socket's send buffer.
const MAX_BATCH: usize = 400;

/// What the rules need to know about one bridge network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) bridge: String,
    pub(crate) subnet: Ipv4Net,
    pub(crate) subnet6: Option<Ipv6Net>,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) internal: bool,
}

/// The table and what is in it.
#[derive(Debug)]
pub(crate) struct Firewall {
    nft: PathBuf,
    socket: NetfilterSocket,
    table: String,
    bridges: BTreeMap<String, BridgeRules>,
    ports: BTreeMap<PortKey, (IpAddr, u16)>,
    /// Whether another program's FORWARD policy would drop what we accept.
    marked: bool,
}

impl Firewall {
    /// Finds nft. Nothing is loaded until [`Firewall::load`].
    pub(crate) fn new(table: String) -> Result<Self, NetworkError> {
        let nft = process::find("nft")
            .ok_or(NetworkError::MissingProgram { program: "nft", package: "nftables" })?;
        let socket =
            NetfilterSocket::open().map_err(NetworkError::kernel("cannot open netlink"))?;
        Ok(Self {
            nft,
            socket,
            table,
            bridges: BTreeMap::new(),
            ports: BTreeMap::new(),
            marked: false,
        })
    }

    /// Adds or replaces a network; takes effect with the next load.
    pub(crate) fn set_bridge(&mut self, rules: BridgeRules) {
        self.bridges.insert(rules.bridge.clone(), rules);
    }

    /// Forgets a network; takes effect with the next load.
    pub(crate) fn forget_bridge(&mut self, bridge: &str) {
        self.bridges.remove(bridge);
    }

    /// Adds ports that were published before a restart; takes effect with the next load.
    pub(crate) fn set_ports(&mut self, targets: Targets, ports: &[PortBound]) {
        for port in ports {
            match targets.of_port(*port) {
                Some(target) => self.ports.insert(port.key(), (target, port.container_port)),
                None => self.ports.remove(&port.key()),
            };
        }
    }

    /// Forgets ports without touching the kernel; takes effect with the next load.
    pub(crate) fn forget_ports(&mut self, ports: &[PortBound]) {
        for port in ports {
            self.ports.remove(&port.key());
        }
    }

    /// Loads the whole table in one transaction.
    pub(crate) fn load(&mut self) -> Result<(), NetworkError> {
        self.marked = coexist::let_marked_packets_through(render::MARK);
        let text = render::table(
            &self.table,
            self.bridges.values(),
            self.ports.iter().map(|(key, target)| (*key, *target)),
            self.marked,
            Path::new(IPV6_PRESENT).exists(),
        );
        let output = process::run(&self.nft, &["-f", "-"], text.as_bytes())
            .map_err(NetworkError::kernel("cannot run nft"))?;
        if output.success {
            Ok(())
        } else {
            Err(NetworkError::Nft { table: self.table.clone(), message: output.complaint })
        }
    }

    /// Looks whether the rules are still in force, and puts them back if another program has flushed
    /// them, or has set a policy that drops what we accept.
    pub(crate) fn restore(&mut self) -> Result<(), NetworkError> {
        let there = nftables::has_table(&self.socket, &self.table)
            .map_err(NetworkError::kernel("cannot look at the packet rules"))?;
        if !there {
            tracing::warn!(
                table = self.table,
                "another program removed the packet rules; loading them again"
            );
            return self.load();
        }
        let marked = coexist::let_marked_packets_through(render::MARK);
        if marked != self.marked {
            tracing::info!(marked, "another firewall changed what it does with forwarded packets");
            return self.load();
        }
        Ok(())
    }

    /// Removes the table, and the exception beside other firewalls once no instance needs it.
    pub(crate) fn unload(&mut self) -> Result<(), NetworkError> {
        let table = &self.table;
        let mut text = format!("add table ip {table}\ndelete table ip {table}\n");
        if Path::new(IPV6_PRESENT).exists() {
            text.push_str(&format!("add table ip6 {table}\ndelete table ip6 {table}\n"));
        }
        let output = process::run(&self.nft, &["-f", "-"], text.as_bytes())
            .map_err(NetworkError::kernel("cannot run nft"))?;
        if !output.success {
            return Err(NetworkError::Nft { table: table.clone(), message: output.complaint });
        }
        let tables = process::run(&self.nft, &["list", "tables", "ip"], &[])
            .map_err(NetworkError::kernel("cannot run nft"))?;
        if !tables.text.lines().any(|line| line.starts_with("table ip brig")) {
            coexist::withdraw(render::MARK);
        }
        Ok(())
    }

    /// Publishes a container's ports: all of them or none.
    pub(crate) fn publish(&mut self, targets: Targets, ports: &[PortBound]) -> io::Result<()> {
        let result = self.in_batches(ports, |batch, table, port| {
            if let Some(target) = targets.of_port(port) {
                batch.add_port(table, map_of(port.key()), port.key(), target, port.container_port);
            }
        });
        self.set_ports(targets, ports);
        if result.is_err() {
            self.unpublish(ports)?;
        }
        result
    }

    /// Leads published ports to another address, without a moment in which they lead nowhere.
    pub(crate) fn redirect(&mut self, targets: Targets, ports: &[PortBound]) -> io::Result<()> {
        let known: BTreeSet<PortKey> = self.ports.keys().copied().collect();
        let result = self.in_batches(ports, |batch, table, port| {
            if known.contains(&port.key()) {
                batch.remove_port(table, map_of(port.key()), port.key());
            }
            if let Some(target) = targets.of_port(port) {
                batch.add_port(table, map_of(port.key()), port.key(), target, port.container_port);
            }
        });
        if result.is_ok() {
            self.set_ports(targets, ports);
        }
        result
    }

    /// Takes a container's ports back. What is gone already is fine.
    pub(crate) fn unpublish(&mut self, ports: &[PortBound]) -> io::Result<()> {
        let known = |port: &&PortBound| self.ports.contains_key(&port.key());
        let ports: Vec<PortBound> = ports.iter().filter(known).copied().collect();
        self.forget_ports(&ports);
        let remove = |batch: &mut Batch, table: &str, port: PortBound| {
            batch.remove_port(table, map_of(port.key()), port.key());
        };
        match self.in_batches(&ports, remove) {
            // Some were never there or somebody flushed a map: remove what is left one by one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for port in ports {
                    match self.in_batches(&[port], remove) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Applies a change per port; a batch is all or nothing, and almost everybody's ports fit one.
    fn in_batches(
        &self,
        ports: &[PortBound],
        change: impl Fn(&mut Batch, &str, PortBound),
    ) -> io::Result<()> {
        self.change_rules(ports, change)?;
        // Rules are only asked about the first packet of a connection, and UDP has no end: clients
        // that go on sending would be led where the port led before.
        let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
        let keys: Vec<PortKey> = udp.map(|port| port.key()).collect();
        if !keys.is_empty()
            && let Err(error) = conntrack::forget_udp(&self.socket, &keys)
        {
            tracing::warn!(%error, "cannot forget former UDP connections of a port");
        }
        Ok(())
    }

    fn change_rules(
        &self,
        ports: &[PortBound],
        change: impl Fn(&mut Batch, &str, PortBound),
    ) -> io::Result<()> {
        for ports in ports.chunks(MAX_BATCH) {
            let mut batch = Batch::new();
            for port in ports {
                change(&mut batch, &self.table, *port);
            }
            batch.commit(&self.socket)?;
        }
        Ok(())
    }
}

const fn map_of(key: PortKey) -> &'static str {
    match key.address {
        None => MAP_ANY,
        Some(_) => MAP_ADDRESS,
    }
}
