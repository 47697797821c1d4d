//! The managers' end of every agent's session: who is there, what each node is to run, and what
//! it reports back.

pub(crate) mod assignments;
pub(crate) mod heartbeats;
pub(crate) mod session;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use brig_proto::swarm::{
    AssignmentsMessage, AssignmentsRequest, Cluster, HeartbeatRequest, HeartbeatResponse, Node,
    SessionMessage, SessionRequest, TasksMessage, TasksRequest, UpdateTaskStatusRequest,
    UpdateTaskStatusResponse, UpdateVolumeStatusRequest, UpdateVolumeStatusResponse,
    dispatcher_server, node_status,
};
use brig_store::etcd::Live;
use brig_store::{Store, StoreError, Tx};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use self::heartbeats::{Beat, Sessions};
use super::leading::node_claim;
use crate::grpc::authorize::{CallerAddress, caller};
use crate::grpc::clock::{self, ClockOffset, OtherClock};
use crate::wire_time;

/// Time between heartbeats when the cluster doesn't say. Shorter than Docker's 5 s, so that a lost
/// node's tasks run elsewhere within seconds.
pub(crate) const DEFAULT_PERIOD: Duration = Duration::from_secs(2);
/// How often the leader looks for nodes that nobody serves, and the pause between two looks.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// Messages that wait for a slow agent.
const STREAM_BUFFER: usize = 4;

/// The dispatcher of this manager.
#[derive(Clone)]
pub(crate) struct Dispatcher(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Store,
    /// This manager's own node and the address that others reach it at.
    pub(crate) own: OwnNode,
    /// Which manager serves which agent.
    live: Live,
    sessions: Mutex<Sessions>,
    clocks: Mutex<BTreeMap<String, OtherClock>>,
    beat: Notify,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// The node that this manager runs on.
#[derive(Clone, Debug)]
pub(crate) struct OwnNode {
    /// Its id.
    pub(crate) id: String,
    /// `host:port` under which other nodes reach it.
    pub(crate) address: String,
}

impl Dispatcher {
    /// A dispatcher without sessions.
    pub(crate) fn new(
        store: Store,
        own: OwnNode,
        live: Live,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            own,
            live,
            sessions: Mutex::default(),
            clocks: Mutex::default(),
            beat: Notify::new(),
            tracker,
            stop,
        }))
    }

    /// Nodes that were up and that no manager serves now are unknown until they come back.
    pub(crate) async fn take_over(&self) -> Result<(), StoreError> {
        self.0.expect_everybody_back().await
    }

    /// Misses the nodes that no manager serves, whose manager has ended for instance; for the
    /// leader, until it stops.
    pub(crate) async fn watch_unattended(self) {
        if let Err(error) = self.take_over().await {
            tracing::error!(error = %brig_types::error::chain(&error), "cannot look after the nodes");
        }
        let mut entries = self.0.live.entries();
        loop {
            self.0.expect_unattended();
            tokio::select! {
                changed = entries.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Notices missing heartbeats until the manager stops.
    pub(crate) async fn watch_heartbeats(self) {
        self.0.watch_heartbeats().await;
    }

    /// Ends a node's session, if it has one.
    pub(crate) fn end_session(&self, node: &str) {
        self.0.sessions().end(node);
        self.0.live.give_back(&node_claim(node));
        self.0.clock_table().remove(node);
    }

    /// How far the nodes' clocks are from this manager's, of those that told.
    pub(crate) fn clocks(&self) -> BTreeMap<String, ClockOffset> {
        let clocks = self.0.clock_table();
        clocks.iter().map(|(node, clock)| (node.clone(), clock.offset())).collect()
    }
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock_table(&self) -> MutexGuard<'_, BTreeMap<String, OtherClock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a node's clock. Its request was on the way for seconds at most.
    fn see_clock(&self, node: &str, there: SystemTime) {
        let here = SystemTime::now();
        let offset = ClockOffset::between(here, there);
        let worth_telling = {
            let mut clocks = self.clock_table();
            clocks.entry(node.to_owned()).or_default().observe(offset, Instant::now())
        };
        if worth_telling && offset.is_off() {
            let (here, there) = (clock::text(here), clock::text(there));
            tracing::warn!(node, here, there, "the node's clock is {offset}");
        } else if worth_telling {
            tracing::info!(node, "the node's clock agrees with this manager's again");
        }
    }

    /// The heartbeat period that the cluster wants.
    fn period(&self) -> Duration {
        let view = self.store.view();
        let configured = view
            .all::<Cluster>()
            .next()
            .and_then(|cluster| cluster.spec.as_ref())
            .and_then(|spec| spec.dispatcher.as_ref())
            .and_then(|dispatcher| dispatcher.heartbeat_period.as_ref());
        match wire_time::duration(configured, DEFAULT_PERIOD) {
            Duration::ZERO => DEFAULT_PERIOD,
            period => period,
        }
    }

    /// Whether a manager serves the node.
    fn is_attended(&self, node: &str) -> bool {
        self.live.get(&node_claim(node)).is_some() || self.sessions().has(node)
    }

    /// Waits for the nodes that no manager serves.
    fn expect_unattended(&self) {
        let until = Instant::now() + self.period() * heartbeats::GRACE_WITHOUT_MANAGER;
        let view = self.store.view();
        let is_down = |node: &Node| {
            let state = node.status.as_ref().map_or(0, |status| status.state);
            state == node_status::State::Down as i32
        };
        let mut missing = false;
        for node in view.all::<Node>() {
            if !is_down(node) && !self.is_attended(&node.id) {
                missing = true;
                self.sessions().expect(node.id.clone(), until);
            }
        }
        if missing {
            self.beat.notify_one();
        }
    }

    async fn expect_everybody_back(&self) -> Result<(), StoreError> {
        let grace = self.period() * heartbeats::GRACE_AFTER_START;
        let expected = self
            .store
            .update(|tx| -> Result<_, StoreError> {
                let nodes: Vec<Arc<Node>> = tx.all::<Node>().cloned().collect();
                let mut expected = Vec::new();
                for node in nodes {
                    let state = node.status.as_ref().map_or(0, |status| status.state);
                    if state == node_status::State::Down as i32 || self.is_attended(&node.id) {
                        continue;
                    }
                    expected.push(node.id.clone());
                    if state != node_status::State::Unknown as i32 {
                        let mut node = (*node).clone();
                        let status = node.status.get_or_insert_default();
                        status.state = node_status::State::Unknown as i32;
                        "Node moved to \"unknown\" state due to leadership change in cluster"
                            .clone_into(&mut status.message);
                        tx.update(node)?;
                    }
                }
                Ok(expected)
            })
            .await?;
        let mut sessions = self.sessions();
        for node in expected {
            sessions.expect(node, Instant::now() + grace);
        }
        Ok(())
    }

    async fn watch_heartbeats(&self) {
        let mut down: BTreeMap<String, Instant> = {
            let view = self.store.view();
            view.all::<Node>()
                .filter(|node| {
                    node.status
                        .as_ref()
                        .is_some_and(|status| status.state == node_status::State::Down as i32)
                })
                .map(|node| (node.id.clone(), Instant::now() + heartbeats::ORPHAN_AFTER))
                .collect()
        };
        loop {
            let next = self
                .sessions()
                .next_deadline()
                .into_iter()
                .chain(down.values().copied())
                .min()
                .unwrap_or_else(|| Instant::now() + heartbeats::ORPHAN_AFTER);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.beat.notified() => continue,
                () = tokio::time::sleep_until(next) => {}
            }
            let now = Instant::now();
            if now.duration_since(next) > heartbeats::STALLED {
                tracing::warn!("this manager stood still; nodes get time to be heard of again");
                let grace = self.period() * heartbeats::GRACE;
                self.sessions().postpone(now + grace);
                continue;
            }
            let missing = self.sessions().expire(now);
            for node in missing {
                self.clock_table().remove(&node);
                let claim = node_claim(&node);
                if self.live.get(&claim).is_some_and(|manager| manager != self.own.id) {
                    // Another manager serves it now.
                    continue;
                }
                self.live.give_back(&claim);
                let grace = self.period() * heartbeats::GRACE_AFTER_START;
                if !self.live.is_steady(grace) {
                    // It may have been this manager that was cut off: the leader waits for the
                    // node to be heard of elsewhere.
                    tracing::warn!(node, "no heartbeat, and this manager was away itself");
                    continue;
                }
                tracing::warn!(node, "no heartbeat, the node is down");
                match self.mark_down(&node).await {
                    Ok(()) => {
                        down.insert(node, now + heartbeats::ORPHAN_AFTER);
                    }
                    Err(error) => tracing::error!(node, error = %error, "cannot mark a node down"),
                }
            }
            let due: Vec<String> =
                down.iter().filter(|(_, at)| **at <= now).map(|(node, _)| node.clone()).collect();
            for node in due {
                down.remove(&node);
                if let Err(error) = self.orphan_tasks_if_down(&node).await {
                    tracing::error!(node, error = %error, "cannot orphan a node's tasks");
                }
            }
        }
    }

    async fn mark_down(&self, id: &str) -> Result<(), StoreError> {
        self.store
            .update(|tx| {
                let Some(node) = tx.get::<Node>(id) else {
                    return Ok(());
                };
                let mut node = (*node).clone();
                let status = node.status.get_or_insert_default();
                status.state = node_status::State::Down as i32;
                "heartbeat failure".clone_into(&mut status.message);
                tx.update(node).map(drop)
            })
            .await
    }

    async fn orphan_tasks_if_down(&self, id: &str) -> Result<(), StoreError> {
        let now = SystemTime::now();
        let some = |tx: &mut Tx<'_>| -> Result<_, StoreError> {
            let is_down = tx
                .get::<Node>(id)
                .and_then(|node| node.status.clone())
                .is_some_and(|status| status.state == node_status::State::Down as i32);
            if is_down { status::orphan_tasks(tx, id, now) } else { Ok(true) }
        };
        while !self.store.update(some).await? {}
        Ok(())
    }
}

#[tonic::async_trait]
impl dispatcher_server::Dispatcher for Dispatcher {
    type SessionStream = ReceiverStream<Result<SessionMessage, Status>>;
    type TasksStream = ReceiverStream<Result<TasksMessage, Status>>;
    type AssignmentsStream = ReceiverStream<Result<AssignmentsMessage, Status>>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = caller(&request)?.node;
        let address = caller_address(&request);
        let stream = self.0.open_session(node.as_str(), &address, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let node = caller(&request)?.node;
        let period = heartbeats::with_jitter(self.0.period());
        let beat = Beat { node: node.as_str(), session: &request.get_ref().session_id };
        if self.0.sessions().beat(beat, Instant::now(), period)? {
            self.0.beat.notify_one();
        }
        if let Some(there) = clock::read(request.metadata()) {
            self.0.see_clock(node.as_str(), there);
        }
        // A manager that did not know of this session yet may have written down something else.
        let is_ready = |node: &Node| {
            let state = node.status.as_ref().map_or(0, |status| status.state);
            state == node_status::State::Ready as i32
        };
        let stored = self.0.store.view().get::<Node>(node.as_str());
        if stored.is_some_and(|stored| !is_ready(&stored)) {
            let address = caller_address(&request);
            let marked = self.0.mark_ready(node.as_str(), &address, None).await;
            marked.map_err(|error| status::store_failed(&error))?;
        }
        Ok(Response::new(HeartbeatResponse { period: Some(wire_time::wire(period)) }))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusRequest>,
    ) -> Result<Response<UpdateTaskStatusResponse>, Status> {
        let node = caller(&request)?.node;
        let request = request.into_inner();
        self.0.check_session(node.as_str(), &request.session_id)?;
        self.0.apply_statuses(node.as_str(), request.updates).await?;
        Ok(Response::new(UpdateTaskStatusResponse {}))
    }

    async fn update_volume_status(
        &self,
        _: Request<UpdateVolumeStatusRequest>,
    ) -> Result<Response<UpdateVolumeStatusResponse>, Status> {
        Err(Status::unimplemented("cluster volumes are not supported"))
    }

    async fn tasks(&self, _: Request<TasksRequest>) -> Result<Response<Self::TasksStream>, Status> {
        Err(Status::unimplemented("use Assignments"))
    }

    async fn assignments(
        &self,
        request: Request<AssignmentsRequest>,
    ) -> Result<Response<Self::AssignmentsStream>, Status> {
        let node = caller(&request)?.node;
        let session = self.0.check_session(node.as_str(), &request.get_ref().session_id)?;
        let stream = assignments::stream(&self.0, node.to_string(), session);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Where a node calls from.
fn caller_address<T>(request: &Request<T>) -> String {
    let address = request.extensions().get::<CallerAddress>();
    address.map(|address| address.0.ip().to_canonical().to_string()).unwrap_or_default()
}

impl Inner {
    /// The end of the node's current session, if the caller names that session.
    fn check_session(&self, node: &str, session: &str) -> Result<CancellationToken, Status> {
        self.sessions().check(Beat { node, session })
    }
}
