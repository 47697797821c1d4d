//! What is known in memory: networks, their addresses, and what each container has.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use brig_types::id::{ContainerId, EndpointId, NetworkId};
use tokio::time::Instant;

use crate::dns::{Resolver, Scope};
use crate::endpoint::{Address6, Endpoint, EndpointRequest, by_priority};
use crate::error::NetworkError;
use crate::ipam::{AddressPool, TakeError};
use crate::mac::MacAddr;
use crate::ports::{HeldPort, PortBound, Targets};
use crate::spec::{BRIDGE, DEFAULT, Driver, NetworkRecord};
use crate::store::SandboxRecord;
use crate::subnet::{Ipv4Net, Ipv6Net};

/// A network and its addresses.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) record: NetworkRecord,
    pool: Option<AddressPool<Ipv4Addr>>,
    pool6: Option<AddressPool<Ipv6Addr>>,
}

/// What a container has.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    /// In the order in which they were reserved, which is that of the interfaces' names.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Whether the interfaces are there.
    pub(crate) connected: bool,
    pub(crate) ports: Vec<HeldPort>,
    pub(crate) ports_endpoint: Option<EndpointId>,
    pub(crate) dns_servers: Vec<IpAddr>,
    pub(crate) resolver: Option<Resolver>,
    /// Whether a name server was ever opened inside: the container's resolv.conf names it then, so
    /// it stays for as long as the container runs, whatever networks are left.
    pub(crate) resolves: bool,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) networks: BTreeMap<NetworkId, Network>,
    pub(crate) sandboxes: HashMap<ContainerId, Sandbox>,
}

impl Network {
    pub(crate) fn new(record: NetworkRecord) -> Self {
        let pool = record.ipam.as_ref().map(|ipam| {
            let reserved = ipam.aux_addresses.values().copied().chain([ipam.gateway]);
            AddressPool::<Ipv4Addr>::new(ipam.subnet, ipam.ip_range, reserved)
        });
        let v6 = record.ipam.as_ref().and_then(|ipam| ipam.v6.as_ref());
        let pool6 = v6.map(|ipam| {
            let reserved = ipam.aux_addresses.values().copied().chain([ipam.gateway]);
            AddressPool::<Ipv6Addr>::new(ipam.subnet, ipam.ip_range, reserved)
        });
        Self { record, pool, pool6 }
    }

    /// Finds an address for a request.
    fn address(&mut self, wanted: Option<Ipv4Addr>) -> Result<Option<Ipv4Addr>, NetworkError> {
        let (Some(pool), Some(ipam)) = (&mut self.pool, &self.record.ipam) else {
            return match wanted {
                None => Ok(None),
                Some(_) => Err(NetworkError::AddressOnPredefined),
            };
        };
        let Some(wanted) = wanted else {
            let address =
                pool.allocate(Instant::now()).ok_or_else(|| NetworkError::AddressesExhausted {
                    name: self.record.name.clone(),
                    id: self.record.id.clone(),
                })?;
            return Ok(Some(address));
        };
        if self.record.predefined() {
            return Err(NetworkError::AddressOnPredefined);
        }
        if !ipam.user_subnet {
            return Err(NetworkError::AddressNeedsSubnet);
        }
        match pool.take(wanted) {
            Ok(()) => Ok(Some(wanted)),
            Err(TakeError::Outside) => Err(NetworkError::AddressOutside(wanted.into())),
            Err(TakeError::InUse) => Err(NetworkError::AddressInUse(wanted.into())),
        }
    }

    /// Finds an IPv6 address for a request; networks without have none to give.
    fn address6(&mut self, wanted: Option<Ipv6Addr>) -> Result<Option<Address6>, NetworkError> {
        let v6 = self.record.ipam.as_ref().and_then(|ipam| ipam.v6.as_ref());
        let (Some(pool), Some(ipam)) = (&mut self.pool6, v6) else {
            return match wanted {
                None => Ok(None),
                Some(ip) => Err(NetworkError::NoIpv6 { ip, network: self.record.name.clone() }),
            };
        };
        let ip = match wanted {
            None => {
                pool.allocate(Instant::now()).ok_or_else(|| NetworkError::AddressesExhausted {
                    name: self.record.name.clone(),
                    id: self.record.id.clone(),
                })?
            }
            Some(_) if self.record.predefined() => return Err(NetworkError::AddressOnPredefined),
            Some(_) if !ipam.user_subnet => return Err(NetworkError::AddressNeedsSubnet),
            Some(ip) => match pool.take(ip) {
                Ok(()) => ip,
                Err(TakeError::Outside) => return Err(NetworkError::AddressOutside(ip.into())),
                Err(TakeError::InUse) => return Err(NetworkError::AddressInUse(ip.into())),
            },
        };
        let gateway = (!self.record.internal).then_some(ipam.gateway);
        Ok(Some(Address6 { ip, prefix_len: ipam.subnet.prefix_len(), gateway }))
    }

    fn release(&mut self, address: Option<Ipv4Addr>, v6: Option<Address6>) {
        if let (Some(pool), Some(address)) = (&mut self.pool, address) {
            pool.release(address, Instant::now());
        }
        if let (Some(pool), Some(v6)) = (&mut self.pool6, v6) {
            pool.release(v6.ip, Instant::now());
        }
    }
}

impl State {
    /// Finds a network by id, name or unique prefix of an id, in docker's order.
    pub(crate) fn find(&self, name: &str) -> Result<&Network, NetworkError> {
        let name = if name == DEFAULT { BRIDGE } else { name };
        let by_id = NetworkId::parse(name).ok().and_then(|id| self.networks.get(&id));
        let by_name = || self.networks.values().find(|network| network.record.name == name);
        if let Some(network) = by_id.or_else(by_name) {
            return Ok(network);
        }
        let mut matches = self
            .networks
            .iter()
            .filter(|(id, _)| !name.is_empty() && id.as_str().starts_with(name))
            .map(|(_, network)| network);
        match (matches.next(), matches.count()) {
            (Some(network), 0) => Ok(network),
            (None, _) => Err(NetworkError::NotFound(name.to_owned())),
            (Some(_), more) => {
                Err(NetworkError::Ambiguous { prefix: name.to_owned(), matches: more + 1 })
            }
        }
    }

    /// The subnets of all our networks.
    pub(crate) fn subnets(&self) -> Vec<Ipv4Net> {
        let ipam = |network: &Network| network.record.ipam.as_ref().map(|ipam| ipam.subnet);
        self.networks.values().filter_map(ipam).collect()
    }

    /// The IPv6 subnets of all our networks.
    pub(crate) fn subnets6(&self) -> Vec<Ipv6Net> {
        let v6 = |network: &Network| Some(network.record.ipam.as_ref()?.v6.as_ref()?.subnet);
        self.networks.values().filter_map(v6).collect()
    }

    /// Whether a container has or will have an interface on the network.
    pub(crate) fn in_use(&self, network: &NetworkId) -> bool {
        self.sandboxes
            .values()
            .flat_map(|sandbox| &sandbox.endpoints)
            .any(|endpoint| endpoint.network_id == *network)
    }

    /// Gives a container a place on a network.
    pub(crate) fn reserve(
        &mut self,
        container: &ContainerId,
        request: EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let found = self.find(&request.network)?;
        let (id, driver) = (found.record.id.clone(), found.record.driver);
        let network_name = found.record.name.clone();
        if let Some(sandbox) = self.sandboxes.get(container) {
            if sandbox.endpoints.iter().any(|endpoint| endpoint.network_id == id) {
                return Err(NetworkError::EndpointExists {
                    endpoint: request.container_name,
                    network: network_name,
                });
            }
            let private = |driver: Driver| driver != Driver::Bridge;
            if let Some(other) = sandbox.endpoints.first()
                && (private(driver) || private(other.driver))
            {
                let name = if private(driver) { network_name } else { other.network_name.clone() };
                return Err(NetworkError::PrivateMode(name));
            }
        }
        let network = self
            .networks
            .get_mut(&id)
            .ok_or_else(|| NetworkError::NotFound(request.network.clone()))?;
        let ip = network.address(request.ip)?;
        let v6 = match network.address6(request.ip6) {
            Ok(v6) => v6,
            Err(error) => {
                network.release(ip, None);
                return Err(error);
            }
        };
        let ipam = network.record.ipam.as_ref();
        let endpoint = Endpoint {
            network_id: id,
            network_name,
            driver,
            endpoint_id: EndpointId::generate(),
            ip,
            prefix_len: ipam.map_or(0, |ipam| ipam.subnet.prefix_len()),
            gateway: ipam.filter(|_| !network.record.internal).map(|ipam| ipam.gateway),
            v6,
            mac: ip.map(|ip| request.mac.unwrap_or_else(|| MacAddr::from_ip(ip))),
            container_name: request.container_name,
            hostname: request.hostname,
            aliases: request.aliases,
            links: request.links,
            priority: request.priority,
            interface: None,
        };
        self.sandboxes.entry(container.clone()).or_default().endpoints.push(endpoint.clone());
        Ok(endpoint)
    }

    /// Takes a place that a container had before a restart.
    pub(crate) fn restore(&mut self, endpoint: &Endpoint) -> bool {
        let Some(network) = self.networks.get_mut(&endpoint.network_id) else { return false };
        let taken = match (&mut network.pool, endpoint.ip) {
            (Some(pool), Some(ip)) => pool.take(ip).is_ok(),
            (None, None) => true,
            _ => false,
        };
        if let (true, Some(pool), Some(v6)) = (taken, &mut network.pool6, endpoint.v6) {
            // The other family still works if this one was taken away from the network.
            let _ = pool.take(v6.ip);
        }
        taken
    }

    /// Removes one of a container's endpoints and frees its address.
    pub(crate) fn release(
        &mut self,
        container: &ContainerId,
        endpoint: &EndpointId,
    ) -> Option<Endpoint> {
        let sandbox = self.sandboxes.get_mut(container)?;
        let at = sandbox.endpoints.iter().position(|known| known.endpoint_id == *endpoint)?;
        let removed = sandbox.endpoints.remove(at);
        if sandbox.endpoints.is_empty() && !sandbox.connected {
            self.sandboxes.remove(container);
        }
        self.free_address(&removed);
        Some(removed)
    }

    /// Frees an endpoint's address.
    pub(crate) fn free_address(&mut self, endpoint: &Endpoint) {
        if let Some(network) = self.networks.get_mut(&endpoint.network_id) {
            network.release(endpoint.ip, endpoint.v6);
        }
    }

    /// Where a container's names are looked up: its user-defined networks in their order.
    pub(crate) fn scope(&self, endpoints: &[Endpoint]) -> Scope {
        let mut scope = Scope::default();
        for endpoint in by_priority(endpoints).into_iter().filter(|one| self.has_names(one)) {
            scope.networks.push(endpoint.network_id.clone());
            for (alias, target) in &endpoint.links {
                scope.links.push((alias.to_ascii_lowercase(), target.clone()));
            }
        }
        scope
    }

    /// Whether an endpoint is found by name.
    pub(crate) fn has_names(&self, endpoint: &Endpoint) -> bool {
        self.networks.get(&endpoint.network_id).is_some_and(|network| network.record.has_names())
    }
}

impl Sandbox {
    pub(crate) fn bound_ports(&self) -> Vec<PortBound> {
        self.ports.iter().map(|held| held.bound).collect()
    }

    pub(crate) fn record(&self) -> SandboxRecord {
        SandboxRecord {
            endpoints: self.endpoints.clone(),
            ports: self.bound_ports(),
            ports_endpoint: self.ports_endpoint.clone(),
            dns_servers: self.dns_servers.clone(),
            resolves: self.resolves,
        }
    }

    /// The addresses that the published ports lead to.
    pub(crate) fn ports_target(&self) -> Option<Targets> {
        let id = self.ports_endpoint.as_ref()?;
        Targets::of(self.endpoints.iter().find(|endpoint| endpoint.endpoint_id == *id)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{BridgeSettings, Ipam};

    fn record(name: &str, id: &str, driver: Driver) -> NetworkRecord {
        let bridge = driver == Driver::Bridge;
        NetworkRecord {
            id: NetworkId::parse(&format!("{id:0<64}")).unwrap(),
            name: name.to_owned(),
            driver,
            created_unix_nanos: 0,
            internal: false,
            attachable: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            ipam: bridge.then(|| Ipam {
                v6: None,
                subnet: "10.0.0.0/29".parse().unwrap(),
                ip_range: None,
                gateway: Ipv4Addr::new(10, 0, 0, 1),
                aux_addresses: BTreeMap::new(),
                user_subnet: name == "fixed",
                user_gateway: false,
                options: BTreeMap::new(),
            }),
            bridge: bridge.then(|| BridgeSettings {
                name: "b".to_owned(),
                icc: true,
                masquerade: true,
                host_binding: None,
                mtu: 1500,
            }),
        }
    }

    fn state() -> State {
        let mut state = State::default();
        for record in [
            record("bridge", "aa1", Driver::Bridge),
            record("fixed", "aa2", Driver::Bridge),
            record("free", "ab3", Driver::Bridge),
            record("none", "ac4", Driver::Null),
            record("ab", "ad5", Driver::Bridge),
        ] {
            state.networks.insert(record.id.clone(), Network::new(record));
        }
        state
    }

    fn request(network: &str, ip: Option<Ipv4Addr>) -> EndpointRequest {
        EndpointRequest {
            network: network.to_owned(),
            ip,
            container_name: "web".to_owned(),
            ..EndpointRequest::default()
        }
    }

    #[test]
    fn networks_are_found_as_docker_finds_them() {
        let state = state();
        let name = |query: &str| state.find(query).map(|network| network.record.name.clone());
        assert_eq!(name("default").unwrap(), "bridge");
        assert_eq!(name(&format!("{:0<64}", "aa2")).unwrap(), "fixed");
        assert_eq!(name("ab").unwrap(), "ab");
        assert_eq!(name("ab3").unwrap(), "free");
        assert_eq!(
            name("aa").unwrap_err().to_string(),
            "network aa is ambiguous (2 matches found on ID prefix)"
        );
        for missing in ["", "nope"] {
            assert_eq!(
                name(missing).unwrap_err().to_string(),
                format!("network {missing} not found")
            );
        }
    }

    #[test]
    fn fixed_addresses_need_a_users_subnet() {
        let mut state = state();
        let ip = Some(Ipv4Addr::new(10, 0, 0, 5));
        let mut text = |network: &str, ip| {
            let container = ContainerId::generate();
            state.reserve(&container, request(network, ip)).unwrap_err().to_string()
        };
        assert_eq!(
            text("free", ip),
            "user specified IP address is supported only when connecting to networks with user \
             configured subnets"
        );
        assert_eq!(
            text("bridge", ip),
            "user specified IP address is supported on user defined networks only"
        );
        assert!(text("fixed", Some(Ipv4Addr::new(10, 9, 0, 5))).contains("10.9.0.5"));
        let container = ContainerId::generate();
        let endpoint = state.reserve(&container, request("fixed", ip)).unwrap();
        assert_eq!(endpoint.ip, ip);
        assert_eq!(endpoint.mac.unwrap().to_string(), "02:42:0a:00:00:05");
        let other = ContainerId::generate();
        let error = state.reserve(&other, request("fixed", ip)).unwrap_err();
        assert_eq!(error.to_string(), "Address already in use");
        assert!(!state.sandboxes.contains_key(&other));
    }

    #[test]
    fn one_endpoint_per_network_and_none_is_alone() {
        let mut state = state();
        let container = ContainerId::generate();
        state.reserve(&container, request("free", None)).unwrap();
        assert!(matches!(
            state.reserve(&container, request("free", None)),
            Err(NetworkError::EndpointExists { .. })
        ));
        assert!(matches!(
            state.reserve(&container, request("none", None)),
            Err(NetworkError::PrivateMode(_))
        ));
        state.reserve(&container, request("fixed", None)).unwrap();
    }

    #[test]
    fn what_is_released_is_free_again() {
        let mut state = state();
        let container = ContainerId::generate();
        let mut last = None;
        for _ in 0..20 {
            let endpoint = state.reserve(&container, request("free", None)).unwrap();
            assert!(state.in_use(&endpoint.network_id));
            state.release(&container, &endpoint.endpoint_id).unwrap();
            last = Some(endpoint);
        }
        assert!(state.sandboxes.is_empty());
        let last = last.unwrap();
        assert!(!state.in_use(&last.network_id));
        assert!(state.restore(&last));
        assert!(!state.restore(&last));
    }
}
