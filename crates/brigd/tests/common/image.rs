//! A busybox image in an archive as `docker save` writes it, made of the host's static busybox.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";

pub const NAME: &str = "busybox:test";

/// Writes the archive into `dir`; `None`, and a word about it, without a busybox on the host.
pub fn archive(dir: &Path) -> Option<PathBuf> {
    if !Path::new(BUSYBOX).exists() {
        eprintln!("SKIPPED: there is no {BUSYBOX}; install busybox-static");
        return None;
    }
    let root = dir.join("image-root");
    for sub in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(sub)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nbob:x:1000:\n").unwrap();
    let applets = Command::new(BUSYBOX).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout).unwrap().lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
    }
    let stage = dir.join("image-stage");
    std::fs::create_dir_all(&stage).unwrap();
    tar(&root, &stage.join("layer.tar"));
    let layer = std::fs::read(stage.join("layer.tar")).unwrap();
    let diff_id = brig_pki::hash::hex(&brig_pki::hash::sha256(&layer));
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": { "made-by": "test" } },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "test" }],
    })
    .to_string();
    let name = format!("{}.json", brig_pki::hash::hex(&brig_pki::hash::sha256(config.as_bytes())));
    std::fs::write(stage.join(&name), config).unwrap();
    let manifest =
        serde_json::json!([{ "Config": name, "RepoTags": [NAME], "Layers": ["layer.tar"] }]);
    std::fs::write(stage.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("busybox.tar");
    tar(&stage, &archive);
    Some(archive)
}

fn tar(dir: &Path, to: &Path) {
    let done = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(dir)
        .arg("-cf")
        .arg(to)
        .args(std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()))
        .status()
        .unwrap();
    assert!(done.success());
}
