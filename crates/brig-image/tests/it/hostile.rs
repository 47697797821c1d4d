//! One list of what hostile images try, beside what the unpacker's own tests have: each ends in a
//! clear error within its limits or is contained, and nothing is left.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use brig_image::{ImageStore, ImportOptions, Limits, OpenOptions};
use brig_types::error::chain;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::fake_registry::FakeRegistry;
use crate::make::{
    assert_tidy, config, digest, docker_archive, gzip, names, no_progress, reference, settings,
    std_arch, store, tar,
};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MIB: usize = 1 << 20;

fn limited(root: &Path, change: impl FnOnce(&mut Limits)) -> ImageStore {
    let mut limits = Limits::default();
    change(&mut limits);
    ImageStore::open(root, OpenOptions { registry: settings(), limits }).unwrap()
}

async fn import_error(store: &ImageStore, layer: &[u8]) -> String {
    chain(&store.import(layer, ImportOptions::default(), &no_progress).await.unwrap_err())
}

async fn load_error(store: &ImageStore, archive: &[u8]) -> String {
    chain(&store.load(archive, &no_progress).await.unwrap_err())
}

async fn pull_error(store: &ImageStore, name: &str) -> String {
    chain(&store.pull(&reference(name), None, None, &no_progress).await.unwrap_err())
}

fn assert_nothing_left(store: &ImageStore, root: &Path) {
    assert!(store.list().is_empty());
    for folder in ["layers", "blobs"] {
        assert!(names(&root.join("image").join(folder)).is_empty(), "{folder}");
    }
    assert_tidy(root);
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size);
    header.as_old_mut().name[..1].copy_from_slice(b"x");
    header.set_cksum();
    header
}

/// A layer of one entry after PAX records.
fn pax(records: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().copied()).unwrap();
    builder.append(&header(EntryType::Regular, data.len() as u64), data).unwrap();
    builder.into_inner().unwrap()
}

/// A gzip stream of a layer with one file of zeros.
fn zeros(length: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(header(EntryType::Regular, length as u64).as_bytes()).unwrap();
    let chunk = vec![0; MIB];
    for _ in 0..length / MIB {
        encoder.write_all(&chunk).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap()
}

/// The most memory that this process ever had, in KiB.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_stops_at_its_ratio_in_little_memory() {
    let root = tempfile::tempdir().unwrap();
    let store = limited(root.path(), |limits| limits.ratio_floor = 32 << 20);
    let bomb = zeros(512 * MIB);
    assert!(bomb.len() < MIB);
    let before = peak_memory();
    let text = import_error(&store, &bomb).await;
    assert!(text.ends_with("more than 250 unpacked bytes for each compressed byte"), "{text}");
    // The same as an archive of an image, and as an archive within a compressed one.
    let text = load_error(&store, &bomb).await;
    assert_eq!(text, "invalid archive: it has more than 250 bytes for each compressed byte");
    let nested = docker_archive(&[tar(&[("bomb.gz", &bomb)])], "x", &["nested:1"]);
    store.load(&gzip(&nested)[..], &no_progress).await.unwrap();
    // From a registry, digest and size as announced.
    let registry = FakeRegistry::start();
    registry.blob("bomb", bomb.clone());
    let raw = config(&[vec![0; 7]], "bomb");
    registry.blob("bomb", raw.clone());
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&raw).as_str(), "size": raw.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest(&bomb).as_str(), "size": bomb.len()}]});
    registry.manifest("bomb", "1", OCI_MANIFEST, serde_json::to_vec(&manifest).unwrap());
    let text = pull_error(&store, &format!("{}/bomb:1", registry.address)).await;
    assert!(text.ends_with("more than 250 unpacked bytes for each compressed byte"), "{text}");
    assert!(peak_memory() - before < 64 << 10, "{} KiB", peak_memory() - before);
    assert_eq!(store.list().len(), 1);
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_disk_holds_is_refused_before_it_is_written() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let tib = 1_u64 << 40;
    // Said by the header, by PAX records, and with holes of three kinds.
    let plain = [header(EntryType::Regular, tib).as_bytes().as_slice(), &[0; 4096]].concat();
    let size = tib.to_string();
    let mut gnu = header(EntryType::GNUSparse, 0);
    let places = gnu.as_gnu_mut().unwrap();
    places.set_real_size(tib);
    places.sparse[0].set_offset(tib);
    places.sparse[0].set_length(0);
    gnu.set_cksum();
    for layer in [
        plain,
        pax(&[("size", size.as_bytes())], b""),
        pax(&[("GNU.sparse.map", b"0,2"), ("GNU.sparse.size", size.as_bytes())], b"ab"),
        pax(
            &[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", size.as_bytes())],
            &[&b"0\n"[..], &[0; 510]].concat(),
        ),
        [gnu.as_bytes().as_slice(), &[0; 1024]].concat(),
    ] {
        let text = import_error(&store, &layer).await;
        assert!(text.ends_with("more than 274877906944 bytes of files"), "{text}");
    }
    assert_nothing_left(&store, root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_take_no_disk() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let size = (100_u64 << 30).to_string();
    let layer = pax(&[("GNU.sparse.map", b"0,2"), ("GNU.sparse.size", size.as_bytes())], b"ab");
    store.import(&layer[..], ImportOptions::default(), &no_progress).await.unwrap();
    let stat = rustix::fs::statvfs(root.path()).unwrap();
    let diff = root.path().join("image/layers").join(digest(&layer).hex()).join("diff/x");
    let file = std::fs::metadata(diff).unwrap();
    assert_eq!(file.len(), 100 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&file) < 1000, "{}", stat.f_bsize);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_without_end_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let store = limited(root.path(), |limits| limits.layer_entries = 500);
    let mut many = Vec::new();
    for _ in 0..10_000 {
        many.extend_from_slice(header(EntryType::Directory, 0).as_bytes());
    }
    let text = import_error(&store, &gzip(&many)).await;
    assert_eq!(text.rsplit(": ").next(), Some("more than 500 entries"));
    // Global headers are entries as well.
    let mut many = Vec::new();
    for _ in 0..10_000 {
        many.extend_from_slice(header(EntryType::XGlobalHeader, 0).as_bytes());
    }
    let text = import_error(&store, &gzip(&many)).await;
    assert_eq!(text.rsplit(": ").next(), Some("more than 500 entries"));
    // Headers that only announce headers.
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let many = header(kind, 0).as_bytes().repeat(10_000);
        let text = import_error(&store, &gzip(&many)).await;
        assert!(text.contains("reading the layer archive"), "{kind:?}: {text}");
    }
    assert_nothing_left(&store, root.path());
}

/// Directories with the longest paths there are, made while they are read.
struct Directories {
    left: usize,
    ready: std::io::Cursor<Vec<u8>>,
}

impl Read for Directories {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.ready.position() == self.ready.get_ref().len() as u64 && self.left > 0 {
            self.left -= 1;
            let path = format!("{}{:08}/", format!("{}/", "d".repeat(250)).repeat(16), self.left);
            let mut block = header(EntryType::GNULongName, path.len() as u64).as_bytes().to_vec();
            block.extend_from_slice(path.as_bytes());
            block.resize(block.len().next_multiple_of(512), 0);
            block.extend_from_slice(header(EntryType::Directory, 0).as_bytes());
            self.ready = std::io::Cursor::new(block);
        }
        self.ready.read(buf)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_without_end_do_not_fill_memory() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = std::fs::File::open(dir.path()).unwrap();
    let before = peak_memory();
    let directories = Directories { left: 1_000_000, ready: std::io::Cursor::default() };
    let error = brig_image::unpack::unpack_layer(
        directories,
        std::os::fd::AsFd::as_fd(&root),
        brig_image::unpack::Expected::default(),
        &Limits::default(),
    )
    .unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "layer is too large: more than 134217728 bytes of directories' names");
    assert!(peak_memory() - before < 400 << 10, "{} KiB", peak_memory() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_disk_takes_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let long = "a/".repeat(100_000);
    let text = import_error(&store, &pax(&[("path", long.as_bytes())], b"")).await;
    assert!(text.ends_with("path is too long"), "{text}");
    let wide = "w".repeat(256);
    let text = import_error(&store, &pax(&[("path", wide.as_bytes())], b"")).await;
    assert!(text.ends_with("path component is too long"), "{text}");
    let huge = "x".repeat(2 * MIB);
    let text = import_error(&store, &pax(&[("path", huge.as_bytes())], b"")).await;
    assert!(text.ends_with("entry header is too large"), "{text}");
    assert_nothing_left(&store, root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_speak_to_the_host_are_left_out() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = pax(
        &[
            ("SCHILY.xattr.trusted.overlay.metacopy", b""),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0"),
            ("SCHILY.xattr.security.ima", b"\x01"),
            ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            ("SCHILY.xattr.user.kept", b"1"),
        ],
        b"x",
    );
    store.import(&layer[..], ImportOptions::default(), &no_progress).await.unwrap();
    let file = root.path().join("image/layers").join(digest(&layer).hex()).join("diff/x");
    let mut list = [0_u8; 1024];
    let length = rustix::fs::llistxattr(file, &mut list[..]).unwrap();
    assert_eq!(&list[..length], b"user.kept\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn whiteouts_of_odd_kinds_hide_nothing_of_the_host() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh.."] {
        let text = import_error(&store, &tar(&[(name, b"")])).await;
        assert!(text.ends_with("escapes the root"), "{name}: {text}");
    }
    assert_nothing_left(&store, root.path());
    let odd = tar(&[
        (".wh..wh..opq", b""),
        (".wh..wh..opq2", b""),
        (".wh..wh.aufs", b"x"),
        (".wh.d/x", b"a folder of that name"),
        (".wh..../x", b"dots"),
        (".wh..hidden", b""),
    ]);
    store.import(&odd[..], ImportOptions::default(), &no_progress).await.unwrap();
    let diff = root.path().join("image/layers").join(digest(&odd).hex()).join("diff");
    assert_eq!(names(&diff), [".hidden", ".wh....", ".wh.d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_lie_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("a", b"1")]);
    let archive = |raw: &[u8]| {
        let manifest = br#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
        tar(&[("c", raw), ("l", &layer), ("manifest.json", manifest)])
    };
    let with = |rootfs: Value, history: Value| {
        let config = json!({"architecture": std_arch(), "os": "linux",
            "rootfs": rootfs, "history": history});
        serde_json::to_vec(&config).unwrap()
    };
    let id = digest(&layer);
    let many = vec![id.as_str(); 100_000];
    let text = load_error(&store, &archive(&with(json!({"diff_ids": many}), json!([])))).await;
    assert!(text.ends_with("the configuration has 100000 layers, the manifest 1"), "{text}");
    let other = digest(b"other");
    let raw = with(json!({"diff_ids": [other.as_str()]}), json!([]));
    let text = load_error(&store, &archive(&raw)).await;
    assert!(text.contains("does not match its diff id"), "{text}");
    // Three bytes of text that would be hundreds in memory.
    let many = [b"{\"history\":[".as_slice(), &b"{},".repeat(2_000_000), b"{}]}"];
    let raw = many.concat();
    let before = peak_memory();
    let text = load_error(&store, &archive(&raw)).await;
    assert!(text.ends_with("the configuration has more than 200000 values"), "{text}");
    assert!(peak_memory() - before < 64 << 10, "{} KiB", peak_memory() - before);
    for (field, answer) in [("history", "configuration: "), ("x", "the configuration has 0 layers")]
    {
        let (open, close) = (b"[".repeat(100_000), b"]".repeat(100_000));
        let deep = [format!("{{\"{field}\":").as_bytes(), &open, &close, b"}"].concat();
        let text = load_error(&store, &archive(&deep)).await;
        assert!(text.contains(answer), "{text}");
    }
    let large = [b"{\"x\":\"".as_slice(), &b"x".repeat(9 * MIB), b"\"}"].concat();
    let text = load_error(&store, &archive(&large)).await;
    assert!(text.ends_with("\"c\" is larger than 8388608 bytes"), "{text}");
    for wrong in
        [&b"null"[..], b"[]", b"{\"os\":\"windows\"}", b"{\"os\":\"linux\",\"os\":\"linux\"}"]
    {
        let _ = load_error(&store, &archive(wrong)).await;
    }
    assert_nothing_left(&store, root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_say_a_thing_twice_or_too_often() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("a", b"1")]);
    // A large configuration, named again and again.
    let mut raw = config(std::slice::from_ref(&layer), "x");
    raw.splice(0..1, format!("{{\"x\":\"{}\",", "x".repeat(7 * MIB)).into_bytes());
    let many = vec![json!({"Config": "c", "RepoTags": null, "Layers": ["l"]}); 1000];
    let archive =
        tar(&[("c", &raw), ("l", &layer), ("manifest.json", &serde_json::to_vec(&many).unwrap())]);
    let before = peak_memory();
    let text = load_error(&store, &archive).await;
    assert!(text.ends_with("configurations are larger than 67108864 bytes"), "{text}");
    assert!(peak_memory() - before < 256 << 10, "{} KiB", peak_memory() - before);
    let many = vec![json!({"Config": "c", "Layers": []}); 1001];
    let archive = tar(&[("manifest.json", &serde_json::to_vec(&many).unwrap())]);
    assert!(load_error(&store, &archive).await.ends_with("it has too many images"));
    let many = vec!["l"; 501];
    let manifest = serde_json::to_vec(&json!([{"Config": "c", "Layers": many}])).unwrap();
    let text = load_error(&store, &tar(&[("manifest.json", &manifest)])).await;
    assert!(text.ends_with("max depth exceeded: 501 layers"), "{text}");
    let twice = br#"[{"Config":"c","Config":"d","Layers":["l"]}]"#;
    let text = load_error(&store, &tar(&[("manifest.json", twice)])).await;
    assert!(text.contains("duplicate field"), "{text}");
    assert_nothing_left(&store, root.path());
    // The last of two files of one name is the file, as in every tar.
    let raw = config(std::slice::from_ref(&layer), "twice");
    let manifest = br#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let files: [(&str, &[u8]); 4] =
        [("c", b"not this one"), ("l", &layer), ("manifest.json", manifest), ("c", &raw)];
    store.load(&tar(&files)[..], &no_progress).await.unwrap();
    assert_eq!(store.resolve("x:1").unwrap().id, digest(&raw));
}

/// An OCI layout with these blobs.
fn layout(blobs: &BTreeMap<String, Vec<u8>>, index: &Value) -> Vec<u8> {
    let index = serde_json::to_vec(index).unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")];
    files.extend(blobs.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    files.push(("index.json", &index));
    tar(&files)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes).as_str(), "size": bytes.len(),
        "platform": {"os": "linux", "architecture": std_arch()}})
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_lead_to_lists_end() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let mut blobs = BTreeMap::new();
    let mut below = descriptor(OCI_MANIFEST, b"nothing");
    for depth in 0..20 {
        let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [below]});
        let list = serde_json::to_vec(&list).unwrap();
        below = descriptor(OCI_INDEX, &list);
        registry.manifest("deep", &depth.to_string(), OCI_INDEX, list.clone());
        blobs.insert(format!("blobs/sha256/{}", digest(&list).hex()), list);
    }
    let text = pull_error(&store, &format!("{}/deep:19", registry.address)).await;
    assert!(text.ends_with("lists lead to lists"), "{text}");
    let asked = registry.seen().iter().filter(|seen| seen.path.contains("/manifests/")).count();
    assert!(asked < 8, "{asked}");
    let archive = layout(&blobs, &json!({"schemaVersion": 2, "manifests": [below]}));
    assert!(load_error(&store, &archive).await.ends_with("lists lead to lists"));
    // A manifest that says it is a list, and the other way round.
    let both = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
        "config": descriptor("", b"c"), "layers": []});
    registry.manifest("both", "1", OCI_INDEX, serde_json::to_vec(&both).unwrap());
    let text = pull_error(&store, &format!("{}/both:1", registry.address)).await;
    assert!(text.contains("ambiguous"), "{text}");
    let old = json!({"schemaVersion": 1, "name": "old", "tag": "1", "fsLayers": [], "history": []});
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.manifest("old", "1", schema1, serde_json::to_vec(&old).unwrap());
    let text = pull_error(&store, &format!("{}/old:1", registry.address)).await;
    assert!(text.contains("schema 1) is not supported"), "{text}");
    assert_nothing_left(&store, root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_manifests_are_never_asked() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (registry, inside) = (FakeRegistry::start(), FakeRegistry::start());
    let layer = tar(&[("a", b"1")]);
    let blob = gzip(&layer);
    // Where the manifest would have it fetched from.
    let path = inside.blob("meta", blob.clone());
    let url = format!("http://{}{path}", inside.address);
    let raw = config(std::slice::from_ref(&layer), "foreign");
    registry.blob("foreign", raw.clone());
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "urls": [url],
                "digest": digest(&raw).as_str(), "size": raw.len()},
            "layers": [{"mediaType": media_type, "urls": [url],
                "digest": digest(&blob).as_str(), "size": blob.len()}]});
        registry.manifest("foreign", "1", OCI_MANIFEST, serde_json::to_vec(&manifest).unwrap());
        let text = pull_error(&store, &format!("{}/foreign:1", registry.address)).await;
        assert!(text.contains("blob unknown"), "{text}");
        assert!(inside.seen().is_empty(), "{:?}", inside.seen());
    }
    assert_nothing_left(&store, root.path());
}
