//! The other managers of a cluster, who get the data keys before anything is sealed with them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use brig_pki::seal::KeyRing;
use brig_pki::tls::TlsCredentials;
use brig_proto::brig::{AdoptKeysRequest, managers_client::ManagersClient};
use brig_proto::swarm::{Node, NodeRole, node_status};
use brig_store::Store;
use brig_store::etcd::Live;

use super::keys::{KeyError, KeyPeers};
use crate::grpc::client::{self, MANAGER_NAME};

/// How long another manager may take to write its key file and to end its writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to the other managers.
pub(crate) struct OtherManagers {
    own: String,
    store: Store,
    live: Live,
    credentials: Arc<TlsCredentials>,
}

impl OtherManagers {
    pub(crate) const fn new(
        own: String,
        store: Store,
        live: Live,
        credentials: Arc<TlsCredentials>,
    ) -> Self {
        Self { own, store, live, credentials }
    }

    /// Ids and addresses of all others. One that is not there yet, or works on although it was
    /// demoted, has to be waited for: it could not read what a new key seals, and would fail before
    /// it has heard that it is none any more.
    fn others(&self) -> Result<Vec<(String, String)>, KeyError> {
        let view = self.store.view();
        if let Some(node) = view.all::<Node>().find(|node| may_still_be_one(node)) {
            return Err(KeyError::Peer(node.id.clone()));
        }
        let others = view
            .all::<Node>()
            .filter(|node| node.id != self.own && node.role() == NodeRole::Manager)
            .map(|node| match &node.manager_status {
                Some(status) => Ok((node.id.clone(), status.addr.clone())),
                None => Err(KeyError::Peer(node.id.clone())),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let entries = self.live.entries().borrow().clone();
        let leaving = entries
            .keys()
            .filter_map(|key| key.strip_prefix("m/"))
            .find(|alive| *alive != self.own && !others.iter().any(|(id, _)| id == alive));
        match leaving {
            Some(id) => Err(KeyError::Peer(id.to_owned())),
            None => Ok(others),
        }
    }

    async fn hand_over(&self, address: &str, request: AdoptKeysRequest) -> Result<(), String> {
        let attempt = async {
            let (channel, _) =
                client::connect(address, Arc::clone(&self.credentials), MANAGER_NAME)
                    .await
                    .map_err(|error| brig_types::error::chain(&error))?;
            let answer = ManagersClient::new(channel).adopt_keys(request).await;
            answer.map(drop).map_err(|status| status.message().to_owned())
        };
        tokio::time::timeout(PATIENCE, attempt)
            .await
            .unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }
}

/// Whether a demoted manager may be at work although nothing is heard of it, as while it starts: it
/// has not asked for a worker's certificate, and is not known to be down.
fn may_still_be_one(node: &Node) -> bool {
    let held = node.certificate.as_ref().map(|certificate| certificate.role());
    let state = node.status.as_ref().map(|status| status.state());
    node.role() != NodeRole::Manager
        && held == Some(NodeRole::Manager)
        && state != Some(node_status::State::Down)
}

#[async_trait]
impl KeyPeers for OtherManagers {
    async fn adopt(&self, ring: &KeyRing) -> Result<(), KeyError> {
        for (id, address) in self.others()? {
            let mut request = AdoptKeysRequest::default();
            request.data_keys = ring.export().expose_secret().to_vec();
            if let Err(reason) = self.hand_over(&address, request).await {
                tracing::info!(manager = id, reason, "a manager did not take the data keys over");
                return Err(KeyError::Peer(id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Certificate, NodeStatus};

    use super::*;

    fn node(role: NodeRole, held: NodeRole, state: node_status::State) -> Node {
        Node {
            role: role as i32,
            certificate: Some(Certificate { role: held as i32, ..Certificate::default() }),
            status: Some(NodeStatus { state: state as i32, ..NodeStatus::default() }),
            ..Node::default()
        }
    }

    #[test]
    fn a_demoted_manager_is_waited_for_until_it_is_a_worker_or_down() {
        use NodeRole::{Manager, Worker};
        use node_status::State;
        for state in [State::Unknown, State::Ready, State::Disconnected] {
            assert!(may_still_be_one(&node(Worker, Manager, state)), "{state:?}");
        }
        for other in [
            node(Worker, Manager, State::Down),
            node(Worker, Worker, State::Ready),
            node(Manager, Manager, State::Ready),
            node(Manager, Worker, State::Ready),
            Node::default(),
        ] {
            assert!(!may_still_be_one(&other), "{other:?}");
        }
    }
}
