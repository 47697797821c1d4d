//! The program as its users meet it: terminals, pipes, a daemon that is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::{CONTAINER_ID, Daemon};

const BRIG: &str = env!("CARGO_BIN_EXE_brig");

#[test]
fn a_missing_daemon_is_named_with_the_next_step() {
    let output = std::process::Command::new(BRIG)
        .args(["-H", "unix:///nonexistent/brig.sock", "ps"])
        .env_remove("DOCKER_HOST")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("unix:///nonexistent/brig.sock: no such socket"), "{text}");
    assert!(text.contains("systemctl start brig"), "{text}");
}

#[test]
fn run_without_daemon_is_125_and_later_features_say_so() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(BRIG)
            .args(arguments)
            .env_remove("DOCKER_HOST")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, text) = run(&["-H", "unix:///nonexistent/brig.sock", "run", "busybox"]);
    assert_eq!(status, Some(125), "{text}");
    assert!(text.contains("Run 'brig run --help' for more information"), "{text}");
    let (status, text) = run(&["-H", "tcp://127.0.0.1:1", "ps"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("Cannot connect to the brig daemon at tcp://127.0.0.1:1"), "{text}");
    let (status, text) = run(&["--context", "no-such-context", "ps"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("context \"no-such-context\": context not found"), "{text}");
}

#[test]
fn called_as_docker_it_is_docker() {
    let dir = tempfile::tempdir().unwrap();
    let docker = dir.path().join("docker");
    std::os::unix::fs::symlink(BRIG, &docker).unwrap();
    let output = std::process::Command::new(&docker).args(["stop"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("docker: 'docker stop' requires at least 1 argument"), "{text}");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let daemon = Daemon::start("1.50");
    let mut child = daemon
        .command(Path::new(BRIG))
        .args(["inspect", "c"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = std::process::Command::new(BRIG).args(["completion", shell]).output().unwrap();
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{shell}");
        for word in ["join-token", "cap-add", "dial-stdio"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_service_is_waited_for_until_it_is_stable() {
    let daemon = Daemon::start("1.50");
    // The recorded service wants two tasks and has one: it never converges, so the wait is ended
    // as a user ends it.
    let child = daemon
        .command(Path::new(BRIG))
        .args(["service", "create", "--no-resolve-image", "busybox"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let start = Instant::now();
    while !daemon.peek().iter().any(|request| request.path == "/tasks") {
        assert!(start.elapsed() < Duration::from_secs(10), "no tasks were asked for");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.starts_with("aaaaaaaaaaaaaaaaaaaaaaaaa\noverall progress: 1 out of 2 tasks\n1/2: "),
        "{text}"
    );
    assert!(text.ends_with("Operation continuing in background.\nUse `brig service ps aaaaaaaaaaaaaaaaaaaaaaaaa` to check progress.\n"), "{text}");
}

#[test]
fn dial_stdio_is_the_socket() {
    let daemon = Daemon::start("1.50");
    let mut child = daemon
        .command(Path::new(BRIG))
        .args(["system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("HTTP/1.1 200 X\r\n") && text.contains("\"ApiVersion\":\"1.50\""),
        "{text}"
    );
}

/// A terminal: its two sides.
fn terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    tcsetwinsize(&slave, Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (master.into(), slave)
}

#[test]
fn detach_keys_leave_the_terminal_as_it_was() {
    let daemon = Daemon::start("1.50");
    let (mut master, slave) = terminal();
    let before = tcgetattr(&slave).unwrap();
    let mut child = daemon
        .command(Path::new(BRIG))
        .args(["run", "-it", "busybox", "sh"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let resized = || daemon.peek().iter().any(|request| request.path.ends_with("/resize"));
    while tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON) || !resized() {
        assert!(start.elapsed() < Duration::from_secs(10), "the terminal never went into raw mode");
        std::thread::sleep(Duration::from_millis(5));
    }
    master.write_all(b"ab\x10\x11").unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert_eq!(said, "read escape sequence\n");
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before.local_modes);

    let requests = daemon.take();
    let create = requests.iter().find(|request| request.path == "/containers/create").unwrap();
    let body: serde_json::Value = serde_json::from_slice(&create.body).unwrap();
    assert_eq!(body["HostConfig"]["ConsoleSize"], serde_json::json!([30, 90]));
    let resize = requests.iter().find(|request| request.path.ends_with("/resize")).unwrap();
    assert_eq!(resize.path, format!("/containers/{CONTAINER_ID}/resize"));
    assert_eq!(resize.query, ["h=30", "w=90"]);
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let daemon = Daemon::start("1.50");
    let (_master, slave) = terminal();
    let before = tcgetattr(&slave).unwrap();
    let mut child = daemon
        .command(Path::new(BRIG))
        .args(["exec", "-it", "c", "sh"])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ICANON) {
        assert!(start.elapsed() < Duration::from_secs(10), "the terminal never went into raw mode");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before.local_modes);
}

#[test]
fn signals_reach_the_container() {
    let daemon = Daemon::start("1.50");
    let mut child = daemon
        .command(Path::new(BRIG))
        .args(["run", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let wait_for = |part: &str| {
        let start = Instant::now();
        while !daemon.peek().iter().any(|request| request.path.ends_with(part)) {
            assert!(start.elapsed() < Duration::from_secs(10), "{part} was never asked for");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for("/start");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    wait_for("/kill");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let requests = daemon.take();
    let kill = requests.iter().find(|request| request.path.ends_with("/kill")).unwrap();
    assert_eq!(kill.query, ["signal=USR1"]);
}
