//! Which nodes have not followed to the root that the cluster is to have, and why.

use std::sync::Arc;

use brig_pki::identity::CertInfo;
use brig_proto::swarm::{
    Cluster, Node, RootCa, issuance_status::State as IssuanceState, node_status,
};

use super::Control;
use super::nodes::host_name;
use crate::manager::ca::rotation;

/// A node that has not followed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBehind {
    /// Its id.
    pub id: String,
    /// Its host's name; empty if it never said.
    pub hostname: String,
    /// What keeps it.
    pub reason: BehindReason,
}

/// What keeps a node from following. Texts are those of failed attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BehindReason {
    /// It has no session with a manager.
    Away {
        /// `NodeStatus.State`.
        state: i32,
        /// When it was last heard of.
        since: Option<prost_types::Timestamp>,
        /// Why it is thought to be away.
        message: String,
    },
    /// It does not say which certificate it has.
    NeverReported,
    /// Its request for a certificate failed.
    Failed(String),
    /// Its request for a certificate waits to be signed.
    Waiting(String),
    /// It was told to ask for another certificate.
    Told(String),
    /// Its certificate is of another issuer; it will be told.
    OldIssuer,
    /// It has the right certificate and trusts another root.
    OldRoot,
}

impl Control {
    /// The nodes that have not followed to the root that they are to have.
    #[must_use]
    pub fn nodes_behind(&self) -> Vec<NodeBehind> {
        let view = self.store.view();
        let Some(root) = view.all::<Cluster>().next().and_then(|cluster| cluster.root_ca.clone())
        else {
            return Vec::new();
        };
        let Ok(issuer) = CertInfo::from_pem(rotation::target(&root)) else { return Vec::new() };
        let nodes = view.all::<Node>().map(Arc::as_ref);
        nodes
            .filter_map(|node| {
                reason(node, &root, &issuer).map(|reason| NodeBehind {
                    id: node.id.clone(),
                    hostname: host_name(node).to_owned(),
                    reason,
                })
            })
            .collect()
    }
}

fn reason(node: &Node, root: &RootCa, issuer: &CertInfo) -> Option<BehindReason> {
    let info = node.description.as_ref().and_then(|description| description.tls_info.as_ref());
    let trusts_it = info.is_some_and(|info| info.trust_root == root.ca_cert);
    let has_certificate = rotation::is_issued_by(node, issuer);
    if has_certificate && trusts_it {
        return None;
    }
    let status = node.status.clone().unwrap_or_default();
    if status.state() != node_status::State::Ready {
        let since = node.meta.as_ref().and_then(|meta| meta.updated_at);
        return Some(BehindReason::Away { state: status.state, since, message: status.message });
    }
    if has_certificate {
        return Some(BehindReason::OldRoot);
    }
    if info.is_none() {
        return Some(BehindReason::NeverReported);
    }
    let request = node.certificate.as_ref().and_then(|certificate| certificate.status.clone());
    let request = request.unwrap_or_default();
    Some(match request.state() {
        IssuanceState::Failed => BehindReason::Failed(request.err),
        IssuanceState::Pending | IssuanceState::Renew => BehindReason::Waiting(request.err),
        IssuanceState::Rotate => BehindReason::Told(request.err),
        IssuanceState::Issued | IssuanceState::Unknown => BehindReason::OldIssuer,
    })
}
