//! A manager's own certificate, from the key that it has itself. Nodes get theirs from a manager
//! that proves to be one; a manager whose certificate has expired cannot prove that to itself.

use std::sync::Arc;

use brig_pki::identity::NodeIdentity;
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{Cluster, Node, issuance_status::State};
use brig_store::{Store, StoreError};

use super::server::pki_role;
use super::signer::{SignError, Signer, recorded};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    /// The store knows no such cluster or node.
    #[error("this manager is not in its own store")]
    Unknown,
    /// It was promoted or demoted meanwhile.
    #[error("this node was given another role meanwhile")]
    OtherRole,
    /// The cluster's certificate authority does not sign.
    #[error("the cluster's certificate authority does not sign")]
    Sign(#[source] SignError),
    /// The record was not written.
    #[error("the certificate cannot be recorded")]
    Store(#[source] StoreError),
}

/// Issues and records a certificate for the node of these credentials; answers its chain.
pub(crate) async fn issue(
    store: &Store,
    credentials: &Arc<TlsCredentials>,
    csr: Vec<u8>,
) -> Result<Vec<u8>, OwnError> {
    let identity = credentials.identity();
    let (cluster, node) = {
        let view = store.view();
        (view.get::<Cluster>(&identity.cluster), view.get::<Node>(identity.node.as_str()))
    };
    let (cluster, node) = cluster.zip(node).ok_or(OwnError::Unknown)?;
    let role = node.role();
    let identity = NodeIdentity { role: pki_role(role), ..identity };
    let signer = Signer::new(&cluster, credentials).map_err(OwnError::Sign)?;
    let chain =
        signer.issue(&csr, &identity, super::expiry(&cluster)).await.map_err(OwnError::Sign)?;
    let id = identity.node.as_str();
    let Ok(certificate) = recorded(Ok(chain.clone()), id, role, csr, State::Renew) else {
        return Err(OwnError::Unknown);
    };
    store
        .update(|tx| {
            let node = tx.get::<Node>(id).ok_or(OwnError::Unknown)?;
            if node.role() != role {
                return Err(OwnError::OtherRole);
            }
            let mut node = (*node).clone();
            node.certificate = Some(certificate);
            tx.update(node).map(drop).map_err(OwnError::Store)
        })
        .await?;
    Ok(chain)
}

impl From<StoreError> for OwnError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
