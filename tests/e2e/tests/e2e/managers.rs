//! Three managers on three hosts and a worker on a fourth: the real docker CLI writes on all of
//! them while hosts lose power and the network breaks. Every write that was acknowledged is there
//! at the end, and no task was stopped.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{Client, eventually, http};

const PATIENCE: Duration = Duration::from_secs(60);

/// Writes configs through one manager all the while and remembers what was acknowledged.
struct Writer {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(node: &HostNode, from: usize) -> Self {
        let (acknowledged, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (node, done, stop) = (node.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
            move || write_on(&node, from, &done, &stop)
        });
        Self { acknowledged, stop, thread: Some(thread) }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until that many more were acknowledged.
    fn goes_on(&self, more: usize) {
        let wanted = self.count() + more;
        eventually("writes go on", PATIENCE, || self.count() >= wanted);
    }

    fn end(&mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

fn write_on(node: &HostNode, from: usize, done: &Mutex<BTreeSet<String>>, stop: &AtomicBool) {
    for number in from.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("h{}-{number}", node.host);
        let body = serde_json::json!({"Name": name, "Data": "eA=="});
        if http::post(&node.socket(), "/v1.41/configs/create", &body).is_ok() {
            done.lock().unwrap().insert(name);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn configs(node: &HostNode) -> BTreeSet<String> {
    let all = http::get(&node.socket(), "/v1.41/configs");
    let all = all.as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|config| Some(config["Spec"]["Name"].as_str()?.to_owned())).collect()
}

/// What `docker node ls` shows of the managers.
fn standing(node: &HostNode) -> Vec<(String, String)> {
    let nodes = http::get(&node.socket(), "/v1.41/nodes");
    let nodes = nodes.as_array().cloned().unwrap_or_default();
    nodes
        .iter()
        .filter_map(|node| {
            let status = node.get("ManagerStatus")?;
            let word = if status["Leader"].as_bool() == Some(true) {
                "leader"
            } else {
                status["Reachability"].as_str()?
            };
            Some((node["ID"].as_str()?.to_owned(), word.to_owned()))
        })
        .collect()
}

fn leader(node: &HostNode) -> Option<String> {
    standing(node).into_iter().find(|(_, word)| word == "leader").map(|(id, _)| id)
}

fn all_reachable(node: &HostNode, managers: usize) -> bool {
    let standing = standing(node);
    standing.len() == managers
        && standing.iter().all(|(_, word)| word != "unreachable" && word != "unknown")
}

fn join(node: &HostNode, through: &HostNode, role: &str) -> String {
    let token = through.ok(&["swarm", "join-token", "-q", role]);
    let peer = format!("{}:2377", through.address);
    let _ =
        node.ok(&["swarm", "join", "--token", &token, "--advertise-addr", &node.address, &peer]);
    node.id()
}

fn running(node: &HostNode) -> BTreeSet<String> {
    let client: Client = node.client();
    let tasks = client.run(&[
        "service",
        "ps",
        "web",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.ID}} {{.CurrentState}}",
        "--no-trunc",
    ]);
    let lines = tasks.stdout.lines().filter(|line| line.contains("Running"));
    lines.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

#[test]
fn three_managers_lose_hosts_and_the_network_but_no_write() {
    let hosts = Hosts::up(4);
    let mut managers: Vec<HostNode> = (1..=3).map(|host| hosts.start(host, Kind::Brigd)).collect();
    let worker = hosts.start(4, Kind::Brigd);
    managers[0].load_busybox();
    worker.load_busybox();
    managers[0].init_swarm();
    let worker_id = join(&worker, &managers[0], "worker");
    let _ = managers[0].ok(&[
        "service",
        "create",
        "-d",
        "-q",
        "--no-resolve-image",
        "--name",
        "web",
        "--replicas",
        "3",
        "--constraint",
        "node.role==worker",
        "busybox:latest",
        "sleep",
        "100000",
    ]);
    eventually("the tasks run", PATIENCE, || running(&managers[0]).len() == 3);
    let tasks = running(&managers[0]);

    // The embedded store, then the second and the third manager, while writes go on.
    let mut writers = vec![Writer::start(&managers[0], 0)];
    writers[0].goes_on(20);
    let mut ids = vec![managers[0].id()];
    for host in 1..3 {
        ids.push(join(&managers[host], &managers[host - 1], "manager"));
        writers.push(Writer::start(&managers[host], 0));
        writers[host].goes_on(20);
    }
    for manager in &managers {
        eventually("all are reachable", PATIENCE, || all_reachable(manager, 3));
        assert_eq!(leader(manager), Some(ids[0].clone()));
    }
    let info = managers[2].ok(&["info", "--format", "{{.Swarm.Managers}} {{.Swarm.Nodes}}"]);
    assert_eq!(info, "3 4");
    eventually("the worker knows them", PATIENCE, || {
        let info = http::get(&worker.socket(), "/v1.41/info");
        info["Swarm"]["RemoteManagers"].as_array().is_some_and(|all| all.len() == 3)
    });

    // The leader's host loses power.
    let _ = hosts.script(&["kill", "1"]).ok();
    let lost = Instant::now();
    let before = writers[1].count();
    eventually("a write is accepted", PATIENCE, || writers[1].count() > before);
    println!("leader lost to the next accepted write: {:?}", lost.elapsed());
    eventually("another one leads", PATIENCE, || {
        leader(&managers[1]).is_some_and(|id| id != ids[0])
    });
    eventually("the lost one is seen to be", PATIENCE, || {
        standing(&managers[1]).contains(&(ids[0].clone(), "unreachable".to_owned()))
    });
    writers[1].goes_on(10);
    writers[2].goes_on(10);
    let mut acknowledged = writers[0].end();

    // It comes back.
    let _ = hosts.script(&["boot", "1"]).ok();
    managers[0] = hosts.start(1, Kind::Brigd);
    eventually("all are reachable again", PATIENCE, || all_reachable(&managers[2], 3));
    writers[0] = Writer::start(&managers[0], 100_000);
    writers[0].goes_on(10);

    // One is cut off: it refuses writes and goes on reading, marked; the others work on.
    let cut = managers.iter().position(|m| leader(&managers[0]) == Some(m.id())).unwrap();
    hosts.cut(cut + 1);
    let other = (cut + 1) % 3;
    eventually("another one leads", PATIENCE, || {
        leader(&managers[other]).is_some_and(|id| id != ids[cut])
    });
    writers[other].goes_on(10);
    let refused = managers[cut].client().run(&["config", "create", "never", "/etc/hostname"]);
    assert!(refused.stderr.contains("The swarm does not have a leader"), "{}", refused.stderr);
    eventually("what it reads is marked", PATIENCE, || {
        let answer = http::get_raw(&managers[cut].socket(), "/v1.41/configs");
        answer.to_ascii_lowercase().contains("brig-stale: true") && answer.contains("h1-0")
    });
    let told = managers[cut].client().run(&["info"]).stderr;
    assert!(told.contains("this manager has lost the other managers"), "{told}");
    let shown = managers[cut].ok(&["node", "ls", "--format", "{{.ManagerStatus}}"]);
    assert!(!shown.contains("Leader") && shown.matches("Unknown").count() == 2, "{shown}");
    hosts.heal(cut + 1);
    eventually("it is back", PATIENCE, || all_reachable(&managers[other], 3));
    writers[cut].goes_on(10);

    // One manager is replaced: out, its data gone, and in again.
    let judge = &managers[0];
    let _ = judge.ok(&["node", "demote", &ids[2]]);
    eventually("it is a worker", PATIENCE, || {
        let info = http::get(&managers[2].socket(), "/v1.41/info");
        info["Swarm"]["ControlAvailable"].as_bool() == Some(false)
    });
    assert_eq!(standing(judge).len(), 2);
    assert!(!managers[2].data().join("swarm/etcd/data").exists());
    for writer in &mut writers {
        acknowledged.extend(writer.end());
    }
    eventually("everything is there", PATIENCE, || acknowledged.is_subset(&configs(judge)));
    assert!(acknowledged.len() > 150, "{}", acknowledged.len());
    assert!(!configs(judge).contains("never"));
    assert_eq!(running(judge), tasks, "no task was touched");
    let _ = judge.ok(&["node", "promote", &ids[2]]);
    eventually("three again", PATIENCE, || all_reachable(judge, 3));

    // A worker's certificate opens nothing: etcd does not even finish the handshake.
    let certificate = worker.data().join("swarm/certificates/swarm-node.crt");
    let key = worker.data().join("swarm/certificates/swarm-node.key");
    let tried = hosts.script(&[
        "exec",
        "4",
        "env",
        "ETCDCTL_API=3",
        "etcdctl",
        "--endpoints",
        &format!("https://{}:2379", judge.address),
        "--insecure-skip-tls-verify",
        "--command-timeout",
        "3s",
        "--cert",
        &certificate.display().to_string(),
        "--key",
        &key.display().to_string(),
        "get",
        "/",
        "--prefix",
        "--keys-only",
    ]);
    assert!(tried.code != 0 && !tried.stdout.contains("/brig"), "{}", tried.stdout);

    // Two at once wait for each other, and keep their tasks meanwhile.
    let _ = judge.ok(&["node", "demote", &ids[1], &ids[2]]);
    eventually("both are workers that are heard of", PATIENCE, || {
        let is_worker = |node: &HostNode| {
            let info = http::get(&node.socket(), "/v1.41/info");
            info["Swarm"]["ControlAvailable"].as_bool() == Some(false)
        };
        let states = judge.ok(&["node", "ls", "--format", "{{.Status}}"]);
        managers[1..].iter().all(is_worker) && states.lines().all(|state| state == "Ready")
    });
    assert_eq!(running(judge), tasks, "no task was touched");
    assert!(!worker_id.is_empty());
}
