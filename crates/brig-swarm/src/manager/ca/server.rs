//! The certificate authority as nodes see it: the trust anchor for everybody, certificates for
//! whoever has a join token or a certificate already.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::admission::Standing;
use brig_pki::identity::NodeIdentity;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::{
    Certificate, Cluster, GetRootCaCertificateRequest, GetRootCaCertificateResponse,
    GetUnlockKeyRequest, GetUnlockKeyResponse, IssueNodeCertificateRequest,
    IssueNodeCertificateResponse, Node, NodeCertificateStatusRequest,
    NodeCertificateStatusResponse, NodeRole, NodeSpec, NodeStatus, Version, ca_server,
    issuance_status::State as IssuanceState, node_ca_server, node_spec, node_status,
};
use brig_store::{Object, Store, StoreError};
use brig_types::id::NodeId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::signer::{SignError, recorded};
use super::signers::Signers;
use crate::grpc::authorize::{Caller, Unrecognized};
use crate::grpc::client;
use crate::manager::changes::{self, Wake};
use crate::manager::dispatcher::status::store_failed;
use crate::manager::join_tokens::{self, Refusal};
use crate::manager::keys::UNLOCK_SUBSYSTEM;

/// Largest certificate request.
const MAX_CSR: usize = 16 << 10;
/// How long a caller waits for the signer. What takes longer is pending, and callers ask again.
const SIGN_PATIENCE: Duration = Duration::from_secs(2);

/// The CA services of this manager.
#[derive(Clone)]
pub(crate) struct CaServer {
    store: Store,
    signers: Arc<Signers>,
    /// Woken when a request has to wait for its signature.
    waiting: Arc<Notify>,
    stop: CancellationToken,
}

impl CaServer {
    /// Serves from the cluster object.
    pub(crate) const fn new(
        store: Store,
        signers: Arc<Signers>,
        waiting: Arc<Notify>,
        stop: CancellationToken,
    ) -> Self {
        Self { store, signers, waiting, stop }
    }

    /// Signs a request, or notes down that it waits.
    async fn sign(
        &self,
        cluster: &Arc<Cluster>,
        node: &NodeId,
        role: NodeRole,
        csr: Vec<u8>,
        waiting: IssuanceState,
    ) -> Result<Certificate, Status> {
        let identity =
            NodeIdentity { cluster: cluster.id.clone(), role: pki_role(role), node: node.clone() };
        let attempt = match self.signers.of(cluster) {
            Ok(signer) => {
                let issue = signer.issue(&csr, &identity, super::expiry(cluster));
                tokio::time::timeout(SIGN_PATIENCE, issue).await.unwrap_or(Err(SignError::Slow))
            }
            Err(error) => Err(error),
        };
        recorded(attempt, node.as_str(), role, csr, waiting)
    }

    /// Has the pending requests looked at, if this is one.
    fn wake_if_waiting(&self, is_waiting: bool) {
        if is_waiting {
            self.waiting.notify_one();
        }
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
        let is_waiting = loop {
            let role = self.store.view().get::<Node>(&id).ok_or_else(unknown)?.role();
            let certificate =
                self.sign(&cluster, &caller.node, role, csr.clone(), IssuanceState::Renew).await?;
            let is_waiting = certificate.certificate.is_empty();
            if self.record(&id, role, certificate).await.map_err(|error| store_failed(&error))? {
                break is_waiting;
            }
        };
        self.wake_if_waiting(is_waiting);
        match caller.standing {
            Standing::Full => tracing::info!(node = id, "a node asked for a new certificate"),
            Standing::RenewOnly { until } => tracing::warn!(
                node = id,
                %until,
                "a node whose certificate had expired asked for a new one within the grace"
            ),
        }
        Ok(id)
    }

    /// Notes a node's certificate down, if the node still has the role that it says. Otherwise the
    /// change of the role would be forgotten: nobody would ask for a certificate that says so.
    async fn record(
        &self,
        id: &str,
        role: NodeRole,
        certificate: Certificate,
    ) -> Result<bool, StoreError> {
        self.store
            .update(|tx| -> Result<bool, StoreError> {
                if let Some(node) = tx.get::<Node>(id) {
                    if node.role() != role {
                        return Ok(false);
                    }
                    let mut node = (*node).clone();
                    let mut certificate = certificate.clone();
                    if certificate.certificate.is_empty() {
                        // While the request waits, the node has the one it had.
                        let held = node.certificate.take();
                        certificate.certificate =
                            held.map(|held| held.certificate).unwrap_or_default();
                    }
                    node.certificate = Some(certificate);
                    tx.update(node)?;
                }
                Ok(true)
            })
            .await
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
        let certificate = self.sign(&cluster, &id, role, csr, IssuanceState::Pending).await?;
        let is_waiting = certificate.certificate.is_empty();
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
        self.wake_if_waiting(is_waiting);
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

/// The role in a certificate.
pub(crate) const fn pki_role(role: NodeRole) -> Role {
    match role {
        NodeRole::Manager => Role::Manager,
        NodeRole::Worker => Role::Worker,
    }
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
            .find(|key| key.subsystem == UNLOCK_SUBSYSTEM)
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
        let unrecognized = request.extensions().get::<Unrecognized>().cloned();
        let agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok());
        let is_own_kind = agent.is_some_and(|agent| agent.starts_with(client::OWN_AGENT));
        let mut request = request.into_inner();
        let csr = std::mem::take(&mut request.csr);
        if csr.is_empty() || csr.len() > MAX_CSR {
            return Err(Status::invalid_argument("a certificate signing request is necessary"));
        }
        let node_id = match caller {
            Some(caller) => self.renew(&caller, csr).await?,
            None if request.token.is_empty()
                && let Some(Unrecognized(reason)) = unrecognized =>
            {
                tracing::warn!(reason, "refused to renew a certificate");
                return Err(Status::permission_denied(format!("Permission denied: {reason}")));
            }
            None => {
                let cluster = self.cluster()?;
                let role = join_tokens::role(&cluster, &request.token, SystemTime::now())?;
                if role == NodeRole::Manager && !is_own_kind {
                    return Err(Status::failed_precondition(
                        "this is a token for managers, and this swarm's managers are brig's: Docker Engine keeps its store in another way. Join with the worker token",
                    ));
                }
                self.admit(&request.token, role, request.availability, csr).await?
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
