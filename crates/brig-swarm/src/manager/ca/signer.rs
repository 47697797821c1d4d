//! What signs node certificates: the root that the cluster's nodes are to have.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::PkiError;
use brig_pki::ca::RootCa;
use brig_pki::identity::NodeIdentity;
use brig_pki::issued::check_request;
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{Certificate, Cluster, IssuanceStatus, NodeRole, issuance_status::State};
use brig_types::secret::SecretBytes;
use tonic::Status;

use super::external::{ExternalCa, ExternalError};
use super::rotation;

/// Signs node certificates as the cluster object says.
#[derive(Debug)]
pub(crate) struct Signer {
    authority: Authority,
    /// What leads from that root to older ones, PEM; a part of every chain.
    intermediates: Vec<u8>,
}

#[derive(Debug)]
enum Authority {
    /// The root with its key.
    Local(RootCa),
    /// Somebody else has the key.
    External(ExternalCa),
}

/// Why a certificate was not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// The request is no good, whoever signs.
    #[error("the certificate request cannot be signed")]
    Request(#[source] PkiError),
    /// Trying again may help: the request stays pending.
    #[error("the certificate cannot be signed now")]
    Recoverable(#[source] PkiError),
    /// Trying again does not help: the request has failed.
    #[error("the certificate will not be signed")]
    Permanent(#[source] PkiError),
    /// The cluster's external authorities did not sign. They say whether trying again may help.
    #[error("the certificate was not signed")]
    External(#[from] ExternalError),
    /// The signer did not answer in time; it is asked again.
    #[error("no signature came in time")]
    Slow,
}

impl SignError {
    /// Whether the request has to wait for another attempt.
    fn may_pass(&self) -> bool {
        match self {
            Self::Recoverable(_) | Self::Slow => true,
            Self::External(error) => !error.is_permanent(),
            Self::Request(_) | Self::Permanent(_) => false,
        }
    }
}

impl Signer {
    /// What signs for this cluster now: the external authorities of the root that nodes are to
    /// have, which get to see this node's certificate; without any, the root's key.
    pub(crate) fn new(
        cluster: &Cluster,
        identity: &Arc<TlsCredentials>,
    ) -> Result<Self, SignError> {
        Self::of(cluster, Some(Arc::clone(identity)))
    }

    /// The same for a manager that has no certificate yet.
    pub(crate) fn for_nobody(cluster: &Cluster) -> Result<Self, SignError> {
        Self::of(cluster, None)
    }

    fn of(cluster: &Cluster, identity: Option<Arc<TlsCredentials>>) -> Result<Self, SignError> {
        let root = cluster.root_ca.as_ref().ok_or(SignError::Recoverable(PkiError::NoSigner))?;
        let (cert, key) = match &root.root_rotation {
            None => (&root.ca_cert, &root.ca_key),
            Some(new) => (&new.ca_cert, &new.ca_key),
        };
        let intermediates = rotation::way_back(root, SystemTime::now());
        let settings = cluster.spec.as_ref().and_then(|spec| spec.ca_config.as_ref());
        let external =
            settings.and_then(|settings| ExternalCa::new(settings, &root.ca_cert, cert, identity));
        let authority = match external {
            Some(external) => Authority::External(external),
            None => {
                let key = SecretBytes::new(key.clone());
                let key = (!key.expose_secret().is_empty()).then_some(key);
                let root = RootCa::from_pem(cert, key.as_ref());
                Authority::Local(root.map_err(SignError::Recoverable)?)
            }
        };
        Ok(Self { authority, intermediates })
    }

    /// Signs a request; answers the chain in PEM, leaf first.
    pub(crate) async fn issue(
        &self,
        csr: &[u8],
        identity: &NodeIdentity,
        expiry: Duration,
    ) -> Result<Vec<u8>, SignError> {
        let mut chain = match &self.authority {
            Authority::External(external) => {
                // Nobody else is bothered with what cannot be signed.
                check_request(csr).map_err(SignError::Request)?;
                external.issue(csr, identity).await?
            }
            Authority::Local(root) => {
                root.issue(csr, identity, expiry).map_err(|error| match error {
                    PkiError::Csr { .. } | PkiError::Pem { .. } => SignError::Request(error),
                    PkiError::NoSigner | PkiError::Random => SignError::Recoverable(error),
                    other => SignError::Permanent(other),
                })?
            }
        };
        chain.extend_from_slice(&self.intermediates);
        Ok(chain)
    }
}

/// The record of a request after an attempt to sign it; `waiting` is its state if it has to wait.
///
/// # Errors
/// [`Status`] when nothing is to be recorded.
pub(crate) fn recorded(
    attempt: Result<Vec<u8>, SignError>,
    node: &str,
    role: NodeRole,
    csr: Vec<u8>,
    waiting: State,
) -> Result<Certificate, Status> {
    let (state, err, chain) = match attempt {
        Ok(chain) => (State::Issued, String::new(), chain),
        Err(SignError::Request(source)) => {
            return Err(Status::invalid_argument(brig_types::error::chain(&source)));
        }
        Err(error) if error.may_pass() => {
            let reason = brig_types::error::chain(&error);
            tracing::warn!(node, reason, "a certificate request has to wait");
            (waiting, reason, Vec::new())
        }
        Err(error) => {
            let reason = brig_types::error::chain(&error);
            tracing::error!(node, reason, "a certificate request failed");
            (State::Failed, reason, Vec::new())
        }
    };
    Ok(Certificate {
        role: role as i32,
        csr,
        status: Some(IssuanceStatus { state: state as i32, err }),
        certificate: chain,
        cn: node.to_owned(),
    })
}
