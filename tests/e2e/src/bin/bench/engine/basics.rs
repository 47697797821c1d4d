//! What is done all day: a container of one command, a secret, a service.

use std::time::{Duration, Instant};

use crate::engines::{self, Engine};
use crate::measure::in_turns;

fn cli(engine: &dyn Engine, args: &[&str]) -> Duration {
    let start = Instant::now();
    engine.cli(args);
    start.elapsed()
}

/// A container's whole life, by each side's own client.
pub(super) fn run(engines: [&dyn Engine; 2], rounds: usize) {
    in_turns("run --rm --network none busybox true", 4.0, rounds, engines, |engine, _| {
        cli(engine, &["run", "--rm", "--network", "none", "busybox", "true"])
    });
    in_turns("run --rm busybox true (bridge)", 3.0, rounds, engines, |engine, _| {
        cli(engine, &["run", "--rm", "busybox", "true"])
    });
    in_turns("version", 1.0, rounds, engines, |engine, _| cli(engine, &["version"]));
}

/// A secret, and a service that gets it.
pub(super) fn swarm(engines: [&dyn Engine; 2], rounds: usize) {
    in_turns("secret create", 3.0, rounds * 2, engines, |engine, round| {
        let name = format!("bench{round}");
        let start = Instant::now();
        engine.cli_with(&["secret", "create", &name, "-"], b"value");
        start.elapsed()
    });
    in_turns(
        "service create to running task with its secret",
        4.0,
        rounds,
        engines,
        |engine, round| {
            let name = format!("svc{round}");
            let start = Instant::now();
            let create = [
                "service",
                "create",
                "-d",
                "-q",
                "--no-resolve-image",
                "--name",
                &name,
                "--secret",
                "bench0",
                "busybox",
                "sleep",
                "1000",
            ];
            engine.cli(&create);
            let end = start + Duration::from_secs(30);
            while !engine.task_runs(&name) {
                assert!(Instant::now() < end, "{name} does not run under {}", engine.name());
                std::thread::sleep(Duration::from_millis(2));
            }
            let took = start.elapsed();
            engine.cli(&["service", "rm", &name]);
            // The next round must not compete with this one's teardown.
            engines::wait_until_idle(engine);
            took
        },
    );
}
