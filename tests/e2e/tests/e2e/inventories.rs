//! What is in images, kept from the pull on: `scan`, `scan ls`, a daemon that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_e2e::hosts::{Hosts, Kind};
use brig_e2e::layered::Layered;
use brig_e2e::registry::Registry;
use brig_e2e::{Brigd, Client, eventually, http};
use serde_json::Value;

const RELEASE: &[u8] = b"ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
const STATUS: &[u8] = b"Package: libssl3\nStatus: install ok installed\nSource: openssl\n\
    Architecture: amd64\nVersion: 3.0.11-1\nMaintainer: Debian OpenSSL Team <x@alioth-lists.debian.net>\n\n";
const PATIENCE: Duration = Duration::from_secs(30);

fn debian() -> Layered {
    Layered::on_busybox().layer(&[("etc/os-release", RELEASE), ("var/lib/dpkg/status", STATUS)])
}

/// A database in which one flaw of openssl is mended in a version.
fn database(folder: &Path, fixed: &str) -> String {
    let feed = folder.join("tracker.json");
    let release = serde_json::json!({
        "status": "resolved", "fixed_version": fixed, "urgency": "high",
        "repositories": { "bookworm": "3.0.11-1" },
    });
    let tracker = serde_json::json!({
        "openssl": { "CVE-2026-4242": {
            "description": "a flaw", "releases": { "bookworm": release },
        } },
    });
    fs::write(&feed, tracker.to_string()).unwrap();
    let database = folder.join(format!("{fixed}.db")).display().to_string();
    let built = std::process::Command::new(brig_e2e::daemon::built("brig"))
        .args(["scan", "db", "build", "--db", &database, &feed.display().to_string()])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    database
}

fn kept(daemon: &Brigd, kind: &str) -> Vec<PathBuf> {
    let listed = fs::read_dir(daemon.data_root().join("inventories").join(kind));
    let entries = listed.into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 64))
        .collect()
}

fn inventory(daemon: &Brigd, name: &str) -> Value {
    http::get(&daemon.socket(), &format!("/brig/images/{name}/inventory"))
}

fn layers_read(daemon: &Brigd) -> Vec<String> {
    let log = fs::read_to_string(daemon.log()).unwrap();
    log.lines().filter(|line| line.contains("a layer was read")).map(str::to_owned).collect()
}

#[test]
fn what_was_pulled_is_read_once_and_forgotten_with_the_image() {
    let daemon = Brigd::start();
    let registry = Registry::start(None);
    let (first, second) = (
        debian(),
        debian().layer(&[(
            "usr/lib/node_modules/left-pad/package.json",
            br#"{"name":"left-pad","version":"1.3.0"}"#,
        )]),
    );
    registry.push(&first.archive("a:1"), "a:1", None);
    registry.push(&second.archive("b:1"), "b:1", None);
    let brig = daemon.brig();
    let (a, b) = (format!("{}/a:1", registry.address), format!("{}/b:1", registry.address));
    let _ = brig.run(&["pull", &a]).ok();
    // Nobody asks: it is made all the same.
    eventually("the first image's inventory", PATIENCE, || kept(&daemon, "images").len() == 1);
    let _ = brig.run(&["pull", &b]).ok();
    let found = inventory(&daemon, &b);
    let package = |name: &str| {
        let packages = found["packages"].as_array().unwrap();
        packages.iter().find(|package| package["name"] == name).cloned().unwrap()
    };
    let ids = second.diff_ids();
    assert_eq!(package("libssl3")["layer"], ids[1]);
    assert_eq!(package("libssl3")["evidence"]["path"], "var/lib/dpkg/status");
    assert_eq!(package("left-pad")["layer"], ids[2]);
    assert_eq!(found["image"]["names"][0], b);
    assert_eq!(found["layers"][2]["created_by"], "step 2");
    // Two layers of the first image, one more of the second.
    eventually("the second image's inventory", PATIENCE, || kept(&daemon, "images").len() == 2);
    assert_eq!(layers_read(&daemon).len(), 3, "{:?}", layers_read(&daemon));
    for id in &ids {
        let hex = id.trim_start_matches("sha256:");
        let read = layers_read(&daemon).iter().filter(|line| line.contains(hex)).count();
        assert_eq!(read, 1, "{id}");
    }
    let _ = brig.run(&["rmi", &b]).ok();
    eventually("what nobody needs is gone", PATIENCE, || {
        kept(&daemon, "images").len() == 1 && kept(&daemon, "layers").len() == 2
    });
}

#[test]
fn a_daemon_that_is_killed_completes_what_it_began() {
    let mut daemon = Brigd::start();
    let registry = Registry::start(None);
    let ballast = vec![7_u8; 24 << 20];
    let image = debian().layer(&[("opt/ballast", &ballast)]);
    registry.push(&image.archive("big:1"), "big:1", None);
    let name = format!("{}/big:1", registry.address);
    // At several moments: while layers come, while they are committed, while they are read.
    for wait in [40, 120, 250, 400] {
        let mut pull = daemon.brig().command(&["pull", "-q", &name]);
        pull.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut pull = pull.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        daemon.kill();
        let _ = pull.wait();
        daemon.spawn();
        for kind in ["layers", "images"] {
            let folder = daemon.data_root().join("inventories").join(kind);
            for entry in fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(!name.starts_with(".tmp"), "{name} is left");
            }
        }
    }
    let _ = daemon.brig().run(&["pull", "-q", &name]).ok();
    // Right after the pull, and nobody asks for anything after the restart.
    daemon.kill();
    daemon.spawn();
    eventually("the inventory is completed", PATIENCE, || kept(&daemon, "images").len() == 1);
    let found = inventory(&daemon, &name);
    assert_eq!(found["packages"][0]["name"], "libssl3");
    assert_eq!(found["unread"].as_array().map(Vec::len), Some(0), "{found}");
    let sound = kept(&daemon, "images").remove(0);
    // A damaged file is made anew, and so is one of a layer.
    let mut bytes = fs::read(&sound).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&sound, &bytes).unwrap();
    assert_eq!(inventory(&daemon, &name), found);
}

#[test]
fn a_scan_rests_on_what_is_kept_and_tells_what_could_not_be_read() {
    let daemon = Brigd::start();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let db = database(folder.path(), "3.0.12-1");
    let brig = daemon.brig();
    let archive = debian().archive("app:1");
    let _ = brig.run(&["load", "-q", "-i", &archive.display().to_string()]).ok();
    let judged = |args: &[&str]| {
        let mut all = vec!["scan"];
        all.extend(args);
        all.extend(["--db", &db, "--max-age", "0", "--today", "2026-11-22"]);
        brig.run(&all)
    };
    let json = |args: &[&str]| -> Value {
        let output = judged(args);
        serde_json::from_str(output.ok()).unwrap()
    };
    let stored = json(&["app:1", "--format", "json"]);
    let archive = archive.display().to_string();
    let read = json(&["--input", &archive, "--format", "json"]);
    assert_eq!(stored["findings"], read["findings"]);
    assert_eq!(stored["findings"][0]["id"], "CVE-2026-4242");
    assert!(judged(&["explain", "CVE-2026-4242", "app:1"]).ok().contains("libssl3"));

    // A jar that is none, and a list of packages that goes on for ever.
    let mut endless = STATUS.to_vec();
    endless.resize(200 << 20, b'x');
    let hostile = Layered::on_busybox()
        .layer(&[("etc/os-release", RELEASE), ("var/lib/dpkg/status", &endless)])
        .layer(&[("app.jar", b"PK\x03\x04 and nothing that follows")]);
    let hostile = hostile.archive("hostile:1").display().to_string();
    let _ = brig.run(&["load", "-q", "-i", &hostile]).ok();
    let found = inventory(&daemon, "hostile:1");
    let unread: Vec<&str> =
        found["unread"].as_array().unwrap().iter().filter_map(|u| u["path"].as_str()).collect();
    assert_eq!(unread, ["app.jar", "var/lib/dpkg/status"]);
    let verdict = judged(&["hostile:1", "--exit-code", "7"]);
    let _ = verdict.fails(7);
    assert!(verdict.stdout.contains("unknown"), "{}", verdict.stdout);
    let difference = judged(&["diff", "app:1", "hostile:1"]);
    assert!(difference.ok().contains("CVE-2026-4242"), "{}", difference.stdout);
}

#[test]
fn everything_that_runs_is_judged_again_when_the_database_changes() {
    let daemon = Brigd::start();
    daemon.init_swarm();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (before, after) =
        (database(folder.path(), "3.0.11-1"), database(folder.path(), "3.0.12-1"));
    let brig = daemon.brig();
    let archive = debian().archive("app:1").display().to_string();
    let _ = brig.run(&["load", "-q", "-i", &archive]).ok();
    daemon.load_busybox();
    let _ = brig
        .run(&[
            "service",
            "create",
            "-d",
            "--no-resolve-image",
            "--name",
            "web",
            "--replicas",
            "2",
            "app:1",
        ])
        .ok();
    let _ = brig.run(&["run", "-d", "--name", "alone", "--network", "none", "app:1"]).ok();
    let _ = brig
        .run(&["run", "-d", "--name", "plain", "--network", "none", "busybox", "sleep", "600"])
        .ok();
    let _ = brig
        .run(&[
            "service",
            "create",
            "-d",
            "--no-resolve-image",
            "--name",
            "idle",
            "--replicas",
            "0",
            "nowhere:1",
        ])
        .ok();
    let _ = daemon.service_containers("web", 2);
    let list = |db: &str, more: &[&str]| {
        let mut all = vec!["scan", "ls", "--db", db, "--max-age", "0", "--today", "2026-11-22"];
        all.extend(more);
        brig.run(&all)
    };
    let verdicts = |db: &str| -> Vec<(String, String)> {
        let output = list(db, &["--format", "{{.Image}} {{.Verdict}} {{.High}} {{.UsedBy}}"]);
        let lines = output.ok().lines();
        let pair = |line: &str| {
            let (image, rest) = line.split_once(' ').unwrap();
            (image.to_owned(), rest.to_owned())
        };
        lines.map(pair).collect()
    };
    let of = |all: &[(String, String)], image: &str| {
        all.iter().find(|(name, _)| name == image).map(|(_, rest)| rest.clone()).unwrap()
    };
    let old = verdicts(&before);
    assert!(!of(&old, "app:1").starts_with("vulnerable"), "{old:?}");
    let new = verdicts(&after);
    assert_eq!(of(&new, "app:1"), "vulnerable 1 alone, web");
    // Neither a system that nobody knows nor an image that nobody has is clean.
    assert_eq!(of(&new, "busybox:latest"), "unknown 0 plain");
    assert_eq!(of(&new, "nowhere:1"), "unknown 0 idle");
    let told = list(&after, &[]);
    assert!(told.stdout.starts_with("IMAGE "), "{}", told.stdout);
    assert!(told.stderr.contains("nowhere:1"), "{}", told.stderr);
    let _ = list(&after, &["--exit-code", "3"]).fails(3);

    let holders =
        list(&after, &["--cve", "cve-2026-4242", "--format", "{{.Name}} {{.Package}} {{.Fixed}}"]);
    let mut names: Vec<&str> = holders.ok().lines().collect();
    names.sort_unstable();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[0], "alone libssl3 3.0.12-1");
    assert!(names[1].starts_with("web.1.") && names[2].starts_with("web.2."), "{names:?}");
    let _ = brig.run(&["service", "rm", "web", "idle"]).ok();
}

/// The manager has never had the image: it judges by what the worker told it.
#[test]
fn a_manager_judges_what_only_a_worker_has() {
    let hosts = Hosts::up(2);
    let manager = hosts.start(1, Kind::Brigd);
    let worker = hosts.start(2, Kind::Brigd);
    manager.init_swarm();
    let node = worker.join(&manager);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let db = database(folder.path(), "3.0.12-1");
    let archive = debian().archive("app:1").display().to_string();
    let _ = worker.ok(&["load", "-q", "-i", &archive]);
    let constraint = format!("node.id=={node}");
    let _ = manager.ok(&[
        "service",
        "create",
        "-d",
        "--no-resolve-image",
        "--name",
        "web",
        "--constraint",
        &constraint,
        "app:1",
    ]);
    let brig = Client::brig(&manager.socket(), &folder.path().join("client"));
    let judged = || {
        brig.run(&[
            "scan",
            "ls",
            "--db",
            &db,
            "--max-age",
            "0",
            "--today",
            "2026-11-22",
            "--format",
            "{{.Image}} {{.Verdict}} {{.High}} {{.UsedBy}}",
        ])
    };
    eventually("the manager knows the worker's image", PATIENCE, || {
        judged().stdout.lines().any(|line| line == "app:1 vulnerable 1 web")
    });
    let listed = http::get(&manager.socket(), "/brig/inventories");
    assert_eq!(listed[0]["Uses"][0]["Kind"], "task", "{listed}");
    assert!(http::get(&manager.socket(), "/images/json").as_array().unwrap().is_empty());
    let kept = fs::read_dir(manager.data().join("inventories/nodes")).unwrap().count();
    assert_eq!(kept, 1);
}
