use std::sync::{Arc, Mutex};

use brig_image::{ImageStore, ImportOptions, Limits, OpenOptions, Progress};
use brig_types::error::chain;
use serde_json::json;

use crate::make::{
    assert_tidy, config, digest, docker_archive, gzip, names, no_progress, noise, reference,
    settings, store, tar,
};

async fn load_error(store: &ImageStore, archive: &[u8]) -> String {
    chain(&store.load(archive, &no_progress).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_images_come_back_however_compressed() {
    let layers = [tar(&[("a", b"1")]), tar(&[("b", b"2")])];
    let plain = docker_archive(&layers, "x", &["app:1", "other/app:2"]);
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    for archive in [plain.clone(), gzip(&plain), zstd] {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let loaded = store.load(&archive[..], &no_progress).await.unwrap();
        let names: Vec<String> =
            loaded.iter().map(|l| l.reference.as_ref().unwrap().familiar()).collect();
        assert_eq!(names, ["app:1", "other/app:2"]);
        let image = store.resolve("app:1").unwrap();
        assert_eq!(image.id, digest(&config(&layers, "x")));
        assert_eq!(store.resolve("other/app:2").unwrap().id, image.id);
        let dirs = store.snapshots().mounted_layers(&image);
        assert_eq!(std::fs::read(dirs[0].join("b")).unwrap(), b"2");
        assert_tidy(root.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_to_the_loaded_image() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let first = docker_archive(&[tar(&[("a", b"1")])], "first", &["app:1"]);
    let second = docker_archive(&[tar(&[("a", b"2")])], "second", &["app:1"]);
    let old = store.load(&first[..], &no_progress).await.unwrap()[0].id.clone();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let sink = move |step: Progress| seen.lock().unwrap().push(step);
    let new = store.load(&second[..], &sink).await.unwrap()[0].id.clone();
    assert_eq!(store.resolve("app:1").unwrap().id, new);
    assert!(store.resolve(old.short()).unwrap().tags.is_empty());
    let renamed = Progress::Renamed { reference: reference("app:1"), old };
    assert!(steps.lock().unwrap().contains(&renamed));
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_layouts_load_by_digest() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("hello", b"oci")]);
    let blob = gzip(&layer);
    let raw = config(std::slice::from_ref(&layer), "oci");
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&raw).as_str(), "size": raw.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest(&blob).as_str(), "size": blob.len()}],
    }))
    .unwrap();
    let archive = |layer: &[u8], name: &str| {
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json",
             "digest": digest(&manifest).as_str(), "size": manifest.len(),
             "annotations": {"org.opencontainers.image.ref.name": name}}
        ]}))
        .unwrap();
        let path = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).hex());
        tar(&[
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            (&path(&blob), layer),
            (&path(&raw), &raw),
            (&path(&manifest), &manifest),
            ("index.json", &index),
        ])
    };
    let mut broken = blob.clone();
    *broken.last_mut().unwrap() ^= 1;
    let text = load_error(&store, &archive(&broken, "app:oci")).await;
    assert!(text.contains("failed to register layer"), "{text}");
    assert!(store.list().is_empty());
    let loaded = store.load(&archive(&blob, "app:oci")[..], &no_progress).await.unwrap();
    assert_eq!(loaded[0].reference, Some(reference("app:oci")));
    // Only a tag: no repository, no name.
    let loaded = store.load(&archive(&blob, "latest")[..], &no_progress).await.unwrap();
    assert_eq!((loaded[0].reference.clone(), &loaded[0].id), (None, &digest(&raw)));
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_archives_lead_nowhere_else() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("a", b"1")]);
    let raw = config(&[layer.clone(), layer.clone()], "links");
    let build = |target: &str| {
        let manifest = serde_json::to_vec(&json!([
            {"Config": "c.json", "RepoTags": ["l:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}
        ]))
        .unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            header.set_size(u64::try_from(data.len()).unwrap());
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            builder.append(&header, data).unwrap();
        };
        add("c.json", tar::EntryType::Regular, "", &raw);
        add("manifest.json", tar::EntryType::Regular, "", &manifest);
        add("1/layer.tar", tar::EntryType::Regular, "", &layer);
        add("2/layer.tar", tar::EntryType::Symlink, target, b"");
        builder.into_inner().unwrap()
    };
    assert_eq!(
        load_error(&store, &build("../../../../etc/passwd")).await,
        "invalid archive: layer entry \"2/../../../../etc/passwd\" escapes the root"
    );
    assert!(load_error(&store, &build("/etc/passwd")).await.contains("is missing"));
    assert!(load_error(&store, &build("layer.tar")).await.contains("loop of links"));
    assert!(store.list().is_empty());
    store.load(&build("../1/layer.tar")[..], &no_progress).await.unwrap();
    assert_eq!(store.resolve("l:1").unwrap().layers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_archives_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("a", &noise(1, 50_000))]);
    let good = docker_archive(std::slice::from_ref(&layer), "x", &["app:1"]);
    let compressed = gzip(&good);

    assert!(load_error(&store, b"").await.contains("neither manifest.json nor index.json"));
    assert!(load_error(&store, &noise(3, 4096)).await.contains("not a tar"));
    assert!(load_error(&store, &tar(&[("x", b"")])).await.contains("import"));
    assert!(load_error(&store, &compressed[..30_000]).await.starts_with("reading the archive"));
    assert!(load_error(&store, &good[..30_000]).await.contains("invalid archive"));
    let other = tar(&[("a", b"other")]);
    let swapped = {
        let raw = config(std::slice::from_ref(&layer), "x");
        let manifest = br#"[{"Config":"c","RepoTags":["app:1"],"Layers":["l"]}]"#;
        tar(&[("c", &raw), ("l", &other), ("manifest.json", manifest)])
    };
    assert!(load_error(&store, &swapped).await.contains("does not match its diff id"));
    let escaping = {
        let mut evil = tar(&[("aaaaaaa", b"x")]);
        evil[..7].copy_from_slice(b"../evil");
        // Checksum: the header is all that matters here.
        let sum: u32 = evil[..148].iter().chain(&evil[156..512]).map(|b| u32::from(*b)).sum();
        evil[148..156].copy_from_slice(format!("{:06o}\0 ", sum + 8 * 32).as_bytes());
        docker_archive(&[evil], "evil", &["evil:1"])
    };
    let text = load_error(&store, &escaping).await;
    assert!(text.ends_with("layer entry \"../evil\" escapes the root"), "{text}");
    let bad_tag = docker_archive(std::slice::from_ref(&layer), "x", &["Not/A Tag:1"]);
    assert!(load_error(&store, &bad_tag).await.contains("invalid reference format"));
    let two_for_one = {
        let raw = config(std::slice::from_ref(&layer), "x");
        let manifest = br#"[{"Config":"c","RepoTags":null,"Layers":["l","l"]}]"#;
        tar(&[("c", &raw), ("l", &layer), ("manifest.json", manifest)])
    };
    assert!(load_error(&store, &two_for_one).await.contains("the manifest 2"));

    assert!(store.list().is_empty());
    assert!(names(&root.path().join("image/layers")).is_empty());
    assert_tidy(root.path());
    // And it still works.
    store.load(&compressed[..], &no_progress).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_a_bound() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { archive: 100_000, ..Limits::default() };
    let options = OpenOptions { registry: settings(), limits };
    let store = ImageStore::open(root.path(), options).unwrap();
    let bomb = gzip(&docker_archive(&[tar(&[("z", &vec![0; 1 << 20])])], "x", &["z:1"]));
    assert_eq!(load_error(&store, &bomb).await, "invalid archive: it is larger than 100000 bytes");
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_becomes_an_image() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("etc/os-release", b"ID=test")]);
    let options = ImportOptions {
        reference: Some(reference("imp:1")),
        message: Some("from a tar".to_owned()),
        changes: vec!["CMD [\"/init\"]".to_owned(), "ENV A=b".to_owned()],
        platform: None,
    };
    let id = store.import(&gzip(&layer)[..], options, &no_progress).await.unwrap();
    let image = store.resolve("imp:1").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.layers, [digest(&layer)]);
    assert_eq!(image.config.config.env, ["A=b"]);
    assert_eq!(image.config.comment, "from a tar");
    assert_eq!(digest(&image.raw), id);
    assert_eq!(store.history(&image)[0].size, 7);

    let bad = ImportOptions { changes: vec!["RUN x".to_owned()], ..ImportOptions::default() };
    assert!(store.import(&layer[..], bad, &no_progress).await.is_err());
    let broken = store.import(&noise(5, 3000)[..], ImportOptions::default(), &no_progress).await;
    assert!(chain(&broken.unwrap_err()).contains("reading the layer archive"));
    assert_eq!(store.list().len(), 1);
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_left_clean() {
    let mount = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "brig-image-test"])
        .arg(mount.path())
        .status()
        .unwrap();
    assert!(status.success());
    let store = store(mount.path());
    let small = docker_archive(&[tar(&[("ok", b"fits")])], "s", &["small:1"]);
    store.load(&small[..], &no_progress).await.unwrap();
    let used = || {
        let stat = rustix::fs::statvfs(mount.path()).unwrap();
        stat.f_blocks - stat.f_bfree
    };
    let before = used();
    // The archive itself does not fit; compressed it is small, and neither does the layer.
    let big = docker_archive(&[tar(&[("big", &vec![7; 8 << 20])])], "b", &["big:1"]);
    let text = load_error(&store, &gzip(&big)).await;
    assert!(text.ends_with("no space left on device"), "{text}");
    let layer = gzip(&tar(&[("x/big", &vec![7; 8 << 20])]));
    let text =
        chain(&store.import(&layer[..], ImportOptions::default(), &no_progress).await.unwrap_err());
    assert!(text.ends_with("creating \"x/big\": no space left on device"), "{text}");
    assert_tidy(mount.path());
    assert!(used() <= before + 4, "blocks are still taken");
    assert_eq!(store.list().len(), 1);
    drop(store);
    crate::make::eventually("unmounting", || {
        std::process::Command::new("umount").arg(mount.path()).status().unwrap().success()
    });
}

#[tokio::test]
async fn only_the_platform_that_was_asked_for_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let archive = docker_archive(&[tar(&[("a", b"1")])], "x", &["x:1"]);
    let wanted = brig_image::Platform::parse("linux/s390x").unwrap();
    let error = store.load_for(&archive[..], Some(wanted), &no_progress).await.unwrap_err();
    assert!(error.to_string().contains("does not match the specified platform"), "{error}");
    assert!(store.list().is_empty());
    let host = brig_image::Platform::host();
    let loaded = store.load_for(&archive[..], Some(host), &no_progress).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_tidy(root.path());
}

#[tokio::test]
async fn saved_images_are_byte_for_byte_the_same_after_a_round_trip() {
    let layers = [tar(&[("a", b"1"), ("a", b"again"), ("d/b", b"2")]), tar(&[("c", b"3")])];
    let archive = docker_archive(&layers, "x", &["x:1", "y:2"]);
    let saved = |store: &brig_image::ImageStore, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut bytes = Vec::new();
        store.save(&names).unwrap().write(&mut bytes).unwrap();
        bytes
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = store(one.path());
    first.load(&archive[..], &no_progress).await.unwrap();
    let bytes = saved(&first, &["x:1", "y:2"]);
    let second = store(two.path());
    second.load(&bytes[..], &no_progress).await.unwrap();
    assert_eq!(saved(&second, &["y:2", "x:1"]), bytes);
    let image = second.resolve("x:1").unwrap();
    assert_eq!(image.layers, layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>());
    // A file of a layer that was changed on disk is noticed, not passed on.
    let dir = two.path().join("image/layers").join(image.layers[1].hex());
    std::fs::write(dir.join("diff/c"), "x").unwrap();
    let error = second.save(&["x:1".to_owned()]).unwrap().write(Vec::new()).unwrap_err();
    assert!(error.to_string().contains("was changed on disk"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_found_wherever_they_are_in_the_archive() {
    let layers = [tar(&[("a", &noise(7, 300_000))]), tar(&[("b", b"2")])];
    let (base, both) = (config(&layers[..1], "base"), config(&layers, "both"));
    // Two images with one file between them.
    let manifest = br#"[{"Config":"base","RepoTags":["base:1"],"Layers":["0.tar"]},
        {"Config":"both","RepoTags":["both:1"],"Layers":["0.tar","1.tar.gz"]}]"#;
    let second = gzip(&layers[1]);
    let mut files: Vec<(&str, &[u8])> = vec![
        ("0.tar", &layers[0]),
        ("1.tar.gz", &second),
        ("base", &base),
        ("both", &both),
        ("manifest.json", manifest),
    ];
    for _ in 0..files.len() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        for _ in 0..2 {
            let loaded = store.load(&tar(&files)[..], &no_progress).await.unwrap();
            assert_eq!(loaded.len(), 2);
        }
        let image = store.resolve("both:1").unwrap();
        let dirs = store.snapshots().mounted_layers(&image);
        assert_eq!(std::fs::read(dirs[0].join("b")).unwrap(), b"2");
        assert_eq!(std::fs::read(dirs[1].join("a")).unwrap(), noise(7, 300_000));
        assert_eq!(store.resolve("base:1").unwrap().layers.len(), 1);
        assert_tidy(root.path());
        files.rotate_left(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_layer_does_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let layer = tar(&[("a", b"1")]);
    let raw = config(std::slice::from_ref(&layer), "x");
    let evil = tar(&[(".wh...", b"out")]);
    let mut short = gzip(&noise(9, 200_000));
    short.truncate(100_000);
    let archive = |manifest: &[u8]| {
        tar(&[
            ("nobody/asks", &evil),
            ("notes.gz", &gzip(b"not a tar")),
            ("short.gz", &short),
            ("c", &raw),
            ("l", &layer),
            ("unused.tar", &tar(&[("u", b"u")])),
            ("manifest.json", manifest),
        ])
    };
    let manifest = |config: &str, layer: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":["app:1"],"Layers":["{layer}"]}}]"#)
            .into_bytes()
    };
    let text = load_error(&store, &archive(&manifest("c", "nobody/asks"))).await;
    assert!(text.ends_with("layer entry \".wh...\" escapes the root"), "{text}");
    let text = load_error(&store, &archive(&manifest("c", "short.gz"))).await;
    assert!(text.contains("reading the layer archive"), "{text}");
    let text = load_error(&store, &archive(&manifest("c", "unused.tar"))).await;
    assert!(text.contains("does not match its diff id"), "{text}");
    let text = load_error(&store, &archive(&manifest("l", "l"))).await;
    assert!(text.contains("\"l\" is no description of an image"), "{text}");
    assert!(names(&root.path().join("image/layers")).is_empty());
    assert_tidy(root.path());
    store.load(&archive(&manifest("c", "l"))[..], &no_progress).await.unwrap();
    assert_eq!(names(&root.path().join("image/layers")).len(), 1);
    assert_tidy(root.path());
}
