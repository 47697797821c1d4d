//! The manager: control loops that only read and write the store, and the gRPC services through
//! which nodes reach it.
//!
//! No loop calls another one. A service that is created goes from the control side through the
//! store to the orchestrator (tasks), the allocator (ports, networks), the scheduler (nodes) and
//! the dispatcher (agents); what agents report comes back the same way.

pub(crate) mod admission;
pub(crate) mod allocator;
pub(crate) mod ca;
pub(crate) mod changes;
pub(crate) mod control;
pub(crate) mod dispatcher;
pub(crate) mod gate;
pub(crate) mod inventories;
pub(crate) mod issued;
pub(crate) mod join_tokens;
pub(crate) mod key_peers;
pub(crate) mod keys;
pub(crate) mod leading;
pub(crate) mod logbroker;
pub(crate) mod members;
pub(crate) mod orchestrator;
pub(crate) mod other_logs;
pub(crate) mod resource;
pub(crate) mod scan_files;
pub(crate) mod scheduler;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::tls::TlsCredentials;
use brig_proto::brig::admission_server::AdmissionServer;
use brig_proto::brig::inventories_server::InventoriesServer;
use brig_proto::brig::managers_server::ManagersServer;
use brig_proto::brig::scan_databases_server::ScanDatabasesServer;
use brig_proto::swarm::{Node, NodeRole};
use brig_proto::swarm::{
    ca_server::CaServer as CaService, dispatcher_server::DispatcherServer,
    health_server::HealthServer, log_broker_server::LogBrokerServer, logs_server::LogsServer,
    node_ca_server::NodeCaServer, resource_allocator_server::ResourceAllocatorServer,
};
use brig_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admission::Facts;
use self::ca::server::CaServer;
use self::ca::signers::Signers;
use self::control::Control;
use self::dispatcher::{Dispatcher, OwnNode};
use self::gate::Gate;
use self::inventories::{InventoryServer, MAX_INVENTORY};
use self::keys::KeyManager;
use self::logbroker::LogBroker;
use self::members::Members;
use self::other_logs::{OtherLogs, OwnLogs};
use self::resource::{Health, ResourceAllocator};
use self::scan_files::ScanFiles;
use crate::error::SwarmError;
use crate::grpc::authorize::AuthorizeLayer;
use crate::grpc::clock::{ClockOffset, StampLayer};
use crate::grpc::connections::Connections;
use crate::grpc::refusals::Refusals;
use crate::grpc::server::{self, Door};
use crate::inventories::ImageInventories;
use crate::replica::{Replica, upkeep};

/// How long connections get to end by themselves when the manager stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a manager needs to start.
pub(crate) struct ManagerConfig {
    /// The cluster's store.
    pub(crate) store: Store,
    /// The node's certificate, shared with whoever renews it.
    pub(crate) credentials: Arc<TlsCredentials>,
    /// The listener on the swarm's address.
    pub(crate) listener: TcpListener,
    /// The cluster's id.
    pub(crate) cluster: String,
    /// The node that the manager runs on.
    pub(crate) own: OwnNode,
    /// The keys of the store.
    pub(crate) keys: KeyManager,
    /// This manager's part of the store.
    pub(crate) replica: Arc<Replica>,
    /// Where nodes' inventories of images go.
    pub(crate) inventories: Option<Arc<dyn ImageInventories>>,
}

/// A running manager.
pub(crate) struct Manager {
    store: Store,
    replica: Arc<Replica>,
    control: Control,
    dispatcher: Dispatcher,
    signers: Arc<Signers>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Manager {
    /// Starts the loops and serves.
    pub(crate) async fn start(config: ManagerConfig) -> Result<Self, StoreError> {
        let ManagerConfig {
            store,
            credentials,
            listener,
            cluster,
            own,
            keys,
            replica,
            inventories,
        } = config;
        let inventories = InventoryServer { store: store.clone(), inventories };
        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let live = replica.live.clone();
        live.claim(&leading::manager_claim(&own.id), &own.address);
        live.campaign(&own.id);
        let dispatcher = Dispatcher::new(
            store.clone(),
            own.clone(),
            live.clone(),
            tracker.clone(),
            stop.clone(),
        );
        if *live.leads().borrow() {
            dispatcher.take_over().await?;
        }
        let logs = LogBroker::new(tracker.clone(), stop.clone());
        let others = OtherLogs::new(
            own.id.clone(),
            live.clone(),
            Arc::clone(&credentials),
            tracker.clone(),
            stop.clone(),
        );
        let scan_files = ScanFiles::new(
            store.clone(),
            own.id.clone(),
            live.clone(),
            Arc::clone(&credentials),
            tracker.clone(),
            stop.clone(),
        );
        let control = Control::new(
            store.clone(),
            (logs.clone(), others),
            own.id.clone(),
            Arc::clone(&credentials),
            keys.clone(),
            scan_files.clone(),
        );
        let members = Members::new(
            cluster.clone(),
            store.clone(),
            Arc::clone(&replica),
            keys.clone(),
            tracker.clone(),
        );
        let signers = Arc::new(Signers::new(Arc::clone(&credentials)));
        let manager = Self {
            store: store.clone(),
            replica: Arc::clone(&replica),
            control,
            dispatcher: dispatcher.clone(),
            signers: Arc::clone(&signers),
            tracker,
            stop,
        };
        manager.lead(&store, orchestrator::run);
        manager.lead(&store, allocator::run);
        manager.lead(&store, scheduler::run);
        manager.lead(&store, {
            let signers = Arc::clone(&signers);
            move |store| ca::reconciler::run(store, Arc::clone(&signers))
        });
        manager.lead(&store, {
            let keys = keys.clone();
            move |_| keys.clone().rotate_when_wanted()
        });
        manager.lead(&store, {
            let (live, own) = (live.clone(), own.id.clone());
            move |store| leading::tell(store, live.clone(), own.clone())
        });
        manager.spawn(leading::announce(store.clone(), own));
        manager.lead(&store, {
            let dispatcher = dispatcher.clone();
            move |_| dispatcher.clone().watch_unattended()
        });
        manager.lead(&store, {
            let (replica, keys) = (Arc::clone(&replica), keys.clone());
            move |store| upkeep::lead(Arc::clone(&replica), store, keys.clone())
        });
        manager.spawn(upkeep::follow(replica, store.clone()));
        manager.spawn(dispatcher.clone().watch_heartbeats());
        manager.spawn(keys.keep_locked());
        let connections = Connections::default();
        let gate = Arc::new(Gate::new(cluster, store.clone()));
        manager.spawn(Arc::clone(&gate).watch(
            dispatcher.clone(),
            connections.clone(),
            Arc::clone(&credentials),
        ));
        let refusals = Arc::new(Refusals::default());
        let authorize = AuthorizeLayer {
            membership: Arc::clone(&gate) as Arc<_>,
            refusals: Arc::clone(&refusals),
        };
        let waiting = Arc::new(Notify::new());
        manager.spawn(ca::pending::run(store.clone(), Arc::clone(&signers), Arc::clone(&waiting)));
        let ca = CaServer::new(store, signers, waiting, manager.stop.clone());
        let door = Door { credentials, membership: gate, connections, refusals };
        let incoming = server::incoming(listener, door, &manager.tracker, manager.stop.clone());
        let own = (members, inventories, scan_files);
        manager.serve(incoming, authorize, ca, dispatcher, logs, own);
        Ok(manager)
    }

    /// The cluster's objects.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// How far the nodes' clocks are from this manager's.
    pub(crate) fn clocks(&self) -> BTreeMap<String, ClockOffset> {
        self.dispatcher.clocks()
    }

    /// Whether the others took this manager's member out of the store.
    pub(crate) fn is_taken_out(&self) -> bool {
        self.replica.is_taken_out()
    }

    /// Looks after the member no longer.
    pub(crate) fn abandon_member(&self) {
        self.replica.abandon_member();
    }

    /// Ends the sessions and stops everything.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.replica.stop();
        self.tracker.close();
        if tokio::time::timeout(STOP_PATIENCE * 2, self.tracker.wait()).await.is_err() {
            tracing::warn!("parts of the manager did not stop in time");
        }
        self.signers.close();
        if tokio::time::timeout(STOP_PATIENCE, self.replica.live.stopped()).await.is_err() {
            tracing::info!("the other managers were not told that this one stops");
        }
        // Connections that end slowly have handlers, and those have the store.
        let store = self.store.clone();
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            tracing::error!("the cluster store was not closed");
        }
    }

    /// Takes this manager out of the replicated store, if the others are there to agree, and stops
    /// with everything it has of it. Where they are not it stays what it is, unless it is to go
    /// `anyhow`: its member counts for their quorum.
    ///
    /// # Errors
    /// [`SwarmError::Etcd`] when it stayed.
    pub(crate) async fn leave(&self, node: &str, anyhow: bool) -> Result<(), SwarmError> {
        let others = self.store.view().managers().any(|other| other.id != node);
        if others && self.replica.has_members() {
            let noted = self
                .store
                .update(|tx| -> Result<(), StoreError> {
                    let Some(current) = tx.get::<Node>(node) else { return Ok(()) };
                    let mut next = (*current).clone();
                    next.manager_status = None;
                    // Whoever was demoted may have been promoted again since.
                    if anyhow {
                        let was_manager = next.role() == NodeRole::Manager;
                        next.set_role(NodeRole::Worker);
                        next.spec.get_or_insert_default().set_desired_role(NodeRole::Worker);
                        if was_manager {
                            keys::distrust_former(tx, "a manager left")?;
                        }
                    }
                    tx.update(next).map(drop)
                })
                .await;
            if let Err(error) = noted {
                tracing::warn!(error = %brig_types::error::chain(&error), "the other managers were not told");
            }
            if let Err(error) = self.replica.remove(node).await {
                if !anyhow {
                    return Err(error);
                }
                tracing::warn!(error = %brig_types::error::chain(&error), "this manager's member was not taken out of the store");
            }
        }
        self.stop().await;
        self.replica.end().await;
        Ok(())
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs something while this manager leads.
    fn lead<F>(&self, store: &Store, work: impl Fn(Store) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (leads, store) = (self.replica.live.leads(), store.clone());
        self.spawn(leading::while_leading(leads, move || work(store.clone())));
    }

    fn serve(
        &self,
        incoming: impl Stream<Item = Result<server::Connection, Infallible>> + Send + 'static,
        authorize: AuthorizeLayer,
        ca: CaServer,
        dispatcher: Dispatcher,
        logs: LogBroker,
        (members, inventories, scan_files): (Members, InventoryServer, ScanFiles),
    ) {
        let inventories =
            InventoriesServer::new(inventories).max_decoding_message_size(2 * MAX_INVENTORY);
        let own_logs = OwnLogs {
            broker: logs.clone(),
            tracker: self.tracker.clone(),
            stop: self.stop.clone(),
        };
        let router = tonic::transport::Server::builder()
            .layer(StampLayer)
            .layer(authorize)
            .add_service(CaService::new(ca.clone()))
            .add_service(NodeCaServer::new(ca))
            .add_service(DispatcherServer::new(dispatcher))
            .add_service(LogsServer::new(own_logs))
            .add_service(LogBrokerServer::new(logs))
            .add_service(ResourceAllocatorServer::new(ResourceAllocator))
            .add_service(HealthServer::new(Health))
            .add_service(ManagersServer::new(members))
            .add_service(ScanDatabasesServer::new(scan_files))
            .add_service(AdmissionServer::new(Facts(self.store.clone())))
            .add_service(inventories);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let stopping = stop.clone();
            let serve = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
            let patience = async {
                stopping.cancelled().await;
                tokio::time::sleep(STOP_PATIENCE).await;
            };
            tokio::select! {
                result = serve => if let Err(error) = result {
                    tracing::error!(error = %brig_types::error::chain(&error), "the swarm listener failed");
                },
                () = patience => {}
            }
        });
    }
}
