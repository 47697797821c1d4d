//! Stacks: what `brig stack` makes of a Compose file is what docker's CLI makes of it, on a real
//! dockerd; and a stack that runs on brigd.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brig_e2e::client::{Client, Output};
use brig_e2e::dockerd::Dockerd;
use brig_e2e::{Brigd, http};
use serde_json::Value;

/// Most of what a stack can say. Nothing of it can run here but `idle`; what is compared is what
/// is asked for.
const FILE: &str = r#"
version: "3.9"
x-logging: &logging
  driver: json-file
  options: {max-size: 1m}
services:
  idle:
    image: busybox:${TAG:-latest}
    command: sleep "10 00"
    entrypoint: ["nice", "-n", "1"]
    environment: {B: "2", A: "x=y", CALLER: , GONE: , YES: yes}
    env_file: idle.env
    hostname: "{{.Node.Hostname}}"
    labels: {a: b}
    logging: *logging
    networks: {front: {aliases: [www]}, default: }
    volumes: ["data:/data:ro", "./here:/there", "/anonymous", {type: tmpfs, target: /t, tmpfs: {size: 1048576}}]
    secrets: [key, {source: second, target: other, uid: "5", gid: "6", mode: 0400}]
    configs: [conf, {source: named, target: /etc/named, mode: 0440}]
    healthcheck: {test: exit 0, interval: 1m30s, timeout: 2s, retries: 2, start_period: 3s}
    stop_grace_period: 1s
    stop_signal: SIGINT
    user: "0"
    working_dir: /tmp
    read_only: true
    tty: true
    init: true
    cap_drop: [ALL]
    cap_add: [net_admin]
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nproc: 500, nofile: {soft: 100, hard: 200}}
    extra_hosts: ["a:1.2.3.4"]
    dns: 8.8.8.8
    dns_search: [example.org]
    deploy:
      replicas: 0
      labels: [tier=front]
      update_config: {parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, monitor: 3s, max_failure_ratio: 0.5}
      rollback_config: {parallelism: 0}
      resources: {limits: {cpus: "0.5", memory: 64m, pids: 100}, reservations: {cpus: "0.1", memory: 8m, generic_resources: [{discrete_resource_spec: {kind: ssd, value: 1}}]}}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      placement: {constraints: [node.role == worker, node.labels.x != y], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
  ports:
    image: busybox
    ports: ["18091:80", 18053:53/udp, {target: 443, published: 18443, mode: host}, "18100-18102:100-102"]
    deploy: {replicas: 0, endpoint_mode: vip}
    networks: [back]
  everywhere:
    image: busybox@sha256:1111111111111111111111111111111111111111111111111111111111111111
    deploy: {mode: global, placement: {constraints: [node.labels.nowhere == yes]}}
    restart: on-failure:3
    healthcheck: {disable: true}
networks:
  front: {attachable: true, labels: {n: m}}
  back: {external: true, name: shared}
  unused: {}
volumes: {data: {driver: local, driver_opts: {type: tmpfs, device: tmpfs}, labels: {v: w}}}
secrets: {key: {file: ./key}, second: {file: ./key}}
configs: {conf: {file: ./key}, named: {file: ./key, name: "named-${STACK}", labels: {c: d}}}
"#;

/// Grows the stack: a second file over the first.
const OVER: &str = r"
version: '3.9'
services:
  idle:
    environment: {B: 3, C: 4}
    labels: {more: yes-please}
    deploy: {labels: {tier: back}}
  ports: {image: 'busybox:other'}
";

/// A manager and a folder with the files of a stack.
struct Stage {
    socket: PathBuf,
    brig: Client,
    docker: Client,
    folder: PathBuf,
}

impl Stage {
    fn new(socket: PathBuf, config: &Path) -> Self {
        let folder = config.join("files");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("stack.yml", FILE),
            ("over.yml", OVER),
            ("idle.env", "FROM_FILE=1\nB=file\n"),
            ("key", "much-too-secret\n"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let brig = Client::brig(&socket, config);
        let docker = Client::dockers(&socket, config).remove(0);
        Self { socket, brig, docker, folder }
    }

    fn run(&self, client: &Client, stack: &str, args: &[&str]) -> Output {
        let output = client
            .command(args)
            .current_dir(&self.folder)
            .env("CALLER", "of the command")
            .env("STACK", stack)
            .env_remove("GONE")
            .output()
            .unwrap();
        Output::of(format!("{}: {}", client.name, args.join(" ")), &output)
    }

    /// All services, networks, secrets and configs of a stack, with what tells two stacks apart
    /// taken out.
    fn specs(&self, stack: &str) -> BTreeMap<String, Value> {
        let mut specs = BTreeMap::new();
        let networks = http::get(&self.socket, "/networks");
        let named = |text: String| {
            networks.as_array().unwrap().iter().fold(text, |text, network| {
                text.replace(network["Id"].as_str().unwrap(), network["Name"].as_str().unwrap())
            })
        };
        for kind in ["services", "secrets", "configs", "networks"] {
            let all = http::get(&self.socket, &format!("/{kind}"));
            for object in all.as_array().unwrap() {
                let spec = object.get("Spec").unwrap_or(object);
                if spec["Labels"]["com.docker.stack.namespace"] != stack {
                    continue;
                }
                let mut text = spec.clone();
                without_ids(&mut text);
                let text = named(text.to_string()).replace(stack, "STACK");
                let name = spec["Name"].as_str().unwrap().replace(stack, "STACK");
                specs.insert(format!("{kind} {name}"), serde_json::from_str(&text).unwrap());
            }
        }
        specs
    }
}

fn without_ids(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let vxlan = "com.docker.network.driver.overlay.vxlanid_list";
            for key in ["Id", "Created", "SecretID", "ConfigID", "IPAM", vxlan] {
                map.remove(key);
            }
            // Go ranges over maps in any order; several files sort mounts too.
            if let Some(env) = map.get_mut("Env").and_then(Value::as_array_mut) {
                env.sort_by_key(ToString::to_string);
            }
            for list in ["Hosts", "Mounts", "Ulimits", "Secrets", "Configs"] {
                if let Some(list) = map.get_mut(list).and_then(Value::as_array_mut) {
                    list.sort_by_key(ToString::to_string);
                }
            }
            map.values_mut().for_each(without_ids);
        }
        Value::Array(list) => list.iter_mut().for_each(without_ids),
        _ => {}
    }
}

fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_stack_is_what_docker_makes_of_it() {
    let dockerd = Dockerd::start();
    let stage = Stage::new(dockerd.socket(), &dockerd.client_config());
    let (brig, docker) = (&stage.brig, &stage.docker);
    stage.run(docker, "", &["swarm", "init", "--advertise-addr", "127.0.0.1"]).ok();
    stage.run(brig, "", &["network", "create", "-d", "overlay", "shared"]).ok();
    let deploy = |client: &Client, stack: &str, more: &[&str]| {
        let args =
            [&["stack", "deploy", "--resolve-image", "never", "-c", "stack.yml"], more].concat();
        stage.run(client, stack, &[args.as_slice(), &[stack]].concat())
    };
    let same = |what: &str| {
        let (ours, dockers) = (stage.specs("ours"), stage.specs("dockers"));
        assert_eq!(ours.keys().collect::<Vec<_>>(), dockers.keys().collect::<Vec<_>>(), "{what}");
        for (name, spec) in &ours {
            assert_eq!(*spec, dockers[name], "{what}: {name}");
        }
        ours.len()
    };
    // 3 services, 2 secrets, 2 configs, 2 networks.
    let said = |output: &Output, stack: &str| lines(&output.ok().replace(stack, "STACK"));
    let ours = said(&deploy(brig, "ours", &[]), "ours");
    // Ports of two stacks would be in each other's way.
    let before = stage.specs("ours");
    stage.run(brig, "ours", &["service", "rm", "ours_ports"]).ok();
    let dockers = said(&deploy(docker, "dockers", &[]), "dockers");
    assert_eq!(ours, dockers);
    let after = stage.specs("dockers");
    assert_eq!(before.len(), 9, "{:?}", before.keys());
    for (name, spec) in &before {
        assert_eq!(*spec, after[name], "{name}");
    }
    stage.run(brig, "ours", &["service", "rm", "dockers_ports"]).ok();

    // A second file over the first; without ports, so that both are there at once.
    let file = stage.folder.join("stack.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    let plain: String = text
        .lines()
        .filter(|line| !line.starts_with("    ports: ["))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(&file, plain).unwrap();
    for (client, stack) in [(brig, "ours"), (docker, "dockers")] {
        let output = deploy(client, stack, &["-c", "over.yml"]);
        assert!(output.ok().contains(&format!("Updating service {stack}_idle (id: ")));
        assert!(output.stdout.contains(&format!("Creating service {stack}_ports")));
    }
    assert_eq!(same("over"), 9);

    // What lists say.
    for args in [
        &["stack", "ls"][..],
        &["stack", "services", "ours", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}"],
        &["stack", "ps", "ours"],
        &["stack", "ps", "nothing"],
        &["stack", "services", "nothing"],
        &["stack", "deploy", "-c", "nofile.yml", "x"],
        &["stack", "rm", "nothing"],
    ] {
        let (a, b) = (stage.run(brig, "ours", args), stage.run(docker, "ours", args));
        assert_eq!(a.code, b.code, "{args:?}: {} {}", a.stderr, b.stderr);
        assert_eq!(lines(&a.stdout), lines(&b.stdout), "{args:?}");
    }

    // What is no longer in the file goes with --prune.
    let small = "services: {idle: {image: busybox, deploy: {replicas: 0}}}\n";
    std::fs::write(&file, small).unwrap();
    let pruned = deploy(brig, "ours", &["--prune"]);
    assert!(pruned.ok().contains("Removing service ours_ports"), "{}", pruned.stdout);
    let left = stage.specs("ours");
    assert_eq!(left.keys().filter(|name| name.starts_with("services")).count(), 1);

    let gone = stage.run(brig, "ours", &["stack", "rm", "-d=false", "ours", "dockers"]);
    assert!(gone.ok().contains("Removing secret dockers_key"), "{}", gone.stdout);
    assert!(stage.specs("ours").is_empty() && stage.specs("dockers").is_empty());
}

#[test]
fn a_stack_comes_up_and_mistakes_change_nothing() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    let stage = Stage::new(daemon.socket(), &daemon.client_config());
    let file = stage.folder.join("web.yml");
    std::fs::write(
        &file,
        "services:\n  web:\n    image: busybox\n    command: sh -c 'cat /run/secrets/key; sleep 1000'\n    secrets: [key]\n    deploy: {replicas: 2}\nsecrets: {key: {file: key}}\nnetworks: {default: {external: true, name: bridge}}\n",
    )
    .unwrap();
    let deploy =
        |args: &[&str]| stage.run(&stage.brig, "up", &[&["stack", "deploy"], args].concat());
    let up = deploy(&["-d=false", "-q", "--resolve-image", "never", "-c", "web.yml", "up"]);
    assert_eq!(up.ok(), "Creating secret up_key\nCreating service up_web");
    let listed =
        stage.run(&stage.brig, "up", &["stack", "services", "--format", "{{.Replicas}}", "up"]);
    assert_eq!(listed.ok(), "2/2");
    assert_eq!(daemon.service_containers("up_web", 2).len(), 2);

    let before = stage.specs("up");
    for (text, expected) in [
        (
            "services: {web: {image: busybox, networks: [n]}}\nnetworks: {n: {external: true, name: not-there}}",
            "is declared as external, but could not be found",
        ),
        (
            "services: {web: {image: busybox, bogus: 1}}",
            "services.web Additional property bogus is not allowed",
        ),
        ("services: {web: {image: 'busybox:${UNSET_HERE?say which}'}}", "say which"),
        (
            "services: {web: {image: busybox, secrets: [key]}}\nsecrets: {key: {file: missing}}\nnetworks: {default: {external: true, name: bridge}}",
            "missing",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let refused = deploy(&["--resolve-image", "never", "-c", "web.yml", "up"]);
        assert!(refused.fails(1).contains(expected), "{text}: {}", refused.stderr);
    }
    assert_eq!(stage.specs("up"), before);
    // A secret's content never changes under its name.
    std::fs::write(
        &file,
        "services: {web: {image: busybox, secrets: [key]}}\nsecrets: {key: {file: over.yml}}\nnetworks: {default: {external: true, name: bridge}}",
    )
    .unwrap();
    let refused = deploy(&["-c", "web.yml", "up"]);
    assert!(refused.fails(1).contains("give a new one another name"), "{}", refused.stderr);

    let printed =
        stage.run(&stage.brig, "up", &["stack", "config", "-c", "stack.yml", "-c", "over.yml"]);
    assert!(printed.ok().contains("busybox:latest"), "{}", printed.stdout);
    assert!(printed.stdout.contains("more: yes-please"), "{}", printed.stdout);
    stage.run(&stage.brig, "up", &["stack", "rm", "-d=false", "up"]).ok();
    assert!(stage.specs("up").is_empty());
}
