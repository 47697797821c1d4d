//! What signs node certificates: the root that the cluster's nodes are to have.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

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

/// Signs node certificates as the cluster object says. It is made for one use and forgotten: the
/// next one may have to sign with another root.
#[derive(Debug)]
pub(crate) struct Signer {
    authority: Authority,
    /// What leads from that root to older ones, PEM; a part of every chain.
    intermediates: Vec<u8>,
}

#[derive(Debug)]
enum Authority {
    /// The root with its key.
    Local(Arc<RootCa>),
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
                Authority::Local(root_ca(cert, key).map_err(SignError::Recoverable)?)
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

/// The root that signed last. Reading one costs as much as signing several certificates, and
/// thousands of nodes may come at once.
static LAST: Mutex<Option<LastRoot>> = Mutex::new(None);

/// How long a root is taken as read: its own validity is checked when it is read.
const READ_FOR: Duration = Duration::from_secs(60);

struct LastRoot {
    cert: Vec<u8>,
    key: Option<SecretBytes>,
    read: Instant,
    root: Arc<RootCa>,
}

fn root_ca(cert: &[u8], key: Option<SecretBytes>) -> Result<Arc<RootCa>, PkiError> {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(last) = last.as_ref()
        && last.read.elapsed() < READ_FOR
        && last.cert == cert
        && last.key.as_ref().map(SecretBytes::expose_secret)
            == key.as_ref().map(SecretBytes::expose_secret)
    {
        return Ok(Arc::clone(&last.root));
    }
    let root = Arc::new(RootCa::from_pem(cert, key.as_ref())?);
    *last =
        Some(LastRoot { cert: cert.to_vec(), key, read: Instant::now(), root: Arc::clone(&root) });
    Ok(root)
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
