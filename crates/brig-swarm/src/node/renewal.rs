//! Keeps the node's certificate valid: asks for a new one in good time or when a manager wants
//! it, and follows the cluster's trust anchor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use brig_pki::csr::NodeKey;
use brig_pki::identity::{CertInfo, verify_issued_chain};
use brig_pki::tls::{self, TlsCredentials};
use brig_pki::{PkiError, admission};
use brig_proto::swarm::{
    IssueNodeCertificateRequest, Node, NodeCertificateStatusRequest,
    issuance_status::State as IssuanceState, node_ca_client::NodeCaClient,
};
use brig_store::Store;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::agent::{Agent, random};
use crate::grpc::client::{self, Broken, MANAGER_NAME};
use crate::grpc::clock::{self, WrongClock};
use crate::manager::ca::own::{self, OwnError};
use crate::node::keys::NodeKeys;
use crate::wire_time;

/// The part of its validity after which a certificate is renewed, at random between these.
const EARLIEST: f64 = 0.5;
const LATEST: f64 = 0.8;
/// Longest time until a certificate is issued.
const PATIENCE: Duration = Duration::from_secs(20);
/// First and longest pause after a failure. A change of a node's role cuts its connections, and a
/// manager that gets another root breaks calls off: the next attempt shall not come late.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(3600);
/// Longest pause while the node cannot work because its certificate is not valid.
const MAX_BACKOFF_INVALID: Duration = Duration::from_secs(30);
/// Longest sleep: timers stand still while the machine sleeps, certificates do not.
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// Pause before a renewal that a manager asked for, so that its order has settled.
const SETTLE: Duration = Duration::from_millis(500);

/// The node's certificate and where it is kept.
pub(crate) struct Renewal {
    credentials: Arc<TlsCredentials>,
    keys: Arc<NodeKeys>,
    agent: Arc<Agent>,
    /// The cluster's store, on its managers.
    store: Option<Store>,
    problem: watch::Sender<String>,
    /// The manager that was asked last, if that did not help.
    disappointing: Mutex<Option<String>>,
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
    #[error("the manager refused the connection: {0}")]
    Unwelcome(String),
    #[error("this manager cannot issue its own certificate")]
    Own(#[source] OwnError),
    #[error("the manager cannot issue a certificate: {0}")]
    Failed(String),
    #[error("no certificate was issued in time")]
    Timeout,
    #[error("the manager issued a certificate for another request")]
    OtherRequest,
    #[error("the certificate cannot be used")]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Clock(WrongClock),
}

impl RenewalError {
    /// Whether a manager looked at the node's certificate and does not renew it.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Unwelcome(_) => true,
            Self::Refused(status) => status.code() == tonic::Code::PermissionDenied,
            Self::NoManager
            | Self::Connect(_)
            | Self::Own(_)
            | Self::Failed(_)
            | Self::Timeout
            | Self::OtherRequest
            | Self::Pki(_)
            | Self::Clock(_) => false,
        }
    }
}

impl Renewal {
    pub(crate) fn new(
        credentials: Arc<TlsCredentials>,
        keys: Arc<NodeKeys>,
        agent: Arc<Agent>,
        store: Option<Store>,
    ) -> Self {
        Self {
            credentials,
            keys,
            agent,
            store,
            problem: watch::Sender::default(),
            disappointing: Mutex::default(),
        }
    }

    /// Why the node cannot work with its certificate, for `docker info`; empty while it can.
    pub(crate) fn problem(&self) -> watch::Receiver<String> {
        self.problem.subscribe()
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut node = self.agent.node();
        let mut roots = self.agent.roots();
        // What managers said before this began counts as well.
        node.mark_changed();
        roots.mark_changed();
        let mut backoff = Duration::ZERO;
        // Drawn once for each certificate: every new draw would bring the renewal forward.
        let mut point = random();
        loop {
            let certificate = self.credentials.certificate();
            let due = if certificate.not_before > OffsetDateTime::now_utc() {
                // A clock was wrong when it was issued, or is wrong now.
                SystemTime::UNIX_EPOCH
            } else {
                renew_at(&certificate, point)
            };
            let pause = if backoff.is_zero() {
                wire_time::until(due, SystemTime::now()).min(MAX_SLEEP)
            } else {
                backoff.mul_f64(random())
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    if backoff.is_zero() && SystemTime::now() < due {
                        continue;
                    }
                }
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
                    self.problem.send_replace(String::new());
                    // The new chain may lead to a trust anchor that the old one did not lead to.
                    let bundle = roots.borrow_and_update().clone();
                    self.follow_roots(&bundle);
                }
                Err(error) => {
                    let now = OffsetDateTime::now_utc();
                    let certificate = self.credentials.certificate();
                    let longest = if certificate.is_valid_at(now) {
                        MAX_BACKOFF
                    } else {
                        MAX_BACKOFF_INVALID
                    };
                    backoff = (backoff * 2).clamp(FIRST_BACKOFF, longest);
                    let is_refusal = error.is_refusal();
                    let error = brig_types::error::chain(&error);
                    tracing::warn!(error, "the node's certificate was not renewed");
                    let problem = problem(&certificate, now, is_refusal, &error);
                    if self.problem.send_replace(problem.clone()) != problem && !problem.is_empty()
                    {
                        tracing::error!("{problem}");
                    }
                }
            }
        }
    }

    async fn renew(&self) -> Result<(), RenewalError> {
        let key = NodeKey::generate()?;
        let csr = key.csr_pem()?;
        let chain = match self.own_issuer() {
            Some(store) => {
                tracing::warn!(
                    valid_until = %self.credentials.certificate().not_after,
                    "this manager's certificate is not valid now, issuing another one from the cluster's own key"
                );
                own::issue(store, &self.credentials, csr).await.map_err(RenewalError::Own)?
            }
            None => tokio::time::timeout(PATIENCE, self.ask(csr))
                .await
                .map_err(|_| RenewalError::Timeout)??,
        };
        let roots = self.credentials.roots_pem();
        let issued = verify_issued_chain(&roots, &chain, &key)?;
        let key = self.keys.renew(&chain, key)?;
        self.credentials.replace(&roots, &chain, &key)?;
        self.agent.certificates_changed();
        tracing::info!(role = ?issued.role, "the node's certificate was renewed");
        Ok(())
    }

    /// The store, where it is needed: with a certificate that has expired, or that a wrong clock
    /// made for the future, this manager is none to anybody, itself included.
    fn own_issuer(&self) -> Option<&Store> {
        let valid = self.credentials.certificate().is_valid_at(OffsetDateTime::now_utc());
        self.store.as_ref().filter(|_| !valid)
    }

    async fn ask(&self, csr: Vec<u8>) -> Result<Vec<u8>, RenewalError> {
        let avoided = self.disappointing().take();
        let address = self.agent.choose_manager_but(avoided.as_deref());
        let address = address.ok_or(RenewalError::NoManager)?;
        *self.disappointing() = Some(address.clone());
        let credentials = Arc::clone(&self.credentials);
        let (error, failure) = match client::connect(&address, credentials, MANAGER_NAME).await {
            Ok((channel, broken)) => match Self::request(NodeCaClient::new(channel), csr).await {
                Ok(chain) => {
                    self.disappointing().take();
                    return Ok(chain);
                }
                Err(error) => (unwelcome(error, &broken), broken.validity()),
            },
            Err(source) => {
                let failure = tls::validity_failure(&source);
                (RenewalError::Connect(source), failure)
            }
        };
        let Some(failure) = failure else {
            return Err(error);
        };
        match clock::diagnose(&address, &self.credentials, failure).await {
            Some(wrong) if wrong.is_off() => Err(RenewalError::Clock(wrong)),
            // The clocks agree: what the manager said about the certificate says more.
            _ => Err(error),
        }
    }

    fn disappointing(&self) -> MutexGuard<'_, Option<String>> {
        self.disappointing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(mut ca: NodeCaClient<Channel>, csr: Vec<u8>) -> Result<Vec<u8>, RenewalError> {
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
        let key = self.keys.node_key();
        verify_issued_chain(roots, &chain, &key)?;
        self.keys.dir().store_roots(roots)?;
        self.credentials.replace(roots, &chain, &key)?;
        self.agent.certificates_changed();
        tracing::info!("the cluster has a new trust anchor");
        Ok(())
    }
}

/// The alert that says that the certificate is not believed, where there was one. The other texts
/// of broken connections say nothing about it.
fn unwelcome(error: RenewalError, broken: &Broken) -> RenewalError {
    let alert = broken.reason().filter(|reason| reason.contains("fatal alert"));
    match (error, alert) {
        (RenewalError::Refused(_), Some(alert)) => RenewalError::Unwelcome(alert.to_owned()),
        (error, _) => error,
    }
}

/// What to tell an operator after a renewal failed; nothing while the certificate is valid.
fn problem(certificate: &CertInfo, now: OffsetDateTime, refused: bool, reason: &str) -> String {
    if now < certificate.not_before {
        return format!(
            "this node's certificate is not valid before {}, and here it is {}: set this node's clock ({reason})",
            text(certificate.not_before),
            text(now)
        );
    }
    if now <= certificate.not_after {
        return String::new();
    }
    let (since, until) = (text(certificate.not_after), text(admission::grace_end(certificate)));
    if refused {
        return format!(
            "this node's certificate expired on {since}, and the manager does not renew it ({reason}). Expired certificates are renewed by brig's managers, until {until} for this one, and not by Docker's. To get this node back, run \"docker swarm leave\" here, and then \"docker swarm join\" as \"docker swarm join-token worker\" says on a manager"
        );
    }
    if now <= admission::grace_end(certificate) {
        return format!(
            "this node's certificate expired on {since}; it is renewed as soon as a manager is reached, until {until} ({reason})"
        );
    }
    format!(
        "this node's certificate expired on {since} and could be renewed until {until}. To get this node back, run \"docker swarm leave\" here, and then \"docker swarm join\" as \"docker swarm join-token worker\" says on a manager"
    )
}

fn text(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
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

/// The first and the last moment at which a node renews a certificate.
pub(crate) fn window(certificate: &CertInfo) -> (SystemTime, SystemTime) {
    (renew_at(certificate, 0.0), renew_at(certificate, 1.0))
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
    fn an_operator_is_told_what_to_do() {
        let info = issued(MIN_NODE_EXPIRY);
        let day = time::Duration::DAY;
        let at = |now, refused| problem(&info, now, refused, "reason");
        assert_eq!(at(info.not_after, true), "");
        assert!(at(info.not_before - day, false).contains("set this node's clock"));
        let soon = at(info.not_after + time::Duration::HOUR, false);
        assert!(soon.contains("as soon as a manager is reached"), "{soon}");
        for lost in [at(info.not_after + day, false), at(info.not_after + day, true)] {
            assert!(lost.contains("expired on") && lost.contains("docker swarm leave"), "{lost}");
        }
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
