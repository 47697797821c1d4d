//! How another manager gets into the replicated store.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use brig_pki::ca::RootCa;
use brig_proto::brig::{
    AdoptKeysRequest, AdoptKeysResponse, JoinRequest, JoinResponse, managers_server,
};
use brig_proto::swarm::{ManagerStatus, Node, NodeRole, raft_member_status::Reachability};
use brig_store::etcd::MemberInfo;
use brig_store::{Store, StoreError};
use brig_types::secret::SecretBytes;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::dispatcher::status::store_failed;
use super::keys::KeyManager;
use super::leading::manager_claim;
use crate::error::SwarmError;
use crate::grpc::authorize::caller;
use crate::replica::{self, Replica};

/// Longest certificate request or address.
const MAX_TEXT: usize = 16 << 10;
/// How long a new manager waits for the store's authority to change.
const AUTHORITY_PATIENCE: Duration = Duration::from_secs(20);

/// The service that new managers call.
#[derive(Clone)]
pub(crate) struct Members {
    cluster: String,
    store: Store,
    replica: Arc<Replica>,
    keys: KeyManager,
    tracker: TaskTracker,
}

impl Members {
    pub(crate) const fn new(
        cluster: String,
        store: Store,
        replica: Arc<Replica>,
        keys: KeyManager,
        tracker: TaskTracker,
    ) -> Self {
        Self { cluster, store, replica, keys, tracker }
    }

    async fn admit(&self, node: &str, request: &JoinRequest) -> Result<JoinResponse, Status> {
        let (peer, advertised) = addresses(request)?;
        let _changing = self.replica.changing.lock().await;
        let is_manager = |node: &Node| node.role() == NodeRole::Manager;
        if !self.store.view().get::<Node>(node).is_some_and(|node| is_manager(&node)) {
            return Err(Status::permission_denied(format!("node {node} is no manager")));
        }
        // The keys stay what they are until everybody knows of the new manager, and nothing is
        // sealed anew while the store moves.
        let _keys = self.keys.hold().await;
        let mut answer = JoinResponse::default();
        answer.data_keys = self.keys.export_ring().expose_secret().to_vec();
        if !self.replica.is_external() {
            self.replica.make_way(&self.store, &request.peer_url).await.map_err(failed)?;
            self.settle_authority().await?;
            self.replica.replicate(&self.store).await.map_err(failed)?;
            let authority = self.replica.authority(&self.store).map_err(failed)?;
            let authority = authority
                .ok_or_else(|| Status::internal("the store's authority is not in the cluster"))?;
            let issued = self
                .replica
                .settings()
                .issue(&authority, (&request.member_csr, &request.client_csr), peer.ip())
                .map_err(failed)?;
            let is_former = |other: &str| {
                let manager = self.store.view().get::<Node>(other).filter(|it| is_manager(it));
                let is_there = self.replica.live.get(&manager_claim(other)).is_some();
                manager.is_none() && !is_there
            };
            let (member, members) =
                self.replica.add(node, &request.peer_url, is_former).await.map_err(failed)?;
            answer.store_ca = authority.cert_pem().to_vec();
            answer.member_certificate = issued.member;
            answer.client_certificate = issued.client;
            answer.member = member.id;
            answer.initial_cluster = initial_cluster(node, member.id, &members);
            answer.endpoints = members
                .iter()
                .flat_map(|member| &member.client_urls)
                .filter_map(|url| replica::endpoint(url))
                .collect();
            node.clone_into(&mut answer.name);
        }
        self.note(node, advertised).await.map_err(|error| store_failed(&error))?;
        // From now on the authority waits for the new manager; until now it did not.
        let authority = self.replica.authority(&self.store).map_err(failed)?;
        let issued_by = (!answer.store_ca.is_empty()).then_some(answer.store_ca.as_slice());
        if issued_by.is_some() && authority.as_ref().map(RootCa::cert_pem) != issued_by {
            return Err(Status::unavailable(
                "the certificates of the cluster's store were replaced meanwhile: try again",
            ));
        }
        tracing::info!(node, cluster = self.cluster, "a manager joined the store");
        Ok(answer)
    }

    /// Waits while one authority of the store takes the place of another.
    async fn settle_authority(&self) -> Result<(), Status> {
        let until = Instant::now() + AUTHORITY_PATIENCE;
        while self.replica.is_changing_authority(&self.store) {
            if Instant::now() >= until {
                return Err(Status::unavailable(
                    "the certificates of the cluster's store are being replaced, which waits for every manager (docker node ls): try again later",
                ));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    /// Tells everybody where the new manager is.
    async fn note(&self, node: &str, advertised: SocketAddr) -> Result<(), StoreError> {
        self.store
            .update(|tx| {
                let Some(current) = tx.get::<Node>(node) else { return Ok(()) };
                let mut next = (*current).clone();
                next.manager_status = Some(status(node, advertised.to_string()));
                tx.update(next).map(drop)
            })
            .await
    }
}

/// A manager that nobody has heard of yet.
pub(crate) fn status(node: &str, addr: String) -> ManagerStatus {
    ManagerStatus {
        raft_id: raft_id(node),
        addr,
        leader: false,
        reachability: Reachability::Unknown as i32,
    }
}

/// A number that is the node's alone; Docker's clients show none of it.
fn raft_id(node: &str) -> u64 {
    node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn initial_cluster(node: &str, own: u64, members: &[MemberInfo]) -> String {
    let pair = |member: &MemberInfo, url: &String| {
        let name = if member.id == own { node } else { member.name.as_str() };
        format!("{name}={url}")
    };
    let pairs: Vec<String> = members
        .iter()
        .flat_map(|member| member.peer_urls.iter().map(move |url| pair(member, url)))
        .collect();
    pairs.join(",")
}

fn addresses(request: &JoinRequest) -> Result<(SocketAddr, SocketAddr), Status> {
    let invalid = || Status::invalid_argument("the addresses of the new manager make no sense");
    let JoinRequest { advertise_addr, peer_url, member_csr, client_csr } = request;
    if [advertise_addr.len(), peer_url.len(), member_csr.len(), client_csr.len()]
        .into_iter()
        .any(|length| length > MAX_TEXT)
    {
        return Err(invalid());
    }
    let peer = peer_url.strip_prefix("https://").ok_or_else(invalid)?;
    let peer: SocketAddr = peer.parse().map_err(|_| invalid())?;
    let advertised: SocketAddr = advertise_addr.parse().map_err(|_| invalid())?;
    let is_somewhere = |ip: IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    if is_somewhere(peer.ip()) && is_somewhere(advertised.ip()) {
        Ok((peer, advertised))
    } else {
        Err(invalid())
    }
}

fn failed(error: SwarmError) -> Status {
    let error = brig_types::error::chain(&error);
    tracing::error!(error, "a manager could not join the store");
    Status::failed_precondition(format!("the manager that was asked to take it in: {error}"))
}

#[tonic::async_trait]
impl managers_server::Managers for Members {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let node = caller(&request)?.node.to_string();
        let (members, request) = (self.clone(), request.into_inner());
        // The store is not left half way when the caller goes away.
        let admitted = self.tracker.spawn(async move { members.admit(&node, &request).await });
        let answer = admitted.await.map_err(|_| Status::internal("interrupted"))??;
        Ok(Response::new(answer))
    }

    async fn adopt_keys(
        &self,
        mut request: Request<AdoptKeysRequest>,
    ) -> Result<Response<AdoptKeysResponse>, Status> {
        let ring = SecretBytes::new(std::mem::take(&mut request.get_mut().data_keys));
        let keys = self.keys.clone();
        let adopted = self.tracker.spawn(async move { keys.import_ring(ring).await });
        adopted.await.map_err(|_| Status::internal("interrupted"))?.map_err(|error| {
            let error = brig_types::error::chain(&error);
            tracing::warn!(error, "the cluster's data keys were not taken over");
            Status::failed_precondition(error)
        })?;
        Ok(Response::new(AdoptKeysResponse {}))
    }
}
