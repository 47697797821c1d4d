//! Images between brigd and a real dockerd, by archives.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/dockerd.rs"]
mod dockerd;
#[path = "common/image.rs"]
mod image;

use common::{Daemon, Ran, clis};
use dockerd::Dockerd;
use image::NAME;

#[test]
fn archives_go_back_and_forth_between_brigd_and_dockerd() {
    let Some(dockerd) = Dockerd::start() else { return };
    let brigd = Daemon::start();
    let cli = clis()[0];
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let Some(archive) = image::archive(folder.path()) else { return };
    let _ = brigd.must(cli, &["load", "-i", &archive.display().to_string()]);
    let id = brigd.must(cli, &["inspect", "-f", "{{.Id}}", NAME]).trim().to_owned();
    let _ = brigd.must(cli, &["tag", NAME, "other:2"]);
    let _ = brigd.must(cli, &["save", "-o", &path("ours.tar"), NAME, "other:2"]);

    let loaded = dockerd.must(&["load", "-i", &path("ours.tar")]);
    assert!(loaded.contains("Loaded image: other:2"), "{loaded}");
    for name in [NAME, "other:2"] {
        assert_eq!(dockerd.must(&["inspect", "-f", "{{.Id}}", name]).trim(), id);
    }
    // What dockerd makes of it comes back as the same image.
    let _ = dockerd.must(&["save", "-o", &path("theirs.tar"), "other:2"]);
    let _ = brigd.must(cli, &["rmi", "-f", NAME, "other:2"]);
    assert_eq!(brigd.must(cli, &["images", "-q"]).trim(), "");
    let loaded = brigd.must(cli, &["load", "-i", &path("theirs.tar")]);
    assert!(loaded.contains("Loaded image: other:2"), "{loaded}");
    assert_eq!(brigd.must(cli, &["inspect", "-f", "{{.Id}}", "other:2"]).trim(), id);
    // And once more the other way, from layers that came by dockerd.
    let _ = brigd.must(cli, &["save", "-o", &path("again.tar"), "other:2"]);
    let _ = dockerd.must(&["rmi", "-f", NAME, "other:2"]);
    let _ = dockerd.must(&["load", "-i", &path("again.tar")]);
    assert_eq!(dockerd.must(&["inspect", "-f", "{{.Id}}", "other:2"]).trim(), id);
}
