use std::io::Cursor;

use brig_image::{ImportOptions, OpenOptions};
use brig_proto::brig::ImageInUse;

use super::*;

/// An archive without members: an image with one layer.
const EMPTY: [u8; 1024] = [0; 1024];

struct Here {
    _dir: tempfile::TempDir,
    images: ImageStore,
    inventories: Inventories,
}

/// A store with the reader's place taken by another program.
fn here(program: &str) -> Here {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let images = ImageStore::open(dir.path(), OpenOptions::default()).unwrap();
    let stop = CancellationToken::new();
    let mut inventories = Inventories::open(dir.path(), images.clone(), stop).unwrap();
    Arc::get_mut(&mut inventories.0).unwrap().reader.program = program.into();
    Here { _dir: dir, images, inventories }
}

async fn import(images: &ImageStore) -> Digest {
    images.import(Cursor::new(EMPTY), ImportOptions::default(), &|_| {}).await.unwrap()
}

#[tokio::test]
async fn a_layer_whose_reader_dies_is_unreadable_and_stays_so() {
    let here = here("/bin/false");
    let id = import(&here.images).await;
    for _ in 0..2 {
        let found = here.inventories.ensure(id.as_str()).await.unwrap().unwrap();
        assert_eq!(found.packages, []);
        let [unread] = found.unread.as_slice() else { panic!("{found:?}") };
        assert!(unread.reason.contains("its layer cannot be read"), "{}", unread.reason);
        assert!(unread.reason.contains("gave no answer"), "{}", unread.reason);
    }
    assert_eq!(here.inventories.0.files.names(Kind::Layer).len(), 1);
    assert_eq!(here.inventories.0.files.names(Kind::Image), [id.hex()]);
    assert_eq!(here.inventories.layers_read(), 0);
}

#[tokio::test]
async fn what_this_machine_could_not_do_is_told_and_not_kept() {
    let here = here("/nonexistent/brigd");
    let id = import(&here.images).await;
    let found = here.inventories.ensure(id.as_str()).await.unwrap().unwrap();
    assert!(found.unread[0].reason.contains("could not be started"), "{found:?}");
    assert!(here.inventories.0.files.names(Kind::Layer).is_empty());
    assert_eq!(here.inventories.of_image(&id).await, None);
}

#[tokio::test]
async fn what_came_is_read_without_being_asked_for_and_what_went_is_forgotten() {
    let here = here("/bin/false");
    let first = import(&here.images).await;
    let keeping = tokio::spawn(here.inventories.clone().keep());
    let files = &here.inventories.0.files;
    let pause = || tokio::time::sleep(std::time::Duration::from_millis(10));
    while files.names(Kind::Image) != [first.hex()] {
        pause().await;
    }
    here.images.remove(first.as_str(), true, false, &|_| Vec::new()).unwrap();
    while !files.names(Kind::Image).is_empty() || !files.names(Kind::Layer).is_empty() {
        pause().await;
    }
    here.inventories.0.stop.cancel();
    keeping.await.unwrap();
}

#[tokio::test]
async fn nobody_knows_an_image_that_is_nowhere() {
    let here = here("/bin/false");
    assert_eq!(here.inventories.ensure("nowhere:1").await.unwrap(), None);
    let pinned = format!("nowhere@{}", Digest::from_sha256([1; 32]));
    assert_eq!(here.inventories.ensure(&pinned).await.unwrap(), None);
    assert_eq!(here.inventories.ensure("..").await.unwrap(), None);
}

/// What another node sends is found by the image's id and by the digest that it was pulled by, for as
/// long as it fits what the node announced.
#[tokio::test]
async fn another_nodes_inventory_is_found_by_its_names() {
    let here = here("/bin/false");
    let (id, digest) = (Digest::from_sha256([1; 32]), Digest::from_sha256([2; 32]));
    let image = ImageInUse {
        image: id.to_string(),
        digests: vec![digest.to_string()],
        tasks: vec!["t1".to_owned()],
    };
    let mut found = Inventory::empty();
    found.image.id = Some(id.clone());
    let bytes = brig_scan::kept::encode(&found).unwrap();
    let this = &here.inventories;
    assert!(this.sent("n1", id.as_str(), bytes.clone()).await.unwrap_err().contains("not run"));
    assert_eq!(this.announced("n1", vec![image.clone()]), [id.to_string()]);
    let other = brig_scan::kept::encode(&Inventory::empty()).unwrap();
    assert!(this.sent("n1", id.as_str(), other).await.unwrap_err().contains("another image"));
    assert!(this.sent("n1", id.as_str(), b"x".to_vec()).await.is_err());
    this.sent("n1", id.as_str(), bytes).await.unwrap();
    assert!(this.announced("n2", vec![image]).is_empty());
    for name in [id.to_string(), format!("app@{digest}"), format!("registry:5000/x:1@{digest}")] {
        assert_eq!(this.ensure(&name).await.unwrap().unwrap().image.id, Some(id.clone()), "{name}");
    }
    assert_eq!(this.image_of_task("n1", "t1"), Some(id));
    assert_eq!(this.image_of_task("n3", "t1"), None);
}
