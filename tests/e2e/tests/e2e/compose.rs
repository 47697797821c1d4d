//! docker-compose brings up a stack of three services, changes it and takes it down.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use brig_e2e::client::{Client, Output};
use brig_e2e::{Brigd, eventually};

/// A web server that waits for a healthy cache, and workers that ask both by their names.
const STACK: &str = r#"
version: "2.4"
services:
  web:
    image: busybox
    command: ["sh", "-c", "echo \"hello from $$SITE\" > /index.html; exec httpd -f -p 80 -h /"]
    environment:
      SITE: ${SITE}
    env_file: web.env
    ports: ["127.0.0.1::80"]
    depends_on:
      cache: {condition: service_healthy}
    networks: {inner: {aliases: [front]}}
    labels: {stack.role: front}
    restart: unless-stopped
    stop_grace_period: 1s
  cache:
    image: busybox
    command: ["sh", "-c", "[ -e /data/kept ] || date +%s%N > /data/kept; exec httpd -f -p 6379 -h /data"]
    volumes: ["kept:/data", "./settings:/etc/settings:ro"]
    healthcheck: {test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:6379/kept"], interval: 200ms, timeout: 5s, retries: 50}
    networks: [inner]
    stop_grace_period: 1s
  worker:
    image: busybox
    command: ["sh", "-c", "trap 'exit 0' TERM; while :; do wget -q -O - http://front/index.html && wget -q -O - http://cache:6379/kept | sed 's/^/kept /'; sleep 0.2; done"]
    depends_on: [web, cache]
    networks: [inner]
    mem_limit: 64m
    ulimits: {nofile: 512}
    cap_drop: [ALL]
    stop_grace_period: 5s
networks:
  inner: {driver: bridge, labels: {stack.net: "yes"}}
volumes:
  kept: {labels: {stack.volume: "yes"}}
"#;

struct Stack {
    compose: Client,
    file: String,
}

impl Stack {
    fn new(daemon: &Brigd) -> Self {
        let folder = daemon.root().join("stack");
        std::fs::create_dir_all(folder.join("settings")).unwrap();
        std::fs::write(folder.join("settings/mode"), "calm\n").unwrap();
        std::fs::write(folder.join("web.env"), "COLOUR=green\n").unwrap();
        // Compose reads it beside its file.
        std::fs::write(folder.join(".env"), "SITE=harbour\n").unwrap();
        let file = folder.join("docker-compose.yml");
        std::fs::write(&file, STACK).unwrap();
        let compose = Client::compose(&daemon.socket(), &daemon.client_config());
        Self { compose, file: text(&file) }
    }

    fn run(&self, args: &[&str]) -> Output {
        self.compose
            .run(&[&["--ansi", "never", "-p", "port", "-f", self.file.as_str()], args].concat())
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_stack_of_three_services_comes_up_scales_and_goes() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let stack = Stack::new(&daemon);
    let _ = stack.run(&["up", "-d"]).ok();

    let listed = stack.run(&["ps"]);
    for name in ["port_cache_1", "port_web_1", "port_worker_1"] {
        assert!(listed.ok().contains(name), "{}", listed.stdout);
    }
    assert!(listed.stdout.contains("Up (healthy)"), "{}", listed.stdout);
    assert_eq!(
        stack.run(&["ps", "--services", "--filter", "status=running"]).ok(),
        "cache\nweb\nworker"
    );
    assert_eq!(
        stack.run(&["exec", "-T", "web", "sh", "-c", "echo $SITE $COLOUR"]).ok(),
        "harbour green"
    );
    assert_eq!(stack.run(&["exec", "-T", "cache", "cat", "/etc/settings/mode"]).ok(), "calm");
    assert_eq!(stack.run(&["exec", "-T", "worker", "sh", "-c", "ulimit -n; exit 3"]).fails(3), "");
    let published = stack.run(&["port", "web", "80"]).ok().to_owned();
    assert!(published.starts_with("127.0.0.1:"), "{published}");
    let page = std::process::Command::new("busybox")
        .args(["wget", "-q", "-O", "-", &format!("http://{published}/index.html")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&page.stdout), "hello from harbour\n");

    let again = stack.run(&["up", "-d"]);
    let _ = again.ok();
    assert!(!again.stderr.contains("Recreating"), "nothing changed: {}", again.stderr);

    let _ = stack.run(&["up", "-d", "--scale", "worker=3"]).ok();
    assert_eq!(stack.run(&["ps", "-q", "worker"]).ok().lines().count(), 3);
    let kept = stack.run(&["exec", "-T", "cache", "cat", "/data/kept"]).ok().to_owned();
    eventually("every worker reaches the other two", Duration::from_secs(20), || {
        let logs = stack.run(&["logs", "--no-color", "worker"]).stdout;
        (1..=3).all(|n| {
            let line = |what: &str| {
                logs.lines()
                    .any(|line| line.starts_with(&format!("worker_{n} ")) && line.ends_with(what))
            };
            line("hello from harbour") && line(&format!("kept {kept}"))
        })
    });

    follow(&stack);

    let _ = stack.run(&["up", "-d", "--scale", "worker=1"]).ok();
    assert_eq!(stack.run(&["ps", "-q", "worker"]).ok().lines().count(), 1);
    let _ = stack.run(&["restart", "cache"]).ok();
    let _ = stack.run(&["up", "-d", "--force-recreate", "cache"]).ok();
    assert_eq!(
        stack.run(&["exec", "-T", "cache", "cat", "/data/kept"]).ok(),
        kept,
        "the volume outlives its container"
    );
    assert_eq!(
        stack
            .run(&["run", "--rm", "-T", "worker", "wget", "-q", "-O", "-", "http://web/index.html"])
            .ok(),
        "hello from harbour"
    );
    assert!(stack.run(&["top", "web"]).ok().contains("httpd"));
    let _ = stack.run(&["pause", "web"]).ok();
    let _ = stack.run(&["unpause", "web"]).ok();
    let _ = stack.run(&["stop"]).ok();
    assert_eq!(stack.run(&["ps", "--services", "--filter", "status=running"]).ok(), "");
    let _ = stack.run(&["start"]).ok();

    let _ = stack.run(&["down", "-v"]).ok();
    assert_eq!(brig.run(&["ps", "-aq"]).ok(), "");
    assert_eq!(brig.run(&["volume", "ls", "-q"]).ok(), "");
    assert_eq!(brig.run(&["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
}

/// `logs -f` shows what is printed from now on, and ends with its containers.
fn follow(stack: &Stack) {
    let mut command = stack.compose.command(&[
        "--ansi",
        "never",
        "-p",
        "port",
        "-f",
        &stack.file,
        "logs",
        "-f",
        "--tail",
        "1",
        "worker",
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Three containers of which the last line was asked for: most of these came later.
    assert_eq!(lines.by_ref().take(20).count(), 20);
    // What is not read meanwhile fits into the pipe.
    let _ = stack.run(&["stop", "worker"]).ok();
    assert!(lines.count() > 0);
    assert!(child.wait().unwrap().success());
    let _ = stack.run(&["start", "worker"]).ok();
}
