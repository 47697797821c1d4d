//! Images of several layers with files that the tests choose.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use brig_pki::hash::{hex, sha256};

/// An image in the making: uncompressed layers, the bottom first.
#[derive(Debug)]
pub struct Layered {
    folder: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Layered {
    /// On the busybox that the other tests run, so that containers of it start.
    ///
    /// # Panics
    /// When it cannot be packed.
    #[must_use]
    pub fn on_busybox() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("brig-layers-")
            .tempdir_in("/var/tmp")
            .expect("a folder for layers");
        Self { folder, layers: vec![crate::image::busybox_rootfs()] }
    }

    /// One more layer with these files.
    ///
    /// # Panics
    /// When it cannot be packed.
    #[must_use]
    pub fn layer(mut self, files: &[(&str, &[u8])]) -> Self {
        let number = self.layers.len();
        let root = self.folder.path().join(format!("root{number}"));
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a file lies in a folder"))
                .and_then(|()| fs::write(&path, content))
                .expect("a layer's file");
        }
        let layer = self.folder.path().join(format!("layer{number}.tar"));
        tar(&root, &layer);
        self.layers.push(layer);
        self
    }

    /// The digests of its layers, the bottom first.
    ///
    /// # Panics
    /// When a layer cannot be read.
    #[must_use]
    pub fn diff_ids(&self) -> Vec<String> {
        let digest =
            |path: &PathBuf| format!("sha256:{}", hex(&sha256(&fs::read(path).expect("a layer"))));
        self.layers.iter().map(digest).collect()
    }

    /// A docker archive of it.
    ///
    /// # Panics
    /// When it cannot be packed.
    #[must_use]
    pub fn archive(&self, name: &str) -> PathBuf {
        let stage = self.folder.path().join("stage");
        fs::create_dir_all(&stage).expect("a folder for the archive");
        let mut members = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let member = format!("layer{number}.tar");
            fs::copy(layer, stage.join(&member)).expect("a layer can be copied");
            members.push(member);
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let step = |number| serde_json::json!({ "created_by": format!("step {number}") });
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": { "Cmd": ["sleep", "600"], "Env": ["PATH=/bin"] },
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids() },
            "history": (0..members.len()).map(step).collect::<Vec<_>>(),
        })
        .to_string();
        let config_name = format!("{}.json", hex(&sha256(config.as_bytes())));
        let manifest =
            serde_json::json!([{ "Config": config_name, "RepoTags": [name], "Layers": members }]);
        fs::write(stage.join(&config_name), config)
            .and_then(|()| fs::write(stage.join("manifest.json"), manifest.to_string()))
            .expect("the archive's manifest");
        let file = format!("{}.tar", name.replace(['/', ':'], "-"));
        let archive = self.folder.path().join(file);
        tar(&stage, &archive);
        fs::remove_dir_all(&stage).expect("the folder can be removed");
        archive
    }
}

fn tar(folder: &Path, archive: &Path) {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-cf"])
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .arg(".")
        .status()
        .expect("tar is installed");
    assert!(status.success(), "packing {}", folder.display());
}
