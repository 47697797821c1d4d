//! Several managers on one machine, each with a real etcd: joining, writing everywhere, losing
//! one, promotion and demotion, and the way back from a lost quorum.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod certificates;
#[path = "../common/mod.rs"]
mod common;
#[path = "../../../brig-store/tests/common/etcd.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod etcd;
mod life;
mod quorum;
mod roles;

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

fn is_worker(host: &Host) -> bool {
    let status = host.swarm.status();
    status.local_node_state == LocalNodeState::Active && !status.control_available
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
