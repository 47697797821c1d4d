//! Services, secrets and configs through the real docker CLI, on a real daemon that is a swarm of
//! its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/image.rs"]
mod image;

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Daemon, Ran, clis};
use image::NAME;

/// A daemon that made a swarm and has a busybox image.
struct Manager(Daemon);

impl Manager {
    fn start() -> Option<Self> {
        let cli = *clis().first()?;
        let daemon = Daemon::start();
        let archive = image::archive(&daemon.dir)?;
        daemon.must(cli, &["load", "-q", "-i", archive.to_str().unwrap()]);
        let made = daemon.post("/v1.41/swarm/init", r#"{"ListenAddr":"127.0.0.1:0"}"#);
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some(Self(daemon))
    }

    fn must(&self, arguments: &[&str]) -> String {
        self.0.must(clis().first().unwrap(), arguments)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.0.run(clis().first().unwrap(), arguments)
    }

    /// Creates a secret or config from bytes.
    fn store(&self, kind: &str, name: &str, content: &[u8]) {
        let mut child = self
            .0
            .docker(clis().first().unwrap(), &[kind, "create", name, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Creates a service without waiting for it.
    fn serve(&self, name: &str, flags: &[&str], command: &[&str]) {
        let mut all = vec!["service", "create", "-d", "-q", "--no-resolve-image", "--name", name];
        all.extend(["--stop-grace-period", "0s"]);
        all.extend(flags);
        all.push(NAME);
        all.extend(command);
        self.must(&all);
    }

    /// Waits until a command's output satisfies `wanted`.
    fn eventually(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let ran = self.run(arguments);
            if ran.code == 0 && wanted(&ran.out) {
                return ran.out;
            }
            assert!(Instant::now() < deadline, "docker {arguments:?}: {ran:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self, service: &str, wanted: &str) -> String {
        self.eventually(&["service", "logs", "--raw", service], |out| out.contains(wanted))
    }

    /// The errors of a service's tasks.
    fn error(&self, service: &str, wanted: &str) {
        let format = ["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}"];
        let arguments: Vec<&str> = format.into_iter().chain([service]).collect();
        self.eventually(&arguments, |out| out.contains(wanted));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Else the swarm replaces every container that is removed.
        if let Some(cli) = clis().first() {
            self.0.run(cli, &["swarm", "leave", "--force"]);
        }
    }
}

/// Whether any file below a directory holds the bytes.
fn on_disk(dir: &std::path::Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => on_disk(&path, needle),
            Ok(kind) if kind.is_file() => std::fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle)),
            _ => false,
        }
    })
}

#[test]
fn secrets_and_configs_reach_the_container_and_nothing_else() {
    let Some(manager) = Manager::start() else { return };
    manager.store("secret", "db", b"hunter2-on-no-disk");
    manager.store("config", "site", b"config-content\n");
    manager.serve(
        "web",
        &[
            "--secret=db",
            "--secret=source=db,target=/etc/own,uid=5,gid=6,mode=0440",
            "--config=source=site,target=/site.txt",
            "--env=WHO={{.Service.Name}}-{{.Task.Slot}}",
            "--hostname={{.Service.Name}}{{.Task.Slot}}",
        ],
        &[
            "sh",
            "-c",
            "wc -c </run/secrets/db; ls -ln /etc/own; cat /site.txt; echo $WHO $(hostname); \
             tr a-z A-Z </run/secrets/db; echo; exec sleep 1000",
        ],
    );
    let log = manager.logs("web", "HUNTER2-ON-NO-DISK");
    assert!(log.starts_with("18\n"), "{log}");
    assert!(log.contains("-r--r-----    1 5        6               18"), "{log}");
    assert!(log.contains("config-content\nweb-1 web1\n"), "{log}");

    let secret: &[u8] = b"hunter2-on-no-disk";
    for dir in ["data", "exec"] {
        assert!(!on_disk(&manager.0.dir.join(dir), secret), "in a file below {dir}");
    }
    let container = manager.must(&["ps", "-q"]);
    for looked_at in [
        manager.must(&["secret", "inspect", "db"]),
        manager.must(&["service", "inspect", "web"]),
        manager.must(&["inspect", container.trim()]),
        manager.0.log(),
        std::fs::read_to_string("/proc/self/mountinfo").unwrap(),
    ] {
        assert!(!looked_at.contains("hunter2"), "{looked_at}");
    }
    // The names of the cluster's objects are in its store too, and nobody's business.
    assert!(!on_disk(&manager.0.dir.join("data/swarm"), b"config-content"));
}

#[test]
fn tasks_outlive_the_daemon() {
    let Some(mut manager) = Manager::start() else { return };
    manager.serve("web", &["--replicas=2"], &["sleep", "1000"]);
    let replicas = ["service", "ls", "--format", "{{.Replicas}}"];
    manager.eventually(&replicas, |out| out.trim() == "2/2");
    let list = ["ps", "-q", "--no-trunc"];
    let sorted = |text: String| {
        let mut ids: Vec<String> = text.lines().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    let before = sorted(manager.must(&list));
    manager.0.signal(rustix::process::Signal::KILL);
    manager.0.wait();
    manager.0.launch();
    manager.eventually(&replicas, |out| out.trim() == "2/2");
    assert_eq!(sorted(manager.must(&list)), before);
    assert!(manager.0.stop().success());
    manager.0.launch();
    manager.eventually(&replicas, |out| out.trim() == "2/2");
    assert_eq!(sorted(manager.must(&list)), before);
    // They are still watched: one that ends is replaced.
    manager.must(&["kill", &before[0]]);
    manager.error("web", "task: non-zero exit (137)");
}

#[test]
fn tasks_say_why_they_failed() {
    let Some(manager) = Manager::start() else { return };
    let once = "--restart-condition=none";
    manager.serve("seven", &[once], &["sh", "-c", "exit 7"]);
    manager.serve("nothing", &[once], &["no-such-program"]);
    let check = "--health-cmd=test ! -e /tmp/bad";
    let often = ["--health-interval=200ms", "--health-retries=2", once, check];
    manager.serve("sick", &often, &["sh", "-c", "touch /tmp/bad; exec sleep 1000"]);
    manager.serve("sickening", &often, &["sh", "-c", "sleep 1; touch /tmp/bad; exec sleep 1000"]);
    manager.serve("template", &[once, "--env=A={{if .Task}}x{{end}}"], &["true"]);
    manager.serve("bind", &[once, "--mount=type=bind,src=/no/such,dst=/x"], &["true"]);
    manager.serve("done", &[once], &["true"]);
    for (service, text) in [
        ("seven", "task: non-zero exit (7)"),
        ("nothing", "executable file not found"),
        ("sick", "unhealthy container"),
        ("sickening", "unhealthy container"),
        ("template", "expanding template failed"),
        ("bind", "Rejected"),
        ("done", "Complete"),
    ] {
        manager.error(service, text);
    }
}

#[test]
fn requests_that_are_wrong_get_dockers_answers() {
    let Some(manager) = Manager::start() else { return };
    let daemon = &manager.0;
    manager.serve("web", &[], &["sleep", "1000"]);
    let spec = |name: &str| {
        format!(r#"{{"Name":"{name}","TaskTemplate":{{"ContainerSpec":{{"Image":"x"}}}}}}"#)
    };
    for (path, body, status, text) in [
        (
            "/services/create",
            spec("web"),
            409,
            "name conflicts with an existing object: service web already exists",
        ),
        ("/services/create", spec("b!d"), 400, "name must be valid as a DNS name component"),
        (
            "/services/create",
            r#"{"Name":"a","TaskTemplate":{}}"#.to_owned(),
            400,
            "mismatched Runtime and *Spec fields",
        ),
        (
            "/services/web/update",
            spec("web"),
            400,
            r"invalid service version '': strconv.ParseUint: parsing \",
        ),
        (
            "/services/web/update?version=1",
            spec("web"),
            500,
            "rpc error: code = Unknown desc = update out of sequence",
        ),
        ("/services/nope/update?version=1", spec("nope"), 404, "service nope not found"),
        (
            "/secrets/create",
            r#"{"Name":"a","Data":"!"}"#.to_owned(),
            400,
            "illegal base64 data at input byte 0",
        ),
        ("/secrets/create", r#"{"Data":"eA=="}"#.to_owned(), 400, "name must be provided"),
        ("/swarm/init", "{}".to_owned(), 503, "This node is already part of a swarm"),
        ("/swarm/join", "{}".to_owned(), 503, "This node is already part of a swarm"),
        ("/swarm/leave", String::new(), 503, "You are attempting to leave the swarm"),
        ("/swarm/unlock", "{}".to_owned(), 409, "swarm is not locked"),
        ("/networks/create", r#"{"Name":"ov","Driver":"overlay"}"#.to_owned(), 501, "overlay"),
    ] {
        let answer = daemon.post(&format!("/v1.41{path}"), &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {body}: {answer}");
        assert!(answer.contains(text), "{path} {body}: {answer}");
    }
    for (path, status, text) in [
        ("/services/nope", 404, "service nope not found"),
        ("/tasks/nope", 404, "task nope not found"),
        ("/nodes/nope", 404, "node nope not found"),
        ("/secrets/nope", 404, "secret nope not found"),
        ("/configs/nope", 404, "config nope not found"),
        ("/networks/nope?scope=swarm", 404, "network nope not found"),
        ("/networks/host?scope=swarm", 200, "\"Scope\":\"swarm\""),
        ("/tasks?filters=%7B%22bogus%22%3A%5B%22a%22%5D%7D", 400, "Invalid filter 'bogus'"),
        ("/services/web/logs", 400, "you must choose at least one stream"),
        ("/swarm/unlockkey", 200, "{\"UnlockKey\":\"\"}"),
        ("/_ping", 200, "swarm: active/manager"),
    ] {
        let answer = daemon.get("GET", &format!("/v1.41{path}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains(text), "{path}: {answer}");
    }
    manager.must(&["swarm", "leave", "--force"]);
    for path in ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"] {
        let answer = daemon.get("GET", &format!("/v1.41{path}"));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{path}: {answer}");
        assert!(answer.contains("This node is not a swarm manager. Use"), "{path}: {answer}");
    }
}

#[test]
fn the_validity_of_certificates_is_set_and_the_root_printed() {
    for cli in clis() {
        let daemon = Daemon::start();
        let refused = daemon.run(cli, &["swarm", "init", "--cert-expiry", "59m59s"]);
        let too_short = "minimum certificate expiry time is: 1h0m0s";
        assert!(refused.code == 1 && refused.err.contains(too_short), "{refused:?}");
        let init = ["swarm", "init", "--listen-addr", "127.0.0.1:0", "--cert-expiry", "48h"];
        daemon.must(cli, &init);
        let expiry = || daemon.must(cli, &["info", "-f", "{{.Swarm.Cluster.Spec.CAConfig}}"]);
        let of_init = expiry();
        assert!(of_init.contains("48h0m0s"), "{of_init}");
        daemon.must(cli, &["swarm", "update", "--cert-expiry", "720h"]);
        let of_update = expiry();
        assert!(of_update.contains("720h0m0s"), "{of_update}");
        daemon.must(cli, &["swarm", "update", "--task-history-limit", "2"]);
        assert_eq!(expiry(), of_update, "another setting changes nothing here");
        let refused = daemon.run(cli, &["swarm", "update", "--cert-expiry", "1h0m-1s"]);
        assert_ne!(refused.code, 0);
        let refused = daemon.run(cli, &["swarm", "update", "--cert-expiry", "1m"]);
        assert!(refused.code == 1 && refused.err.contains(too_short), "{refused:?}");
        assert_eq!(expiry(), of_update);

        let root = daemon.dir.join("data/swarm/certificates/swarm-root-ca.crt");
        let root = std::fs::read_to_string(root).unwrap();
        assert_eq!(daemon.must(cli, &["swarm", "ca"]).trim(), root.trim());
        daemon.must(cli, &["swarm", "leave", "--force"]);
    }
}

#[test]
fn limits_of_join_tokens_outlive_updates_of_dockers_clients() {
    let Some(cli) = clis().first().copied() else { return };
    let daemon = Daemon::start();
    daemon.must(cli, &["swarm", "init", "--listen-addr", "127.0.0.1:0"]);
    let update = |parameters: &str| {
        let version = daemon.must(cli, &["info", "-f", "{{.Swarm.Cluster.Version.Index}}"]);
        let version = version.trim();
        daemon.post(&format!("/v1.41/swarm/update?version={version}&{parameters}"), "{}")
    };
    let limited = || daemon.get("GET", "/v1.41/swarm").contains(r#""UsesLeft":3"#);
    for wrong in ["rotateWorkerToken=true&joinTokenUses=-1", "joinTokenTTL=1", "joinTokenUses=3"] {
        let answer = update(wrong);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{wrong}: {answer}");
    }
    assert!(!limited());
    let answer = update("rotateWorkerToken=true&joinTokenTTL=3600000000000&joinTokenUses=3");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(limited());
    daemon.must(cli, &["swarm", "update", "--task-history-limit", "2"]);
    assert!(limited());
    daemon.must(cli, &["swarm", "join-token", "--rotate", "worker"]);
    assert!(!limited());
    daemon.must(cli, &["swarm", "leave", "--force"]);
}
