//! Who may talk to a manager: certificates of every kind against a real listener.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod authority;
#[path = "../common/mod.rs"]
mod common;
mod docker;
mod lapsed;
mod methods;
mod offline;
mod wire;

use std::path::Path;
use std::sync::Arc;

use brig_pki::csr::NodeKey;
use brig_pki::identity::NodeIdentity;
use brig_pki::keyfile::KeyFile;
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::{
    BlacklistedCertificate, Certificate, Cluster, ListenSubscriptionsRequest, Node, NodeRole,
    NodeSpec, log_broker_client::LogBrokerClient,
};
use brig_store::Tx;
use brig_swarm::{Control, Swarm};
use brig_types::id::NodeId;
use common::*;
use time::{Duration, OffsetDateTime};
use tonic::Code;

use crate::authority::{Authority, Wanted, self_signed};
use crate::wire::{Log, address, health, heard, mutual, reachable, renewal, session};

/// A manager that is off, with the key of its cluster.
struct Off {
    dir: tempfile::TempDir,
    cluster: String,
    authority: Authority,
}

impl Off {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (swarm, control) = new_swarm(dir.path(), &Machine::default()).await;
        let cluster = control.cluster().unwrap().id.clone();
        drop(control);
        swarm.shutdown().await;
        let authority = offline::authority(dir.path()).await;
        Self { dir, cluster, authority }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a node into the cluster, as if it had joined with this certificate.
    async fn add(&self, node: &str, role: NodeRole, chain: &[u8]) {
        offline::edit(self.path(), |tx| tx.create(member(node, role, chain)).unwrap()).await;
    }

    async fn on(&self) -> (Swarm, Control) {
        let swarm = open(self.path(), &Machine::default()).await;
        let control = swarm.control().unwrap();
        (swarm, control)
    }
}

fn member(node: &str, role: NodeRole, chain: &[u8]) -> Node {
    Node {
        id: node.to_owned(),
        role: role as i32,
        spec: Some(NodeSpec { desired_role: role as i32, ..NodeSpec::default() }),
        certificate: Some(Certificate {
            role: role as i32,
            certificate: chain.to_vec(),
            cn: node.to_owned(),
            ..Certificate::default()
        }),
        ..Node::default()
    }
}

fn id() -> String {
    NodeId::generate().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_who_is_refused_and_why() {
    let log = Log::capture();
    let off = Off::new().await;
    let ca = &off.authority;
    let roots = ca.root();
    let names: Vec<String> = (0..9).map(|_| id()).collect();
    let wanted = |index: usize| Wanted::worker(&off.cluster, &names[index]);
    let now = OffsetDateTime::now_utc();
    let foreign = Authority::new();
    let hour = Duration::HOUR;

    // Every one of these nodes is in the cluster, with another certificate.
    for name in &names {
        let (chain, _) = ca.client(&Wanted::worker(&off.cluster, name), &roots);
        off.add(name, NodeRole::Worker, &chain).await;
    }
    let (swarm, control) = off.on().await;
    let address = address(&control);

    let refused_by_tls = [
        (foreign.client(&wanted(0), &roots).1, "it leads to no root of this cluster"),
        (self_signed(&wanted(1), &roots), "it is self-signed"),
        (
            ca.client(&wanted(2).expired(hour, hour * 2), &roots).1,
            "it is not the one that its node has now",
        ),
        (
            ca.client(&Wanted { from: now + hour, ..wanted(3) }, &roots).1,
            "one of the clocks is wrong",
        ),
        (ca.client(&Wanted { extensions: "server", ..wanted(4) }, &roots).1, "not fit for a node"),
    ];
    for (index, (client, reason)) in refused_by_tls.into_iter().enumerate() {
        let channel = mutual(&address, Arc::new(client));
        for refused in [reachable(&channel).await, session(&channel).await] {
            assert_ne!(refused.unwrap_err().code(), Code::PermissionDenied, "{reason}");
        }
        let line = log.tells(&["refused a connection", &names[index], reason]).await;
        assert!(line.contains("127.0.0.1:"), "{line}");
    }

    let other = "a".repeat(25);
    let refused_by_the_cluster = [
        (Wanted { cluster: &other, ..wanted(5) }, "not part of organization"),
        (Wanted { role: "swarm-manager", ..wanted(6) }, "was demoted"),
        (wanted(7), "was removed from swarm"),
    ];
    control.remove_node(&names[7], true).await.unwrap();
    for (index, (wanted, reason)) in (5..).zip(refused_by_the_cluster) {
        let channel = mutual(&address, Arc::new(ca.client(&wanted, &roots).1));
        reachable(&channel).await.unwrap();
        let refused = health(&channel).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(reason), "{refused:?}");
        let line = log.tells(&["refused a call", &names[index], reason, "Health/Check"]).await;
        assert!(line.contains("127.0.0.1:"), "{line}");
        if reason != "was demoted" {
            session(&channel).await.unwrap_err();
            let refused = renewal(&channel, &NodeKey::generate().unwrap()).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert!(refused.message().contains(reason), "{refused:?}");
        }
    }
    // Neither of the roles, so no node at all.
    let key = NodeKey::generate().unwrap();
    let chain = ca.issue(&Wanted { role: "swarm-guest", ..wanted(8) }, &key);
    assert!(TlsCredentials::new(&roots, &chain, &key).is_err(), "not even the client takes it");

    let good = ca.client(&wanted(8), &roots).1;
    session(&mutual(&address, Arc::new(good))).await.unwrap();
    swarm.leave(true).await.unwrap();
}

/// Replaces the cluster's root at once, as if a rotation had ended that a node slept through.
async fn replace_root(off: &Off, new: &Authority) {
    let roots = new.root();
    let me = offline::certificates(off.path()).load(None).unwrap().unwrap();
    let own = TlsCredentials::new(&me.roots_pem, &me.chain_pem, &me.key.node_key).unwrap();
    let node = own.identity().node.to_string();
    let wanted = Wanted { role: "swarm-manager", ..Wanted::worker(&off.cluster, &node) };
    let chain =
        offline::replace_certificate(off.path(), |key: &KeyFile| new.issue(&wanted, &key.node_key));
    offline::certificates(off.path()).store_roots(&roots).unwrap();
    offline::register(off.path(), &node, &chain).await;
    offline::edit(off.path(), |tx: &mut Tx<'_>| {
        let mut cluster = (**tx.all::<Cluster>().next().unwrap()).clone();
        let root = cluster.root_ca.as_mut().unwrap();
        root.ca_cert = roots;
        root.ca_key = new.key();
        tx.update(cluster).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_straggler_of_a_rotation_is_believed_and_a_thief_of_the_old_key_is_not() {
    let log = Log::capture();
    let off = Off::new().await;
    let node = id();
    let new = Authority::new();
    let wanted = Wanted::worker(&off.cluster, &node);
    // It knows the new root, as if it had got it some other way; its certificate is the old one's.
    let (chain, straggler) = off.authority.client(&wanted, &new.root());
    off.add(&node, NodeRole::Worker, &chain).await;
    replace_root(&off, &new).await;
    let (swarm, control) = off.on().await;
    let address = address(&control);

    let channel = mutual(&address, Arc::new(straggler));
    session(&channel).await.unwrap();
    for role in ["swarm-worker", "swarm-manager"] {
        let (_, thief) = off.authority.client(&Wanted { role, ..wanted.clone() }, &new.root());
        let thief = mutual(&address, Arc::new(thief));
        reachable(&thief).await.unwrap_err();
        log.tells(&["refused a connection", &node, role, "leads to no root"]).await;
    }
    // Once it has and uses a new one, the old one is worth nothing, also where it is in use.
    for attempt in 0..3 {
        assert_eq!(renewal(&channel, &NodeKey::generate().unwrap()).await.unwrap(), node);
        heard(&channel).await.unwrap_or_else(|refused| panic!("answer {attempt} lost: {refused}"));
    }
    let key = NodeKey::generate().unwrap();
    renewal(&channel, &key).await.unwrap();
    let renewed = control.node(&node).unwrap().certificate.as_ref().unwrap().certificate.clone();
    let renewed = TlsCredentials::new(&new.root(), &renewed, &key).unwrap();
    heard(&mutual(&address, Arc::new(renewed))).await.unwrap();
    let refused = heard(&channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("leads to no root"), "{refused:?}");
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate() {
    let log = Log::capture();
    let off = Off::new().await;
    let node = id();
    let until = OffsetDateTime::now_utc() + Duration::seconds(12);
    let wanted = Wanted { until, ..Wanted::worker(&off.cluster, &node) };
    let (chain, client) = off.authority.client(&wanted, &off.authority.root());
    off.add(&node, NodeRole::Worker, &chain).await;
    let (swarm, control) = off.on().await;
    let address = address(&control);
    let client = Arc::new(client);
    let mut logs = LogBrokerClient::new(mutual(&address, Arc::clone(&client)));
    let mut stream =
        logs.listen_subscriptions(ListenSubscriptionsRequest {}).await.unwrap().into_inner();
    let cut = tokio::time::timeout(std::time::Duration::from_secs(20), stream.message()).await;
    cut.expect("the stream is cut").unwrap_err();
    assert!(OffsetDateTime::now_utc() >= until - Duration::SECOND, "not before its end");
    log.tells(&["cutting a connection", &node, "has expired"]).await;
    // What is left of it.
    let channel = mutual(&address, client);
    let refused = session(&channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("it can be renewed, nothing else"), "{refused:?}");
    assert_eq!(renewal(&channel, &NodeKey::generate().unwrap()).await.unwrap(), node);
    log.tells(&["within the grace", &node]).await;
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_manager_is_a_worker_at_once() {
    let log = Log::capture();
    let off = Off::new().await;
    let node = id();
    let wanted = Wanted { role: "swarm-manager", ..Wanted::worker(&off.cluster, &node) };
    let (chain, client) = off.authority.client(&wanted, &off.authority.root());
    off.add(&node, NodeRole::Manager, &chain).await;
    let (swarm, control) = off.on().await;
    let client = Arc::new(client);
    assert_eq!(client.identity().role, Role::Manager);
    let channel = mutual(&address(&control), Arc::clone(&client));
    health(&channel).await.unwrap();
    let mut logs = LogBrokerClient::new(channel.clone());
    let mut stream =
        logs.listen_subscriptions(ListenSubscriptionsRequest {}).await.unwrap().into_inner();

    let change = async |reference: &str, role: NodeRole| {
        let stored = control.node(reference).unwrap();
        let version = stored.meta.as_ref().unwrap().version.unwrap().index;
        let spec = NodeSpec { desired_role: role as i32, ..stored.spec.clone().unwrap() };
        control.update_node(reference, version, spec).await
    };
    let refused = control.remove_node(&node, true).await.unwrap_err().to_string();
    assert!(refused.contains("is a cluster manager and is a member of the raft cluster"));
    change(&node, NodeRole::Worker).await.unwrap();
    let refused = health(&channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("was demoted"), "{refused:?}");
    let cut = tokio::time::timeout(std::time::Duration::from_secs(5), stream.message()).await;
    cut.expect("the stream is cut").unwrap_err();
    log.tells(&["cutting a connection", &node, "was demoted"]).await;
    let stored = control.node(&node).unwrap();
    assert_eq!((stored.role(), stored.manager_status.is_none()), (NodeRole::Worker, true));

    // It is told to get the certificate of a worker, and gets it.
    let channel = mutual(&address(&control), client);
    assert_eq!(renewal(&channel, &NodeKey::generate().unwrap()).await.unwrap(), node);
    let stored = control.node(&node).unwrap();
    let chain = stored.certificate.as_ref().unwrap().certificate.clone();
    assert_eq!(NodeIdentity::from_chain_pem(&chain).unwrap().role, Role::Worker);

    let me = control.node("self").unwrap().id.clone();
    let last = change(&me, NodeRole::Worker).await.unwrap_err().to_string();
    assert!(last.ends_with("attempting to demote the last manager of the swarm"), "{last}");
    change(&node, NodeRole::Manager).await.unwrap();
    let stored = control.node(&node).unwrap();
    assert_eq!((stored.role(), stored.manager_status.is_none()), (NodeRole::Manager, true));
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_removed_nodes_leave_nothing() {
    let off = Off::new().await;
    let (node, removed) = (id(), id());
    let roots = off.authority.root();
    let (chain, client) = off.authority.client(&Wanted::worker(&off.cluster, &node), &roots);
    let (gone, ghost) = off.authority.client(&Wanted::worker(&off.cluster, &removed), &roots);
    off.add(&node, NodeRole::Worker, &chain).await;
    off.add(&removed, NodeRole::Worker, &gone).await;
    let size = |cluster: &Cluster| prost::Message::encoded_len(cluster);
    let before = offline::edit(off.path(), |tx| {
        let mut cluster = (**tx.all::<Cluster>().next().unwrap()).clone();
        let before = size(&cluster);
        // As earlier versions, and Docker's managers, would have remembered them.
        let expiry = Some(prost_types::Timestamp { seconds: 1 << 40, nanos: 0 });
        cluster.blacklisted_certificates =
            (0..100_000).map(|_| (id(), BlacklistedCertificate { expiry })).collect();
        tx.update(cluster).unwrap();
        before
    })
    .await;
    let (swarm, control) = off.on().await;
    assert_eq!(control.cluster().unwrap().blacklisted_certificates.len(), 100_000);
    let channel = mutual(&address(&control), Arc::new(client));
    session(&channel).await.unwrap();
    control.remove_node(&removed, true).await.unwrap();
    let cluster = control.cluster().unwrap();
    assert!(cluster.blacklisted_certificates.is_empty());
    assert!(size(&cluster) <= before + 16, "{} and {before}", size(&cluster));
    session(&channel).await.unwrap();
    let refused = session(&mutual(&address(&control), Arc::new(ghost))).await.unwrap_err();
    assert!(refused.message().contains(&format!("node {removed} was removed from swarm")));
    swarm.leave(true).await.unwrap();
}
