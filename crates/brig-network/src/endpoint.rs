//! A container's attachment to a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use brig_types::id::{ContainerId, EndpointId, NetworkId};
use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;
use crate::spec::Driver;

/// A request to attach a container to a network.
#[derive(Clone, Debug, Default)]
pub struct EndpointRequest {
    /// The network's name, id or prefix of its id; `default` means `bridge`.
    pub network: String,
    /// A fixed address.
    pub ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A fixed Ethernet address; derived from the address by default.
    pub mac: Option<MacAddr>,
    /// The container's name, without a slash.
    pub container_name: String,
    /// The container's host name; a name that others find it by.
    pub hostname: Option<String>,
    /// More names on this network.
    pub aliases: Vec<String>,
    /// Names that this container alone has for others, each with the name that they go by.
    pub links: Vec<(String, String)>,
    /// Which network gives the default route: the highest priority, then the first name.
    pub priority: i32,
}

/// A container's attachment to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network.
    pub network_id: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// The network's driver.
    pub driver: Driver,
    /// The attachment's own id.
    pub endpoint_id: EndpointId,
    /// The container's address; `host` and `none` have none.
    pub ip: Option<Ipv4Addr>,
    /// Length of the subnet's prefix; zero without an address.
    pub prefix_len: u8,
    /// The network's way out; internal networks have none.
    pub gateway: Option<Ipv4Addr>,
    /// The IPv6 side, on networks that have one.
    #[serde(default)]
    pub v6: Option<Address6>,
    /// The interface's Ethernet address.
    pub mac: Option<MacAddr>,
    /// The container's name.
    pub container_name: String,
    /// Its host name, if it has one of its own.
    pub hostname: Option<String>,
    /// More names, as they were asked for.
    pub aliases: Vec<String>,
    /// See [`EndpointRequest::links`].
    #[serde(default)]
    pub links: Vec<(String, String)>,
    /// See [`EndpointRequest::priority`].
    pub priority: i32,
    /// The veth pair, once there is one.
    pub interface: Option<Interface>,
}

/// An IPv6 address of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address6 {
    /// The address.
    pub ip: Ipv6Addr,
    /// Length of the subnet's prefix.
    pub prefix_len: u8,
    /// The network's way out; internal networks have none.
    pub gateway: Option<Ipv6Addr>,
}

/// The two ends of a container's veth pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The name in the container, such as `eth0`.
    pub name: String,
    /// The name at the host, such as `veth1a2b3c4`.
    pub host: String,
}

impl Endpoint {
    /// The addresses of both families.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let (four, six) = (self.ip.map(IpAddr::V4), self.v6.map(|v6| IpAddr::V6(v6.ip)));
        four.into_iter().chain(six)
    }

    /// Every name that finds this endpoint, as docker orders them: the container's name, its
    /// aliases, its short id, its host name.
    #[must_use]
    pub fn dns_names(&self, container: &ContainerId) -> Vec<String> {
        let mut names = Vec::with_capacity(self.aliases.len() + 3);
        let all = std::iter::once(self.container_name.as_str())
            .chain(self.aliases.iter().map(String::as_str))
            .chain(std::iter::once(container.short()))
            .chain(self.hostname.as_deref());
        for name in all {
            if !name.is_empty() && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

/// The endpoint whose network gives the default route and takes the published ports.
pub(crate) fn gateway_endpoint(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    by_priority(endpoints).into_iter().find(|endpoint| endpoint.gateway.is_some())
}

/// The endpoint whose network gives the default route of IPv6.
pub(crate) fn gateway6_endpoint(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    let has = |endpoint: &&Endpoint| endpoint.v6.is_some_and(|v6| v6.gateway.is_some());
    by_priority(endpoints).into_iter().find(has)
}

/// The endpoints in the order in which names are looked up and gateways chosen.
pub(crate) fn by_priority(endpoints: &[Endpoint]) -> Vec<&Endpoint> {
    let mut sorted: Vec<&Endpoint> = endpoints.iter().collect();
    sorted.sort_by(|a, b| {
        b.priority.cmp(&a.priority).then_with(|| a.network_name.cmp(&b.network_name))
    });
    sorted
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn endpoint(network: &str, priority: i32, gateway: bool) -> Endpoint {
        Endpoint {
            network_id: NetworkId::generate(),
            network_name: network.to_owned(),
            driver: Driver::Bridge,
            endpoint_id: EndpointId::generate(),
            ip: Some(Ipv4Addr::new(172, 18, 0, 2)),
            prefix_len: 16,
            gateway: gateway.then_some(Ipv4Addr::new(172, 18, 0, 1)),
            v6: None,
            mac: None,
            container_name: "web".to_owned(),
            hostname: None,
            aliases: Vec::new(),
            links: Vec::new(),
            priority,
            interface: None,
        }
    }

    #[test]
    fn the_gateway_is_the_first_by_priority_and_name() {
        let name = |endpoints: &[Endpoint]| {
            gateway_endpoint(endpoints).map(|endpoint| endpoint.network_name.clone())
        };
        let (a, b) = (endpoint("a", 0, true), endpoint("b", 0, true));
        assert_eq!(name(&[b.clone(), a.clone()]).as_deref(), Some("a"));
        assert_eq!(name(&[a, endpoint("c", 1, true)]).as_deref(), Some("c"));
        assert_eq!(name(&[endpoint("inner", 9, false), b]).as_deref(), Some("b"));
        assert_eq!(name(&[endpoint("inner", 9, false)]), None);
    }

    #[test]
    fn names_come_once() {
        let container = ContainerId::generate();
        let mut web = endpoint("a", 0, true);
        web.aliases = vec!["www".to_owned(), "web".to_owned()];
        web.hostname = Some(container.short().to_owned());
        assert_eq!(web.dns_names(&container), ["web", "www", container.short()]);
    }
}
