//! Attach and exec, with and without a terminal.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use brig_e2e::Brigd;

#[test]
fn a_terminal_works_both_ways() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let session = client.run_in_terminal(
            &["run", "--rm", "-it", "--name", "term", "busybox", "sh"],
            "stty size; tty\necho $((40 + 2))\nexit 3\n",
        );
        assert_eq!(session.code, 3, "{}: {}", session.command, session.stdout);
        assert!(session.stdout.contains("/dev/pts/0"), "{}", session.stdout);
        assert!(session.stdout.contains("42"), "{}", session.stdout);
    }
}

#[test]
fn exec_with_input_output_status_and_terminal() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let _ = daemon.brig().run(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    for client in daemon.clients() {
        let both = client.run(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 5"]);
        assert_eq!(
            (both.code, both.stdout.as_str(), both.stderr.as_str()),
            (5, "out\n", "err\n"),
            "{}",
            client.name
        );
        assert_eq!(client.run_with(&["exec", "-i", "box", "cat"], b"through").stdout, "through");
        assert_eq!(
            client
                .run(&[
                    "exec",
                    "-e",
                    "A=1",
                    "-w",
                    "/tmp",
                    "-u",
                    "33",
                    "box",
                    "sh",
                    "-c",
                    "echo $A $PWD $(id -u)"
                ])
                .ok(),
            "1 /tmp 33"
        );
        let terminal = client.run_in_terminal(&["exec", "-it", "box", "sh"], "tty\nexit 4\n");
        assert_eq!(terminal.code, 4, "{}", terminal.stdout);
        assert!(terminal.stdout.contains("/dev/pts/"), "{}", terminal.stdout);
        assert_eq!(client.run(&["exec", "box", "/nosuch"]).code, 127, "{}", client.name);
        assert_eq!(client.run(&["exec", "box", "/etc/passwd"]).code, 126, "{}", client.name);
        let _ = client.run(&["exec", "-d", "box", "touch", "/tmp/detached"]).ok();
        std::thread::sleep(Duration::from_millis(200));
        let _ = client.run(&["exec", "box", "rm", "/tmp/detached"]).ok();
    }
}

#[test]
fn attach_sees_output_and_feeds_input() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let _ = client.run(&["run", "-di", "--name", "cat", "busybox", "cat"]).ok();
        let mut attached = client
            .command(&["attach", "--sig-proxy=false", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = attached.stdin.take().unwrap();
        stdin.write_all(b"one line\n").unwrap();
        let mut seen = [0_u8; 9];
        attached.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"one line\n");
        let _ = client.run(&["rm", "-f", "cat"]).ok();
        drop(stdin);
        let _ = attached.wait().unwrap();
    }
}

#[test]
fn logs_follow_since_and_timestamps() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let _ = client
            .run(&[
                "run",
                "-d",
                "--name",
                "talk",
                "busybox",
                "sh",
                "-c",
                "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done",
            ])
            .ok();
        let followed = client.run(&["logs", "-f", "talk"]);
        assert_eq!(followed.ok(), "1\n2\n3\n4\n5", "{}", client.name);
        assert_eq!(client.run(&["logs", "--tail", "2", "talk"]).ok(), "4\n5");
        let stamped = client.run(&["logs", "-t", "--tail", "1", "talk"]);
        let (time, text) = stamped.ok().split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() >= 20 && text == "5", "{}", stamped.stdout);
        let since = client.run(&["logs", "--since", time, "talk"]);
        assert!(since.ok().ends_with('5'), "{}", since.stdout);
        let _ = client.run(&["rm", "-f", "talk"]).ok();
    }
}
