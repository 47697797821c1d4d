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
pub(crate) mod join_tokens;
pub(crate) mod keys;
pub(crate) mod logbroker;
pub(crate) mod orchestrator;
pub(crate) mod resource;
pub(crate) mod scheduler;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{
    Cluster, ca_server::CaServer as CaService, dispatcher_server::DispatcherServer,
    health_server::HealthServer, log_broker_server::LogBrokerServer, node_ca_server::NodeCaServer,
    resource_allocator_server::ResourceAllocatorServer,
};
use brig_store::{Store, StoreError};
use brig_types::id::NodeId;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ca::server::CaServer;
use self::control::Control;
use self::dispatcher::{Dispatcher, OwnNode};
use self::logbroker::LogBroker;
use self::resource::{Health, ResourceAllocator};
use crate::grpc::authorize::{AuthorizeLayer, Membership};
use crate::grpc::server::{self, Connections};

/// How long connections get to end by themselves when the manager stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Time between the end of a removed node's session and the end of its connections.
const CUT_DELAY: Duration = Duration::from_secs(1);

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
}

/// A running manager.
pub(crate) struct Manager {
    control: Control,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Manager {
    /// Starts the loops and serves.
    pub(crate) async fn start(config: ManagerConfig) -> Result<Self, StoreError> {
        let ManagerConfig { store, credentials, listener, cluster, own } = config;
        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let dispatcher =
            Dispatcher::new(store.clone(), own.clone(), tracker.clone(), stop.clone()).await?;
        let logs = LogBroker::new(tracker.clone(), stop.clone());
        let (removed, removals) = mpsc::unbounded_channel();
        let control = Control::new(store.clone(), logs.clone(), own.id, removed);
        let manager = Self { control, tracker, stop };
        manager.spawn(orchestrator::run(store.clone()));
        manager.spawn(allocator::run(store.clone()));
        manager.spawn(scheduler::run(store.clone()));
        manager.spawn(dispatcher.clone().watch_heartbeats());
        let connections = Connections::default();
        manager.spawn(cut_off(dispatcher.clone(), connections.clone(), removals));
        let membership = Arc::new(ClusterMembership { cluster, store: store.clone() });
        let waiting = Arc::new(Notify::new());
        manager.spawn(ca::reconciler::run(store.clone()));
        manager.spawn(ca::pending::run(store.clone(), Arc::clone(&waiting)));
        let ca = CaServer::new(store, waiting, manager.stop.clone());
        let incoming = server::incoming(
            listener,
            credentials,
            connections,
            &manager.tracker,
            manager.stop.clone(),
        );
        manager.serve(incoming, membership, ca, dispatcher, logs);
        Ok(manager)
    }

    /// The cluster's objects.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Ends the sessions and stops everything.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(STOP_PATIENCE * 2, self.tracker.wait()).await.is_err() {
            tracing::warn!("parts of the manager did not stop in time");
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
        membership: Arc<dyn Membership>,
        ca: CaServer,
        dispatcher: Dispatcher,
        logs: LogBroker,
    ) {
        let router = tonic::transport::Server::builder()
            .layer(AuthorizeLayer(membership))
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

/// Cuts nodes off that were removed from the cluster: their sessions end at once, with a reason,
/// and a moment later their connections with everything that may still run over them. New ones are
/// refused by [`Membership::is_removed`].
async fn cut_off(
    dispatcher: Dispatcher,
    connections: Connections,
    mut removals: mpsc::UnboundedReceiver<String>,
) {
    let mut told = JoinSet::new();
    loop {
        tokio::select! {
            removed = removals.recv() => {
                let Some(node) = removed else { return };
                dispatcher.end_session(&node);
                told.spawn(async move {
                    tokio::time::sleep(CUT_DELAY).await;
                    node
                });
            }
            Some(Ok(node)) = told.join_next() => {
                if let Ok(node) = NodeId::parse(&node) {
                    connections.cut(&node);
                }
            }
        }
    }
}

/// Membership as the store knows it.
struct ClusterMembership {
    cluster: String,
    store: Store,
}

impl Membership for ClusterMembership {
    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn is_removed(&self, node: &NodeId) -> bool {
        self.store
            .view()
            .all::<Cluster>()
            .any(|cluster| cluster.blacklisted_certificates.contains_key(node.as_str()))
    }
}
