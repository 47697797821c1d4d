//! Containers through the real docker CLIs, on a real daemon.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/image.rs"]
mod image;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Daemon, Ran, clis};
use image::NAME;

/// A daemon with a busybox image; `None` where there is nothing to make one of.
fn daemon() -> Option<Daemon> {
    let cli = *clis().first()?;
    let daemon = Daemon::start();
    let archive = image::archive(&daemon.dir)?;
    let loaded = daemon.must(cli, &["load", "-q", "-i", archive.to_str().unwrap()]);
    assert_eq!(loaded.trim(), format!("Loaded image: {NAME}"));
    Some(daemon)
}

#[test]
fn images_are_listed_named_and_removed() {
    let Some(daemon) = daemon() else { return };
    for cli in clis() {
        assert!(daemon.must(cli, &["images"]).contains("busybox"));
        let label = daemon
            .must(cli, &["image", "inspect", "-f", "{{index .Config.Labels \"made-by\"}}", NAME]);
        assert_eq!(label.trim(), "test");
        assert!(daemon.must(cli, &["history", NAME]).contains("test"));
        daemon.must(cli, &["tag", NAME, "reg.example:5000/team/app:1"]);
        let listed = daemon.must(cli, &["images", "-q", "--filter", "reference=*/team/app"]);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        let removed = daemon.must(cli, &["rmi", "reg.example:5000/team/app:1"]);
        assert_eq!(removed.trim(), "Untagged: reg.example:5000/team/app:1");
        let ran = daemon.run(cli, &["rmi", "nope"]);
        assert!(ran.code == 1 && ran.err.contains("No such image: nope"), "{ran:?}");
        let ran = daemon.run(cli, &["load", "-i", "/etc/hostname"]);
        assert!(ran.code != 0, "{ran:?}");
    }
}

#[test]
fn a_run_gives_output_and_exit_code() {
    let Some(daemon) = daemon() else { return };
    for cli in clis() {
        let run = |arguments: &[&str]| {
            let all: Vec<&str> = ["run", "--rm", "--network", "none", NAME]
                .into_iter()
                .chain(arguments.iter().copied())
                .collect();
            daemon.run(cli, &all)
        };
        let ran = run(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "out\n", "err\n"), "{cli}");
        assert_eq!(run(&["true"]).code, 0);
        let ran = run(&["no-such-program"]);
        assert!(ran.code == 127 && ran.err.contains("executable file not found"), "{ran:?}");
        let ran = run(&["/etc"]);
        assert_eq!(ran.code, 126, "{ran:?}");
        let ran = daemon.run(cli, &["run", "--rm", "--name", "x_!", NAME]);
        assert!(ran.code == 125 && ran.err.contains("Invalid container name"), "{ran:?}");
        assert_eq!(daemon.must(cli, &["ps", "-aq"]), "");
    }
}

#[test]
fn input_reaches_the_process_and_ends() {
    let Some(daemon) = daemon() else { return };
    for cli in clis() {
        let mut child = daemon
            .docker(
                cli,
                &["run", "--rm", "-i", "--network", "none", NAME, "sh", "-c", "cat; echo end"],
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = "line\n".repeat(20_000);
        let mut stdin = child.stdin.take().unwrap();
        let sent = text.clone();
        let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()).unwrap());
        let ran = Ran::of(child.wait_with_output().unwrap());
        writer.join().unwrap();
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(ran.out.len(), text.len() + 4);
        assert!(ran.out.ends_with("line\nend\n"));
    }
}

#[test]
fn a_terminal_works_both_ways() {
    let Some(daemon) = daemon() else { return };
    if !std::path::Path::new("/usr/bin/script").exists() {
        eprintln!("SKIPPED: there is no /usr/bin/script");
        return;
    }
    for cli in clis() {
        let line = format!("{cli} run --rm -it --network none {NAME} sh");
        let mut child = std::process::Command::new("/usr/bin/script")
            .args(["-qec", &line, "/dev/null"])
            .env("DOCKER_HOST", format!("unix://{}", daemon.socket.display()))
            .env("HOME", &daemon.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        stdin.write_all(b"test -t 0 && echo is-a-$((40 + 2))-terminal\nexit 7\n").unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert!(ran.out.contains("is-a-42-terminal"), "{ran:?}\n{}", daemon.log());
        assert_eq!(ran.code, 7, "{ran:?}");
    }
}

#[test]
fn a_life_of_a_container() {
    let Some(daemon) = daemon() else { return };
    for (number, cli) in clis().into_iter().enumerate() {
        let name = format!("life{number}");
        let since = daemon.must(cli, &["info", "-f", "{{.SystemTime}}"]);
        let script = "trap 'echo bye; exit 5' TERM; echo hello; while true; do sleep 0.1; done";
        let id = daemon.must(
            cli,
            &["run", "-d", "--name", &name, "--network", "none", NAME, "sh", "-c", script],
        );
        let id = id.trim();
        assert_eq!(id.len(), 64);
        wait_for(|| daemon.must(cli, &["logs", &name]) == "hello\n");
        let listed = daemon.must(cli, &["ps", "--format", "{{.Names}} {{.State}} {{.Status}}"]);
        assert!(listed.starts_with(&format!("{name} running Up ")), "{listed}");
        let ran = daemon.run(cli, &["exec", &name, "sh", "-c", "echo in $0; exit 4", "exec"]);
        assert_eq!((ran.code, ran.out.as_str()), (4, "in exec\n"), "{ran:?}");
        let ran = daemon.run(cli, &["exec", &name, "no-such-program"]);
        assert!(ran.code == 126 || ran.code == 127, "{ran:?}");
        assert!(daemon.must(cli, &["top", &name]).contains("sleep 0.1"));
        let ran = daemon.run(cli, &["rm", &name]);
        assert!(
            ran.code == 1 && ran.err.to_lowercase().contains("container is running")
                || ran.err.contains("cannot remove a running container"),
            "{ran:?}"
        );
        let other = format!("renamed{number}");
        daemon.must(cli, &["rename", &name, &other]);
        daemon.must(cli, &["stop", &other]);
        assert_eq!(daemon.must(cli, &["wait", &other]).trim(), "5");
        assert_eq!(daemon.must(cli, &["logs", &other]), "hello\nbye\n");
        let state =
            daemon.must(cli, &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &other]);
        assert_eq!(state.trim(), "exited 5");
        daemon.must(cli, &["rm", &other]);
        let ran = daemon.run(cli, &["inspect", &other]);
        assert_eq!(ran.code, 1);
        let now = daemon.must(cli, &["info", "-f", "{{.SystemTime}}"]);
        let events = daemon.must(
            cli,
            &[
                "events",
                "--since",
                since.trim(),
                "--until",
                now.trim(),
                "--filter",
                "type=container",
                "--filter",
                &format!("container={id}"),
                "--format",
                "{{.Action}}",
            ],
        );
        let actions: Vec<&str> = events.lines().filter(|line| !line.starts_with("exec_")).collect();
        let expected = ["create", "start", "top", "rename", "kill", "die", "stop", "destroy"];
        let order: Vec<&str> = actions.iter().copied().filter(|a| expected.contains(a)).collect();
        assert_eq!(order, expected, "{events}");
    }
}

#[test]
fn an_attached_client_gets_101_and_frames() {
    let Some(daemon) = daemon() else { return };
    let created = daemon.post(
        "/v1.44/containers/create?name=frames",
        &format!("{{\"Image\":\"{NAME}\",\"Cmd\":[\"sh\",\"-c\",\"echo hi; read x; echo got $x >&2\"],\"OpenStdin\":true,\"StdinOnce\":true,\"AttachStdin\":true,\"AttachStdout\":true,\"AttachStderr\":true,\"HostConfig\":{{\"NetworkMode\":\"none\"}}}}"),
    );
    assert!(created.starts_with("HTTP/1.1 201 Created"), "{created}");
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
        .write_all(b"POST /v1.44/containers/frames/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    let lower = head.to_lowercase();
    for header in [
        "content-type: application/vnd.docker.multiplexed-stream\r\n",
        "connection: upgrade\r\n",
        "upgrade: tcp\r\n",
    ] {
        assert!(lower.contains(header), "{head}");
    }
    // Sent before the start: it has to be kept for the process.
    stream.write_all(b"input\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let wait = UnixStream::connect(&daemon.socket).unwrap();
    wait.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (&wait)
        .write_all(b"POST /v1.44/containers/frames/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut first = [0; 15];
    (&wait).read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK", "the headers come before the container is started");
    let started = daemon.post("/v1.44/containers/frames/start", "");
    assert!(started.starts_with("HTTP/1.1 204 No Content"), "{started}");
    let mut output = Vec::new();
    stream.read_to_end(&mut output).unwrap();
    assert_eq!(
        output,
        b"\x01\0\0\0\0\0\0\x03hi\n\x02\0\0\0\0\0\0\x0agot input\n",
        "{}",
        String::from_utf8_lossy(&output)
    );
    let mut rest = String::new();
    (&wait).read_to_string(&mut rest).unwrap();
    assert!(rest.contains("{\"StatusCode\":0,\"Error\":null}"), "{rest}");
    // Without the wish to upgrade, the output is the body of an ordinary answer.
    let past = daemon.post("/v1.41/containers/frames/attach?logs=1&stdout=1&stderr=1", "");
    assert!(past.starts_with("HTTP/1.1 200 OK\r\n"), "{past}");
    assert!(past.contains("content-type: application/vnd.docker.raw-stream\r\n"), "{past}");
    assert!(past.contains("\x01\0\0\0\0\0\0\x03hi\n"), "{past}");
}

/// docker's SDK for Python drops what comes with the head of an upgraded answer.
#[test]
fn a_client_that_drops_what_comes_with_the_head_gets_its_output() {
    let Some(daemon) = daemon() else { return };
    let cli = clis()[0];
    daemon.must(cli, &["run", "-d", "--name", "heads", "--network", "none", NAME, "sleep", "1000"]);
    let made = daemon.post(
        "/v1.44/containers/heads/exec",
        r#"{"Cmd":["echo","hello"],"AttachStdout":true,"Tty":true}"#,
    );
    let id = made.split("\"Id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let body = r#"{"Detach":false,"Tty":true}"#;
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!(
        "POST /v1.44/exec/{id}/start HTTP/1.1\r\nHost: x\r\nUser-Agent: docker-sdk-python/7.1.0\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    // It looks late, when the process has long ended.
    std::thread::sleep(Duration::from_millis(200));
    let mut head = [0; 8192];
    let length = stream.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..length]);
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    let mut output = String::new();
    stream.read_to_string(&mut output).unwrap();
    assert_eq!(output, "hello\r\n");
    daemon.must(cli, &["rm", "-f", "heads"]);
}

#[test]
fn a_change_goes_on_without_its_client() {
    let Some(daemon) = daemon() else { return };
    let cli = clis()[0];
    daemon.must(cli, &["run", "-d", "--name", "gone", "--network", "none", NAME, "sleep", "1000"]);
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream
        .write_all(
            b"POST /containers/gone/stop?t=3 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        )
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(stream);
    wait_for(|| {
        daemon.must(cli, &["inspect", "-f", "{{.State.Status}}", "gone"]).trim() == "exited"
    });
}

#[test]
fn containers_outlive_the_daemon() {
    let Some(mut daemon) = daemon() else { return };
    let cli = clis()[0];
    let script = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.2; done";
    daemon.must(
        cli,
        &["run", "-d", "--name", "lives", "--network", "none", NAME, "sh", "-c", script],
    );
    wait_for(|| daemon.must(cli, &["logs", "lives"]).lines().count() > 2);
    let pid = daemon.must(cli, &["inspect", "-f", "{{.State.Pid}}", "lives"]);
    // Streams do not keep the daemon from stopping, and end with it.
    let streams: Vec<_> =
        [&["logs", "-f", "lives"][..], &["exec", "-i", "lives", "cat"], &["wait", "lives"]]
            .into_iter()
            .map(|arguments| {
                let mut command = daemon.docker(cli, arguments);
                command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().unwrap()
            })
            .collect();
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    assert!(daemon.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}\n{}", begun.elapsed(), daemon.log());
    for mut stream in streams {
        stream.wait().unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    daemon.launch();
    assert_eq!(daemon.must(cli, &["inspect", "-f", "{{.State.Pid}}", "lives"]), pid);
    assert!(daemon.must(cli, &["ps"]).contains("lives"));
    let lines = daemon.must(cli, &["logs", "lives"]).lines().count();
    wait_for(|| daemon.must(cli, &["logs", "lives"]).lines().count() > lines + 2);
    assert_eq!(daemon.must(cli, &["exec", "lives", "echo", "still"]), "still\n");
    daemon.must(cli, &["rm", "-f", "lives"]);
    assert_eq!(daemon.must(cli, &["ps", "-aq"]), "");
}

#[test]
fn volumes_and_networks_come_and_go() {
    let Some(daemon) = daemon() else { return };
    for cli in clis() {
        assert_eq!(daemon.must(cli, &["volume", "create", "data"]).trim(), "data");
        daemon.must(
            cli,
            &[
                "run",
                "--rm",
                "--network",
                "none",
                "-v",
                "data:/d",
                NAME,
                "sh",
                "-c",
                "echo kept > /d/f",
            ],
        );
        let text = daemon
            .must(cli, &["run", "--rm", "--network", "none", "-v", "data:/d", NAME, "cat", "/d/f"]);
        assert_eq!(text, "kept\n");
        assert_eq!(daemon.must(cli, &["volume", "ls", "-q"]), "data\n");
        assert!(daemon.must(cli, &["volume", "inspect", "data"]).contains("\"Driver\": \"local\""));
        daemon.must(cli, &["volume", "rm", "data"]);
        let ran = daemon.run(cli, &["volume", "rm", "data"]);
        assert!(ran.err.to_lowercase().contains("no such volume"), "{ran:?}");
        let id = daemon.must(cli, &["network", "create", "--label", "a=b", "net"]);
        assert_eq!(id.trim().len(), 64);
        assert!(daemon.must(cli, &["network", "inspect", "net"]).contains("\"a\": \"b\""));
        let ran = daemon.run(cli, &["network", "create", "net"]);
        assert!(ran.err.contains("network with name net already exists"), "{ran:?}");
        assert!(daemon.must(cli, &["network", "prune", "-f"]).contains("net"));
        let ran = daemon.run(cli, &["network", "inspect", "net"]);
        let gone = ["network net not found", "No such network: net"];
        assert!(ran.code == 1 && gone.iter().any(|text| ran.err.contains(text)), "{ran:?}");
        daemon.must(cli, &["system", "df", "-v"]);
        daemon.must(cli, &["system", "prune", "-f"]);
    }
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}
