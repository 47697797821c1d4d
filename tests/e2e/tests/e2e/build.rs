//! `build` by the classic API, with buildah behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_e2e::registry::{LOGIN, Registry};
use brig_e2e::{Brigd, eventually, image};

fn has_buildah() -> bool {
    let found = Path::new("/usr/bin/buildah").exists();
    if !found {
        eprintln!("SKIPPED: there is no buildah; scripts/setup.sh test installs it");
    }
    found
}

fn context(daemon: &Brigd, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = daemon.root().join(name);
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn built_on_a_local_image_by_every_client() {
    if !has_buildah() {
        return;
    }
    let daemon = Brigd::start();
    daemon.load_busybox();
    let dockerfile = "ARG BASE=nothing\nFROM ${BASE} AS one\nARG WHAT=nobody\nCOPY dir /dir\n\
        RUN echo \"hello $WHAT\" >/greeting && id -u && ls /dir\nFROM one\nENV A=b\n\
        COPY --from=0 /greeting /copy\nHEALTHCHECK CMD true\nCMD [\"cat\", \"/copy\"]\n";
    let folder = context(
        &daemon,
        "context",
        &[
            ("Dockerfile", dockerfile),
            ("dir/kept", "k"),
            ("dir/left.log", "l"),
            (".dockerignore", "**/*.log\n"),
        ],
    );
    let path = folder.display().to_string();
    for client in daemon.clients() {
        let iid = daemon.root().join("iid");
        let iidfile = iid.display().to_string();
        let built = client.run(&[
            "build",
            "-t",
            "made:1",
            "-t",
            "made:latest",
            "--build-arg",
            "BASE=busybox",
            "--build-arg",
            "WHAT=you",
            "--label",
            "x=y",
            "--no-cache",
            "--iidfile",
            &iidfile,
            &path,
        ]);
        let text = built.ok();
        for line in ["Step ", "FROM ", "Successfully built ", "Successfully tagged made:1", "kept"]
        {
            assert!(text.contains(line), "{}: {line} is not in {text}", client.name);
        }
        assert!(!text.contains("left.log"), "{text}");
        let id = client.run(&["images", "-q", "--no-trunc", "made:1"]).ok().to_owned();
        assert_eq!(std::fs::read_to_string(&iid).unwrap(), id);
        let ran = client.run(&["run", "--rm", "--network", "none", "made"]);
        assert_eq!(ran.ok(), "hello you");
        let label = client.run(&[
            "inspect",
            "-f",
            "{{.Config.Labels.x}} {{.Config.Healthcheck.Test}}",
            &id,
        ]);
        assert_eq!(label.ok(), "y [CMD-SHELL true]");
        // Once more: everything is there already.
        let again = client.run(&[
            "build",
            "-q",
            "-t",
            "made:1",
            "--build-arg",
            "BASE=busybox",
            "--build-arg",
            "WHAT=you",
            "--label",
            "x=y",
            &path,
        ]);
        assert!(again.ok().starts_with("sha256:"), "{}", again.stdout);
        assert_eq!(again.ok().lines().count(), 1, "{}", again.stdout);
        // A step that fails ends with its own code.
        let failing = client.run_with(&["build", "-"], b"FROM busybox\nRUN exit 7\n");
        assert!(
            failing
                .fails(7)
                .contains("The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
            "{}",
            failing.stderr
        );
        let _ = client.run(&["rmi", "-f", &id]).ok();
    }
    let builder = daemon.data_root().join("builder/tmp");
    eventually("nothing is left of the builds", Duration::from_secs(10), || {
        std::fs::read_dir(&builder).unwrap().count() == 0
            && std::fs::read_dir(daemon.exec_root().join("builder")).unwrap().count() == 0
    });
    let brig = daemon.brig();
    let usage = brig.run(&["system", "df", "--format", "{{.Type}}: {{.Size}}"]);
    assert!(!usage.ok().contains("Build Cache: 0B"), "{}", usage.stdout);
    let pruned = brig.run(&["builder", "prune", "-f"]);
    assert!(pruned.ok().contains("Total reclaimed space: "), "{}", pruned.stdout);
    let usage = brig.run(&["system", "df", "--format", "{{.Type}}: {{.Size}}"]);
    assert!(usage.ok().contains("Build Cache: 0B"), "{}", usage.stdout);
}

#[test]
fn a_base_comes_from_a_registry_with_a_login() {
    if !has_buildah() {
        return;
    }
    let daemon = Brigd::start();
    let registry = Registry::start(Some(LOGIN));
    registry.push(&image::busybox(), "bb:1", Some("u:pw"));
    let dockerfile = format!("FROM {}/bb:1\nRUN echo built >/x\n", registry.address);
    let folder = context(&daemon, "context", &[("sub/Dockerfile.x", &dockerfile)]);
    let path = folder.display().to_string();
    let file = folder.join("sub/Dockerfile.x").display().to_string();
    for client in daemon.clients() {
        let _ = client.run(&["logout", &registry.address]);
        let refused = client.run(&["build", "-f", &file, &path]);
        assert!(refused.fails(1).contains("no basic auth credentials"), "{}", refused.stderr);
        let _ = client
            .run_with(&["login", "-u", "u", "--password-stdin", &registry.address], b"pw")
            .ok();
        let _ = client.run(&["build", "--pull", "-t", "x", "-f", &file, &path]).ok();
        let ran = client.run(&["run", "--rm", "--network", "none", "x", "cat", "/x"]);
        assert_eq!(ran.ok(), "built");
        let _ = client.run(&["rmi", "-f", "x", &format!("{}/bb:1", registry.address)]).ok();
    }
}

#[test]
fn a_client_that_leaves_takes_its_build_along() {
    if !has_buildah() {
        return;
    }
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    // A number that no other process has on its command line.
    let mark = format!("{}", 100_000 + daemon.pid());
    let dockerfile = format!("FROM busybox\nRUN sleep {mark}\n");
    let folder = context(&daemon, "context", &[("Dockerfile", &dockerfile)]);
    let path = folder.display().to_string();
    let running = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| line == format!("sleep\0{mark}\0").as_bytes())
        })
    };
    for killed in [false, true] {
        let mut client = daemon.brig().command(&["build", &path]).spawn().unwrap();
        eventually("the step runs", Duration::from_secs(30), running);
        if killed {
            daemon.kill();
        } else {
            let pid = rustix::process::Pid::from_child(&client);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        eventually("the step is gone", Duration::from_secs(10), || !running());
        let _ = client.wait();
        if killed {
            daemon.spawn();
        }
        eventually("its files are gone", Duration::from_secs(10), || {
            std::fs::read_dir(daemon.data_root().join("builder/tmp")).map_or(0, Iterator::count)
                == 0
        });
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(&format!("{}/builder", daemon.data_root().display())));
    }
    // The storage is as usable as before.
    let folder = context(&daemon, "next", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let _ = daemon.brig().run(&["build", "-t", "next", &folder.display().to_string()]).ok();
}

#[test]
fn networks_of_steps() {
    if !has_buildah() {
        return;
    }
    let daemon = Brigd::start();
    daemon.load_busybox();
    let dockerfile = "FROM busybox\nRUN ip -o -4 addr\nRUN cat /etc/resolv.conf || true\n";
    let folder = context(&daemon, "context", &[("Dockerfile", dockerfile)]);
    let path = folder.display().to_string();
    let brig = daemon.brig();
    let bridged = brig.run(&["build", "--no-cache", &path]);
    assert!(bridged.ok().contains("eth0"), "{}", bridged.stdout);
    let none = brig.run(&["build", "--no-cache", "--network", "none", &path]);
    assert!(!none.ok().contains("eth0"), "{}", none.stdout);
    let host = brig.run(&["build", "--no-cache", "--network", "host", &path]);
    assert!(host.ok().contains("127.0.0.1"), "{}", host.stdout);
    let unknown = brig.run(&["build", "--network", "nosuch", &path]);
    assert!(unknown.fails(1).contains("nosuch"), "{}", unknown.stderr);
}
