//! Whole images in every form, honest and hostile, read by the confined process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_scan::inventory::{Options, ScanError, read_path};
use brig_scan::package::{Ecosystem, Inventory};
use brig_scan::sandbox::Sandbox;
use brig_scan::sbom::{cyclonedx, spdx};
use brig_types::digest::Digest;

const STATUS: &str = "Package: libssl3\nStatus: install ok installed\nSource: openssl\nArchitecture: amd64\nVersion: 3.0.11-1\n\n";
const MANIFEST: &str = "{\"name\":\"left-pad\",\"version\":\"1.3.0\"}";

fn sandbox() -> Sandbox {
    Sandbox {
        program: PathBuf::from(env!("CARGO_BIN_EXE_brig-scan-reader")),
        time: Duration::from_secs(120),
        ..Sandbox::default()
    }
}

fn sha(bytes: &[u8]) -> Digest {
    Digest::from_sha256(brig_pki::hash::sha256(bytes))
}

struct Tar(Vec<u8>);

impl Tar {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn raw(&mut self, name: &str, kind: u8, link: &str, size: u64, content: &[u8]) {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000755");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(block);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.raw(name, b'0', "", content.len() as u64, content);
        self
    }

    fn link(mut self, name: &str, target: &str) -> Self {
        self.raw(name, b'2', target, 0, b"");
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .file("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n")
            .file("var/lib/dpkg/status", STATUS.as_bytes())
            .file(
                "app/node_modules/old/package.json",
                MANIFEST.replace("left-pad", "old").as_bytes(),
            )
            .end(),
        Tar::new()
            .file("app/node_modules/left-pad/package.json", MANIFEST.as_bytes())
            .file("app/node_modules/.wh.old", b"")
            .end(),
    ]
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| sha(layer).to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "os": "linux", "architecture": "amd64",
        "config": { "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": ids },
        "history": [
            { "created_by": "FROM base", "created": "2024-01-01T00:00:00Z" },
            { "created_by": "ENV x", "empty_layer": true },
            { "created_by": "RUN npm install" },
        ],
    }))
    .unwrap()
}

fn docker_archive(layers: &[Vec<u8>], pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let config = config(layers);
    let name = format!("{}.json", sha(&config).hex());
    let mut tar = Tar::new();
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let name = format!("{index}/layer.tar");
        tar = tar.file(&name, &pack(layer));
        names.push(name);
    }
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": ["app:1"], "Layers": names }]);
    tar.file(&name, &config).file("manifest.json", manifest.to_string().as_bytes()).end()
}

fn oci_layout(root: &Path, layers: &[Vec<u8>]) {
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = sha(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({ "digest": digest.to_string(), "size": bytes.len() })
    };
    let config = put(&config(layers));
    let layers: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| match index {
            0 => put(&gzip(layer)),
            _ => put(&zstd::encode_all(&layer[..], 1).unwrap()),
        })
        .collect();
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut image = put(manifest.to_string().as_bytes());
    image["platform"] = serde_json::json!({ "os": "linux", "architecture": "amd64" });
    let mut attestation = put(b"{\"config\":{}}");
    attestation["platform"] = serde_json::json!({ "os": "unknown", "architecture": "unknown" });
    let inner = serde_json::json!({ "manifests": [attestation, image] });
    let index = serde_json::json!({ "manifests": [put(inner.to_string().as_bytes())] });
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    fs::write(root.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn scan(bytes: &[u8]) -> Result<Inventory, String> {
    sandbox()
        .read_path(written(bytes).path(), &Options::default())
        .map_err(|error| error.to_string())
}

fn lines(inventory: &Inventory) -> Vec<String> {
    inventory
        .packages
        .iter()
        .map(|p| {
            let layer = p.layer.as_ref().and_then(|digest| inventory.layer_index(digest));
            format!("{} {} {:?}", p.name, p.version, layer)
        })
        .collect()
}

const EXPECTED: [&str; 2] = ["libssl3 3.0.11-1 Some(0)", "left-pad 1.3.0 Some(1)"];

#[test]
fn every_form_of_an_image_says_the_same() {
    let plain = docker_archive(&layers(), <[u8]>::to_vec);
    let packed_layers = docker_archive(&layers(), gzip);
    for bytes in [plain.clone(), packed_layers.clone(), gzip(&plain), gzip(&packed_layers)] {
        let inventory = scan(&bytes).unwrap();
        assert_eq!(lines(&inventory), EXPECTED);
        assert_eq!(inventory.image.names, ["app:1"]);
        assert_eq!(inventory.image.platform.as_deref(), Some("linux/amd64"));
        assert_eq!(inventory.layers[1].created_by.as_deref(), Some("RUN npm install"));
        assert_eq!(inventory.distribution.as_ref().unwrap().qualifier(), "debian-12");
        assert!(inventory.unread.is_empty(), "{:?}", inventory.unread);
    }
    let dir = tempfile::tempdir().unwrap();
    oci_layout(dir.path(), &layers());
    let inventory = sandbox().read_path(dir.path(), &Options::default()).unwrap();
    assert_eq!(lines(&inventory), EXPECTED);
    assert!(inventory.image.manifest.is_some());
}

#[test]
fn a_directory_is_read_and_its_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for folder in ["etc", "var/lib/dpkg", "app/node_modules/left-pad"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/os-release"), "ID=debian\nVERSION_ID=12\n").unwrap();
    fs::write(root.join("app/node_modules/left-pad/package.json"), MANIFEST).unwrap();
    fs::write(root.join("app/Cargo.lock"), "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n")
        .unwrap();
    // Outside of what is scanned.
    let outside = written(STATUS.as_bytes());
    std::os::unix::fs::symlink(outside.path(), root.join("var/lib/dpkg/status")).unwrap();
    let inventory = sandbox().read_path(root, &Options::default()).unwrap();
    let names: Vec<&str> = inventory.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["left-pad", "a"]);
    assert_eq!(inventory.unread.len(), 1);
    assert_eq!(inventory.unread[0].path, "var/lib/dpkg/status");
    assert!(inventory.layers.is_empty());
}

#[test]
fn bills_of_materials_are_read_back() {
    let inventory = scan(&docker_archive(&layers(), gzip)).unwrap();
    for document in [cyclonedx::write(&inventory), spdx::write(&inventory)] {
        let back = scan(&document).unwrap();
        assert_eq!(back.packages.len(), inventory.packages.len());
        assert_eq!(back.packages[0].layer, inventory.packages[0].layer);
        assert_eq!(back.packages[0].ecosystem, Ecosystem::Deb);
    }
}

#[test]
fn a_layer_that_is_not_what_its_image_says_is_refused() {
    let mut other = layers();
    let honest = config(&other);
    other[1] = Tar::new().file("x", b"y").end();
    let lying = docker_archive(&other, |layer| layer.to_vec());
    // The honest configuration over the other layers, under its own right name.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (old, new) = (text(&config(&other)), text(&honest));
    assert_eq!(old.len(), new.len());
    let at = memchr::memmem::find(&lying, old.as_bytes()).unwrap();
    let mut forged = lying;
    forged[at..at + new.len()].copy_from_slice(new.as_bytes());
    let error = scan(&forged).unwrap_err();
    assert!(error.contains("configuration has the digest"), "{error}");

    let mut bytes = docker_archive(&layers(), <[u8]>::to_vec);
    let at = memchr::memmem::find(&bytes, b"left-pad\",").unwrap();
    bytes[at] = b'L';
    let error = scan(&bytes).unwrap_err();
    assert!(error.starts_with("layer 2 has the digest sha256:"), "{error}");
}

#[test]
fn several_images_need_a_choice() {
    let layers = layers();
    let config = config(&layers);
    let name = format!("{}.json", sha(&config).hex());
    let image =
        |tag: &str| serde_json::json!({ "Config": name, "RepoTags": [tag], "Layers": ["a", "b"] });
    let manifest = serde_json::json!([image("app:1"), image("app:2")]).to_string();
    let bytes = Tar::new()
        .file(&name, &config)
        .file("a", &layers[0])
        .file("b", &layers[1])
        .file("manifest.json", manifest.as_bytes())
        .end();
    assert!(scan(&bytes).unwrap_err().contains("several images (app:1, app:2)"));
    let file = written(&bytes);
    let options = Options { image: Some("app:2".to_owned()), ..Options::default() };
    let inventory = read_path(file.path(), &options).unwrap();
    assert_eq!(inventory.image.names, ["app:2"]);
}

#[test]
fn what_is_no_image_is_told() {
    for bytes in [&b""[..], b"hello", &Tar::new().file("x", b"y").end()] {
        let error = scan(bytes).unwrap_err();
        assert!(!error.is_empty());
    }
    let missing = sandbox().read_path(Path::new("/nonexistent"), &Options::default());
    assert!(matches!(missing, Err(ScanError::Open { .. })));
    assert!(scan(b"BZh91AY&SY").unwrap_err().contains("bzip2"));
}

fn one_layer(layer: Vec<u8>) -> Result<Inventory, String> {
    scan(&docker_archive(&[layer], gzip))
}

#[test]
fn hostile_files_are_told_and_the_others_still_count() {
    let deep = format!(
        "{{\"name\":\"a\",\"version\":\"1\",\"license\":{}{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let layer = Tar::new()
        .file("var/lib/dpkg/status", STATUS.as_bytes())
        .link("etc/os-release", "../../../../../../etc/shadow")
        .file("app/node_modules/deep/package.json", deep.as_bytes())
        .file("app/node_modules/huge/package.json", &vec![b' '; 5 << 20])
        .file("app/a.jar", b"PK no archive")
        .file("var/lib/rpm/rpmdb.sqlite", b"SQLite format 3\0 and no more")
        .file("usr/bin/program", &[b"\x7fELF\x02\x01".to_vec(), vec![0xff; 2000]].concat())
        .file("../../etc/passwd", b"x")
        .end();
    let inventory = one_layer(layer).unwrap();
    assert_eq!(lines(&inventory), ["libssl3 3.0.11-1 Some(0)"]);
    let mut unread: Vec<(&str, &str)> =
        inventory.unread.iter().map(|u| (u.reader.as_str(), u.path.as_str())).collect();
    unread.sort_unstable();
    assert_eq!(
        unread,
        [
            ("distribution", "etc/os-release"),
            ("java", "app/a.jar"),
            ("node", "app/node_modules/deep/package.json"),
            ("node", "app/node_modules/huge/package.json"),
            ("program", "etc/passwd"),
            ("program", "usr/bin/program"),
            ("rpm", "var/lib/rpm/rpmdb.sqlite"),
        ]
    );
    assert_eq!(inventory.distribution, None);
}

#[test]
fn bombs_end_in_a_clear_error() {
    // A layer that is small and expands without end: bounded by ratio.
    let zeros = vec![0_u8; 64 << 20];
    let bomb = Tar::new().file("zeros", &zeros).end();
    let file = written(&docker_archive(&[bomb], gzip));
    let mut options = Options::default();
    options.limits.ratio_floor = 8 << 20;
    let error = sandbox().read_path(file.path(), &options).unwrap_err().to_string();
    assert!(error.contains("unpacked bytes for each compressed byte"), "{error}");

    // More entries than allowed.
    let mut many = Tar::new();
    for index in 0..5000 {
        many.raw(&format!("f{index}"), b'0', "", 0, b"");
    }
    let file = written(&docker_archive(&[many.end()], gzip));
    let mut options = Options::default();
    options.limits.entries = 1000;
    let error = sandbox().read_path(file.path(), &options).unwrap_err().to_string();
    assert_eq!(error, "it has more than 1000 entries");

    // A size that lies.
    let mut lying = Tar::new();
    lying.raw("var/lib/dpkg/status", b'0', "", 0o77_777_777_777, b"Package: x");
    let error = one_layer(lying.end()).unwrap_err();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn memory_and_time_are_bounded() {
    let file = written(&docker_archive(&layers(), gzip));
    let small = Sandbox { memory: 4 << 20, ..sandbox() };
    let error = small.read_path(file.path(), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("memory") || error.contains("confined"), "{error}");

    let hurried = Sandbox { time: Duration::ZERO, ..sandbox() };
    let error = hurried.read_path(file.path(), &Options::default()).unwrap_err().to_string();
    assert_eq!(error, "reading the image took too long and was ended");
}

/// Layers one by one, as whoever unpacks them hands them over, make the same as the image at once.
#[test]
fn layers_one_by_one_are_the_image() {
    use brig_scan::inventory::{Limits, of_layers};

    let layers = layers();
    let found: Vec<_> = layers
        .iter()
        .map(|layer| {
            let mut found = sandbox().read_layer(&layer[..], &Limits::default()).unwrap();
            found.diff_id = Some(sha(layer));
            let kept = brig_scan::kept::encode(&found).unwrap();
            assert!(brig_scan::kept::plain_length(&kept) > 100);
            brig_scan::kept::decode(&kept).unwrap()
        })
        .collect();
    let file = written(&docker_archive(&layers, gzip));
    let whole = sandbox().read_path(file.path(), &Options::default()).unwrap();
    let stack: Vec<_> = found.iter().collect();
    let put_together = of_layers(&config(&layers), whole.image.clone(), &stack).unwrap();
    assert_eq!(put_together, whole);
    assert!(of_layers(&config(&layers), whole.image, &stack[1..]).is_err());
}

#[test]
fn a_layer_that_cannot_be_read_says_whose_fault_it_is() {
    use brig_scan::inventory::Limits;

    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk"))
        }
    }

    let limits = Limits::default();
    let read = |sandbox: Sandbox, bytes: &[u8]| sandbox.read_layer(bytes, &limits).unwrap_err();
    let error = sandbox().read_layer(Broken, &limits).unwrap_err();
    assert!(matches!(error, ScanError::Read(_)) && error.is_of_the_moment(), "{error}");
    let missing = Sandbox { program: PathBuf::from("/nonexistent"), ..sandbox() };
    assert!(read(missing, &[0; 1024]).is_of_the_moment());
    let hurried = Sandbox { time: Duration::ZERO, ..sandbox() };
    assert!(read(hurried, &[0; 1024]).is_of_the_moment());

    // No archive, one that ends in the middle, one that says too much: always the layer's own.
    let error = read(sandbox(), &[1; 4096]);
    assert!(!error.is_of_the_moment(), "{error}");
    let cut = Tar::new().file("var/lib/dpkg/status", STATUS.as_bytes()).0;
    let error = read(sandbox(), &cut[..600]);
    assert!(!error.is_of_the_moment(), "{error}");
    let mut many = Tar::new();
    for index in 0..20_000 {
        many.raw(&format!("f{index}"), b'0', "", 0, b"");
    }
    let error = read(Sandbox { answer: 64 << 10, ..sandbox() }, &many.end());
    assert!(matches!(error, ScanError::Limit { limit: 65_536, .. }), "{error}");
    assert!(!error.is_of_the_moment());
    // A reader that ends while more is to come does not hold the source back.
    let silent = Sandbox { program: PathBuf::from("/bin/false"), ..sandbox() };
    let error = silent.read_layer(std::io::repeat(0).take(64 << 20), &limits).unwrap_err();
    assert!(!error.is_of_the_moment(), "{error}");
}
