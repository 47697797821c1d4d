//! The networks of this node: listing, creating, removing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use brig_types::id::{ContainerId, NetworkId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{self, AddressPool, SubnetLock};
use crate::dns::ResolverService;
use crate::endpoint::Endpoint;
use crate::error::NetworkError;
use crate::firewall::{BridgeRules, Firewall};
use crate::ports::PortRegistry;
use crate::spec::{Checked6, Ipam6, NetworkRecord, NetworkSpec, is_interface_name};
use crate::state::{Network, State};
use crate::store::Store;
use crate::subnet::{Ipv4Net, Ipv6Net};

/// Longest suffix of an instance: its default bridge is `brig-` and the suffix.
const MAX_INSTANCE: usize = 10;

/// Settings of the network service.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Tells daemons in one network namespace apart: at most ten letters and digits; empty for the
    /// machine's only one.
    pub instance: String,
    /// Where networks and connected containers are recorded.
    pub state_dir: PathBuf,
    /// Name of the default bridge; `brig0` or `brig-INSTANCE` if not given.
    pub default_bridge: Option<String>,
    /// Subnet of the default bridge; one from the pools if not given.
    pub default_subnet: Option<Ipv4Net>,
    /// Whether the default bridge has IPv6.
    pub default_ipv6: bool,
    /// IPv6 subnet of the default bridge; one of its own if not given.
    pub default_subnet6: Option<Ipv6Net>,
    /// Where subnets come from; [`bridge::default_pools`] if empty.
    pub pools: Vec<AddressPool>,
    /// Servers that the embedded name servers ask, instead of the host's.
    pub dns_upstreams: Vec<IpAddr>,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
}

impl NetworkConfig {
    /// The defaults for an instance.
    #[must_use]
    pub fn new(instance: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            instance: instance.into(),
            state_dir: state_dir.into(),
            default_bridge: None,
            default_subnet: None,
            default_ipv6: false,
            default_subnet6: None,
            pools: bridge::default_pools(),
            dns_upstreams: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }

    pub(crate) fn bridge_name(&self) -> String {
        match (&self.default_bridge, self.instance.as_str()) {
            (Some(name), _) => name.clone(),
            (None, "") => "brig0".to_owned(),
            (None, instance) => format!("brig-{instance}"),
        }
    }

    pub(crate) fn table_name(&self) -> String {
        match self.instance.as_str() {
            "" => "brig".to_owned(),
            instance => format!("brig_{instance}"),
        }
    }

    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        let instance = &self.instance;
        if instance.len() > MAX_INSTANCE || !instance.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(NetworkError::Config(format!("invalid instance name {instance:?}")));
        }
        let bridge = self.bridge_name();
        if !is_interface_name(&bridge) {
            return Err(NetworkError::Config(format!("invalid bridge name {bridge:?}")));
        }
        Ok(())
    }
}

/// A network and the containers that are connected to it.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkInfo {
    /// The network.
    pub record: NetworkRecord,
    /// The connected containers.
    pub containers: BTreeMap<ContainerId, Endpoint>,
}

impl NetworkRecord {
    /// When the network was created.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        let nanos = u64::try_from(self.created_unix_nanos).unwrap_or_default();
        UNIX_EPOCH + std::time::Duration::from_nanos(nanos)
    }
}

/// The networks of this node. Clones share one state.
#[derive(Clone, Debug)]
pub struct Networks {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    pub(crate) store: Store,
    state: Mutex<State>,
    firewall: Mutex<Firewall>,
    pub(crate) ports: PortRegistry,
    pub(crate) resolvers: ResolverService,
    /// One network comes or goes at a time.
    changes: tokio::sync::Mutex<()>,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Inner {
    pub(crate) fn new(
        config: NetworkConfig,
        store: Store,
        state: State,
        firewall: Firewall,
        ports: PortRegistry,
    ) -> Self {
        Self {
            config,
            store,
            state: Mutex::new(state),
            firewall: Mutex::new(firewall),
            ports,
            resolvers: ResolverService::new(Default::default()),
            changes: tokio::sync::Mutex::new(()),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only for blocking code: loading the table takes milliseconds.
    pub(crate) fn firewall(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Networks {
    /// All networks, by name.
    #[must_use]
    pub fn list(&self) -> Vec<NetworkInfo> {
        let state = self.inner.state();
        let mut list: Vec<_> =
            state.networks.values().map(|network| info(&state, network)).collect();
        list.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        list
    }

    /// The network with this id, name or unique prefix of an id.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`], [`NetworkError::Ambiguous`].
    pub fn get(&self, name: &str) -> Result<NetworkInfo, NetworkError> {
        let state = self.inner.state();
        let network = state.find(name)?;
        Ok(info(&state, network))
    }

    /// The host's address that containers reach it at (`host-gateway`).
    #[must_use]
    pub fn host_gateway(&self) -> Ipv4Addr {
        let state = self.inner.state();
        let ipam = state.find(crate::spec::BRIDGE).ok().and_then(|net| net.record.ipam.as_ref());
        ipam.map_or(Ipv4Addr::LOCALHOST, |ipam| ipam.gateway)
    }

    /// Creates a bridge network.
    ///
    /// Goes on to its end if the caller stops waiting.
    ///
    /// # Errors
    /// When the request is wrong, the name or subnet is taken, or the kernel refuses.
    pub async fn create(&self, spec: NetworkSpec) -> Result<NetworkId, NetworkError> {
        let this = self.clone();
        self.detached(async move {
            let _change = this.inner.changes.lock().await;
            this.blocking(move |inner| create(inner, &spec)).await
        })
        .await
    }

    /// Removes a network that no container is on.
    ///
    /// Goes on to its end if the caller stops waiting.
    ///
    /// # Errors
    /// [`NetworkError::PredefinedRemove`], [`NetworkError::ActiveEndpoints`], or when the kernel or
    /// the disk refuses.
    pub async fn remove(&self, name: &str) -> Result<NetworkId, NetworkError> {
        let this = self.clone();
        let name = name.to_owned();
        self.detached(async move {
            let _change = this.inner.changes.lock().await;
            this.blocking(move |inner| remove(inner, &name)).await
        })
        .await
    }

    /// Ends the name servers and waits for work that is under way. Containers keep their networks;
    /// names answer again after the next start.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
        self.inner.resolvers.shutdown().await;
    }

    /// Runs state-changing work to its end even if the caller goes away.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, NetworkError>> + Send + 'static,
    ) -> Result<T, NetworkError> {
        joined(self.inner.tracker.spawn(work).await)
    }

    /// Runs blocking work on a thread for such.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        joined(tokio::task::spawn_blocking(move || work(&inner)).await)
    }
}

/// The runtime cancels tasks only when it shuts down; a panic goes on in the caller.
pub(crate) fn joined<T>(
    result: Result<Result<T, NetworkError>, tokio::task::JoinError>,
) -> Result<T, NetworkError> {
    match result {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(NetworkError::ShuttingDown),
    }
}

fn info(state: &State, network: &Network) -> NetworkInfo {
    let on_network = |endpoint: &&Endpoint| endpoint.network_id == network.record.id;
    let containers = state
        .sandboxes
        .iter()
        .filter(|(_, sandbox)| sandbox.connected)
        .filter_map(|(container, sandbox)| {
            let endpoint = sandbox.endpoints.iter().find(on_network)?;
            Some((container.clone(), endpoint.clone()))
        })
        .collect();
    NetworkInfo { record: network.record.clone(), containers }
}

fn create(inner: &Inner, spec: &NetworkSpec) -> Result<NetworkId, NetworkError> {
    let checked = spec.check()?;
    let id = NetworkId::generate();
    let settings = spec.bridge_settings(&format!("br-{}", id.short()))?;
    let (subnets, subnets6) = {
        let state = inner.state();
        if state.networks.values().any(|network| network.record.name == checked.name) {
            return Err(NetworkError::NameTaken(checked.name));
        }
        (state.subnets(), state.subnets6())
    };
    let lock = SubnetLock::acquire()?;
    let subnet = match checked.subnet {
        Some(subnet) => {
            bridge::check_subnet(subnet, &subnets, "--subnet")?;
            subnet
        }
        None => bridge::choose_subnet(&inner.config.pools, &subnets, &lock)?,
    };
    let v6 = match &checked.v6 {
        Checked6::No => None,
        Checked6::AnySubnet => Some(Ipam6::plain(Ipv6Net::unique_local(&id))),
        Checked6::Chosen(ipam) => Some(ipam.clone()),
    };
    if let Some(v6) = &v6 {
        bridge::check_subnet6(v6.subnet, &subnets6)?;
    }
    let record = NetworkRecord {
        id: id.clone(),
        name: checked.name.clone(),
        driver: crate::spec::Driver::Bridge,
        created_unix_nanos: now_nanos(),
        internal: spec.internal,
        attachable: spec.attachable,
        labels: spec.labels.clone(),
        options: spec.options.clone(),
        ipam: Some(checked.ipam(subnet, v6, spec.ipam_options.clone())),
        bridge: Some(settings),
    };
    // Once recorded, a crash at any later step is repaired by the next start.
    inner.store.save_network(&record)?;
    let made = ensure_bridge(&inner.config.instance, &record).and_then(|()| {
        drop(lock);
        let mut firewall = inner.firewall();
        firewall.set_bridge(rules(&record).ok_or(NetworkError::Overlap)?);
        firewall.load()
    });
    if let Err(error) = made {
        undo(inner, &record, matches!(error, NetworkError::BridgeNameTaken(_)));
        return Err(error);
    }
    inner.state().networks.insert(id.clone(), Network::new(record));
    Ok(id)
}

fn undo(inner: &Inner, record: &NetworkRecord, foreign_bridge: bool) {
    if let Some(settings) = &record.bridge {
        inner.firewall().forget_bridge(&settings.name);
        if !foreign_bridge && let Err(error) = bridge::remove(&settings.name) {
            tracing::warn!(bridge = settings.name, %error, "a bridge was left behind");
        }
    }
    if let Err(error) = inner.store.remove_network(&record.id) {
        tracing::warn!(error = %brig_types::error::chain(&error), "a network record was left behind");
    }
}

fn remove(inner: &Inner, name: &str) -> Result<NetworkId, NetworkError> {
    let record = {
        let mut state = inner.state();
        let record = state.find(name)?.record.clone();
        if record.predefined() {
            return Err(NetworkError::PredefinedRemove(record.name));
        }
        if state.in_use(&record.id) {
            return Err(NetworkError::ActiveEndpoints { name: record.name, id: record.id });
        }
        // From here on nobody can join it.
        state.networks.remove(&record.id);
        record
    };
    if let Err(error) = inner.store.remove_network(&record.id) {
        let id = record.id.clone();
        inner.state().networks.insert(id, Network::new(record));
        return Err(error);
    }
    if let Some(settings) = &record.bridge {
        bridge::remove(&settings.name)
            .map_err(NetworkError::kernel(format!("cannot remove bridge {}", settings.name)))?;
        let mut firewall = inner.firewall();
        firewall.forget_bridge(&settings.name);
        firewall.load()?;
    }
    Ok(record.id)
}

/// Creates or repairs the bridge of a network that has one.
pub(crate) fn ensure_bridge(instance: &str, record: &NetworkRecord) -> Result<(), NetworkError> {
    match (&record.bridge, &record.ipam) {
        (Some(settings), Some(ipam)) => bridge::ensure(instance, &record.id, settings, ipam),
        _ => Ok(()),
    }
}

/// What the packet rules need to know about a network.
pub(crate) fn rules(record: &NetworkRecord) -> Option<BridgeRules> {
    let (settings, ipam) = (record.bridge.as_ref()?, record.ipam.as_ref()?);
    Some(BridgeRules {
        bridge: settings.name.clone(),
        subnet: ipam.subnet,
        subnet6: ipam.v6.as_ref().map(|v6| v6.subnet),
        icc: settings.icc,
        masquerade: settings.masquerade,
        internal: record.internal,
    })
}

pub(crate) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_names_of_their_own() {
        let only = NetworkConfig::new("", "/x");
        assert_eq!((only.bridge_name().as_str(), only.table_name().as_str()), ("brig0", "brig"));
        let other = NetworkConfig::new("a1b2c3", "/x");
        assert_eq!(other.bridge_name(), "brig-a1b2c3");
        assert_eq!(other.table_name(), "brig_a1b2c3");
        assert!(other.check().is_ok());
        for bad in ["a-b", "01234567890", "a b", "\""] {
            assert!(NetworkConfig::new(bad, "/x").check().is_err(), "{bad}");
        }
    }
}
