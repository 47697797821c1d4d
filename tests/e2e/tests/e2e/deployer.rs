//! A deployer on a cluster of one node, with brig's CLI and with docker's of every age: its own
//! service it updates, and whatever else it tries is refused by a rule with a name.

use std::collections::BTreeSet;

use brig_e2e::rights::{BINDINGS, DEPLOYER, Guarded, VIEWER};
use serde_json::{Value, json};

const UPDATE: [&str; 4] = ["service", "update", "--detach", "--no-resolve-image"];

/// A cluster with the services `web` and `bank`, and the secrets `key` and `db`.
fn cluster() -> Guarded {
    let guarded = Guarded::start(BINDINGS);
    guarded.daemon.init_swarm();
    let root = guarded.root();
    for secret in ["key", "db"] {
        let _ = root.run_with(&["secret", "create", secret, "-"], b"s3cr3t").ok();
    }
    for name in ["web", "bank"] {
        let create = ["service", "create", "--detach", "--no-resolve-image", "--replicas", "0"];
        let more = ["--env", "PASSWORD=hunter2", "--secret", "key", "--name", name, "busybox:1"];
        let _ = root.run(&[&create[..], &more[..]].concat()).ok();
    }
    guarded
}

#[test]
fn a_deployer_updates_its_service_and_nothing_else() {
    let guarded = cluster();
    let root = guarded.root();
    for (number, program) in guarded.programs().into_iter().enumerate() {
        let run = |uid: u32, args: &[&str]| guarded.run(uid, &program, args);
        let image = format!("busybox:{}", number + 2);
        let _ = run(DEPLOYER, &[&UPDATE[..], &["--image", &image, "web"]].concat()).ok();
        let field = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";
        assert_eq!(root.run(&["service", "inspect", "--format", field, "web"]).ok(), image);

        let update = |more: &[&'static str]| [&UPDATE[..], more].concat();
        let refusals: Vec<(&str, Vec<&str>)> = vec![
            (
                "deployer/no-host-mounts",
                update(&["--mount-add", "type=bind,source=/etc,target=/x", "web"]),
            ),
            (
                "deployer/no-ungranted-volumes",
                update(&["--mount-add", "type=volume,source=data,target=/x", "web"]),
            ),
            ("deployer/no-capabilities", update(&["--cap-add", "SYS_ADMIN", "web"])),
            (
                "deployer/no-security-options",
                update(&["--sysctl-add", "kernel.core_pattern=x", "web"]),
            ),
            ("deployer/only-named", update(&["--image", "x:1", "bank"])),
            ("deployer/only-named", vec!["service", "rm", "bank"]),
            (
                "deployer/only-named-new",
                vec!["service", "create", "--detach", "--no-resolve-image", "--name", "new", "x:1"],
            ),
            // A service has no flag for it, a container has; a deployer makes none of its own.
            ("deployer/no-privileged", vec!["run", "--privileged", "busybox:1"]),
            ("deployer/no-privileged", vec!["create", "--privileged", "busybox:1"]),
            ("deployer/no-capabilities", vec!["create", "--cap-add", "SYS_ADMIN", "busybox:1"]),
            ("deployer/no-host-mounts", vec!["create", "-v", "/:/host", "busybox:1"]),
            ("deployer/no-host-namespaces", vec!["create", "--pid", "host", "busybox:1"]),
            ("deployer/no-devices", vec!["create", "--device", "/dev/sda", "busybox:1"]),
            ("deployer/default", vec!["create", "busybox:1"]),
            ("deployer/default", vec!["node", "ls"]),
            // docker's CLI looks at the container first.
            (
                if number == 0 { "deployer/default" } else { "deployer/only-named" },
                vec!["exec", "x", "id"],
            ),
            ("deployer/default", vec!["swarm", "leave"]),
        ];
        for (rule, args) in &refusals {
            let refused = run(DEPLOYER, args);
            let named = format!("authorization denied by policy {rule:?}");
            assert!(refused.code != 0 && refused.stderr.contains(&named), "{rule}: {refused:?}");
            // `docker run` ends so when the daemon refuses.
            assert!(args[0] != "run" || refused.code == 125, "{refused:?}");
        }
        // The CLI looks the other secret up first, and does not find it among the deployer's own:
        // the rule's name is seen by whoever asks with the secret's id, below.
        let refused = run(DEPLOYER, &update(&["--secret-add", "db", "web"]));
        assert!(refused.fails(1).contains("secret not found: db"), "{refused:?}");

        // Lists show what may be inspected.
        let names = |uid| run(uid, &["service", "ls", "--format", "{{.Name}}"]);
        assert_eq!(names(DEPLOYER).ok(), "web");
        let all = names(VIEWER);
        assert_eq!(all.ok().lines().collect::<BTreeSet<_>>(), BTreeSet::from(["bank", "web"]));
        assert_eq!(run(DEPLOYER, &["secret", "ls", "--format", "{{.Name}}"]).ok(), "key");
        // Environments and secrets' names are for those who may see them.
        let seen = run(VIEWER, &["service", "inspect", "web"]);
        assert!(seen.ok().contains("PASSWORD=***") && !seen.stdout.contains("hunter2"), "{seen:?}");
        assert!(!seen.stdout.contains("\"key\""), "{seen:?}");
        assert!(run(DEPLOYER, &["service", "inspect", "web"]).ok().contains("hunter2"));
    }
    // Nothing of what was refused is there.
    let spec = root.run(&["service", "inspect", "web"]);
    for part in ["SYS_ADMIN", "/etc", "core_pattern", "\"db\""] {
        assert!(!spec.ok().contains(part), "{part}: {spec:?}");
    }
    assert_eq!(root.run(&["ps", "-aq"]).ok(), "");

    // A rollback is judged by what it brings back, not by the body beside it.
    for flag in ["--cap-add", "--cap-drop"] {
        let _ = root.run(&[&UPDATE[..], &[flag, "SYS_ADMIN", "web"]].concat()).ok();
    }
    for program in guarded.programs() {
        let args = ["service", "rollback", "--detach", "web"];
        let refused = guarded.run(DEPLOYER, &program, &args);
        assert!(refused.fails(1).contains("deployer/no-capabilities"), "{refused:?}");
    }
    let _ = root.run(&["swarm", "leave", "--force"]).ok();
}

#[test]
fn what_no_command_asks_for_is_refused_by_name_too() {
    let guarded = cluster();
    let root = guarded.root();
    let id_of = |secret: &str| {
        root.run(&["secret", "inspect", "--format", "{{.ID}}", secret]).ok().to_owned()
    };
    let (key, db) = (id_of("key"), id_of("db"));
    let held = |id: &str, name: &str| {
        json!({"SecretID": id, "SecretName": name,
            "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}})
    };
    let service = || -> Value {
        let (status, body) = guarded.call(DEPLOYER, "GET", "/v1.41/services/web", "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let update = |change: &dyn Fn(&mut Value)| {
        let mut service = service();
        let path = format!("/v1.41/services/web/update?version={}", service["Version"]["Index"]);
        let spec = &mut service["Spec"];
        change(spec);
        guarded.call(DEPLOYER, "POST", &path, &spec.to_string())
    };
    let untouched = service()["Spec"].clone();
    let container = "/TaskTemplate/ContainerSpec";
    let cases: Vec<(&str, &str, &str, Value)> = vec![
        // The id counts, whatever name the client writes beside it.
        ("base/secret-use", container, "Secrets", json!([held(&db, "db")])),
        ("base/secret-use", container, "Secrets", json!([held(&db, "key")])),
        ("base/secret-use", container, "Secrets", json!([held(&key, "key"), held(&db, "db")])),
        ("deployer/no-capabilities", container, "CapabilityAdd", json!(["CAP_SYS_ADMIN"])),
        ("deployer/no-capabilities", container, "CapabilityAdd", json!(["sys_ptrace"])),
        ("deployer/no-capabilities", container, "CapabilityAdd", json!(["ALL"])),
        (
            "deployer/no-host-mounts",
            container,
            "Mounts",
            json!([{"Type": "bind", "Source": "/", "Target": "/h"}]),
        ),
        (
            "deployer/no-security-options",
            container,
            "Privileges",
            json!({"Seccomp": {"Mode": "unconfined"}}),
        ),
        ("deployer/no-host-namespaces", "/TaskTemplate", "Networks", json!([{"Target": "host"}])),
        ("deployer/no-other-access", "/TaskTemplate", "Runtime", json!("plugin")),
        ("deployer/only-named-new", "", "Name", json!("bank")),
    ];
    for (rule, place, field, value) in cases {
        let (status, body) = update(&|spec| {
            spec.pointer_mut(place).unwrap()[field] = value.clone();
        });
        let named = format!("authorization denied by policy \\\"{rule}\\\"");
        assert!(status == 403 && body.contains(&named), "{rule}: {status} {body}");
    }
    assert_eq!(service()["Spec"], untouched);
    // The same with the secret that is granted goes through.
    let (status, body) = update(&|spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([held(&key, "key")])
    });
    assert_eq!(status, 200, "{body}");
    for privileged in [r#"{"Image":"x","HostConfig":{"Privileged":true}}"#, "{}"] {
        let (status, body) = guarded.call(DEPLOYER, "POST", "/containers/create", privileged);
        let rule = if privileged == "{}" { "deployer/default" } else { "deployer/no-privileged" };
        assert!(status == 403 && body.contains(rule), "{status} {body}");
    }
    let _ = root.run(&["swarm", "leave", "--force"]).ok();
}
