use std::path::Path;

use brig_image::snapshot::read_in_root;
use brig_types::id::ContainerId;

use crate::make::{assert_tidy, docker_archive, names, no_progress, store, tar};

fn marks() -> Vec<u8> {
    tar(&[("gone/.wh.file", b""), ("full/.wh..wh..opq", b""), ("full/new", b"n"), ("top", b"t")])
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_mount_as_one_file_system() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let base = tar(&[("gone/file", b"x"), ("gone/kept", b"k"), ("full/old", b"o"), ("top", b"b")]);
    let archive = docker_archive(&[base, marks()], "x", &["app:1"]);
    store.load(&archive[..], &no_progress).await.unwrap();
    let image = store.resolve("app:1").unwrap();
    let (container, target) = (ContainerId::generate(), root.path().join("merged"));
    std::fs::create_dir(&target).unwrap();
    let snapshots = store.snapshots();
    assert!(snapshots.mount(&container, &target, false).is_err());
    snapshots.prepare(&container, &image).unwrap();
    for volatile in [false, true, true, false] {
        snapshots.mount(&container, &target, volatile).unwrap();
        assert!(!target.join("gone/file").exists());
        assert_eq!(std::fs::read(target.join("gone/kept")).unwrap(), b"k");
        assert_eq!(names(&target.join("full")), ["new"]);
        assert_eq!(std::fs::read(target.join("top")).unwrap(), b"t");
        std::fs::write(target.join(format!("written-{volatile}")), "w").unwrap();
        std::os::unix::fs::symlink("/top", target.join("link")).ok();
        std::os::unix::fs::symlink("../../../../etc/shadow", target.join("out")).ok();
        assert_eq!(read_in_root(&target, "/link", 10).unwrap().unwrap(), b"t");
        assert_eq!(read_in_root(&target, "/out", 10).unwrap(), None);
        assert!(read_in_root(&target, "/full", 10).is_err());
        snapshots.unmount(&container, &target).unwrap();
        snapshots.unmount(&container, &target).unwrap();
    }
    assert!(snapshots.upper_dir(&container).join("written-true").exists());

    // The container keeps what it stands on when the image goes, also across a restart.
    store.remove("app:1", true, false, &|_| Vec::new()).unwrap();
    drop(store);
    let store = crate::make::store(root.path());
    let snapshots = store.snapshots();
    assert_eq!(snapshots.list(), std::slice::from_ref(&container));
    assert_eq!(snapshots.lower_size(&container), Some(6));
    snapshots.mount(&container, &target, false).unwrap();
    assert_eq!(std::fs::read(target.join("gone/kept")).unwrap(), b"k");
    snapshots.unmount(&container, &target).unwrap();
    snapshots.remove(&container).unwrap();
    snapshots.remove(&container).unwrap();
    assert!(snapshots.list().is_empty());
    drop(store);
    let _store = crate::make::store(root.path());
    assert!(names(&root.path().join("image/layers")).is_empty());
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsynced_layer_is_not_used_after_a_reboot() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let archive = docker_archive(&[tar(&[("a", b"")])], "x", &["app:1"]);
    store.load(&archive[..], &no_progress).await.unwrap();
    let (container, target) = (ContainerId::generate(), root.path().join("merged"));
    std::fs::create_dir(&target).unwrap();
    store.snapshots().prepare(&container, &store.resolve("app:1").unwrap()).unwrap();
    store.snapshots().mount(&container, &target, true).unwrap();
    store.snapshots().unmount(&container, &target).unwrap();
    drop(store);
    // As if the machine had started anew since.
    let record = root.path().join("overlay").join(container.as_str()).join("snapshot.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&record, text.replace(boot.trim(), "another-boot")).unwrap();
    let store = crate::make::store(root.path());
    let error = store.snapshots().mount(&container, &target, false).unwrap_err();
    assert!(error.to_string().contains("was not synced"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_repairs_what_a_crash_left() {
    let root = tempfile::tempdir().unwrap();
    let archive = docker_archive(&[tar(&[("a", b"1")])], "x", &["app:1"]);
    store(root.path()).load(&archive[..], &no_progress).await.unwrap();
    let image = root.path().join("image");
    let make = |path: &Path| {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
    };
    make(&image.join("tmp/0123456789abcdef/diff"));
    make(&image.join("trash/half/removed"));
    make(&image.join("layers").join("f".repeat(64)).join("diff"));
    make(&root.path().join("overlay").join("e".repeat(64)).join("upper"));
    std::fs::write(image.join("blobs/.1.tmp"), "x").unwrap();
    std::fs::write(image.join("blobs").join("d".repeat(64)), "x").unwrap();
    std::fs::write(image.join(".2.tmp"), "x").unwrap();
    let store = store(root.path());
    let kept = store.resolve("app:1").unwrap();
    assert_eq!(names(&image.join("layers")), [kept.layers[0].hex()]);
    assert_eq!(names(&image.join("blobs")), [kept.id.hex()]);
    assert!(names(&root.path().join("overlay")).is_empty());
    assert!(!image.join(".2.tmp").exists());
    assert_tidy(root.path());
    drop(store);

    // A damaged index is an error, not an empty store.
    std::fs::write(image.join("images.json"), "{").unwrap();
    let error = brig_image::ImageStore::open(root.path(), Default::default()).unwrap_err();
    assert!(error.to_string().contains("images.json is damaged"), "{error}");
    assert_eq!(names(&image.join("layers")).len(), 1);
}
