//! One session with a manager: everything that has to run while it lasts. Whatever breaks, the
//! whole session is given up and made anew.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::identity::CertInfo;
use brig_pki::tls;
use brig_proto::swarm::{
    AssignmentsRequest, HeartbeatRequest, NodeDescription, NodeTlsInfo, SessionMessage,
    SessionRequest, dispatcher_client::DispatcherClient, log_broker_client::LogBrokerClient,
};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::{Shared, inventories, log_subscriptions};
use crate::grpc::client::{self, MANAGER_NAME};
use crate::grpc::clock::{self, WrongClock};
use crate::wire_time;

/// How long the first message of a session may take, and every short call.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least that a heartbeat may take.
const MIN_HEARTBEAT_PATIENCE: Duration = Duration::from_secs(2);
/// How often the node's description is looked at.
const DESCRIBE_EVERY: Duration = Duration::from_secs(20);
/// A manager that asks for no pause at all between heartbeats gets this one.
const MIN_PERIOD: Duration = Duration::from_millis(100);
/// Assignments carry secrets and configs, so they can be large.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// There is no manager to ask.
    #[error("no manager is known")]
    NoManager,
    /// The connection could not be made.
    #[error("cannot connect to manager {address}")]
    Connect {
        /// The manager.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A call failed, or a stream ended.
    #[error("manager: {}", .0.message())]
    Rpc(Status),
    /// A certificate is not valid now, by one of the two clocks.
    #[error(transparent)]
    Clock(WrongClock),
    /// The manager is too slow.
    #[error("the manager does not answer")]
    Timeout,
    /// This node is described differently now; a new session tells the manager.
    #[error("the node's description changed")]
    Described,
    /// The node has another certificate now; a new connection shows it, and this one ends with
    /// the old one.
    #[error("the node's certificate was replaced")]
    Renewed,
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        Self::Rpc(status)
    }
}

/// Runs one session to its end; it always ends with a reason. `id` carries the session's id from
/// one session to the next, `opened` is called once it stands.
pub(crate) async fn run(
    shared: &Shared,
    address: &str,
    id: &mut String,
    opened: impl FnOnce(),
) -> SessionError {
    let credentials = Arc::clone(&shared.credentials);
    let chain = credentials.chain_pem();
    let (reason, failure) = match client::connect(address, credentials, MANAGER_NAME).await {
        Ok((channel, broken)) => {
            match session(shared, address, channel, &chain, id, opened).await {
                Ok(never) => match never {},
                Err(reason) => (reason, broken.validity()),
            }
        }
        Err(source) => {
            let failure = tls::validity_failure(&source);
            (SessionError::Connect { address: address.to_owned(), source }, failure)
        }
    };
    let Some(failure) = failure else {
        return reason;
    };
    let wrong = clock::diagnose(address, &shared.credentials, failure).await;
    wrong.map_or(reason, SessionError::Clock)
}

async fn session(
    shared: &Shared,
    address: &str,
    channel: Channel,
    chain: &[u8],
    id: &mut String,
    opened: impl FnOnce(),
) -> Result<std::convert::Infallible, SessionError> {
    let mut dispatcher =
        DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let description = describe(shared).await;
    let request = SessionRequest { description: Some(description.clone()), session_id: id.clone() };
    let first = async {
        let mut messages = dispatcher.session(request).await?.into_inner();
        let first = messages.message().await?;
        let first = first.ok_or_else(|| Status::unavailable("the session ended at once"))?;
        Ok::<_, Status>((first, messages))
    };
    let (first, messages) =
        tokio::time::timeout(PATIENCE, first).await.map_err(|_| SessionError::Timeout)??;
    id.clone_from(&first.session_id);
    // Whoever waits for the session finds what the manager said.
    take(shared, first).await;
    opened();
    shared.context.reporter.report_all();
    let node = shared.credentials.identity().node.to_string();
    let logs = log_subscriptions::run(
        LogBrokerClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        Arc::clone(&shared.worker),
        node,
    );
    let inventories = inventories::run(shared, address, channel);
    Err(tokio::select! {
        never = inventories => match never {},
        reason = listen(shared, messages) => reason,
        reason = heartbeats(shared, address, dispatcher.clone(), id) => reason,
        reason = assignments(shared, dispatcher.clone(), id) => reason,
        status = shared.context.reporter.run(dispatcher.clone(), id) => status.into(),
        status = logs => status.into(),
        reason = watch_description(shared, &description, chain) => reason,
    })
}

/// Follows what the manager says about this node, itself and the trust anchor.
async fn listen(shared: &Shared, mut messages: Streaming<SessionMessage>) -> SessionError {
    loop {
        match messages.message().await {
            Ok(Some(message)) => take(shared, message).await,
            Ok(None) => return Status::unavailable("the manager ended the session").into(),
            Err(status) => return status.into(),
        }
    }
}

async fn take(shared: &Shared, message: SessionMessage) {
    shared.update_managers(&message.managers).await;
    if !message.root_ca.is_empty() {
        shared.roots.send_if_modified(|roots| replace_if_other(roots, message.root_ca));
    }
    if let Some(node) = message.node {
        let before = shared.node.borrow().clone();
        let same = before.as_ref().is_some_and(|before| {
            let stable = |node: &brig_proto::swarm::Node| brig_proto::swarm::Node {
                meta: None,
                status: None,
                ..node.clone()
            };
            stable(before) == stable(&node)
        });
        if !same {
            shared.context.executor.configure(&node).await;
        }
        shared.node.send_replace(Some(node));
    }
}

fn replace_if_other(current: &mut Vec<u8>, new: Vec<u8>) -> bool {
    let other = *current != new;
    if other {
        *current = new;
    }
    other
}

async fn heartbeats(
    shared: &Shared,
    manager: &str,
    mut dispatcher: DispatcherClient<Channel>,
    session: &str,
) -> SessionError {
    let mut patience = PATIENCE;
    loop {
        let mut request = tonic::Request::new(HeartbeatRequest { session_id: session.to_owned() });
        clock::stamp(request.metadata_mut());
        let sent = SystemTime::now();
        let answer = tokio::time::timeout(patience, dispatcher.heartbeat(request)).await;
        let period = match answer {
            Ok(Ok(answer)) => {
                if let Some(there) = clock::read(answer.metadata()) {
                    shared.see_clock(manager, there, sent);
                }
                answer.into_inner().period
            }
            Ok(Err(status)) => return status.into(),
            Err(_) => return SessionError::Timeout,
        };
        let period = wire_time::duration(period.as_ref(), MIN_PERIOD).max(MIN_PERIOD);
        // There has to be time to find another manager before this node is missed.
        patience = (period * 3 / 2).clamp(MIN_HEARTBEAT_PATIENCE, PATIENCE);
        tokio::time::sleep(period).await;
    }
}

async fn assignments(
    shared: &Shared,
    mut dispatcher: DispatcherClient<Channel>,
    session: &str,
) -> SessionError {
    loop {
        let request = AssignmentsRequest { session_id: session.to_owned() };
        let mut stream = match dispatcher.assignments(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status.into(),
        };
        let mut applied = String::new();
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Status::unavailable("the manager ended the assignments").into(),
                Err(status) => return status.into(),
            };
            // The first message counts whatever it applies to.
            let missed = !applied.is_empty() && message.applies_to != applied;
            applied.clone_from(&message.results_in);
            shared.worker.apply(message);
            if missed {
                tracing::warn!("an assignment was missed, asking for all of them");
                break;
            }
        }
    }
}

async fn watch_description(shared: &Shared, told: &NodeDescription, chain: &[u8]) -> SessionError {
    let mut certificates = shared.certificates.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(DESCRIBE_EVERY) => {}
            changed = certificates.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
        }
        if shared.credentials.chain_pem() != chain {
            return SessionError::Renewed;
        }
        if describe(shared).await != *told {
            return SessionError::Described;
        }
    }
}

/// What this node is, with the certificates it has and trusts.
async fn describe(shared: &Shared) -> NodeDescription {
    let mut description = shared.context.executor.describe().await;
    let chain = shared.credentials.chain_pem();
    let roots = shared.credentials.roots_pem();
    let (subject, public_key) = match CertInfo::of_issuer(&chain, &roots) {
        Ok(issuer) => (issuer.subject_der, issuer.public_key_der),
        // Of a root that is no longer trusted: only its name is known.
        Err(_) => (shared.credentials.certificate().issuer_der, Vec::new()),
    };
    description.tls_info = Some(NodeTlsInfo {
        trust_root: roots,
        cert_issuer_subject: subject,
        cert_issuer_public_key: public_key,
    });
    description
}

/// Tells that the node's certificate or roots were replaced.
pub(crate) fn certificates_changed(certificates: &watch::Sender<u64>) {
    certificates.send_modify(|count| *count += 1);
}
