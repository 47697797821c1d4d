//! Keeps the node's certificate valid: asks for a new one in good time or when a manager wants
//! it, and follows the cluster's trust anchor.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::PkiError;
use brig_pki::csr::NodeKey;
use brig_pki::identity::{CertInfo, verify_issued_chain};
use brig_pki::keyfile::{CertificateDir, KeyFile};
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{
    IssueNodeCertificateRequest, Node, NodeCertificateStatusRequest,
    issuance_status::State as IssuanceState, node_ca_client::NodeCaClient,
};

use crate::agent::{Agent, random};
use crate::grpc::client::{self, MANAGER_NAME};
use crate::wire_time;

/// The part of its validity after which a certificate is renewed, at random between these.
const EARLIEST: f64 = 0.5;
const LATEST: f64 = 0.8;
/// Longest time until a certificate is issued.
const PATIENCE: Duration = Duration::from_secs(20);
/// First and longest pause after a failure.
const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// Pause before a renewal that a manager asked for, so that its order has settled.
const SETTLE: Duration = Duration::from_millis(500);

/// The node's certificate and where it is kept.
pub(crate) struct Renewal {
    credentials: Arc<TlsCredentials>,
    dir: CertificateDir,
    key: KeyFile,
    agent: Arc<Agent>,
}

/// Why a renewal did not work.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("no manager is known")]
    NoManager,
    #[error("cannot connect to a manager")]
    Connect(#[source] tonic::transport::Error),
    #[error("the manager refused: {}", .0.message())]
    Refused(tonic::Status),
    #[error("the manager cannot issue a certificate: {0}")]
    Failed(String),
    #[error("no certificate was issued in time")]
    Timeout,
    #[error("the manager issued a certificate for another request")]
    OtherRequest,
    #[error("the certificate cannot be used")]
    Pki(#[from] PkiError),
}

impl Renewal {
    pub(crate) const fn new(
        credentials: Arc<TlsCredentials>,
        dir: CertificateDir,
        key: KeyFile,
        agent: Arc<Agent>,
    ) -> Self {
        Self { credentials, dir, key, agent }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut node = self.agent.node();
        let mut roots = self.agent.roots();
        // What managers said before this began counts as well.
        node.mark_changed();
        roots.mark_changed();
        let mut backoff = Duration::ZERO;
        // Drawn once for each certificate: every new draw would bring the renewal forward.
        let mut point = random();
        loop {
            let due = renew_at(&self.credentials.certificate(), point);
            let pause = if backoff.is_zero() {
                wire_time::until(due, SystemTime::now())
            } else {
                backoff.mul_f64(random())
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = node.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !wants_rotation(node.borrow_and_update().as_ref()) {
                        continue;
                    }
                    tokio::time::sleep(SETTLE).await;
                }
                changed = roots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let bundle = roots.borrow_and_update().clone();
                    self.follow_roots(&bundle);
                    continue;
                }
            }
            match self.renew().await {
                Ok(()) => {
                    backoff = Duration::ZERO;
                    point = random();
                    // The new chain may lead to a trust anchor that the old one did not lead to.
                    let bundle = roots.borrow_and_update().clone();
                    self.follow_roots(&bundle);
                }
                Err(error) => {
                    backoff = (backoff * 2).clamp(FIRST_BACKOFF, MAX_BACKOFF);
                    tracing::warn!(error = %brig_types::error::chain(&error), "the node's certificate was not renewed");
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), RenewalError> {
        let key = NodeKey::generate()?;
        let csr = key.csr_pem()?;
        let chain = tokio::time::timeout(PATIENCE, self.request(csr))
            .await
            .map_err(|_| RenewalError::Timeout)??;
        let roots = self.credentials.roots_pem();
        let issued = verify_issued_chain(&roots, &chain, &key)?;
        let file = self.key.with_node_key(key);
        self.dir.store(&chain, &file)?;
        self.credentials.replace(&roots, &chain, &file.node_key)?;
        self.key = file;
        self.agent.certificates_changed();
        tracing::info!(role = ?issued.role, "the node's certificate was renewed");
        Ok(())
    }

    async fn request(&self, csr: Vec<u8>) -> Result<Vec<u8>, RenewalError> {
        let address = self.agent.choose_manager().ok_or(RenewalError::NoManager)?;
        let credentials = Arc::clone(&self.credentials);
        let channel = client::connect(&address, credentials, MANAGER_NAME)
            .await
            .map_err(RenewalError::Connect)?;
        let mut ca = NodeCaClient::new(channel);
        let request = IssueNodeCertificateRequest {
            csr: csr.clone(),
            ..IssueNodeCertificateRequest::default()
        };
        let issued =
            ca.issue_node_certificate(request).await.map_err(RenewalError::Refused)?.into_inner();
        loop {
            let request = NodeCertificateStatusRequest { node_id: issued.node_id.clone() };
            let answer = ca
                .node_certificate_status(request)
                .await
                .map_err(RenewalError::Refused)?
                .into_inner();
            let status = answer.status.unwrap_or_default();
            let state = status.state();
            let certificate = answer.certificate.unwrap_or_default();
            if state == IssuanceState::Failed && certificate.csr == csr {
                return Err(RenewalError::Failed(status.err));
            }
            if !matches!(state, IssuanceState::Issued | IssuanceState::Rotate) {
                tokio::time::sleep(SETTLE).await;
                continue;
            }
            if certificate.csr != csr {
                return Err(RenewalError::OtherRequest);
            }
            return Ok(certificate.certificate);
        }
    }

    fn follow_roots(&self, roots: &[u8]) {
        if let Err(error) = self.adopt_roots(roots) {
            tracing::warn!(error = %brig_types::error::chain(&error), "the cluster's trust anchor is not adopted: this node's certificate does not lead to it");
        }
    }

    /// Trusts another set of roots, if the own chain leads to one of them.
    fn adopt_roots(&self, roots: &[u8]) -> Result<(), PkiError> {
        if self.credentials.roots_pem() == roots {
            return Ok(());
        }
        brig_pki::ca::check_bundle(roots)?;
        let chain = self.credentials.chain_pem();
        verify_issued_chain(roots, &chain, &self.key.node_key)?;
        self.dir.store_roots(roots)?;
        self.credentials.replace(roots, &chain, &self.key.node_key)?;
        self.agent.certificates_changed();
        tracing::info!("the cluster has a new trust anchor");
        Ok(())
    }
}

/// Whether a manager wants this node to get another certificate now.
fn wants_rotation(node: Option<&Node>) -> bool {
    node.and_then(|node| node.certificate.as_ref())
        .and_then(|certificate| certificate.status.as_ref())
        .is_some_and(|status| status.state() == IssuanceState::Rotate)
}

/// When to renew a certificate; `random` from 0 to 1.
fn renew_at(certificate: &CertInfo, random: f64) -> SystemTime {
    let start = SystemTime::from(certificate.not_before);
    let end = SystemTime::from(certificate.not_after);
    let validity = wire_time::until(end, start);
    start + validity.mul_f64(EARLIEST + (LATEST - EARLIEST) * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use brig_pki::ca::{DEFAULT_NODE_EXPIRY, MIN_NODE_EXPIRY, RootCa};
    use brig_pki::identity::NodeIdentity;
    use brig_pki::token::NodeRole;
    use brig_types::id::NodeId;

    use super::*;

    fn issued(expiry: Duration) -> CertInfo {
        let key = NodeKey::generate().unwrap();
        let identity = NodeIdentity {
            cluster: "c".to_owned(),
            role: NodeRole::Worker,
            node: NodeId::generate(),
        };
        let chain =
            RootCa::generate().unwrap().issue(&key.csr_pem().unwrap(), &identity, expiry).unwrap();
        CertInfo::from_pem(&chain).unwrap()
    }

    #[test]
    fn renewal_comes_in_the_second_half() {
        let info = issued(DEFAULT_NODE_EXPIRY);
        let day = |random| {
            let at = renew_at(&info, random);
            at.duration_since(info.not_before.into()).unwrap().as_secs() / 86_400
        };
        assert_eq!(day(0.0), 45);
        assert_eq!(day(1.0), 72);
    }
    #[test]
    fn the_shortest_validity_is_renewed_within_36_minutes() {
        let info = issued(MIN_NODE_EXPIRY);
        // The hour before the issuance, for clocks that lag, counts as elapsed.
        let issuance = SystemTime::from(info.not_before) + Duration::from_secs(3600);
        let after = |random| renew_at(&info, random).duration_since(issuance).unwrap();
        assert_eq!(after(0.0), Duration::ZERO);
        assert_eq!(after(1.0).as_secs(), 36 * 60);
    }
}
