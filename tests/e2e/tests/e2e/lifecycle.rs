//! A container's life, by every client.

use std::time::Duration;

use brig_e2e::{Brigd, eventually};

#[test]
fn run_gives_output_and_exit_status() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        assert_eq!(
            client.run(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"]).ok(),
            "hi"
        );
        let both =
            client.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((both.code, both.stdout.as_str(), both.stderr.as_str()), (7, "out\n", "err\n"));
        let fed = client.run_with(&["run", "--rm", "-i", "busybox", "wc", "-c"], &[b'x'; 300_000]);
        assert_eq!(fed.ok(), "300000");
        let killed =
            client.run(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]);
        assert_eq!(killed.code, 137);
        assert_eq!(client.run(&["ps", "-aq"]).ok(), "", "--rm leaves nothing");
    }
}

#[test]
fn much_output_arrives_whole() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let script = "seq 1 60000; seq 1 60000 >&2";
    let output =
        brig.run(&["run", "--network", "none", "--name", "loud", "busybox", "sh", "-c", script]);
    let expected: String = (1..=60_000).map(|n| format!("{n}\n")).collect();
    assert!(output.stdout == expected, "stdout has {} bytes", output.stdout.len());
    assert!(output.stderr == expected, "stderr has {} bytes", output.stderr.len());
    let logs = brig.run(&["logs", "loud"]);
    assert!(logs.stdout == expected && logs.stderr == expected);
    assert_eq!(
        brig.run(&["logs", "--tail", "2", "loud"]).stdout.lines().count()
            + brig.run(&["logs", "--tail", "2", "loud"]).stderr.lines().count(),
        2
    );
}

#[test]
fn started_listed_stopped_and_removed() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let id = client
            .run(&["run", "-d", "--name", "web", "--label", "a=b", "busybox", "sleep", "1000"]);
        let id = id.ok().to_owned();
        assert_eq!(id.len(), 64);
        let listed =
            client.run(&["ps", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}}"]);
        assert_eq!(listed.ok(), r#"web busybox "sleep 1000" running"#);
        assert_eq!(client.run(&["ps", "-q", "--filter", "label=a=b"]).ok(), &id[..12]);
        assert_eq!(client.run(&["ps", "-q", "--filter", "label=a=c"]).ok(), "");
        assert_eq!(
            client.run(&["inspect", "-f", "{{.State.Status}} {{.State.Running}}", "web"]).ok(),
            "running true"
        );
        assert!(client.run(&["top", "web"]).ok().contains("sleep 1000"));
        assert_eq!(client.run(&["exec", "web", "cat", "/proc/1/comm"]).ok(), "sleep");
        assert!(
            client.run(&["rm", "web"]).fails(1).contains("You cannot remove a running container")
        );
        assert_eq!(client.run(&["stop", "-t", "1", "web"]).ok(), "web");
        assert_eq!(client.run(&["wait", "web"]).ok(), "137");
        assert!(
            client.run(&["ps", "-a", "--format", "{{.Status}}"]).ok().starts_with("Exited (137)")
        );
        let _ = client.run(&["start", "web"]).ok();
        assert_eq!(client.run(&["kill", "web"]).ok(), "web");
        assert_eq!(client.run(&["rm", "-f", "web"]).ok(), "web");
        assert_eq!(client.run(&["ps", "-aq"]).ok(), "");
    }
    assert!(daemon.root().join("data/containers").read_dir().unwrap().next().is_none());
}

#[test]
fn isolation_is_dockers_default() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let status = brig.run(&["run", "--rm", "busybox", "cat", "/proc/self/status"]);
    let field = |name: &str| {
        status
            .ok()
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    let refused = brig.run(&["run", "--rm", "busybox", "unshare", "-r", "true"]);
    assert_ne!(refused.code, 0, "unshare is filtered");
    let masked = brig.run(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "cat /proc/kcore | wc -c; touch /proc/sys/x; touch /sys/x",
    ]);
    assert!(masked.stdout.starts_with('0') && masked.code != 0);
    let user = brig.run(&["run", "--rm", "--user", "www-data", "busybox", "id"]);
    assert_eq!(user.ok(), "uid=33(www-data) gid=33(www-data) groups=33(www-data)");
    let readonly = brig.run(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/t",
        "busybox",
        "sh",
        "-c",
        "touch /t/x && touch /x",
    ]);
    assert_ne!(readonly.code, 0);
    assert!(readonly.stderr.contains("Read-only file system"), "{}", readonly.stderr);
    let limited = brig.run(&[
        "run",
        "--rm",
        "-m",
        "32m",
        "busybox",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
    ]);
    assert_eq!(limited.stdout.trim(), "33554432");
    let no_new = brig.run(&[
        "run",
        "--rm",
        "--security-opt",
        "no-new-privileges",
        "--cap-drop",
        "ALL",
        "busybox",
        "grep",
        "-E",
        "NoNewPrivs|CapEff",
        "/proc/self/status",
    ]);
    assert!(no_new.ok().contains("0000000000000000") && no_new.ok().contains("NoNewPrivs:\t1"));
}

#[test]
fn events_tell_the_story_in_dockers_order() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let _ = client.run(&["run", "--rm", "--name", "story", "busybox", "true"]).ok();
        std::thread::sleep(Duration::from_millis(400));
        let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let until = format!("{}.{:09}", until.as_secs(), until.subsec_nanos());
        let events = client.run(&[
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--format",
            "{{.Type}} {{.Action}}",
        ]);
        let seen: Vec<&str> = events.ok().lines().collect();
        assert_eq!(
            seen,
            [
                "container create",
                "container attach",
                "network connect",
                "container start",
                "container die",
                "network disconnect",
                "container destroy"
            ],
            "{}",
            client.name
        );
    }
}

#[test]
fn restart_policies_and_out_of_memory() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ = brig
        .run(&["run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false"])
        .ok();
    eventually("two restarts, then the end", Duration::from_secs(20), || {
        brig.run(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"]).stdout.trim()
            == "2 exited"
    });
    let eater = brig.run(&[
        "run",
        "--name",
        "eater",
        "-m",
        "20m",
        "busybox",
        "sh",
        "-c",
        "tail -c 200m /dev/zero | wc -c; sleep 0.2",
    ]);
    let oom = brig.run(&["inspect", "-f", "{{.State.OOMKilled}}", "eater"]);
    assert_eq!(oom.ok(), "true", "{} {}", eater.code, eater.stderr);
}

#[test]
fn volumes_and_binds() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let _ = client.run(&["volume", "create", "data1"]).ok();
        let _ = client
            .run(&["run", "--rm", "-v", "data1:/d", "busybox", "sh", "-c", "echo kept > /d/f"])
            .ok();
        assert_eq!(
            client.run(&["run", "--rm", "-v", "data1:/d:ro", "busybox", "cat", "/d/f"]).ok(),
            "kept"
        );
        let refused = client.run(&["run", "--rm", "-v", "data1:/d:ro", "busybox", "touch", "/d/g"]);
        assert_ne!(refused.code, 0);
        let host = daemon.root().join("bound");
        std::fs::create_dir_all(&host).unwrap();
        let bind = format!("{}:/b", host.display());
        let _ = client.run(&["run", "--rm", "-v", &bind, "busybox", "touch", "/b/here"]).ok();
        assert!(host.join("here").exists());
        assert!(client.run(&["volume", "ls", "-q"]).ok().contains("data1"));
        assert_eq!(client.run(&["volume", "rm", "data1"]).ok(), "data1");
    }
}

#[test]
fn who_is_being_stopped_can_be_stopped_sooner() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    // Whoever does not listen to TERM has a minute here; nobody else has to wait for that.
    for (number, command) in
        ["rm -f", "stop -t 0", "restart -t 0", "kill", "pause", "rename"].iter().enumerate()
    {
        let name = format!("deaf-{number}");
        brig.run(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).ok();
        let started = std::time::Instant::now();
        let mut stop = brig.command(&["stop", "-t", "60", &name]).spawn().unwrap();
        let filter = format!("container={name}");
        eventually("it got its signal", Duration::from_secs(10), || {
            let told = ["events", "--since", "1m", "--until", "0s", "--filter", &filter];
            let told = brig
                .run(&[&told[..], &["--filter", "event=kill", "-f", "type=container"]].concat());
            told.stdout.contains("signal=15")
        });
        let mut args: Vec<&str> = command.split(' ').collect();
        args.push(&name);
        let other = format!("{name}-renamed");
        if *command == "rename" {
            args.push(&other);
        }
        brig.run(&args).ok();
        if *command == "restart -t 0" {
            let state = brig.run(&["inspect", "-f", "{{.State.Status}}", &name]);
            assert_eq!(state.ok(), "running");
        }
        if matches!(*command, "pause" | "rename") {
            // These end no run, so the stop goes on.
            assert!(stop.try_wait().unwrap().is_none(), "{command}");
            let now = if *command == "rename" { &other } else { &name };
            brig.run(&["rm", "-f", now]).ok();
        }
        // It is over with the run that it was for, and leaves the next one alone.
        assert!(stop.wait().unwrap().success(), "{command}");
        assert!(started.elapsed() < Duration::from_secs(45), "{command} waited for the stop");
    }
    assert_eq!(brig.run(&["ps", "--format", "{{.Names}}"]).ok(), "deaf-2");
}
