//! Managers that are locked: the flow of docker's tutorial, with every client.

use std::time::Duration;

use brig_e2e::{Brigd, Client, eventually, http};

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

fn state(daemon: &Brigd) -> String {
    let info = http::get(&daemon.socket(), "/v1.41/info");
    info["Swarm"]["LocalNodeState"].as_str().unwrap_or_default().to_owned()
}

/// The key that a client printed.
fn key_in(printed: &str) -> String {
    let start = printed.find("SWMKEY-1-").expect(printed);
    printed[start..].split_whitespace().next().unwrap().to_owned()
}

fn is_unlocked(daemon: &Brigd, client: &Client, key: &str) {
    let done = client.run_with(&["swarm", "unlock"], format!("{key}\n").as_bytes());
    let _ = done.ok();
    assert_eq!(state(daemon), "active", "{}", client.name);
}

#[test]
fn every_client_locks_and_unlocks() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let listen = format!("127.0.0.1:{}", daemon.swarm_port());
    for client in daemon.clients() {
        let address = ["--advertise-addr", "127.0.0.1", "--listen-addr", &listen];
        let made = client.run(&[&["swarm", "init", "--autolock"][..], &address].concat());
        let mut key = key_in(made.ok());
        assert_eq!(client.run(&["swarm", "unlock-key", "-q"]).ok(), key);
        assert!(client.run(&["swarm", "unlock"]).fails(1).contains("swarm is not locked"));
        let service =
            ["service", "create", "-d", "--name", "web", "-q", "busybox", "sleep", "1000"];
        let _ = client.run(&service).ok();
        let containers = daemon.service_containers("web", 1);

        daemon.kill();
        daemon.spawn();
        assert_eq!(state(&daemon), "locked");
        let info = http::get(&daemon.socket(), "/v1.41/info");
        assert_eq!(info["Swarm"]["Error"], LOCKED);
        assert_eq!(info["Swarm"]["NodeID"], "");
        assert!(client.run(&["service", "ls"]).fails(1).contains(LOCKED));
        assert!(client.run(&["swarm", "unlock-key"]).fails(1).contains(LOCKED));
        let still = client.run(&["ps", "-q", "--no-trunc"]);
        assert_eq!(still.ok(), containers[0], "what runs goes on, and is seen");
        let wrong = b"SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
        let refused = client.run_with(&["swarm", "unlock"], wrong);
        assert!(refused.fails(1).contains("swarm could not be unlocked: invalid key provided"));
        let refused = client.run(&["swarm", "leave"]);
        assert!(refused.fails(1).contains("Swarm is encrypted and locked."));
        is_unlocked(&daemon, &client, &key);
        assert_eq!(daemon.service_containers("web", 1), containers);

        let rotated = client.run(&["swarm", "unlock-key", "--rotate"]);
        assert!(rotated.ok().starts_with("Successfully rotated manager unlock key."));
        let old = std::mem::replace(&mut key, key_in(rotated.ok()));
        assert_ne!(old, key);
        daemon.kill();
        daemon.spawn();
        let refused = client.run_with(&["swarm", "unlock"], old.as_bytes());
        assert!(refused.fails(1).contains("invalid key provided"));
        is_unlocked(&daemon, &client, &key);

        let _ = client.run(&["swarm", "update", "--autolock=false"]).ok();
        let told = client.run(&["swarm", "unlock-key"]);
        assert!(told.fails(1).contains("no unlock key is set"), "{told:?}");
        let told = client.run(&["swarm", "unlock-key", "--rotate"]);
        assert!(told.fails(1).contains("cannot rotate because autolock is not turned on"));
        daemon.kill();
        daemon.spawn();
        eventually("the manager is active", Duration::from_secs(10), || state(&daemon) == "active");
        let on = client.run(&["swarm", "update", "--autolock=true"]);
        let again = key_in(on.ok());
        daemon.stop();
        daemon.spawn();
        assert_eq!(state(&daemon), "locked");
        is_unlocked(&daemon, &client, &again);
        let _ = client.run(&["swarm", "leave", "--force"]).ok();
        assert_eq!(state(&daemon), "inactive");
        let told = client.run(&["swarm", "unlock"]);
        assert!(told.fails(1).contains("This node is not part of a swarm"));
    }
}
