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

/// What a caller's certificate has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Valid now.
    Now,
    /// Valid now, or expired but still good for its own renewal.
    Renewable,
}

/// The rule of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Who may call it.
    pub access: Access,
    /// With what certificate, if they show one.
    pub validity: Validity,
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
const OWN_PACKAGE: &str = "/brig.v1.";

const ANYONE: Rule = Rule { access: Access::Anyone, validity: Validity::Now };
const RENEWAL: Rule = Rule { access: Access::Anyone, validity: Validity::Renewable };
const NODES: Rule = Rule { access: Access::Nodes, validity: Validity::Now };
const MANAGERS: Rule = Rule { access: Access::Managers, validity: Validity::Now };

const TABLE: [(&str, Rule); 16] = [
    ("CA/GetRootCACertificate", ANYONE),
    ("CA/GetUnlockKey", MANAGERS),
    ("NodeCA/IssueNodeCertificate", RENEWAL),
    ("NodeCA/NodeCertificateStatus", RENEWAL),
    ("Dispatcher/Session", NODES),
    ("Dispatcher/Heartbeat", NODES),
    ("Dispatcher/UpdateTaskStatus", NODES),
    ("Dispatcher/UpdateVolumeStatus", NODES),
    ("Dispatcher/Tasks", NODES),
    ("Dispatcher/Assignments", NODES),
    ("LogBroker/ListenSubscriptions", NODES),
    ("LogBroker/PublishLogs", NODES),
    ("ResourceAllocator/AttachNetwork", NODES),
    ("ResourceAllocator/DetachNetwork", NODES),
    ("Logs/SubscribeLogs", MANAGERS),
    ("Health/Check", MANAGERS),
];

const OWN_TABLE: [(&str, Rule); 7] = [
    ("Managers/Join", MANAGERS),
    ("Managers/AdoptKeys", MANAGERS),
    ("ScanDatabases/Current", NODES),
    ("ScanDatabases/Fetch", NODES),
    ("Admission/Facts", NODES),
    ("Inventories/Announce", NODES),
    ("Inventories/Send", NODES),
];

/// The rule of the method with this path (`/docker.swarmkit.v1.Service/Method`, or
/// `/brig.v1.Service/Method`); `None` for a method that is not known, which nobody may call. What
/// managers offer to nobody but the daemon they run in (`Control`, `Watch`) and what Docker's
/// managers keep their own store with (`Raft`, `RaftMembership`) is not known here.
#[must_use]
pub fn rule(path: &str) -> Option<Rule> {
    if let Some(method) = path.strip_prefix(OWN_PACKAGE) {
        return OWN_TABLE.iter().find(|(name, _)| *name == method).map(|(_, rule)| *rule);
    }
    let method = path.strip_prefix(PACKAGE)?;
    TABLE.iter().find(|(name, _)| *name == method).map(|(_, rule)| *rule)
}
