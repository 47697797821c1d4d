//! Three managers on three hosts while everything goes wrong that can: processes are killed or
//! stand still, hosts lose power, networks break in every way, disks are slow or full, clocks
//! jump. Clients write on all of them all the while. In the end what they saw has to be what a
//! store that loses nothing can show, and nobody may have read along.
//!
//! `BRIG_CHAOS=600` sets the seconds, `BRIG_CHAOS_SEED` what goes wrong when (`make stress`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_e2e::faults::Process;
use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::traces::{self, Listener};
use brig_e2e::workload::{Managed, Workload};
use brig_e2e::{eventually, http};

const PATIENCE: Duration = Duration::from_secs(90);
/// Of a host's data, MiB: etcd's two logs of 64, its database and room to go on.
const DISK: usize = 400;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Of the leader, brigd; of another one, its etcd. And the other way round.
    KillLeadersBrigd,
    KillLeadersEtcd,
    KillAnothersBrigd,
    KillAnothersEtcd,
    /// The power of a host.
    KillHost,
    /// The leader sees nobody.
    CutLeader,
    /// Another one sees nobody.
    CutAnother,
    /// The network comes and goes.
    Flap,
    /// The leader is heard by nobody, and hears everybody.
    LeaderIsNotHeard,
    /// Two that do not see each other, and a third that sees both.
    NoTriangle,
    /// A third of all packets is lost.
    Loss,
    StopLeadersBrigd,
    StopLeadersEtcd,
    StopAnothersEtcd,
    SlowLeader,
    SlowAnother,
    FullDisk,
    ClockForward,
    ClockBack,
}

/// Each of them within this many draws, in the long form.
const ALL: [Fault; 19] = [
    Fault::KillLeadersBrigd,
    Fault::CutLeader,
    Fault::SlowLeader,
    Fault::KillLeadersEtcd,
    Fault::FullDisk,
    Fault::Flap,
    Fault::StopLeadersBrigd,
    Fault::KillHost,
    Fault::LeaderIsNotHeard,
    Fault::ClockForward,
    Fault::StopLeadersEtcd,
    Fault::KillAnothersEtcd,
    Fault::NoTriangle,
    Fault::SlowAnother,
    Fault::ClockBack,
    Fault::Loss,
    Fault::KillAnothersBrigd,
    Fault::CutAnother,
    Fault::StopAnothersEtcd,
];
/// What the short form does.
const SHORT: [Fault; 6] = [
    Fault::KillLeadersBrigd,
    Fault::CutLeader,
    Fault::KillLeadersEtcd,
    Fault::SlowLeader,
    Fault::StopLeadersBrigd,
    Fault::LeaderIsNotHeard,
];
/// The host with the small disk, and the one whose clock jumps.
const SMALL: usize = 3;
const CLOCK: usize = 2;

struct World {
    hosts: Hosts,
    managers: Vec<Arc<Managed>>,
    environment: Vec<String>,
    random: u64,
}

impl World {
    fn node(&self, host: usize) -> &HostNode {
        &self.managers[host - 1].node
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % below as u64).unwrap()
    }

    fn start(&self, host: usize) -> HostNode {
        let environment = if host == CLOCK { &self.environment[..] } else { &[] };
        self.hosts.start_with(host, Kind::Brigd, environment)
    }

    /// The host of the leader, as the managers say.
    fn leader(&self) -> usize {
        let mut leader = None;
        eventually("somebody leads", PATIENCE, || {
            leader = self.managers.iter().find_map(|manager| {
                let nodes = http::get(&manager.node.socket(), "/v1.41/nodes");
                let nodes = nodes.as_array()?;
                let leader = nodes.iter().find(|n| n["ManagerStatus"]["Leader"] == true)?;
                let address = leader["ManagerStatus"]["Addr"].as_str()?.split(':').next()?;
                self.managers.iter().find(|m| m.node.address == address).map(|m| m.node.host)
            });
            leader.is_some()
        });
        leader.unwrap()
    }

    fn kill_brigd(&self, host: usize, rest: Duration) {
        self.managers[host - 1].begins_anew();
        assert!(self.hosts.signal(self.node(host), Process::Brigd, "KILL"), "brigd of {host}");
        std::thread::sleep(rest);
        let _ = self.start(host);
        self.managers[host - 1].begins_anew();
    }

    fn stop(&self, host: usize, process: Process, rest: Duration) {
        assert!(self.hosts.signal(self.node(host), process, "STOP"));
        std::thread::sleep(rest);
        assert!(self.hosts.signal(self.node(host), process, "CONT"));
    }

    /// One thing goes wrong for that long, and is mended.
    fn happen(&mut self, fault: Fault, rest: Duration) {
        let leader = self.leader();
        let another = (leader + self.draw(2)) % 3 + 1;
        let third = 6 - leader - another;
        let (from, to) = (leader.to_string(), [another.to_string(), third.to_string()]);
        match fault {
            Fault::KillLeadersBrigd => self.kill_brigd(leader, rest),
            Fault::KillAnothersBrigd => self.kill_brigd(another, rest),
            // It may be away at the moment, because its disk was full for example.
            Fault::KillLeadersEtcd => {
                self.hosts.signal(self.node(leader), Process::Etcd, "KILL");
            }
            Fault::KillAnothersEtcd => {
                self.hosts.signal(self.node(another), Process::Etcd, "KILL");
            }
            Fault::KillHost => {
                self.managers[leader - 1].begins_anew();
                let _ = self.hosts.script(&["kill", &from]).ok();
                std::thread::sleep(rest);
                let _ = self.hosts.script(&["boot", &from]).ok();
                let _ = self.start(leader);
                self.managers[leader - 1].begins_anew();
            }
            Fault::CutLeader => {
                self.hosts.cut(leader);
                std::thread::sleep(rest);
            }
            Fault::CutAnother => {
                self.hosts.cut(another);
                std::thread::sleep(rest);
            }
            Fault::Flap => {
                let until = Instant::now() + rest;
                while Instant::now() < until {
                    let host = 1 + self.draw(3);
                    self.hosts.cut(host);
                    std::thread::sleep(Duration::from_millis(100 + self.draw(900) as u64));
                    self.hosts.heal(host);
                    std::thread::sleep(Duration::from_millis(self.draw(400) as u64));
                }
            }
            Fault::LeaderIsNotHeard => {
                for to in &to {
                    let _ = self.hosts.script(&["oneway", &from, to]).ok();
                }
                std::thread::sleep(rest);
            }
            Fault::NoTriangle => {
                let _ = self.hosts.script(&["cut", &from, &to[0]]).ok();
                std::thread::sleep(rest);
            }
            Fault::Loss => {
                for (a, b) in [(&from, &to[0]), (&from, &to[1]), (&to[0], &to[1])] {
                    let _ = self.hosts.script(&["loss", a, b, "33"]).ok();
                }
                std::thread::sleep(rest);
            }
            Fault::StopLeadersBrigd => self.stop(leader, Process::Brigd, rest),
            Fault::StopLeadersEtcd => self.stop(leader, Process::Etcd, rest),
            Fault::StopAnothersEtcd => self.stop(another, Process::Etcd, rest),
            Fault::SlowLeader | Fault::SlowAnother => {
                let host = if fault == Fault::SlowLeader { leader } else { another };
                let slow = self.hosts.slow_disk(self.node(host), 150);
                std::thread::sleep(rest);
                drop(slow);
                println!("  {} times", self.hosts.slowed(host));
            }
            Fault::FullDisk => {
                self.hosts.fill_disk(self.node(SMALL));
                std::thread::sleep(rest);
                self.hosts.empty_disk(self.node(SMALL));
            }
            Fault::ClockForward => {
                self.hosts.shift_clock(self.node(CLOCK), "+86400");
                std::thread::sleep(rest);
                self.hosts.shift_clock(self.node(CLOCK), "+0");
            }
            Fault::ClockBack => {
                self.hosts.shift_clock(self.node(CLOCK), "-3000");
                std::thread::sleep(rest);
                self.hosts.shift_clock(self.node(CLOCK), "+0");
            }
        }
        let _ = self.hosts.script(&["heal"]).ok();
    }
}

fn join(node: &HostNode, through: &HostNode) {
    let token = through.ok(&["swarm", "join-token", "-q", "manager"]);
    let peer = format!("{}:2377", through.address);
    let _ =
        node.ok(&["swarm", "join", "--token", &token, "--advertise-addr", &node.address, &peer]);
}

fn names(node: &HostNode, kind: &str) -> BTreeSet<String> {
    let all = http::get(&node.socket(), &format!("/v1.41/{kind}"));
    let all = all.as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|object| Some(object["Spec"]["Name"].as_str()?.to_owned())).collect()
}

#[test]
fn managers_lose_nothing_whatever_goes_wrong() {
    let seconds = std::env::var("BRIG_CHAOS").ok().and_then(|text| text.parse::<u64>().ok());
    let seed = std::env::var("BRIG_CHAOS_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) | 1);
    println!("BRIG_CHAOS_SEED={seed}");
    let hosts = Hosts::up_with_small_disks(3, &[(SMALL, DISK)]);
    let environment = hosts.with_clock(CLOCK);
    let mut world = World { hosts, managers: Vec::new(), environment, random: seed.max(1) };
    let nodes: Vec<HostNode> = (1..=3).map(|host| world.start(host)).collect();
    nodes[0].init_swarm();
    join(&nodes[1], &nodes[0]);
    join(&nodes[2], &nodes[1]);
    let mut work = Workload::new(Duration::from_millis(if seconds.is_some() { 40 } else { 20 }));
    let words = work.words().clone();
    let listener = Listener::start(&world.hosts.switch(), &words.all());
    world.managers = nodes.iter().map(|node| work.add(node, 2)).collect();
    for manager in &world.managers {
        manager.goes_on(5, PATIENCE);
    }

    let begin = Instant::now();
    let rest = Duration::from_secs(if seconds.is_some() { 6 } else { 3 });
    for number in 0.. {
        let fault = match seconds {
            Some(seconds) if begin.elapsed() >= Duration::from_secs(seconds) => break,
            Some(_) if number < ALL.len() => ALL[number],
            Some(_) => ALL[world.draw(ALL.len())],
            None if number < SHORT.len() => SHORT[number],
            None => break,
        };
        println!("{:6.1} {fault:?}", begin.elapsed().as_secs_f32());
        world.happen(fault, rest);
        let mended = Instant::now();
        for manager in &world.managers {
            manager.goes_on(2, PATIENCE);
        }
        println!(
            "{:6.1}   all take writes after {:?}",
            begin.elapsed().as_secs_f32(),
            mended.elapsed()
        );
    }

    work.settle(&nodes, PATIENCE);
    work.judge();
    for kind in ["configs", "secrets", "services"] {
        let first = names(&nodes[0], kind);
        assert!(!first.is_empty());
        for node in &nodes[1..] {
            assert_eq!(names(node, kind), first, "{kind} of host {}", node.host);
        }
    }

    // Nobody read along; that this would have been seen is tried out.
    for node in &nodes {
        let found = traces::files_with(&node.data(), &words.all());
        assert!(found.is_empty(), "{found:?}");
        assert!(node.data().join("swarm/etcd/data/member/wal").exists());
        let host = node.socket().parent().unwrap().parent().unwrap().to_owned();
        let found = traces::files_with(&host, std::slice::from_ref(&words.value));
        assert!(found.is_empty(), "{found:?}");
    }
    let send = format!("echo {} >/dev/udp/{}/9", words.label, nodes[1].address);
    let _ = world.hosts.exec(1, &["bash", "-c", &send]).ok();
    std::thread::sleep(Duration::from_millis(500));
    let (packets, heard) = listener.end();
    assert_eq!(heard, std::slice::from_ref(&words.label), "of {packets} packets");
    assert!(packets > 1000, "{packets}");
    println!("{packets} packets");
}
