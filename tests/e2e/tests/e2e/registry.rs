//! Pull from a real registry.

use brig_e2e::registry::Registry;
use brig_e2e::{Brigd, image};

#[test]
fn pulled_by_tag_and_by_digest() {
    let daemon = Brigd::start();
    let registry = Registry::start(None);
    registry.push(&image::busybox(), "team/bb:1", None);
    let name = format!("{}/team/bb:1", registry.address);
    for client in daemon.clients() {
        let pulled = client.run(&["pull", &name]);
        assert!(
            pulled.ok().contains(&format!("Status: Downloaded newer image for {name}")),
            "{}",
            pulled.stdout
        );
        let digest = pulled
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("Digest: "))
            .unwrap()
            .to_owned();
        assert!(
            client
                .run(&["pull", &name])
                .ok()
                .contains(&format!("Status: Image is up to date for {name}"))
        );
        assert_eq!(
            client.run(&["run", "--rm", "--network", "none", &name, "echo", "pulled"]).ok(),
            "pulled"
        );
        let _ = client.run(&["rmi", &name]).ok();
        let pinned = format!("{}/team/bb@{digest}", registry.address);
        let _ = client.run(&["pull", &pinned]).ok();
        // Not there: run pulls it by itself.
        let _ = client.run(&["rmi", &pinned]).ok();
        let run = client.run(&["run", "--rm", "--network", "none", &name, "echo", "by itself"]);
        assert_eq!(run.ok(), "by itself");
        let _ = client.run(&["rmi", "-f", &name]).ok();
    }
}

#[test]
fn unknown_images_and_refused_logins_are_told() {
    let daemon = Brigd::start();
    // The password is "pw".
    let registry =
        Registry::start(Some("u:$2b$12$hmPSlwW4vvcP1z6mwpcT9.zKW5lEeZHkLvsN5xut1KyrgGKybZ2vq\n"));
    let open = Registry::start(None);
    open.push(&image::busybox(), "bb:1", None);
    for client in daemon.clients() {
        let unknown = client.run(&["pull", &format!("{}/bb:2", open.address)]);
        assert!(unknown.fails(1).contains("manifest unknown"), "{}", unknown.stderr);
        let run = client.run(&["run", "--rm", &format!("{}/nosuch:1", open.address)]);
        assert_eq!(run.code, 125, "{}", run.stderr);
        let secret = client.run(&["pull", &format!("{}/bb:1", registry.address)]);
        assert!(secret.fails(1).contains("no basic auth credentials"), "{}", secret.stderr);
    }
}

#[test]
fn a_changed_blob_is_refused() {
    let daemon = Brigd::start();
    let registry = Registry::start(None);
    registry.push(&image::busybox(), "bb:1", None);
    // The registry's own files are changed behind its back: the largest blob is the layer.
    let mut blobs = Vec::new();
    collect(&registry.data(), &mut blobs);
    let layer =
        blobs.into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let pulled = daemon.brig().run(&["pull", &format!("{}/bb:1", registry.address)]);
    assert_eq!(pulled.code, 1);
    assert!(
        pulled.stderr.contains("digest") || pulled.stderr.contains("corrupt"),
        "{}",
        pulled.stderr
    );
    assert_eq!(daemon.brig().run(&["images", "-q"]).ok(), "");
}

fn collect(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}
