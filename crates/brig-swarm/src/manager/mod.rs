//! The manager: control loops that only read and write the store, and the gRPC services through
//! which nodes reach it.
//!
//! No loop calls another one. A service that is created goes from the control side through the
//! store to the orchestrator (tasks), the allocator (ports, networks), the scheduler (nodes) and
//! the dispatcher (agents); what agents report comes back the same way.

pub(crate) mod allocator;
pub(crate) mod ca;
pub(crate) mod changes;
pub(crate) mod control;
pub(crate) mod dispatcher;
pub(crate) mod gate;
pub(crate) mod issued;
pub(crate) mod join_tokens;
pub(crate) mod keys;
pub(crate) mod logbroker;
pub(crate) mod orchestrator;
pub(crate) mod resource;
pub(crate) mod scheduler;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{
    ca_server::CaServer as CaService, dispatcher_server::DispatcherServer,
    health_server::HealthServer, log_broker_server::LogBrokerServer, node_ca_server::NodeCaServer,
    resource_allocator_server::ResourceAllocatorServer,
};
use brig_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ca::server::CaServer;
use self::ca::signers::Signers;
use self::control::Control;
use self::dispatcher::{Dispatcher, OwnNode};
use self::gate::Gate;
use self::keys::KeyManager;
use self::logbroker::LogBroker;
use self::resource::{Health, ResourceAllocator};
use crate::grpc::authorize::AuthorizeLayer;
use crate::grpc::clock::{ClockOffset, StampLayer};
use crate::grpc::connections::Connections;
use crate::grpc::refusals::Refusals;
use crate::grpc::server::{self, Door};

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
}

/// A running manager.
pub(crate) struct Manager {
    store: Store,
    control: Control,
    dispatcher: Dispatcher,
    signers: Arc<Signers>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Manager {
    /// Starts the loops and serves.
    pub(crate) async fn start(config: ManagerConfig) -> Result<Self, StoreError> {
        let ManagerConfig { store, credentials, listener, cluster, own, keys } = config;
        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let dispatcher =
            Dispatcher::new(store.clone(), own.clone(), tracker.clone(), stop.clone()).await?;
        let logs = LogBroker::new(tracker.clone(), stop.clone());
        let control = Control::new(
            store.clone(),
            logs.clone(),
            own.id,
            Arc::clone(&credentials),
            keys.clone(),
        );
        let signers = Arc::new(Signers::new(Arc::clone(&credentials)));
        let manager = Self {
            store: store.clone(),
            control,
            dispatcher: dispatcher.clone(),
            signers,
            tracker,
            stop,
        };
        manager.spawn(orchestrator::run(store.clone()));
        manager.spawn(allocator::run(store.clone()));
        manager.spawn(scheduler::run(store.clone()));
        manager.spawn(dispatcher.clone().watch_heartbeats());
        manager.spawn(keys.clone().keep_locked());
        manager.spawn(keys.rotate_when_wanted());
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
        let signers = Arc::clone(&manager.signers);
        manager.spawn(ca::reconciler::run(store.clone(), Arc::clone(&signers)));
        manager.spawn(ca::pending::run(store.clone(), Arc::clone(&signers), Arc::clone(&waiting)));
        let ca = CaServer::new(store, signers, waiting, manager.stop.clone());
        let door = Door { credentials, membership: gate, connections, refusals };
        let incoming = server::incoming(listener, door, &manager.tracker, manager.stop.clone());
        manager.serve(incoming, authorize, ca, dispatcher, logs);
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

    /// Ends the sessions and stops everything.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(STOP_PATIENCE * 2, self.tracker.wait()).await.is_err() {
            tracing::warn!("parts of the manager did not stop in time");
        }
        self.signers.close();
        // Connections that end slowly have handlers, and those have the store.
        let store = self.store.clone();
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            tracing::error!("the cluster store was not closed");
        }
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

    fn serve(
        &self,
        incoming: impl Stream<Item = Result<server::Connection, Infallible>> + Send + 'static,
        authorize: AuthorizeLayer,
        ca: CaServer,
        dispatcher: Dispatcher,
        logs: LogBroker,
    ) {
        let router = tonic::transport::Server::builder()
            .layer(StampLayer)
            .layer(authorize)
            .add_service(CaService::new(ca.clone()))
            .add_service(NodeCaServer::new(ca))
            .add_service(DispatcherServer::new(dispatcher))
            .add_service(LogBrokerServer::new(logs))
            .add_service(ResourceAllocatorServer::new(ResourceAllocator))
            .add_service(HealthServer::new(Health));
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
