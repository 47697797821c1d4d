//! Kills a process with a swarm at any moment and looks at what is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use brig_swarm::{LocalNodeState, SwarmError};
use common::*;

const VICTIM_DIR: &str = "BRIG_TEST_VICTIM_DIR";

/// Runs only as the child of the test below: makes secrets and says so, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else {
        return;
    };
    let machine = Machine::default();
    let swarm = open(Path::new(&dir), &machine).await;
    if swarm.status().local_node_state == LocalNodeState::Inactive {
        swarm.init(on_loopback()).await.unwrap();
    }
    let control = swarm.control().unwrap();
    println!("\nready");
    for number in 0.. {
        let name = format!("s{}-{number}", std::process::id());
        control.create_secret(secret(&name, name.as_bytes())).await.unwrap();
        println!("\nstored {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_daemon_is_killed() {
    let temp = tempfile::tempdir().unwrap();
    let mut stored = Vec::new();
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--nocapture"])
            .env(VICTIM_DIR, temp.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut wait_for = |prefix: &str| loop {
            let line = lines.next().expect("the child lives").unwrap();
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        };
        wait_for("ready");
        stored.push(wait_for("stored "));
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts as well.
        let said = lines.map_while(Result::ok);
        stored.extend(said.filter_map(|line| line.strip_prefix("stored ").map(str::to_owned)));
    }
    let swarm = open(temp.path(), &Machine::default()).await;
    assert_eq!(swarm.status().local_node_state, LocalNodeState::Active);
    let control = swarm.control().unwrap();
    assert!(stored.len() >= 6);
    for name in stored {
        control.secret(&name).unwrap();
    }
    swarm.shutdown().await;
}

/// A kill during `init` at any point leaves a node that is either in a swarm or in none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_init_leaves_all_or_nothing() {
    for delay in [0, 5, 10, 15, 20, 30, 40] {
        let temp = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--nocapture"])
            .env(VICTIM_DIR, temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let machine = Machine::default();
        let swarm = open(temp.path(), &machine).await;
        match swarm.status().local_node_state {
            LocalNodeState::Active => {}
            LocalNodeState::Inactive => {
                swarm.init(on_loopback()).await.unwrap();
            }
            other => panic!("{other:?} after {delay} ms: {}", swarm.status().error),
        }
        swarm.leave(true).await.unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_refused_and_nothing_is_changed() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("cluster.redb is missing", |dir| {
            std::fs::remove_file(dir.join("cluster.redb")).unwrap();
        }),
        ("certificate or its key is missing", |dir| {
            std::fs::remove_file(dir.join("certificates/swarm-node.crt")).unwrap();
        }),
        ("docker-state.json is missing", |dir| {
            std::fs::remove_file(dir.join("docker-state.json")).unwrap();
        }),
        ("read the node's certificate", |dir| {
            std::fs::write(dir.join("certificates/swarm-node.key"), b"garbage").unwrap();
        }),
        ("store failed", |dir| {
            let path = dir.join("cluster.redb");
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes.truncate(middle);
            std::fs::write(&path, bytes).unwrap();
        }),
    ];
    for (problem, damage) in damages {
        let temp = tempfile::tempdir().unwrap();
        let machine = Machine::default();
        let (swarm, control) = new_swarm(temp.path(), &machine).await;
        let id = control.create_service(service("web", "busybox", 1)).await.unwrap();
        eventually("one runs", || running_tasks(&control, &id), |t| t.len() == 1).await;
        drop(control);
        swarm.shutdown().await;
        drop(swarm);
        damage(&temp.path().join("swarm"));
        let swarm = open(temp.path(), &machine).await;
        let status = swarm.status();
        assert_eq!(status.local_node_state, LocalNodeState::Error, "{problem}");
        assert!(status.error.contains(problem), "{problem}: {}", status.error);
        assert!(matches!(swarm.control(), Err(SwarmError::Unusable(_))));
        assert!(matches!(swarm.init(on_loopback()).await, Err(SwarmError::AlreadyInSwarm)));
        assert_eq!(machine.running().len(), 1, "{problem}: the workload is not touched");
        assert!(swarm.leave(false).await.is_err());
        swarm.leave(true).await.unwrap();
        swarm.init(on_loopback()).await.unwrap();
        swarm.leave(true).await.unwrap();
    }
}
