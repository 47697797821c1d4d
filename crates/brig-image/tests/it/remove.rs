use brig_image::{ContainerUse, Deleted, ImageStore};
use brig_types::digest::Digest;

use crate::make::{assert_tidy, docker_archive, names, no_progress, reference, store, tar};

fn nobody(_: &Digest) -> Vec<ContainerUse> {
    Vec::new()
}

fn lines(deleted: &[Deleted]) -> Vec<String> {
    deleted
        .iter()
        .map(|line| match line {
            Deleted::Untagged(name) => format!("Untagged {}", name.familiar()),
            Deleted::Deleted(id) => format!("Deleted {id}"),
        })
        .collect()
}

async fn with(store: &ImageStore, note: &str, layers: &[Vec<u8>], tags: &[&str]) -> Digest {
    let archive = docker_archive(layers, note, tags);
    store.load(&archive[..], &no_progress).await.unwrap()[0].id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_name_takes_image_and_own_layers_along() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (base, top) = (tar(&[("base", b"1")]), tar(&[("top", b"2")]));
    let small = with(&store, "small", std::slice::from_ref(&base), &["small:1"]).await;
    let big = with(&store, "big", &[base, top], &["big:1", "big:2"]).await;
    let image = store.resolve("big:1").unwrap();
    assert_eq!(store.shared_size(&image), 1);

    assert_eq!(lines(&store.remove("big:1", false, false, &nobody).unwrap()), ["Untagged big:1"]);
    let deleted = store.remove("big:2", false, false, &nobody).unwrap();
    let chain = brig_image::store::remove::chain_ids(&image.layers);
    assert_eq!(
        lines(&deleted),
        ["Untagged big:2".to_owned(), format!("Deleted {big}"), format!("Deleted {}", chain[1])]
    );
    assert_eq!(names(&root.path().join("image/layers")), [image.layers[0].hex()]);
    assert_eq!(names(&root.path().join("image/blobs")), [small.hex()]);
    assert_tidy(root.path());
    assert_eq!(
        store.remove("big:2", false, false, &nobody).unwrap_err().to_string(),
        "No such image: big:2"
    );

    drop(store);
    let store = crate::make::store(root.path());
    assert_eq!(store.list().len(), 1);
    let deleted = store.remove(small.short(), false, false, &nobody).unwrap();
    assert_eq!(lines(&deleted)[..2], ["Untagged small:1".to_owned(), format!("Deleted {small}")]);
    assert!(names(&root.path().join("image/layers")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_speak_docker() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let id = with(&store, "x", &[tar(&[("a", b"")])], &["busybox:latest"]).await;
    let container = "0123456789abcdef".repeat(4);
    let used = |running: bool| {
        let container = container.clone();
        move |_: &Digest| vec![ContainerUse { id: container.clone(), running }]
    };
    let refused = |name: &str, force: bool, running: bool| {
        store.remove(name, force, false, &used(running)).unwrap_err().to_string()
    };
    let (id12, image12) = ("0123456789ab", id.short());
    assert_eq!(
        refused("busybox", false, false),
        format!(
            "conflict: unable to remove repository reference \"busybox\" (must force) - container \
             {id12} is using its referenced image {image12}"
        )
    );
    assert_eq!(
        refused(image12, false, false),
        format!(
            "conflict: unable to delete {image12} (must be forced) - image is being used by stopped \
             container {id12}"
        )
    );
    assert_eq!(
        refused(image12, true, true),
        format!(
            "conflict: unable to delete {image12} (cannot be forced) - image is being used by \
             running container {id12}"
        )
    );
    store.tag("busybox", &reference("other/repo:1")).unwrap();
    assert_eq!(
        refused(image12, false, false),
        format!(
            "conflict: unable to delete {image12} (must be forced) - image is being used by stopped \
             container {id12}"
        )
        .replace("image is being used by stopped container 0123456789ab", "image is referenced in multiple repositories")
    );
    // Untagging one of two names harms nobody.
    let line = lines(&store.remove("other/repo:1", false, false, &used(true)).unwrap());
    assert_eq!(line, ["Untagged other/repo:1"]);
    // Forced, with a running container: the name goes, the image stays.
    let line = lines(&store.remove("busybox", true, false, &used(true)).unwrap());
    assert_eq!(line, ["Untagged busybox:latest"]);
    assert!(store.resolve(image12).unwrap().tags.is_empty());
    let line = lines(&store.remove(image12, true, false, &used(false)).unwrap());
    assert_eq!(line[0], format!("Deleted {id}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_prefixes_lead_to_images() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let mut ids = Vec::new();
    // Enough images for two ids to begin with the same digit.
    for at in 0..17 {
        let note = format!("image {at}");
        ids.push(with(&store, &note, &[tar(&[("a", b"")])], &[&format!("n:{at}")]).await);
    }
    let first = &ids[0];
    for name in [first.as_str(), first.hex(), first.short(), "n:0", "docker.io/library/n:0"] {
        assert_eq!(store.resolve(name).unwrap().id, *first, "{name}");
    }
    let prefix = format!("sha256:{}", first.short());
    assert_eq!(store.resolve(&prefix).unwrap().id, *first);
    let shared = ids
        .iter()
        .map(|id| &id.hex()[..1])
        .find(|digit| ids.iter().filter(|id| id.hex().starts_with(*digit)).count() > 1)
        .unwrap();
    assert_eq!(
        store.resolve(shared).unwrap_err().to_string(),
        format!("No such image: {shared}:latest")
    );
    assert_eq!(store.resolve("nope").unwrap_err().to_string(), "No such image: nope:latest");
    assert!(store.resolve("Bad Name").unwrap_err().to_string().contains("invalid reference"));
    // A name that looks like a prefix of another image's id wins.
    store.tag("n:1", &reference(&format!("{}:latest", first.short()))).unwrap();
    assert_eq!(store.resolve(first.short()).unwrap().id, ids[1]);
}
