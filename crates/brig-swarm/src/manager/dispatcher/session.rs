//! The session stream: what a node has to know of itself and of its managers.

use std::sync::Arc;

use brig_proto::swarm::{
    Cluster, ManagerStatus, Node, NodeDescription, Peer, SessionMessage, SessionRequest,
    WeightedPeer, node_status,
};
use brig_store::{Object, State, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::heartbeats::Beat;
use super::{Inner, STREAM_BUFFER};
use crate::manager::changes::{self, Wake};
use crate::manager::leading::node_claim;
use crate::node::address;
use crate::validate::outgoing;

/// Weight of every manager, as Docker's managers send it.
const MANAGER_WEIGHT: i64 = 10;

impl Inner {
    /// Registers a node and starts its stream.
    pub(crate) async fn open_session(
        self: &Arc<Self>,
        node: &str,
        address: &str,
        request: SessionRequest,
    ) -> Result<mpsc::Receiver<Result<SessionMessage, Status>>, Status> {
        if self.stop.is_cancelled() {
            return Err(Status::aborted("dispatcher is stopped"));
        }
        if self.store.view().get::<Node>(node).is_none() {
            return Err(Status::unknown("node not found"));
        }
        let period = self.period();
        let beat = Beat { node, session: &request.session_id };
        let (session, end) = self.sessions().register(beat, Instant::now(), period, &self.stop)?;
        self.live.claim(&node_claim(node), &self.own.id);
        self.beat.notify_one();
        self.mark_ready(node, address, request.description)
            .await
            .map_err(|error| super::status::store_failed(&error))?;
        tracing::info!(node, address, "a node opened a session");
        let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
        let inner = Arc::clone(self);
        let node = node.to_owned();
        self.tracker.spawn(async move {
            let stopped = inner.stop.clone();
            let reason = tokio::select! {
                () = end.cancelled() => Status::aborted("node must disconnect"),
                () = sender.closed() => return,
                reason = inner.feed(&node, &session, &sender) => reason,
            };
            if stopped.is_cancelled() {
                tracing::debug!(node, "session ended with the manager");
            }
            // The agent may be gone already.
            let _ = sender.send(Err(reason)).await;
        });
        Ok(receiver)
    }

    pub(super) async fn mark_ready(
        &self,
        id: &str,
        from: &str,
        description: Option<NodeDescription>,
    ) -> Result<(), StoreError> {
        let own_address = (id == self.own.id).then(|| address::host(&self.own.address));
        let address = own_address.unwrap_or(from);
        self.store
            .update(|tx| {
                let Some(node) = tx.get::<Node>(id) else {
                    return Ok(());
                };
                let mut changed = (*node).clone();
                if description.is_some() {
                    changed.description = description;
                }
                let status = changed.status.get_or_insert_default();
                status.state = node_status::State::Ready as i32;
                status.message.clear();
                address.clone_into(&mut status.addr);
                if changed != *node {
                    tx.update(changed)?;
                }
                Ok(())
            })
            .await
    }

    /// Sends the whole message whenever something in it changed.
    async fn feed(
        &self,
        node: &str,
        session: &str,
        sender: &mpsc::Sender<Result<SessionMessage, Status>>,
    ) -> Status {
        let mut last: Option<SessionMessage> = None;
        loop {
            let (mut message, mut watcher) =
                self.store.view_and_watch_node(node, |view| message(view, node, session));
            loop {
                let Some(next) = message else {
                    return Status::permission_denied(format!(
                        "node {node} was removed from swarm"
                    ));
                };
                if last.as_ref() != Some(&next) {
                    if let Err(problem) = outgoing::session(&next) {
                        tracing::error!(node, problem, "a session message was withheld");
                    } else if sender.send(Ok(next.clone())).await.is_err() {
                        return Status::cancelled("the agent closed its session");
                    }
                    last = Some(next);
                }
                match changes::wait(&mut watcher, None).await {
                    Wake::Changes(commits) => {
                        let relevant = changes::of(&commits).any(|change| match change.object() {
                            Object::Node(changed) => {
                                changed.id == node || changed.manager_status.is_some()
                            }
                            Object::Cluster(_) => true,
                            Object::Service(_)
                            | Object::Task(_)
                            | Object::Secret(_)
                            | Object::Config(_)
                            | Object::Network(_)
                            | Object::Access(_)
                            | Object::ScanDatabase(_)
                            | Object::Policy(_)
                            | Object::Trust(_)
                            | Object::TrustMetadata(_) => false,
                        });
                        message = if relevant {
                            self::message(&self.store.view(), node, session)
                        } else {
                            last.clone()
                        };
                    }
                    Wake::Time => message = last.clone(),
                    Wake::Missed => break,
                    Wake::Closed => return Status::aborted("dispatcher is stopped"),
                }
            }
        }
    }
}

/// The message for a node; `None` when the node is gone.
fn message(state: &State, node: &str, session: &str) -> Option<SessionMessage> {
    let node = state.get::<Node>(node)?;
    let managers = state
        .managers()
        .filter_map(|node| node.manager_status.as_ref().map(|status| (&node.id, status)))
        .filter(|(_, status)| !status.addr.is_empty())
        .map(|(id, ManagerStatus { addr, .. })| WeightedPeer {
            peer: Some(Peer { node_id: id.clone(), addr: addr.clone() }),
            weight: MANAGER_WEIGHT,
        })
        .collect();
    let root_ca = state
        .all::<Cluster>()
        .next()
        .and_then(|cluster| cluster.root_ca.as_ref())
        .map(|root| root.ca_cert.clone())
        .unwrap_or_default();
    Some(SessionMessage {
        session_id: session.to_owned(),
        node: Some((*node).clone()),
        managers,
        // Without networks that span nodes no node needs keys for them.
        network_bootstrap_keys: Vec::new(),
        root_ca,
    })
}

/// Ends when the session does; for streams that belong to one.
pub(crate) async fn ended(end: CancellationToken) -> Status {
    end.cancelled().await;
    Status::aborted("node must disconnect")
}
