//! The certificate authority as nodes see it: the trust anchor for everybody, certificates for
//! whoever has a join token or a certificate already.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
use brig_pki::identity::NodeIdentity;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::{
    Certificate, Cluster, GetRootCaCertificateRequest, GetRootCaCertificateResponse,
    GetUnlockKeyRequest, GetUnlockKeyResponse, IssuanceStatus, IssueNodeCertificateRequest,
    IssueNodeCertificateResponse, Node, NodeCertificateStatusRequest,
    NodeCertificateStatusResponse, NodeRole, NodeSpec, NodeStatus, Version, ca_server,
    issuance_status::State as IssuanceState, node_ca_server, node_spec, node_status,
};
use brig_store::{Object, Store, StoreError};
use brig_types::id::NodeId;
use brig_types::secret::SecretBytes;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::changes::{self, Wake};
use super::dispatcher::status::store_failed;
use super::join_tokens::{self, Refusal};
use crate::grpc::authorize::Caller;
use crate::wire_time;

/// Largest certificate request.
const MAX_CSR: usize = 16 << 10;

/// The CA services of this manager.
#[derive(Clone)]
pub(crate) struct CaServer {
    store: Store,
    stop: CancellationToken,
}

impl CaServer {
    /// Serves from the cluster object.
    pub(crate) const fn new(store: Store, stop: CancellationToken) -> Self {
        Self { store, stop }
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Status> {
        self.store
            .view()
            .all::<Cluster>()
            .next()
            .cloned()
            .ok_or_else(|| Status::aborted("CA signer is still starting"))
    }

    async fn renew(&self, caller: &Caller, csr: Vec<u8>) -> Result<String, Status> {
        let cluster = self.cluster()?;
        let id = caller.node.to_string();
        let unknown = || {
            Status::not_found(format!("node {id} not found when attempting to renew certificate"))
        };
        let role = self.store.view().get::<Node>(&id).ok_or_else(unknown)?.role();
        let certificate = issue(&cluster, &caller.node, role, csr)?;
        self.store
            .update(|tx| -> Result<(), StoreError> {
                if let Some(node) = tx.get::<Node>(&id) {
                    let mut node = (*node).clone();
                    node.certificate = Some(certificate);
                    tx.update(node)?;
                }
                Ok(())
            })
            .await
            .map_err(|error| store_failed(&error))?;
        tracing::info!(node = id, "renewed a node certificate");
        Ok(id)
    }

    async fn admit(
        &self,
        token: &str,
        role: NodeRole,
        availability: i32,
        csr: Vec<u8>,
    ) -> Result<String, Status> {
        let cluster = self.cluster()?;
        let id = NodeId::generate();
        let certificate = issue(&cluster, &id, role, csr)?;
        let availability = node_spec::Availability::try_from(availability)
            .unwrap_or(node_spec::Availability::Active);
        let node = Node {
            id: id.to_string(),
            spec: Some(NodeSpec {
                desired_role: role as i32,
                membership: node_spec::Membership::Accepted as i32,
                availability: availability as i32,
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                state: node_status::State::Unknown as i32,
                ..NodeStatus::default()
            }),
            certificate: Some(certificate),
            role: role as i32,
            vxlan_udp_port: cluster.vxlan_udp_port,
            ..Node::default()
        };
        self.store
            .update(|tx| -> Result<(), AdmitError> {
                // Since the certificate was signed, the token may have been rotated or used up.
                let cluster = tx.all::<Cluster>().next().map(Arc::clone);
                let cluster = cluster.ok_or(Refusal::Unknown)?;
                if join_tokens::role(&cluster, token, SystemTime::now())? != role {
                    return Err(Refusal::Unknown.into());
                }
                if let Some(cluster) = join_tokens::spent(&cluster, role) {
                    tx.update(cluster)?;
                }
                tx.create(node)?;
                Ok(())
            })
            .await
            .map_err(|error| match error {
                AdmitError::Refused(refusal) => refusal.into(),
                AdmitError::Store(error) => store_failed(&error),
            })?;
        tracing::info!(node = %id, ?role, "admitted a node");
        Ok(id.to_string())
    }
}

/// Why a node was not admitted.
enum AdmitError {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for AdmitError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Signs a request; the certificate is ready at once.
fn issue(
    cluster: &Cluster,
    node: &NodeId,
    role: NodeRole,
    csr: Vec<u8>,
) -> Result<Certificate, Status> {
    let stopped = || Status::aborted("CA signer is stopped");
    let root = signer(cluster).ok_or_else(stopped)?;
    let identity = NodeIdentity {
        cluster: cluster.id.clone(),
        role: match role {
            NodeRole::Manager => Role::Manager,
            NodeRole::Worker => Role::Worker,
        },
        node: node.clone(),
    };
    let chain = root
        .issue(&csr, &identity, expiry(cluster))
        .map_err(|error| Status::invalid_argument(brig_types::error::chain(&error)))?;
    Ok(Certificate {
        role: role as i32,
        csr,
        status: Some(IssuanceStatus { state: IssuanceState::Issued as i32, err: String::new() }),
        certificate: chain,
        cn: node.to_string(),
    })
}

/// The cluster's root with its key.
fn signer(cluster: &Cluster) -> Option<RootCa> {
    let root = cluster.root_ca.as_ref()?;
    let key = SecretBytes::new(root.ca_key.clone());
    let root = RootCa::from_pem(&root.ca_cert, Some(&key));
    root.inspect_err(|error| tracing::error!(error = %error, "the cluster's CA cannot be used"))
        .ok()
}

/// How long node certificates are valid.
pub(crate) fn expiry(cluster: &Cluster) -> Duration {
    let configured = cluster
        .spec
        .as_ref()
        .and_then(|spec| spec.ca_config.as_ref())
        .and_then(|config| config.node_cert_expiry.as_ref());
    wire_time::duration(configured, DEFAULT_NODE_EXPIRY)
}

#[tonic::async_trait]
impl ca_server::Ca for CaServer {
    async fn get_root_ca_certificate(
        &self,
        _: Request<GetRootCaCertificateRequest>,
    ) -> Result<Response<GetRootCaCertificateResponse>, Status> {
        let certificate =
            self.cluster()?.root_ca.as_ref().map(|root| root.ca_cert.clone()).unwrap_or_default();
        Ok(Response::new(GetRootCaCertificateResponse { certificate }))
    }

    async fn get_unlock_key(
        &self,
        _: Request<GetUnlockKeyRequest>,
    ) -> Result<Response<GetUnlockKeyResponse>, Status> {
        let cluster = self.cluster()?;
        let unlock_key = cluster
            .unlock_keys
            .iter()
            .find(|key| key.subsystem == "swarm-manager")
            .map(|key| key.key.clone())
            .unwrap_or_default();
        let version =
            cluster.meta.as_ref().and_then(|meta| meta.version).or(Some(Version::default()));
        Ok(Response::new(GetUnlockKeyResponse { unlock_key, version }))
    }
}

#[tonic::async_trait]
impl node_ca_server::NodeCa for CaServer {
    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        if self.stop.is_cancelled() {
            return Err(Status::aborted("CA signer is stopped"));
        }
        let caller = request.extensions().get::<Caller>().cloned();
        let mut request = request.into_inner();
        let csr = std::mem::take(&mut request.csr);
        if csr.is_empty() || csr.len() > MAX_CSR {
            return Err(Status::invalid_argument("a certificate signing request is necessary"));
        }
        let node_id = match caller {
            Some(caller) => self.renew(&caller, csr).await?,
            None => {
                let cluster = self.cluster()?;
                match join_tokens::role(&cluster, &request.token, SystemTime::now())? {
                    NodeRole::Manager => {
                        return Err(Status::unimplemented(
                            "joining as a manager comes with the replicated store: this cluster has one manager, join with the worker token",
                        ));
                    }
                    NodeRole::Worker => {
                        self.admit(&request.token, NodeRole::Worker, request.availability, csr)
                            .await?
                    }
                }
            }
        };
        Ok(Response::new(IssueNodeCertificateResponse {
            node_id,
            node_membership: node_spec::Membership::Accepted as i32,
        }))
    }

    async fn node_certificate_status(
        &self,
        request: Request<NodeCertificateStatusRequest>,
    ) -> Result<Response<NodeCertificateStatusResponse>, Status> {
        let id = request.into_inner().node_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("node id is empty"));
        }
        loop {
            let (node, mut watcher) = self.store.view_and_watch(|view| view.get::<Node>(&id));
            let node = node.ok_or_else(|| Status::not_found(format!("node {id} not found")))?;
            if let Some(answer) = final_status(&node) {
                return Ok(Response::new(answer));
            }
            loop {
                let wake = tokio::select! {
                    () = self.stop.cancelled() => {
                        return Err(Status::aborted("CA signer is stopped"));
                    }
                    wake = changes::wait(&mut watcher, None) => wake,
                };
                let again = match wake {
                    Wake::Changes(commits) => changes::of(&commits).any(
                        |change| matches!(change.object(), Object::Node(node) if node.id == id),
                    ),
                    Wake::Time => false,
                    Wake::Missed => true,
                    Wake::Closed => return Err(Status::aborted("CA signer is stopped")),
                };
                if again {
                    break;
                }
            }
        }
    }
}

/// The answer once there is nothing to wait for. Agents of Docker Engine crash when a part is
/// missing.
fn final_status(node: &Node) -> Option<NodeCertificateStatusResponse> {
    let certificate = node.certificate.clone()?;
    let status = certificate.status.clone()?;
    let done = matches!(
        status.state(),
        IssuanceState::Issued | IssuanceState::Failed | IssuanceState::Rotate
    );
    done.then_some(NodeCertificateStatusResponse {
        status: Some(status),
        certificate: Some(certificate),
    })
}

/// The end of a removed node's right to show its certificate.
pub(crate) fn blacklist_until(cluster: &Cluster, now: SystemTime) -> SystemTime {
    const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
    now + expiry(cluster) + GRACE
}
