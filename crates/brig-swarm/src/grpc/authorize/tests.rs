//! The decision table.

use std::collections::BTreeMap;

use brig_pki::admission::{Fingerprint, Root};
use brig_pki::ca::RootCa;
use brig_pki::csr::NodeKey;
use brig_pki::identity::NodeIdentity;
use time::Duration;

use super::*;

/// A cluster whose nodes all have the certificate that they show.
#[derive(Debug, Default)]
struct Cluster(BTreeMap<NodeId, NodeRole>);

impl IssuedRegister for Cluster {
    fn holds(&self, node: &NodeId, _: &Fingerprint) -> bool {
        self.0.contains_key(node)
    }
}

impl Membership for Cluster {
    fn cluster(&self) -> &str {
        "here"
    }

    fn role(&self, node: &NodeId) -> Option<NodeRole> {
        self.0.get(node).copied()
    }

    fn seen(&self, _: &Peer) {}
}

fn shown(cluster: &str, role: NodeRole) -> Shown {
    let key = NodeKey::generate().unwrap();
    let identity = NodeIdentity { cluster: cluster.to_owned(), role, node: NodeId::generate() };
    let chain = RootCa::generate()
        .unwrap()
        .issue(&key.csr_pem().unwrap(), &identity, brig_pki::ca::DEFAULT_NODE_EXPIRY)
        .unwrap();
    Shown::new(Peer::from_pem(&chain).unwrap(), Root::Present)
}

impl Cluster {
    fn with(mut self, shown: &Shown, role: NodeRole) -> Self {
        self.0.insert(shown.peer.identity.node.clone(), role);
        self
    }

    fn asks(&self, path: &str, shown: Option<&Shown>) -> Result<Decision, No> {
        decide(path, shown, self, OffsetDateTime::now_utc())
    }

    fn refuses(&self, path: &str, shown: Option<&Shown>) -> String {
        match self.asks(path, shown) {
            Err(No::Denied(denied)) => {
                let status = Status::from(denied);
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                status.message().to_owned()
            }
            other => panic!("{path}: {other:?}"),
        }
    }
}

const SESSION: &str = "/docker.swarmkit.v1.Dispatcher/Session";
const ISSUE: &str = "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate";
const UNLOCK: &str = "/docker.swarmkit.v1.CA/GetUnlockKey";

#[test]
fn roles_decide() {
    let worker = shown("here", NodeRole::Worker);
    let manager = shown("here", NodeRole::Manager);
    let cluster =
        Cluster::default().with(&worker, NodeRole::Worker).with(&manager, NodeRole::Manager);
    for node in [&worker, &manager] {
        match cluster.asks(SESSION, Some(node)) {
            Ok(Decision::Caller(caller)) => assert_eq!(caller.node, node.peer.identity.node),
            other => panic!("{other:?}"),
        }
    }
    assert!(cluster.asks(UNLOCK, Some(&manager)).is_ok());
    assert!(cluster.refuses(UNLOCK, Some(&worker)).ends_with("not part of OUs: [swarm-manager]"));
    let demoted = Cluster::default().with(&manager, NodeRole::Worker);
    assert!(demoted.refuses(UNLOCK, Some(&manager)).ends_with("was demoted"));
    assert!(demoted.asks(SESSION, Some(&manager)).is_ok(), "it is a worker");
    // A role that the certificate does not have is not there yet.
    let promoted = Cluster::default().with(&worker, NodeRole::Manager);
    promoted.refuses(UNLOCK, Some(&worker));
}

#[test]
fn strangers_and_removed_nodes_are_nobody() {
    let stranger = shown("elsewhere", NodeRole::Manager);
    let removed = shown("here", NodeRole::Worker);
    let cluster = Cluster::default().with(&stranger, NodeRole::Manager);
    let cases = [
        (None, "no client certificates in request"),
        (Some(&stranger), "not part of organization: here"),
        (Some(&removed), "was removed from swarm"),
    ];
    for (certificate, reason) in cases {
        let refused = cluster.refuses(SESSION, certificate);
        assert!(refused.contains(reason), "{refused}");
        let nobody = cluster.asks(ISSUE, certificate);
        assert!(matches!(nobody, Ok(Decision::Nobody(_))), "{nobody:?}");
    }
}

#[test]
fn an_expired_certificate_can_be_renewed_and_nothing_else() {
    let worker = shown("here", NodeRole::Worker);
    let cluster = Cluster::default().with(&worker, NodeRole::Worker);
    let at = worker.peer.certificate.not_after + Duration::DAY;
    assert!(matches!(decide(ISSUE, Some(&worker), &cluster, at), Ok(Decision::Caller(_))));
    assert!(matches!(
        decide(SESSION, Some(&worker), &cluster, at),
        Err(No::Denied(Denied::Expired(_)))
    ));
    let later = at + Duration::days(30);
    for method in [ISSUE, SESSION] {
        match decide(method, Some(&worker), &cluster, later) {
            Ok(Decision::Nobody(Denied::Refused(Refusal::GraceOver { .. })))
            | Err(No::Denied(Denied::Refused(Refusal::GraceOver { .. }))) => {}
            other => panic!("{method}: {other:?}"),
        }
    }
}

#[test]
fn unknown_methods_are_not_there() {
    let manager = shown("here", NodeRole::Manager);
    let cluster = Cluster::default().with(&manager, NodeRole::Manager);
    let refused = cluster.asks("/docker.swarmkit.v1.Control/GetNode", Some(&manager));
    assert_eq!(refused, Err(No::Unknown));
}
