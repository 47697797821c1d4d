//! A cluster's backup: written online, verified, and restored by another daemon.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use brig_e2e::{Brigd, Client, eventually};

const SECRET: &str = "correct-horse-battery-staple";

fn restore(daemon: &Brigd, file: &str, opening: &[&str]) -> brig_e2e::Output {
    let listen = format!("127.0.0.1:{}", daemon.swarm_port());
    let address = ["--advertise-addr", "127.0.0.1", "--listen-addr", &listen];
    daemon.brig().run(&[&["cluster", "restore", file], &address[..], opening].concat())
}

fn with_service(daemon: &Brigd) {
    daemon.init_swarm();
    let brig = daemon.brig();
    let _ = brig.run_with(&["secret", "create", "token", "-"], SECRET.as_bytes()).ok();
    let create = [
        "service", "create", "-d", "-q", "--name", "web", "--secret", "token", "busybox", "sleep",
        "1000",
    ];
    let _ = brig.run(&create).ok();
    let _ = daemon.service_containers("web", 1);
}

fn secret_in(client: &Client, container: &str) -> String {
    client.run(&["exec", container, "cat", "/run/secrets/token"]).ok().to_owned()
}

#[test]
fn a_backup_is_restored_by_another_daemon() {
    let (mut old, new) = (Brigd::start(), Brigd::start());
    old.load_busybox();
    new.load_busybox();
    with_service(&old);
    let path = |name: &str| old.root().join(name).display().to_string();
    let (file, phrase, wrong) = (path("cluster.backup"), path("phrase"), path("wrong"));
    std::fs::write(&phrase, "a long enough passphrase\n").unwrap();
    std::fs::write(&wrong, "another long passphrase\n").unwrap();
    let brig = old.brig();
    let told = brig.run(&["cluster", "backup", "--out", &file]);
    assert!(told.fails(1).contains("say who may read the backup"));
    assert!(!Path::new(&file).exists());
    let _ = brig.run(&["cluster", "backup", "-o", &file, "--passphrase-file", &phrase]).ok();
    let content = std::fs::read(&file).unwrap();
    for word in [SECRET, "web", "PRIVATE KEY", "SWMTKN"] {
        let found = content.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(!found || word.len() < 4, "{word} is in the backup");
    }
    let inspected = brig.run(&["cluster", "backup", "inspect", &file]);
    assert!(inspected.ok().contains("Encryption: age"), "{inspected:?}");

    let fresh = new.brig();
    let verified = fresh.run(&["cluster", "backup", "verify", &file, "--passphrase-file", &phrase]);
    assert!(verified.ok().contains("can be restored."), "{verified:?}");
    assert!(verified.ok().contains("1 service\n") && verified.ok().contains("1 secret\n"));
    let refused = restore(&new, &file, &["--passphrase-file", &wrong]);
    assert!(refused.fails(1).contains("the passphrase is wrong"), "{refused:?}");
    for (name, bytes) in [
        ("cut", content[..content.len() / 2].to_vec()),
        ("flipped", {
            let mut bytes = content.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
    ] {
        let bad = path(name);
        std::fs::write(&bad, bytes).unwrap();
        let refused = restore(&new, &bad, &["--passphrase-file", &phrase]);
        assert!(refused.fails(1).contains("cut off or altered"), "{name}: {refused:?}");
    }
    let refused = restore(&old, &file, &["--passphrase-file", &phrase]);
    assert!(refused.fails(1).contains("already part of a swarm"));

    let token = brig.run(&["swarm", "join-token", "-q", "worker"]).ok().to_owned();
    old.purge();
    let restored = restore(&new, &file, &["--passphrase-file", &phrase]);
    assert!(restored.ok().starts_with("Cluster restored: current node"), "{restored:?}");
    let containers = new.service_containers("web", 1);
    eventually("the secret is readable", Duration::from_secs(10), || {
        secret_in(&fresh, &containers[0]) == SECRET
    });
    assert_eq!(fresh.run(&["swarm", "join-token", "-q", "worker"]).ok(), token);
    let nodes = fresh.run(&["node", "ls", "-q"]);
    assert_eq!(nodes.ok().lines().count(), 1, "the old manager is out");

    let _ = fresh.run(&["cluster", "keys", "rotate"]).ok();
    eventually("the data key is another one", Duration::from_secs(20), || {
        let keys = fresh.run(&["cluster", "keys"]);
        keys.ok().contains("Generation: 1") && !keys.ok().contains("under way")
    });
    assert_eq!(secret_in(&fresh, &containers[0]), SECRET);
}

/// The `age` tool reads what follows the header, and writes keys that work here.
#[test]
fn the_age_tool_reads_a_backup() {
    if Command::new("age-keygen").arg("--version").output().is_err() {
        println!("skipped: age is not installed");
        return;
    }
    let daemon = Brigd::start();
    daemon.init_swarm();
    let path = |name: &str| daemon.root().join(name).display().to_string();
    let (file, identity) = (path("cluster.backup"), path("backup.key"));
    let made = Command::new("age-keygen").args(["-o", &identity]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let recipient = std::fs::read_to_string(&identity).unwrap();
    let recipient = recipient.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap();
    let brig = daemon.brig();
    let _ = brig.run(&["cluster", "backup", "-o", &file, "-r", recipient]).ok();
    let verified = brig.run(&["cluster", "backup", "verify", &file, "-i", &identity]);
    assert!(verified.ok().contains("can be restored."));
    let line = format!("tail -n +3 {file} | age -d -i {identity} | wc -c");
    let counted = Command::new("sh").args(["-c", &line]).output().unwrap();
    let bytes: usize = String::from_utf8_lossy(&counted.stdout).trim().parse().unwrap();
    assert!(bytes > 1000, "{counted:?}");
}
