//! What every backend has to do, and what the store promises on top of it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod backend_contract;
mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use backend_contract::{Place, backend_contract, batch};
use brig_proto::swarm::{Cluster, ManagerStatus, Node, Secret, Service, Task};
use brig_store::{
    Backend, BackendError, Batch, Change, Index, Kind, RedbBackend, Store, StoreError, WatchError,
    Write,
};
use common::{config, sealer, secret, service, task};

struct RedbPlace(tempfile::TempDir);

impl RedbPlace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("cluster.redb")
    }
}

impl Place for RedbPlace {
    type Backend = RedbBackend;

    fn open(&self) -> RedbBackend {
        RedbBackend::open(&self.file()).unwrap()
    }
}

#[test]
fn redb_fulfils_the_contract() {
    let place = RedbPlace::new();
    backend_contract(&place);
    let mode = std::fs::metadata(place.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_file_in_use_and_a_foreign_file_are_named() {
    let place = RedbPlace::new();
    let _backend = place.open();
    let second = RedbBackend::open(&place.file());
    assert!(matches!(second, Err(BackendError::InUse(_))), "{second:?}");
    let foreign = place.0.path().join("foreign");
    std::fs::write(&foreign, vec![7; 8192]).unwrap();
    let opened = RedbBackend::open(&foreign);
    assert!(matches!(opened, Err(BackendError::Format { .. })), "{opened:?}");
}

fn open(place: &impl Place) -> Store {
    Store::open(place.open(), sealer()).unwrap()
}

#[tokio::test]
async fn objects_get_versions_times_and_indexes() {
    let place = RedbPlace::new();
    let store = open(&place);
    let web = store.update(|tx| tx.create(service("web"))).await.unwrap();
    let id = web.id.clone();
    let first = store.update(|tx| tx.create(task(&id, "n1"))).await.unwrap();
    store.update(|tx| tx.create(task(&id, ""))).await.unwrap();
    let meta = web.meta.unwrap();
    assert_eq!(meta.version.unwrap().index, 1);
    assert!(meta.created_at.is_some() && meta.created_at == meta.updated_at);

    let view = store.view();
    assert_eq!(view.revision(), 3);
    assert_eq!(view.tasks_by_service(&id).count(), 2);
    assert_eq!(view.tasks_by_node("n1").count(), 1);
    assert_eq!(view.tasks_by_node("").count(), 1);
    assert_eq!(view.indexed::<Task>(Index::Secret, "none").count(), 0);
    assert_eq!(view.by_name::<Service>("WEB").unwrap().id, id);
    assert_eq!(view.by_id_prefix::<Task>(&first.id[..24]).count(), 1);

    let mut moved = first.as_ref().clone();
    moved.node_id = "n2".into();
    let moved = store.update(|tx| tx.update(moved)).await.unwrap();
    assert_eq!(moved.meta.unwrap().version.unwrap().index, 4);
    assert_eq!(moved.meta.unwrap().created_at, first.meta.unwrap().created_at);
    assert_eq!(view.tasks_by_node("n1").count(), 1, "a view does not change");
    assert_eq!(store.view().tasks_by_node("n1").count(), 0);
    assert_eq!(store.view().tasks_by_node("n2").count(), 1);

    drop(store);
    let store = open(&place);
    assert_eq!(store.view().revision(), 4);
    assert_eq!(store.view().get::<Task>(&moved.id).unwrap(), moved);
    assert_eq!(store.view().tasks_by_service(&id).count(), 2);
}

#[tokio::test]
async fn conflicts_are_noticed_and_undone() {
    let place = RedbPlace::new();
    let store = open(&place);
    let web = store.update(|tx| tx.create(service("web"))).await.unwrap();

    let taken = store.update(|tx| tx.create(service("Web"))).await;
    assert!(matches!(taken, Err(StoreError::NameConflict { .. })), "{taken:?}");
    let twice = store.update(|tx| tx.create(web.as_ref().clone())).await;
    assert!(matches!(twice, Err(StoreError::AlreadyExists { .. })), "{twice:?}");
    for id in ["", "../x", "a/b"] {
        let odd = store.update(|tx| tx.create(config(id, "x"))).await;
        assert!(matches!(odd, Err(StoreError::InvalidId(Kind::Config))), "{id:?}");
    }

    store.update(|tx| tx.update(web.as_ref().clone())).await.unwrap();
    let stale = store.update(|tx| tx.update(web.as_ref().clone())).await;
    assert!(matches!(stale, Err(StoreError::SequenceConflict { .. })), "{stale:?}");
    assert_eq!(stale.unwrap_err().to_string(), "update out of sequence");
    let gone = store.update(|tx| tx.delete::<Service>("nope")).await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");

    // A transaction that fails half-way leaves nothing.
    let half = store.update(|tx| {
        tx.create(service("other"))?;
        tx.delete::<Service>(&web.id)?;
        tx.delete::<Service>("nope")
    });
    assert!(half.await.is_err());
    let view = store.view();
    assert!(view.by_name::<Service>("other").is_none());
    assert!(view.by_name::<Service>("web").is_some());
    assert_eq!(view.revision(), 2);

    // A name that was given back is free, in the same transaction too.
    store
        .update(|tx| {
            tx.delete::<Service>(&web.id)?;
            tx.create(service("web"))
        })
        .await
        .unwrap();
    drop((view, store));
    assert_ne!(open(&place).view().by_name::<Service>("web").unwrap().id, web.id);
}

#[tokio::test]
async fn a_panicking_transaction_leaves_the_store_usable() {
    let place = RedbPlace::new();
    let store = open(&place);
    let inner = store.clone();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let _: Result<(), StoreError> = inner
            .update(|tx| {
                tx.create(service("web"))?;
                panic!("on purpose")
            })
            .await;
    });
    assert!(tasks.join_next().await.unwrap().is_err());
    assert!(store.view().by_name::<Service>("web").is_none());
    store.update(|tx| tx.create(service("web"))).await.unwrap();
}

#[tokio::test]
async fn watchers_see_every_change_once() {
    let place = RedbPlace::new();
    let store = open(&place);
    store.update(|tx| tx.create(service("a"))).await.unwrap();
    let (seen, mut watcher) = store.view_and_watch(|view| view.revision());
    assert_eq!(seen, 1);
    assert!(watcher.try_next().unwrap().is_none());

    let created = store.update(|tx| tx.create(service("b"))).await.unwrap();
    store
        .update(|tx| {
            // Created and removed again: nobody needs to know.
            let passing = tx.create(service("passing"))?;
            tx.delete::<Service>(&passing.id)?;
            let mut next = created.as_ref().clone();
            next.pending_delete = true;
            tx.update(next)
        })
        .await
        .unwrap();
    store.update(|tx| tx.delete::<Service>(&created.id)).await.unwrap();
    // Reading changes nothing and is not announced.
    store.update(|tx| Ok::<_, StoreError>(tx.count::<Service>())).await.unwrap();

    let first = watcher.next().await.unwrap();
    assert_eq!(first.revision, 2);
    assert!(matches!(&first.changes[..], [Change::Created(object)] if object.id() == created.id));
    let second = watcher.next().await.unwrap();
    assert!(matches!(&second.changes[..], [Change::Updated { old, new }]
        if old.version() == 2 && new.version() == 3));
    let third = watcher.next().await.unwrap();
    assert!(matches!(&third.changes[..], [Change::Removed(object)] if object.version() == 3));
    assert_eq!(third.revision, store.view().revision());
    assert!(watcher.try_next().unwrap().is_none());
    drop(store);
    assert!(matches!(watcher.next().await, Err(WatchError::Closed)));
}

fn node(id: &str, manager: bool) -> Node {
    let manager_status = manager.then(ManagerStatus::default);
    Node { id: id.to_owned(), manager_status, ..Node::default() }
}

#[tokio::test]
async fn a_nodes_watcher_hears_of_its_own_affairs_only() {
    let place = RedbPlace::new();
    let store = open(&place);
    store.update(|tx| tx.create(node("a", false))).await.unwrap();
    let (seen, mut watcher) = store.view_and_watch_node("a", |view| view.revision());
    assert_eq!(seen, 1);

    let task = |node: &str| Task {
        id: format!("task-{node}"),
        node_id: node.to_owned(),
        ..Task::default()
    };
    for other in ["b", "c"] {
        store.update(|tx| tx.create(node(other, false))).await.unwrap();
        store.update(|tx| tx.create(task(other))).await.unwrap();
    }
    store.update(|tx| tx.create(service("s"))).await.unwrap();
    assert!(watcher.try_next().unwrap().is_none());

    let own = store.update(|tx| tx.create(task("a"))).await.unwrap();
    let mut moved = own.as_ref().clone();
    moved.node_id = "b".to_owned();
    store.update(|tx| tx.update(moved)).await.unwrap();
    store.update(|tx| tx.create(node("m", true))).await.unwrap();
    let changed = store.view().get::<Node>("a").unwrap().as_ref().clone();
    store.update(|tx| tx.update(changed)).await.unwrap();
    store
        .update(|tx| tx.create(Cluster { id: "x".to_owned(), ..Cluster::default() }))
        .await
        .unwrap();
    for id in [&own.id, &own.id, "m", "a", "x"] {
        let commit = watcher.next().await.unwrap();
        assert!(matches!(&commit.changes[..], [change] if change.object().id() == id), "{id}");
    }
    assert!(watcher.try_next().unwrap().is_none());
    let managers: Vec<String> = store.view().managers().map(|node| node.id.clone()).collect();
    assert_eq!(managers, ["m"]);
    drop(store);
    assert!(matches!(watcher.next().await, Err(WatchError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_share_syncs_and_keep_their_own_results() {
    let place = RedbPlace::new();
    let store = open(&place);
    let mut watcher = store.watch();
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..64 {
        let store = store.clone();
        // Every name is wanted twice.
        writers.spawn(async move {
            store.update(|tx| tx.create(service(&format!("s{}", n / 2)))).await
        });
    }
    let results = writers.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 32);
    let mut revisions: Vec<_> = results
        .iter()
        .flatten()
        .map(|service| service.meta.unwrap().version.unwrap().index)
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=32).collect::<Vec<_>>());
    for revision in 1..=32 {
        assert_eq!(watcher.next().await.unwrap().revision, revision);
    }
    drop(store);
    assert_eq!(open(&place).view().count::<Service>(), 32);
}

#[tokio::test]
async fn the_files_show_neither_names_nor_values() {
    let place = RedbPlace::new();
    let store = open(&place);
    let object = secret("launch-code-name", b"launch-code-value");
    let object = store.update(|tx| tx.create(object)).await.unwrap();
    drop(store);
    for file in [place.file(), place.file().with_extension("wal")] {
        let bytes = std::fs::read(&file).unwrap();
        let contains = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(contains(&object.id), "the search works");
        assert!(!contains("launch-code-name"), "{}", file.display());
        assert!(!contains("launch-code-value"), "{}", file.display());
    }
}

#[tokio::test]
async fn another_key_or_a_moved_value_is_refused() {
    let place = RedbPlace::new();
    let store = open(&place);
    let a = store.update(|tx| tx.create(secret("a", b"1"))).await.unwrap();
    let b = store.update(|tx| tx.create(secret("b", b"2"))).await.unwrap();
    drop(store);
    let wrong_key = Store::open(place.open(), std::sync::Arc::new(common::TestSealer(2)));
    assert!(matches!(wrong_key, Err(StoreError::Damaged { .. })));

    // Somebody with the file copies one secret's value over another's.
    let backend = place.open();
    let value = backend.load().unwrap().records.into_iter().find(|r| r.id == a.id).unwrap().value;
    let swap =
        Write { kind: Kind::Secret, id: b.id.clone(), expected: Some(2), value: Some(value) };
    backend.commit(3, &[batch(vec![swap], vec![])]).unwrap();
    let moved = Store::open(backend, sealer());
    assert!(matches!(moved, Err(StoreError::Damaged { ref id, .. }) if *id == b.id));
}

/// A tmpfs of a few megabytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "brig-store-test"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "mounting a tmpfs needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_cleanly_and_recovers() {
    let disk = SmallDisk::mount("12m");
    let backend = RedbBackend::open(&disk.path().join("s.redb")).unwrap();
    let store = Store::open(backend, sealer()).unwrap();
    let kept = store.update(|tx| tx.create(secret("kept", b"x"))).await.unwrap();
    let filler = disk.path().join("filler");
    let mut size = 0;
    let refused = loop {
        size += 1 << 20;
        std::fs::write(&filler, vec![1; size.min(6 << 20)]).unwrap();
        let big = secret(&format!("s{size}"), &vec![2; 300_000]);
        if let Err(error) = store.update(|tx| tx.create(big)).await {
            break error;
        }
        assert!(size < 64 << 20, "the disk never gets full");
    };
    let text = brig_types::error::chain(&refused);
    assert!(text.contains("no space left"), "{text}");
    let count = store.view().count::<Secret>();
    assert!(store.view().get::<Secret>(&kept.id).is_some());
    std::fs::remove_file(&filler).unwrap();
    store.update(|tx| tx.create(secret("after", b"y"))).await.unwrap();
    assert_eq!(store.view().count::<Secret>(), count + 1);
    drop(store);
    let backend = RedbBackend::open(&disk.path().join("s.redb")).unwrap();
    assert_eq!(Store::open(backend, sealer()).unwrap().view().count::<Secret>(), count + 1);
}

struct FailsAfter<B> {
    inner: B,
    left: std::sync::atomic::AtomicU32,
}

impl<B: Backend> Backend for FailsAfter<B> {
    fn load(&self) -> Result<brig_store::Loaded, BackendError> {
        self.inner.load()
    }

    fn commit(&self, first: u64, group: &[Batch]) -> Result<(), BackendError> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_err() {
            return Err(BackendError::Fatal("the disk is gone".into()));
        }
        self.inner.commit(first, group)
    }

    fn close(&self) {
        self.inner.close();
    }
}

#[tokio::test]
async fn a_closed_store_lets_go_of_its_file_whoever_still_has_a_clone() {
    let place = RedbPlace::new();
    let store = Store::open(place.open(), sealer()).unwrap();
    let clone = store.clone();
    store.update(|tx| tx.create(service("a"))).await.unwrap();
    store.close();
    let late = clone.update(|tx| tx.create(service("b"))).await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    assert_eq!(clone.view().count::<Service>(), 1, "reading goes on");
    let again = Store::open(place.open(), sealer()).unwrap();
    assert_eq!(again.view().count::<Service>(), 1);
    drop((clone, store));
    again.update(|tx| tx.create(service("b"))).await.unwrap();
}

#[tokio::test]
async fn a_failed_file_is_not_written_again() {
    let place = RedbPlace::new();
    let backend = FailsAfter { inner: place.open(), left: 1.into() };
    let store = Store::open(backend, sealer()).unwrap();
    let mut watcher = store.watch();
    store.update(|tx| tx.create(service("a"))).await.unwrap();
    let first = store.update(|tx| tx.create(service("b"))).await;
    assert!(matches!(first, Err(StoreError::Commit(_))), "{first:?}");
    let second = store.update(|tx| tx.create(service("c"))).await;
    assert!(matches!(second, Err(StoreError::Failed(_))), "{second:?}");
    assert_eq!(store.view().count::<Service>(), 1, "reading goes on");
    assert_eq!(watcher.next().await.unwrap().revision, 1);
    assert!(watcher.try_next().unwrap().is_none());
}

/// A backend whose commits wait until they are let go, and then have no quorum.
struct Held<B> {
    inner: B,
    gate: std::sync::Arc<std::sync::Mutex<()>>,
    fails: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl<B: Backend> Backend for Held<B> {
    fn load(&self) -> Result<brig_store::Loaded, BackendError> {
        self.inner.load()
    }

    fn commit(&self, first: u64, group: &[Batch]) -> Result<(), BackendError> {
        drop(self.gate.lock().unwrap());
        if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(BackendError::Unavailable("the others are gone".to_owned()));
        }
        self.inner.commit(first, group)
    }

    fn close(&self) {
        self.inner.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_does_not_rest_on_what_never_became_durable() {
    for fails in [true, false] {
        let place = RedbPlace::new();
        let gate = std::sync::Arc::<std::sync::Mutex<()>>::default();
        let held = Held {
            inner: place.open(),
            gate: std::sync::Arc::clone(&gate),
            fails: std::sync::Arc::new(fails.into()),
        };
        let store = Store::open(held, sealer()).unwrap();
        let (mut first, mut second) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
        {
            let _held = gate.lock().unwrap();
            let create = |store: Store| async move {
                store.update(|tx| tx.create(service("web")).map(drop)).await
            };
            first.spawn(create(store.clone()));
            // Until it is on its way.
            tokio::task::block_in_place(|| {
                std::thread::sleep(std::time::Duration::from_millis(50))
            });
            second.spawn(create(store.clone()));
            tokio::task::block_in_place(|| {
                std::thread::sleep(std::time::Duration::from_millis(50))
            });
            assert!(second.try_join_next().is_none(), "it answered before it could know");
        }
        let first = first.join_next().await.unwrap().unwrap();
        let second = second.join_next().await.unwrap().unwrap();
        if fails {
            for refused in [first, second] {
                assert!(matches!(refused, Err(StoreError::NoQuorum(_))), "{refused:?}");
            }
        } else {
            first.unwrap();
            assert!(matches!(second, Err(StoreError::NameConflict { .. })), "{second:?}");
        }
    }
}
