//! Which certificate roles may call which method.
//!
//! SwarmKit attaches this to its methods as an option that never travels on the wire; here it is
//! a table that the server's one authorisation layer asks.

/// Organisational unit of a worker's node certificate.
pub const WORKER_OU: &str = "swarm-worker";
/// Organisational unit of a manager's node certificate.
pub const MANAGER_OU: &str = "swarm-manager";

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, with or without a certificate: the handler decides.
    Anyone,
    /// Nodes of the cluster, workers and managers.
    Nodes,
    /// Managers of the cluster.
    Managers,
}

impl Access {
    /// The certificate roles (OUs) that are let through; empty for [`Access::Anyone`].
    #[must_use]
    pub const fn organizational_units(self) -> &'static [&'static str] {
        match self {
            Self::Anyone => &[],
            Self::Nodes => &[WORKER_OU, MANAGER_OU],
            Self::Managers => &[MANAGER_OU],
        }
    }
}

const PACKAGE: &str = "/docker.swarmkit.v1.";

const TABLE: [(&str, Access); 16] = [
    ("CA/GetRootCACertificate", Access::Anyone),
    ("CA/GetUnlockKey", Access::Managers),
    ("NodeCA/IssueNodeCertificate", Access::Anyone),
    ("NodeCA/NodeCertificateStatus", Access::Anyone),
    ("Dispatcher/Session", Access::Nodes),
    ("Dispatcher/Heartbeat", Access::Nodes),
    ("Dispatcher/UpdateTaskStatus", Access::Nodes),
    ("Dispatcher/UpdateVolumeStatus", Access::Nodes),
    ("Dispatcher/Tasks", Access::Nodes),
    ("Dispatcher/Assignments", Access::Nodes),
    ("LogBroker/ListenSubscriptions", Access::Nodes),
    ("LogBroker/PublishLogs", Access::Nodes),
    ("ResourceAllocator/AttachNetwork", Access::Nodes),
    ("ResourceAllocator/DetachNetwork", Access::Nodes),
    ("Logs/SubscribeLogs", Access::Managers),
    ("Health/Check", Access::Managers),
];

/// Who may call the method with this path (`/docker.swarmkit.v1.Service/Method`); `None` for a
/// method that is not known, which nobody may call.
#[must_use]
pub fn access(path: &str) -> Option<Access> {
    let method = path.strip_prefix(PACKAGE)?;
    TABLE.iter().find(|(name, _)| *name == method).map(|(_, access)| *access)
}
