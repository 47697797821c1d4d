//! The life of a real swarm, with clients that write on every manager all the while: one manager,
//! three, one of them lost and replaced, five, two of them lost at once, and back to one. What the
//! clients saw has to be what a store that loses nothing can show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::workload::{Managed, Workload};
use brig_e2e::{eventually, http};

const PATIENCE: Duration = Duration::from_secs(90);

struct Life {
    hosts: Hosts,
    work: Workload,
    managers: BTreeMap<usize, Arc<Managed>>,
    begin: Instant,
}

impl Life {
    fn say(&self, what: &str) {
        println!("{:6.1} {what}", self.begin.elapsed().as_secs_f32());
    }

    fn node(&self, host: usize) -> &HostNode {
        &self.managers[&host].node
    }

    fn join(&mut self, host: usize, through: usize) {
        let node = self.hosts.start(host, Kind::Brigd);
        let token = self.node(through).ok(&["swarm", "join-token", "-q", "manager"]);
        let peer = format!("{}:2377", self.node(through).address);
        let address = ["--advertise-addr", &node.address];
        let words = [&["swarm", "join", "--token", &token][..], &address, &[&peer]].concat();
        let joining = node.client().run(&words);
        // A store that is given another authority just then takes nobody in before it is done, which
        // may take longer than docker's join waits for.
        if !joining.stderr.contains("will continue in the background") {
            let _ = joining.ok();
        }
        self.managers.insert(host, self.work.add(&node, 1));
        self.all_go_on();
        self.say(&format!("host {host} is a manager"));
    }

    fn all_go_on(&self) {
        for manager in self.managers.values() {
            manager.goes_on(5, PATIENCE);
        }
    }

    /// The managers as one of them sees them: id, whether it leads, whether it is reachable.
    fn standing(&self, host: usize) -> BTreeMap<usize, (String, bool, bool)> {
        let nodes = http::get(&self.node(host).socket(), "/v1.41/nodes");
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let of = |node: &serde_json::Value| {
            let status = node.get("ManagerStatus")?;
            let host = status["Addr"].as_str()?.split([':', '.']).nth(3)?.parse().ok()?;
            let leads = status["Leader"].as_bool() == Some(true);
            let is_there = status["Reachability"] == "reachable";
            Some((host, (node["ID"].as_str()?.to_owned(), leads, is_there)))
        };
        nodes.iter().filter_map(of).collect()
    }

    fn leader(&self, asked: usize) -> usize {
        let mut leader = None;
        eventually("somebody leads", PATIENCE, || {
            let standing = self.standing(asked);
            leader = standing.iter().find(|(_, (_, leads, _))| *leads).map(|(host, _)| *host);
            leader.is_some()
        });
        leader.unwrap()
    }

    /// Takes the power of hosts, all at once as far as one can.
    fn lose(&mut self, lost: &[usize]) -> Vec<Arc<Managed>> {
        let gone = lost.iter().filter_map(|host| self.managers.remove(host)).collect::<Vec<_>>();
        for manager in &gone {
            manager.begins_anew();
        }
        for host in lost {
            let _ = self.hosts.script(&["kill", &host.to_string()]).ok();
        }
        let since = Instant::now();
        let next = self.managers.values().next().unwrap();
        next.goes_on(1, PATIENCE);
        self.say(&format!("lost {lost:?}, the next write after {:?}", since.elapsed()));
        self.all_go_on();
        gone
    }

    fn boot(&self, host: usize) {
        let _ = self.hosts.script(&["boot", &host.to_string()]).ok();
        let _ = self.hosts.start(host, Kind::Brigd);
    }

    /// Demotes a manager, and waits until it is none any more.
    fn demote(&mut self, host: usize, through: usize) {
        let (id, ..) = self.standing(through)[&host].clone();
        let _ = self.node(through).ok(&["node", "demote", &id]);
        let manager = self.managers.remove(&host).unwrap();
        eventually("it is a worker", PATIENCE, || {
            let info = http::get(&manager.node.socket(), "/v1.41/info");
            info["Swarm"]["ControlAvailable"].as_bool() == Some(false)
        });
        manager.begins_anew();
        assert!(!manager.node.data().join("swarm/etcd").exists());
        self.all_go_on();
        self.say(&format!("host {host} is a worker"));
    }

    fn all_reachable(&self, count: usize) {
        for host in self.managers.keys() {
            eventually("all are reachable", PATIENCE, || {
                let standing = self.standing(*host);
                standing.len() == count && standing.values().all(|(_, _, is_there)| *is_there)
            });
        }
    }
}

#[test]
fn a_swarm_grows_loses_and_shrinks_and_no_write_is_lost() {
    let hosts = Hosts::up(5);
    let first = hosts.start(1, Kind::Brigd);
    first.init_swarm();
    let mut work = Workload::new(Duration::from_millis(25));
    let managers = BTreeMap::from([(1, work.add(&first, 2))]);
    let mut life = Life { hosts, work, managers, begin: Instant::now() };
    life.all_go_on();
    assert!(life.node(1).data().join("swarm/cluster.redb").exists());
    life.join(2, 1);
    assert!(!life.node(1).data().join("swarm/cluster.redb").exists());
    life.join(3, 2);
    life.all_reachable(3);

    // The leader is lost for good, and another machine takes its place.
    assert_eq!(life.leader(2), 1);
    let _ = life.lose(&[1]);
    let (lost, ..) = life.standing(2)[&1].clone();
    eventually("the lost one is seen to be", PATIENCE, || !life.standing(2)[&1].2);
    let _ = life.node(2).ok(&["node", "demote", &lost]);
    let _ = life.node(2).ok(&["node", "rm", "--force", &lost]);
    life.join(4, 3);
    life.all_reachable(3);

    // Five: one of them is the lost machine, which comes back and begins anew.
    life.join(5, 2);
    life.boot(1);
    let _ = first.ok(&["swarm", "leave", "--force"]);
    life.join(1, 5);
    life.all_reachable(5);

    // Two of five at once, the leader among them.
    let leader = life.leader(2);
    let others: Vec<usize> = life.managers.keys().copied().filter(|host| *host != leader).collect();
    let back = life.lose(&[leader, others[0]]);
    for manager in back {
        life.boot(manager.node.host);
        manager.begins_anew();
        life.managers.insert(manager.node.host, manager);
    }
    life.all_reachable(5);
    life.all_go_on();
    life.say("five again");

    // Back to one. The leader is the first to go.
    for _ in 0..4 {
        let leader = life.leader(*life.managers.keys().next().unwrap());
        let through = *life.managers.keys().find(|host| **host != leader).unwrap();
        life.demote(leader, through);
    }
    let last = life.managers.values().next().unwrap().node.clone();
    assert_eq!(life.standing(last.host).len(), 1);
    life.work.settle(std::slice::from_ref(&last), PATIENCE);
    life.work.judge();
    life.say("judged");
}
