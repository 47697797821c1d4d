//! Rights over real sockets: who is told apart by uid, what is refused, and what is recorded.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/rights.rs"]
mod rights;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{BRIGD, Daemon, Ran, clis};
use rights::{
    BINDINGS, DEPLOYER, NOBODY, OPERATOR, VIEWER, call, daemon, forget, rest, rules_dir, status,
    write,
};

#[test]
fn each_user_has_the_rights_of_its_role() {
    let daemon = daemon(BINDINGS, &[]);
    let create = r#"{"Image":"busybox:nosuch"}"#;
    for (uid, expected) in [
        // ping, list, create, audit
        (0, [200, 200, 404, 200]),
        (VIEWER, [200, 200, 403, 403]),
        (OPERATOR, [200, 200, 404, 403]),
        (DEPLOYER, [200, 200, 403, 403]),
        (NOBODY, [403, 403, 403, 403]),
    ] {
        let got = [
            call(&daemon, uid, "GET", "/_ping", ""),
            call(&daemon, uid, "GET", "/v1.41/containers/json", ""),
            call(&daemon, uid, "POST", "/containers/create", create),
            call(&daemon, uid, "GET", "/brig/audit", ""),
        ]
        .map(|answer| status(&answer));
        assert_eq!(got, expected, "uid {uid}\n{}", daemon.log());
    }
    let refused = call(&daemon, NOBODY, "GET", "/info", "");
    assert!(
        refused.contains(
            r#"authorization denied by policy \"default\": no role is bound to uid:61004"#
        ),
        "{refused}"
    );
    forget(daemon);
}

#[test]
fn everything_that_gives_the_host_away_is_seen() {
    let daemon = daemon(BINDINGS, &[]);
    assert!(
        status(&call(
            &daemon,
            0,
            "POST",
            "/volumes/create",
            r#"{"Name":"root","DriverOpts":{"type":"none","o":"bind","device":"/etc"}}"#
        )) < 300
    );
    for host in [
        r#""Privileged":true"#,
        r#""Binds":["/etc:/x:ro"]"#,
        r#""Binds":["root:/x"]"#,
        r#""Mounts":[{"Type":"bind","Source":"/etc","Target":"/x"}]"#,
        r#""Mounts":[{"Type":"volume","Source":"root","Target":"/x"}]"#,
        r#""Mounts":[{"Type":"volume","Target":"/x","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/etc"}}}}]"#,
        r#""Mounts":[{"Type":"volume","Target":"/x","VolumeOptions":{"DriverConfig":{"Options":{"type":"overlay","o":"lowerdir=/etc","device":"overlay"}}}}]"#,
        r#""VolumesFrom":["other"]"#,
        r#""CapAdd":["CAP_SYS_ADMIN"]"#,
        r#""CapAdd":["all"]"#,
        r#""PidMode":"host""#,
        r#""IpcMode":"container:x""#,
        r#""NetworkMode":"host""#,
        r#""UTSMode":"host""#,
        r#""UsernsMode":"host""#,
        r#""CgroupnsMode":"host""#,
        r#""Devices":[{"PathOnHost":"/dev/sda"}]"#,
        r#""DeviceCgroupRules":["a *:* rwm"]"#,
        r#""DeviceRequests":[{"Count":-1}]"#,
        r#""SecurityOpt":["seccomp=unconfined"]"#,
        r#""SecurityOpt":["apparmor=unconfined"]"#,
        r#""MaskedPaths":[]"#,
        r#""ReadonlyPaths":[]"#,
        r#""Sysctls":{"kernel/core_pattern":"|/x"}"#,
        r#""Annotations":{"run.oci.hooks":"x"}"#,
        r#""Runtime":"other""#,
        r#""CgroupParent":"/""#,
    ] {
        let body = format!(r#"{{"Image":"x","HostConfig":{{{host}}}}}"#);
        let answer = call(&daemon, OPERATOR, "POST", "/containers/create", &body);
        assert!(
            status(&answer) == 403 && answer.contains("operator/no-host-access"),
            "{host}: {answer}"
        );
    }
    let joined = r#"{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"host":{}}}}"#;
    let answer = call(&daemon, OPERATOR, "POST", "/containers/create", joined);
    assert_eq!(status(&answer), 403, "{answer}");
    let harmless = r#"{"Image":"x:y","HostConfig":{"CapAdd":["CAP_CHOWN"],"Binds":["data:/x"],"NetworkMode":"bridge","SecurityOpt":["no-new-privileges"],"Sysctls":{"net.ipv4.ip_forward":"1"}}}"#;
    let answer = call(&daemon, OPERATOR, "POST", "/containers/create", harmless);
    assert_eq!(status(&answer), 404, "{answer}");
    let bind = r#"{"Name":"bb","DriverOpts":{"type":"none","o":"bind","device":"/etc"}}"#;
    assert_eq!(status(&call(&daemon, OPERATOR, "POST", "/volumes/create", bind)), 403);
    assert_eq!(
        status(&call(&daemon, OPERATOR, "POST", "/volumes/create", r#"{"Name":"cc"}"#)),
        201
    );
    forget(daemon);
}

#[test]
fn rules_are_checked_at_the_start_and_read_again_on_a_signal() {
    let daemon = daemon(BINDINGS, &[("site.cedar", "// nothing yet\n")]);
    let dir = rules_dir(&daemon);
    let wait_for = |text: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !daemon.log().contains(text) {
            assert!(Instant::now() < deadline, "{text} is not in\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    assert_eq!(status(&call(&daemon, NOBODY, "GET", "/info", "")), 403);
    write(&dir.join("site.cedar"), "permit (principal, action, resource) when { nonsense };");
    daemon.signal(rustix::process::Signal::HUP);
    wait_for("the access rules are kept as they were");
    assert!(daemon.log().contains("site.cedar:1"), "{}", daemon.log());
    assert_eq!(status(&call(&daemon, VIEWER, "GET", "/info", "")), 200);
    write(
        &dir.join("site.cedar"),
        "@id(\"all-may-ask\")\npermit (principal, action == Action::\"system.info\", resource);",
    );
    daemon.signal(rustix::process::Signal::HUP);
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&call(&daemon, NOBODY, "GET", "/info", "")) != 200 {
        assert!(Instant::now() < deadline, "{}", daemon.log());
    }
    assert_eq!(status(&call(&daemon, NOBODY, "GET", "/version", "")), 403);
    // Another daemon does not start on a mistake.
    write(&dir.join("site.cedar"), "permit (principal, action, resource)\nwhen { context.nope };");
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| other.path().join(name).to_str().unwrap().to_owned();
    write(&other.path().join("brigd.json"), "{}");
    let ran = Ran::of(
        Command::new(BRIGD)
            .args([
                "--config-file",
                &at("brigd.json"),
                "--data-root",
                &at("d"),
                "--exec-root",
                &at("e"),
            ])
            .arg("--access")
            .arg(&dir)
            .output()
            .unwrap(),
    );
    assert!(ran.code == 1 && ran.err.contains("site.cedar:2"), "{ran:?}");
    forget(daemon);
}

#[test]
fn changes_and_denials_are_recorded_and_the_record_can_be_checked() {
    let daemon = daemon(BINDINGS, &[]);
    let secret = "hunter2-never-written";
    let create = format!(r#"{{"Image":"x:y","Env":["PASSWORD={secret}"]}}"#);
    call(&daemon, OPERATOR, "POST", "/containers/create?name=box", &create);
    call(&daemon, OPERATOR, "GET", "/containers/json", "");
    call(&daemon, VIEWER, "DELETE", "/containers/box", "");
    let read = |query: &str| -> Vec<serde_json::Value> {
        let answer = daemon.get("GET", &format!("/brig/audit?{query}"));
        serde_json::from_str(rest(&answer).trim()).unwrap()
    };
    let made = read("principal=uid:61002");
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["action"], "container.create");
    assert_eq!((&made[0]["status"], &made[0]["object"]), (&404.into(), &"box".into()));
    assert_eq!((&made[0]["rule"], &made[0]["transport"]), (&"operator/all".into(), &"unix".into()));
    let denied = read("denied=1");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!((&denied[0]["rule"], &denied[0]["status"]), (&"viewer/default".into(), &403.into()));
    let verified = || -> serde_json::Value {
        serde_json::from_str(rest(&daemon.get("GET", "/brig/audit/verify")).trim()).unwrap()
    };
    assert_eq!(verified()["Intact"], true, "{}", verified());
    let file = std::fs::read_dir(daemon.dir.join("data/audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|suffix| suffix == "jsonl"))
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(secret));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, text.replacen("uid:61002", "uid:61001", 1)).unwrap();
    let report = verified();
    assert_eq!(
        (&report["Intact"], &report["Problems"][0]["Line"]),
        (&false.into(), &2.into()),
        "{report}"
    );
    forget(daemon);
}

#[test]
fn a_full_disk_stops_changes_and_nothing_else() {
    let mut daemon = Daemon::start();
    assert!(daemon.stop().success());
    let audit = daemon.dir.join("data/audit");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "brig-test"])
        .arg(&audit)
        .status()
        .unwrap();
    assert!(mounted.success());
    daemon.launch();
    std::fs::write(audit.join("ballast"), vec![0_u8; 16384]).unwrap();
    let mut refused = None;
    for number in 0..500 {
        let answer = daemon.post("/volumes/create", &format!(r#"{{"Name":"v{number}"}}"#));
        if status(&answer) == 503 {
            refused = Some((number, answer));
            break;
        }
        assert_eq!(status(&answer), 201, "{answer}");
    }
    let (number, answer) = refused.unwrap();
    assert!(
        answer.contains("nothing is changed while the audit log cannot be written"),
        "{answer}"
    );
    assert!(answer.contains("No space left"), "{answer}");
    assert!(status(&daemon.get("GET", &format!("/volumes/v{number}"))) == 404);
    assert_eq!(status(&daemon.get("GET", "/volumes")), 200);
    std::fs::remove_file(audit.join("ballast")).unwrap();
    assert_eq!(status(&daemon.post("/volumes/create", r#"{"Name":"after"}"#)), 201);
    let report = daemon.get("GET", "/brig/audit/verify");
    let report: serde_json::Value = serde_json::from_str(rest(&report).trim()).unwrap();
    assert_eq!(report["Intact"], true, "{report}");
}

/// Whoever may do nearly everything still does not get at a secret by way of its container.
#[test]
fn getting_inside_a_container_needs_the_right_to_its_secrets() {
    let Some(&cli) = clis().first() else { return };
    let daemon = daemon(
        r#"{"bindings":[{"uid":61002,"role":"operator"},
            {"uid":61005,"role":"operator","secrets":["key"]}]}"#,
        &[],
    );
    let Some(archive) = image::archive(&daemon.dir) else { return forget(daemon) };
    daemon.must(cli, &["load", "-qi", archive.to_str().unwrap()]);
    let swarm = ["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:0"];
    daemon.must(cli, &swarm);
    let file = daemon.dir.join("key");
    std::fs::write(&file, "s3cr3t").unwrap();
    daemon.must(cli, &["secret", "create", "key", file.to_str().unwrap()]);
    let create = ["service", "create", "--detach", "--no-resolve-image", "--secret", "key"];
    let more = ["--name", "web", image::NAME, "sleep", "1000"];
    daemon.must(cli, &[&create[..], &more[..]].concat());
    let deadline = Instant::now() + Duration::from_secs(60);
    let id = loop {
        let found = daemon.must(cli, &["ps", "-q", "--no-trunc"]);
        if let Some(id) = found.split_whitespace().next() {
            break id.to_owned();
        }
        assert!(Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    let exec = r#"{"Cmd":["cat","/run/secrets/key"],"AttachStdout":true}"#;
    let ways = [
        ("POST", format!("/containers/{id}/exec"), exec),
        ("POST", format!("/containers/{}/exec", &id[..12]), exec),
        ("POST", format!("/containers/{id}/attach?stream=1&stdout=1"), ""),
        ("GET", format!("/containers/{id}/archive?path=/run/secrets/key"), ""),
        ("HEAD", format!("/containers/{id}/archive?path=/run/secrets/key"), ""),
        ("PUT", format!("/containers/{id}/archive?path=/tmp"), ""),
        ("GET", format!("/containers/{id}/export"), ""),
        ("POST", format!("/commit?container={id}&repo=stolen"), ""),
    ];
    for (method, path, body) in &ways {
        let answer = call(&daemon, OPERATOR, method, path, body);
        assert_eq!(status(&answer), 403, "{method} {path}: {answer}");
        assert!(*method == "HEAD" || answer.contains("base/secret-use"), "{path}: {answer}");
    }
    let trusted = call(&daemon, 61_005, "POST", &ways[0].1, exec);
    assert_eq!(status(&trusted), 201, "{trusted}");
    // Somebody else's exec in it is no way in either.
    let json: serde_json::Value = serde_json::from_str(rest(&trusted).trim()).unwrap();
    let start = format!("/exec/{}/start", json["Id"].as_str().unwrap());
    let answer = call(&daemon, OPERATOR, "POST", &start, r#"{"Detach":false}"#);
    assert!(status(&answer) == 403 && answer.contains("base/secret-use"), "{answer}");
    let answer = call(&daemon, 61_005, "POST", &start, r#"{"Detach":false}"#);
    assert!(answer.contains("s3cr3t"), "{answer}");
    assert_eq!(status(&call(&daemon, OPERATOR, "GET", &format!("/containers/{id}/json"), "")), 200);
    daemon.must(cli, &["service", "rm", "web"]);
    daemon.must(cli, &["swarm", "leave", "--force"]);
    forget(daemon);
}
