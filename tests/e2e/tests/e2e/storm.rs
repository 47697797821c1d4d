//! Clients that make and remove containers as fast as they can, while brigd is killed again and
//! again: in the end nothing may be left of any of it.
//!
//! `BRIG_STORM=1000x10` sets the number of containers and of kills (`make stress`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brig_e2e::footprint::Footprint;
use brig_e2e::{Brigd, Client, eventually};

const CLIENTS: usize = 8;

/// How many containers, and how many kills.
fn size() -> (usize, usize) {
    let text = std::env::var("BRIG_STORM").unwrap_or_else(|_| "64x3".to_owned());
    let (containers, kills) = text.split_once('x').expect("BRIG_STORM is CONTAINERSxKILLS");
    (containers.parse().expect("a number"), kills.parse().expect("a number"))
}

/// One container's life, one of several kinds. The daemon may be away at any moment, so any of it
/// may fail; `worked` counts what does not.
fn live(brig: &Client, number: usize, worked: &AtomicUsize) {
    let name = format!("storm-{number}");
    let run = |args: &[&str]| {
        // Nobody there: the next daemon is on its way. A connection that breaks is what this is
        // about, and not tried again.
        let done = loop {
            let done = brig.run(args);
            if done.code == 0 || !done.stderr.contains("Cannot connect") {
                break done;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if done.code == 0 {
            worked.fetch_add(1, Ordering::Relaxed);
        }
    };
    match number % 8 {
        0 => {
            run(&["create", "--name", &name, "-v", "/data", "busybox", "sleep", "1000"]);
            run(&["start", &name]);
            run(&["rm", "-f", "-v", &name]);
        }
        1 => run(&["run", "--rm", "--name", &name, "busybox", "true"]),
        2 => {
            run(&["run", "-d", "--name", &name, "-p", "80", "busybox", "sleep", "1000"]);
            run(&["stop", "-t", "0", &name]);
            run(&["rm", &name]);
        }
        3 => {
            run(&["run", "-d", "--name", &name, "--network", "storm", "busybox", "sleep", "1000"]);
            run(&["exec", &name, "true"]);
            run(&["rm", "-f", &name]);
        }
        4 => {
            let args = ["run", "-d", "--rm", "--name", &name, "--restart", "no", "-v", "/data"];
            run(&[&args[..], &["-p", "81", "busybox", "sleep", "1000"]].concat());
            run(&["kill", &name]);
        }
        5 => {
            let args = ["run", "-d", "--name", &name, "--restart", "always", "--network", "storm"];
            run(&[&args[..], &["--ipc", "shareable", "busybox", "false"]].concat());
            run(&["rm", "-f", &name]);
        }
        6 => {
            let mount = "type=volume,src=shared,dst=/s";
            run(&["run", "-d", "--name", &name, "--mount", mount, "busybox", "sleep", "1000"]);
            run(&["network", "connect", "storm", &name]);
            run(&["restart", "-t", "0", &name]);
            run(&["rm", "-f", &name]);
        }
        // Left to the clearing up at the end.
        _ => {
            run(&["run", "-d", "--name", &name, "-P", "--expose", "82", "busybox", "sleep", "1000"])
        }
    }
}

#[test]
fn nothing_is_left_of_a_storm() {
    let (containers, kills) = size();
    let mut daemon = Brigd::start_quiet();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ = brig.run(&["network", "create", "storm"]).ok();
    let _ = brig.run(&["volume", "create", "shared"]).ok();
    // Whatever is made with the first container and kept is made now.
    for network in ["bridge", "storm"] {
        let args = ["run", "-d", "--name", "first", "-p", "80", "-v", "shared:/s"];
        let _ =
            brig.run(&[&args[..], &["--network", network, "busybox", "sleep", "9"]].concat()).ok();
        let _ = brig.run(&["exec", "first", "true"]).ok();
        let _ = brig.run(&["rm", "-f", "first"]).ok();
    }
    daemon.kill();
    daemon.spawn();
    let before = Footprint::of(&daemon);

    let next = Arc::new(AtomicUsize::new(0));
    let worked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (brig, next, worked) = (brig.clone(), Arc::clone(&next), Arc::clone(&worked));
            std::thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= containers {
                        break;
                    }
                    live(&brig, number, &worked);
                }
            })
        })
        .collect();
    for kill in 1..=kills {
        let mark = containers * kill / (kills + 1);
        let deadline = Instant::now() + Duration::from_secs(120);
        while next.load(Ordering::Relaxed) < mark && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Every time at another moment of the lives under way.
        std::thread::sleep(Duration::from_millis((kill as u64 * 37) % 150));
        daemon.kill();
        daemon.spawn();
    }
    for client in clients {
        client.join().unwrap();
    }
    let worked = worked.load(Ordering::Relaxed);
    assert!(worked > containers, "only {worked} commands worked: this was no storm");
    // All that is there can be removed, at the first try, by the daemon that found it.
    let listed = || -> BTreeSet<String> {
        brig.run(&["ps", "-aq", "--no-trunc"]).ok().lines().map(str::to_owned).collect()
    };
    let left = listed();
    for id in &left {
        let removed = brig.run(&["rm", "-f", "-v", id]);
        assert!(removed.code == 0 || removed.stderr.contains("No such container"), "{removed:?}");
    }
    assert_eq!(listed(), BTreeSet::new());
    let mut after = Footprint::default();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        after = Footprint::of(&daemon);
        if after == before {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let differences = after.differences(&before);
    assert!(differences.is_empty(), "{containers} containers, {kills} kills:\n{differences}");
    eprintln!("{containers} containers, {kills} kills, {worked} commands: {:?}", after.counts());
    eventually("the daemon serves on", Duration::from_secs(10), || {
        brig.run(&["run", "--rm", "-p", "80", "busybox", "echo", "well"]).stdout == "well\n"
    });
}
