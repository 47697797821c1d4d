//! Daemons whose clock is wrong, and what a cluster says about the ends of its certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::Daemon;
use serde_json::Value;

/// Longest time until something that has to happen has happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// The library that shifts a process's clock; `None` where it is not installed.
fn shifter() -> Option<String> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let found = folders
        .map(|folder| format!("/usr/lib/{folder}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    if found.is_none() {
        eprintln!("SKIPPED: no libfaketime (package faketime)");
    }
    found
}

fn json(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get("GET", path);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body.split("\r\n").skip(1).step_by(2).collect()
    } else {
        body.to_owned()
    };
    serde_json::from_str(&body).unwrap()
}

fn eventually(daemon: &Daemon, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = json(daemon, path);
        if wanted(&value) {
            return value;
        }
        assert!(Instant::now() < deadline, "{path}: {value:#}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts the daemon again with its clock set forward or back.
fn restart(daemon: &mut Daemon, library: &str, shift: &str) {
    daemon.stop();
    daemon.environment = vec![
        ("LD_PRELOAD", library.to_owned()),
        ("FAKETIME", shift.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    daemon.launch();
}

/// A daemon that made a swarm, and one that joined it; both leave it at the end.
struct Pair {
    manager: Daemon,
    worker: Daemon,
}

impl Pair {
    fn start() -> Self {
        let (manager, worker) = (Daemon::start(), Daemon::start());
        let made = manager.post("/v1.41/swarm/init", r#"{"ListenAddr":"127.0.0.1:0"}"#);
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        let swarm = json(&manager, "/v1.41/swarm");
        let node = &json(&manager, "/v1.41/nodes")[0];
        let request = serde_json::json!({
            "RemoteAddrs": [node["ManagerStatus"]["Addr"]],
            "JoinToken": swarm["JoinTokens"]["Worker"],
        });
        let joined = worker.post("/v1.41/swarm/join", &request.to_string());
        assert!(joined.starts_with("HTTP/1.1 200"), "{joined}");
        Self { manager, worker }
    }

    fn worker_id(&self) -> String {
        json(&self.worker, "/v1.41/info")["Swarm"]["NodeID"].as_str().unwrap().to_owned()
    }

    /// Waits until the worker says why it has no session.
    fn worker_error(&self, wanted: &[&str]) {
        eventually(&self.worker, "/v1.41/info", |info| {
            let error = info["Swarm"]["Error"].as_str().unwrap();
            wanted.iter().all(|part| error.contains(part))
        });
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for daemon in [&self.worker, &self.manager] {
            daemon.post("/v1.41/swarm/leave?force=1", "");
        }
    }
}

fn warns(info: &Value, text: &str) -> bool {
    let warnings = info["Warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    warnings.iter().any(|warning| warning.as_str().unwrap().contains(text))
}

#[test]
fn what_ends_is_listed() {
    let pair = Pair::start();
    let known = json(&pair.manager, "/v1.41/system/expiring");
    let list = |value: &Value, field: &str| -> Vec<String> {
        let items = value.as_array().unwrap().iter();
        items.map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
    };
    let kinds = ["root-certificate", "node-certificate", "node-certificate"];
    assert_eq!(list(&known, "Kind"), kinds);
    assert_eq!(list(&known, "State"), ["ok", "ok", "ok"]);
    assert!(list(&known, "RenewsFrom")[1] < list(&known, "RenewsUntil")[1], "{known:#}");
    let id = pair.worker_id();
    let filter = |text: &str| {
        let filters = text.replace('"', "%22");
        json(&pair.manager, &format!("/v1.41/system/expiring?filters={filters}"))
    };
    assert_eq!(list(&filter(r#"{"role":["worker"]}"#), "ID"), [id.as_str()]);
    let refused = pair.manager.get("GET", "/v1.41/system/expiring?filters={%22x%22:[%22y%22]}");
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");

    let here = json(&pair.worker, "/v1.41/system/expiring");
    assert_eq!(list(&here, "Kind"), ["root-certificate", "node-certificate"]);
    assert_eq!(list(&here, "ID")[1], id);

    let version = json(&pair.manager, "/v1.41/swarm");
    let update = format!(
        "/v1.41/swarm/update?version={}&rotateWorkerToken=1&joinTokenTTL=3600000000000&joinTokenUses=2",
        version["Version"]["Index"]
    );
    let spec = version["Spec"].to_string();
    assert!(pair.manager.post(&update, &spec).starts_with("HTTP/1.1 200"));
    let tokens = filter(r#"{"kind":["join-token"]}"#);
    assert_eq!(
        (list(&tokens, "Name"), &tokens[0]["UsesLeft"]),
        (vec!["worker".to_owned()], &2.into())
    );
    assert!(!warns(&json(&pair.manager, "/v1.41/info"), "certificate"));
}

#[test]
fn nothing_ends_outside_of_a_swarm() {
    let daemon = Daemon::start();
    assert_eq!(json(&daemon, "/v1.41/system/expiring"), serde_json::json!([]));
}

#[test]
fn a_worker_with_a_wrong_clock_is_told_about() {
    let Some(library) = shifter() else { return };
    let mut pair = Pair::start();
    let id = pair.worker_id();

    // A little: all goes on, and both ends say so.
    restart(&mut pair.worker, &library, "+150s");
    eventually(&pair.worker, "/v1.41/info", |info| {
        warns(info, "this node's clock is 2m") && warns(info, "ahead of its manager's")
    });
    eventually(&pair.manager, "/v1.41/info", |info| {
        warns(info, &format!("({id}) is 2m")) && warns(info, "ahead of this manager's")
    });
    let known = json(&pair.manager, "/v1.41/system/expiring");
    let row = known.as_array().unwrap().iter().find(|row| row["ID"] == id.as_str()).unwrap();
    let offset = row["ClockOffset"].as_i64().unwrap() / 1_000_000_000;
    assert!((140..=160).contains(&offset), "{row:#}");
    assert!(pair.manager.log().contains("the node's clock is 2m"));
    assert!(pair.worker.log().contains("this node's clock is 2m"));

    // So much that the manager's certificate has ended, and then that it has not begun.
    restart(&mut pair.worker, &library, "+100d");
    pair.worker_error(&["the clocks differ: here it is ", "behind", "certificate of the manager"]);
    eventually(&pair.worker, "/v1.41/system/expiring", |known| known[1]["State"] == "grace");
    restart(&mut pair.worker, &library, "-3h");
    pair.worker_error(&["the clocks differ: here it is ", "ahead", "certificate of the manager"]);

    // Set right, it works again.
    restart(&mut pair.worker, &library, "+0s");
    eventually(&pair.worker, "/v1.41/info", |info| {
        info["Swarm"]["LocalNodeState"] == "active" && info["Swarm"]["Error"] == ""
    });
}

#[test]
fn a_manager_with_a_wrong_clock_is_told_about() {
    let Some(library) = shifter() else { return };
    let mut pair = Pair::start();
    restart(&mut pair.manager, &library, "+100d");
    // It took its own certificate for one that has ended and made another, of the future.
    pair.worker_error(&["the clocks differ: here it is ", "ahead", "certificate of the manager"]);
    let log = pair.manager.log();
    assert!(log.contains("one of the clocks is wrong"), "{log}");
    assert!(warns(&json(&pair.manager, "/v1.41/info"), "ended on"));
    restart(&mut pair.manager, &library, "+0s");
    eventually(&pair.worker, "/v1.41/info", |info| info["Swarm"]["Error"] == "");
}
