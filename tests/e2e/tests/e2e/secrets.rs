//! A secret's life: sealed in the store, in memory in just the containers that were granted it,
//! gone afterwards.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use brig_e2e::{Brigd, eventually};

/// Files below `folder` that hold `needle`, as `grep -r` finds them.
fn holding(folder: &Path, needle: &str) -> String {
    let output = Command::new("grep").args(["-rlaF", "--", needle]).arg(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn in_memory_in_the_granted_container_only() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    for (number, client) in daemon.clients().into_iter().enumerate() {
        let value = format!("plaintext-{number}-{}", std::process::id());
        let _ = client
            .run_with(&["secret", "create", "--label", "a=b", "my_secret", "-"], value.as_bytes())
            .ok();
        let target = "source=my_secret,target=db_password,uid=33,gid=50,mode=0440";
        let created = client.run(&[
            "service",
            "create",
            "-q",
            "--name",
            "svc",
            "--stop-grace-period",
            "1s",
            "--secret",
            target,
            "busybox",
            "sleep",
            "1000",
        ]);
        let _ = created.ok();
        let id = daemon.service_containers("svc", 1).remove(0);
        let read = client.run(&["exec", &id, "cat", "/run/secrets/db_password"]);
        assert_eq!(read.ok(), value);
        let listed = client.run(&["exec", &id, "ls", "-ln", "/run/secrets/db_password"]);
        let fields: Vec<&str> = listed.ok().split_whitespace().collect();
        assert_eq!(fields[..4], ["-r--r-----", "1", "33", "50"], "{}", listed.stdout);
        let mount = client.run(&["exec", &id, "grep", " /run/secrets ", "/proc/self/mountinfo"]);
        // Kernels before 6.4 cannot promise a tmpfs without swap: there it is a ramfs.
        let memory = if mount.ok().contains(" ramfs ") { "ramfs" } else { "noswap" };
        for option in ["ro", "nosuid", "nodev", "noexec", "brig-secrets", memory] {
            assert!(mount.ok().contains(option), "{option}: {}", mount.stdout);
        }
        assert_ne!(
            client.run(&["exec", &id, "sh", "-c", "echo x > /run/secrets/db_password"]).code,
            0
        );
        let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!host.contains("brig-secrets"), "the tmpfs is in no host mount table");
        assert_eq!(holding(daemon.root(), &value), "", "the plaintext is in no file");
        assert_eq!(
            holding(&daemon.data_root().join("swarm"), "my_secret"),
            "",
            "nor the name in the store"
        );
        let other = client.run(&["run", "--rm", "busybox", "ls", "/run/secrets"]);
        assert_ne!(other.code, 0, "another container has no secrets");
        let refused = client.run(&["secret", "rm", "my_secret"]);
        assert!(
            refused.fails(1).contains("is in use by the following service: svc"),
            "{}",
            refused.stderr
        );
        let inspected = client.run(&["secret", "inspect", "my_secret"]);
        assert!(inspected.ok().contains("\"a\": \"b\"") && !inspected.ok().contains("Data"));
        for text in [
            client.run(&["inspect", &id]),
            client.run(&["service", "inspect", "svc"]),
            client.run(&["logs", &id]),
        ] {
            assert!(!text.stdout.contains(&value) && !text.stderr.contains(&value));
        }
        let pid = client.run(&["inspect", "-f", "{{.State.Pid}}", &id]);
        let namespace = std::path::PathBuf::from(format!("/proc/{}/ns/mnt", pid.ok()));
        assert!(namespace.exists());
        let _ = client.run(&["service", "rm", "svc"]).ok();
        eventually("the container is gone", Duration::from_secs(30), || !namespace.exists());
        eventually("the secret can go", Duration::from_secs(10), || {
            client.run(&["secret", "rm", "my_secret"]).code == 0
        });
        assert_eq!(client.run(&["secret", "ls", "-q"]).ok(), "");
        assert_eq!(holding(daemon.root(), &value), "");
    }
}

#[test]
fn limits_and_names() {
    let daemon = Brigd::start();
    daemon.init_swarm();
    for client in daemon.clients() {
        let large = client.run_with(&["secret", "create", "large", "-"], &[b'x'; 512_001]);
        assert!(
            large.fails(1).contains("secret data must be larger than 0 and less than 512000 bytes")
                || large.stderr.contains("500"),
            "{}",
            large.stderr
        );
        let _ = client.run_with(&["secret", "create", "fits", "-"], &[b'x'; 511_999]).ok();
        for name in ["", "bad-", "a/b", "a b"] {
            assert_eq!(client.run_with(&["secret", "create", name, "-"], b"x").code, 1, "{name:?}");
        }
        assert_eq!(client.run_with(&["secret", "create", "empty", "-"], b"").code, 1);
        let twice = client.run_with(&["secret", "create", "fits", "-"], b"x");
        assert!(twice.fails(1).contains("secret fits already exists"), "{}", twice.stderr);
        assert_eq!(client.run(&["secret", "ls", "--format", "{{.Name}}"]).ok(), "fits");
        assert_eq!(client.run(&["secret", "rm", "fits"]).ok().len(), 4);
    }
}
