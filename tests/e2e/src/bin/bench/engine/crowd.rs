//! Many containers.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brig_e2e::http;
use serde_json::{Value, json};

use crate::engines::{Engine, Memory};
use crate::measure::{self, in_turns, millis};
use crate::report;

/// Clients that ask at the same time.
const CLIENTS: usize = 8;
/// Containers that run.
const RUNNING: usize = 100;
/// Containers that are listed.
const LISTED: usize = 500;
/// What a daemon is given to come to rest before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// The id that an answer has.
pub(super) fn id(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["Id"].as_str().unwrap().to_owned()
}

/// Has every client take the next number until `count` are done.
fn together(count: usize, work: impl Fn(usize) + Sync) -> Duration {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
    start.elapsed()
}

fn create(socket: &Path, number: usize) -> String {
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "100000"]});
    let path = format!("/v1.41/containers/create?name=crowd{number}");
    id(&http::post(socket, &path, &body).unwrap())
}

fn remove(socket: &Path, count: usize) -> Duration {
    together(count, |number| {
        http::delete(socket, &format!("/v1.41/containers/crowd{number}?force=1")).unwrap();
    })
}

/// Containers on the default network, made and started by several clients.
pub(super) fn parallel(engines: [&dyn Engine; 2], rounds: usize) {
    let (mut started, mut removed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut memory: [Option<Memory>; 2] = [None, None];
    for round in 0..rounds {
        for (at, engine) in engines.iter().enumerate() {
            let socket = engine.socket();
            let took = together(RUNNING, |number| {
                let id = create(&socket, number);
                http::post(&socket, &format!("/v1.41/containers/{id}/start"), &Value::Null)
                    .unwrap();
            });
            started[at].push(millis(took));
            let running = http::get(&socket, "/v1.41/containers/json");
            assert_eq!(running.as_array().map(Vec::len), Some(RUNNING), "{}", engine.name());
            if round + 1 == rounds {
                std::thread::sleep(REST);
                memory[at] = Some(engine.memory());
            }
            removed[at].push(millis(remove(&socket, RUNNING)));
        }
    }
    measure::print("100 containers created and started, 8 clients", started, "4.0x");
    measure::print("100 containers removed by force, 8 clients", removed, "1.0x");
    let [Some(docker), Some(brig)] = memory else { return };
    println!("\nmemory with {RUNNING} containers, proportional set size, MiB");
    let rows = [
        ("dockerd + containerd; brigd", docker.daemons, brig.daemons, "under a third"),
        ("their shims; their conmons", docker.monitors, brig.monitors, ""),
    ];
    for (what, docker, brig, goal) in rows {
        println!("{what:<50}{docker:>20.1}{brig:>20.1}{:>7.1}x  {goal}", docker / brig);
        report::pair(&format!("memory: {what}"), "MiB", docker, brig, goal);
    }
    println!();
}

/// Listing containers that do not run.
pub(super) fn list(engines: [&dyn Engine; 2], rounds: usize) {
    for engine in engines {
        let socket = engine.socket();
        together(LISTED, |number| {
            create(&socket, number);
        });
    }
    in_turns(
        "ps: GET /containers/json?all=1, 500 containers",
        1.0,
        rounds,
        engines,
        |engine, _| {
            let start = Instant::now();
            http::count(&engine.socket(), "/v1.41/containers/json?all=1").unwrap();
            start.elapsed()
        },
    );
    for engine in engines {
        let listed = http::get(&engine.socket(), "/v1.41/containers/json?all=1");
        assert_eq!(listed.as_array().map(Vec::len), Some(LISTED), "{}", engine.name());
        remove(&engine.socket(), LISTED);
    }
}
