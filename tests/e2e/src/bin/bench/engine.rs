//! One engine each: containers, secrets, services.

use std::time::{Duration, Instant};

use crate::engines::{self, Brig, Docker, Engine};
use crate::measure::{Comparison, in_turns};
use crate::report;

/// Compares one engine of each.
pub(crate) fn measure(rounds: usize) {
    let docker = Docker::start();
    let brig = Brig::start();
    let engines: [&dyn Engine; 2] = [&docker, &brig];
    for engine in engines {
        engine.cli(&["load", "-q", "-i", &brig_e2e::image::busybox().display().to_string()]);
        engine.swarm_init();
        engine.cli(&["run", "--rm", "busybox", "true"]);
    }
    println!("{rounds} rounds each, in turns; milliseconds; client and daemon of each side\n");
    println!("{}", Comparison::header());

    let cli = |args: &'static [&'static str]| {
        move |engine: &dyn Engine| {
            let start = Instant::now();
            engine.cli(args);
            start.elapsed()
        }
    };
    in_turns("run --rm --network none busybox true", 4.0, rounds, engines, |engine, _| {
        cli(&["run", "--rm", "--network", "none", "busybox", "true"])(engine)
    });
    in_turns("run --rm busybox true (bridge)", 3.0, rounds, engines, |engine, _| {
        cli(&["run", "--rm", "busybox", "true"])(engine)
    });
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
    in_turns("version", 1.0, rounds, engines, |engine, _| cli(&["version"])(engine));

    for engine in engines {
        for n in 0..20 {
            engine.cli(&["run", "-d", "--name", &format!("mem{n}"), "busybox", "sleep", "1000"]);
        }
    }
    std::thread::sleep(Duration::from_secs(3));
    println!("\nmemory with 20 containers, proportional set size, MiB (goal: brigd under a third)");
    let (docker_memory, brig_memory) = (docker.memory(), brig.memory());
    println!(
        "  dockerd + containerd {:8.1}   their shims    {:8.1}",
        docker_memory.daemons, docker_memory.monitors
    );
    println!(
        "  brigd                {:8.1}   their conmons  {:8.1}",
        brig_memory.daemons, brig_memory.monitors
    );
    let third = "brigd under a third";
    report::pair("memory of the daemons", "MiB", docker_memory.daemons, brig_memory.daemons, third);
    report::pair("memory of monitors", "MiB", docker_memory.monitors, brig_memory.monitors, "");
    println!(
        "  ratio                {:8.2}   ratio          {:8.2}",
        docker_memory.daemons / brig_memory.daemons,
        docker_memory.monitors / brig_memory.monitors
    );
    for engine in engines {
        let names: Vec<String> = (0..20).map(|n| format!("mem{n}")).collect();
        let mut args = vec!["rm", "-f"];
        args.extend(names.iter().map(String::as_str));
        engine.cli(&args);
    }
}
