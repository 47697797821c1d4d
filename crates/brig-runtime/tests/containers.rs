//! Real containers, with every OCI runtime that is supported.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use brig_runtime::spec::{ConsoleSize, ProcessSpec, Rlimit, UserSpec};
use brig_runtime::{Adopted, ConsoleError, ContainerRecord, ExecRequest, OciStatus, RuntimeError};
use brig_types::error::{Categorized, ErrorKind};
use brig_types::id::{ContainerId, ExecId};
use brig_types::signal::Signal;

use common::{Rig, collect, read_until};

macro_rules! with_both {
    ($($name:ident),+ $(,)?) => {
        mod crun { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Rig::new("crun")).await; }
        )+ }
        mod runc { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Rig::new("runc")).await; }
        )+ }
    };
}

with_both!(
    output_and_status_are_complete,
    signals_end_a_container,
    input_reaches_its_end,
    input_that_stays_open,
    a_terminal,
    more_processes,
    commands_that_cannot_run,
    a_killed_monitor,
    adoption,
    ended_while_away,
    half_made_containers,
    a_hung_create,
    out_of_memory,
    filters_apply,
    pausing,
    limits_and_identity,
    many_at_once,
    nothing_of_the_host_is_open,
);

async fn output_and_status_are_complete(mut rig: Rig) {
    let (info, out, err) = rig.run(&rig.sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!((info.code, info.oom, info.reason), (7, false, None));
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));

    // Much more than all buffers together, ending right after it was written.
    let input = rig.sh("seq 1 400000; printf end");
    let (info, out, _) = rig.run(&input).await;
    assert_eq!(info.code, 0);
    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect::<String>() + "end";
    assert!(out == expected, "{} of {} bytes", out.len(), expected.len());
    // When the end is reported the log is complete.
    let log = fs::read_to_string(rig.log(&input.id)).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains(" stdout F ")).count(), 400_000);
    assert!(log.trim_end().ends_with("end"), "{}", &log[log.len() - 100..]);
    rig.assert_clean().await;
    // Deleting again is fine.
    rig.runtime().delete(&input.id, true).await.unwrap();
}

async fn signals_end_a_container(mut rig: Rig) {
    let input = rig.sh("trap 'echo got; exit 3' TERM; echo ready; while true; do sleep 0.05; done");
    let created = rig.create(&input, false, false).await.unwrap();
    let mut output = created.console.output();
    let id = input.id.clone();
    assert_eq!(rig.runtime().state(&id).await.unwrap().unwrap().status, OciStatus::Created);
    rig.runtime().start(&id).await.unwrap();
    read_until(&mut output, "ready").await;
    let state = rig.runtime().state(&id).await.unwrap().unwrap();
    assert_eq!((state.status, state.pid), (OciStatus::Running, created.pid));
    assert!(rig.runtime().delete(&id, false).await.is_err(), "it runs");
    rig.runtime().kill(&id, Signal::TERM, false).await.unwrap();
    read_until(&mut output, "got").await;
    assert_eq!(rig.exit(&id).await.code, 3);
    let gone = rig.runtime().kill(&id, Signal::TERM, false).await.unwrap_err();
    assert!(matches!(gone, RuntimeError::NotRunning(_)), "{gone}");
    rig.runtime().delete(&id, false).await.unwrap();
    assert_eq!(rig.runtime().state(&id).await.unwrap(), None);

    let input = rig.input(&["sleep", "1000"]);
    rig.create(&input, false, false).await.unwrap();
    rig.runtime().start(&input.id).await.unwrap();
    rig.runtime().kill(&input.id, Signal::KILL, true).await.unwrap();
    assert_eq!(rig.exit(&input.id).await.code, 137);
    rig.runtime().delete(&input.id, false).await.unwrap();

    // One that runs, by force; its end is not reported.
    let input = rig.input(&["sleep", "1000"]);
    rig.create(&input, false, false).await.unwrap();
    rig.runtime().start(&input.id).await.unwrap();
    rig.runtime().delete(&input.id, true).await.unwrap();
    let silence =
        tokio::time::timeout(Duration::from_millis(300), rig.exits.as_mut().unwrap().next());
    assert!(silence.await.is_err());
    rig.assert_clean().await;
}

async fn input_reaches_its_end(mut rig: Rig) {
    let input = rig.sh("cat; echo eof");
    let created = rig.create(&input, true, true).await.unwrap();
    let output = created.console.output();
    rig.runtime().start(&input.id).await.unwrap();
    let text = "0123456789abcde\n".repeat(200_000);
    let console = &created.console;
    let write = async {
        console.write_stdin(text.as_bytes()).await.unwrap();
        console.close_stdin().unwrap();
        let late = console.write_stdin(b"x").await.unwrap_err();
        assert!(matches!(late, ConsoleError::InputClosed | ConsoleError::Ended), "{late}");
    };
    let ((out, _), ()) = tokio::join!(collect(output), write);
    assert!(out == format!("{text}eof\n"), "{} bytes", out.len());
    assert_eq!(rig.exit(&input.id).await.code, 0);

    // Without an open standard input there is nothing to read and nothing to write.
    let input = rig.sh("cat; echo eof");
    let created = rig.create(&input, false, false).await.unwrap();
    let refused = created.console.write_stdin(b"x").await.unwrap_err();
    assert!(matches!(refused, ConsoleError::InputClosed));
    let refused = created.console.resize(1, 1).await.unwrap_err();
    assert!(matches!(refused, ConsoleError::NoTerminal));
    let output = created.console.output();
    rig.runtime().start(&input.id).await.unwrap();
    assert_eq!(collect(output).await.0, "eof\n");
    rig.exit(&input.id).await;
}

async fn input_that_stays_open(mut rig: Rig) {
    let input = rig.sh("while read line; do echo got $line; done; echo eof");
    let created = rig.create(&input, true, false).await.unwrap();
    let mut output = created.console.output();
    rig.runtime().start(&input.id).await.unwrap();
    created.console.write_stdin(b"one\n").await.unwrap();
    read_until(&mut output, "got one").await;
    // The first client leaves; the next one can still write.
    created.console.close_stdin().unwrap();
    created.console.write_stdin(b"two\n").await.unwrap();
    assert!(!read_until(&mut output, "got two").await.contains("eof"));
    rig.runtime().kill(&input.id, Signal::KILL, false).await.unwrap();
    assert_eq!(rig.exit(&input.id).await.code, 137);
}

async fn a_terminal(mut rig: Rig) {
    let mut input = rig.sh("tty; stty size; echo err >&2; while read x; do stty size; done");
    input.process.tty = true;
    input.process.console_size = Some(ConsoleSize { height: 31, width: 101 });
    let created = rig.create(&input, true, true).await.unwrap();
    let mut output = created.console.output();
    rig.runtime().start(&input.id).await.unwrap();
    let first = read_until(&mut output, "err\r\n").await;
    assert!(first.contains("/dev/pts/") || first.contains("/dev/console"), "{first:?}");
    // A burst: only the last one counts.
    let console = &created.console;
    let (a, b, c) =
        tokio::join!(console.resize(11, 22), console.resize(33, 44), console.resize(40, 120));
    a.and(b).and(c).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    console.write_stdin(b"\n").await.unwrap();
    read_until(&mut output, "40 120").await;
    console.write_stdin(&[4]).await.unwrap();
    assert_eq!(rig.exit(&input.id).await.code, 0);
}

fn exec(container: &ContainerId, args: &[&str]) -> ExecRequest {
    let mut process = ProcessSpec::new(args.iter().map(|arg| (*arg).to_owned()).collect());
    process.env = vec!["PATH=/bin".to_owned(), "WORD=hello".to_owned()];
    ExecRequest {
        container: container.clone(),
        exec: ExecId::generate(),
        process,
        attach_stdin: false,
    }
}

async fn more_processes(mut rig: Rig) {
    let input = rig.input(&["sleep", "1000"]);
    let id = input.id.clone();
    rig.create(&input, false, false).await.unwrap();
    rig.runtime().start(&id).await.unwrap();

    for code in 0..3 {
        let script = format!("echo $WORD; echo err >&2; exit {code}");
        let exec = rig.runtime().exec(exec(&id, &["sh", "-c", &script])).await.unwrap();
        assert_eq!(collect(exec.output).await, ("hello\n".to_owned(), "err\n".to_owned()));
        assert_eq!(exec.exit.wait().await.code, code);
    }
    // Input, user and directory.
    let mut request = exec(&id, &["sh", "-c", "id -u; pwd; cat"]);
    request.attach_stdin = true;
    request.process.user = UserSpec { uid: 1234, gid: 7, additional_gids: vec![7] };
    request.process.cwd = "/tmp".into();
    let cat = rig.runtime().exec(request).await.unwrap();
    cat.console.write_stdin(b"typed\n").await.unwrap();
    cat.console.close_stdin().unwrap();
    assert_eq!(collect(cat.output).await.0, "1234\n/tmp\ntyped\n");
    assert_eq!(cat.exit.wait().await.code, 0);
    // A terminal.
    let mut request = exec(&id, &["sh", "-c", "read x; stty size; tty"]);
    request.attach_stdin = true;
    request.process.tty = true;
    let tty = rig.runtime().exec(request).await.unwrap();
    tty.console.resize(20, 90).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    tty.console.write_stdin(b"\n").await.unwrap();
    let (out, _) = collect(tty.output).await;
    assert!(out.contains("20 90") && out.contains("/dev/pts/"), "{out:?}");
    assert_eq!(tty.exit.wait().await.code, 0);
    // Commands that cannot run.
    for (command, code) in [("nosuch", 127), ("/nosuch", 127), ("/etc/plain", 126)] {
        let error = rig.runtime().exec(exec(&id, &[command])).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Exec(_)), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains(command), "{error}");
    }
    // Its monitor is killed: the process does not go on unseen.
    let lost = rig.runtime().exec(exec(&id, &["sleep", "1000"])).await.unwrap();
    kill_conmon_of(lost.pid);
    let info = lost.exit.wait().await;
    assert_eq!(info.code, 137);
    assert!(info.reason.is_some());
    // One that nobody listens to ends with the container.
    let left = rig.runtime().exec(exec(&id, &["sleep", "1000"])).await.unwrap();
    drop(left.output);
    rig.runtime().kill(&id, Signal::KILL, false).await.unwrap();
    assert_eq!(left.exit.wait().await.code, 137);
    rig.exit(&id).await;
    rig.runtime().delete(&id, false).await.unwrap();
    let gone = rig.runtime().exec(exec(&id, &["true"])).await.unwrap_err();
    assert!(matches!(gone, RuntimeError::Exec(_)), "{gone}");
    rig.assert_clean().await;
}

/// Neither the runtime's program nor a monitor's pipes reach a container's processes.
async fn nothing_of_the_host_is_open(mut rig: Rig) {
    // The last one is the listing's own.
    let list = "exec ls /proc/self/fd";
    // By the third time a sealed copy of the runtime is in use, if it can be.
    for _ in 0..3 {
        let (info, out, _) = rig.run(&rig.sh(list)).await;
        assert_eq!((info.code, out.as_str()), (0, "0\n1\n2\n3\n"));
    }
    let input = rig.input(&["sleep", "1000"]);
    rig.create(&input, false, false).await.unwrap();
    rig.runtime().start(&input.id).await.unwrap();
    let listed = rig.runtime().exec(exec(&input.id, &["sh", "-c", list])).await.unwrap();
    assert_eq!(collect(listed.output).await.0, "0\n1\n2\n3\n");
    rig.runtime().kill(&input.id, Signal::KILL, false).await.unwrap();
    rig.exit(&input.id).await;
    rig.runtime().delete(&input.id, false).await.unwrap();
    rig.assert_clean().await;
}

/// conmon is the parent of the process it watches.
fn kill_conmon_of(pid: i32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    let parent: i32 = parent.trim().parse().unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{parent}/comm")).unwrap().trim(), "conmon");
    let pidfd = brig_sys::process::pidfd(parent).unwrap();
    brig_sys::process::send_signal(&pidfd, Signal::KILL).unwrap();
}

async fn commands_that_cannot_run(mut rig: Rig) {
    for (command, code, text) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", 127, "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        ("/etc/plain", 126, "exec: \"/etc/plain\": permission denied"),
        ("/etc", 126, "permission denied"),
    ] {
        let input = rig.input(&[command]);
        let error = rig.create(&input, false, false).await.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("OCI runtime create failed"), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }
    let mut input = rig.input(&["true"]);
    input.mounts.push(brig_runtime::spec::MountSpec::bind(
        "/nonexistent/source".into(),
        "/x".into(),
        false,
    ));
    let error = rig.create(&input, false, false).await.unwrap_err();
    assert!(error.to_string().contains("no such file or directory"), "{error}");
    rig.assert_clean().await;
}

async fn a_killed_monitor(mut rig: Rig) {
    let input = rig.input(&["sleep", "1000"]);
    let created = rig.create(&input, false, false).await.unwrap();
    rig.runtime().start(&input.id).await.unwrap();
    kill_conmon_of(created.pid);
    let info = rig.exit(&input.id).await;
    assert_eq!(info.code, 137);
    assert!(info.reason.unwrap().contains("monitor"));
    assert!(!brig_sys::process::alive(created.pid, created.pid_start));
    rig.runtime().delete(&input.id, false).await.unwrap();
    rig.assert_clean().await;
}

async fn adoption(mut rig: Rig) {
    let input = rig.sh("n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done");
    let id = input.id.clone();
    let created = rig.create(&input, true, false).await.unwrap();
    let mut output = created.console.output();
    rig.runtime().start(&id).await.unwrap();
    read_until(&mut output, "line 2").await;
    rig.crash().await;
    // What was there before ends instead of hanging.
    while output.recv().await.is_some() {}
    let (pid, start) = (created.pid, created.pid_start);
    drop(created);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(brig_sys::process::alive(pid, start));

    rig.boot();
    let record = rig.record(&id);
    let Adopted::Running { console, paused: false } =
        rig.runtime().recover(&id, record).await.unwrap()
    else {
        panic!("it runs");
    };
    let mut output = console.output();
    read_until(&mut output, "line ").await;
    let done = rig.runtime().exec(exec(&id, &["true"])).await.unwrap();
    assert_eq!(done.exit.wait().await.code, 0);
    rig.runtime().kill(&id, Signal::KILL, false).await.unwrap();
    assert_eq!(rig.exit(&id).await.code, 137);
    rig.runtime().delete(&id, false).await.unwrap();
    // Nothing was lost in its log.
    let log = fs::read_to_string(rig.log(&id)).unwrap();
    for (index, line) in log.lines().enumerate() {
        assert!(line.ends_with(&format!("F line {}", index + 1)), "{line}");
    }
    rig.assert_clean().await;
}

async fn ended_while_away(mut rig: Rig) {
    let ended = rig.sh("sleep 0.2; exit 9");
    let unwatched = rig.input(&["sleep", "1000"]);
    let killed = rig.input(&["sleep", "1000"]);
    let mut pids = Vec::new();
    for input in [&ended, &unwatched, &killed] {
        pids.push(rig.create(input, false, false).await.unwrap().pid);
        rig.runtime().start(&input.id).await.unwrap();
    }
    rig.crash().await;
    kill_conmon_of(pids[1]);
    kill_conmon_of(pids[2]);
    let pidfd = brig_sys::process::pidfd(pids[2]).unwrap();
    brig_sys::process::send_signal(&pidfd, Signal::KILL).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;

    rig.boot();
    let recover = async |id: &ContainerId| rig.runtime().recover(id, rig.record(id)).await.unwrap();
    let Adopted::Exited(info) = recover(&ended.id).await else { panic!("it ended") };
    assert_eq!((info.code, info.reason), (9, None));
    let Adopted::Exited(info) = recover(&unwatched.id).await else { panic!("it was stopped") };
    assert_eq!(info.code, 137);
    assert!(info.reason.unwrap().contains("monitor"));
    assert!(matches!(recover(&killed.id).await, Adopted::Lost { .. }));
    for input in [&ended, &unwatched, &killed] {
        rig.runtime().delete(&input.id, false).await.unwrap();
    }
    rig.assert_clean().await;
}

async fn half_made_containers(mut rig: Rig) {
    let created = rig.input(&["sleep", "1000"]);
    rig.create(&created, false, false).await.unwrap();
    let unknown = rig.input(&["sleep", "1000"]);
    rig.create(&unknown, false, false).await.unwrap();
    let never = rig.input(&["sleep", "1000"]);
    rig.crash().await;
    rig.boot();
    let record = rig.record(&created.id);
    let adopted = rig.runtime().recover(&created.id, record).await.unwrap();
    assert!(matches!(adopted, Adopted::Lost { .. }), "{adopted:?}");
    // The daemon went away before it learnt the numbers.
    for id in [&unknown.id, &never.id] {
        let record = ContainerRecord {
            bundle: rig.bundle(id),
            pid: 0,
            pid_start: 0,
            conmon_pid: 0,
            conmon_start: 0,
            tty: false,
            open_stdin: false,
            stdin_once: false,
        };
        let adopted = rig.runtime().recover(id, record).await.unwrap();
        assert!(matches!(adopted, Adopted::Lost { .. }), "{adopted:?}");
    }
    for input in [&created, &unknown] {
        let record = rig.record(&input.id);
        assert!(!brig_sys::process::alive(record.pid, record.pid_start));
        assert!(!brig_sys::process::alive(record.conmon_pid, record.conmon_start));
    }
    rig.assert_clean().await;
}

/// The processes below a bundle's conmon, and itself.
fn tree(bundle: &Path) -> Vec<i32> {
    let conmon = fs::read_to_string(bundle.join("conmon.pid")).unwrap_or_default();
    let mut found: Vec<i32> = conmon.trim().parse().into_iter().collect();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let parents: Vec<(i32, i32)> = entries
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, parent))
        })
        .collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The OCI runtime waits for somebody to write into the image's list of users.
async fn a_hung_create(rig: Rig) {
    let mut input = rig.input(&["sleep", "1000"]);
    input.process.env.retain(|line| !line.starts_with("HOME="));
    let passwd = rig.dir.path().join("rootfs/etc/passwd");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let request = rig.request(&input, false, false);
    let runtime = rig.runtime().clone();
    let mut creating = tokio::task::JoinSet::new();
    creating.spawn(async move { runtime.create(request).await });
    let bundle = rig.bundle(&input.id);
    // Asleep in `open`, as one of its threads.
    let reads = |pid: &i32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut at =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("wchan")).ok());
        at.any(|at| at == "wait_for_partner")
    };
    let mut hung = Vec::new();
    for _ in 0..2000 {
        hung = tree(&bundle);
        if hung.iter().any(reads) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(hung.len() > 1 && hung.iter().any(reads), "{hung:?}");
    let hung: Vec<_> =
        hung.into_iter().map(|pid| (pid, brig_sys::process::start_time(pid).unwrap())).collect();
    // As an engine finds it that did not begin it.
    let record = ContainerRecord {
        bundle,
        pid: 0,
        pid_start: 0,
        conmon_pid: 0,
        conmon_start: 0,
        tty: false,
        open_stdin: false,
        stdin_once: false,
    };
    let adopted = rig.runtime().recover(&input.id, record).await.unwrap();
    assert!(matches!(adopted, Adopted::Lost { .. }), "{adopted:?}");
    assert!(creating.join_next().await.unwrap().unwrap().is_err());
    for (pid, start) in hung {
        assert!(!brig_sys::process::alive(pid, start), "{pid}");
    }
    rig.assert_clean().await;
}

async fn out_of_memory(mut rig: Rig) {
    let mut input = rig.input(&["tail", "/dev/zero"]);
    input.resources.memory = Some(16 << 20);
    let (info, _, _) = rig.run(&input).await;
    assert_eq!((info.code, info.oom), (137, true));
}

async fn filters_apply(mut rig: Rig) {
    let script = "grep Seccomp: /proc/self/status; unshare -U true && echo allowed; true";
    // Compiled by the runtime, kept from then on, and found again by the next daemon.
    for round in 0..3 {
        if round == 2 {
            rig.crash().await;
            rig.boot();
        }
        let mut input = rig.sh(script);
        // "Allow everything", for whoever would believe it.
        let open = ("run.oci.seccomp_bpf_data".to_owned(), "BgAAAAAA/38=".to_owned());
        input.annotations.extend((round == 0).then_some(open));
        let (info, out, err) = rig.run(&input).await;
        assert_eq!(info.code, 0);
        assert_eq!(out, "Seccomp:\t2\n", "round {round}");
        assert!(err.contains("unshare"), "{err}");
        let config = fs::read_to_string(rig.bundle(&input.id).join("config.json")).unwrap();
        let ready = config.contains("run.oci.seccomp_bpf_data");
        assert_eq!(ready, rig.runtime().flavor() == brig_runtime::Flavor::Crun && round > 0);
        assert_ne!(ready, config.contains("SCMP_ACT_ERRNO"));
        // Written behind the answer.
        let kept = || fs::read_dir(rig.dir.path().join("cache/seccomp")).unwrap().count();
        for _ in 0..200 {
            if rig.runtime().flavor() != brig_runtime::Flavor::Crun || kept() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // The same for what is started later.
    let input = rig.input(&["sleep", "1000"]);
    rig.create(&input, false, false).await.unwrap();
    rig.runtime().start(&input.id).await.unwrap();
    let exec = rig.runtime().exec(exec(&input.id, &["sh", "-c", script])).await.unwrap();
    assert_eq!(collect(exec.output).await.0, "Seccomp:\t2\n");
    exec.exit.wait().await;

    let mut open = rig.sh(script);
    open.seccomp = brig_runtime::spec::SeccompProfile::Unconfined;
    assert_eq!(rig.run(&open).await.1, "Seccomp:\t0\nallowed\n");
}

async fn pausing(mut rig: Rig) {
    let input = rig.sh("while true; do echo tick; sleep 0.02; done");
    let id = input.id.clone();
    let created = rig.create(&input, false, false).await.unwrap();
    let mut output = created.console.output();
    rig.runtime().start(&id).await.unwrap();
    read_until(&mut output, "tick").await;
    rig.runtime().pause(&id).await.unwrap();
    assert_eq!(rig.runtime().state(&id).await.unwrap().unwrap().status, OciStatus::Paused);
    tokio::time::sleep(Duration::from_millis(100)).await;
    while tokio::time::timeout(Duration::from_millis(200), output.recv()).await.is_ok() {}
    rig.runtime().resume(&id).await.unwrap();
    read_until(&mut output, "tick").await;
    // A frozen one can be removed.
    rig.runtime().pause(&id).await.unwrap();
    rig.runtime().delete(&id, true).await.unwrap();
    assert!(!brig_sys::process::alive(created.pid, created.pid_start));
    rig.assert_clean().await;
}

async fn limits_and_identity(mut rig: Rig) {
    let mut input = rig.sh(
        "ulimit -n; ulimit -Hn; hostname; grep -E 'CapBnd|CapEff' /proc/1/status; cat /proc/1/comm",
    );
    input.init = true;
    input.process.rlimits = vec![Rlimit { name: "nofile".to_owned(), soft: 100, hard: 200 }];
    let (info, out, err) = rig.run(&input).await;
    assert_eq!(info.code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["100", "200", input.id.short()]);
    let bounding = brig_sys::caps::bounding();
    if bounding.contains("CAP_AUDIT_WRITE") {
        assert_eq!(lines[3..5], ["CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb"]);
    }
    assert!(lines[5].contains("init") || lines[5].contains("tini"), "{out}");
    assert!(Path::new(&rig.bundle(&input.id)).exists(), "the caller removes it");
}

async fn many_at_once(mut rig: Rig) {
    let inputs: Vec<_> = (0..8).map(|n| rig.sh(&format!("echo {n}; exit {n}"))).collect();
    let mut running = tokio::task::JoinSet::new();
    for input in &inputs {
        let (runtime, request) = (rig.runtime().clone(), rig.request(input, false, false));
        running.spawn(async move {
            let id = request.id.clone();
            let created = runtime.create(request).await.unwrap();
            let output = created.console.output();
            runtime.start(&id).await.unwrap();
            collect(output).await.0
        });
    }
    let mut outputs = running.join_all().await;
    outputs.sort();
    assert_eq!(outputs.concat(), (0..8).map(|n| format!("{n}\n")).collect::<String>());
    for (n, input) in inputs.iter().enumerate() {
        assert_eq!(rig.exit(&input.id).await.code, i32::try_from(n).unwrap());
        rig.runtime().delete(&input.id, false).await.unwrap();
    }
    rig.assert_clean().await;
}
