//! Nodes that join: a second brigd, and a brigd under a manager of Docker Engine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/dockerd.rs"]
mod dockerd;
#[path = "common/image.rs"]
mod image;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Daemon, Ran, clis};
use dockerd::Dockerd;
use image::NAME;

/// Longest time until something that has to happen has happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs docker CLIs against one of the daemons.
trait Docker {
    fn command(&self, arguments: &[&str]) -> Command;

    fn run_docker(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run_docker(arguments);
        assert!(ran.code == 0, "docker {arguments:?}: {ran:?}");
        ran.out.trim().to_owned()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.run_docker(arguments);
        assert!(ran.code != 0, "docker {arguments:?}: {ran:?}");
        ran.err.trim().to_owned()
    }

    fn eventually(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ran = self.run_docker(arguments);
            if ran.code == 0 && wanted(ran.out.trim()) {
                return ran.out.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "docker {arguments:?}: {ran:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn store(&self, kind: &str, name: &str, content: &[u8]) {
        let mut child = self
            .command(&[kind, "create", name, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn token(&self, role: &str) -> String {
        self.ok(&["swarm", "join-token", "-q", role])
    }

    fn swarm(&self, field: &str) -> String {
        self.ok(&["info", "--format", &format!("{{{{.Swarm.{field}}}}}")])
    }
}

/// A brigd that may be in a swarm.
struct Node(Daemon);

impl Docker for Node {
    fn command(&self, arguments: &[&str]) -> Command {
        self.0.docker(clis().first().unwrap(), arguments)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Else the swarm replaces every container that is removed.
        self.run_docker(&["swarm", "leave", "--force"]);
    }
}

impl Docker for Dockerd {
    fn command(&self, arguments: &[&str]) -> Command {
        self.docker(arguments)
    }
}

/// A brigd with a busybox image; `None` where that cannot be.
fn node() -> Option<Node> {
    clis().first()?;
    let node = Node(Daemon::start());
    let archive = image::archive(&node.0.dir)?;
    node.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
    Some(node)
}

const WORKER_REFUSES: &str = "Error response from daemon: This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/// Prints the secret's size and the config, then goes on.
const SHOW: &str = "wc -c </run/secrets/db; cat /site; exec sleep 1000";

fn serve(manager: &impl Docker, name: &str, flags: &[&str]) {
    let mut all = vec!["service", "create", "-d", "-q", "--no-resolve-image", "--name", name];
    all.extend(["--stop-grace-period=0s", "--secret=db", "--config=source=site,target=/site"]);
    all.extend(flags);
    all.extend([NAME, "sh", "-c", SHOW]);
    manager.ok(&all);
}

#[test]
fn a_second_brigd_works_for_the_first() {
    let (Some(manager), Some(mut worker)) = (node(), node()) else { return };
    let made = manager.0.post("/v1.41/swarm/init", r#"{"ListenAddr":"127.0.0.1:0"}"#);
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    let own = manager.swarm("NodeID");
    let address = manager.ok(&["node", "inspect", "--format", "{{.ManagerStatus.Addr}}", &own]);

    let join = |token: &str| {
        let token = format!("--token={token}");
        worker.run_docker(&["swarm", "join", &token, &address])
    };
    assert_eq!(join("x").err.trim(), "Error response from daemon: invalid join token");
    assert_eq!(worker.swarm("LocalNodeState"), "inactive");
    let joined = join(&manager.token("worker"));
    assert_eq!(joined.out.trim(), "This node joined a swarm as a worker.", "{joined:?}");
    assert!(join("x").err.contains("This node is already part of a swarm."));

    assert_eq!(worker.swarm("LocalNodeState"), "active");
    assert_eq!(worker.swarm("ControlAvailable"), "false");
    assert_eq!(worker.swarm("NodeAddr"), "127.0.0.1");
    assert_eq!(worker.swarm("RemoteManagers"), format!("[{{{own} {address}}}]"));
    let id = worker.swarm("NodeID");
    for command in [&["node", "ls"][..], &["service", "ls"], &["secret", "ls"]] {
        assert_eq!(worker.refused(command), WORKER_REFUSES);
    }
    let nodes = manager.ok(&["node", "ls", "--format", "{{.ID}} {{.Status}} {{.Availability}}"]);
    assert!(nodes.contains(&format!("{id} Ready Active")), "{nodes}");

    manager.store("secret", "db", b"hunter2-on-no-disk");
    manager.store("config", "site", b"config-content\n");
    serve(&manager, "web", &["--mode=global"]);
    let list = ["ps", "-q", "--no-trunc"];
    for daemon in [&manager, &worker] {
        daemon.eventually(&list, |out| out.lines().count() == 1);
    }
    let logs = ["service", "logs", "--raw", "web"];
    manager.eventually(&logs, |out| out.matches("18\nconfig-content").count() == 2);
    let here = worker.ok(&list);
    let secret = worker.ok(&["exec", &here, "cat", "/run/secrets/db"]);
    assert_eq!(secret, "hunter2-on-no-disk");

    // The worker's daemon is restarted: the very same container, still managed.
    worker.0.signal(rustix::process::Signal::KILL);
    worker.0.wait();
    worker.0.launch();
    assert_eq!(worker.ok(&list), here);
    worker.eventually(&["info", "--format", "{{.Swarm.LocalNodeState}}"], |out| out == "active");
    assert_eq!(worker.swarm("NodeID"), id);

    manager.ok(&["node", "update", "--availability=drain", &id]);
    worker.eventually(&list, str::is_empty);
    manager.ok(&["node", "update", "--availability=active", "--label-add=disk=ssd", &id]);
    worker.eventually(&list, |out| out.lines().count() == 1);
    serve(&manager, "labelled", &["--constraint=node.labels.disk==ssd", "--replicas=2"]);
    worker.eventually(&list, |out| out.lines().count() == 3);

    let up = manager.refused(&["node", "rm", &id]);
    assert!(up.contains(&format!("node {id} is not down and can't be removed")), "{up}");
    let start = Instant::now();
    manager.ok(&["node", "rm", "--force", &id]);
    worker.eventually(&["info", "--format", "{{.Swarm.Error}}"], |out| {
        out.contains("was removed from swarm")
    });
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    worker.ok(&["swarm", "leave"]);
    assert_eq!(worker.ok(&list), "");
    assert_eq!(worker.swarm("LocalNodeState"), "inactive");
}

#[test]
fn a_brigd_works_for_a_manager_of_docker_engine() {
    let Some(manager) = Dockerd::start() else { return };
    let Some(mut worker) = node() else { return };
    manager.ok(&["swarm", "init", "--advertise-addr", &manager.address]);
    let token = format!("--token={}", manager.token("worker"));
    let joined = worker.ok(&["swarm", "join", &token, &manager.address]);
    assert_eq!(joined, "This node joined a swarm as a worker.");
    assert_eq!(worker.swarm("LocalNodeState"), "active");
    assert_eq!(worker.swarm("NodeAddr"), manager.here);
    let id = worker.swarm("NodeID");
    let state = ["node", "inspect", "--format", "{{.Status.State}} {{.Status.Addr}}", &id];
    assert_eq!(manager.ok(&state), format!("ready {}", manager.here));

    manager.store("secret", "db", b"hunter2-on-no-disk");
    manager.store("config", "site", b"config-content\n");
    serve(&manager, "web", &["--constraint=node.role==worker", "--replicas=2"]);
    let list = ["ps", "-q", "--no-trunc"];
    worker.eventually(&list, |out| out.lines().count() == 2);
    let replicas = ["service", "ls", "--format", "{{.Replicas}}"];
    manager.eventually(&replicas, |out| out == "2/2");
    let logs = ["service", "logs", "--raw", "web"];
    manager.eventually(&logs, |out| out.matches("18\nconfig-content").count() == 2);
    let first = worker.ok(&list).lines().next().unwrap().to_owned();
    let secret = worker.ok(&["exec", &first, "cat", "/run/secrets/db"]);
    assert_eq!(secret, "hunter2-on-no-disk");

    // A restarted daemon finds its containers and its manager.
    let before = worker.ok(&list);
    worker.0.signal(rustix::process::Signal::KILL);
    worker.0.wait();
    worker.0.launch();
    worker.eventually(&["info", "--format", "{{.Swarm.LocalNodeState}}"], |out| out == "active");
    assert_eq!((worker.ok(&list), worker.swarm("NodeID")), (before, id.clone()));

    // One that is killed is replaced, scaling reaches the node.
    worker.ok(&["kill", &first]);
    worker.eventually(&list, |out| out.lines().count() == 2 && !out.contains(&first));
    manager.ok(&["service", "scale", "-d", "web=3"]);
    manager.eventually(&replicas, |out| out == "3/3");

    manager.ok(&["node", "update", "--availability=drain", &id]);
    worker.eventually(&list, str::is_empty);
    manager.ok(&["node", "update", "--availability=active", &id]);
    worker.eventually(&list, |out| out.lines().count() == 3);
    worker.ok(&["swarm", "leave"]);
    assert_eq!(worker.ok(&list), "");
    manager.eventually(&["node", "inspect", "--format", "{{.Status.State}}", &id], |out| {
        out == "down"
    });
    manager.ok(&["node", "rm", &id]);

    // A promoted node has no part in the manager's store and goes on as a worker.
    worker.ok(&["swarm", "join", &token, &manager.address]);
    let again = worker.swarm("NodeID");
    assert_ne!(again, id);
    manager.ok(&["node", "promote", &again]);
    std::thread::sleep(Duration::from_secs(1));
    worker.0.signal(rustix::process::Signal::KILL);
    worker.0.wait();
    worker.0.launch();
    worker.eventually(&["info", "--format", "{{.Swarm.LocalNodeState}}"], |out| out == "active");
    assert_eq!(worker.swarm("ControlAvailable"), "false");
    worker.ok(&["swarm", "leave"]);
}
