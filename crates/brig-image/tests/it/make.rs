//! Stores and images for tests.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use brig_image::{ImageStore, OpenOptions, Progress, RegistrySettings};
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use serde_json::{Value, json};

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(brig_pki::hash::sha256(bytes))
}

pub(crate) fn settings() -> RegistrySettings {
    RegistrySettings {
        retry_pause: Duration::from_millis(5),
        certificates: Vec::new(),
        ..RegistrySettings::default()
    }
}

pub(crate) fn store(root: &Path) -> ImageStore {
    let options = OpenOptions { registry: settings(), ..OpenOptions::default() };
    ImageStore::open(root, options).unwrap()
}

pub(crate) fn no_progress(_: Progress) {}

pub(crate) fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A tar of regular files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(data.len()).unwrap());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// The configuration of an image with these layers' tars.
pub(crate) fn config(layers: &[Vec<u8>], note: &str) -> Vec<u8> {
    let diff_ids: Vec<Value> = layers.iter().map(|l| json!(digest(l).as_str())).collect();
    let history: Vec<Value> = layers
        .iter()
        .map(|_| json!({"created": "2026-01-01T00:00:00Z", "created_by": "COPY"}))
        .chain([
            json!({"created": "2026-01-02T00:00:00Z", "created_by": note, "empty_layer": true}),
        ])
        .collect();
    serde_json::to_vec(&json!({
        "architecture": std_arch(), "os": "linux", "created": "2026-01-02T00:00:00Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
    }))
    .unwrap()
}

pub(crate) fn std_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// What `docker save` writes for one image.
pub(crate) fn docker_archive(layers: &[Vec<u8>], note: &str, tags: &[&str]) -> Vec<u8> {
    let config = config(layers, note);
    let config_name = format!("{}.json", digest(&config).hex());
    let names: Vec<String> =
        layers.iter().enumerate().map(|(at, _)| format!("{at}/layer.tar")).collect();
    let manifest = serde_json::to_vec(&json!([
        {"Config": config_name, "RepoTags": tags, "Layers": names}
    ]))
    .unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![(&config_name, &config)];
    for (name, layer) in names.iter().zip(layers) {
        files.push((name, layer));
    }
    files.push(("manifest.json", &manifest));
    tar(&files)
}

/// Names below a directory of the store that are not hidden.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits for something that happens in the background.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nothing but published things is left.
pub(crate) fn assert_tidy(root: &Path) {
    eventually("tidying up", || {
        names(&root.join("image/tmp")).is_empty() && names(&root.join("image/trash")).is_empty()
    });
}
