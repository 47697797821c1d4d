//! Three hosts with a network between them: a brigd that manages, a brigd and a dockerd that work
//! for it, and a fourth host that keeps asking what they serve.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{eventually, http, rpc};
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{HeartbeatRequest, dispatcher_client::DispatcherClient};
use serde_json::Value;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(45);
/// The host that asks.
const ASKER: usize = 4;
const SECRET: &str = "correct-horse-battery-staple";
/// Every worker of a service shows the secret that it can read.
const SERVE: &str = "cp /run/secrets/word /var/www/word; exec httpd -f -p 80 -h /var/www";
/// Longest time until an answer is there.
const ANSWER: Duration = Duration::from_secs(3);

/// Who asks all the hosts all the while, from a host of its own.
struct Asker {
    /// Which host was asked, and whether it answered.
    log: Arc<Mutex<Vec<(usize, bool)>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Asker {
    fn start(hosts: &Hosts, nodes: &[&HostNode]) -> Self {
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let space = hosts.network_namespace(ASKER);
        let threads = nodes.iter().map(|node| {
            let (log, stop, space) = (Arc::clone(&log), Arc::clone(&stop), space.clone());
            let (host, address) = (node.host, format!("{}:8080", node.address).parse().unwrap());
            std::thread::spawn(move || {
                enter(&space);
                while !stop.load(Ordering::Relaxed) {
                    let answered = ask(address).is_ok_and(|answer| answer.ends_with(SECRET));
                    log.lock().unwrap().push((host, answered));
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        });
        let threads = threads.collect();
        Self { log, stop, threads }
    }

    /// How many questions there were; a place to look from.
    fn now(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// Waits until each of the hosts has answered that often since.
    fn answers(&self, since: usize, hosts: &[usize], times: usize) {
        eventually("the hosts answer", PATIENCE, || {
            let log = self.log.lock().unwrap();
            let answers =
                |host| log[since..].iter().filter(|asked| **asked == (host, true)).count();
            hosts.iter().all(|host| answers(*host) >= times)
        });
    }

    /// None of the hosts failed to answer since.
    #[track_caller]
    fn no_gap(&self, since: usize, hosts: &[usize]) {
        self.answers(since, hosts, 3);
        for (at, (host, answered)) in self.log.lock().unwrap()[since..].iter().enumerate() {
            assert!(*answered || !hosts.contains(host), "host {host}, question {at} since {since}");
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One question.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /word HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Moves this thread into another network.
fn enter(space: &Path) {
    let space = std::fs::File::open(space).unwrap();
    let network = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(space.as_fd(), Some(network)).unwrap();
}

struct World {
    manager: HostNode,
    worker: HostNode,
    docker: HostNode,
    hosts: Hosts,
}

impl World {
    fn start() -> Self {
        let hosts = Hosts::up(ASKER);
        let (manager, worker, docker) = std::thread::scope(|scope| {
            let docker = scope.spawn(|| hosts.start(3, Kind::Dockerd));
            let worker = scope.spawn(|| hosts.start(2, Kind::Brigd));
            let manager = hosts.start(1, Kind::Brigd);
            (manager, worker.join().unwrap(), docker.join().unwrap())
        });
        for node in [&manager, &worker, &docker] {
            node.load_busybox();
        }
        Self { manager, worker, docker, hosts }
    }

    fn nodes(&self) -> [&HostNode; 3] {
        [&self.manager, &self.worker, &self.docker]
    }

    fn ask(&self, path: &str) -> Value {
        http::get(&self.manager.socket(), path)
    }

    /// Nodes in this state.
    fn count(&self, state: &str) -> usize {
        let nodes = self.ask("/v1.41/nodes");
        let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        nodes.iter().filter(|node| node["Status"]["State"] == state).count()
    }

    fn create(&self, name: &str, flags: &[&str]) {
        let mut args = vec!["service", "create", "-d", "-q", "--no-resolve-image"];
        args.extend(["--name", name, "--secret", "word", "--stop-grace-period", "0s"]);
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", SERVE]);
        let _ = self.manager.ok(&args);
    }

    /// The nodes that run a service's wanted tasks.
    fn places(&self, service: &str) -> Vec<String> {
        let filter = format!(
            "%7B%22service%22%3A%7B%22{service}%22%3Atrue%7D%2C%22desired-state%22%3A%7B%22running%22%3Atrue%7D%7D"
        );
        let tasks = self.ask(&format!("/v1.41/tasks?filters={filter}"));
        let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
        let runs = tasks.iter().filter(|task| task["Status"]["State"] == "running");
        let mut nodes: Vec<String> =
            runs.map(|task| task["NodeID"].as_str().unwrap().to_owned()).collect();
        nodes.sort();
        nodes
    }
}

/// Containers of a service on a node.
fn containers(node: &HostNode, service: &str) -> Vec<String> {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let listed = node.ok(&["ps", "-q", "--no-trunc", "--filter", &filter]);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn three_hosts_serve_through_rotation_loss_and_removal() {
    let world = World::start();
    world.manager.init_swarm();
    let worker = world.worker.join(&world.manager);
    let docker = world.docker.join(&world.manager);
    eventually("three nodes are ready", PATIENCE, || world.count("ready") == 3);

    let secret =
        world.manager.client().run_with(&["secret", "create", "word", "-"], SECRET.as_bytes());
    let _ = secret.ok();
    let port = "published=8080,target=80,mode=host";
    world.create("web", &["--mode", "global", "--publish", port]);
    world.create("wanderer", &["--replicas", "3"]);
    for service in ["web", "wanderer"] {
        eventually(&format!("{service} runs three times"), PATIENCE, || {
            world.places(service).len() == 3
        });
    }
    for node in world.nodes() {
        let here = containers(node, "web");
        assert_eq!(here.len(), 1);
        assert_eq!(node.ok(&["exec", &here[0], "cat", "/run/secrets/word"]), SECRET);
    }
    let asker = Asker::start(&world.hosts, &world.nodes());
    asker.answers(0, &[1, 2, 3], 1);
    let first = asker.now();
    asker.no_gap(first, &[1, 2, 3]);

    everybody_gets_a_new_root(&world, &asker);
    a_host_is_lost_and_comes_back(&world, &asker, &worker);
    a_removed_node_is_refused(&world, &docker);
}

fn everybody_gets_a_new_root(world: &World, asker: &Asker) {
    let running = || world.nodes().map(|node| containers(node, "web"));
    let trusted = |object: &Value| object["TrustRoot"].as_str().unwrap_or_default().to_owned();
    let (before, old) = (asker.now(), trusted(&world.ask("/v1.41/swarm")["TLSInfo"]));
    let containers_before = running();
    let _ = world.manager.ok(&["swarm", "ca", "--rotate", "--detach"]);
    let mut new = String::new();
    eventually("every node is on the new root", PATIENCE, || {
        let swarm = world.ask("/v1.41/swarm");
        let nodes = world.ask("/v1.41/nodes");
        new = trusted(&swarm["TLSInfo"]);
        !new.is_empty()
            && new != old
            && swarm["RootRotationInProgress"] == false
            && nodes.as_array().is_some_and(|nodes| {
                nodes.len() == 3
                    && nodes.iter().all(|node| trusted(&node["Description"]["TLSInfo"]) == new)
            })
    });
    let file = world.docker.data().join("swarm/certificates/swarm-root-ca.crt");
    eventually("dockerd has written the new root down", PATIENCE, || {
        std::fs::read_to_string(&file).is_ok_and(|root| root.trim() == new.trim())
    });
    asker.no_gap(before, &[1, 2, 3]);
    assert_eq!(running(), containers_before, "a rotation restarts nothing");
    assert_eq!(world.count("ready"), 3);
}

fn a_host_is_lost_and_comes_back(world: &World, asker: &Asker, worker: &str) {
    let before = asker.now();
    let lost = Instant::now();
    world.hosts.cut(2);
    eventually("the lost host's task runs elsewhere", PATIENCE, || {
        let places = world.places("wanderer");
        places.len() == 3 && !places.iter().any(|place| place == worker)
    });
    assert_eq!(world.count("down"), 1, "after {:?}", lost.elapsed());
    asker.no_gap(before, &[1, 3]);
    // A host that is cut off goes on with what it has.
    assert_eq!(containers(&world.worker, "web").len(), 1);

    world.hosts.heal(2);
    eventually("the host is back", PATIENCE, || world.count("ready") == 3);
    eventually("what was replaced ends", PATIENCE, || {
        containers(&world.worker, "wanderer").is_empty()
    });
    eventually("everything runs once", PATIENCE, || {
        let [global, replicas] = ["web", "wanderer"].map(|service| world.places(service).len());
        let here: usize =
            world.nodes().into_iter().map(|node| containers(node, "wanderer").len()).sum();
        (global, replicas, here) == (3, 3, 3)
    });
    let after = asker.now();
    asker.answers(after, &[1, 2, 3], 3);
}

/// The certificate that dockerd has keeps its signature and its validity: the manager has to know.
fn a_removed_node_is_refused(world: &World, docker: &str) {
    let swarm = world.ask("/v1.41/swarm");
    let roots = swarm["TLSInfo"]["TrustRoot"].as_str().unwrap().to_owned();
    let files = world.docker.data().join("swarm/certificates");
    let credentials = rpc::member_on_disk(&files, roots.as_bytes()).unwrap();
    let (code, message) = heartbeat(world, &credentials);
    assert_eq!((code, message.as_str()), (Code::InvalidArgument, "session invalid"));

    let _ = world.manager.ok(&["node", "rm", "--force", docker]);
    let (code, message) = heartbeat(world, &credentials);
    assert_eq!(code, Code::PermissionDenied, "{message}");
    assert!(message.contains(&format!("node {docker} was removed from swarm")), "{message}");
    eventually("two replicas move", PATIENCE, || {
        let places = world.places("wanderer");
        places.len() == 3 && !places.iter().any(|place| place == docker)
    });
}

/// The manager's answer to a heartbeat of a session that does not exist, from the network of
/// dockerd's host.
fn heartbeat(world: &World, credentials: &Arc<TlsCredentials>) -> (Code, String) {
    let space = world.hosts.network_namespace(3);
    let swarm = rpc::Swarm {
        address: format!("{}:2377", world.manager.address),
        token: String::new(),
        roots: Vec::new(),
    };
    let call = async {
        let channel = swarm.mutual(credentials).await.unwrap();
        let request = HeartbeatRequest { session_id: "none".to_owned() };
        let refused = DispatcherClient::new(channel).heartbeat(request).await.unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            enter(&space);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(call)
        });
        caller.join().unwrap()
    })
}
