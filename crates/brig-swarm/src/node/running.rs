//! A node that is in a swarm: its certificate, its agent, and on managers the manager.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::PkiError;
use brig_pki::identity::NodeIdentity;
use brig_pki::keyfile::{CertificateDir, StoredIdentity};
use brig_pki::seal::{KeyEncryptionKey, KeyRing};
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole as Role;
use brig_proto::brig::admission_client::AdmissionClient;
use brig_proto::brig::{AdmissionFacts, AdmissionFactsRequest, ScanDatabase};
use brig_proto::swarm::{Node, NodeRole, Peer};
use brig_store::{RedbBackend, Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bootstrap;
use super::files::{self, Addresses, Layout};
use super::keys::NodeKeys;
use super::renewal::Renewal;
use super::{
    InitRequest, LocalNodeState, RestoreRequest, SwarmConfig, SwarmStatus, address, blocking,
    founding,
};
use crate::agent::{Agent, AgentConfig, RememberManagers};
use crate::backup::Backup;
use crate::error::SwarmError;
use crate::expiry::{self, Expiry, Facts};
use crate::grpc::client;
use crate::manager::control::{Control, cluster};
use crate::manager::dispatcher::OwnNode;
use crate::manager::key_peers::OtherManagers;
use crate::manager::keys::{DataKeys, KeyManager};
use crate::manager::leading;
use crate::manager::scan_files::{self, FetchError};
use crate::manager::{Manager, ManagerConfig};
use crate::replica::{self, Replica};

/// How long to wait for an address that is still in use, by a daemon that is being replaced.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);
/// How long a manager may take to say what may start, and the longest answer.
const FACTS_PATIENCE: Duration = Duration::from_secs(5);
const MAX_FACTS: usize = 64 << 20;
const LISTEN_RETRY: Duration = Duration::from_millis(50);

/// A node in a swarm.
pub(crate) struct Running {
    identity: NodeIdentity,
    addresses: Addresses,
    credentials: Arc<TlsCredentials>,
    keys: Arc<NodeKeys>,
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
        let (listener, addresses) = places(Places {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        })
        .await?;
        let addresses = Addresses {
            default_address_pool: Some(request.default_addr_pool.clone()),
            subnet_size: request.subnet_size,
            data_path_port: request.data_path_port,
            ..addresses
        };
        Self::found(config, listener, |layout| {
            founding::new_swarm(layout, addresses, spec, request, &config.store)
        })
        .await
    }

    /// Takes over the cluster of a backup, as its only manager.
    pub(crate) async fn restore(
        config: &SwarmConfig,
        request: RestoreRequest,
        backup: &Backup,
    ) -> Result<Self, SwarmError> {
        let (listener, addresses) = places(Places {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        })
        .await?;
        let cluster = &backup.cluster;
        let addresses = Addresses {
            default_address_pool: Some(cluster.default_address_pool.clone()),
            subnet_size: cluster.subnet_size,
            data_path_port: cluster.vxlan_udp_port,
            ..addresses
        };
        Self::found(config, listener, |layout| {
            founding::restored(layout, addresses, backup, &config.store)
        })
        .await
    }

    /// Takes a manager's swarm up without its other managers, at the addresses of the request.
    pub(crate) async fn alone(
        config: &SwarmConfig,
        request: InitRequest,
        unlock: Option<KeyEncryptionKey>,
    ) -> Result<Self, SwarmError> {
        let (listener, places) = places(Places {
            listen: &request.listen_addr,
            advertise: &request.advertise_addr,
            data_path: &request.data_path_addr,
        })
        .await?;
        let layout = Layout(config.state_dir.clone());
        let (known, _, stored) = blocking({
            let (layout, unlock) = (layout.clone(), unlock.clone());
            move || read(&layout, unlock.as_ref())
        })
        .await?;
        let identity = NodeIdentity::from_chain_pem(&stored.chain_pem)
            .map_err(pki("use the node's certificate"))?;
        let place = blocking({
            let layout = layout.clone();
            move || layout.read_store_place()
        })
        .await?;
        let is_manager = known.remote_addr.is_empty() || place.is_some();
        if identity.role != Role::Manager || !is_manager {
            return Err(SwarmError::NotManager);
        }
        replica::force_alone(&layout).await?;
        let addresses = Addresses {
            local_addr: places.local_addr,
            listen_addr: places.listen_addr,
            advertise_addr: places.advertise_addr,
            data_path_addr: places.data_path_addr,
            ..known
        };
        let keys = NodeKeys::new(CertificateDir::new(layout.certificates()), stored.key);
        let ring = blocking(move || keys.cluster_ring().map_err(pki("open the data keys"))).await?;
        let listening = listener
            .local_addr()
            .map_err(|source| listen_failed(&addresses.listen_addr, source))?;
        let replica = Replica::new(
            layout.clone(),
            config.store.clone(),
            (&identity.cluster, identity.node.as_str()),
            address::advertise(&addresses.advertise_addr, listening)?.ip(),
        );
        let node = identity.node.as_str();
        let changed = async {
            let store = open_store(&layout, &replica, Arc::new(DataKeys::new(ring))).await?;
            let advertised = &addresses.advertise_addr;
            let outcome = match check_store(&layout, &store, &identity) {
                Ok(()) => founding::forget_other_managers(&store, node, advertised).await,
                Err(error) => Err(error),
            };
            blocking(move || {
                store.close();
                outcome
            })
            .await
        };
        let changed = changed.await;
        replica.stop();
        changed?;
        blocking(move || layout.write_addresses(&addresses)).await?;
        Self::start(config, Some(listener), unlock).await
    }

    /// The unlock key that this manager's keys are wrapped with, if autolock is on.
    pub(crate) fn unlock_key(&self) -> Option<KeyEncryptionKey> {
        self.keys.store_keys().filter(|keys| keys.locked).map(|keys| keys.kek)
    }

    /// Has the swarm's directory written beside its place, moves it there, and starts.
    async fn found<F>(
        config: &SwarmConfig,
        listener: TcpListener,
        write: impl FnOnce(Layout) -> F,
    ) -> Result<Self, SwarmError>
    where
        F: Future<Output = Result<Option<KeyEncryptionKey>, SwarmError>>,
    {
        let dir = config.state_dir.clone();
        let new = blocking({
            let dir = dir.clone();
            move || files::prepare_beside(&dir)
        })
        .await?;
        let written = write(Layout(new.clone())).await;
        let unlock = blocking(move || {
            let unlock = written.inspect_err(|_| {
                if let Err(error) = std::fs::remove_dir_all(&new) {
                    tracing::warn!(%error, "a swarm that was not made is not removed");
                }
            })?;
            files::move_into_place(&new, &dir)?;
            Ok(unlock)
        })
        .await?;
        let started = Self::start(config, Some(listener), unlock).await;
        if started.is_err() {
            // Nobody was told of this swarm yet.
            let dir = config.state_dir.clone();
            blocking(move || files::discard(&dir)).await?;
        }
        started
    }

    /// Takes a swarm up again.
    pub(crate) async fn resume(
        config: &SwarmConfig,
        unlock: Option<KeyEncryptionKey>,
    ) -> Result<Self, SwarmError> {
        Self::start(config, None, unlock).await
    }

    /// Takes up a membership that was just written. When that fails the node is in no swarm.
    pub(crate) async fn start_joined(config: &SwarmConfig) -> Result<Self, SwarmError> {
        let started = Self::start(config, None, None).await;
        if started.is_err() {
            let dir = config.state_dir.clone();
            blocking(move || files::discard(&dir)).await?;
        }
        started
    }

    async fn start(
        config: &SwarmConfig,
        listener: Option<TcpListener>,
        unlock: Option<KeyEncryptionKey>,
    ) -> Result<Self, SwarmError> {
        let layout = Layout(config.state_dir.clone());
        let Own { addresses, managers, stored, credentials } = Own::read(&layout, unlock).await?;
        let identity = credentials.identity();
        let keys = Arc::new(NodeKeys::new(CertificateDir::new(layout.certificates()), stored.key));
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
            let for_ring = Arc::clone(&keys);
            let ring = blocking(move || for_ring.cluster_ring().map_err(pki("open the data keys")));
            let data = Arc::new(DataKeys::new(ring.await?));
            let replica = Arc::new(Replica::new(
                layout.clone(),
                config.store.clone(),
                (&identity.cluster, identity.node.as_str()),
                address::advertise(&addresses.advertise_addr, listening)?.ip(),
            ));
            let store = match open_store(&layout, &replica, Arc::clone(&data)).await {
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
            let peers = OtherManagers::new(
                own.id.clone(),
                store.clone(),
                replica.live.clone(),
                Arc::clone(&credentials),
            );
            let keys = KeyManager::new(Arc::clone(&keys), data, store.clone(), Box::new(peers));
            let started = Manager::start(ManagerConfig {
                store,
                credentials: Arc::clone(&credentials),
                listener,
                cluster: identity.cluster.clone(),
                own,
                keys,
                replica,
                inventories: config.executor.inventories(),
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
            keys: node_ring(&layout, &keys)?,
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
        // The agent has read what it remembers, and sealed it with the current key.
        let for_older = Arc::clone(&keys);
        blocking(move || for_older.forget_older().map_err(pki("write the key file"))).await?;
        let stop = CancellationToken::new();
        let renewals = TaskTracker::new();
        let renewal = Renewal::new(
            Arc::clone(&credentials),
            Arc::clone(&keys),
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
            keys,
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

    /// Whether the others took this manager's member out of the store.
    pub(crate) fn is_taken_out(&self) -> bool {
        self.manager.as_ref().is_some_and(Manager::is_taken_out)
    }

    /// Looks after the member no longer, so that another one can take its place.
    pub(crate) fn abandon_member(&self) {
        if let Some(manager) = &self.manager {
            manager.abandon_member();
        }
    }

    /// Whether this node is a manager.
    pub(crate) const fn is_manager(&self) -> bool {
        self.manager.is_some()
    }

    /// The cluster's objects, on a manager.
    pub(crate) fn control(&self) -> Option<Control> {
        self.manager.as_ref().map(|manager| manager.control().clone())
    }

    /// What the managers say of images of a repository.
    ///
    /// # Errors
    /// [`SwarmError::Rpc`] when none answers.
    pub(crate) async fn admission_facts(
        &self,
        repository: &str,
    ) -> Result<AdmissionFacts, SwarmError> {
        if let Some(control) = self.control() {
            return Ok(control.admission_facts(repository));
        }
        let unavailable =
            |text: String| SwarmError::Rpc(Box::new(tonic::Status::unavailable(text)));
        let manager = self.agent.choose_manager();
        let manager = manager.ok_or_else(|| unavailable("no manager is known".to_owned()))?;
        let ask = async {
            let (channel, _) =
                client::connect(&manager, Arc::clone(&self.credentials), client::MANAGER_NAME)
                    .await
                    .map_err(|error| unavailable(brig_types::error::chain(&error)))?;
            let request = AdmissionFactsRequest { repository: repository.to_owned() };
            let mut client = AdmissionClient::new(channel).max_decoding_message_size(MAX_FACTS);
            let answer = client.facts(request).await;
            answer.map(tonic::Response::into_inner).map_err(|s| SwarmError::Rpc(Box::new(s)))
        };
        tokio::time::timeout(FACTS_PATIENCE, ask)
            .await
            .unwrap_or_else(|_| Err(unavailable(format!("{manager} does not answer"))))
    }

    /// The vulnerability database that the cluster has; a worker asks a manager.
    ///
    /// # Errors
    /// [`SwarmError::Rpc`] when none answers.
    pub(crate) async fn scan_database(&self) -> Result<Option<ScanDatabase>, SwarmError> {
        if let Some(control) = self.control() {
            return Ok(control.scan_database().map(|database| database.as_ref().clone()));
        }
        let failed = |status| SwarmError::Rpc(Box::new(status));
        let manager = self.agent.choose_manager();
        let manager =
            manager.ok_or_else(|| failed(tonic::Status::unavailable("no manager is known")))?;
        scan_files::current(&manager, &self.credentials).await.map_err(failed)
    }

    /// Writes its file into `path`, whole and with the right digest, or nothing. A worker asks the
    /// managers one after another, not every worker the same one first.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) async fn fetch_scan_file(
        &self,
        wanted: &ScanDatabase,
        path: &Path,
    ) -> Result<(), FetchError> {
        if let Some(control) = self.control() {
            return control.fetch_scan_file(wanted, path).await;
        }
        let mut managers: Vec<String> = self.agent.choose_manager().into_iter().collect();
        for peer in self.agent.managers() {
            if !managers.contains(&peer.addr) {
                managers.push(peer.addr);
            }
        }
        scan_files::fetch(&managers, &self.credentials, wanted, path).await
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

    /// The node's key file.
    pub(crate) fn keys(&self) -> Arc<NodeKeys> {
        Arc::clone(&self.keys)
    }

    /// Stops; containers go on running.
    pub(crate) async fn stop(&self) {
        self.stop_renewals().await;
        self.agent.stop().await;
        if let Some(manager) = &self.manager {
            manager.stop().await;
        }
        self.close_keys().await;
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
        self.close_keys().await;
    }

    /// Whoever changed the keys may have been stopped, the change itself is not.
    async fn close_keys(&self) {
        let keys = Arc::clone(&self.keys);
        if tokio::task::spawn_blocking(move || keys.close()).await.is_err() {
            tracing::error!("the node's keys were not closed");
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
        let keys = Arc::clone(&self.keys);
        let unlocked = blocking(move || keys.leave_cluster().map_err(pki("write the key file")));
        if let Err(error) = unlocked.await {
            tracing::error!(error = %brig_types::error::chain(&error), "this node keeps the cluster's keys");
        }
        self.close_keys().await;
        Ok(())
    }

    async fn stop_renewals(&self) {
        self.stop.cancel();
        self.renewals.close();
        self.renewals.wait().await;
    }
}

pub(crate) fn read(
    layout: &Layout,
    unlock: Option<&KeyEncryptionKey>,
) -> Result<(Addresses, Vec<Peer>, StoredIdentity), SwarmError> {
    let addresses = layout.read_addresses()?;
    let managers = layout.read_managers()?;
    let stored = CertificateDir::new(layout.certificates())
        .load(unlock)
        .map_err(pki("read the node's certificate"))?
        .ok_or_else(|| layout.damaged("the node's certificate or its key is missing".to_owned()))?;
    Ok((addresses, managers, stored))
}

/// What a node's files say, and what they make of it for others.
pub(super) struct Own {
    pub(super) addresses: Addresses,
    pub(super) managers: Vec<Peer>,
    pub(super) stored: StoredIdentity,
    pub(super) credentials: Arc<TlsCredentials>,
}

impl Own {
    pub(super) async fn read(
        layout: &Layout,
        unlock: Option<KeyEncryptionKey>,
    ) -> Result<Self, SwarmError> {
        let layout = layout.clone();
        let (addresses, managers, stored) =
            blocking(move || read(&layout, unlock.as_ref())).await?;
        let credentials =
            TlsCredentials::new(&stored.roots_pem, &stored.chain_pem, &stored.key.node_key)
                .map_err(pki("use the node's certificate"))?;
        Ok(Self { addresses, managers, stored, credentials: Arc::new(credentials) })
    }
}

/// The data keys of what this node's agent remembers.
fn node_ring(layout: &Layout, keys: &NodeKeys) -> Result<Arc<KeyRing>, SwarmError> {
    keys.store_keys()
        .map(|keys| keys.node)
        .ok_or_else(|| layout.damaged("the key file has no data keys".to_owned()))
}

async fn open_store(
    layout: &Layout,
    replica: &Replica,
    data: Arc<DataKeys>,
) -> Result<Store, SwarmError> {
    let path = layout.store();
    if let Some(backend) = replica.open().await? {
        let layout = layout.clone();
        return blocking(move || {
            // Left by a move that was broken off after its end.
            layout.remove_store()?;
            Store::open(backend, data).map_err(SwarmError::Store)
        })
        .await;
    }
    if !path.exists() {
        return Err(layout.damaged("cluster.redb is missing".to_owned()));
    }
    blocking(move || {
        let backend = RedbBackend::open(&path)
            .map_err(|error| SwarmError::Store(StoreError::Open(Arc::new(error))))?;
        Store::open(backend, data).map_err(SwarmError::Store)
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

/// Addresses as a request has them.
struct Places<'a> {
    listen: &'a str,
    advertise: &'a str,
    data_path: &'a str,
}

/// Listens where a new manager is to listen.
async fn places(wanted: Places<'_>) -> Result<(TcpListener, Addresses), SwarmError> {
    let listener = listen(address::listen(wanted.listen)?).await?;
    let listening = listener.local_addr().map_err(|source| listen_failed(wanted.listen, source))?;
    let advertised = address::advertise(wanted.advertise, listening)?;
    let addresses = Addresses {
        local_addr: advertised.ip().to_string(),
        listen_addr: listening.to_string(),
        advertise_addr: advertised.to_string(),
        data_path_addr: wanted.data_path.to_owned(),
        ..Addresses::default()
    };
    Ok((listener, addresses))
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
