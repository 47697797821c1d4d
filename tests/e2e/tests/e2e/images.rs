//! Images by load and import, listed, inspected, tagged, removed, by every client.

use std::time::Duration;

use brig_e2e::{Brigd, eventually, image};

#[test]
fn loaded_listed_tagged_and_removed_by_every_client() {
    let daemon = Brigd::start();
    let archive = image::busybox().display().to_string();
    for client in daemon.clients() {
        assert_eq!(client.run(&["load", "-i", &archive]).ok(), "Loaded image: busybox:latest");
        let listed = client.run(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
        let id =
            listed.ok().strip_prefix("busybox:latest ").expect("the image is listed").to_owned();
        assert_eq!(client.run(&["images", "-q"]).ok(), id);
        let _ = client.run(&["tag", "busybox", "team/app:1"]).ok();
        let tags = client.run(&["image", "inspect", "--format", "{{json .RepoTags}}", &id]);
        assert_eq!(tags.ok(), r#"["busybox:latest","team/app:1"]"#, "{}", client.name);
        assert_eq!(client.run(&["rmi", "busybox"]).ok(), "Untagged: busybox:latest");
        let removed = client.run(&["rmi", "team/app:1"]);
        assert!(
            removed.ok().starts_with("Untagged: team/app:1\nDeleted: sha256:"),
            "{}",
            removed.stdout
        );
        assert_eq!(client.run(&["images", "-q"]).ok(), "");
        let layers = daemon.data_root().join("image");
        eventually("the layer is gone from the disk", Duration::from_secs(5), || {
            !walk(&layers).iter().any(|path| path.ends_with("busybox"))
        });
    }
}

#[test]
fn a_root_file_system_is_imported() {
    let daemon = Brigd::start();
    for client in daemon.clients() {
        let rootfs = std::fs::read(image::busybox_rootfs()).unwrap();
        let imported = client.run_with(
            &[
                "import",
                "--change",
                "CMD [\"echo\",\"from cmd\"]",
                "--change",
                "ENV A=b",
                "-",
                "imp:1",
            ],
            &rootfs,
        );
        assert!(imported.ok().starts_with("sha256:"), "{}", imported.stdout);
        assert_eq!(client.run(&["run", "--rm", "--network", "none", "imp:1"]).ok(), "from cmd");
        let env = client.run(&["run", "--rm", "--network", "none", "imp:1", "sh", "-c", "echo $A"]);
        assert_eq!(env.ok(), "b");
        let history = client.run(&["history", "-q", "--no-trunc", "imp:1"]);
        assert!(history.ok().starts_with("sha256:"), "{}", history.stdout);
        let _ = client.run(&["rmi", "imp:1"]).ok();
    }
}

#[test]
fn an_oci_archive_is_loaded() {
    let daemon = Brigd::start();
    let archive = daemon.root().join("oci.tar");
    let copied = std::process::Command::new("skopeo")
        .args(["copy", "--insecure-policy"])
        .arg(format!("docker-archive:{}", image::busybox().display()))
        .arg(format!("oci-archive:{}:team/oci:7", archive.display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let brig = daemon.brig();
    assert_eq!(
        brig.run(&["load", "-i", &archive.display().to_string()]).ok(),
        "Loaded image: team/oci:7"
    );
    assert_eq!(
        brig.run(&["run", "--rm", "--network", "none", "team/oci:7", "echo", "hi"]).ok(),
        "hi"
    );
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}
