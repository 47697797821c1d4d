//! What can go wrong with the cluster, from the caller's point of view.
//!
//! The texts are those of Docker Engine, because scripts and clients match on them.

use brig_types::error::{Categorized, ErrorKind};

/// A call to the cluster's control side that failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such object.
    #[error("{kind} {reference} not found")]
    NotFound {
        /// What was looked for: `service`, `task`, `node`, `secret`, `config`, `network`.
        kind: &'static str,
        /// How the caller named it.
        reference: String,
    },
    /// A name or an id prefix fits several objects.
    #[error("{kind} {reference} is ambiguous ({matches} matches found)")]
    Ambiguous {
        /// What was looked for.
        kind: &'static str,
        /// How the caller named it.
        reference: String,
        /// How many objects fit.
        matches: usize,
    },
    /// The request is wrong.
    #[error("rpc error: code = InvalidArgument desc = {0}")]
    InvalidArgument(String),
    /// The name is taken.
    #[error(
        "rpc error: code = AlreadyExists desc = {}{kind} {name} already exists",
        conflict(kind)
    )]
    AlreadyExists {
        /// The kind of object.
        kind: &'static str,
        /// The name that is taken.
        name: String,
    },
    /// The state of the cluster does not allow it.
    #[error("rpc error: code = FailedPrecondition desc = {0}")]
    FailedPrecondition(String),
    /// The object changed since the caller read it.
    #[error("rpc error: code = Unknown desc = update out of sequence")]
    OutOfSequence,
    /// The change is one that SwarmKit's protocol does not know.
    #[error("rpc error: code = Unimplemented desc = {0}")]
    Unsupported(String),
    /// The feature is not there.
    #[error("{0}")]
    NotImplemented(String),
    /// A network that is part of every node.
    #[error("{name} is a pre-defined network and cannot be removed")]
    Predefined {
        /// The network.
        name: String,
    },
    /// Too few managers are there.
    #[error(transparent)]
    NoQuorum(brig_store::StoreError),
    /// The node stopped being a manager, or its daemon stops, while the request was under way.
    #[error(
        "This node is not a swarm manager. It stopped being one while the request was under way, and nothing was changed. Please run this command on a manager node or promote the current node to a manager."
    )]
    NotManagerAnyMore,
    /// The cluster's store did not take the change.
    #[error("the cluster's store failed")]
    Store(#[source] brig_store::StoreError),
    /// The settings are changed, but this manager's keys do not follow yet.
    #[error(
        "the change is stored, but this manager's keys were not wrapped with the new key yet, which is tried again: until then the key before it unlocks this manager"
    )]
    Keys(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot be told which keys are in use.
    #[error("the store's data keys cannot be looked at")]
    KeyStatus(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Keys or tokens could not be made.
    #[error("the cluster's certificate authority failed")]
    Pki(#[source] brig_pki::PkiError),
}

/// What Docker says before the name of some kinds of objects.
fn conflict(kind: &str) -> &'static str {
    match kind {
        "secret" | "config" => "",
        _ => "name conflicts with an existing object: ",
    }
}

impl Categorized for ControlError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } | Self::InvalidArgument(_) | Self::FailedPrecondition(_) => {
                ErrorKind::InvalidParameter
            }
            Self::AlreadyExists { .. } => ErrorKind::Conflict,
            Self::Unsupported(_) | Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::Predefined { .. } => ErrorKind::Forbidden,
            Self::NoQuorum(_) | Self::NotManagerAnyMore => ErrorKind::Unavailable,
            Self::Store(source) => match source.kind() {
                ErrorKind::Unavailable => ErrorKind::Unavailable,
                _ => ErrorKind::System,
            },
            Self::OutOfSequence | Self::Keys(_) | Self::KeyStatus(_) | Self::Pki(_) => {
                ErrorKind::System
            }
        }
    }
}

/// A change of this node's membership, or a question that only some nodes can answer, that failed.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The node is in no swarm.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NotInSwarm,
    /// The node is in no swarm that it could leave.
    #[error("This node is not part of a swarm")]
    NotPartOfSwarm,
    /// The node's swarm cannot be taken up.
    #[error("this node's swarm cannot be taken up")]
    Unusable(#[source] std::sync::Arc<SwarmError>),
    /// The node is a manager whose keys need the unlock key.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it."
    )]
    Locked,
    /// A locked manager would leave.
    #[error(
        "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
    )]
    LeaveLocked,
    /// Nothing is to be unlocked.
    #[error("swarm is not locked")]
    NotLocked,
    /// The unlock key does not parse.
    #[error("invalid key string")]
    BadUnlockKey,
    /// The unlock key is another one.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongUnlockKey,
    /// The node is a worker.
    #[error(
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
    )]
    NotManager,
    /// The node is in a swarm already.
    #[error(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    )]
    AlreadyInSwarm,
    /// The join token is none.
    #[error("invalid join token")]
    InvalidJoinToken,
    /// The cluster takes nodes with FIPS cryptography only.
    #[error("node is not FIPS-enabled but cluster requires FIPS")]
    FipsRequired,
    /// The manager that answered has other roots than the join token pins: another cluster, or
    /// somebody in between. Nothing was sent to it.
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    Fingerprint {
        /// SHA-256 of the roots that the token pins, hexadecimal.
        expected: String,
    },
    /// The clocks of the node and the manager are too far apart for certificates to work.
    #[error(
        "the clocks of this node and of the manager disagree: here it is {here}, but {there}. Set the clock that is wrong and join again"
    )]
    WrongClock {
        /// The time of this node.
        here: String,
        /// What the manager's certificates say about its time.
        there: String,
    },
    /// No connection to the manager.
    #[error("cannot connect to manager {address}")]
    Unreachable {
        /// The manager.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The manager does not answer in time.
    #[error("manager {0} does not answer")]
    Unanswered(String),
    /// The manager refused, or failed.
    #[error("rpc error: code = {:?} desc = {}", .0.code(), .0.message())]
    Rpc(Box<tonic::Status>),
    /// The manager's answer cannot be used.
    #[error("the manager's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The node has no membership yet; it goes on trying.
    #[error(
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node."
    )]
    JoinTimeout,
    /// The node left, or the daemon stopped, before the node had joined.
    #[error("joining the swarm was stopped before it was done")]
    JoinStopped,
    /// The last manager would leave.
    #[error(
        "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
    )]
    LeaveManager,
    /// One of several managers would leave.
    #[error(
        "You are attempting to leave the swarm on a node that is participating as a manager. {0}The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."
    )]
    LeaveOneOfManagers(String),
    /// The request is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// The feature is not there.
    #[error("{0}")]
    NotImplemented(String),
    /// The files of the node's membership are damaged; nothing was changed.
    #[error("the swarm state in {directory} is damaged: {problem}")]
    Damaged {
        /// The swarm's directory.
        directory: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The listen address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Keys or certificates could not be made or read.
    #[error("cannot {action}")]
    Pki {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: brig_pki::PkiError,
    },
    /// The external authority that the swarm was to begin with did not sign.
    #[error(
        "the external CA did not sign this node's certificate. It is asked without a client certificate, because the first node has none yet; for a CA that demands one make the swarm without --external-ca, and move it with \"docker swarm ca --rotate --ca-cert FILE --external-ca ...\""
    )]
    ExternalCa(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The restored cluster did not give this node a certificate.
    #[error("the restored cluster's authority did not sign this node's certificate")]
    Restore(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The node was admitted, but no manager took it into the store.
    #[error(
        "node {node} was admitted but did not become a manager; before the next attempt run \"docker node demote {node}\" and \"docker node rm --force {node}\" on a manager"
    )]
    NotAManager {
        /// The node's id.
        node: String,
        /// Why.
        #[source]
        source: Box<SwarmError>,
    },
    /// The replicated store cannot be set up or reached.
    #[error("the replicated store: {0}")]
    Etcd(String),
    /// The other managers took this one's member out of the replicated store.
    #[error("the other managers took this node out of the replicated store")]
    NotAMember,
    /// The cluster's store cannot be used.
    #[error("the cluster's store failed")]
    Store(#[source] brig_store::StoreError),
    /// The cluster's objects could not be changed.
    #[error("the cluster could not be set up")]
    Control(#[source] Box<ControlError>),
}

impl Categorized for SwarmError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotInSwarm
            | Self::NotPartOfSwarm
            | Self::Unusable(_)
            | Self::NotManager
            | Self::Locked
            | Self::LeaveLocked
            | Self::AlreadyInSwarm
            | Self::LeaveManager
            | Self::LeaveOneOfManagers(_)
            | Self::Unreachable { .. }
            | Self::Unanswered(_)
            | Self::ExternalCa(_)
            | Self::Etcd(_)
            | Self::NotAMember
            | Self::JoinTimeout
            | Self::JoinStopped => ErrorKind::Unavailable,
            Self::NotLocked => ErrorKind::Conflict,
            Self::WrongUnlockKey => ErrorKind::Unauthorized,
            Self::InvalidArgument(_)
            | Self::BadUnlockKey
            | Self::InvalidJoinToken
            | Self::FipsRequired
            | Self::Fingerprint { .. } => ErrorKind::InvalidParameter,
            Self::Rpc(status) => match status.code() {
                tonic::Code::InvalidArgument => ErrorKind::InvalidParameter,
                tonic::Code::PermissionDenied => ErrorKind::Forbidden,
                tonic::Code::Unimplemented => ErrorKind::NotImplemented,
                tonic::Code::Unavailable => ErrorKind::Unavailable,
                _ => ErrorKind::System,
            },
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::Control(source) => source.kind(),
            Self::NotAManager { source, .. } => source.kind(),
            Self::WrongClock { .. }
            | Self::BadAnswer(_)
            | Self::Damaged { .. }
            | Self::File { .. }
            | Self::Listen { .. }
            | Self::Pki { .. }
            | Self::Restore(_)
            | Self::Store(_) => ErrorKind::System,
        }
    }
}
