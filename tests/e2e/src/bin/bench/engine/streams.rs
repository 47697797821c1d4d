//! Commands in a running container, and what containers print.

use std::time::Instant;

use brig_e2e::http;
use serde_json::{Value, json};

use super::crowd;
use crate::engines::Engine;
use crate::measure::{self, in_turns, millis};

/// Lines that are printed, of [`WIDTH`] bytes each with their ends: 200 MB.
const LINES: u64 = 1_000_000;
const WIDTH: usize = 200;

/// `exec x true`, over the API and by the client.
pub(super) fn exec(engines: [&dyn Engine; 2], rounds: usize) {
    for engine in engines {
        engine.cli(&["run", "-d", "--name", "execs", "busybox", "sleep", "100000"]);
    }
    in_turns("exec x true (API: create, start, inspect)", 3.0, rounds, engines, |engine, _| {
        let socket = engine.socket();
        let create = json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true});
        let start = Instant::now();
        let made = http::post(&socket, "/v1.41/containers/execs/exec", &create).unwrap();
        let id = crowd::id(&made);
        let how = json!({"Detach": false, "Tty": false});
        http::post(&socket, &format!("/v1.41/exec/{id}/start"), &how).unwrap();
        let exec = http::get(&socket, &format!("/v1.41/exec/{id}/json"));
        let took = start.elapsed();
        assert_eq!(exec["ExitCode"], 0, "{}: {exec}", engine.name());
        took
    });
    in_turns("exec x true (CLI)", 3.0, rounds, engines, |engine, _| {
        let start = Instant::now();
        engine.cli(&["exec", "execs", "true"]);
        start.elapsed()
    });
    for engine in engines {
        engine.cli(&["rm", "-f", "execs"]);
    }
}

/// A container that prints 200 MB into json-file, and reading that back.
pub(super) fn logs(engines: [&dyn Engine; 2], rounds: usize) {
    let line = "x".repeat(WIDTH - 1);
    let shell = format!("yes {line} | head -n {LINES}");
    let create = json!({
        "Image": "busybox", "Cmd": ["sh", "-c", shell],
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "json-file"}},
    });
    let (mut written, mut read) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        for (at, engine) in engines.iter().enumerate() {
            let socket = engine.socket();
            let made = http::post(&socket, "/v1.41/containers/create", &create).unwrap();
            let path = format!("/v1.41/containers/{}", crowd::id(&made));
            let start = Instant::now();
            http::post(&socket, &format!("{path}/start"), &Value::Null).unwrap();
            http::post(&socket, &format!("{path}/wait"), &Value::Null).unwrap();
            written[at].push(millis(start.elapsed()));
            let start = Instant::now();
            let bytes = http::count(&socket, &format!("{path}/logs?stdout=1")).unwrap();
            read[at].push(millis(start.elapsed()));
            // A head of 8 bytes for each frame; how lines are put into frames is the daemon's.
            assert!(bytes >= LINES * WIDTH as u64, "{}: {bytes} bytes", engine.name());
            http::delete(&socket, &path).unwrap();
            rustix::fs::sync();
        }
    }
    measure::print("print 1,000,000 lines, 200 MB, to json-file", written, "1.0x");
    measure::print("logs: read them back (API)", read, "1.0x");
}
