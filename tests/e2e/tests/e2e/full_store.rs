//! Two managers whose store is full: writes are refused and say why, and go on by themselves once
//! what nobody needs any more has made room. The quota is made small by what runs in etcd's place.

use std::path::Path;
use std::time::{Duration, Instant};

use brig_e2e::faults::Process;
use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{eventually, http};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(90);
const QUOTA: usize = 16 << 20;
/// Of one write: etcd has it again with every version.
const SIZE: usize = 256 << 10;

/// Writes another version of the service; what the manager says when it refuses.
fn write(node: &HostNode, number: usize) -> Result<(), String> {
    let found = http::get(&node.socket(), "/v1.41/services/large");
    let label = number.to_string().repeat(SIZE / number.to_string().len());
    let body = json!({
        "Name": "large",
        "Labels": {"number": number.to_string(), "large": label},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest"}},
        "Mode": {"Replicated": {"Replicas": 0}},
    });
    let path = match (found["ID"].as_str(), found["Version"]["Index"].as_u64()) {
        (Some(id), Some(version)) => format!("/v1.41/services/{id}/update?version={version}"),
        _ => "/v1.41/services/create".to_owned(),
    };
    http::post(&node.socket(), &path, &body).map(drop)
}

#[test]
fn a_full_store_says_so_and_goes_on_when_there_is_room() {
    let hosts = Hosts::up(2);
    let nodes = [1, 2].map(|host| hosts.start(host, Kind::Brigd));
    nodes[0].init_swarm();
    let token = nodes[0].ok(&["swarm", "join-token", "-q", "manager"]);
    let peer = format!("{}:2377", nodes[0].address);
    let address = ["--advertise-addr", &nodes[1].address];
    let _ = nodes[1].ok(&[&["swarm", "join", "--token", &token][..], &address, &[&peer]].concat());
    let program = ["/usr/local/bin/etcd", "/usr/bin/etcd"];
    let program = program.into_iter().find(|path| Path::new(path).exists()).unwrap();
    for node in &nodes {
        let (real, small) = (hosts.log(node.host, "etcd"), hosts.log(node.host, "small-etcd"));
        std::fs::copy(program, &real).unwrap();
        let script =
            format!("#!/bin/sh\nexec {} \"$@\" --quota-backend-bytes {QUOTA}\n", real.display());
        std::fs::write(&small, script).unwrap();
        let small = small.display().to_string();
        let _ = hosts.exec(node.host, &["chmod", "0755", &small]).ok();
        let _ = hosts.exec(node.host, &["mount", "--bind", &small, program]).ok();
        assert!(hosts.signal(node, Process::Etcd, "KILL"));
    }
    eventually("writes go on", PATIENCE, || write(&nodes[0], 1).is_ok());

    let mut refused = None;
    let mut acknowledged = 0;
    for number in 2..QUOTA / SIZE * 3 {
        match write(&nodes[number % 2], number) {
            Ok(()) => acknowledged = number,
            // The two may be a moment apart.
            Err(text) if text.contains("out of sequence") || text.contains("already exists") => {}
            Err(text) => {
                refused = Some(text);
                break;
            }
        }
    }
    let since = Instant::now();
    let refused = refused.expect("a store of that size is full at some time");
    assert!(refused.contains("space") || refused.contains("full"), "{refused}");
    let found = http::get(&nodes[0].socket(), "/v1.41/services/large");
    let found: usize = found["Spec"]["Labels"]["number"].as_str().unwrap().parse().unwrap();
    assert!(found >= acknowledged, "{found} is there, {acknowledged} was acknowledged");
    eventually("there is room again", PATIENCE, || write(&nodes[1], 1_000_000).is_ok());
    println!("{refused}\nwritten again after {:?}", since.elapsed());
    for number in 0..8 {
        eventually("writes go on", PATIENCE, || {
            write(&nodes[number % 2], 2_000_000 + number).is_ok()
        });
    }
}
