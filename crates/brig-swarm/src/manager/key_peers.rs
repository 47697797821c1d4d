//! The other managers of a cluster, who get the data keys before anything is sealed with them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use brig_pki::identity::NodeIdentity;
use brig_pki::seal::KeyRing;
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole as Role;
use brig_proto::brig::{AdoptKeysRequest, managers_client::ManagersClient};
use brig_proto::swarm::{Certificate, Node, NodeRole, node_status};
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

/// Whether a demoted manager may be at work although nothing is heard of it, as while it starts: the
/// last certificate that it got says that it is one, and it is not known to be down.
fn may_still_be_one(node: &Node) -> bool {
    let state = node.status.as_ref().map(|status| status.state());
    let holds = |certificate: &Certificate| {
        let held = NodeIdentity::from_chain_pem(&certificate.certificate);
        held.is_ok_and(|held| held.role == Role::Manager)
    };
    node.role() != NodeRole::Manager
        && state != Some(node_status::State::Down)
        && node.certificate.as_ref().is_some_and(holds)
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
    use brig_pki::ca::RootCa;
    use brig_pki::csr::NodeKey;
    use brig_proto::swarm::NodeStatus;
    use brig_types::id::NodeId;

    use super::*;

    fn node(role: NodeRole, held: Role, state: node_status::State) -> Node {
        let identity =
            NodeIdentity { cluster: "cluster".to_owned(), role: held, node: NodeId::generate() };
        let csr = NodeKey::generate().unwrap().csr_pem().unwrap();
        let expiry = Duration::from_secs(3600);
        let certificate = RootCa::generate().unwrap().issue(&csr, &identity, expiry).unwrap();
        // What the object says of the role is what is wanted, at once.
        let certificate = Certificate { role: role as i32, certificate, ..Certificate::default() };
        Node {
            role: role as i32,
            certificate: Some(certificate),
            status: Some(NodeStatus { state: state as i32, ..NodeStatus::default() }),
            ..Node::default()
        }
    }

    #[test]
    fn a_demoted_manager_is_waited_for_until_it_is_a_worker_or_down() {
        use NodeRole::{Manager, Worker};
        use node_status::State;
        brig_pki::install_provider();
        for state in [State::Unknown, State::Ready, State::Disconnected] {
            assert!(may_still_be_one(&node(Worker, Role::Manager, state)), "{state:?}");
        }
        for other in [
            node(Worker, Role::Manager, State::Down),
            node(Worker, Role::Worker, State::Ready),
            node(Manager, Role::Manager, State::Ready),
            node(Manager, Role::Worker, State::Ready),
            Node::default(),
        ] {
            assert!(!may_still_be_one(&other), "{other:?}");
        }
    }
}
