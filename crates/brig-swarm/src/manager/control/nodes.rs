//! Nodes: looking at them, changing what the operator decides, taking them out.

use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{
    Cluster, Node, NodeRole, NodeSpec, issuance_status::State as IssuanceState, node_spec,
    node_status, raft_member_status::Reachability,
};
use brig_store::Tx;

use super::{Control, check_version, find};
use crate::error::ControlError;
use crate::manager::dispatcher::status::orphan_tasks;
use crate::manager::{keys, leading};
use crate::validate::service::invalid;
use crate::wire_time;

/// A log driver that is part of every Docker Engine, and of nothing else.
const DOCKERS_LOG_DRIVER: &str = "awslogs";

impl Control {
    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.store.view().all::<Node>().cloned().collect()
    }

    /// A node by id, host name or id prefix; `self` is this node.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub fn node(&self, reference: &str) -> Result<Arc<Node>, ControlError> {
        let reference = if reference == "self" { &self.own_node } else { reference };
        find(&self.store.view(), "node", reference, host_name)
    }

    /// Changes a node's labels, availability or role.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`], [`ControlError::FailedPrecondition`] for the last manager
    /// and for the promotion of a node that runs Docker Engine.
    pub async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: NodeSpec,
    ) -> Result<(), ControlError> {
        if node_spec::Availability::try_from(spec.availability).is_err() {
            return Err(invalid("invalid availability"));
        }
        self.store
            .update(|tx| {
                let mut node = (*find::<Node>(tx, "node", id, host_name)?).clone();
                check_version(&node, version)?;
                let was_manager = node.role() == NodeRole::Manager;
                change_role(tx, &mut node, spec.desired_role())?;
                if was_manager && node.role() == NodeRole::Worker {
                    keys::distrust_former(tx, "a manager was demoted")?;
                }
                let membership = node.spec.as_ref().map_or(0, |spec| spec.membership);
                node.spec = Some(NodeSpec { membership, ..spec });
                tx.update(node)?;
                Ok(())
            })
            .await
    }

    /// Takes a node out of the cluster: its tasks are given up, and its certificate is worth
    /// nothing any more, because it belongs to no node. With `force` also one that is up.
    ///
    /// # Errors
    /// [`ControlError::FailedPrecondition`] for a manager, or for a node that is up.
    pub async fn remove_node(&self, reference: &str, force: bool) -> Result<(), ControlError> {
        let now = SystemTime::now();
        // A node may have more tasks than one transaction takes.
        let some = |tx: &mut Tx<'_>| -> Result<_, ControlError> {
            let node = find::<Node>(tx, "node", reference, host_name)?;
            let id = node.id.clone();
            if node.role() == NodeRole::Manager || node.manager_status.is_some() {
                return Err(ControlError::FailedPrecondition(format!(
                    "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
                )));
            }
            let up = node
                .status
                .as_ref()
                .is_some_and(|status| status.state == node_status::State::Ready as i32);
            if up && !force {
                return Err(ControlError::FailedPrecondition(format!(
                    "node {id} is not down and can't be removed"
                )));
            }
            if !orphan_tasks(tx, &id, now)? {
                return Ok(false);
            }
            forget_removed(tx, now)?;
            tx.delete::<Node>(&id)?;
            Ok(true)
        };
        while !self.store.update(some).await? {}
        Ok(())
    }
}

/// Gives a node another role. What it may do changes with this transaction; the certificate that
/// says so is issued when the node asks for it, which it is told to do at once.
fn change_role(tx: &Tx<'_>, node: &mut Node, wanted: NodeRole) -> Result<(), ControlError> {
    match (node.role(), wanted) {
        (NodeRole::Manager, NodeRole::Worker) => {
            let managers =
                tx.all::<Node>().filter(|other| other.role() == NodeRole::Manager).count();
            if managers < 2 {
                return Err(ControlError::FailedPrecondition(
                    "attempting to demote the last manager of the swarm".to_owned(),
                ));
            }
            let (there, all) = leading::managers(tx.all::<Node>().map(AsRef::as_ref));
            let is_there = node
                .manager_status
                .as_ref()
                .is_some_and(|status| status.reachability() == Reachability::Reachable);
            let (there, all) = (there - usize::from(is_there), all.saturating_sub(1));
            if node.manager_status.is_some() && there <= all / 2 {
                return Err(ControlError::FailedPrecondition(
                    "can't remove member from the raft: this would result in a loss of quorum"
                        .to_owned(),
                ));
            }
            node.manager_status = None;
        }
        (NodeRole::Worker, NodeRole::Manager) => {
            if let Some(reason) = cannot_be_promoted(node) {
                return Err(ControlError::FailedPrecondition(reason));
            }
        }
        (NodeRole::Worker, NodeRole::Worker) | (NodeRole::Manager, NodeRole::Manager) => {
            return Ok(());
        }
    }
    set_role(node, wanted);
    tracing::info!(node = node.id, role = ?wanted, "a node got another role");
    Ok(())
}

/// Notes a node's role, and that its certificate is to say so.
pub(crate) fn set_role(node: &mut Node, role: NodeRole) {
    node.set_role(role);
    if let Some(certificate) = &mut node.certificate {
        certificate.set_role(role);
        certificate.status.get_or_insert_default().set_state(IssuanceState::Rotate);
    }
}

fn cannot_be_promoted(node: &Node) -> Option<String> {
    let id = &node.id;
    let engine = node.description.as_ref().and_then(|description| description.engine.as_ref());
    let runs_docker = engine.is_some_and(|engine| {
        engine
            .plugins
            .iter()
            .any(|plugin| plugin.r#type == "Log" && plugin.name == DOCKERS_LOG_DRIVER)
    });
    runs_docker.then(|| {
        format!(
            "node {id} cannot be promoted: it runs Docker Engine, whose managers keep the swarm in a store of their own. It goes on as a worker"
        )
    })
}

/// Drops the entries of removed nodes, which swarms kept once. That a node is not in the store is
/// all there is to know, so nothing grows with the nodes that came and went.
fn forget_removed(tx: &mut Tx<'_>, now: SystemTime) -> Result<(), ControlError> {
    let Some(cluster) = tx.all::<Cluster>().next().cloned() else {
        return Ok(());
    };
    if cluster.blacklisted_certificates.is_empty() {
        return Ok(());
    }
    let mut cluster = (*cluster).clone();
    cluster.blacklisted_certificates.retain(|node, entry| {
        tx.get::<Node>(node).is_some() && wire_time::instant(entry.expiry.as_ref()) > now
    });
    tx.update(cluster)?;
    Ok(())
}

pub(super) fn host_name(node: &Node) -> &str {
    node.description.as_ref().map_or("", |description| description.hostname.as_str())
}
