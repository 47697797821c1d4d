//! A node's life, each engine managing workers of its own kind: joining, being lost, getting a
//! certificate of a new root. Every daemon has a host of its own (`tests/lib/hosts.sh`).

use std::time::{Duration, Instant};

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{eventually, http};
use serde_json::{Value, json};

use crate::measure::{self, Comparison, millis};

const PORT: u16 = 2377;
/// Between two looks at a manager.
const STEP: Duration = Duration::from_millis(2);
/// dockerd takes up to a minute to give a node up.
const PATIENCE: Duration = Duration::from_secs(180);
const SERVICE: &str = "wanderer";
const KINDS: [Kind; 2] = [Kind::Dockerd, Kind::Brigd];

/// A manager with workers of its own kind; the manager comes first.
struct Cluster {
    hosts: Hosts,
    nodes: Vec<HostNode>,
}

impl Cluster {
    fn start(kind: Kind, count: usize) -> Self {
        let hosts = Hosts::up(count);
        let nodes: Vec<HostNode> = (1..=count).map(|host| hosts.start(host, kind)).collect();
        let cluster = Self { hosts, nodes };
        cluster.manager().init_swarm();
        cluster
    }

    fn manager(&self) -> &HostNode {
        &self.nodes[0]
    }

    fn workers(&self) -> &[HostNode] {
        &self.nodes[1..]
    }

    fn ask(&self, path: &str) -> Value {
        http::get(&self.manager().socket(), path)
    }

    fn nodes_ready(&self) -> usize {
        let nodes = self.ask("/v1.41/nodes");
        let ready = |node: &&Value| node["Status"]["State"] == "ready";
        nodes.as_array().map_or(0, |nodes| nodes.iter().filter(ready).count())
    }
}

/// Asks until it is so, at a pace that does not show in the figure.
fn until(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(STEP);
    }
    start.elapsed()
}

fn heading(what: &str) {
    println!("\n{what}; milliseconds\n\n{}", Comparison::header());
}

/// From the request to join to the manager showing the node as ready.
pub(crate) fn join(rounds: usize) {
    heading(&format!("a worker joins its own kind of manager, {rounds} rounds each, in turns"));
    let clusters = KINDS.map(|kind| Cluster::start(kind, 2));
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (cluster, times) in clusters.iter().zip(&mut taken) {
            times.push(millis(join_once(cluster)));
        }
    }
    measure::print("join to Ready (Engine API)", taken, "1.0x");
}

fn join_once(cluster: &Cluster) -> Duration {
    let (manager, worker) = (cluster.manager(), &cluster.workers()[0]);
    let token = cluster.ask("/v1.41/swarm")["JoinTokens"]["Worker"].clone();
    let request = json!({
        "ListenAddr": format!("0.0.0.0:{PORT}"),
        "RemoteAddrs": [format!("{}:{PORT}", manager.address)],
        "JoinToken": token,
    });
    let start = Instant::now();
    http::post(&worker.socket(), "/v1.41/swarm/join", &request).unwrap();
    until("the node is ready", PATIENCE, || cluster.nodes_ready() == 2);
    let took = start.elapsed();
    let id = worker.id();
    worker.ok(&["swarm", "leave"]);
    eventually("the manager sees it leave", PATIENCE, || {
        manager.client().run(&["node", "rm", "--force", &id]).code == 0
    });
    took
}

/// From the cut of a cable to the replacement task running on another host.
pub(crate) fn loss(rounds: usize) {
    heading(&format!("a host is cut off: until its task runs on another, {rounds} rounds each"));
    // Waiting costs nothing: both at once.
    let taken = std::thread::scope(|scope| {
        KINDS
            .map(|kind| scope.spawn(move || lose(kind, rounds)))
            .map(|thread| thread.join().unwrap())
    });
    measure::print("node loss to replacement running (under 15 s)", taken, "<15s");
}

fn lose(kind: Kind, rounds: usize) -> Vec<f64> {
    let cluster = Cluster::start(kind, 3);
    let manager = cluster.manager();
    for worker in cluster.workers() {
        worker.load_busybox();
        let _ = worker.join(manager);
    }
    let create = ["service", "create", "-d", "-q", "--no-resolve-image", "--name", SERVICE];
    let task = ["--constraint=node.role==worker", "busybox", "sleep", "100000"];
    manager.ok(&[&create[..], &task[..]].concat());
    let mut taken = Vec::new();
    for _ in 0..rounds {
        until("the service runs", PATIENCE, || running_on(&cluster).is_some());
        let old = running_on(&cluster).unwrap();
        let host = cluster.workers().iter().find(|worker| worker.id() == old).unwrap().host;
        cluster.hosts.cut(host);
        let elsewhere = || running_on(&cluster).is_some_and(|node| node != old);
        taken.push(millis(until("the task runs elsewhere", PATIENCE, elsewhere)));
        cluster.hosts.heal(host);
        until("the host is back", PATIENCE, || cluster.nodes_ready() == 3);
    }
    taken
}

/// The node that has the service's wanted task, if that runs.
fn running_on(cluster: &Cluster) -> Option<String> {
    let tasks =
        cluster.ask("/v1.41/tasks?filters=%7B%22desired-state%22%3A%7B%22running%22%3Atrue%7D%7D");
    let runs = |task: &&Value| task["Status"]["State"] == "running";
    // A node that is down takes its tasks' last reports with it: what counts is a task on a node
    // that is ready.
    let task = tasks.as_array()?.iter().find(runs)?.clone();
    task["NodeID"].as_str().map(str::to_owned)
}

/// From the request for a new root to every node having a certificate of it.
pub(crate) fn rotation(rounds: usize) {
    heading(&format!("a new root for three nodes, {rounds} rounds each, in turns"));
    let clusters = KINDS.map(|kind| {
        let cluster = Cluster::start(kind, 3);
        for worker in cluster.workers() {
            let _ = worker.join(cluster.manager());
        }
        cluster
    });
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (cluster, times) in clusters.iter().zip(&mut taken) {
            times.push(millis(rotate(cluster)));
        }
    }
    measure::print("swarm ca --rotate to all nodes on the new root", taken, "1.0x");
}

fn rotate(cluster: &Cluster) -> Duration {
    let swarm = || cluster.ask("/v1.41/swarm");
    let old = swarm()["TLSInfo"]["TrustRoot"].clone();
    let start = Instant::now();
    cluster.manager().ok(&["swarm", "ca", "--rotate", "--detach"]);
    until("every node is on the new root", PATIENCE, || {
        let swarm = swarm();
        let root = &swarm["TLSInfo"]["TrustRoot"];
        let nodes = cluster.ask("/v1.41/nodes");
        *root != old
            && swarm["RootRotationInProgress"] == false
            && nodes.as_array().is_some_and(|nodes| {
                nodes.iter().all(|node| node["Description"]["TLSInfo"]["TrustRoot"] == *root)
            })
    });
    start.elapsed()
}
