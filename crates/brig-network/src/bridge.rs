//! Linux bridges: choosing subnets for them, creating, removing.

use std::io;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

use brig_types::id::NetworkId;

use crate::error::NetworkError;
use crate::mac::MacAddr;
use crate::netlink::route::{Link, RouteSocket};
use crate::spec::{BridgeSettings, Ipam};
use crate::subnet::{Ipv4Net, Ipv6Net};

/// Address of the lock; abstract addresses are per network namespace, just as subnets are.
const LOCK_NAME: &[u8] = b"brig-subnet-allocation";
const LOCK_ATTEMPTS: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A range that networks without a subnet get theirs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole range.
    pub base: Ipv4Net,
    /// Length of the prefix of each subnet.
    pub size: u8,
}

/// Docker's pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and on.
#[must_use]
pub fn default_pools() -> Vec<AddressPool> {
    let mut pools: Vec<AddressPool> = (17..=31)
        .map(|second| AddressPool {
            base: Ipv4Net::new(Ipv4Addr::new(172, second, 0, 0), 16),
            size: 16,
        })
        .collect();
    pools.push(AddressPool { base: Ipv4Net::new(Ipv4Addr::new(192, 168, 0, 0), 16), size: 20 });
    pools
}

/// Keeps other daemons in this network namespace from choosing a subnet at the same time.
#[derive(Debug)]
pub(crate) struct SubnetLock {
    _listener: UnixListener,
}

impl SubnetLock {
    pub(crate) fn acquire() -> Result<Self, NetworkError> {
        let failed = || NetworkError::kernel("cannot lock the allocation of subnets");
        let address = SocketAddr::from_abstract_name(LOCK_NAME).map_err(failed())?;
        for _ in 0..LOCK_ATTEMPTS {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Self { _listener: listener }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(failed()(error)),
            }
        }
        Err(failed()(io::ErrorKind::TimedOut.into()))
    }
}

/// Chooses the first subnet of the pools that overlaps neither our networks nor anything that the
/// host has an address in or a route to.
pub(crate) fn choose_subnet(
    pools: &[AddressPool],
    ours: &[Ipv4Net],
    _lock: &SubnetLock,
) -> Result<Ipv4Net, NetworkError> {
    let mut taken = ours.to_vec();
    let read = || -> io::Result<Vec<Ipv4Net>> {
        let mut socket = RouteSocket::open()?;
        let mut nets = socket.routed_subnets()?;
        nets.extend(socket.addresses()?.into_iter().map(|(_, _, subnet)| subnet));
        Ok(nets)
    };
    taken.extend(read().map_err(NetworkError::kernel("cannot list the host's routes"))?);
    first_free(pools, &taken).ok_or(NetworkError::PoolsExhausted)
}

fn first_free(pools: &[AddressPool], taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    pools
        .iter()
        .flat_map(|pool| pool.base.subnets(pool.size))
        .find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
}

/// Refuses a chosen subnet that one of our networks or an interface of the host is in, and says
/// which. `flag` is what chooses another one.
pub(crate) fn check_subnet(
    subnet: Ipv4Net,
    ours: &[Ipv4Net],
    flag: &str,
) -> Result<(), NetworkError> {
    let another = || format!("choose another subnet with {flag}");
    if let Some(other) = ours.iter().find(|other| other.overlaps(subnet)) {
        return Err(NetworkError::OverlapWith {
            subnet: subnet.to_string(),
            other: format!("a network that has {other}"),
            advice: format!("`docker network ls` lists them; {}", another()),
        });
    }
    let list = || -> io::Result<_> {
        let mut socket = RouteSocket::open()?;
        Ok((socket.addresses()?, socket.links()?))
    };
    let (addresses, links) =
        list().map_err(NetworkError::kernel("cannot list the host's addresses"))?;
    let Some((index, _, net)) = addresses.into_iter().find(|(_, _, net)| net.overlaps(subnet))
    else {
        return Ok(());
    };
    let link = links.into_iter().find(|link| link.index == index);
    let name = link.as_ref().map_or_else(|| format!("number {index}"), |link| link.name.clone());
    let left_behind = link.and_then(|link| link.alias).is_some_and(|a| a.starts_with("brig:"));
    let advice = match left_behind {
        true => format!(
            "it belongs to another brigd, or to an earlier one whose data root is gone: if nobody needs it, remove it with `ip link delete {name}`; or {}",
            another()
        ),
        false => another(),
    };
    let other = format!("interface {name}, which has {net}");
    Err(NetworkError::OverlapWith { subnet: subnet.to_string(), other, advice })
}

/// Refuses a chosen IPv6 subnet that one of our networks has.
pub(crate) fn check_subnet6(subnet: Ipv6Net, ours: &[Ipv6Net]) -> Result<(), NetworkError> {
    match ours.iter().find(|other| other.overlaps(subnet)) {
        None => Ok(()),
        Some(other) => Err(NetworkError::OverlapWith {
            subnet: subnet.to_string(),
            other: format!("a network that has {other}"),
            advice: "`docker network ls` lists them; choose another subnet with --subnet"
                .to_owned(),
        }),
    }
}

/// Removes the bridges of this instance that no network of it has and that nothing is plugged into:
/// an earlier daemon of the same data root made them before its data was deleted.
pub(crate) fn remove_left_behind(
    instance: &str,
    known: impl Fn(&NetworkId) -> bool,
) -> Result<(), NetworkError> {
    let failed = || NetworkError::kernel("cannot list the host's interfaces");
    let mut socket = RouteSocket::open().map_err(failed())?;
    let links = socket.links().map_err(failed())?;
    for link in &links {
        let foreign = network_of_alias(instance, link).is_none_or(|network| known(&network));
        let in_use = links.iter().any(|port| port.bridge == Some(link.index));
        if foreign {
            continue;
        }
        if in_use {
            tracing::warn!(
                bridge = link.name,
                "a bridge of an earlier brigd, whose data is gone, still has containers"
            );
            continue;
        }
        tracing::info!(
            bridge = link.name,
            "removing a bridge of an earlier brigd whose data is gone"
        );
        if let Err(error) = socket.remove_link(link.index) {
            tracing::warn!(bridge = link.name, %error, "a bridge was left behind");
        }
    }
    Ok(())
}

/// The mark in a bridge's alias that says whose it is.
pub(crate) fn alias(instance: &str, network: &NetworkId) -> String {
    format!("{}{network}", alias_prefix(instance))
}

fn alias_prefix(instance: &str) -> String {
    format!("brig:{instance}:")
}

/// The network that a bridge of this instance was made for.
pub(crate) fn network_of_alias(instance: &str, link: &Link) -> Option<NetworkId> {
    let id = link.alias.as_deref()?.strip_prefix(alias_prefix(instance).as_str())?;
    NetworkId::parse(id).ok()
}

/// Creates the bridge, or repairs the one that is there.
pub(crate) fn ensure(
    instance: &str,
    network: &NetworkId,
    settings: &BridgeSettings,
    ipam: &Ipam,
) -> Result<(), NetworkError> {
    let name = settings.name.as_str();
    let failed = || NetworkError::kernel(format!("cannot create bridge {name}"));
    let alias = alias(instance, network);
    let mut socket = RouteSocket::open().map_err(failed())?;
    match socket.create_bridge(name, stable_mac(network), settings.mtu) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let links = socket.links().map_err(failed())?;
            let ours = links
                .iter()
                .any(|link| link.name == name && link.alias.as_deref() == Some(alias.as_str()));
            if !ours {
                return Err(NetworkError::BridgeNameTaken(name.to_owned()));
            }
        }
        Err(error) => return Err(failed()(error)),
    }
    let result = configure(&mut socket, &alias, settings, ipam).map_err(failed());
    if result.is_err() {
        let _ = remove(name);
    }
    result
}

fn configure(
    socket: &mut RouteSocket,
    alias: &str,
    settings: &BridgeSettings,
    ipam: &Ipam,
) -> io::Result<()> {
    let index = socket.index_of(&settings.name)?;
    if ipam.v6.is_some() {
        // Before it comes up: its own link's address is what asks for neighbours, and must not wait
        // a second for somebody else to claim it.
        for (setting, value) in [("disable_ipv6", "0"), ("accept_dad", "0")] {
            let file: PathBuf =
                ["/proc/sys/net/ipv6/conf", &settings.name, setting].iter().collect();
            std::fs::write(file, value)?;
        }
    }
    // The alias first: it is what tells a later start that this bridge is ours.
    socket.set_alias_and_up(index, alias, settings.mtu)?;
    for (at, address, subnet) in socket.addresses()? {
        if at == index && (address != ipam.gateway || subnet != ipam.subnet) {
            socket.remove_address(at, address, subnet)?;
        }
    }
    socket.ensure_address(index, ipam.gateway, ipam.subnet)?;
    // Published ports are reachable at the host's loopback address.
    let sysctl: PathBuf =
        ["/proc/sys/net/ipv4/conf", &settings.name, "route_localnet"].iter().collect();
    std::fs::write(sysctl, "1")?;
    if let Some(v6) = &ipam.v6 {
        socket.ensure_address6(index, v6.gateway, v6.subnet.prefix_len())?;
        enable_forwarding6()?;
    }
    Ok(())
}

/// Lets the host forward packets of IPv6. Unlike for IPv4 that is done for the first network that
/// needs it only: a host that forwards no longer takes its own addresses from routers, unless
/// accept_ra is 2.
fn enable_forwarding6() -> io::Result<()> {
    const FILE: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
    if std::fs::read_to_string(FILE)?.trim() == "1" {
        return Ok(());
    }
    for item in std::fs::read_dir("/proc/sys/net/ipv6/conf")?.flatten() {
        let accept = item.path().join("accept_ra");
        if std::fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1") {
            std::fs::write(&accept, "2")?;
        }
    }
    std::fs::write(FILE, "1")
}

/// Removes a bridge; none is fine.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let mut socket = RouteSocket::open()?;
    match socket.index_of(name) {
        Ok(index) => socket.remove_link(index),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Lets the host forward packets.
pub(crate) fn enable_forwarding() -> Result<(), NetworkError> {
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    let failed = || NetworkError::kernel("cannot enable IPv4 forwarding");
    if std::fs::read_to_string(FILE).map_err(failed())?.trim() != "1" {
        std::fs::write(FILE, "1").map_err(failed())?;
    }
    Ok(())
}

/// Without an address of its own a bridge takes that of a port, which changes with every container.
fn stable_mac(network: &NetworkId) -> MacAddr {
    let digits = network.as_str().get(..8).unwrap_or_default();
    let bits = u32::from_str_radix(digits, 16).unwrap_or(1);
    MacAddr::from_ip(Ipv4Addr::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_dockers() {
        let pools = default_pools();
        assert_eq!(first_free(&pools, &[]), "172.17.0.0/16".parse().ok());
        let taken = ["172.16.0.0/14".parse().unwrap()];
        assert_eq!(first_free(&pools, &taken), "172.20.0.0/16".parse().ok());
        let taken = ["172.16.0.0/12".parse().unwrap(), "192.168.1.0/24".parse().unwrap()];
        assert_eq!(first_free(&pools, &taken), "192.168.16.0/20".parse().ok());
        let taken = ["0.0.0.0/0".parse().unwrap()];
        assert_eq!(first_free(&pools, &taken), None);
    }

    #[test]
    fn an_alias_belongs_to_one_instance() {
        let id = NetworkId::generate();
        let link = |alias: String| Link {
            index: 1,
            name: "b".to_owned(),
            bridge: None,
            alias: Some(alias),
            kind: None,
        };
        assert_eq!(network_of_alias("a1", &link(alias("a1", &id))), Some(id.clone()));
        assert_eq!(network_of_alias("", &link(alias("a1", &id))), None);
        assert_eq!(network_of_alias("a1", &link("docker".to_owned())), None);
    }
}
