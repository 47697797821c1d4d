//! The way into a cluster: the trust anchor that the join token pins, then a certificate.
//!
//! The anchor comes over a connection that trusts whoever answers, so nothing is said there but
//! the question. Only after its digest was found to be the token's does the node show the token,
//! over a connection whose other end proved to be that cluster's CA.

use std::time::Duration;

use brig_pki::ca;
use brig_pki::csr::NodeKey;
use brig_pki::hash;
use brig_pki::identity::{CertInfo, NodeIdentity, verify_issued_chain};
use brig_pki::tls::Connector;
use brig_pki::token::JoinToken;
use brig_proto::swarm::{
    GetRootCaCertificateRequest, IssueNodeCertificateRequest, NodeCertificateStatusRequest,
    ca_client::CaClient, issuance_status::State as IssuanceState, node_ca_client::NodeCaClient,
    node_spec,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::running::pki;
use crate::error::SwarmError;
use crate::grpc::client::{self, CA_NAME};

/// Longest time until a connection is there, and until a call is answered.
const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts while somebody waits for the outcome, and the pause between two.
const ATTEMPTS: usize = 5;
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Pause before a certificate that is not issued yet is asked for again.
const POLL_DELAY: Duration = Duration::from_millis(500);
/// How far managers date certificates back.
const BACKDATE: Duration = Duration::from_secs(3600);
/// How the id of a cluster with FIPS cryptography begins.
const FIPS_CLUSTER: &str = "FIPS.";

/// What a node was told to join with.
pub(crate) struct Invitation {
    pub(crate) token: JoinToken,
    /// `host:port` of the managers to ask; at least one.
    pub(crate) managers: Vec<String>,
    /// Whether the node takes tasks.
    pub(crate) availability: node_spec::Availability,
}

/// What a node has once it was admitted.
pub(crate) struct Enrolled {
    pub(crate) roots: Vec<u8>,
    pub(crate) chain: Vec<u8>,
    pub(crate) key: NodeKey,
    /// The manager that admitted it.
    pub(crate) manager: String,
}

/// Those who want to know how an enrolment goes.
pub(crate) trait Audience {
    /// Whether somebody waits for the outcome. When nobody does there is no end of trying.
    fn waits(&self) -> bool;
    /// An attempt failed and there will be another one.
    fn tell(&self, problem: &SwarmError);
}

/// The node's request, which survives a failed attempt: a node that was admitted only has to
/// fetch its certificate.
struct Request {
    key: NodeKey,
    csr: Vec<u8>,
    admitted_as: Option<String>,
}

/// Asks the managers in turn until one of them admits this node.
pub(crate) async fn enrol(
    invitation: &Invitation,
    audience: &impl Audience,
) -> Result<Enrolled, SwarmError> {
    let key = NodeKey::generate().map_err(pki("make a node key"))?;
    let csr = key.csr_pem().map_err(pki("make a certificate request"))?;
    let mut request = Request { key, csr, admitted_as: None };
    let mut attempt = 0;
    for manager in invitation.managers.iter().cycle() {
        attempt += 1;
        let error = match attempt_at(manager, invitation, &mut request).await {
            Ok((roots, chain)) => {
                let manager = manager.clone();
                return Ok(Enrolled { roots, chain, key: request.key, manager });
            }
            Err(error) => error,
        };
        if !may_pass(&error) || (attempt >= ATTEMPTS && audience.waits()) {
            return Err(error);
        }
        tracing::warn!(manager, attempt, error = %brig_types::error::chain(&error), "not joined yet");
        audience.tell(&error);
        tokio::time::sleep(RETRY_DELAY).await;
    }
    Err(SwarmError::InvalidArgument("at least 1 RemoteAddr is required to join".to_owned()))
}

/// Answers the cluster's roots and the node's chain.
async fn attempt_at(
    manager: &str,
    invitation: &Invitation,
    request: &mut Request,
) -> Result<(Vec<u8>, Vec<u8>), SwarmError> {
    let roots = fetch_roots(manager, &invitation.token).await?;
    let connector = Connector::anonymous(&roots, CA_NAME).map_err(pki("trust the cluster"))?;
    let (channel, _) = connect(manager, connector).await?;
    let mut ca = NodeCaClient::new(channel);
    let node = match &request.admitted_as {
        Some(node) => node.clone(),
        None => {
            let issue = IssueNodeCertificateRequest {
                csr: request.csr.clone(),
                token: invitation.token.to_secret_string().expose_secret().to_owned(),
                availability: invitation.availability as i32,
                ..IssueNodeCertificateRequest::default()
            };
            let node = call(manager, ca.issue_node_certificate(issue)).await?.node_id;
            request.admitted_as = Some(node.clone());
            node
        }
    };
    let chain = fetch_chain(manager, &mut ca, &node, &request.csr).await?;
    let leaf = CertInfo::from_pem(&chain).map_err(pki("read the issued certificate"))?;
    check_clock(OffsetDateTime::now_utc(), &leaf, Shown::Issued)?;
    let identity = verify_issued_chain(&roots, &chain, &request.key)
        .map_err(pki("use the issued certificate"))?;
    check_identity(&identity, &node)?;
    Ok((roots, chain))
}

async fn fetch_roots(manager: &str, token: &JoinToken) -> Result<Vec<u8>, SwarmError> {
    let connector = Connector::insecure_for_pinned_content(super::address::host(manager))
        .map_err(pki("use the manager's address"))?;
    let (channel, shown) = connect(manager, connector).await?;
    let mut ca = CaClient::new(channel);
    let roots = call(manager, ca.get_root_ca_certificate(GetRootCaCertificateRequest {}))
        .await?
        .certificate;
    if !token.pins(&roots) {
        return Err(SwarmError::Fingerprint { expected: hash::hex(token.digest()) });
    }
    let now = OffsetDateTime::now_utc();
    let root = CertInfo::from_pem(&roots).map_err(pki("read the cluster's root"))?;
    for certificate in std::iter::once(&root).chain(&shown) {
        check_clock(now, certificate, Shown::OfManager)?;
    }
    ca::check_bundle(&roots).map_err(pki("trust the cluster's root"))?;
    Ok(roots)
}

/// Waits until the certificate is issued, as long as the manager keeps answering.
async fn fetch_chain(
    manager: &str,
    ca: &mut NodeCaClient<Channel>,
    node: &str,
    csr: &[u8],
) -> Result<Vec<u8>, SwarmError> {
    loop {
        let request = NodeCertificateStatusRequest { node_id: node.to_owned() };
        let answer = call(manager, ca.node_certificate_status(request)).await?;
        let status = answer.status.unwrap_or_default();
        let certificate = answer.certificate.unwrap_or_default();
        match status.state() {
            IssuanceState::Issued | IssuanceState::Rotate if certificate.csr == csr => {
                return Ok(certificate.certificate);
            }
            IssuanceState::Issued | IssuanceState::Rotate => {
                return Err(SwarmError::BadAnswer("the certificate is for another request"));
            }
            IssuanceState::Failed => {
                let text = format!("the certificate could not be issued: {}", status.err);
                return Err(SwarmError::Rpc(Box::new(Status::failed_precondition(text))));
            }
            IssuanceState::Unknown | IssuanceState::Renew | IssuanceState::Pending => {
                tokio::time::sleep(POLL_DELAY).await;
            }
        }
    }
}

/// The certificate has to make this node what it was admitted as.
fn check_identity(identity: &NodeIdentity, admitted_as: &str) -> Result<(), SwarmError> {
    if identity.node.as_str() != admitted_as {
        return Err(SwarmError::BadAnswer("the certificate names another node"));
    }
    if identity.cluster.starts_with(FIPS_CLUSTER) {
        return Err(SwarmError::FipsRequired);
    }
    Ok(())
}

/// Whose certificate it is that does not fit the clock.
#[derive(Clone, Copy)]
enum Shown {
    /// One the manager has, or its root.
    OfManager,
    /// One it has just made for this node.
    Issued,
}

/// Certificates that are not valid now mean that a clock is wrong, here or there; TLS would only
/// say that it does not trust them.
fn check_clock(now: OffsetDateTime, shown: &CertInfo, whose: Shown) -> Result<(), SwarmError> {
    if shown.is_valid_at(now) {
        return Ok(());
    }
    let (from, until) = (text(shown.not_before), text(shown.not_after));
    let there = match whose {
        Shown::OfManager => {
            format!("the manager's certificate is valid from {from} to {until}")
        }
        Shown::Issued => {
            let then = text(shown.not_before + BACKDATE);
            format!(
                "there it is about {then}: the certificate that the manager just issued is valid from {from} to {until}"
            )
        }
    };
    Err(SwarmError::WrongClock { here: text(now), there })
}

fn text(at: OffsetDateTime) -> String {
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}

async fn connect(
    manager: &str,
    connector: Connector,
) -> Result<(Channel, Option<CertInfo>), SwarmError> {
    tokio::time::timeout(PATIENCE, client::connect_anonymously(manager, connector))
        .await
        .map_err(|_| SwarmError::Unanswered(manager.to_owned()))?
        .map_err(|source| SwarmError::Unreachable { address: manager.to_owned(), source })
}

async fn call<T>(
    manager: &str,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, SwarmError> {
    match tokio::time::timeout(PATIENCE, rpc).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(SwarmError::Rpc(Box::new(status))),
        Err(_) => Err(SwarmError::Unanswered(manager.to_owned())),
    }
}

/// Whether trying again can help.
fn may_pass(error: &SwarmError) -> bool {
    match error {
        SwarmError::Unreachable { .. } | SwarmError::Unanswered(_) => true,
        SwarmError::Rpc(status) => matches!(
            status.code(),
            Code::Unavailable
                | Code::Aborted
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Internal
                | Code::ResourceExhausted
                | Code::Unknown
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
    use brig_pki::token::NodeRole;
    use brig_types::id::NodeId;

    use super::*;

    fn identity(role: NodeRole) -> NodeIdentity {
        NodeIdentity { cluster: "c".to_owned(), role, node: NodeId::generate() }
    }

    #[test]
    fn a_wrong_clock_is_told_with_both_times() {
        let key = NodeKey::generate().unwrap();
        let chain = RootCa::generate()
            .unwrap()
            .issue(&key.csr_pem().unwrap(), &identity(NodeRole::Worker), DEFAULT_NODE_EXPIRY)
            .unwrap();
        let leaf = CertInfo::from_pem(&chain).unwrap();
        let now = OffsetDateTime::now_utc();
        assert!(check_clock(now, &leaf, Shown::Issued).is_ok());
        for wrong in [now - Duration::from_secs(7200), now + Duration::from_secs(91 * 86_400)] {
            for whose in [Shown::Issued, Shown::OfManager] {
                let error = check_clock(wrong, &leaf, whose).unwrap_err();
                assert!(!may_pass(&error));
                let told = error.to_string();
                assert!(told.contains(&text(wrong)) && told.contains(&text(leaf.not_before)));
                assert!(told.contains("clocks"), "{told}");
            }
        }
        let ahead = check_clock(now - Duration::from_secs(7200), &leaf, Shown::Issued);
        let there = text(leaf.not_before + BACKDATE);
        assert!(ahead.unwrap_err().to_string().contains(&format!("about {there}")));
    }

    #[test]
    fn only_nodes_of_ordinary_clusters_are_accepted() {
        let worker = identity(NodeRole::Worker);
        assert!(check_identity(&worker, worker.node.as_str()).is_ok());
        assert!(matches!(
            check_identity(&worker, "another"),
            Err(SwarmError::BadAnswer("the certificate names another node"))
        ));
        let fips = NodeIdentity { cluster: "FIPS.c".to_owned(), ..worker.clone() };
        let refused = check_identity(&fips, fips.node.as_str());
        assert!(matches!(refused, Err(SwarmError::FipsRequired)));
        let manager = identity(NodeRole::Manager);
        assert!(check_identity(&manager, manager.node.as_str()).is_ok());
    }

    #[test]
    fn refusals_end_the_attempts() {
        let rpc = |code| SwarmError::Rpc(Box::new(Status::new(code, "x")));
        assert!(may_pass(&rpc(Code::Aborted)) && may_pass(&rpc(Code::Unavailable)));
        assert!(!may_pass(&rpc(Code::InvalidArgument)) && !may_pass(&rpc(Code::Unimplemented)));
        assert!(!may_pass(&SwarmError::Fingerprint { expected: String::new() }));
        assert_eq!(
            rpc(Code::InvalidArgument).to_string(),
            "rpc error: code = InvalidArgument desc = x"
        );
    }
}
