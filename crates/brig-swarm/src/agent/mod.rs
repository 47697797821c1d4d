//! The agent: runs the tasks that managers assign to this node. It speaks SwarmKit's protocol and
//! nothing else, to the manager in the same process as to any other.

pub(crate) mod database;
pub(crate) mod dependencies;
pub(crate) mod inventories;
pub(crate) mod log_subscriptions;
pub(crate) mod managers;
pub(crate) mod reporter;
pub(crate) mod session;
pub(crate) mod step;
pub(crate) mod task_manager;
pub(crate) mod worker;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use brig_pki::seal::KeyRing;
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole;
use brig_proto::swarm::{Node, Peer, WeightedPeer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::database::Database;
use self::dependencies::DependencyStore;
use self::managers::Managers;
use self::reporter::Reporter;
use self::session::SessionError;
use self::task_manager::Context;
use self::worker::Worker;
use crate::executor::Executor;
use crate::grpc::clock::{self, ClockOffset, OtherClock};

/// First and longest pause before a new session; each is twice the one before and 100 ms more.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(8);
/// How long the tasks of a node that leaves may take to stop.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);

/// Writes the list of managers down; may block.
pub(crate) type RememberManagers = dyn Fn(&[Peer]) + Send + Sync;

/// What an agent needs to start.
pub(crate) struct AgentConfig<'a> {
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) credentials: Arc<TlsCredentials>,
    /// The manager in this process, if there is one.
    pub(crate) local_manager: Option<String>,
    pub(crate) managers: Vec<Peer>,
    /// Told whenever the list of managers changes.
    pub(crate) remember_managers: Arc<RememberManagers>,
    /// Where tasks are remembered.
    pub(crate) tasks_dir: &'a Path,
    /// Seals what is remembered.
    pub(crate) keys: Arc<KeyRing>,
}

/// How the agent stands with its managers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgentState {
    /// Whether there is a session now.
    pub(crate) connected: bool,
    /// Whether there ever was one since the start.
    pub(crate) was_connected: bool,
    /// Why the last session ended.
    pub(crate) error: String,
}

/// What the parts of an agent share.
pub(crate) struct Shared {
    credentials: Arc<TlsCredentials>,
    context: Arc<Context>,
    worker: Arc<Worker>,
    local_manager: Option<String>,
    managers: Mutex<Managers>,
    remember_managers: Arc<RememberManagers>,
    state: watch::Sender<AgentState>,
    node: watch::Sender<Option<Node>>,
    roots: watch::Sender<Vec<u8>>,
    certificates: watch::Sender<u64>,
    /// The clock of the manager of the current session.
    clock: Mutex<Option<OtherClock>>,
}

/// A running agent.
pub(crate) struct Agent {
    shared: Arc<Shared>,
    sessions: CancellationToken,
    tasks: CancellationToken,
    tracker: TaskTracker,
}

impl Agent {
    /// Takes up the tasks this node had and starts looking for a manager.
    pub(crate) async fn start(config: AgentConfig<'_>) -> io::Result<Self> {
        let tasks = CancellationToken::new();
        let context = Arc::new(Context {
            executor: config.executor,
            store: Arc::new(DependencyStore::default()),
            database: Database::open(config.tasks_dir, config.keys)?,
            reporter: Arc::new(Reporter::default()),
        });
        let worker = Arc::new(Worker::new(Arc::clone(&context), tasks.clone()));
        worker.resume().await?;
        let shared = Arc::new(Shared {
            roots: watch::Sender::new(config.credentials.roots_pem()),
            credentials: config.credentials,
            context,
            worker,
            local_manager: config.local_manager,
            managers: Mutex::new(Managers::new(config.managers)),
            remember_managers: config.remember_managers,
            state: watch::Sender::default(),
            node: watch::Sender::default(),
            certificates: watch::Sender::default(),
            clock: Mutex::default(),
        });
        let sessions = CancellationToken::new();
        let tracker = TaskTracker::new();
        let (own, stop) = (Arc::clone(&shared), sessions.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = own.run() => {}
            }
        });
        Ok(Self { shared, sessions, tasks, tracker })
    }

    /// How the agent stands with its managers.
    pub(crate) fn state(&self) -> watch::Receiver<AgentState> {
        self.shared.state.subscribe()
    }

    /// This node as its managers see it.
    pub(crate) fn node(&self) -> watch::Receiver<Option<Node>> {
        self.shared.node.subscribe()
    }

    /// The trust anchor as the managers send it.
    pub(crate) fn roots(&self) -> watch::Receiver<Vec<u8>> {
        self.shared.roots.subscribe()
    }

    /// The managers that are known.
    pub(crate) fn managers(&self) -> Vec<Peer> {
        self.shared.managers().peers()
    }

    /// How far this node's clock is from its manager's, if that tells its time.
    pub(crate) fn clock(&self) -> Option<ClockOffset> {
        self.shared.clock().as_ref().map(|clock| clock.offset().reversed())
    }

    /// A manager to ask, of a node that is one the own.
    pub(crate) fn choose_manager(&self) -> Option<String> {
        self.shared.choose_manager_but(None)
    }

    /// Another one than this, which just failed, if there is one. The own one may have lost the
    /// store, which is nothing to the others.
    pub(crate) fn choose_manager_but(&self, avoided: Option<&str>) -> Option<String> {
        let other = avoided
            .filter(|avoided| self.shared.local_manager.as_deref() == Some(*avoided))
            .and_then(|avoided| self.shared.managers().choose(random(), Some(avoided)));
        other.or_else(|| self.shared.choose_manager_but(avoided))
    }

    /// The node's certificate or roots were replaced.
    pub(crate) fn certificates_changed(&self) {
        session::certificates_changed(&self.shared.certificates);
    }

    /// Stops without touching any container.
    pub(crate) async fn stop(&self) {
        self.sessions.cancel();
        self.tasks.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        self.shared.worker.stopped().await;
    }

    /// Stops and removes every task, for a node that leaves.
    pub(crate) async fn leave(&self) {
        self.sessions.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        let removal = self.shared.worker.remove_all();
        if tokio::time::timeout(LEAVE_PATIENCE, removal).await.is_err() {
            tracing::warn!("some tasks did not stop before the node left the swarm");
        }
        self.tasks.cancel();
    }
}

impl Shared {
    async fn run(&self) {
        let mut session = String::new();
        let mut backoff = Duration::ZERO;
        let mut disappointing: Option<String> = None;
        let mut certificates = self.certificates.subscribe();
        loop {
            let pause = backoff.mul_f64(random());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Managers may have refused the old one.
                Ok(()) = certificates.changed() => {}
            }
            backoff = (backoff * 2 + FIRST_BACKOFF).min(MAX_BACKOFF);
            let Some(address) = self.choose_manager_but(disappointing.as_deref()) else {
                self.failed(&SessionError::NoManager);
                continue;
            };
            let mut opened = false;
            let reason = session::run(self, &address, &mut session, || {
                opened = true;
                self.state.send_replace(AgentState {
                    connected: true,
                    was_connected: true,
                    error: String::new(),
                });
            })
            .await;
            if opened {
                backoff = Duration::ZERO;
            }
            self.managers().disappointed(&address);
            disappointing = Some(address);
            self.failed(&reason);
        }
    }

    fn failed(&self, reason: &SessionError) {
        let text = brig_types::error::chain(reason);
        tracing::info!(reason = text, "no session with a manager");
        self.state.send_modify(|state| {
            state.connected = false;
            state.error = text;
        });
    }

    /// Another one than this, if there is one.
    fn choose_manager_but(&self, avoided: Option<&str>) -> Option<String> {
        // The one of this process is none any more to whoever has a worker's certificate, even if
        // it takes its time to stop.
        let is_manager = self.credentials.identity().role == NodeRole::Manager;
        let local = self.local_manager.clone().filter(|_| is_manager);
        local.or_else(|| self.managers().choose(random(), avoided))
    }

    async fn update_managers(&self, listed: &[WeightedPeer]) {
        if listed.is_empty() {
            return;
        }
        let changed = {
            let mut managers = self.managers();
            managers.replace(listed).then(|| managers.peers())
        };
        if let Some(peers) = changed {
            let remember = Arc::clone(&self.remember_managers);
            let written = tokio::task::spawn_blocking(move || remember(&peers)).await;
            if let Err(error) = written {
                tracing::error!(error = %error, "cannot remember the managers");
            }
        }
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, Option<OtherClock>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what a manager's answer says about its clock.
    fn see_clock(&self, manager: &str, there: SystemTime, sent: SystemTime) {
        let received = SystemTime::now();
        let offset = ClockOffset::measured(there, sent, received);
        let worth_telling =
            self.clock().get_or_insert_default().observe(offset, tokio::time::Instant::now());
        if worth_telling && offset.is_off() {
            let (here, there) = (clock::text(received), clock::text(there));
            let own = offset.reversed();
            tracing::warn!(manager, here, there, "this node's clock is {own} of its manager's");
        } else if worth_telling {
            tracing::info!(manager, "this node's clock agrees with its manager's again");
        }
    }

    fn managers(&self) -> std::sync::MutexGuard<'_, Managers> {
        self.managers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number from 0 to 1.
pub(crate) fn random() -> f64 {
    let bytes = brig_pki::random::bytes::<4>().map_or(u32::MAX / 2, u32::from_be_bytes);
    f64::from(bytes) / f64::from(u32::MAX)
}
