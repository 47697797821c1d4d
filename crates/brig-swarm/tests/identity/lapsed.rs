//! Nodes that were off when their certificate ended.

use brig_proto::swarm::{NodeRole, node_status};
use brig_swarm::{Control, JoinRequest, LocalNodeState, Swarm};
use brig_types::secret::SecretString;
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, Wanted};
use crate::common::{Machine, eventually, new_swarm, open};
use crate::offline;
use crate::wire::{Log, address};

/// A manager and a worker, both off.
struct Pair {
    dir: tempfile::TempDir,
    cluster: String,
    worker: String,
    manager: String,
    authority: Authority,
}

impl Pair {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (manager, control) = new_swarm(&dir.path().join("m"), &Machine::default()).await;
        let cluster = control.cluster().unwrap();
        let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
        let worker = open(&dir.path().join("w"), &Machine::default()).await;
        let request = JoinRequest {
            remote_addrs: vec![address(&control)],
            join_token: SecretString::new(tokens.worker),
            ..JoinRequest::default()
        };
        worker.join(request).await.unwrap();
        let ids = (worker.status().node_id, manager.status().node_id);
        let cluster = cluster.id.clone();
        drop(control);
        worker.shutdown().await;
        manager.shutdown().await;
        let authority = offline::authority(&dir.path().join("m")).await;
        Self { dir, cluster, worker: ids.0, manager: ids.1, authority }
    }

    /// Lets the certificate of a node have expired.
    async fn expire(&self, node: &str, since: Duration, lived: Duration) {
        let (dir, role) =
            if node == self.worker { ("w", "swarm-worker") } else { ("m", "swarm-manager") };
        let wanted = Wanted { role, ..Wanted::worker(&self.cluster, node) }.expired(since, lived);
        let chain = offline::replace_certificate(&self.dir.path().join(dir), |key| {
            self.authority.issue(&wanted, &key.node_key)
        });
        offline::register(&self.dir.path().join("m"), node, &chain).await;
    }

    async fn manager(&self) -> (Swarm, Control) {
        let swarm = open(&self.dir.path().join("m"), &Machine::default()).await;
        let control = swarm.control().unwrap();
        (swarm, control)
    }

    async fn worker(&self) -> Swarm {
        open(&self.dir.path().join("w"), &Machine::default()).await
    }

    fn valid_until(&self, dir: &str) -> OffsetDateTime {
        let stored = offline::certificates(&self.dir.path().join(dir)).load(None).unwrap().unwrap();
        brig_pki::identity::CertInfo::from_pem(&stored.chain_pem).unwrap().not_after
    }
}

async fn is_up(control: &Control, node: &str) {
    let state = || control.node(node).unwrap().status.as_ref().unwrap().state;
    eventually("the node is up", state, |state| *state == node_status::State::Ready as i32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_slept_past_its_end_renews_and_works() {
    let log = Log::capture();
    let pair = Pair::new().await;
    pair.expire(&pair.worker, Duration::days(29), Duration::days(90)).await;
    let (manager, control) = pair.manager().await;
    let worker = pair.worker().await;
    is_up(&control, &pair.worker).await;
    eventually(
        "active",
        || worker.status(),
        |status| status.local_node_state == LocalNodeState::Active && status.error.is_empty(),
    )
    .await;
    assert!(pair.valid_until("w") > OffsetDateTime::now_utc() + Duration::days(80));
    let line = log.tells(&["within the grace", &pair.worker]).await;
    assert!(line.contains("until="), "{line}");
    assert_eq!(control.node(&pair.worker).unwrap().role(), NodeRole::Worker);
    worker.shutdown().await;
    manager.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_grace_an_operator_is_told_what_to_do() {
    let log = Log::capture();
    let pair = Pair::new().await;
    pair.expire(&pair.worker, Duration::days(31), Duration::days(90)).await;
    let (manager, control) = pair.manager().await;
    let worker = pair.worker().await;
    let status = eventually(
        "told",
        || worker.status(),
        |status| status.error.contains("docker swarm leave"),
    )
    .await;
    assert!(status.error.contains("certificate expired on"), "{}", status.error);
    log.tells(&["refused a connection", &pair.worker, "could be renewed until"]).await;
    log.tells(&["ERROR", "docker swarm join"]).await;
    // Which helps.
    worker.leave(false).await.unwrap();
    let cluster = control.cluster().unwrap();
    let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
    let request = JoinRequest {
        remote_addrs: vec![address(&control)],
        join_token: SecretString::new(tokens.worker),
        ..JoinRequest::default()
    };
    worker.join(request).await.unwrap();
    worker.shutdown().await;
    manager.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_slept_past_its_end_issues_its_own() {
    let log = Log::capture();
    let pair = Pair::new().await;
    // Longer than any grace: it is its own authority.
    pair.expire(&pair.manager, Duration::days(200), Duration::days(90)).await;
    let worker = pair.worker().await;
    let (manager, control) = pair.manager().await;
    for node in [&pair.manager, &pair.worker] {
        is_up(&control, node).await;
    }
    assert!(pair.valid_until("m") > OffsetDateTime::now_utc() + Duration::days(80));
    log.tells(&["this manager's certificate is not valid now"]).await;
    let stored = control.node("self").unwrap();
    let chain = stored.certificate.as_ref().unwrap().certificate.clone();
    let until = brig_pki::identity::CertInfo::from_pem(&chain).unwrap().not_after;
    assert_eq!(until, pair.valid_until("m"), "the store has the same");
    worker.shutdown().await;
    manager.leave(true).await.unwrap();
}
