//! From the moment at which the leader's host loses power to the next write that another manager
//! accepts. Everything that leads is on that host: the manager, and the leader of the store's
//! members, wherever that one happens to be, in a round of its own.

use std::time::{Duration, Instant};

use brig_e2e::hosts::{HostNode, Kind};

use super::load::{Connection, name};
use super::members::Managers;
use crate::report;

/// How long a client waits for one answer; then it asks the other manager.
const PATIENCE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn measure(rounds: usize) {
    println!("\nthe host of the leader loses power: seconds to the next accepted write");
    let mut worst = [0.0_f64; 2];
    let mut all = [const { Vec::new() }; 2];
    for (at, kind) in [Kind::Dockerd, Kind::Brigd].into_iter().enumerate() {
        let managers = Managers::start(kind);
        for _ in 0..rounds {
            let taken = lose_the_leader(&managers, kind);
            println!("{:<44} {taken:>9.2} s", format!("{kind:?}"));
            worst[at] = worst[at].max(taken);
            all[at].push(taken);
        }
    }
    let [theirs, ours] = all.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!(
        "{:<44} dockerd {theirs:.2} (worst {:.2}), brigd {ours:.2} (worst {:.2}; goal: under 3)",
        "", worst[0], worst[1]
    );
    report::pair("store: leader lost to the next write", "s", theirs, ours, "");
    report::load("store: leader lost to the next write, worst", worst[1], "s", Some(3.0));
}

fn lose_the_leader(managers: &Managers, kind: Kind) -> f64 {
    let leader = match kind {
        Kind::Dockerd => managers.leader(),
        Kind::Brigd => (0..managers.nodes.len()).find(|at| managers.place(*at).leads()).unwrap(),
    };
    let lost = &managers.nodes[leader];
    let others: Vec<&HostNode> =
        managers.nodes.iter().filter(|node| node.host != lost.host).collect();
    // Both write a while before: connections are warm, as those of real clients are.
    for node in &others {
        assert!(write(node), "a write before the loss");
    }
    let _ = managers.hosts.script(&["kill", &lost.host.to_string()]).ok();
    let began = Instant::now();
    let mut at = 0;
    while !write(others[at % others.len()]) {
        assert!(began.elapsed() < LIMIT, "no write was accepted");
        at += 1;
    }
    let taken = began.elapsed().as_secs_f64();
    let _ = managers.hosts.script(&["boot", &lost.host.to_string()]).ok();
    let _ = managers.hosts.start(lost.host, kind);
    managers.wait();
    taken
}

fn write(node: &HostNode) -> bool {
    let status =
        Connection::open(&node.socket(), PATIENCE).and_then(|mut open| open.create_config(&name()));
    if !matches!(status, Ok(201)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    matches!(status, Ok(201))
}
