//! brigd killed at any moment and started again: containers go on, and so do their logs, waits
//! and exits.

use std::time::Duration;

use brig_e2e::{Brigd, eventually};

#[test]
fn containers_outlive_the_daemon() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; [ -e /tmp/stop ] && exit 9; done";
    let id =
        brig.run(&["run", "-d", "--name", "count", "busybox", "sh", "-c", script]).ok().to_owned();
    let ends = brig.run(&["run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 1; exit 6"]);
    let _ = ends.ok();
    let pid = brig.run(&["inspect", "-f", "{{.State.Pid}}", "count"]).ok().to_owned();
    daemon.kill();
    std::thread::sleep(Duration::from_millis(1500));
    daemon.spawn();
    assert_eq!(
        brig.run(&["inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "count"]).ok(),
        format!("{pid} true")
    );
    assert_eq!(
        brig.run(&["wait", "ends"]).ok(),
        "6",
        "an exit during the daemon's absence is known"
    );
    assert_eq!(brig.run(&["exec", "count", "echo", "still"]).ok(), "still");
    let waiting = {
        let brig = brig.clone();
        std::thread::spawn(move || brig.run(&["wait", "count"]).ok().to_owned())
    };
    let _ = brig.run(&["exec", "count", "touch", "/tmp/stop"]).ok();
    assert_eq!(waiting.join().unwrap(), "9");
    let logs = brig.run(&["logs", &id]);
    let numbers: Vec<u32> =
        logs.ok().lines().map(|line| line["line ".len()..].parse().unwrap()).collect();
    assert!(
        numbers.len() > 20 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "no line is lost"
    );
}

#[test]
fn killed_while_containers_are_made() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    for round in 0..6_u64 {
        let starters: Vec<_> = (0..3)
            .map(|n| {
                let brig = brig.clone();
                std::thread::spawn(move || {
                    let name = format!("r{round}-{n}");
                    let _ = brig.run(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]);
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(15 + round * 17));
        daemon.kill();
        for starter in starters {
            let _ = starter.join();
        }
        daemon.spawn();
        for state in brig.run(&["ps", "-a", "--format", "{{.State}}"]).ok().lines() {
            assert!(["created", "running", "exited"].contains(&state), "{state}");
        }
        // Every container that is listed can be started, or is running, and can be removed.
        for id in brig.run(&["ps", "-aq"]).ok().lines() {
            let _ = brig.run(&["start", id]).ok();
            assert_eq!(brig.run(&["exec", id, "echo", "alive"]).ok(), "alive");
            let _ = brig.run(&["rm", "-f", id]).ok();
        }
    }
    eventually("nothing is left mounted", Duration::from_secs(10), || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        !mounts.lines().any(|line| {
            line.contains(daemon.root().to_str().unwrap()) && line.contains(" - overlay ")
        })
    });
    assert!(daemon.data_root().join("containers").read_dir().unwrap().next().is_none());
}

#[test]
fn a_service_goes_on_with_its_tasks() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    let brig = daemon.brig();
    let _ = brig.run_with(&["secret", "create", "s", "-"], b"value").ok();
    let _ = brig
        .run(&[
            "service",
            "create",
            "-q",
            "-d",
            "--name",
            "stay",
            "--secret",
            "s",
            "--replicas",
            "2",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let mut before = daemon.service_containers("stay", 2);
    daemon.kill();
    daemon.spawn();
    eventually("the node is ready again", Duration::from_secs(15), || {
        brig.run(&["node", "ls", "--format", "{{.Status}}"]).stdout.trim() == "Ready"
    });
    std::thread::sleep(Duration::from_secs(2));
    let mut after = daemon.service_containers("stay", 2);
    before.sort();
    after.sort();
    assert_eq!(before, after, "the same containers");
    assert_eq!(brig.run(&["exec", &after[0], "cat", "/run/secrets/s"]).ok(), "value");
    let _ = brig.run(&["service", "scale", "-d", "stay=1"]).ok();
    let _ = daemon.service_containers("stay", 1);
    daemon.stop();
    daemon.spawn();
    let _ = daemon.service_containers("stay", 1);
}
