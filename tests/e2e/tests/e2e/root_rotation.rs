//! Another root certificate for a swarm: with every client, and with a manager that is killed on
//! the way.

use std::process::Command;
use std::time::Duration;

use brig_e2e::{Brigd, eventually};

/// Longest time until every node has followed.
const PATIENCE: Duration = Duration::from_secs(40);

/// The root certificate at the end of what `swarm ca` printed.
fn root(printed: &str) -> String {
    let begin = printed.rfind("-----BEGIN CERTIFICATE-----").expect(printed);
    printed[begin..].trim().to_owned()
}

fn openssl(daemon: &Brigd, line: &str) {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(daemon.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_client_rotates_and_sees_the_end() {
    let daemon = Brigd::start();
    daemon.init_swarm();
    let file = |name: &str| daemon.root().join(name).display().to_string();
    openssl(&daemon, "ecparam -name secp384r1 -genkey -out key.pem");
    openssl(&daemon, "genrsa -out other.pem 2048");
    let (cert, key, other) = (file("cert.pem"), file("key.pem"), file("other.pem"));
    let mut roots = vec![root(daemon.brig().run(&["swarm", "ca"]).ok())];
    for client in daemon.clients() {
        let now = roots.last().unwrap().clone();
        assert_eq!(client.run(&["swarm", "ca"]).ok(), now);

        let refusals: [(&[&str], &str); 4] = [
            (&["--ca-key", &key], "`--ca-key` flag requires the `--rotate` flag to update the CA"),
            (&["--rotate", "--ca-cert", &cert], "the --ca-cert flag requires that a --ca-key flag"),
            (&["--rotate", "--ca-key", &key], "the signing CA cert must also be provided"),
            (&["--rotate", "--ca-cert", &cert, "--ca-key", &other], "certificate key mismatch"),
        ];
        openssl(&daemon, "req -x509 -new -key key.pem -out cert.pem -days 3650 -subj /CN=our-root");
        for (flags, text) in refusals {
            let refused = client.run(&[&["swarm", "ca"], flags].concat());
            assert!(refused.fails(1).contains(text), "{}: {refused:?}", client.name);
        }
        assert_eq!(client.run(&["swarm", "ca"]).ok(), now, "nothing happened");

        let printed = client.run(&["swarm", "ca", "--rotate"]);
        roots.push(root(printed.ok()));
        let own = ["swarm", "ca", "--rotate", "-q", "--ca-cert", &cert, "--ca-key", &key];
        assert_eq!(client.run(&own).ok(), "");
        let ours = std::fs::read_to_string(&cert).unwrap().trim().to_owned();
        assert_eq!(client.run(&["swarm", "ca"]).ok(), ours);
        roots.push(ours);
        let shown = client.run_in_terminal(&["swarm", "ca", "--rotate", "--cert-expiry", "3h"], "");
        assert!(shown.ok().contains("rotated TLS certificates"), "{}", shown.stdout);
        roots.push(root(&shown.stdout.replace('\r', "")));
        let status = client.run(&["node", "ls", "--format", "{{.TLSStatus}}"]);
        assert_eq!(status.ok(), "Ready", "{}", client.name);
        let format = "{{json .Swarm.Cluster.Spec.CAConfig}}";
        let settings = client.run(&["info", "--format", format]);
        assert!(settings.ok().contains("\"NodeCertExpiry\":10800000000000"), "{settings:?}");
        assert!(!settings.stdout.contains("Signing"), "{settings:?}");
    }
    let count = roots.len();
    roots.sort();
    roots.dedup();
    assert_eq!(roots.len(), count, "each one was another one");
    // A key that was given is nowhere in clear.
    let key = std::fs::read_to_string(&key).unwrap();
    let line = key.lines().rev().nth(1).unwrap();
    let found = Command::new("grep").args(["-rlF", "--", line]).arg(daemon.data_root()).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
}

#[test]
fn killed_managers_go_on_and_containers_notice_nothing() {
    let mut manager = Brigd::start();
    let worker = Brigd::start();
    manager.init_swarm();
    worker.load_busybox();
    let run = |args: &[&str]| manager.brig().run(args).ok().to_owned();
    let token = run(&["swarm", "join-token", "-q", "worker"]);
    let address = format!("127.0.0.1:{}", manager.swarm_port());
    let listen = format!("--listen-addr=127.0.0.1:{}", worker.swarm_port());
    let join =
        ["swarm", "join", "--advertise-addr=127.0.0.1", &listen, "--token", &token, &address];
    let _ = worker.brig().run(&join).ok();
    let create =
        "service create -q -d --name web --constraint node.role==worker busybox sleep 1000";
    let _ = run(&create.split(' ').collect::<Vec<_>>());
    let container = worker.service_containers("web", 1);
    let mut before = run(&["swarm", "ca"]);
    for pause in [0, 150, 600, 1_200] {
        let _ = manager.brig().run(&["swarm", "ca", "--rotate", "-d"]).ok();
        std::thread::sleep(Duration::from_millis(pause));
        manager.kill();
        manager.spawn();
        eventually("everybody has followed", PATIENCE, || {
            let status = manager.brig().run(&["node", "ls", "--format", "{{.TLSStatus}}"]);
            let root = manager.brig().run(&["swarm", "ca"]);
            status.code == 0
                && status.stdout.trim() == "Ready\nReady"
                && root.code == 0
                && root.stdout.trim() != before
        });
        before = manager.brig().run(&["swarm", "ca"]).ok().trim().to_owned();
        assert_eq!(worker.service_containers("web", 1), container, "after {pause} ms");
    }
    let _ = manager.brig().run(&["service", "rm", "web"]).ok();
    let _ = worker.brig().run(&["swarm", "leave"]).ok();
}
