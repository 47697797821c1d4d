//! Several nodes: joining, working for another manager, getting lost, being taken out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use brig_proto::swarm::{
    GlobalService, NodeRole, Placement, ServiceSpec, TaskState, node_spec::Availability,
    node_status, service_spec,
};
use brig_swarm::{
    Control, InitRequest, JoinRequest, LocalNodeState, Swarm, SwarmError, TokenRotation,
};
use brig_types::secret::SecretString;
use common::*;

fn manager_address(control: &Control) -> String {
    control.node("self").unwrap().manager_status.as_ref().unwrap().addr.clone()
}

fn token(control: &Control, role: NodeRole) -> String {
    let cluster = control.cluster().unwrap();
    let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
    match role {
        NodeRole::Worker => tokens.worker,
        NodeRole::Manager => tokens.manager,
    }
}

fn invitation(control: &Control) -> JoinRequest {
    with_token(control, &token(control, NodeRole::Worker))
}

fn with_token(control: &Control, token: &str) -> JoinRequest {
    JoinRequest {
        remote_addrs: vec![manager_address(control)],
        join_token: SecretString::new(token.to_owned()),
        ..JoinRequest::default()
    }
}

/// A manager and a worker that joined it.
struct Pair {
    dir: tempfile::TempDir,
    manager: Swarm,
    control: Control,
    worker: Swarm,
    machine: Machine,
    /// The worker's id.
    id: String,
}

impl Pair {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (manager, control) = new_swarm(&dir.path().join("m"), &Machine::default()).await;
        let machine = Machine::default();
        let worker = open(&dir.path().join("w"), &machine).await;
        worker.join(invitation(&control)).await.unwrap();
        let id = worker.status().node_id;
        Self { dir, manager, control, worker, machine, id }
    }

    fn worker_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("w")
    }

    async fn restart_worker(&mut self) {
        self.worker.shutdown().await;
        self.worker = open(&self.worker_dir(), &self.machine).await;
    }

    async fn set(&self, availability: Availability, labels: &[(&str, &str)]) {
        let node = self.control.node(&self.id).unwrap();
        let mut spec = node.spec.clone().unwrap();
        spec.availability = availability as i32;
        let annotations = spec.annotations.get_or_insert_default();
        annotations.labels =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let version = node.meta.as_ref().unwrap().version.as_ref().unwrap().index;
        self.control.update_node(&self.id, version, spec).await.unwrap();
    }

    fn node_state(&self) -> i32 {
        self.control.node(&self.id).unwrap().status.as_ref().unwrap().state
    }
}

fn placed(mut spec: ServiceSpec, constraint: &str) -> ServiceSpec {
    spec.task.as_mut().unwrap().placement =
        Some(Placement { constraints: vec![constraint.to_owned()], ..Placement::default() });
    spec
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_works_restarts_and_leaves() {
    let mut pair = Pair::new().await;
    let status = pair.worker.status();
    assert_eq!(status.local_node_state, LocalNodeState::Active);
    assert!(!status.control_available && status.cluster.is_none());
    assert_eq!((status.node_addr.as_str(), status.error.as_str()), ("127.0.0.1", ""));
    assert_eq!(status.remote_managers.len(), 1);
    assert_eq!(status.remote_managers[0].addr, manager_address(&pair.control));
    assert_eq!(status.remote_managers[0].node_id, pair.manager.status().node_id);
    assert!(matches!(pair.worker.control(), Err(SwarmError::NotManager)));
    let again = pair.worker.join(invitation(&pair.control)).await;
    assert!(matches!(again, Err(SwarmError::AlreadyInSwarm)));
    assert!(matches!(
        pair.worker.init(InitRequest::default()).await,
        Err(SwarmError::AlreadyInSwarm)
    ));

    pair.control.create_secret(secret("db", b"hunter2")).await.unwrap();
    let mut spec = placed(service("web", "busybox", 2), "node.role==worker");
    grant(&mut spec, &pair.control.secret("db").unwrap());
    let id = pair.control.create_service(spec).await.unwrap();
    eventually("two run", || running_tasks(&pair.control, &id), |t| t.len() == 2).await;
    let before = pair.machine.running();
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|(_, c)| c.secrets == [("db".to_owned(), b"hunter2".to_vec())]));

    let node = pair.id.clone();
    pair.restart_worker().await;
    assert_eq!(pair.worker.status().node_id, node, "the same node");
    eventually(
        "connected",
        || pair.worker.status().local_node_state,
        |s| *s == LocalNodeState::Active,
    )
    .await;
    assert_eq!(pair.machine.running(), before, "the very same containers, started once");
    pair.machine.crash(&before[0].0, 3);
    eventually(
        "the crash is noticed and mended",
        || running_tasks(&pair.control, &id),
        |tasks| tasks.len() == 2 && tasks.iter().all(|task| task.id != before[0].0),
    )
    .await;

    pair.worker.leave(false).await.unwrap();
    assert!(pair.machine.containers().is_empty());
    assert_eq!(pair.worker.status().local_node_state, LocalNodeState::Inactive);
    assert!(is_empty(&pair.worker_dir()), "nothing is left");
    assert!(matches!(pair.worker.leave(false).await, Err(SwarmError::NotPartOfSwarm)));
    pair.worker.join(invitation(&pair.control)).await.unwrap();
    assert_ne!(pair.worker.status().node_id, node, "another node");
    pair.worker.leave(false).await.unwrap();
    pair.manager.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_invitations_are_refused_at_once_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, control) = new_swarm(&dir.path().join("m"), &Machine::default()).await;
    let (other, elsewhere) = new_swarm(&dir.path().join("o"), &Machine::default()).await;
    let home = dir.path().join("w");
    std::fs::create_dir(&home).unwrap();
    let worker = open(&home, &Machine::default()).await;
    let good = token(&control, NodeRole::Worker);
    let start = Instant::now();
    let refused = async |token: &str| {
        let error = worker.join(with_token(&control, token)).await.unwrap_err();
        assert_eq!(worker.status().local_node_state, LocalNodeState::Inactive);
        assert!(is_empty(&home), "nothing is left");
        error.to_string()
    };
    assert_eq!(refused("nonsense").await, "invalid join token");
    let foreign = refused(&token(&elsewhere, NodeRole::Worker)).await;
    assert!(foreign.starts_with("remote CA does not match fingerprint. Expected: "), "{foreign}");
    let (rest, secret) = good.rsplit_once('-').unwrap();
    assert_eq!(
        refused(&format!("{rest}-{}", "1".repeat(secret.len()))).await,
        "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster"
    );
    assert_eq!(control.nodes().len(), 1, "nobody was admitted");

    // Rotated: the old token is worth nothing, the new one lets in.
    let cluster = control.cluster().unwrap();
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    let rotation = TokenRotation { worker: true, ..TokenRotation::default() };
    control.update_cluster(version, cluster.spec.clone().unwrap(), rotation).await.unwrap();
    assert!(refused(&good).await.contains("A valid join token is necessary"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let paused = JoinRequest { availability: Availability::Pause, ..invitation(&control) };
    worker.join(paused).await.unwrap();
    let node = control.node(&worker.status().node_id).unwrap();
    assert_eq!(node.spec.as_ref().unwrap().availability, Availability::Pause as i32);
    worker.leave(false).await.unwrap();
    for swarm in [manager, other] {
        swarm.leave(true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_goes_on_when_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (manager, control) = new_swarm(&dir.path().join("m"), &machine).await;
    let request = invitation(&control);
    drop(control);
    manager.shutdown().await;
    let worker = open(&dir.path().join("w"), &Machine::default()).await;
    let waiting = tokio::time::timeout(Duration::from_millis(300), worker.join(request.clone()));
    assert!(waiting.await.is_err(), "still trying");
    let status = worker.status();
    assert_eq!(status.local_node_state, LocalNodeState::Pending);
    assert!(status.error.contains("cannot connect to manager"), "{status:?}");
    assert!(matches!(worker.join(request.clone()).await, Err(SwarmError::AlreadyInSwarm)));
    let manager = open(&dir.path().join("m"), &machine).await;
    eventually("joined", || worker.status().local_node_state, |s| *s == LocalNodeState::Active)
        .await;
    worker.leave(false).await.unwrap();

    // Nobody hears of a refusal that comes later, so it is kept to be looked at.
    manager.shutdown().await;
    let (rest, secret) = request.join_token.expose_secret().rsplit_once('-').unwrap();
    let wrong = format!("{rest}-{}", "1".repeat(secret.len()));
    let wrong = JoinRequest { join_token: SecretString::new(wrong), ..request.clone() };
    let waiting = tokio::time::timeout(Duration::from_millis(300), worker.join(wrong));
    assert!(waiting.await.is_err());
    let manager = open(&dir.path().join("m"), &machine).await;
    let status = eventually(
        "refused",
        || worker.status(),
        |status| status.local_node_state == LocalNodeState::Error,
    )
    .await;
    assert!(status.error.contains("A valid join token is necessary"), "{status:?}");
    worker.join(request.clone()).await.unwrap();
    worker.leave(false).await.unwrap();
    manager.leave(true).await.unwrap();

    // An attempt can be given up.
    let waiting = tokio::time::timeout(Duration::from_millis(300), worker.join(request));
    assert!(waiting.await.is_err());
    worker.leave(false).await.unwrap();
    assert_eq!(worker.status().local_node_state, LocalNodeState::Inactive);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_docker_does() {
    let dir = tempfile::tempdir().unwrap();
    let worker = open(&dir.path().join("w"), &Machine::default()).await;
    // Somebody who takes the connection and says nothing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = JoinRequest {
        remote_addrs: vec![mute.local_addr().unwrap().to_string()],
        join_token: SecretString::new(
            brig_pki::token::JoinToken::generate(b"roots")
                .unwrap()
                .to_secret_string()
                .expose_secret()
                .to_owned(),
        ),
        ..JoinRequest::default()
    };
    let start = tokio::time::Instant::now();
    let error = worker.join(request).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(
        error.to_string(),
        "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node."
    );
    let status = worker.status();
    assert_eq!(status.local_node_state, LocalNodeState::Pending);
    assert!(status.error.contains("cannot connect to manager"), "{status:?}");
    worker.shutdown().await;
    assert!(is_empty(&dir.path().join("w")) || !dir.path().join("w").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_replaced_within_seconds_and_tidied_up_when_it_is_back() {
    let mut pair = Pair::new().await;
    let id = pair.control.create_service(service("web", "busybox", 4)).await.unwrap();
    eventually("four run", || running_tasks(&pair.control, &id), |t| t.len() == 4).await;
    let there = pair.machine.running().len();
    assert!((1..4).contains(&there), "spread over both nodes: {there}");
    let lost = Instant::now();
    pair.worker.shutdown().await;
    eventually(
        "all run elsewhere",
        || running_tasks(&pair.control, &id),
        |tasks| tasks.len() == 4 && tasks.iter().all(|task| task.node_id != pair.id),
    )
    .await;
    println!("lost to rescheduled: {:?}", lost.elapsed());
    assert!(lost.elapsed() < Duration::from_secs(9), "{:?}", lost.elapsed());
    assert_eq!(pair.node_state(), node_status::State::Down as i32);
    assert_eq!(pair.machine.running().len(), there, "nobody could tell the node");
    let spare = open(&pair.dir.path().join("s"), &Machine::default()).await;
    spare.join(invitation(&pair.control)).await.unwrap();
    let gone = spare.status().node_id;
    pair.restart_worker().await;
    eventually("its old tasks go", || pair.machine.running(), |running| running.is_empty()).await;
    assert_eq!(pair.node_state(), node_status::State::Ready as i32);
    // A node that left is down in a while, and then needs no force to be removed.
    spare.leave(false).await.unwrap();
    let down = || pair.control.node(&gone).unwrap().status.as_ref().unwrap().state;
    eventually("down", down, |state| *state == node_status::State::Down as i32).await;
    pair.control.remove_node(&gone, false).await.unwrap();
    assert!(pair.control.node(&gone).is_err());
    pair.worker.leave(false).await.unwrap();
    pair.manager.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_and_labels_decide_where_tasks_run() {
    let pair = Pair::new().await;
    let mut everywhere = service("agent", "busybox", 1);
    everywhere.mode = Some(service_spec::Mode::Global(GlobalService {}));
    let agent = pair.control.create_service(everywhere).await.unwrap();
    let running = |id: &str| running_tasks(&pair.control, id);
    eventually("on both", || running(&agent), |t| t.len() == 2).await;
    let labelled = placed(service("labelled", "busybox", 1), "node.labels.disk==ssd");
    let labelled = pair.control.create_service(labelled).await.unwrap();
    pair.set(Availability::Pause, &[("disk", "ssd")]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(running(&labelled).is_empty(), "a paused node takes nothing new");
    assert_eq!(running(&agent).len(), 2, "what runs goes on");
    pair.set(Availability::Active, &[("disk", "ssd")]).await;
    eventually("the labelled node runs it", || running(&labelled), |t| t.len() == 1).await;
    assert_eq!(running(&labelled)[0].node_id, pair.id);
    pair.set(Availability::Drain, &[("disk", "ssd")]).await;
    eventually("drained", || pair.machine.running(), |running| running.is_empty()).await;
    assert_eq!(running(&agent).len(), 1);
    pair.set(Availability::Active, &[]).await;
    eventually("back", || running(&agent), |t| t.len() == 2).await;
    pair.worker.leave(false).await.unwrap();
    pair.manager.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_cut_off_at_once() {
    let mut pair = Pair::new().await;
    let id = pair.control.create_service(service("web", "busybox", 2)).await.unwrap();
    eventually("two run", || running_tasks(&pair.control, &id), |t| t.len() == 2).await;
    let node = pair.id.clone();
    let up = pair.control.remove_node(&node, false).await.unwrap_err();
    assert_eq!(
        up.to_string(),
        format!(
            "rpc error: code = FailedPrecondition desc = node {node} is not down and can't be removed"
        )
    );
    let own = pair.manager.status().node_id;
    let manager = pair.control.remove_node(&own, true).await.unwrap_err();
    assert!(manager.to_string().contains("It must be demoted to worker before removal"));
    let start = Instant::now();
    pair.control.remove_node(&node, true).await.unwrap();
    eventually(
        "the node notices",
        || pair.worker.status().error,
        |error| error.contains(&format!("node {node} was removed from swarm")),
    )
    .await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    eventually(
        "its task runs elsewhere",
        || running_tasks(&pair.control, &id),
        |tasks| tasks.len() == 2 && tasks.iter().all(|task| task.node_id == own),
    )
    .await;
    pair.restart_worker().await;
    eventually(
        "a restart does not help",
        || pair.worker.status().error,
        |error| error.contains("was removed from swarm"),
    )
    .await;
    assert_eq!(pair.worker.status().local_node_state, LocalNodeState::Pending);
    pair.worker.leave(false).await.unwrap();
    assert!(pair.machine.containers().is_empty());
    pair.worker.join(invitation(&pair.control)).await.unwrap();
    assert_ne!(pair.worker.status().node_id, node);
    pair.worker.leave(false).await.unwrap();
    pair.manager.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_records_cost_no_container() {
    let Pair { dir, manager, control, worker, machine, .. } = Pair::new().await;
    let home = dir.path().join("w");
    let web = placed(service("web", "busybox", 1), "node.role==worker");
    let web = control.create_service(web).await.unwrap();
    let gone = placed(service("gone", "busybox", 1), "node.role==worker");
    let gone = control.create_service(gone).await.unwrap();
    eventually("both run", || machine.running(), |running| running.len() == 2).await;
    let task = |id: &str| running_tasks(&control, id)[0].id.clone();
    eventually("reported", || running_tasks(&control, &web), |t| t.len() == 1).await;
    eventually("reported", || running_tasks(&control, &gone), |t| t.len() == 1).await;
    let (kept, unwanted) = (task(&web), task(&gone));
    let before = machine.containers();
    worker.shutdown().await;
    for id in [&kept, &unwanted] {
        std::fs::write(home.join("swarm/worker/tasks").join(id), b"broken").unwrap();
    }
    // Without a manager nobody can say what they are.
    let address = manager_address(&control);
    drop(control);
    manager.shutdown().await;
    let worker = open(&home, &machine).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(machine.containers(), before, "nothing was touched");
    worker.shutdown().await;

    let manager = open(&dir.path().join("m"), &Machine::default()).await;
    let control = manager.control().unwrap();
    assert_eq!(manager_address(&control), address);
    control.remove_service(&gone).await.unwrap();
    let worker = open(&home, &machine).await;
    eventually(
        "the unwanted one goes",
        || machine.containers(),
        |all| !all.contains_key(&unwanted),
    )
    .await;
    eventually(
        "the other is managed again",
        || control.task(&kept).unwrap(),
        |task| state(task) == TaskState::Running,
    )
    .await;
    assert_eq!(machine.containers()[&kept], before[&kept], "never restarted");
    machine.crash(&kept, 1);
    eventually(
        "and watched",
        || control.task(&kept).unwrap(),
        |task| state(task) == TaskState::Failed,
    )
    .await;
    worker.leave(false).await.unwrap();
    manager.leave(true).await.unwrap();
}
