//! Several managers on one machine, each with a real etcd: joining, writing everywhere, losing
//! one, promotion and demotion, and the way back from a lost quorum.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;
#[path = "../../brig-store/tests/common/etcd.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod etcd;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_proto::swarm::{
    ConfigSpec, LogSelector, LogSubscriptionOptions, Node, NodeRole, TaskState, node_status,
    raft_member_status::Reachability,
};
use brig_store::etcd::{EtcdClient, EtcdTls};
use brig_swarm::{
    Control, ControlError, ExternalStore, InitRequest, JoinRequest, LocalNodeState, StoreSettings,
    Swarm, SwarmConfig, TokenRotation,
};
use brig_types::error::{Categorized as _, ErrorKind};
use brig_types::secret::SecretString;
use common::*;
use etcd::Etcd;

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A node, and the etcd that outlives its swarm's parts.
struct Host {
    dir: PathBuf,
    machine: Machine,
    settings: StoreSettings,
    listen: String,
    swarm: Swarm,
    /// Once it is in a swarm.
    id: std::sync::OnceLock<String>,
}

impl Host {
    async fn new(dir: &Path) -> Self {
        Self::with(dir, StoreSettings::default()).await
    }

    async fn with(dir: &Path, settings: StoreSettings) -> Self {
        // Shown when a test fails.
        let _ = tracing_subscriber::fmt().with_ansi(false).with_test_writer().try_init();
        let machine = Machine::default();
        let settings = StoreSettings { client_port: port(), peer_port: port(), ..settings };
        let listen = format!("127.0.0.1:{}", port());
        let swarm = start(dir, &machine, &settings).await;
        Self {
            dir: dir.to_owned(),
            machine,
            settings,
            listen,
            swarm,
            id: std::sync::OnceLock::new(),
        }
    }

    fn init(&self) -> InitRequest {
        InitRequest { listen_addr: self.listen.clone(), ..InitRequest::default() }
    }

    async fn join(&self, control: &Control, role: NodeRole) {
        self.swarm.join(self.request(control, role)).await.unwrap();
    }

    fn request(&self, control: &Control, role: NodeRole) -> JoinRequest {
        let cluster = control.cluster().unwrap();
        let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
        let token = if role == NodeRole::Manager { tokens.manager } else { tokens.worker };
        let status = control.node("self").unwrap().manager_status.clone().unwrap();
        JoinRequest {
            listen_addr: self.listen.clone(),
            remote_addrs: vec![status.addr],
            join_token: SecretString::new(token),
            ..JoinRequest::default()
        }
    }

    fn id(&self) -> String {
        self.id.get_or_init(|| self.swarm.status().node_id).clone()
    }

    fn etcd(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.dir.join("swarm/etcd/process.json")).ok()?;
        let pid = text.split("\"pid\":").nth(1)?.split(',').next()?.parse().ok()?;
        Path::new(&format!("/proc/{pid}/exe")).exists().then_some(pid)
    }

    /// What a power loss does, as far as one process can.
    async fn die(&self) {
        self.id();
        let etcd = self.etcd();
        self.swarm.shutdown().await;
        if let Some(pid) = etcd {
            let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            assert!(status.unwrap().success());
        }
    }

    fn etcdctl(&self, args: &[&str]) -> Result<String, String> {
        let file = |name: &str| self.dir.join("swarm/etcd").join(name).display().to_string();
        let output = std::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("https://127.0.0.1:{}", self.settings.client_port)])
            .args(["--cacert", &file("ca.pem"), "--cert", &file("client.pem")])
            .args(["--key", &file("client.key")])
            .args(args)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Full members of the store.
    fn members(&self) -> usize {
        let list = self.etcdctl(&["member", "list"]).unwrap_or_default();
        list.lines().filter(|line| line.ends_with("false")).count()
    }

    /// Takes another manager's member out of the store.
    async fn take_out(&self, node: &str) {
        let list = self.etcdctl(&["member", "list"]).unwrap();
        let line = list.lines().find(|line| line.contains(node)).unwrap();
        let member = line.split(',').next().unwrap();
        // Members that have just met refuse.
        eventually("the member is out", || self.etcdctl(&["member", "remove", member]).is_ok())
            .await;
    }

    async fn boot(&mut self) {
        self.swarm = start(&self.dir, &self.machine, &self.settings).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(pid) = self.etcd() {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// A swarm of three managers, and what the first one controls it with.
async fn three_managers(dir: &Path) -> (Control, [Host; 3]) {
    three_managers_with(dir, &StoreSettings::default()).await
}

async fn three_managers_with(dir: &Path, settings: &StoreSettings) -> (Control, [Host; 3]) {
    let first = Host::with(&dir.join("1"), settings.clone()).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let second = Host::with(&dir.join("2"), settings.clone()).await;
    second.join(&control, NodeRole::Manager).await;
    let third = Host::with(&dir.join("3"), settings.clone()).await;
    third.join(&control, NodeRole::Manager).await;
    (control, [first, second, third])
}

async fn start(dir: &Path, machine: &Machine, settings: &StoreSettings) -> Swarm {
    std::fs::create_dir_all(dir).unwrap();
    Swarm::open(SwarmConfig {
        state_dir: dir.join("swarm"),
        executor: Arc::new(machine.clone()),
        store: settings.clone(),
    })
    .await
    .unwrap()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn config(name: &str) -> ConfigSpec {
    ConfigSpec { annotations: annotations(name), data: b"x".to_vec(), ..ConfigSpec::default() }
}

async fn write(control: &Control, name: &str) -> bool {
    control.create_config(config(name)).await.is_ok()
}

fn has(control: &Control, name: &str) -> bool {
    control.config(name).is_ok()
}

fn reaches(control: &Control, id: &str) -> Option<Reachability> {
    Some(control.node(id).ok()?.manager_status.as_ref()?.reachability())
}

fn leader(control: &Control) -> Option<String> {
    let leads = |node: &Arc<Node>| node.manager_status.as_ref().is_some_and(|s| s.leader);
    control.nodes().iter().find(|node| leads(node)).map(|node| node.id.clone())
}

fn is_up(control: &Control, id: &str) -> bool {
    control.node(id).is_ok_and(|node| {
        node.status.as_ref().is_some_and(|s| s.state == node_status::State::Ready as i32)
    })
}

fn running(control: &Control, service: &str) -> usize {
    let Ok(service) = control.service(service) else { return 0 };
    let tasks = control.tasks();
    let of = tasks.iter().filter(|task| task.service_id == service.id);
    of.filter(|task| task.status.as_ref().is_some_and(|s| s.state() == TaskState::Running)).count()
}

async fn set_role(control: &Control, id: &str, role: NodeRole) {
    loop {
        let node = control.node(id).unwrap();
        let mut spec = node.spec.clone().unwrap();
        spec.set_desired_role(role);
        let version = node.meta.as_ref().unwrap().version.unwrap().index;
        match control.update_node(id, version, spec).await {
            Ok(()) => return,
            Err(error) => assert!(error.to_string().contains("out of sequence"), "{error}"),
        }
    }
}

/// What a former manager has of the store opens nothing once its authority has changed, and what
/// it has open ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_managers_certificates_open_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, third]) = three_managers(temp.path()).await;
    let own = temp.path().join("1/swarm/etcd");
    let kept = temp.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["client.pem", "client.key"] {
        std::fs::copy(temp.path().join("3/swarm/etcd").join(name), kept.join(name)).unwrap();
    }
    let client = |dir: &Path| {
        // Whoever kept a certificate knows whom to believe, too.
        let tls = EtcdTls {
            ca: own.join("ca.pem"),
            cert: dir.join("client.pem"),
            key: dir.join("client.key"),
        };
        let endpoint = format!("127.0.0.1:{}", first.settings.client_port);
        EtcdClient::new(&[endpoint], tls).unwrap()
    };
    let patience = Duration::from_secs(2);
    let before = std::fs::read(own.join("ca.pem")).unwrap();
    let open = client(&kept);
    open.check_quorum(patience).await.unwrap();
    set_role(&control, &third.id(), NodeRole::Worker).await;
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let is_refused = client(&kept).check_quorum(patience).await.is_err();
        if is_refused
            && open.check_quorum(patience).await.is_err()
            && client(&own).check_quorum(patience).await.is_ok()
        {
            break;
        }
        assert!(Instant::now() < until, "the old certificate still opens the store");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_ne!(std::fs::read(own.join("ca.pem")).unwrap(), before);
    for host in [&first, &second] {
        // Members may still be on their way back.
        let (control, name) = (host.swarm.control().unwrap(), format!("after-{}", host.id()));
        while !write(&control, &name).await {
            assert!(Instant::now() < until, "nothing can be written");
        }
    }
    // A new one comes in under the new authority.
    let fourth = Host::new(&temp.path().join("4")).await;
    fourth.join(&control, NodeRole::Manager).await;
    let last = fourth.swarm.control().unwrap();
    while let Err(error) = last.create_config(config("by-the-fourth")).await {
        assert!(Instant::now() < until, "{}", brig_types::error::chain(&error));
    }
    eventually("it is everywhere", || has(&second.swarm.control().unwrap(), "by-the-fourth")).await;
}

/// The certificates of the store are renewed before they end, while everything goes on, and members
/// and clients take the new ones up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_certificates_are_renewed_before_they_end() {
    const EXPIRY: Duration = Duration::from_secs(30);
    let temp = tempfile::tempdir().unwrap();
    let settings = StoreSettings { certificate_expiry: Some(EXPIRY), ..StoreSettings::default() };
    let (control, hosts) = three_managers_with(temp.path(), &settings).await;
    let end = Instant::now() + EXPIRY;
    let certificates = || {
        let read = |host: &Host| std::fs::read(host.dir.join("swarm/etcd/member.pem")).unwrap();
        hosts.iter().map(read).collect::<Vec<_>>()
    };
    let before = certificates();
    eventually("all are renewed", || {
        certificates().iter().zip(&before).all(|(now, before)| now != before)
    })
    .await;
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        assert!(write(&control, &format!("meanwhile{number}")).await, "writes go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The old ones have ended: whatever connects from now on does so with the new ones.
    let old = hosts[2].etcd().unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &old.to_string()])
            .status()
            .unwrap()
            .success()
    );
    eventually("it is started again", || hosts[2].etcd().is_some_and(|now| now != old)).await;
    for host in &hosts {
        is_whole(host, &control, "after the end of the old certificates").await;
    }
    for host in hosts.iter().rev() {
        let _ = host.swarm.leave(true).await;
    }
}

/// Writes on a manager that is being demoted; answers how it was refused.
async fn write_until_it_is_a_worker(host: &Host, mut own: Control) -> Vec<ControlError> {
    let mut refusals = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    for number in 0.. {
        if let Err(refusal) = own.create_config(config(&format!("{}-{number}", host.id()))).await {
            refusals.push(refusal);
        }
        match host.swarm.control() {
            Ok(control) => own = control,
            Err(_) => break,
        }
        assert!(Instant::now() < until, "it stays a manager");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Whoever still has what it was controlled with is told the same.
    refusals.push(own.create_config(config("late")).await.unwrap_err());
    refusals
}

/// The life of a real swarm: alone, three managers, one lost, one replaced, back to one. Nothing
/// that was acknowledged is ever gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_come_and_go_and_nothing_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let worker = Host::new(&temp.path().join("w")).await;
    worker.join(&control, NodeRole::Worker).await;
    control.create_service(service("web", "img", 2)).await.unwrap();
    assert!(write(&control, "alone").await);

    // Writes go on while the store moves.
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn({
        let control = control.clone();
        async move {
            let mut acknowledged = Vec::new();
            for number in 0..100 {
                let name = format!("moving{number}");
                if write(&control, &name).await {
                    acknowledged.push(name);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            acknowledged
        }
    });
    let second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;
    let mut acknowledged = writer.join_next().await.unwrap().unwrap();
    assert_eq!(acknowledged.len(), 100, "no write was refused");
    assert!(!temp.path().join("1/swarm/cluster.redb").exists());
    let third = Host::new(&temp.path().join("3")).await;
    third.join(&second.swarm.control().unwrap(), NodeRole::Manager).await;
    let controls = [&first, &second, &third].map(|host| host.swarm.control().unwrap());
    for (number, control) in controls.iter().enumerate() {
        let name = format!("by{number}");
        assert!(write(control, &name).await);
        acknowledged.push(name);
    }
    for control in &controls {
        for id in [first.id(), second.id(), third.id()] {
            eventually("every manager is reachable", || {
                reaches(control, &id) == Some(Reachability::Reachable)
            })
            .await;
        }
        eventually("everything is everywhere", || {
            acknowledged.iter().all(|name| has(control, name))
        })
        .await;
        assert_eq!(leader(control), Some(first.id()));
    }
    let known = worker.swarm.clone();
    eventually("the worker knows all managers", || known.status().remote_managers.len() == 3).await;

    // Logs come from the nodes of all managers, whichever manager is asked.
    control.create_service(service("chatty", "img", 6)).await.unwrap();
    let other = &controls[2];
    eventually("all tasks run", || running(other, "chatty") == 6).await;
    let selector = LogSelector {
        service_ids: vec![other.service("chatty").unwrap().id.clone()],
        ..LogSelector::default()
    };
    let mut lines = other.service_logs(selector, LogSubscriptionOptions::default()).unwrap();
    assert!(lines.missing_nodes().is_empty(), "{:?}", lines.missing_nodes());
    let mut seen = std::collections::BTreeSet::new();
    while let Some(line) = lines.next().await {
        seen.insert(String::from_utf8(line.data).unwrap());
    }
    assert_eq!(seen.len(), 6, "{seen:?}");

    // The leader is lost with its etcd.
    first.die().await;
    let control = second.swarm.control().unwrap();
    let lost = Instant::now();
    while !write(&control, "after").await {
        assert!(lost.elapsed() < Duration::from_secs(20));
    }
    acknowledged.push("after".to_owned());
    eventually("another one leads", || leader(&control).is_some_and(|id| id != first.id())).await;
    eventually("the lost one is missed", || {
        reaches(&control, &first.id()) == Some(Reachability::Unreachable)
            && !is_up(&control, &first.id())
    })
    .await;
    eventually("the worker is served by another", || is_up(&control, &worker.id())).await;

    // It comes back.
    first.boot().await;
    let back = first.swarm.control().unwrap();
    eventually("it has what it missed", || has(&back, "after")).await;
    assert!(write(&back, "back").await);
    eventually("it is there again", || {
        reaches(&control, &first.id()) == Some(Reachability::Reachable)
            && is_up(&control, &first.id())
    })
    .await;

    // Back to one, by demotion.
    for host in [&third, &first] {
        let own = host.swarm.control().unwrap();
        set_role(&control, &host.id(), NodeRole::Worker).await;
        let refusals = write_until_it_is_a_worker(host, own).await;
        eventually("it is a worker", || host.swarm.control().is_err() && host.etcd().is_none())
            .await;
        for refusal in refusals {
            assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
            let text = refusal.to_string();
            assert!(text.contains("This node is not a swarm manager."), "{text}");
        }
        assert!(write(&control, &format!("without{}", host.id())).await);
        eventually("it works on", || is_up(&control, &host.id())).await;
    }
    for name in &acknowledged {
        assert!(has(&control, name), "{name} is lost");
    }
    assert!(!temp.path().join("3/swarm/etcd").exists());
    // And up again.
    set_role(&control, &third.id(), NodeRole::Manager).await;
    eventually("it is a manager", || third.swarm.control().is_ok()).await;
    let again = third.swarm.control().unwrap();
    assert!(write(&again, "promoted").await);
    eventually("both know", || has(&control, "promoted")).await;
    // Demoted and promoted again before it took note.
    set_role(&control, &third.id(), NodeRole::Worker).await;
    set_role(&control, &third.id(), NodeRole::Manager).await;
    eventually("it is a manager still", || {
        third.swarm.control().is_ok()
            && reaches(&control, &third.id()) == Some(Reachability::Reachable)
    })
    .await;
    let again = third.swarm.control().unwrap();
    again.create_config(config("promoted-twice")).await.unwrap();
    for host in [&third, &second, &worker, &first] {
        let _ = host.swarm.leave(true).await;
    }
    assert!(second.etcd().is_none() && third.etcd().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_of_somebody_else_keeps_the_swarm() {
    let etcd = Etcd::start();
    let temp = tempfile::tempdir().unwrap();
    let mut first = Host::new(&temp.path().join("1")).await;
    let mut second = Host::new(&temp.path().join("2")).await;
    let external = ExternalStore { endpoints: vec![etcd.endpoint()], tls: etcd.tls() };
    for host in [&mut first, &mut second] {
        host.settings.external = Some(external.clone());
        host.swarm.shutdown().await;
        host.boot().await;
    }
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    assert!(write(&control, "one").await);
    control.create_service(service("web", "img", 2)).await.unwrap();
    eventually("the tasks run", || running(&control, "web") == 2).await;
    first.swarm.shutdown().await;
    first.boot().await;
    let control = first.swarm.control().unwrap();
    assert!(has(&control, "one"), "it is there after a restart");
    eventually("the tasks run on", || running(&control, "web") == 2).await;

    second.join(&control, NodeRole::Manager).await;
    let other = second.swarm.control().unwrap();
    assert!(has(&other, "one") && write(&other, "two").await);
    eventually("both see it", || has(&control, "two")).await;
    assert!(first.etcd().is_none() && second.etcd().is_none(), "no etcd of its own");
    let names = etcd.ctl(&["get", "/brig/", "--prefix", "--keys-only"]);
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(names.contains("/s/o/config/"), "{names}");
    assert_eq!(names.matches("/s/head").count(), 1);

    // With etcd's own limits a transaction has at most 128 operations: what needs more is done in
    // several, by the loops as well as by the agents' reports.
    let created = other.create_service(service("many", "img", 150)).await.unwrap();
    eventually("more tasks run than one transaction holds", || running(&control, "many") == 150)
        .await;
    control.remove_service(&created).await.unwrap();
    eventually("they are gone", || control.tasks().iter().all(|task| task.service_id != created))
        .await;

    // Without its settings the swarm is not taken up, and says why.
    first.swarm.shutdown().await;
    first.settings.external = None;
    first.boot().await;
    let status = first.swarm.status();
    assert!(status.error.contains("--store"), "{}", status.error);
    second.swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_quorum_reading_goes_on_and_one_can_begin_anew() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let mut second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;
    assert!(write(&control, "before").await);
    second.die().await;
    let refused = control.create_config(config("refused")).await.unwrap_err();
    assert!(refused.to_string().contains("The swarm does not have a leader"), "{refused}");
    let told = brig_types::error::chain(&refused);
    assert!(told.contains("docker swarm init --force-new-cluster"), "{told}");
    assert!(has(&control, "before"));
    eventually("it is told", || !control.is_current()).await;

    // A restart without the others: reading goes on.
    first.swarm.shutdown().await;
    first.boot().await;
    let control = first.swarm.control().unwrap();
    assert!(has(&control, "before") && !control.is_current());

    let request = InitRequest { force_new_cluster: true, ..first.init() };
    assert_eq!(first.swarm.init(request).await.unwrap(), first.id());
    let control = first.swarm.control().unwrap();
    assert!(has(&control, "before"));
    assert!(write(&control, "anew").await);
    assert_eq!(control.node(&second.id()).map(|node| node.role()).ok(), Some(NodeRole::Worker));

    // The other one comes back, as what it is now; what it knew opens nothing that is written then.
    second.boot().await;
    eventually("it is a worker", || is_up(&control, &second.id()) && is_worker(&second)).await;
    settled(&control, 1).await;
    first.swarm.leave(true).await.unwrap();
}

fn is_worker(host: &Host) -> bool {
    let status = host.swarm.status();
    status.local_node_state == LocalNodeState::Active && !status.control_available
}

/// A manager that was taken in and never got ready, because its machine died or something else has
/// its port, keeps nobody else out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_never_starts_holds_up_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;

    let third = Host::new(&temp.path().join("3")).await;
    let taken = TcpListener::bind(("127.0.0.1", third.settings.peer_port)).unwrap();
    let request = third.request(&control, NodeRole::Manager);
    let refused = brig_types::error::chain(&third.swarm.join(request).await.unwrap_err());
    for part in ["something else listens already", "docker node demote", "docker node rm --force"] {
        assert!(refused.contains(part), "{part:?} is not in {refused:?}");
    }
    let members = || first.etcdctl(&["member", "list"]).map(|list| list.lines().count());
    assert_eq!(members(), Ok(2), "nobody counts on it");
    let nodes = control.nodes();
    let known = [first.id(), second.id()];
    let stranger = nodes.iter().find(|node| !known.contains(&node.id)).unwrap();
    set_role(&control, &stranger.id, NodeRole::Worker).await;
    drop(taken);

    // As if it had died when it was taken in.
    let url = format!("--peer-urls=https://127.0.0.1:{}", port());
    eventually("a learner", || first.etcdctl(&["member", "add", "x", "--learner", &url]).is_ok())
        .await;
    set_role(&control, &second.id(), NodeRole::Worker).await;
    eventually("both members go", || members() == Ok(1)).await;
    third.join(&control, NodeRole::Manager).await;
    eventually("the third one is a member", || members() == Ok(2)).await;
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}

/// A manager that was demoted while it was away comes back between the change of the data key and
/// that of the store's authority: it reaches the store, and can read nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_lost_its_role_while_it_was_away_is_a_worker() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, mut third]) = three_managers(temp.path()).await;
    let before = control.data_keys().await.unwrap().generation;
    third.die().await;
    set_role(&control, &third.id(), NodeRole::Worker).await;
    settled(&control, before + 1).await;
    third.boot().await;
    eventually("it is a worker", || is_up(&control, &third.id()) && is_worker(&third)).await;
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}

async fn settled(control: &Control, generation: u64) -> String {
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let keys = control.data_keys().await.unwrap();
        if !keys.rotating && keys.generation >= generation && keys.records.len() == 1 {
            return keys.current;
        }
        assert!(Instant::now() < until, "{keys:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every manager has a data key before anything is sealed with it, and the cluster's unlock key
/// locks each of them. Who is demoted keeps neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_on_all_managers() {
    let temp = tempfile::tempdir().unwrap();
    let first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let mut second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;
    let other = second.swarm.control().unwrap();
    assert!(write(&control, "before").await);
    let old = settled(&control, 0).await;
    assert_eq!(settled(&other, 0).await, old);

    other.rotate_data_key("a test").await.unwrap();
    let new = settled(&control, 1).await;
    assert_ne!(new, old);
    assert_eq!(settled(&other, 1).await, new);
    assert!(write(&control, "one").await && write(&other, "other").await);
    eventually("both know both", || has(&control, "other") && has(&other, "one")).await;

    let cluster = control.cluster().unwrap();
    let mut spec = cluster.spec.clone().unwrap();
    spec.encryption_config.get_or_insert_default().auto_lock_managers = true;
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    control.update_cluster(version, spec, TokenRotation::default()).await.unwrap();
    let unlock = control.show_unlock_key().await.unwrap().unwrap();
    settled(&other, 2).await;
    let file = second.dir.join("swarm/certificates/swarm-node.key");
    let is_locked = || {
        let file = std::fs::read_to_string(&file).unwrap();
        file.contains("BRIG ENCRYPTED PRIVATE KEY") && !file.contains("brig-kek")
    };
    let is_sealed = || is_locked() && !std::fs::read_to_string(&file).unwrap().contains("escrow");
    eventually("the other one is locked", is_sealed).await;
    drop(other);
    second.id();
    second.swarm.shutdown().await;
    second.boot().await;
    assert_eq!(second.swarm.status().local_node_state, LocalNodeState::Locked);
    second.swarm.unlock(unlock.expose_secret()).await.unwrap();
    assert!(has(&second.swarm.control().unwrap(), "before"));

    set_role(&control, &second.id(), NodeRole::Worker).await;
    eventually("it is a worker", || second.swarm.control().is_err()).await;
    eventually("it is not locked any more", || !is_locked()).await;
    assert!(!std::fs::read_to_string(&file).unwrap().contains("brig-cluster-dek"));
    settled(&control, 3).await;
    second.swarm.leave(false).await.unwrap();
    first.swarm.leave(true).await.unwrap();
}

/// Whether a manager works as one: it is heard of, takes writes, and the others hear of them.
async fn is_whole(host: &Host, through: &Control, what: &str) {
    eventually(what, || {
        host.swarm.control().is_ok()
            && host.etcd().is_some()
            && reaches(through, &host.id()) == Some(Reachability::Reachable)
    })
    .await;
    let until = Instant::now() + Duration::from_secs(30);
    let name =
        format!("{}-{:?}", host.id(), Instant::now()).replace(|c: char| !c.is_alphanumeric(), "");
    // It may be on its way back into the store, with another control each time.
    while !matches!(host.swarm.control(), Ok(control) if write(&control, &name).await) {
        assert!(Instant::now() < until, "{what}: no write is taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually(what, || has(through, &name)).await;
}

/// A promotion right after a demotion meets the node anywhere on its way down: it has not heard of
/// it, asks for its certificate, has it, stops. `BRIG_ROLES` sets how often this is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_may_be_taken_back_at_any_moment() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, third]) = three_managers(temp.path()).await;
    let pauses = [
        200, 620, 1050, 1200, 0, 100, 500, 550, 580, 650, 700, 800, 900, 1000, 1100, 1300, 1500,
        2000,
    ];
    let times = std::env::var("BRIG_ROLES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for pause in pauses.into_iter().cycle().take(times) {
        is_whole(&third, &control, &format!("before {pause} ms")).await;
        is_whole(&second, &control, &format!("before {pause} ms")).await;
        let begin = Instant::now();
        set_role(&control, &third.id(), NodeRole::Worker).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        set_role(&control, &third.id(), NodeRole::Manager).await;
        // A moment later it may seem to be there, and then begin to stop.
        tokio::time::sleep(Duration::from_secs(3)).await;
        is_whole(&third, &control, &format!("after {pause} ms")).await;
        println!("{pause} ms: {:?}", begin.elapsed());
    }
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}

/// The leader takes a former manager's member out; its demotion may have been taken back before it
/// heard of either. It finds its way into the store again, also when it was away meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_member_was_taken_out_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, mut third]) = three_managers(temp.path()).await;
    for is_away in [false, true] {
        is_whole(&third, &control, "all is well").await;
        if is_away {
            third.die().await;
        }
        first.take_out(&third.id()).await;
        assert!(write(&control, &format!("without-{is_away}")).await);
        if is_away {
            third.boot().await;
        }
        let until = Instant::now() + Duration::from_secs(40);
        let is_back = || {
            third.swarm.control().is_ok_and(|it| has(&it, &format!("without-{is_away}")))
                && first.members() == 3
        };
        while !is_back() {
            assert!(Instant::now() < until, "away: {is_away}, {:?}", third.swarm.status());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        is_whole(&third, &control, "it is back").await;
    }
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}
