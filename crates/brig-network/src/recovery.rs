//! Starting: what the last run left is taken over, what nobody needs is removed.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use brig_sys::ns::{self, NsKind};
use brig_types::error::chain;
use brig_types::id::{ContainerId, NetworkId};

use crate::bridge::{self, SubnetLock};
use crate::error::NetworkError;
use crate::firewall::Firewall;
use crate::netlink::route::RouteSocket;
use crate::networks::{Inner, NetworkConfig, Networks, ensure_bridge, joined, now_nanos, rules};
use crate::ports::PortRegistry;
use crate::sandbox::release_sandbox;
use crate::spec::{BRIDGE, Driver, HOST, Ipam, Ipam6, NONE, NetworkRecord, NetworkSpec};
use crate::state::{Network, Sandbox, State};
use crate::store::Store;
use crate::subnet::Ipv6Net;
use crate::wire;

/// How often the packet rules are looked at.
const GUARD_INTERVAL: Duration = Duration::from_secs(5);

impl Networks {
    /// Starts the network service: bridges and rules are there when it returns, and published ports
    /// of containers that kept running never stopped leading to them.
    ///
    /// # Errors
    /// When a program is missing, the state cannot be read, or the kernel refuses.
    pub async fn start(config: NetworkConfig) -> Result<Self, NetworkError> {
        let inner = joined(tokio::task::spawn_blocking(move || open(config)).await)?;
        let networks = Self { inner: Arc::new(inner) };
        let guard = Arc::clone(&networks.inner);
        networks.inner.tracker.spawn(async move { guard_rules(&guard).await });
        Ok(networks)
    }

    /// Takes over the containers that kept running and drops everything of all others: names are
    /// served again, addresses, ports, rules and interfaces that nobody has are freed.
    ///
    /// To be called once after the start. Returns the containers that could not be taken over, and
    /// why; they keep their interfaces.
    ///
    /// # Errors
    /// When the host's interfaces cannot be listed.
    pub async fn reattach(
        &self,
        running: Vec<(ContainerId, i32)>,
    ) -> Result<Vec<(ContainerId, NetworkError)>, NetworkError> {
        let this = self.clone();
        self.detached(async move { this.take_over(running).await }).await
    }

    async fn take_over(
        &self,
        running: Vec<(ContainerId, i32)>,
    ) -> Result<Vec<(ContainerId, NetworkError)>, NetworkError> {
        let alive: HashSet<&ContainerId> = running.iter().map(|(container, _)| container).collect();
        let dead: Vec<ContainerId> = {
            let state = self.inner.state();
            let connected = state.sandboxes.iter().filter(|(_, sandbox)| sandbox.connected);
            connected.map(|(id, _)| id).filter(|id| !alive.contains(id)).cloned().collect()
        };
        for container in dead {
            let sandbox = self.inner.state().sandboxes.remove(&container);
            if let Some(sandbox) = sandbox {
                self.blocking(move |inner| release_sandbox(inner, &container, sandbox)).await?;
            }
        }
        let mut failed = Vec::new();
        for (container, pid) in running {
            if let Err(error) = self.serve_again(&container, pid).await {
                failed.push((container, error));
            }
        }
        self.blocking(remove_stale_links).await?;
        Ok(failed)
    }

    /// Serves a running container's names again.
    async fn serve_again(&self, container: &ContainerId, pid: i32) -> Result<(), NetworkError> {
        let named = {
            let state = self.inner.state();
            let Some(sandbox) = state.sandboxes.get(container) else {
                tracing::warn!(%container, "a running container has no network record");
                return Ok(());
            };
            self.inner.register_names(&state, container, &sandbox.endpoints);
            // One that has left its last network with names still asks the server inside.
            sandbox.resolves || !state.scope(&sandbox.endpoints).networks.is_empty()
        };
        if !named {
            return Ok(());
        }
        let (ns, sockets) = self
            .blocking(move |_| {
                let ns: OwnedFd = ns::open(pid, NsKind::Net).map_err(NetworkError::kernel(
                    "cannot open the container's network namespace",
                ))?;
                let sockets = wire::reopen_resolver(ns.as_fd())?;
                Ok((Arc::new(ns), sockets))
            })
            .await?;
        let mut state = self.inner.state();
        let Some(sandbox) = state.sandboxes.get(container) else { return Ok(()) };
        let upstreams = self.inner.upstreams(&sandbox.endpoints, &sandbox.dns_servers, Some(&ns));
        let view = state.scope(&sandbox.endpoints);
        let resolver = self
            .inner
            .resolvers
            .start(sockets, view, upstreams)
            .map_err(NetworkError::kernel("cannot serve names"))?;
        if let Some(sandbox) = state.sandboxes.get_mut(container) {
            sandbox.resolver = Some(resolver);
            sandbox.resolves = true;
        }
        Ok(())
    }
}

/// Restores the rules whenever another program has taken them away: `nft flush ruleset` and restarts
/// of other firewalls do, and nobody tells.
async fn guard_rules(inner: &Arc<Inner>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(GUARD_INTERVAL) => {}
            () = inner.stop.cancelled() => return,
        }
        let this = Arc::clone(inner);
        let restored = joined(tokio::task::spawn_blocking(move || this.firewall().restore()).await);
        if let Err(error) = restored {
            tracing::warn!(error = %chain(&error), "the packet rules cannot be looked after");
        }
    }
}

fn open(config: NetworkConfig) -> Result<Inner, NetworkError> {
    config.check()?;
    let store = Store::open(&config.state_dir)?;
    let mut firewall = Firewall::new(config.table_name())?;
    let mut state = State::default();
    for record in store.networks()? {
        state.networks.insert(record.id.clone(), Network::new(record));
    }
    bridge::enable_forwarding()?;
    bridge::remove_left_behind(&config.instance, |id| state.networks.contains_key(id))?;
    for (name, driver) in [(HOST, Driver::Host), (NONE, Driver::Null)] {
        if state.find(name).is_err() {
            let record = predefined(name, driver);
            store.save_network(&record)?;
            state.networks.insert(record.id.clone(), Network::new(record));
        }
    }
    ensure_default_bridge(&config, &store, &mut state)?;
    for network in state.networks.values() {
        let record = &network.record;
        if let Err(error) = ensure_bridge(&config.instance, record) {
            if record.predefined() {
                return Err(error);
            }
            // The others can still work; containers of this one will say what is wrong.
            tracing::error!(network = record.name, error = %chain(&error), "a network is broken");
        }
        if let Some(rules) = rules(record) {
            firewall.set_bridge(rules);
        }
    }
    let ports = PortRegistry::default();
    restore_sandboxes(&store, &mut state, &mut firewall, &ports)?;
    firewall.load()?;
    Ok(Inner::new(config, store, state, firewall, ports))
}

fn predefined(name: &str, driver: Driver) -> NetworkRecord {
    NetworkRecord {
        id: NetworkId::generate(),
        name: name.to_owned(),
        driver,
        created_unix_nanos: now_nanos(),
        internal: false,
        attachable: false,
        labels: Default::default(),
        options: Default::default(),
        ipam: None,
        bridge: None,
    }
}

/// Makes sure that there is a default bridge with the configured name and subnet.
fn ensure_default_bridge(
    config: &NetworkConfig,
    store: &Store,
    state: &mut State,
) -> Result<(), NetworkError> {
    let name = config.bridge_name();
    let old = state.find(BRIDGE).ok().map(|network| network.record.clone());
    let fits = old.as_ref().is_some_and(|record| {
        let named = record.bridge.as_ref().is_some_and(|bridge| bridge.name == name);
        let subnet = record.ipam.as_ref().map(|ipam| ipam.subnet);
        let subnet6 = record.ipam.as_ref().and_then(|ipam| Some(ipam.v6.as_ref()?.subnet));
        let six = config.default_ipv6 == subnet6.is_some()
            && config.default_subnet6.is_none_or(|wanted| subnet6 == Some(wanted));
        named && six && config.default_subnet.is_none_or(|wanted| subnet == Some(wanted))
    });
    if fits {
        return Ok(());
    }
    if let Some(settings) = old.as_ref().and_then(|record| record.bridge.as_ref()) {
        // Configured differently since the last run; the containers on it lose their network.
        bridge::remove(&settings.name)
            .map_err(NetworkError::kernel("cannot remove the former default bridge"))?;
    }
    let ours: Vec<_> = state
        .networks
        .values()
        .filter(|network| network.record.name != BRIDGE)
        .filter_map(|network| Some(network.record.ipam.as_ref()?.subnet))
        .collect();
    // Held until the bridge has its address, which is what others see.
    let lock = SubnetLock::acquire()?;
    let subnet = match config.default_subnet {
        Some(subnet) => {
            bridge::check_subnet(subnet, &ours, "--bip")?;
            subnet
        }
        None => bridge::choose_subnet(&config.pools, &ours, &lock)?,
    };
    let mut record = old.unwrap_or_else(|| predefined(BRIDGE, Driver::Bridge));
    let subnet6 = config.default_subnet6.unwrap_or_else(|| Ipv6Net::unique_local(&record.id));
    record.bridge = Some(NetworkSpec::default().bridge_settings(&name)?);
    record.options = default_bridge_options(&name);
    record.ipam = Some(Ipam {
        subnet,
        ip_range: None,
        gateway: std::net::Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1)),
        aux_addresses: Default::default(),
        user_subnet: false,
        user_gateway: false,
        options: Default::default(),
        v6: config.default_ipv6.then(|| Ipam6::plain(subnet6)),
    });
    store.save_network(&record)?;
    ensure_bridge(&config.instance, &record)?;
    state.networks.insert(record.id.clone(), Network::new(record));
    Ok(())
}

/// The options that `docker network inspect bridge` shows.
fn default_bridge_options(name: &str) -> std::collections::BTreeMap<String, String> {
    [
        ("com.docker.network.bridge.default_bridge", "true"),
        ("com.docker.network.bridge.enable_icc", "true"),
        ("com.docker.network.bridge.enable_ip_masquerade", "true"),
        ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
        ("com.docker.network.bridge.name", name),
        ("com.docker.network.driver.mtu", "1500"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Takes addresses and ports back for everything that was connected, whether it still runs or not:
/// nothing is given to others before [`Networks::reattach`] has sorted out who lives.
fn restore_sandboxes(
    store: &Store,
    state: &mut State,
    firewall: &mut Firewall,
    ports: &PortRegistry,
) -> Result<(), NetworkError> {
    for (container, record) in store.sandboxes()? {
        let mut endpoints = record.endpoints;
        endpoints.retain(|endpoint| {
            let restored = state.restore(endpoint);
            if !restored {
                let network = &endpoint.network_name;
                tracing::warn!(%container, network, "an endpoint's network is gone");
            }
            restored
        });
        let sandbox = Sandbox {
            endpoints,
            connected: true,
            ports: record.ports.iter().map(|bound| ports.hold_again(*bound)).collect(),
            ports_endpoint: record.ports_endpoint,
            dns_servers: record.dns_servers,
            resolver: None,
            resolves: record.resolves,
        };
        if let Some(target) = sandbox.ports_target() {
            firewall.set_ports(target, &record.ports);
        }
        state.sandboxes.insert(container, sandbox);
    }
    Ok(())
}

/// Removes interfaces on our bridges that no container has, and our bridges that no network has.
fn remove_stale_links(inner: &Inner) -> Result<(), NetworkError> {
    let failed = || NetworkError::kernel("cannot list the host's interfaces");
    let mut socket = RouteSocket::open().map_err(failed())?;
    let links = socket.links().map_err(failed())?;
    let instance = &inner.config.instance;
    let mut bridges = BTreeSet::new();
    let mut stale = Vec::new();
    {
        let state = inner.state();
        let known: HashSet<&str> = state
            .sandboxes
            .values()
            .flat_map(|sandbox| &sandbox.endpoints)
            .filter_map(|endpoint| Some(endpoint.interface.as_ref()?.host.as_str()))
            .collect();
        for link in &links {
            if let Some(network) = bridge::network_of_alias(instance, link) {
                bridges.insert(link.index);
                if !state.networks.contains_key(&network) {
                    stale.push(link.clone());
                }
            }
        }
        let is_stale_port = |link: &&crate::netlink::route::Link| {
            let ours = link.bridge.is_some_and(|index| bridges.contains(&index));
            ours && link.kind.as_deref() == Some("veth") && !known.contains(link.name.as_str())
        };
        stale.extend(links.iter().filter(is_stale_port).cloned());
    }
    for link in stale {
        tracing::info!(link = link.name, "removing an interface that nobody has");
        if let Err(error) = socket.remove_link(link.index) {
            tracing::warn!(link = link.name, %error, "an interface was left behind");
        }
    }
    Ok(())
}
