use serde_json::json;

use super::*;

pub(super) fn yaml(text: &str) -> Value {
    Value::Map(parse(text).unwrap())
}

fn lookup(name: &str) -> Option<String> {
    match name {
        "TAG" => Some("1.2".to_owned()),
        "COUNT" => Some("3".to_owned()),
        "FROM_CALLER" => Some("yes".to_owned()),
        _ => None,
    }
}

fn read_stack(text: &str) -> Result<Stack> {
    let mut tree = parse(text).map_err(message)?;
    for section in SECTIONS {
        if let Some(value) = tree.get_mut(section) {
            interpolate::values(value, section, &lookup)?;
        }
    }
    stack(tree, &Surroundings { stack: "st", directory: Path::new("/work"), lookup: &lookup })
}

fn refused(text: &str) -> String {
    read_stack(text).unwrap_err().text()
}

fn service(text: &str) -> serde_json::Value {
    let indented = text.replace('\n', "\n    ");
    let stack = read_stack(&format!("services:\n  web:\n    image: x\n    {indented}")).unwrap();
    serde_json::to_value(&stack.services[0]).unwrap()
}

#[test]
fn a_whole_file() {
    let stack = read_stack(
        r"
version: '3.9'
x-common: &common
  logging: {driver: json-file, options: {max-size: 1m}}
services:
  web:
    <<: *common
    image: registry:5000/web:${TAG}
    command: serve --port 80 'a b'
    entrypoint: [/bin/entry, -x]
    environment: {B: 2, FROM_CALLER: , A: 'x=y', GONE: }
    ports: ['8080:80', 53:53/udp, {target: 443, published: 8443, mode: host}]
    networks: {front: {aliases: [www]}, default: }
    volumes: [data:/data:ro, ./here:/there, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    secrets: [key, {source: other, target: o, uid: '5', mode: 0400}]
    configs: [conf]
    healthcheck: {test: curl localhost, interval: 1m30s, retries: 2}
    deploy:
      mode: replicated
      replicas: ${COUNT}
      labels: [tier=front]
      update_config: {parallelism: 2, delay: 10s, order: start-first, failure_action: rollback}
      resources: {limits: {cpus: '0.5', memory: 64m, pids: 100}, reservations: {memory: 8m}}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}
      placement: {constraints: [node.role == worker], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
    container_name: nope
    depends_on: [db]
  db:
    image: db
    networks: [back]
    labels: {a: b}
    stop_grace_period: 30s
networks:
  front: {attachable: true, driver_opts: {encrypted: ''}}
  back: {external: true, name: shared}
  unused: {}
volumes: {data: {driver: local, driver_opts: {type: nfs}}}
secrets: {key: {file: ./key}, other: {external: true}}
configs: {conf: {file: /etc/conf, name: conf-v2}}
",
    )
    .unwrap();
    let names: Vec<&str> = stack.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["st_db", "st_web"]);
    assert_eq!(
        serde_json::to_value(&stack.services[1]).unwrap(),
        json!({
            "Name": "st_web",
            "Labels": {"tier": "front", "com.docker.stack.namespace": "st", "com.docker.stack.image": "registry:5000/web:1.2"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "registry:5000/web:1.2", "Labels": {"com.docker.stack.namespace": "st"},
                    "Command": ["/bin/entry", "-x"], "Args": ["serve", "--port", "80", "a b"],
                    "Env": ["A=x=y", "B=2", "FROM_CALLER=yes", "GONE"],
                    "Mounts": [
                        {"Type": "volume", "Source": "st_data", "Target": "/data", "ReadOnly": true, "VolumeOptions": {
                            "Labels": {"com.docker.stack.namespace": "st"}, "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}}}},
                        {"Type": "bind", "Source": "/work/here", "Target": "/there"},
                        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576}}],
                    "Healthcheck": {"Test": ["CMD-SHELL", "curl localhost"], "Interval": 90_000_000_000_i64, "Retries": 2},
                    "Secrets": [
                        {"File": {"Name": "o", "UID": "5", "GID": "0", "Mode": 0o400}, "SecretID": "", "SecretName": "other"},
                        {"File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o444}, "SecretID": "", "SecretName": "st_key"}],
                    "Configs": [{"File": {"Name": "/conf", "UID": "0", "GID": "0", "Mode": 0o444}, "ConfigID": "", "ConfigName": "conf-v2"}]},
                "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 100}, "Reservations": {"MemoryBytes": 8_388_608}},
                "RestartPolicy": {"Condition": "on-failure", "Delay": 5_000_000_000_i64, "MaxAttempts": 3, "Window": 120_000_000_000_i64},
                "Placement": {"Constraints": ["node.role == worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 2},
                "Networks": [{"Target": "st_default", "Aliases": ["web"]}, {"Target": "st_front", "Aliases": ["www", "web"]}],
                "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}, "ForceUpdate": 0},
            "Mode": {"Replicated": {"Replicas": 3}},
            "UpdateConfig": {"Parallelism": 2, "Delay": 10_000_000_000_i64, "FailureAction": "rollback", "MaxFailureRatio": 0.0, "Order": "start-first"},
            "EndpointSpec": {"Ports": [
                {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "ingress"},
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
                {"Protocol": "tcp", "TargetPort": 443, "PublishedPort": 8443, "PublishMode": "host"}]}
        })
    );
    let networks: Vec<_> = stack.networks.iter().map(|n| n.request.name.as_str()).collect();
    assert_eq!(networks, ["shared", "st_default", "st_front"]);
    assert_eq!(stack.networks[0].name, Name::External(Some("shared".to_owned())));
    assert_eq!(stack.networks[2].request.driver, "overlay");
    assert!(stack.networks[2].request.attachable);
    assert_eq!(stack.secrets[0].file.as_deref(), Some(Path::new("/work/key")));
    assert_eq!(stack.configs[0].cluster_name, "conf-v2");
    assert!(stack.notes.ignored.contains("depends_on"));
    assert!(stack.notes.deprecated.contains_key("container_name"));
}

#[test]
fn short_and_long_forms_of_fields() {
    assert_eq!(
        service("restart: on-failure:3")["TaskTemplate"]["RestartPolicy"],
        json!({"Condition": "on-failure", "MaxAttempts": 3})
    );
    assert_eq!(service("deploy: {mode: global}")["Mode"], json!({"Global": {}}));
    assert_eq!(
        service("extra_hosts: ['a:1.2.3.4', 'b=::1']")["TaskTemplate"]["ContainerSpec"]["Hosts"],
        json!(["1.2.3.4 a", "::1 b"])
    );
    assert_eq!(
        service("ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}")["TaskTemplate"]["ContainerSpec"]
            ["Ulimits"],
        json!([{"Name": "nofile", "Hard": 2, "Soft": 1}, {"Name": "nproc", "Hard": 5, "Soft": 5}])
    );
    assert_eq!(
        service("healthcheck: {disable: true}")["TaskTemplate"]["ContainerSpec"]["Healthcheck"],
        json!({"Test": ["NONE"]})
    );
    assert_eq!(
        service("tmpfs: ['/a', '/b:size=1k,mode=1770']")["TaskTemplate"]["ContainerSpec"]["Mounts"],
        json!([{"Type": "tmpfs", "Target": "/a"}, {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o1770}}])
    );
    assert_eq!(service("init: yes")["TaskTemplate"]["ContainerSpec"]["Init"], json!(true));
}

#[test]
fn mistakes_name_their_place() {
    for (text, expected) in [
        (
            "services: {web: {image: x, bogus: 1}}",
            "services.web Additional property bogus is not allowed",
        ),
        ("bogus: 1", "(root) Additional property bogus is not allowed"),
        ("services: {web: {command: x}}", "no image specified"),
        ("services: {web: {image: x, networks: [n]}}", "undefined network \"n\""),
        ("services: {web: {image: x, volumes: ['v:/v']}}", "undefined volume \"v\""),
        ("services: {web: {image: x, secrets: [s]}}", "undefined secret \"s\""),
        ("services: {web: {image: x, configs: [s]}}", "undefined config \"s\""),
        (
            "services: {web: {image: x, deploy: {replicas: many}}}",
            "services.web.deploy.replicas must be an integer",
        ),
        (
            "services: {web: {image: x, deploy: {mode: global, replicas: 2}}}",
            "replicas can only be used",
        ),
        (
            "services: {web: {image: 'x:${NOT_SET:?tell me}'}}",
            "required variable NOT_SET is missing a value: tell me",
        ),
        ("services: {web: {image: 'x:${'}}", "services.web.image"),
        ("services: {web: {image: x, extends: {service: y}}}", "extends"),
        ("services: [a]", "services must be a mapping"),
        ("version: '2.4'", "unsupported Compose file version: 2.4"),
        ("secrets: {s: {}}", "where its content comes from"),
        ("volumes: {v: {external: true, driver: local}}", "conflicting parameters"),
        ("services: {web: {image: x, ports: ['nope']}}", "services.web.ports.[0]"),
        ("services: {web: {image: x, volumes: [{type: odd, target: /x}]}}", "must be bind, volume"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(parse("a: 1\na: 2").is_err(), "the same name twice");
    assert!(parse("").is_err());
    let bomb = (0..30).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        format!("{text}a{}: &a{} [*a{n}, *a{n}, *a{n}, *a{n}]\n", n + 1, n + 1)
    });
    assert!(parse(&bomb).is_err(), "unfolding is bounded");
    assert!(parse(&"[".repeat(100_000)).is_err());
}

proptest::proptest! {
    #[test]
    fn any_text_ends(text in "(?s).{0,200}") {
        if let Ok(tree) = parse(&text) {
            let surroundings = Surroundings { stack: "s", directory: Path::new("/"), lookup: &lookup };
            let _ = stack(tree, &surroundings);
        }
    }
}
