//! Everything of a cluster that ends at a known time: who has it, when it ends, and whether what
//! should renew it does.
//!
//! Each kind of thing has a [`Source`]; what gets an end of its own one day becomes a row of
//! [`SOURCES`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::admission;
use brig_pki::identity::CertInfo;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::{
    Cluster, JoinTokenLimit, Node, NodeRole, issuance_status::State as IssuanceState,
    node_status::State as NodeState,
};

use crate::grpc::clock::ClockOffset;
use crate::node::renewal_window;
use crate::wire_time;

/// A renewal is overdue this long after the last moment for it: nodes try more than once.
const OVERDUE_AFTER: Duration = Duration::from_secs(5 * 60);

/// What it is that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ExpiryKind {
    /// The certificate that the cluster trusts.
    RootCertificate,
    /// The one that it is going to trust.
    PendingRootCertificate,
    /// A node's certificate.
    NodeCertificate,
    /// A join token with a limit.
    JoinToken,
}

impl ExpiryKind {
    /// Its name, for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RootCertificate => "root-certificate",
            Self::PendingRootCertificate => "pending-root-certificate",
            Self::NodeCertificate => "node-certificate",
            Self::JoinToken => "join-token",
        }
    }
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ExpiryState {
    /// Nothing has to happen yet.
    Ok,
    /// Its node renews it by itself about now.
    Renewing,
    /// Its node is down, so nobody renews it.
    Down,
    /// Its node should have renewed it and has not.
    Overdue,
    /// Its time is over, and its node can still renew it.
    Grace,
    /// It may not be used any more: its time is over.
    Expired,
    /// It may not be used any more: it was used as often as it may be.
    UsedUp,
}

impl ExpiryState {
    /// Its name, for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Renewing => "renewing",
            Self::Down => "down",
            Self::Overdue => "overdue",
            Self::Grace => "grace",
            Self::Expired => "expired",
            Self::UsedUp => "used-up",
        }
    }
}

/// Something that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What it is.
    pub kind: ExpiryKind,
    /// A node's id, a root's digest, a token's role.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The role of the node, or of those that a token lets in.
    pub role: Option<Role>,
    /// When it began.
    pub issued: Option<SystemTime>,
    /// When it ends.
    pub ends: Option<SystemTime>,
    /// Between which times its node renews it.
    pub renews: Option<(SystemTime, SystemTime)>,
    /// How often it may still be used.
    pub uses_left: Option<u32>,
    /// How it stands.
    pub state: ExpiryState,
    /// How far the node's clock is from its manager's, if it is known.
    pub clock: Option<ClockOffset>,
}

impl Expiry {
    fn new(kind: ExpiryKind, id: &str, name: &str) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            name: name.to_owned(),
            role: None,
            issued: None,
            ends: None,
            renews: None,
            uses_left: None,
            state: ExpiryState::Ok,
            clock: None,
        }
    }

    fn certificate(mut self, info: &CertInfo, now: SystemTime) -> Self {
        self.issued = Some(info.not_before.into());
        self.ends = Some(info.not_after.into());
        if SystemTime::from(info.not_after) < now {
            self.state = ExpiryState::Expired;
        }
        self
    }
}

/// What a manager knows.
pub(crate) struct Facts<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) nodes: &'a [Arc<Node>],
    /// The manager's own node, with the certificate that it shows.
    pub(crate) own: (&'a str, &'a CertInfo),
    /// The nodes' clocks.
    pub(crate) clocks: &'a BTreeMap<String, ClockOffset>,
    pub(crate) now: SystemTime,
}

/// Finds what ends among the things of one kind.
type Source = fn(&Facts<'_>) -> Vec<Expiry>;

const SOURCES: [Source; 3] = [roots, nodes, join_tokens];

/// Everything that ends, as a manager knows it.
pub(crate) fn of_cluster(facts: &Facts<'_>) -> Vec<Expiry> {
    SOURCES.iter().flat_map(|source| source(facts)).collect()
}

/// What a worker knows: its certificate and the root that it trusts.
pub(crate) fn of_worker(
    node: &str,
    role: Role,
    own: &CertInfo,
    roots_pem: &[u8],
    clock: Option<ClockOffset>,
    now: SystemTime,
) -> Vec<Expiry> {
    let mut certificate = node_certificate(node, "self", Some(role), Some(own), now);
    certificate.clock = clock;
    root(ExpiryKind::RootCertificate, roots_pem, now).into_iter().chain([certificate]).collect()
}

fn roots(facts: &Facts<'_>) -> Vec<Expiry> {
    let Some(current) = &facts.cluster.root_ca else {
        return Vec::new();
    };
    let pending = current
        .root_rotation
        .as_ref()
        .and_then(|next| root(ExpiryKind::PendingRootCertificate, &next.ca_cert, facts.now));
    root(ExpiryKind::RootCertificate, &current.ca_cert, facts.now)
        .into_iter()
        .chain(pending)
        .collect()
}

/// The root of a bundle that ends first.
fn root(kind: ExpiryKind, bundle: &[u8], now: SystemTime) -> Option<Expiry> {
    let first = CertInfo::all_from_pem(bundle).ok()?.into_iter().min_by_key(|c| c.not_after)?;
    let digest = brig_pki::hash::hex(&brig_pki::hash::sha256(bundle));
    Some(Expiry::new(kind, &format!("sha256:{digest}"), &first.subject).certificate(&first, now))
}

fn nodes(facts: &Facts<'_>) -> Vec<Expiry> {
    let mut found: Vec<Expiry> = facts.nodes.iter().map(|node| of_node(node, facts)).collect();
    found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    found
}

fn of_node(node: &Node, facts: &Facts<'_>) -> Expiry {
    let hostname = node.description.as_ref().map_or("", |description| &description.hostname);
    let given = node.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
    let name = given.map(|given| given.name.as_str()).filter(|name| !name.is_empty());
    let certificate = node.certificate.as_ref();
    let (own, shown) = facts.own;
    // What this manager shows is what counts, whatever was issued since.
    let info = if node.id == own {
        Some(shown.clone())
    } else {
        certificate.and_then(|certificate| CertInfo::from_pem(&certificate.certificate).ok())
    };
    let role = match node.role() {
        NodeRole::Manager => Role::Manager,
        NodeRole::Worker => Role::Worker,
    };
    let mut found =
        node_certificate(&node.id, name.unwrap_or(hostname), Some(role), info.as_ref(), facts.now);
    let issuance = certificate.and_then(|certificate| certificate.status.as_ref());
    let wanted = issuance.is_some_and(|status| {
        matches!(
            status.state(),
            IssuanceState::Renew | IssuanceState::Rotate | IssuanceState::Pending
        )
    });
    if wanted && found.state == ExpiryState::Ok {
        found.state = ExpiryState::Renewing;
    }
    let is_down = node.status.as_ref().is_some_and(|status| status.state() == NodeState::Down);
    if is_down && !matches!(found.state, ExpiryState::Grace | ExpiryState::Expired) {
        found.state = ExpiryState::Down;
    }
    found.clock = facts.clocks.get(&node.id).copied();
    found
}

fn node_certificate(
    id: &str,
    name: &str,
    role: Option<Role>,
    info: Option<&CertInfo>,
    now: SystemTime,
) -> Expiry {
    let mut found = Expiry::new(ExpiryKind::NodeCertificate, id, name);
    found.role = role;
    let Some(info) = info else {
        return found;
    };
    found = found.certificate(info, now);
    let (earliest, latest) = renewal_window(info);
    found.renews = Some((earliest, latest));
    if found.state == ExpiryState::Expired && now <= SystemTime::from(admission::grace_end(info)) {
        found.state = ExpiryState::Grace;
    } else if found.state == ExpiryState::Ok && now >= latest + OVERDUE_AFTER {
        found.state = ExpiryState::Overdue;
    } else if found.state == ExpiryState::Ok && now >= earliest {
        found.state = ExpiryState::Renewing;
    }
    found
}

fn join_tokens(facts: &Facts<'_>) -> Vec<Expiry> {
    let tokens = facts.cluster.root_ca.as_ref().and_then(|root| root.join_tokens.as_ref());
    let Some(tokens) = tokens else {
        return Vec::new();
    };
    [(Role::Worker, tokens.worker_limit.as_ref()), (Role::Manager, tokens.manager_limit.as_ref())]
        .into_iter()
        .filter_map(|(role, limit)| Some(join_token(role, limit?, facts.now)))
        .collect()
}

fn join_token(role: Role, limit: &JoinTokenLimit, now: SystemTime) -> Expiry {
    let name = match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let ends = limit.expires_at.as_ref().map(|end| wire_time::instant(Some(end)));
    let state = match (ends, limit.uses_left) {
        (_, Some(0)) => ExpiryState::UsedUp,
        (Some(end), _) if end <= now => ExpiryState::Expired,
        _ => ExpiryState::Ok,
    };
    Expiry {
        role: Some(role),
        ends,
        uses_left: limit.uses_left,
        state,
        ..Expiry::new(ExpiryKind::JoinToken, name, name)
    }
}

#[cfg(test)]
mod tests {
    use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
    use brig_pki::csr::NodeKey;
    use brig_pki::identity::NodeIdentity;
    use brig_proto::swarm::{
        Certificate, IssuanceStatus, JoinTokens, NodeDescription, NodeStatus, RootCa as RootObject,
        RootRotation,
    };
    use brig_types::id::NodeId;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn chain(root: &RootCa, node: &NodeId) -> Vec<u8> {
        let csr = NodeKey::generate().unwrap().csr_pem().unwrap();
        let who = NodeIdentity { cluster: "c".into(), role: Role::Worker, node: node.clone() };
        root.issue(&csr, &who, DEFAULT_NODE_EXPIRY).unwrap()
    }

    fn node(root: &RootCa, hostname: &str, issuance: IssuanceState, state: NodeState) -> Arc<Node> {
        let id = NodeId::generate();
        Arc::new(Node {
            id: id.to_string(),
            description: Some(NodeDescription {
                hostname: hostname.into(),
                ..NodeDescription::default()
            }),
            status: Some(NodeStatus { state: state as i32, ..NodeStatus::default() }),
            certificate: Some(Certificate {
                certificate: chain(root, &id),
                status: Some(IssuanceStatus { state: issuance as i32, err: String::new() }),
                ..Certificate::default()
            }),
            ..Node::default()
        })
    }

    fn look(
        cluster: &Cluster,
        nodes: &[Arc<Node>],
        own: (&str, &CertInfo),
        now: SystemTime,
    ) -> Vec<Expiry> {
        of_cluster(&Facts { cluster, nodes, own, clocks: &BTreeMap::new(), now })
    }

    #[test]
    fn certificates_go_from_ok_to_expired() {
        let root = RootCa::generate().unwrap();
        let up = node(&root, "a", IssuanceState::Issued, NodeState::Ready);
        let down = node(&root, "b", IssuanceState::Issued, NodeState::Down);
        let asked = node(&root, "c", IssuanceState::Rotate, NodeState::Ready);
        let shown = CertInfo::from_pem(&chain(&root, &NodeId::generate())).unwrap();
        let nodes = [Arc::clone(&asked), Arc::clone(&down), Arc::clone(&up)];
        let now = SystemTime::now();
        for (days, states) in [
            (0, ["ok", "down", "renewing"]),
            (46, ["renewing", "down", "renewing"]),
            (73, ["overdue", "down", "overdue"]),
            (91, ["grace", "grace", "grace"]),
            (121, ["expired", "expired", "expired"]),
        ] {
            let found = look(&Cluster::default(), &nodes, ("none", &shown), now + DAY * days);
            let names: Vec<_> = found.iter().map(|e| e.name.as_str()).collect();
            assert_eq!(names, ["a", "b", "c"], "by name");
            assert_eq!(
                found.iter().map(|e| e.state.as_str()).collect::<Vec<_>>(),
                states,
                "{days}"
            );
        }
        let (from, until) =
            look(&Cluster::default(), &nodes, ("none", &shown), now)[0].renews.unwrap();
        assert_eq!(until.duration_since(from).unwrap().as_secs() / 86_400, 27);
    }

    #[test]
    fn the_managers_own_certificate_is_the_one_that_it_shows() {
        let root = RootCa::generate().unwrap();
        let own = node(&root, "a", IssuanceState::Issued, NodeState::Ready);
        let mut shown = CertInfo::from_pem(&chain(&root, &NodeId::generate())).unwrap();
        shown.not_after -= time::Duration::days(200);
        let found =
            look(&Cluster::default(), &[Arc::clone(&own)], (&own.id, &shown), SystemTime::now());
        assert_eq!(found[0].state, ExpiryState::Expired);
    }

    #[test]
    fn both_roots_and_limited_tokens_are_there() {
        let (current, next) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
        let now = SystemTime::now();
        let limit = |days: u32, uses_left| {
            Some(JoinTokenLimit {
                expires_at: (days > 0).then(|| wire_time::timestamp(now + DAY * days)),
                uses_left,
            })
        };
        let mut cluster = Cluster {
            root_ca: Some(RootObject {
                ca_cert: current.cert_pem().to_vec(),
                root_rotation: Some(RootRotation {
                    ca_cert: next.cert_pem().to_vec(),
                    ..RootRotation::default()
                }),
                join_tokens: Some(JoinTokens {
                    worker_limit: limit(2, Some(3)),
                    ..JoinTokens::default()
                }),
                ..RootObject::default()
            }),
            ..Cluster::default()
        };
        let shown = CertInfo::from_pem(current.cert_pem()).unwrap();
        let see = |cluster: &Cluster, days: u32| -> Vec<_> {
            look(cluster, &[], ("none", &shown), now + DAY * days)
                .into_iter()
                .map(|e| (e.kind.as_str(), e.name, e.state.as_str()))
                .collect()
        };
        let root = |kind, state| (kind, "CN=swarm-ca".to_owned(), state);
        let mut expected = vec![
            root("root-certificate", "ok"),
            root("pending-root-certificate", "ok"),
            ("join-token", "worker".to_owned(), "ok"),
        ];
        assert_eq!(see(&cluster, 0), expected);
        expected[2].2 = "expired";
        assert_eq!(see(&cluster, 3), expected);
        cluster.root_ca.as_mut().unwrap().join_tokens.as_mut().unwrap().worker_limit =
            limit(0, Some(0));
        expected[2].2 = "used-up";
        assert_eq!(see(&cluster, 0), expected);
        assert_eq!(see(&cluster, 365 * 20 + 10)[0].2, "expired");
        cluster.root_ca.as_mut().unwrap().join_tokens = Some(JoinTokens::default());
        assert_eq!(see(&cluster, 0).len(), 2, "a token without an end is not listed");
    }
}
