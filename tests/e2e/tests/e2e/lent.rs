//! Sockets that containers are lent, and the engine's own, which they are not.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brig_e2e::{Brigd, Client, eventually};

const SOON: Duration = Duration::from_secs(15);

/// docker's CLI, with the libraries that Debian's needs: what is mounted, and where.
fn cli() -> Vec<(&'static str, &'static str)> {
    if Path::new("/usr/local/bin/docker").exists() {
        return vec![("/usr/local/bin/docker", "/bin/docker")];
    }
    let library = |path| Path::new(path).exists().then_some((path, path));
    let libraries = ["/lib", "/lib64"].into_iter().filter_map(library);
    std::iter::once(("/usr/bin/docker", "/bin/docker")).chain(libraries).collect()
}

/// Runs docker's CLI inside a container.
fn inside(brig: &Client, container: &str, args: &[&str]) -> brig_e2e::Output {
    brig.run(&[&["exec", container, "docker"], args].concat())
}

/// A container that sleeps, with docker's CLI in it.
fn sleeper(client: &Client, name: &str, flags: &[&str]) -> String {
    let cli: Vec<String> =
        cli().iter().map(|(from, to)| format!("--volume={from}:{to}:ro")).collect();
    let cli: Vec<&str> = cli.iter().map(String::as_str).collect();
    let end = ["busybox", "sleep", "1000"];
    client.run(&[&["run", "-d", "--name", name], &cli[..], flags, &end].concat()).ok().to_owned()
}

fn hang_up(daemon: &Brigd) {
    let told = Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap();
    assert!(told.success());
}

#[test]
fn a_container_asks_the_engine_in_its_role() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let flags =
        ["--engine-access", "viewer", "--read-only", "--user", "1234:77", "--tmpfs", "/run"];
    let id = sleeper(&brig, "looks", &flags);
    let lent = daemon.exec_root().join("lent").join(&id);

    assert_eq!(inside(&brig, "looks", &["ps", "--format", "{{.Names}}"]).ok(), "looks");
    let own = ["-H", "unix:///run/brig/engine.sock", "version", "--format", "{{.Server.Os}}"];
    assert_eq!(inside(&brig, "looks", &own).ok(), "linux");
    let refused = inside(&brig, "looks", &["rm", "-f", "looks"]);
    assert!(refused.fails(1).contains("authorization denied by policy"), "{}", refused.stderr);
    let role = ["inspect", "-f", "{{.HostConfig.EngineAccess.Role}}", "looks"];
    assert_eq!(brig.run(&role).ok(), "viewer");
    let audit = std::fs::read_dir(daemon.data_root().join("audit")).unwrap();
    let lines: String =
        audit.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok()).collect();
    let denied = lines.lines().find(|line| line.contains("lent:viewer")).expect("a denial");
    assert!(denied.contains(&format!("\"container\":\"{id}\"")), "{denied}");

    // Whoever asks while the daemon is away waits for the next one.
    daemon.kill();
    let waits = Command::new("nsenter")
        .args([
            "-t",
            &pid(&daemon, &id),
            "-m",
            "-S",
            "1234",
            "/bin/docker",
            "ps",
            "-q",
            "--no-trunc",
        ])
        .env("DOCKER_CONFIG", "/nowhere")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.spawn();
    let waited = waits.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&waited.stdout).trim(), id);
    assert_eq!(inside(&brig, "looks", &["ps", "-q", "--no-trunc"]).ok(), id);

    let _ = brig.run(&["stop", "-t", "0", "looks"]).ok();
    eventually("its socket is gone", SOON, || !lent.exists());
    let _ = brig.run(&["start", "looks"]).ok();
    assert_eq!(inside(&brig, "looks", &["ps", "-q", "--no-trunc"]).ok(), id);
    let _ = brig.run(&["rm", "-f", "looks"]).ok();
    eventually("its socket is gone for good", SOON, || !lent.exists());
}

/// The process of a container, as its record has it: there may be no daemon to ask.
fn pid(daemon: &Brigd, id: &str) -> String {
    let record = daemon.data_root().join("containers").join(id).join("config.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    record["state"]["process"]["pid"].to_string()
}

#[test]
fn nobody_hands_on_more_than_they_have() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    for (number, docker) in daemon.clients().iter().skip(1).enumerate() {
        let name = format!("op{number}");
        // A label is how docker's own clients say it.
        let label = "com.brig.engine-access=operator";
        let _ = sleeper(docker, &name, &["--label", label]);
        let child = format!("child{number}");
        let run = ["run", "-d", "--name", &child, "busybox", "sleep", "1000"];
        let _ = inside(&brig, &name, &run).ok();
        let lends = ["--label", "com.brig.engine-access=viewer"];
        let run = [&["run", "--rm"][..], &lends, &["busybox", "true"]].concat();
        let _ = inside(&brig, &name, &run).ok();
        for (flags, rule) in [
            (&["--privileged"][..], "operator/no-host-access"),
            (&["--label", "com.brig.engine-access=admin"], "base/lend"),
            (&["-v", "/etc:/x"], "operator/no-host-access"),
        ] {
            let run = [&["run", "--rm"][..], flags, &["busybox", "true"]].concat();
            let refused = inside(&brig, &name, &run);
            assert!(refused.fails(125).contains(rule), "{flags:?}: {}", refused.stderr);
        }
        let _ = brig.run(&["rm", "-f", &name, &child]).ok();
    }
    let admin = sleeper(&brig, "admin", &["--engine-access", "admin"]);
    let _ = sleeper(&brig, "op", &["--engine-access", "operator"]);
    let reach = inside(&brig, "op", &["exec", &admin, "true"]);
    assert!(reach.stderr.contains("base/lend"), "{}", reach.stderr);
    for (access, says) in [("vieer", "neither admin, operator"), ("viewer:servces=x", "none of")] {
        let refused = brig.run(&["run", "--engine-access", access, "busybox", "true"]);
        assert!(refused.code == 125 && refused.stderr.contains(says), "{refused:?}");
    }
}

#[test]
fn lists_and_events_show_what_the_role_may_see() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ = brig.run(&["volume", "create", "hidden"]).ok();
    let _ = sleeper(&brig, "sees", &["--engine-access", "viewer"]);
    let _ = sleeper(&brig, "deploys", &["--engine-access", "deployer:service=web"]);
    let own = ["run", "-d", "--name", "web", "-l", "com.docker.swarm.service.name=web"];
    let _ = brig.run(&[&own[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let names = |container: &str, args: &[&str]| -> Vec<String> {
        let output = inside(&brig, container, args);
        let mut names: Vec<String> = output.ok().lines().map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    };
    let events =
        ["events", "--since", "10m", "--until", "0s", "--format", "{{.Actor.Attributes.name}}"];
    // The CLI counts in whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let seen = names("sees", &events);
    assert!(seen.iter().any(|name| name == "deploys"), "{seen:?}");
    assert_eq!(names("deploys", &events), ["web"]);
    assert_eq!(names("deploys", &["ps", "--format", "{{.Names}}"]), ["web"]);
    let count = |container: &str| {
        names(container, &["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])
    };
    assert!(count("sees").contains(&"Local Volumes 1".to_owned()), "{:?}", count("sees"));
    let few = count("deploys");
    for line in ["Containers 1", "Images 0", "Local Volumes 0"] {
        assert!(few.contains(&line.to_owned()), "{few:?}");
    }
}

/// Something that a client listens to for as long as it may.
fn listen(brig: &Client, args: &[&str]) -> Child {
    let mut command = brig.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn streams_end_with_the_right_to_them() {
    let daemon = Brigd::prepare(&[]);
    let rules = daemon.root().join("access");
    std::fs::create_dir(&rules).unwrap();
    daemon.configure(&format!("{{\"access\":\"{}\"}}", rules.display()));
    let mut daemon = daemon;
    daemon.spawn();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ = sleeper(&brig, "asks", &["--engine-access", "operator"]);
    let _ = sleeper(&brig, "other", &["--engine-access", "viewer"]);
    let _ = brig.run(&["run", "-d", "-i", "--name", "target", "busybox", "cat"]).ok();
    let streams: [&[&str]; 5] = [
        &["events"],
        &["logs", "-f", "target"],
        &["wait", "target"],
        &["attach", "target"],
        &["exec", "-i", "target", "cat"],
    ];
    let from = |container: &str, args: &[&str]| {
        listen(&brig, &[&["exec", "-i", container, "docker"], args].concat())
    };
    let mut cut: Vec<Child> = streams.iter().map(|args| from("asks", args)).collect();
    // The CLI tries again and again instead of ending.
    let mut stats = from("asks", &["stats", "target"]);
    let mut kept = [from("other", &["events"]), listen(&brig, &["wait", "target"])];
    let logged = || std::fs::read_to_string(daemon.log()).unwrap();
    eventually("all of them listen", SOON, || {
        ["/events", "/logs", "/stats", "/wait", "/attach", "/start"].iter().all(|path| {
            logged().lines().any(|line| line.contains(path) && line.contains("operator"))
        })
    });
    std::fs::write(
        rules.join("less.cedar"),
        r#"@id("no-more") forbid (principal == Principal::"lent:operator", action, resource);"#,
    )
    .unwrap();
    hang_up(&daemon);
    for (stream, args) in cut.iter_mut().zip(streams) {
        eventually(&format!("{args:?} ends"), SOON, || stream.try_wait().unwrap().is_some());
    }
    eventually("stats are cut", SOON, || {
        logged().lines().any(|line| line.contains("cut off") && line.contains("container.inspect"))
    });
    for stream in &mut kept {
        assert!(stream.try_wait().unwrap().is_none(), "nothing else ends");
    }
    for stream in kept.iter_mut().chain([&mut stats]) {
        stream.kill().unwrap();
        let _ = stream.wait();
    }
    let log = brig.run(&["audit", "ls", "--denied"]);
    assert!(log.ok().contains("lent:operator"), "{}", log.stdout);
    assert_eq!(brig.run(&["inspect", "-f", "{{.State.Running}}", "target"]).ok(), "true");
}

#[test]
fn the_engines_own_socket_is_not_mounted() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let (socket, root) = (daemon.socket(), daemon.root().canonicalize().unwrap());
    let text = |path: &Path| path.display().to_string();
    let link = root.join("client/link");
    let _ = daemon.client_config();
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    let bind = |path: &Path| format!("{}:/x", path.display());
    let mount = format!("type=bind,source={},target=/x", text(&socket));
    for client in daemon.clients() {
        for flags in [
            ["-v", &bind(&socket)],
            ["-v", &bind(&link)],
            ["-v", &bind(&root)],
            ["-v", &bind(&daemon.data_root())],
            ["-v", &bind(&daemon.exec_root().join("new"))],
            ["--mount", &mount],
        ] {
            let run = [&["run", "--rm"][..], &flags, &["busybox", "true"]].concat();
            let refused = client.run(&run);
            assert!(refused.fails(125).contains("--engine-access"), "{}", refused.stderr);
        }
        let device = format!("device={}", text(&socket));
        let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
        let refused = client.run(&[&["volume", "create"][..], &options, &["vol"]].concat());
        assert!(refused.fails(1).contains("--engine-access"), "{}", refused.stderr);
    }
    assert!(!daemon.exec_root().join("new").exists(), "nothing is made of what is refused");

    // Monitoring agents have it like this.
    let brig = daemon.brig();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = table.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    let follows = [" shared:", " master:"].iter().any(|tag| root.contains(tag));
    if !follows {
        let refused = brig.run(&["run", "--rm", "-v", "/:/host:rslave", "busybox", "true"]);
        let text = "path / is mounted on / but it is not a shared or slave mount";
        assert!(refused.fails(125).contains(text), "{}", refused.stderr);
    }
    let flags = [["-v", "/:/host:ro"], ["-v", "/:/host:rslave"]];
    for flags in flags.iter().take(if follows { 2 } else { 1 }) {
        let _ = sleeper(&brig, "agent", flags);
        let seen = |path: &Path| {
            let path = format!("/host{}", path.display());
            brig.run(&["exec", "agent", "ls", &path]).ok().to_owned()
        };
        assert!(seen(Path::new("/etc")).contains("passwd"));
        assert_eq!(seen(&daemon.data_root()), "");
        assert_eq!(seen(&daemon.exec_root()), "");
        let host = format!("unix:///host{}", socket.display());
        let asked = inside(&brig, "agent", &["-H", &host, "ps"]);
        assert_ne!(asked.code, 0, "{asked:?}");
        assert!(daemon.data_root().join("containers").exists() && socket.exists());
        let _ = brig.run(&["rm", "-f", "agent"]).ok();
    }
    let shared = brig.run(&["run", "--rm", "-v", "/:/host:rshared", "busybox", "true"]);
    assert!(shared.fails(125).contains("shared propagation"), "{}", shared.stderr);
}

#[test]
fn the_configuration_says_what_becomes_of_binds_of_the_socket() {
    let mut daemon = Brigd::prepare(&["--lend-for-socket-binds", "viewer"]);
    daemon.spawn();
    daemon.load_busybox();
    for docker in daemon.clients() {
        let own = format!("{}:/own.sock:ro", daemon.socket().display());
        let binds = ["-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", &own];
        let id = sleeper(&docker, "unchanged", &binds);
        let seen = inside(
            &daemon.brig(),
            "unchanged",
            &["-H", "unix:///own.sock", "ps", "-q", "--no-trunc"],
        );
        assert_eq!(seen.ok(), id);
        let refused = inside(&daemon.brig(), "unchanged", &["rm", "-f", "unchanged"]);
        assert!(refused.fails(1).contains("authorization denied"), "{}", refused.stderr);
        let _ = docker.run(&["rm", "-f", "unchanged"]).ok();
    }
    let mut trusting = Brigd::prepare(&["--engine-socket-mounts", "allow"]);
    trusting.spawn();
    trusting.load_busybox();
    let bind = format!("{}:/var/run/docker.sock", trusting.socket().display());
    let id = sleeper(&trusting.brig(), "trusted", &["-v", &bind]);
    assert_eq!(inside(&trusting.brig(), "trusted", &["ps", "-q", "--no-trunc"]).ok(), id);
}

#[test]
fn services_are_lent_sockets_too() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    let brig = daemon.brig();
    let cli: Vec<String> = cli()
        .iter()
        .map(|(from, to)| format!("--mount=type=bind,source={from},target={to},readonly"))
        .collect();
    let mut create = vec!["service", "create", "-q", "--no-resolve-image", "--detach"];
    create.extend(cli.iter().map(String::as_str));
    let lends = ["--name", "looks", "--engine-access", "viewer", "busybox", "sleep", "1000"];
    let _ = brig.run(&[&create[..], &lends].concat()).ok();
    let ids = daemon.service_containers("looks", 1);
    let seen = inside(&brig, &ids[0], &["service", "ls", "--format", "{{.Name}}"]);
    assert_eq!(seen.ok(), "looks");
    let _ = brig.run(&["service", "update", "-q", "--detach", "--engine-access-rm", "looks"]).ok();
    let label = "{{json .Spec.TaskTemplate.ContainerSpec.Labels}}";
    let labels = brig.run(&["service", "inspect", "-f", label, "looks"]);
    assert!(!labels.ok().contains("engine-access"), "{}", labels.stdout);

    // The node is the last to look, whatever managers let pass.
    let socket =
        format!("type=bind,source={},target=/var/run/docker.sock", daemon.socket().display());
    let takes = [
        "--mount",
        &socket,
        "--name",
        "takes",
        "--restart-condition",
        "none",
        "busybox",
        "sleep",
        "1000",
    ];
    let _ = brig.run(&[&create[..], &takes].concat()).ok();
    eventually("the node refuses it", SOON, || {
        let tasks = brig.run(&["service", "ps", "--no-trunc", "--format", "{{.Error}}", "takes"]);
        tasks.ok().contains("--engine-access")
    });
    let unknown = ["--name", "typo", "--engine-access", "vieer", "busybox", "sleep", "1"];
    let refused = brig.run(&[&create[..], &unknown].concat());
    assert!(refused.fails(1).contains("neither admin"), "{}", refused.stderr);
}
