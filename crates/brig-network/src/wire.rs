//! Putting interfaces into a container: the kernel's side of connecting a sandbox.
//!
//! Everything here blocks. The veth pair is created with its other end in the container's
//! namespace; what has to be done inside is done on one thread that enters it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use crate::dns::{ResolverSockets, SERVER_ADDRESS};
use crate::error::NetworkError;
use crate::mac::MacAddr;
use crate::netlink::NetfilterSocket;
use crate::netlink::nftables::Batch;
use crate::netlink::route::{RouteSocket, VethPair};
use crate::subnet::Ipv4Net;

/// The table inside a container that leads port 53 to its name server.
const RESOLVER_TABLE: &str = "brig_dns";

/// An interface to be.
#[derive(Clone, Debug)]
pub(crate) struct LinkPlan {
    pub(crate) host_name: String,
    pub(crate) container_name: String,
    pub(crate) bridge: String,
    pub(crate) isolated: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: MacAddr,
    pub(crate) ip: Ipv4Addr,
    pub(crate) subnet: Ipv4Net,
    /// The IPv6 address and the length of its prefix.
    pub(crate) v6: Option<(Ipv6Addr, u8)>,
}

/// What is to be done about the default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DefaultRoute {
    /// Through this gateway, on the interface of this name.
    Via(Ipv4Addr, String),
    /// There is no way out.
    None,
}

/// What to do in a container's namespace.
#[derive(Clone, Debug)]
pub(crate) struct SandboxPlan {
    pub(crate) links: Vec<LinkPlan>,
    pub(crate) default_route: DefaultRoute,
    /// The way out of IPv6: the gateway, and the interface's name.
    pub(crate) default_route6: Option<(Ipv6Addr, String)>,
    /// Whether a name server is to be opened.
    pub(crate) resolver: bool,
}

/// Creates the interfaces and sets up the namespace: all of it or nothing.
pub(crate) fn connect(
    ns: BorrowedFd<'_>,
    plan: &SandboxPlan,
) -> Result<Option<ResolverSockets>, NetworkError> {
    let result = try_connect(ns, plan);
    if result.is_err() {
        for link in &plan.links {
            if let Err(error) = remove_veth(&link.host_name) {
                tracing::warn!(link = link.host_name, %error, "an interface was left behind");
            }
        }
    }
    result
}

fn try_connect(
    ns: BorrowedFd<'_>,
    plan: &SandboxPlan,
) -> Result<Option<ResolverSockets>, NetworkError> {
    let mut host = RouteSocket::open().map_err(NetworkError::kernel("cannot open netlink"))?;
    for link in &plan.links {
        create_veth(&mut host, ns, link)?;
    }
    let sockets = brig_sys::ns::in_net(ns, || Ok(set_up_inside(plan)))
        .map_err(NetworkError::kernel("cannot enter the container's network namespace"))??;
    for link in &plan.links {
        let name = &link.container_name;
        host.settle(&link.host_name)
            .and_then(|()| host.settle(&link.bridge))
            .map_err(NetworkError::kernel(format!("cannot bring interface {name} up")))?;
    }
    Ok(sockets)
}

fn create_veth(
    host: &mut RouteSocket,
    ns: BorrowedFd<'_>,
    link: &LinkPlan,
) -> Result<(), NetworkError> {
    let bridge_index = host
        .index_of(&link.bridge)
        .map_err(NetworkError::kernel(format!("cannot find bridge {}", link.bridge)))?;
    host.create_veth(&VethPair {
        host_name: &link.host_name,
        bridge_index,
        isolated: link.isolated,
        mtu: link.mtu,
        container_ns: ns.as_fd(),
        container_name: &link.container_name,
        mac: link.mac,
    })
    .map_err(NetworkError::kernel(format!(
        "cannot create interface {} on bridge {}",
        link.container_name, link.bridge
    )))
}

fn set_up_inside(plan: &SandboxPlan) -> Result<Option<ResolverSockets>, NetworkError> {
    let failed = || NetworkError::kernel("cannot configure the container's network");
    let mut socket = RouteSocket::open().map_err(failed())?;
    socket.loopback_up().map_err(failed())?;
    for link in &plan.links {
        let index = socket.index_of(&link.container_name).map_err(failed())?;
        prepare_interface(&link.container_name, link.v6.is_some());
        let gateway = match &plan.default_route {
            DefaultRoute::Via(gateway, name) if *name == link.container_name => Some(*gateway),
            _ => None,
        };
        socket.configure(index, link.ip, link.subnet, gateway).map_err(failed())?;
        if let Some((ip, prefix_len)) = link.v6 {
            socket.ensure_address6(index, ip, prefix_len).map_err(failed())?;
        }
    }
    apply_route(&mut socket, plan).map_err(failed())?;
    apply_route6(&mut socket, plan).map_err(failed())?;
    plan.resolver.then(|| open_resolver(Batch::new())).transpose()
}

/// The route when it leads over an interface that was there before, or ends.
fn apply_route(socket: &mut RouteSocket, plan: &SandboxPlan) -> io::Result<()> {
    match &plan.default_route {
        DefaultRoute::Via(_, name) if plan.links.iter().any(|l| l.container_name == *name) => {
            Ok(())
        }
        DefaultRoute::Via(gateway, name) => {
            let index = socket.index_of(name)?;
            socket.replace_default_route(*gateway, index)
        }
        // Nothing has been routed in a namespace that only gets its interfaces now.
        DefaultRoute::None if !plan.links.is_empty() => Ok(()),
        DefaultRoute::None => socket.remove_default_route(),
    }
}

fn apply_route6(socket: &mut RouteSocket, plan: &SandboxPlan) -> io::Result<()> {
    match &plan.default_route6 {
        Some((gateway, name)) => {
            let index = socket.index_of(name)?;
            socket.replace_default_route6(*gateway, index)
        }
        None if !plan.links.is_empty() => Ok(()),
        None => socket.remove_default_route6(),
    }
}

/// Settings of a new interface, before it comes up. The files may be missing, then there is nothing
/// to set.
fn prepare_interface(name: &str, ipv6: bool) {
    let settings = [
        // On networks without IPv6 the interface would take part in it by itself.
        (format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), if ipv6 { "0" } else { "1" }),
        // Addresses and routes are ours to give: a neighbour that calls itself a router gets none.
        (format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0"),
        // Its addresses are its own: nobody is asked first, which would take a second.
        (format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0"),
        // Announces the address when it comes up, so that neighbours forget who had it before.
        (format!("/proc/sys/net/ipv4/conf/{name}/arp_notify"), "1"),
    ];
    for (file, value) in settings {
        match std::fs::write(&file, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(file, %error, "a setting of an interface was refused");
            }
            _ => {}
        }
    }
}

fn open_resolver(mut batch: Batch) -> Result<ResolverSockets, NetworkError> {
    let failed = || NetworkError::kernel("cannot open the container's name server");
    let sockets = ResolverSockets::open().map_err(failed())?;
    let ports = sockets.ports().map_err(failed())?;
    batch.add_resolver_table(RESOLVER_TABLE, SERVER_ADDRESS, ports);
    let socket = NetfilterSocket::open().map_err(failed())?;
    batch.commit(&socket).map_err(failed())?;
    Ok(sockets)
}

/// Opens a name server in a namespace that had one before.
pub(crate) fn reopen_resolver(ns: BorrowedFd<'_>) -> Result<ResolverSockets, NetworkError> {
    brig_sys::ns::in_net(ns, || {
        let mut batch = Batch::new();
        batch.remove_table(RESOLVER_TABLE);
        Ok(open_resolver(batch))
    })
    .map_err(NetworkError::kernel("cannot enter the container's network namespace"))?
}

/// Changes the default routes of a running container.
pub(crate) fn set_default_routes(
    ns: BorrowedFd<'_>,
    default_route: DefaultRoute,
    default_route6: Option<(Ipv6Addr, String)>,
) -> Result<(), NetworkError> {
    let plan = SandboxPlan { links: Vec::new(), default_route, default_route6, resolver: false };
    brig_sys::ns::in_net(ns, || {
        let mut socket = RouteSocket::open()?;
        apply_route(&mut socket, &plan)?;
        apply_route6(&mut socket, &plan)
    })
    .map_err(NetworkError::kernel("cannot change the container's default route"))
}

/// Removes a veth pair by its host's end; none is fine.
pub(crate) fn remove_veth(host_name: &str) -> io::Result<()> {
    crate::bridge::remove(host_name)
}
