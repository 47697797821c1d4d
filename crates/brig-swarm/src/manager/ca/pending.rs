//! Signs the requests that had to wait, for a signer that did not answer for instance.

use std::sync::Arc;
use std::time::Duration;

use brig_pki::identity::NodeIdentity;
use brig_proto::swarm::{Cluster, Node, issuance_status::State};
use brig_store::{Store, StoreError};
use brig_types::id::NodeId;
use futures_util::StreamExt as _;
use tokio::sync::Notify;

use super::server::pki_role;
use super::signer::recorded;
use super::signers::Signers;

/// Time between attempts.
const RETRY: Duration = Duration::from_secs(10);
/// Requests that are tried at the same time: a signer that is asked over the network and does not
/// answer takes seconds for each.
const AT_ONCE: usize = 8;

/// Tries again and again, and at once when it is woken.
pub(crate) async fn run(store: Store, signers: Arc<Signers>, wake: Arc<Notify>) {
    loop {
        sign_waiting(&store, &signers).await;
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn sign_waiting(store: &Store, signers: &Signers) {
    let view = store.view();
    let Some(cluster) = view.all::<Cluster>().next().cloned() else { return };
    let waiting: Vec<Arc<Node>> =
        view.all::<Node>().filter(|node| is_waiting(node)).cloned().collect();
    drop(view);
    let cluster = &cluster;
    let sign_each = |node: Arc<Node>| async move {
        if let Err(error) = sign(store, signers, cluster, &node).await {
            tracing::error!(node = node.id, error = %brig_types::error::chain(&error), "cannot record a certificate");
        }
    };
    futures_util::stream::iter(waiting).for_each_concurrent(AT_ONCE, sign_each).await;
}

fn is_waiting(node: &Node) -> bool {
    let status = node.certificate.as_ref().and_then(|certificate| certificate.status.as_ref());
    status.is_some_and(|status| matches!(status.state(), State::Pending | State::Renew))
}

async fn sign(
    store: &Store,
    signers: &Signers,
    cluster: &Arc<Cluster>,
    node: &Node,
) -> Result<(), StoreError> {
    let (Some(request), Ok(id)) = (&node.certificate, NodeId::parse(&node.id)) else {
        return Ok(());
    };
    let waiting = request.status.as_ref().map_or(State::Pending, |status| status.state());
    let identity =
        NodeIdentity { cluster: cluster.id.clone(), role: pki_role(node.role()), node: id };
    let attempt = match signers.of(cluster) {
        Ok(signer) => signer.issue(&request.csr, &identity, super::expiry(cluster)).await,
        Err(error) => Err(error),
    };
    let recorded = recorded(attempt, &node.id, node.role(), request.csr.clone(), waiting);
    let Ok(mut certificate) = recorded else {
        return Ok(());
    };
    if certificate.certificate.is_empty() {
        certificate.certificate.clone_from(&request.certificate);
    }
    if Some(&certificate) == node.certificate.as_ref() {
        return Ok(());
    }
    store
        .update(|tx| {
            // The node may have asked for another one meanwhile, or be gone.
            let now = tx.get::<Node>(&node.id);
            if let Some(now) = now.filter(|now| now.certificate == node.certificate) {
                let mut now = (*now).clone();
                now.certificate = Some(certificate.clone());
                tx.update(now)?;
            }
            Ok(())
        })
        .await
}
