//! The daemon as a process: start, refusal to start, stop; and the wire format of its answers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use common::{BRIGD, Daemon, Ran, clis};

fn brigd(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(BRIGD).args(arguments).output().unwrap())
}

#[test]
fn what_cannot_be_configured_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("brigd.json");
    let path = file.to_str().unwrap();
    std::fs::write(&file, r#"{"debgu":true}"#).unwrap();
    let ran = brigd(&["--validate", "--config-file", path]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("debgu") && ran.err.contains(path), "{ran:?}");
    std::fs::write(&file, r#"{"debug":false}"#).unwrap();
    let ran = brigd(&["--validate", "--config-file", path, "-D"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("both as a flag and in the configuration file"), "{ran:?}");
    let ran = brigd(&["--validate", "--config-file", path]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "configuration OK\n"));
    let ran = brigd(&["--config-file", path, "-H", "tcp://127.0.0.1:2375"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("without verified TLS") && ran.err.contains("ssh://"), "{ran:?}");
    let ran = brigd(&["--version"]);
    assert!(ran.code == 0 && ran.out.starts_with("brigd "), "{ran:?}");
}

#[test]
fn two_daemons_never_share_a_root_and_a_stop_leaves_nothing_behind() {
    let mut daemon = Daemon::start();
    let arguments: Vec<&str> = daemon.arguments.iter().map(String::as_str).collect();
    let second = brigd(&arguments);
    assert_eq!(second.code, 1);
    let expected = format!("in use by another brigd (process {})", daemon.pid());
    assert!(second.err.contains(&expected), "{second:?}");
    let pidfile = daemon.dir.join("exec/brigd.pid");
    let pid = std::fs::read_to_string(&pidfile).unwrap();
    assert_eq!(pid.trim(), daemon.pid().to_string());
    // A listener of events does not keep the daemon from stopping, and sees its stream end.
    let mut events = UnixStream::connect(&daemon.socket).unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0_u8; 12];
    events.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(daemon.stop().success(), "{}", daemon.log());
    let mut rest = Vec::new();
    events.read_to_end(&mut rest).unwrap();
    assert!(!daemon.socket.exists() && !pidfile.exists());
    daemon.launch();
    assert!(daemon.get("GET", "/_ping").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn answers_have_dockers_form() {
    let daemon = Daemon::start();
    let ping = daemon.get("GET", "/_ping").to_lowercase();
    for header in [
        "api-version: 1.50",
        "ostype: linux",
        "docker-experimental: false",
        "server: brig/",
        "cache-control: no-cache, no-store, must-revalidate",
        "pragma: no-cache",
        "swarm: inactive",
        "date: ",
    ] {
        assert!(ping.contains(header), "{header} in {ping}");
    }
    assert!(ping.ends_with("\r\n\r\nok"), "{ping}");
    let head = daemon.get("HEAD", "/_ping");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");

    for (method, path) in [
        ("GET", "/nope"),
        ("GET", "/v1.41/nope"),
        ("DELETE", "/version"),
        ("HEAD", "/version"),
        ("PATCH", "/containers/json"),
        ("GET", "/"),
        ("GET", "/containers/a%2Fb/c/json"),
    ] {
        let answer = daemon.get(method, path);
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{method} {path}: {answer}");
        if method != "HEAD" {
            assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
            assert!(answer.ends_with("{\"message\":\"page not found\"}\n"), "{answer}");
        }
        assert!(answer.to_lowercase().contains("api-version: 1.50"), "{answer}");
    }

    let new = daemon.get("GET", "/v1.99/version");
    assert!(new.starts_with("HTTP/1.1 400 "), "{new}");
    assert!(new.contains("client version 1.99 is too new. Maximum supported API version is 1.50"));
    let old = daemon.get("GET", "/v1.11/version");
    assert!(old.starts_with("HTTP/1.1 400 ") && old.contains("content-type: text/plain"), "{old}");
    assert!(daemon.get("GET", "/v1.24/version").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn bodies_are_read_by_dockers_rules() {
    let daemon = Daemon::start();
    let send = |media_type: &str, body: &str| {
        daemon.raw(&format!(
            "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{media_type}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let answer = send("Content-Type: text/plain\r\n", "{\"Image\":\"x\"}");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("Content-Type specified (text/plain) must be 'application/json'"));
    let answer = send("Content-Type: application/json\r\n", "{\"Image\":");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("invalid JSON"), "{answer}");
    let answer = send("Content-Type: application/json\r\n", "{}");
    assert!(answer.contains("Config cannot be empty in order to create a container"), "{answer}");
    // A client before 28 sends a media type with an empty body.
    let answer = send("Content-Type: text/plain\r\n", "");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("got EOF"), "{answer}");
    let answer = daemon.post("/containers/create", "{\"Image\":\"no-such-image-here\"}");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("No such image: no-such-image-here:latest"), "{answer}");
    let large = format!("{{\"Name\":\"{}\"}}", "a".repeat(2 << 20));
    let answer = daemon.post("/volumes/create", &large);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{}", &answer[..answer.len().min(300)]);
}

#[test]
fn a_refused_upload_is_read_away_so_that_its_sender_learns_why() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = 200_000;
    let head = format!(
        "PUT /containers/none/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![0; length]).unwrap();
    // The connection goes on.
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(answers.contains("No such container: none"), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let daemon = Daemon::start();
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(b"GET /events?until=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn both_clis_speak_with_it() {
    let daemon = Daemon::start();
    for cli in clis() {
        let version = daemon
            .must(cli, &["version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}"]);
        assert_eq!(version.trim(), concat!(env!("CARGO_PKG_VERSION"), " 1.50"), "{cli}");
        let text = daemon.must(cli, &["version"]);
        assert!(
            text.contains("Server: brig") && text.contains("1.50 (minimum version 1.24)"),
            "{text}"
        );
        let info = daemon.must(cli, &["info"]);
        for line in [
            "Containers: 0",
            "Storage Driver: overlay2",
            "Swarm: inactive",
            "Live Restore Enabled: true",
        ] {
            assert!(info.contains(line), "{line} in {info}");
        }
        assert!(!info.contains("WARNING"), "{info}");
        assert_eq!(daemon.must(cli, &["ps", "-aq"]), "");
        assert_eq!(daemon.must(cli, &["images", "-q"]), "");
        assert!(daemon.must(cli, &["network", "ls"]).contains("bridge"));
        assert_eq!(daemon.must(cli, &["volume", "ls", "-q"]), "");
        daemon.must(cli, &["system", "df"]);
        daemon.must(cli, &["plugin", "ls"]);
        let ran = daemon.run(cli, &["inspect", "nope"]);
        assert!(ran.code == 1 && ran.err.contains("No such object: nope"), "{ran:?}");
        let ran = daemon.run(cli, &["start", "nope"]);
        assert!(ran.code == 1 && ran.err.contains("No such container: nope"), "{ran:?}");
        let ran = daemon.run(cli, &["logs", "nope"]);
        assert!(ran.err.contains("No such container: nope"), "{ran:?}");
        // Nobody listens there.
        let ran = daemon.run(cli, &["search", "127.0.0.1:1/x"]);
        assert!(ran.code != 0 && ran.err.contains("127.0.0.1:1/v1/search"), "{ran:?}");
        let ran = daemon.run(cli, &["network", "rm", "bridge"]);
        assert!(
            ran.err.contains("bridge is a pre-defined network and cannot be removed"),
            "{ran:?}"
        );
    }
}

#[test]
fn a_reload_changes_the_log_level() {
    let daemon = Daemon::start();
    std::fs::write(daemon.dir.join("brigd.json"), r#"{"labels":["a=b"]}"#).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    for _ in 0..100 {
        if daemon.log().contains("needs a restart") {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{}", daemon.log());
}

/// A registry that knows one user and no image.
fn registry() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            // A TLS greeting gets no answer, so that the client goes on without.
            while !request.ends_with(b"\r\n\r\n")
                && !request.starts_with(&[0x16])
                && stream.read(&mut byte).unwrap_or(0) == 1
            {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            // base64 of `ann:right`.
            let status = if !request.contains("authorization: basic yw5uonjpz2h0") {
                "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\""
            } else if request.contains(" /v2/ ") {
                "200 OK"
            } else {
                "404 Not Found"
            };
            let body = if status.starts_with("404") {
                "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}"
            } else {
                ""
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn a_login_is_checked_and_a_refused_pull_is_no_stream() {
    let daemon = Daemon::start();
    let port = registry();
    for cli in clis() {
        let login = |password: &str| {
            let address = format!("127.0.0.1:{port}");
            daemon.run(cli, &["login", "-u", "ann", "-p", password, &address])
        };
        let ran = login("wrong");
        assert!(ran.code != 0 && ran.err.contains("401 Unauthorized"), "{ran:?}");
        let ran = login("right");
        assert!(ran.code == 0 && ran.out.contains("Login Succeeded"), "{ran:?}");
        let ran = daemon.run(cli, &["pull", &format!("127.0.0.1:{port}/nope:1")]);
        assert!(ran.code == 1 && ran.err.contains("manifest unknown"), "{ran:?}");
    }
    let path = format!("/v1.44/images/create?fromImage=127.0.0.1:{port}/nope&tag=1");
    let answer = daemon.get("POST", &path);
    assert!(answer.starts_with("HTTP/1.1 500 ") || answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("no basic auth credentials"), "{answer}");
    let answer = daemon.get("GET", &format!("/v1.44/distribution/127.0.0.1:{port}/a/b:1/json"));
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!daemon.log().contains("right"), "a password is in the log");
}
