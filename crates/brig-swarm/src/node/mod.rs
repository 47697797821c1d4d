//! This node's membership in a swarm.
//!
//! Everything of it is in one directory. A membership, made or joined, is written beside that
//! directory and moved there when it is complete; leaving moves the directory away before anything in it is deleted.
//! So a crash at any time leaves the node either in a swarm or in none.

pub(crate) mod address;
mod bootstrap;
mod enrol;
mod enter;
pub(crate) mod files;
mod founding;
mod join;
pub(crate) mod keys;
mod renewal;
mod running;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use brig_pki::seal::KeyEncryptionKey;
use brig_pki::token::{NodeRole, UnlockKey};
use brig_proto::brig::{AdmissionFacts, ScanDatabase};
use brig_proto::swarm::{Cluster, ClusterSpec, Peer, node_spec};
use brig_store::StoreError;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use self::join::JoinRequest;
use self::join::{Joining, Plan};
pub(crate) use self::renewal::window as renewal_window;
use self::running::Running;
pub(crate) use self::running::pki;
use crate::backup::{Backup, BackupError};
use crate::error::SwarmError;
use crate::executor::Executor;
use crate::expiry::Expiry;
use crate::grpc::clock::ClockOffset;
use crate::manager::control::Control;
use crate::manager::scan_files::FetchError;
use crate::replica::{Child, Place, StoreSettings};

/// How long a call waits for the node to have joined. The attempt goes on after that.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// How often a node looks whether its certificate gives it another role, and the pause after it
/// could not take it.
const ROLE_LOOK: Duration = Duration::from_millis(500);
const ROLE_RETRY: Duration = Duration::from_secs(5);

/// What a node needs to be in a swarm.
#[derive(Clone)]
pub struct SwarmConfig {
    /// The swarm's directory, `<data-root>/swarm`. Directories beside it whose names begin with
    /// its name and a dot are leftovers and deleted.
    pub state_dir: PathBuf,
    /// Runs the tasks.
    pub executor: Arc<dyn Executor>,
    /// Where a cluster's store is kept.
    pub store: StoreSettings,
}

impl std::fmt::Debug for SwarmConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmConfig").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// A new swarm.
#[derive(Clone, Debug, Default)]
pub struct InitRequest {
    /// Where the manager listens, `ip[:port]`; empty for `0.0.0.0:2377`. Port 0 takes a free one.
    pub listen_addr: String,
    /// Where other nodes reach it, `ip[:port]`; empty for the listen address if that names one,
    /// else the address of the default route.
    pub advertise_addr: String,
    /// Where the traffic of cluster networks goes, `ip`; kept for `docker info`.
    pub data_path_addr: String,
    /// Port of that traffic, 0 for 4789.
    pub data_path_port: u32,
    /// Subnets that cluster networks are cut from; empty for `10.0.0.0/8`.
    pub default_addr_pool: Vec<String>,
    /// Prefix length of such a network, 0 for 24.
    pub subnet_size: u32,
    /// Go on with what this manager has of an old swarm, without its other managers.
    pub force_new_cluster: bool,
    /// The cluster's settings; what is absent gets Docker's default.
    pub spec: ClusterSpec,
    /// Whether this node takes tasks.
    pub availability: node_spec::Availability,
}

/// Where a restored cluster's manager is reached.
#[derive(Clone, Debug, Default)]
pub struct RestoreRequest {
    /// As [`InitRequest::listen_addr`].
    pub listen_addr: String,
    /// As [`InitRequest::advertise_addr`].
    pub advertise_addr: String,
    /// As [`InitRequest::data_path_addr`].
    pub data_path_addr: String,
}

/// Where this node stands, in the words of `docker info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalNodeState {
    /// In no swarm.
    #[default]
    Inactive,
    /// In a swarm, but no manager was reached yet.
    Pending,
    /// In a swarm.
    Active,
    /// In a swarm that cannot be taken up.
    Error,
    /// In a swarm whose keys need the unlock key.
    Locked,
}

/// This node's membership, for `docker info`.
#[derive(Clone, Debug, Default)]
pub struct SwarmStatus {
    /// This node's id; empty in no swarm.
    pub node_id: String,
    /// The address that other nodes reach this one at.
    pub node_addr: String,
    /// Where the node stands.
    pub local_node_state: LocalNodeState,
    /// Whether [`Swarm::control`] works.
    pub control_available: bool,
    /// What is wrong, if something is.
    pub error: String,
    /// The managers that this node knows.
    pub remote_managers: Vec<Peer>,
    /// Nodes of the cluster; only managers know.
    pub nodes: usize,
    /// Managers among them.
    pub managers: usize,
    /// The cluster without its keys; only managers know.
    pub cluster: Option<Arc<Cluster>>,
    /// How far this node's clock is from its manager's, once that is known.
    pub clock: Option<ClockOffset>,
}

/// This node's membership in a swarm. Clones share it.
#[derive(Clone)]
pub struct Swarm(Arc<Inner>);

struct Inner {
    config: SwarmConfig,
    /// Held while membership changes, so that only one change is under way.
    changing: Mutex<()>,
    membership: RwLock<Membership>,
    /// Attempts to join; at most one at a time.
    joins: TaskTracker,
    /// Those who look whether the node's role changes, and the changes.
    roles: TaskTracker,
}

#[derive(Clone)]
enum Membership {
    None,
    Running(Arc<Running>),
    /// On the way into a swarm.
    Joining(Arc<Joining>),
    /// In no swarm: the last attempt to join one failed after its caller had stopped waiting.
    JoinFailed(Arc<SwarmError>),
    /// A manager whose keys need the unlock key; nothing of the swarm runs.
    Locked,
    /// In a swarm, but it could not be taken up.
    Failed(Arc<SwarmError>),
}

impl std::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swarm").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Swarm {
    /// Takes the node's membership up where it was left. When that is not possible the node is in
    /// [`LocalNodeState::Error`]: nothing is changed, and it can leave the swarm.
    ///
    /// # Errors
    /// [`SwarmError::File`] when the directory beside the state cannot be tidied up.
    pub async fn open(config: SwarmConfig) -> Result<Self, SwarmError> {
        brig_pki::install_provider();
        let dir = config.state_dir.clone();
        let occupied = blocking(move || {
            files::remove_leftovers(&dir)?;
            files::is_occupied(&dir)
        })
        .await?;
        let mut resumed = None;
        let membership = if occupied {
            match take_up(&config, None).await {
                Ok(running) => {
                    let running = Arc::new(running);
                    resumed = Some(Arc::clone(&running));
                    Membership::Running(running)
                }
                Err(SwarmError::Pki { source: brig_pki::PkiError::Locked, .. }) => {
                    tracing::warn!(
                        "this manager is locked: unlock it with \"docker swarm unlock\""
                    );
                    Membership::Locked
                }
                Err(error) => {
                    tracing::error!(error = %brig_types::error::chain(&error), "the swarm could not be taken up");
                    Membership::Failed(Arc::new(error))
                }
            }
        } else {
            // Without a swarm no task belongs here.
            config.executor.retain(&[]).await;
            Membership::None
        };
        let swarm = Self(Arc::new(Inner {
            config,
            changing: Mutex::new(()),
            membership: RwLock::new(membership),
            joins: TaskTracker::new(),
            roles: TaskTracker::new(),
        }));
        if let Some(running) = resumed {
            swarm.run(running);
        }
        Ok(swarm)
    }

    /// Makes a new swarm with this node as its manager; returns the node's id. With
    /// `force_new_cluster` on a manager its cluster goes on with it alone.
    ///
    /// # Errors
    /// [`SwarmError::AlreadyInSwarm`], [`SwarmError::NotManager`], [`SwarmError::Locked`], [`SwarmError::InvalidArgument`], [`SwarmError::Listen`].
    pub async fn init(&self, request: InitRequest) -> Result<String, SwarmError> {
        let _changing = self.0.changing.lock().await;
        if request.force_new_cluster && self.check_free().is_err() {
            return self.stay_alone(request).await;
        }
        self.check_free()?;
        let running = Running::create(&self.0.config, request).await?;
        let node = running.node_id();
        self.run(Arc::new(running));
        Ok(node)
    }

    /// Makes this node the manager of a cluster that a backup was made of; returns the node's id.
    /// The managers that it had are taken out of it, what ran on them is started elsewhere.
    ///
    /// # Errors
    /// [`SwarmError::AlreadyInSwarm`], [`SwarmError::Listen`], [`SwarmError::Restore`].
    pub async fn restore(
        &self,
        request: RestoreRequest,
        backup: &Backup,
    ) -> Result<String, SwarmError> {
        let _changing = self.0.changing.lock().await;
        self.check_free()?;
        let running = Running::restore(&self.0.config, request, backup).await?;
        let node = running.node_id();
        self.run(Arc::new(running));
        tracing::info!(node, cluster = backup.summary.cluster, "a cluster was restored");
        Ok(node)
    }

    /// Makes this manager the only one of its cluster, when the others are gone for good. What is
    /// stored here goes on; the other managers are workers that are down, to be removed or to join
    /// anew. Also for a manager whose swarm could not be taken up, because its address is another
    /// one now for example.
    async fn stay_alone(&self, request: InitRequest) -> Result<String, SwarmError> {
        let unlock = match self.membership() {
            Membership::Running(running) if running.is_manager() => {
                let unlock = running.unlock_key();
                running.stop().await;
                unlock
            }
            Membership::Locked => return Err(SwarmError::Locked),
            Membership::Failed(_) => None,
            Membership::None
            | Membership::JoinFailed(_)
            | Membership::Joining(_)
            | Membership::Running(_) => return Err(SwarmError::NotManager),
        };
        // The store's file is closed with the last user of it.
        self.set(Membership::None);
        match Running::alone(&self.0.config, request, unlock).await {
            Ok(running) => {
                let node = running.node_id();
                self.run(Arc::new(running));
                tracing::warn!(node, "this manager goes on alone");
                Ok(node)
            }
            Err(error) => {
                let text = brig_types::error::chain(&error);
                self.set(Membership::Failed(Arc::new(error)));
                Err(SwarmError::InvalidArgument(text))
            }
        }
    }

    /// Restores a backup into a scratch store beside this node's swarm, which it does not touch.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn try_out(&self, backup: &Backup) -> Result<(), BackupError> {
        let dir = files::prepare_beside(&self.0.config.state_dir)
            .map_err(|error| BackupError::Scratch(Box::new(error)))?;
        let outcome = backup.try_out(&dir).await;
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(%error, path = %dir.display(), "a scratch store stays until the next start");
        }
        outcome
    }

    /// Whether this node could be given a cluster.
    ///
    /// # Errors
    /// [`SwarmError::AlreadyInSwarm`].
    pub fn check_free(&self) -> Result<(), SwarmError> {
        match self.membership() {
            Membership::None | Membership::JoinFailed(_) => Ok(()),
            Membership::Joining(_)
            | Membership::Running(_)
            | Membership::Locked
            | Membership::Failed(_) => Err(SwarmError::AlreadyInSwarm),
        }
    }

    /// Works in a swarm from now on, in the role that its certificate gives it.
    fn run(&self, running: Arc<Running>) {
        self.set(Membership::Running(Arc::clone(&running)));
        let swarm = Arc::downgrade(&self.0);
        self.0.roles.spawn(async move { follow_role(swarm, running).await });
    }

    /// Becomes a manager, or stops being one. Answers whether that is settled.
    async fn change_role(&self, running: &Arc<Running>) -> bool {
        let _changing = self.0.changing.lock().await;
        let is_current = matches!(
            self.membership(),
            Membership::Running(current) if Arc::ptr_eq(&current, running)
        );
        if !is_current {
            return true;
        }
        let config = &self.0.config;
        let unlock = running.unlock_key().filter(|_| running.role() == NodeRole::Manager);
        if running.role() == NodeRole::Manager {
            running.abandon_member();
            match enter::enter(config, Some(running.keys()), unlock.clone()).await {
                Ok(()) => running.stop().await,
                Err(SwarmError::Rpc(status)) if status.code() == tonic::Code::Unimplemented => {
                    tracing::warn!(
                        "this node was promoted but works on as a worker: its managers are not brig's"
                    );
                    return true;
                }
                Err(error) => {
                    tracing::warn!(error = %brig_types::error::chain(&error), "this node was promoted and is no manager yet");
                    return false;
                }
            }
        } else {
            if let Err(error) = running.step_down().await {
                tracing::warn!(error = %brig_types::error::chain(&error), "this manager was demoted and cannot go yet");
                return false;
            }
            if let Err(error) = enter::step_down(&config.state_dir).await {
                tracing::error!(error = %brig_types::error::chain(&error), "what a manager has was not removed");
            }
        }
        match take_up(config, unlock).await {
            Ok(running) => self.run(Arc::new(running)),
            Err(error) => {
                tracing::error!(error = %brig_types::error::chain(&error), "the swarm could not be taken up");
                self.set(Membership::Failed(Arc::new(error)));
            }
        }
        true
    }

    /// Joins an existing swarm as a worker and waits until this node works in it.
    ///
    /// # Errors
    /// [`SwarmError::AlreadyInSwarm`], [`SwarmError::InvalidJoinToken`], whatever keeps the node
    /// from joining; [`SwarmError::JoinTimeout`] when it takes long: the attempt goes on.
    pub async fn join(&self, request: JoinRequest) -> Result<(), SwarmError> {
        let deadline = Instant::now() + JOIN_PATIENCE;
        let outcome = self.begin_join(request).await?;
        let running = tokio::time::timeout_at(deadline, outcome)
            .await
            .map_err(|_| SwarmError::JoinTimeout)?
            .unwrap_or(Err(SwarmError::JoinStopped))?;
        tokio::time::timeout_at(deadline, running.connected())
            .await
            .map_err(|_| SwarmError::JoinTimeout)?
    }

    async fn begin_join(
        &self,
        request: JoinRequest,
    ) -> Result<oneshot::Receiver<Result<Arc<Running>, SwarmError>>, SwarmError> {
        let _changing = self.0.changing.lock().await;
        self.check_free()?;
        let plan = Plan::new(request)?;
        let joining = Arc::new(Joining::new(&plan));
        self.set(Membership::Joining(Arc::clone(&joining)));
        let (sender, receiver) = oneshot::channel();
        let swarm = self.clone();
        self.0.joins.spawn(async move {
            match joining.run(&swarm.0.config, plan, &sender).await {
                Ok(running) => {
                    let running = Arc::new(running);
                    swarm.run(Arc::clone(&running));
                    // Whoever asked may have stopped waiting; the node has joined all the same.
                    let _ = sender.send(Ok(running));
                }
                Err(error) => {
                    tracing::error!(error = %brig_types::error::chain(&error), "the node has not joined");
                    swarm.set(Membership::None);
                    if let Err(Err(unheard)) = sender.send(Err(error)) {
                        swarm.set(Membership::JoinFailed(Arc::new(unheard)));
                    }
                }
            }
        });
        Ok(receiver)
    }

    /// Ends an attempt to join; answers the membership that it left.
    async fn end_join(&self) -> Membership {
        if let Membership::Joining(joining) = self.membership() {
            joining.stop.cancel();
            self.0.joins.close();
            self.0.joins.wait().await;
            self.0.joins.reopen();
        }
        self.membership()
    }

    /// Takes the membership of a locked manager up with the cluster's unlock key, `SWMKEY-1-…`.
    ///
    /// # Errors
    /// [`SwarmError::NotLocked`]; [`SwarmError::BadUnlockKey`] and [`SwarmError::WrongUnlockKey`],
    /// which change nothing; whatever else keeps the swarm from being taken up.
    pub async fn unlock(&self, key: &str) -> Result<(), SwarmError> {
        let _changing = self.0.changing.lock().await;
        match self.membership() {
            Membership::Locked => {}
            Membership::Running(running) if running.is_manager() => {
                return Err(SwarmError::NotLocked);
            }
            _ => return Err(self.control().err().unwrap_or(SwarmError::NotLocked)),
        }
        let key = UnlockKey::parse(key).map_err(|_| SwarmError::BadUnlockKey)?;
        let kek = KeyEncryptionKey::from(&key);
        match take_up(&self.0.config, Some(kek)).await {
            Ok(running) => {
                self.run(Arc::new(running));
                tracing::info!("this manager is unlocked");
                Ok(())
            }
            Err(SwarmError::Pki { source: brig_pki::PkiError::WrongUnlockKey, .. }) => {
                Err(SwarmError::WrongUnlockKey)
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves the swarm: stops and removes this node's tasks and deletes everything of the swarm,
    /// on a manager the whole cluster.
    ///
    /// # Errors
    /// [`SwarmError::NotPartOfSwarm`]; [`SwarmError::LeaveManager`] without `force` on a manager.
    pub async fn leave(&self, force: bool) -> Result<(), SwarmError> {
        let _changing = self.0.changing.lock().await;
        let was_joining = matches!(self.membership(), Membership::Joining(_));
        match self.end_join().await {
            Membership::None if !was_joining => return Err(SwarmError::NotPartOfSwarm),
            Membership::None | Membership::Joining(_) | Membership::JoinFailed(_) => {}
            Membership::Running(running) => {
                if running.is_manager() && !force {
                    return Err(match running.managers() {
                        (_, 0 | 1) => SwarmError::LeaveManager,
                        (reachable, all) => {
                            SwarmError::LeaveOneOfManagers(left_text(reachable, all))
                        }
                    });
                }
                running.leave().await;
            }
            Membership::Locked => {
                if !force {
                    return Err(SwarmError::LeaveLocked);
                }
                self.end_member().await;
                self.0.config.executor.retain(&[]).await;
            }
            Membership::Failed(error) => {
                if !force {
                    return Err(SwarmError::InvalidArgument(format!(
                        "this node's swarm cannot be taken up ({}). Use `--force` to leave it all the same",
                        brig_types::error::chain(error.as_ref())
                    )));
                }
                self.end_member().await;
                self.0.config.executor.retain(&[]).await;
            }
        }
        // The store's file is closed with the last user of it.
        self.set(Membership::None);
        let dir = self.0.config.state_dir.clone();
        blocking(move || files::discard(&dir)).await
    }

    /// Stops everything of the swarm on this node; containers go on running.
    pub async fn shutdown(&self) {
        let _changing = self.0.changing.lock().await;
        if let Membership::Running(running) = self.end_join().await {
            running.stop().await;
        }
        self.set(Membership::None);
    }

    /// The cluster's objects.
    ///
    /// # Errors
    /// [`SwarmError::NotInSwarm`], [`SwarmError::NotManager`], [`SwarmError::Locked`],
    /// [`SwarmError::Unusable`].
    pub fn control(&self) -> Result<Control, SwarmError> {
        match self.membership() {
            Membership::None | Membership::JoinFailed(_) => Err(SwarmError::NotInSwarm),
            Membership::Joining(_) => Err(SwarmError::NotManager),
            Membership::Running(running) => running.control().ok_or(SwarmError::NotManager),
            Membership::Locked => Err(SwarmError::Locked),
            Membership::Failed(error) => Err(SwarmError::Unusable(error)),
        }
    }

    /// What the managers say of images of a repository: their policies, and what they verified. A
    /// worker asks one of them.
    ///
    /// # Errors
    /// [`SwarmError::NotInSwarm`]; [`SwarmError::Rpc`] when no manager answers, or one of another
    /// make, which knows no such thing; as [`Swarm::control`].
    pub async fn admission_facts(&self, repository: &str) -> Result<AdmissionFacts, SwarmError> {
        match self.membership() {
            Membership::Running(running) => running.admission_facts(repository).await,
            _ => self.control().map(|control| control.admission_facts(repository)),
        }
    }

    /// Which vulnerability database the swarm has; a worker asks a manager.
    ///
    /// # Errors
    /// As [`Swarm::admission_facts`].
    pub async fn scan_database(&self) -> Result<Option<ScanDatabase>, SwarmError> {
        match self.membership() {
            Membership::Running(running) => running.scan_database().await,
            _ => self
                .control()
                .map(|control| control.scan_database().map(|database| database.as_ref().clone())),
        }
    }

    /// Fetches its file from a manager into `path`; it is there whole and with the right digest, or
    /// not at all.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_scan_file(
        &self,
        wanted: &ScanDatabase,
        path: &Path,
    ) -> Result<(), FetchError> {
        match self.membership() {
            Membership::Running(running) => running.fetch_scan_file(wanted, path).await,
            _ => Err(FetchError::Nobody),
        }
    }

    /// Everything of the swarm that ends at a known time, as far as this node knows: on a manager
    /// the whole cluster's, on a worker its own. Nothing in no swarm.
    ///
    /// # Errors
    /// [`SwarmError::Locked`], [`SwarmError::Unusable`].
    pub fn expiries(&self, now: SystemTime) -> Result<Vec<Expiry>, SwarmError> {
        match self.membership() {
            Membership::None | Membership::JoinFailed(_) | Membership::Joining(_) => Ok(Vec::new()),
            Membership::Running(running) => Ok(running.expiries(now)),
            Membership::Locked => Err(SwarmError::Locked),
            Membership::Failed(error) => Err(SwarmError::Unusable(error)),
        }
    }

    /// Where this node stands.
    #[must_use]
    pub fn status(&self) -> SwarmStatus {
        match self.membership() {
            Membership::None => SwarmStatus::default(),
            Membership::Running(running) => running.status(),
            Membership::Joining(joining) => joining.status(),
            Membership::JoinFailed(error) => SwarmStatus {
                local_node_state: LocalNodeState::Error,
                error: brig_types::error::chain(error.as_ref()),
                ..SwarmStatus::default()
            },
            Membership::Locked => SwarmStatus {
                local_node_state: LocalNodeState::Locked,
                error: SwarmError::Locked.to_string(),
                ..SwarmStatus::default()
            },
            Membership::Failed(error) => SwarmStatus {
                local_node_state: LocalNodeState::Error,
                error: brig_types::error::chain(error.as_ref()),
                ..SwarmStatus::default()
            },
        }
    }

    /// Whether this manager has lost the others, so that what it answers may be out of date.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match &*self.0.membership.read().unwrap_or_else(PoisonError::into_inner) {
            Membership::Running(running) => {
                running.control().is_some_and(|control| !control.is_current())
            }
            Membership::None
            | Membership::Joining(_)
            | Membership::JoinFailed(_)
            | Membership::Locked
            | Membership::Failed(_) => false,
        }
    }

    /// Ends a member of the replicated store that an earlier brigd left running.
    async fn end_member(&self) {
        let dir = files::Layout(self.0.config.state_dir.clone()).replica();
        if let Err(error) = Child::end_leftover(&dir).await {
            tracing::warn!(error = %brig_types::error::chain(&error), "this node's etcd was not ended");
        }
    }

    fn membership(&self) -> Membership {
        self.0.membership.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, membership: Membership) {
        *self.0.membership.write().unwrap_or_else(PoisonError::into_inner) = membership;
    }
}

/// What leaving does to the others' quorum, in Docker's words; nothing if they keep it.
fn left_text(reachable: usize, all: usize) -> String {
    let left = reachable.saturating_sub(1);
    if left > all / 2 {
        return String::new();
    }
    format!(
        "Removing this node leaves {left} managers out of {all}. Without a Raft quorum your swarm will be inaccessible. "
    )
}

/// Takes the membership up where it was left. A manager that the others took out of the store
/// meanwhile comes back, as what it is now.
async fn take_up(
    config: &SwarmConfig,
    unlock: Option<KeyEncryptionKey>,
) -> Result<Running, SwarmError> {
    match Running::resume(config, unlock.clone()).await {
        Err(SwarmError::NotAMember) => {
            tracing::warn!("this manager was taken out of the store while it was away");
        }
        // The others took up a data key that this one never got, so it was none of them then.
        Err(error @ SwarmError::Store(StoreError::Damaged { .. }))
            if has_members(config).await? =>
        {
            tracing::warn!(error = %brig_types::error::chain(&error), "this manager cannot read what the others wrote, and asks them");
        }
        outcome => return outcome,
    }
    let unlock = match enter::come_back(config, unlock.clone()).await? {
        enter::Back::Manager => unlock,
        enter::Back::Worker => None,
    };
    Running::resume(config, unlock).await
}

/// Whether other managers have the same store.
async fn has_members(config: &SwarmConfig) -> Result<bool, SwarmError> {
    let layout = files::Layout(config.state_dir.clone());
    let place = blocking(move || layout.read_store_place()).await?;
    Ok(matches!(place, Some(Place::Member(_))))
}

/// Waits until a node's certificate gives it another role than it works in, or the others took its
/// member out of the store. Ends with the membership.
async fn follow_role(swarm: Weak<Inner>, running: Arc<Running>) {
    let mut pause = ROLE_LOOK;
    loop {
        tokio::select! {
            () = running.stopped() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let is_settled = (running.role() == NodeRole::Manager) == running.is_manager();
        if is_settled && !running.is_taken_out() {
            continue;
        }
        let Some(inner) = swarm.upgrade() else { return };
        // Stopping the membership ends this task too, so the change has one of its own.
        let changing = {
            let running = Arc::clone(&running);
            let roles = inner.roles.clone();
            roles.spawn(async move { Swarm(inner).change_role(&running).await })
        };
        if changing.await.unwrap_or(true) {
            return;
        }
        pause = ROLE_RETRY;
    }
}

/// Runs file and key operations where they do not hold up anything else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
) -> Result<T, SwarmError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(SwarmError::InvalidArgument(format!("interrupted: {error}"))))
}
