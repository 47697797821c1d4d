//! Nodes: looking at them, changing what the operator decides, taking them out.

use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{
    BlacklistedCertificate, Cluster, Node, NodeRole, NodeSpec, node_spec, node_status,
};

use super::{Control, check_version, find};
use crate::error::ControlError;
use crate::manager::ca;
use crate::manager::dispatcher::status::orphan_tasks;
use crate::validate::service::invalid;
use crate::wire_time;

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
    /// [`ControlError::OutOfSequence`], [`ControlError::FailedPrecondition`] for the last manager,
    /// [`ControlError::NotImplemented`] for a promotion.
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
                match (node.role(), spec.desired_role()) {
                    (NodeRole::Manager, NodeRole::Worker) => {
                        let managers = tx
                            .all::<Node>()
                            .filter(|other| other.role() == NodeRole::Manager)
                            .count();
                        if managers < 2 {
                            return Err(ControlError::FailedPrecondition(
                                "attempting to demote the last manager of the swarm".to_owned(),
                            ));
                        }
                    }
                    (NodeRole::Worker, NodeRole::Manager) => {
                        return Err(ControlError::NotImplemented(
                            "promoting a node is not supported yet: this swarm has one manager"
                                .to_owned(),
                        ));
                    }
                    (NodeRole::Worker, NodeRole::Worker)
                    | (NodeRole::Manager, NodeRole::Manager) => {}
                }
                let membership = node.spec.as_ref().map_or(0, |spec| spec.membership);
                node.spec = Some(NodeSpec { membership, ..spec });
                tx.update(node)?;
                Ok(())
            })
            .await
    }

    /// Takes a node out of the cluster: its certificate is worth nothing any more and its tasks
    /// are given up. With `force` also one that is up.
    ///
    /// # Errors
    /// [`ControlError::FailedPrecondition`] for a manager, or for a node that is up.
    pub async fn remove_node(&self, reference: &str, force: bool) -> Result<(), ControlError> {
        let now = SystemTime::now();
        let id = self
            .store
            .update(|tx| {
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
                let cluster = tx.all::<Cluster>().next().cloned();
                if let Some(cluster) = cluster {
                    let mut cluster = (*cluster).clone();
                    let expiry = ca::outlived(&cluster, now);
                    cluster
                        .blacklisted_certificates
                        .retain(|_, entry| wire_time::instant(entry.expiry.as_ref()) > now);
                    cluster.blacklisted_certificates.insert(
                        id.clone(),
                        BlacklistedCertificate {
                            expiry: Some(wire_time::timestamp(expiry)),
                        },
                    );
                    tx.update(cluster)?;
                }
                orphan_tasks(tx, &id, now)?;
                tx.delete::<Node>(&id)?;
                Ok(id)
            })
            .await?;
        // The dispatcher ends the session; without one there is nothing to end.
        let _ = self.removed_nodes.send(id);
        Ok(())
    }
}

pub(super) fn host_name(node: &Node) -> &str {
    node.description.as_ref().map_or("", |description| description.hostname.as_str())
}
