//! One manager leads: it runs the loops that decide, while all of them take writes and serve
//! agents. Two that take themselves for the leader for a moment do no harm, because every decision
//! is a transaction on what is stored.

use std::time::Duration;

use brig_proto::swarm::{Node, NodeRole, raft_member_status::Reachability};
use brig_store::etcd::Live;
use brig_store::{Store, StoreError};
use tokio::sync::watch;

use super::dispatcher::OwnNode;
use super::members;

/// How often the managers' state is looked at when nothing seems to happen.
const LOOK: Duration = Duration::from_secs(5);

/// The claim of a manager to be there.
pub(crate) fn manager_claim(manager: &str) -> String {
    format!("m/{manager}")
}

/// The claim of a manager to serve a node's agent.
pub(crate) fn node_claim(node: &str) -> String {
    format!("n/{node}")
}

/// How many managers are reachable, and how many there are.
pub(crate) fn managers<'a>(nodes: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    nodes.filter_map(|node| node.manager_status.as_ref()).fold((0, 0), |(there, all), status| {
        let is_there = status.reachability() == Reachability::Reachable;
        (there + usize::from(is_there), all + 1)
    })
}

/// Runs work while this manager leads, from its beginning each time.
pub(crate) async fn while_leading<F>(mut leads: watch::Receiver<bool>, work: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    loop {
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        tokio::select! {
            () = work() => {}
            ended = leads.wait_for(|leads| !*leads) => if ended.is_err() {
                return;
            },
        }
    }
}

/// Says again that this node is a manager, where it was demoted and promoted before it took note.
pub(crate) async fn announce(store: Store, own: OwnNode) {
    loop {
        let is_unsaid =
            |node: &Node| node.role() == NodeRole::Manager && node.manager_status.is_none();
        if store.view().get::<Node>(&own.id).is_some_and(|node| is_unsaid(&node)) {
            let outcome = store
                .update(|tx| -> Result<(), StoreError> {
                    let Some(node) = tx.get::<Node>(&own.id) else { return Ok(()) };
                    if is_unsaid(&node) {
                        let mut next = (*node).clone();
                        next.manager_status = Some(members::status(&own.id, own.address.clone()));
                        tx.update(next)?;
                    }
                    Ok(())
                })
                .await;
            if let Err(error) = outcome {
                tracing::warn!(error = %brig_types::error::chain(&error), "cannot say that this node is a manager");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Writes down who leads and which managers are there, for `docker node ls`.
pub(crate) async fn tell(store: Store, live: Live, own: String) {
    let mut entries = live.entries();
    loop {
        let alive: Vec<String> = {
            let entries = entries.borrow_and_update();
            entries.keys().filter_map(|key| key.strip_prefix("m/")).map(str::to_owned).collect()
        };
        let outcome = store
            .update(|tx| -> Result<(), StoreError> {
                let managers: Vec<_> = tx.managers().cloned().collect();
                for node in managers {
                    let Some(status) = &node.manager_status else { continue };
                    let reachability = if alive.contains(&node.id) {
                        Reachability::Reachable
                    } else {
                        Reachability::Unreachable
                    };
                    let leads = node.id == own;
                    if status.leader == leads && status.reachability() == reachability {
                        continue;
                    }
                    let mut next: Node = (*node).clone();
                    let status = next.manager_status.get_or_insert_default();
                    status.leader = leads;
                    status.set_reachability(reachability);
                    tx.update(next)?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = outcome {
            tracing::warn!(error = %brig_types::error::chain(&error), "cannot write down which managers are there");
        }
        tokio::select! {
            changed = entries.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
