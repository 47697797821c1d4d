//! Secrets are seen in the container and nowhere else.

use brig_engine::{SecretFile, StartOptions, WaitCondition};
use brig_types::error::Categorized;
use brig_types::error::ErrorKind;
use brig_types::secret::SecretBytes;

use crate::support::{Node, finish, isolated, logs, run_with, sh, wait};

const MARK: &str = "correct horse battery staple";

fn file(target: &str, uid: u32, gid: u32, mode: u32) -> SecretFile {
    SecretFile {
        target: target.to_owned(),
        uid,
        gid,
        mode,
        data: SecretBytes::new(MARK.as_bytes().to_vec()),
    }
}

fn options() -> StartOptions {
    StartOptions {
        secrets: vec![file("one", 33, 34, 0o400), file("/etc/deep/two", 0, 0, 0o444)],
        configs: vec![file("conf", 0, 77, 0o640)],
        ..StartOptions::default()
    }
}

#[test]
fn owner_mode_and_mount_are_right() {
    isolated("secrets::owner_mode_and_mount_are_right", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let script = "stat -c '%u %g %a %s' /run/secrets/one /etc/deep/two /conf;\
            cat /run/secrets/one /etc/deep/two /conf; echo; ls /run/secrets; ls -a /dev | grep brig;\
            echo x > /run/secrets/one; touch /run/secrets/x; mount -o remount,rw /run/secrets;\
            grep -e ' brig-' /proc/self/mountinfo";
        for read_only in [false, true] {
            let mut wanted = sh(script);
            wanted.host_config.readonly_rootfs = read_only;
            let (_, out, err) = run_with(&engine, wanted, options()).await;
            let mut lines = out.lines();
            let size = MARK.len();
            assert_eq!(lines.next().unwrap(), format!("33 34 400 {size}"), "{out}{err}");
            assert_eq!(lines.next().unwrap(), format!("0 0 444 {size}"));
            assert_eq!(lines.next().unwrap(), format!("0 77 640 {size}"));
            assert_eq!(lines.next().unwrap(), MARK.repeat(3));
            assert_eq!(lines.next().unwrap(), "one");
            let mounts: Vec<&str> = lines.collect();
            assert_eq!(mounts.len(), 3, "{out}");
            for mount in mounts {
                assert!(mount.contains(" ro,nosuid,nodev,noexec"), "{mount}");
            }
            assert_eq!(err.matches("Read-only file system").count(), 2, "{err}");
        }
        finish(engine).await;
    });
}

#[test]
fn targets_may_be_nested() {
    isolated("secrets::targets_may_be_nested", || async {
        let node = Node::new();
        let engine = node.engine().await;
        for read_only in [false, true] {
            let mut wanted = sh("cat /run/secrets/one /run/secrets/a/b/two");
            wanted.host_config.readonly_rootfs = read_only;
            let nested = StartOptions {
                secrets: vec![file("one", 0, 0, 0o400), file("a/b/two", 0, 0, 0o400)],
                ..StartOptions::default()
            };
            let (_, out, err) = run_with(&engine, wanted, nested).await;
            assert_eq!(out, MARK.repeat(2), "{err}");
        }
        finish(engine).await;
    });
}

#[test]
fn nothing_of_it_is_on_the_host() {
    isolated("secrets::nothing_of_it_is_on_the_host", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let id = engine.create_container(None, sh("sleep 100")).await.unwrap().id;
        engine.start_container(&id, options()).await.unwrap();
        let mounts = brig_sys::mount::mountinfo(None).unwrap();
        assert!(!mounts.iter().any(|mount| mount.source.starts_with("brig-")));
        let inspected = serde_json::to_string(&engine.inspect(&id, false).await.unwrap()).unwrap();
        assert!(!inspected.contains(MARK));
        let found = std::process::Command::new("grep")
            .args(["-rlF", MARK])
            .arg(node.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
        engine.kill(&id, None).await.unwrap();
        wait(&engine, &id, WaitCondition::NotRunning).await;
        // Without them it does not start again.
        let error = engine.start_container(&id, StartOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        engine.start_container(&id, options()).await.unwrap();
        assert_eq!(logs(&engine, &id, Default::default()).await, "");
        finish(engine).await;
    });
}

#[test]
fn bad_targets_keep_it_from_starting() {
    isolated("secrets::bad_targets_keep_it_from_starting", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let id = engine.create_container(None, sh("sleep 100")).await.unwrap().id;
        let bad =
            StartOptions { secrets: vec![file("../x", 0, 0, 0o400)], ..StartOptions::default() };
        assert!(engine.start_container(&id, bad).await.is_err());
        assert_eq!(engine.inspect(&id, false).await.unwrap().state.status, "created");
        finish(engine).await;
    });
}
