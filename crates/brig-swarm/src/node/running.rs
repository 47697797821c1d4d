//! A node that is in a swarm: its certificate, its agent, and on managers the manager.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::PkiError;
use brig_pki::identity::NodeIdentity;
use brig_pki::keyfile::{CertificateDir, KeyFile, StoreKeys, StoredIdentity};
use brig_pki::seal::KeyRing;
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::{Node, NodeRole, Peer};
use brig_store::etcd::{EtcdBackend, EtcdClient, Limits};
use brig_store::{RedbBackend, Store, StoreError};
use brig_types::id::{ClusterId, NodeId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bootstrap::{self, FirstCertificate, FirstNode};
use super::files::{self, Addresses, Layout};
use super::renewal::Renewal;
use super::{InitRequest, LocalNodeState, SwarmConfig, SwarmStatus, address, blocking};
use crate::agent::{Agent, AgentConfig, RememberManagers};
use crate::error::SwarmError;
use crate::expiry::{self, Expiry, Facts};
use crate::manager::control::{Control, cluster};
use crate::manager::dispatcher::OwnNode;
use crate::manager::keys::DataKeys;
use crate::manager::leading;
use crate::manager::{Manager, ManagerConfig};
use crate::replica::{self, Place, Replica, StoreSettings};

/// How long to wait for an address that is still in use, by a daemon that is being replaced.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
const LISTEN_RETRY: Duration = Duration::from_millis(50);

/// A node in a swarm.
pub(crate) struct Running {
    identity: NodeIdentity,
    addresses: Addresses,
    credentials: Arc<TlsCredentials>,
    agent: Arc<Agent>,
    manager: Option<Manager>,
    renewals: TaskTracker,
    /// Why the node cannot work with its certificate.
    certificate_problem: watch::Receiver<String>,
    stop: CancellationToken,
}

impl Running {
    /// Makes a new swarm and starts it.
    pub(crate) async fn create(
        config: &SwarmConfig,
        request: InitRequest,
    ) -> Result<Self, SwarmError> {
        let spec = bootstrap::with_defaults(request.spec.clone());
        cluster::check_spec(&spec).map_err(|error| SwarmError::Control(Box::new(error)))?;
        let listener = listen(address::listen(&request.listen_addr)?).await?;
        let listening =
            listener.local_addr().map_err(|source| listen_failed(&request.listen_addr, source))?;
        let advertised = address::advertise(&request.advertise_addr, listening)?;
        let addresses = Addresses {
            local_addr: advertised.ip().to_string(),
            listen_addr: listening.to_string(),
            advertise_addr: advertised.to_string(),
            data_path_addr: request.data_path_addr.clone(),
            default_address_pool: Some(request.default_addr_pool.clone()),
            subnet_size: request.subnet_size,
            data_path_port: request.data_path_port,
            ..Addresses::default()
        };
        let dir = config.state_dir.clone();
        let new = blocking({
            let dir = dir.clone();
            move || files::prepare_beside(&dir)
        })
        .await?;
        let settings = config.store.clone();
        let written =
            write_new_swarm(Layout(new.clone()), addresses, spec, request, settings).await;
        blocking(move || {
            written?;
            files::move_into_place(&new, &dir)
        })
        .await?;
        let started = Self::start(config, Some(listener)).await;
        if started.is_err() {
            // Nobody was told of this swarm yet.
            let dir = config.state_dir.clone();
            blocking(move || files::discard(&dir)).await?;
        }
        started
    }

    /// Takes a swarm up again.
    pub(crate) async fn resume(config: &SwarmConfig) -> Result<Self, SwarmError> {
        Self::start(config, None).await
    }

    /// Takes up a membership that was just written. When that fails the node is in no swarm.
    pub(crate) async fn start_joined(config: &SwarmConfig) -> Result<Self, SwarmError> {
        let started = Self::start(config, None).await;
        if started.is_err() {
            let dir = config.state_dir.clone();
            blocking(move || files::discard(&dir)).await?;
        }
        started
    }

    async fn start(
        config: &SwarmConfig,
        listener: Option<TcpListener>,
    ) -> Result<Self, SwarmError> {
        let layout = Layout(config.state_dir.clone());
        let (addresses, managers, stored) = blocking({
            let layout = layout.clone();
            move || read(&layout)
        })
        .await?;
        let credentials =
            TlsCredentials::new(&stored.roots_pem, &stored.chain_pem, &stored.key.node_key)
                .map_err(pki("use the node's certificate"))?;
        let credentials = Arc::new(credentials);
        let identity = credentials.identity();
        let mut local_manager = None;
        let mut manager = None;
        let mut own_store = None;
        // A node that was promoted has no part in the store before a manager takes it in. Managers
        // of other implementations never do: then it goes on as what it is.
        let joined = !addresses.remote_addr.is_empty();
        let place = blocking({
            let layout = layout.clone();
            move || layout.read_store_place()
        })
        .await?;
        if identity.role == Role::Manager && (!joined || place.is_some()) {
            let listener = match listener {
                Some(listener) => listener,
                None => listen(address::listen(&addresses.listen_addr)?).await?,
            };
            let listening = listener
                .local_addr()
                .map_err(|source| listen_failed(&addresses.listen_addr, source))?;
            local_manager = Some(address::local(listening).to_string());
            let ring = open_keys(&layout, stored.key.store_keys.as_ref())?;
            let for_others = Arc::new(open_keys(&layout, stored.key.store_keys.as_ref())?);
            let node = identity.node.to_string();
            let replica = Arc::new(Replica::new(
                layout.clone(),
                config.store.clone(),
                (&identity.cluster, &node),
                address::advertise(&addresses.advertise_addr, listening)?.ip(),
                for_others,
            ));
            let store = match open_store(&layout, &replica, ring).await {
                Ok(store) => store,
                Err(error) => {
                    replica.stop();
                    return Err(error);
                }
            };
            check_store(&layout, &store, &identity)?;
            own_store = Some(store.clone());
            let own = OwnNode {
                id: identity.node.to_string(),
                address: addresses.advertise_addr.clone(),
            };
            let started = Manager::start(ManagerConfig {
                store,
                credentials: Arc::clone(&credentials),
                listener,
                cluster: identity.cluster.clone(),
                own,
                replica,
            });
            manager = Some(started.await.map_err(SwarmError::Store)?);
        }
        let tasks_dir = layout.tasks();
        let agent = Agent::start(AgentConfig {
            executor: Arc::clone(&config.executor),
            credentials: Arc::clone(&credentials),
            local_manager,
            managers,
            remember_managers: remember(layout.clone()),
            tasks_dir: &tasks_dir,
            keys: Arc::new(open_keys(&layout, stored.key.store_keys.as_ref())?),
        });
        let agent = match agent.await {
            Ok(agent) => Arc::new(agent),
            Err(source) => {
                if let Some(manager) = manager {
                    manager.stop().await;
                }
                return Err(files::failed("read", &tasks_dir, source));
            }
        };
        let stop = CancellationToken::new();
        let renewals = TaskTracker::new();
        let renewal = Renewal::new(
            Arc::clone(&credentials),
            CertificateDir::new(layout.certificates()),
            stored.key,
            Arc::clone(&agent),
            own_store,
        );
        let certificate_problem = renewal.problem();
        let stopping = stop.clone();
        renewals.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = renewal.run() => {}
            }
        });
        Ok(Self {
            identity,
            addresses,
            credentials,
            agent,
            manager,
            renewals,
            certificate_problem,
            stop,
        })
    }

    /// This node's id.
    pub(crate) fn node_id(&self) -> String {
        self.identity.node.to_string()
    }

    /// Waits until a manager was reached for the first time.
    ///
    /// # Errors
    /// [`SwarmError::JoinStopped`] when the node leaves, or the daemon stops, before that.
    pub(crate) async fn connected(&self) -> Result<(), SwarmError> {
        let mut state = self.agent.state();
        let reached = state.wait_for(|state| state.was_connected);
        match self.stop.run_until_cancelled(reached).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(SwarmError::JoinStopped),
        }
    }

    /// The role that the node's certificate gives it now.
    pub(crate) fn role(&self) -> Role {
        self.credentials.identity().role
    }

    /// Whether this node is a manager.
    pub(crate) const fn is_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// The cluster's objects, on a manager.
    pub(crate) fn control(&self) -> Option<Control> {
        self.manager.as_ref().map(|manager| manager.control().clone())
    }

    /// Where this node stands.
    pub(crate) fn status(&self) -> SwarmStatus {
        let agent = self.agent.state().borrow().clone();
        let control = self.control();
        let nodes = control.as_ref().map(Control::nodes).unwrap_or_default();
        let is_manager = |node: &Arc<Node>| node.role() == NodeRole::Manager;
        SwarmStatus {
            node_id: self.node_id(),
            node_addr: self.addresses.local_addr.clone(),
            local_node_state: if agent.was_connected || control.is_some() {
                LocalNodeState::Active
            } else {
                LocalNodeState::Pending
            },
            control_available: control.is_some(),
            error: if agent.connected { String::new() } else { self.problem(agent.error) },
            remote_managers: self.agent.managers(),
            managers: nodes.iter().filter(|node| is_manager(node)).count(),
            nodes: nodes.len(),
            cluster: control.and_then(|control| control.cluster().ok()),
            clock: self.agent.clock(),
        }
    }

    /// Why the node has no session.
    fn problem(&self, of_session: String) -> String {
        let of_certificate = self.certificate_problem.borrow();
        if of_certificate.is_empty() { of_session } else { of_certificate.clone() }
    }

    /// Everything that ends, as far as this node knows.
    pub(crate) fn expiries(&self, now: SystemTime) -> Vec<Expiry> {
        let own = self.credentials.certificate();
        let node = self.node_id();
        let cluster = self
            .manager
            .as_ref()
            .and_then(|manager| manager.control().cluster().ok().map(|cluster| (manager, cluster)));
        let Some((manager, cluster)) = cluster else {
            let roots = self.credentials.roots_pem();
            let role = self.credentials.identity().role;
            return expiry::of_worker(&node, role, &own, &roots, self.agent.clock(), now);
        };
        expiry::of_cluster(&Facts {
            cluster: &cluster,
            nodes: &manager.control().nodes(),
            own: (&node, &own),
            clocks: &manager.clocks(),
            now,
        })
    }

    /// Waits until the membership is being stopped.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// How many managers are reachable, and how many there are.
    pub(crate) fn managers(&self) -> (usize, usize) {
        let nodes = self.control().map(|control| control.nodes()).unwrap_or_default();
        leading::managers(nodes.iter().map(AsRef::as_ref))
    }

    /// Makes the other managers workers, after their part of the store was given up.
    pub(crate) async fn forget_other_managers(&self) -> Result<(), SwarmError> {
        let Some(manager) = &self.manager else { return Err(SwarmError::NotManager) };
        manager.forget_others(&self.node_id()).await.map_err(SwarmError::Store)
    }

    /// Stops; containers go on running.
    pub(crate) async fn stop(&self) {
        self.stop_renewals().await;
        self.agent.stop().await;
        if let Some(manager) = &self.manager {
            manager.stop().await;
        }
    }

    /// Stops and removes this node's tasks.
    pub(crate) async fn leave(&self) {
        self.stop_renewals().await;
        self.agent.leave().await;
        if let Some(manager) = &self.manager
            && let Err(error) = manager.leave(&self.node_id(), true).await
        {
            tracing::warn!(error = %brig_types::error::chain(&error), "the other managers were not told");
        }
    }

    /// Stops being a manager, after the others were told: the member of the store ends once it was
    /// taken out. Containers go on running.
    ///
    /// # Errors
    /// [`SwarmError::Etcd`] when the others do not agree yet; everything goes on then.
    pub(crate) async fn step_down(&self) -> Result<(), SwarmError> {
        if let Some(manager) = &self.manager {
            manager.leave(&self.node_id(), false).await?;
        }
        self.stop_renewals().await;
        self.agent.stop().await;
        Ok(())
    }

    async fn stop_renewals(&self) {
        self.stop.cancel();
        self.renewals.close();
        self.renewals.wait().await;
    }
}

/// Everything of a new swarm, in a directory of its own.
async fn write_new_swarm(
    layout: Layout,
    addresses: Addresses,
    spec: brig_proto::swarm::ClusterSpec,
    request: InitRequest,
    settings: StoreSettings,
) -> Result<(), SwarmError> {
    let cluster_id = ClusterId::generate().to_string();
    let identity =
        NodeIdentity { cluster: cluster_id.clone(), role: Role::Manager, node: NodeId::generate() };
    let advertised = addresses.advertise_addr.clone();
    let availability = request.availability;
    let FirstCertificate { root, key, csr, chain } =
        bootstrap::first_certificate(&spec, &identity).await?;
    let external = match &settings.external {
        Some(external) => Some(EtcdBackend::new(
            EtcdClient::new(&external.endpoints, external.tls.clone()).map_err(replica::etcd)?,
            &cluster_id,
            Limits::DEFAULT,
            tokio::runtime::Handle::current(),
        )),
        None => None,
    };
    let (store, cluster, node) = blocking(move || {
        let cluster = bootstrap::cluster(&cluster_id, &root, spec, &request)
            .map_err(|error| SwarmError::Control(Box::new(error)))?;
        let (keys, ring) = StoreKeys::generate().map_err(pki("make the store's keys"))?;
        let sealer = Arc::new(DataKeys(ring));
        let store = match external {
            Some(backend) => {
                layout.write_store_place(&Place::External)?;
                Store::open(backend, sealer).map_err(SwarmError::Store)?
            }
            None => {
                let backend = RedbBackend::open(&layout.store())
                    .map_err(|error| SwarmError::Store(StoreError::Open(Arc::new(error))))?;
                Store::open(backend, sealer).map_err(SwarmError::Store)?
            }
        };
        layout.write_addresses(&addresses)?;
        let own = Peer { node_id: identity.node.to_string(), addr: advertised.clone() };
        layout.write_managers(&[own])?;
        let certificates = CertificateDir::new(layout.certificates());
        certificates.store_roots(root.cert_pem()).map_err(pki("write the trusted roots"))?;
        certificates
            .store(&chain, &KeyFile::new(key, Some(keys)))
            .map_err(pki("write the node's certificate"))?;
        let first = FirstNode { id: identity.node.to_string(), address: advertised, csr, chain };
        Ok((store, cluster, bootstrap::node(first, availability)))
    })
    .await?;
    bootstrap::write(&store, cluster, node).await.map_err(SwarmError::Store)?;
    // Closing the file waits for its thread.
    blocking(move || {
        drop(store);
        Ok(())
    })
    .await
}

pub(crate) fn read(layout: &Layout) -> Result<(Addresses, Vec<Peer>, StoredIdentity), SwarmError> {
    let addresses = layout.read_addresses()?;
    let managers = layout.read_managers()?;
    let stored = CertificateDir::new(layout.certificates())
        .load()
        .map_err(pki("read the node's certificate"))?
        .ok_or_else(|| layout.damaged("the node's certificate or its key is missing".to_owned()))?;
    Ok((addresses, managers, stored))
}

/// The data keys of this node, which seal its store and what its agent remembers.
pub(crate) fn open_keys(layout: &Layout, keys: Option<&StoreKeys>) -> Result<KeyRing, SwarmError> {
    keys.ok_or_else(|| layout.damaged("the key file has no data keys".to_owned()))?
        .open()
        .map_err(pki("open the data keys"))
}

async fn open_store(
    layout: &Layout,
    replica: &Replica,
    ring: KeyRing,
) -> Result<Store, SwarmError> {
    let path = layout.store();
    if let Some(backend) = replica.open().await? {
        return blocking(move || {
            // Left by a move that was broken off after its end.
            files::remove_file(&path)?;
            Store::open(backend, Arc::new(DataKeys(ring))).map_err(SwarmError::Store)
        })
        .await;
    }
    if !path.exists() {
        return Err(layout.damaged("cluster.redb is missing".to_owned()));
    }
    blocking(move || {
        let backend = RedbBackend::open(&path)
            .map_err(|error| SwarmError::Store(StoreError::Open(Arc::new(error))))?;
        Store::open(backend, Arc::new(DataKeys(ring))).map_err(SwarmError::Store)
    })
    .await
}

/// The store has to be the one that this node's certificate belongs to. An empty one would tell
/// every agent to remove what it runs.
fn check_store(layout: &Layout, store: &Store, identity: &NodeIdentity) -> Result<(), SwarmError> {
    let view = store.view();
    if view.get::<brig_proto::swarm::Cluster>(&identity.cluster).is_none() {
        return Err(layout.damaged("the store does not hold this node's cluster".to_owned()));
    }
    if view.get::<Node>(identity.node.as_str()).is_none() {
        return Err(layout.damaged("the store does not know this node".to_owned()));
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, SwarmError> {
    let give_up = tokio::time::Instant::now() + LISTEN_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < give_up =>
            {
                tokio::time::sleep(LISTEN_RETRY).await;
            }
            Err(source) => return Err(listen_failed(&address.to_string(), source)),
        }
    }
}

fn listen_failed(address: &str, source: io::Error) -> SwarmError {
    SwarmError::Listen { address: address.to_owned(), source }
}

/// Keeps the list of managers for the next start.
fn remember(layout: Layout) -> Arc<RememberManagers> {
    Arc::new(move |peers| {
        if let Err(error) = layout.write_managers(peers) {
            tracing::warn!(error = %brig_types::error::chain(&error), "cannot remember the managers");
        }
    })
}

pub(crate) fn pki(action: &'static str) -> impl Fn(PkiError) -> SwarmError {
    move |source| SwarmError::Pki { action, source }
}

#[cfg(test)]
mod tests;
