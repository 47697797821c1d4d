//! The replicated backend against a real etcd: the contract of every backend, several writers,
//! interruptions, and the way from the file into it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod backend_contract;
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backend_contract::{Place, backend_contract};
use brig_proto::swarm::{Config, Service};
use brig_store::etcd::{EtcdBackend, EtcdClient, Limits, Live};
use brig_store::{Backend, Change, RedbBackend, Store, StoreError, StoreObject as _};
use common::etcd::Etcd;
use common::{config, sealer, service};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

struct EtcdPlace {
    etcd: Etcd,
    runtime: tokio::runtime::Runtime,
}

fn backend(etcd: &Etcd, runtime: &Handle) -> EtcdBackend {
    let _inside = runtime.enter();
    EtcdBackend::new(etcd.client(), "c", Limits::DEFAULT, runtime.clone())
}

impl Place for EtcdPlace {
    type Backend = EtcdBackend;

    fn open(&self) -> EtcdBackend {
        backend(&self.etcd, self.runtime.handle())
    }
}

#[test]
fn etcd_fulfils_the_contract() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    backend_contract(&EtcdPlace { etcd: Etcd::start(), runtime });
}

async fn open(etcd: &Etcd) -> Store {
    let backend = backend(etcd, &Handle::current());
    tokio::task::spawn_blocking(move || Store::open(backend, sealer()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_writers_lose_nothing_and_see_the_same_row() {
    let etcd = Etcd::start();
    let stores = [open(&etcd).await, open(&etcd).await, open(&etcd).await];
    let counter = stores[0].update(|tx| tx.create(config("counter", "n0"))).await.unwrap();
    let mut watcher = stores[1].watch();
    let mut writers = tokio::task::JoinSet::new();
    for (number, store) in stores.iter().enumerate() {
        for lane in 0..4 {
            let store = store.clone();
            writers.spawn(async move {
                for round in 0..10 {
                    let name = format!("s{number}-{lane}-{round}");
                    store.update(|tx| tx.create(service(&name))).await.unwrap();
                    // Reads what others wrote: every one of them counts.
                    let counted: Result<_, StoreError> = store
                        .update(|tx| {
                            let Some(old) = tx.get::<Config>("counter") else {
                                return Err(StoreError::Closed);
                            };
                            let mut next = old.as_ref().clone();
                            let annotations =
                                next.spec.as_mut().unwrap().annotations.as_mut().unwrap();
                            let n: u32 = annotations.name[1..].parse().unwrap();
                            annotations.name = format!("n{}", n + 1);
                            tx.update(next)
                        })
                        .await;
                    counted.unwrap();
                }
            });
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let last = stores[0].update(|tx| tx.create(service("last"))).await.unwrap();
    let mut known = counter.version();
    loop {
        let commit = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        let commit = commit.unwrap().unwrap();
        for change in &commit.changes {
            if let Change::Updated { old, new } = change {
                assert_eq!(old.version(), known, "nothing is missed");
                known = new.version();
            }
        }
        if commit.changes.iter().any(|change| change.object().id() == last.id) {
            break;
        }
    }
    let fresh = open(&etcd).await;
    for store in stores.iter().chain([&fresh]) {
        let view = store.view();
        if view.revision() < last.version() {
            continue;
        }
        assert_eq!(view.count::<Service>(), 121);
        assert_eq!(view.get::<Config>("counter").unwrap().unique_name(), "n120");
    }
    assert!(fresh.view().revision() >= last.version());
    let taken = stores[2].update(|tx| tx.create(service("S0-0-0"))).await;
    assert!(matches!(taken, Err(StoreError::NameConflict { .. })), "{taken:?}");
}

/// Three managers write as fast as they can, and none has to do anything twice because of the
/// others, unless it looks at what they write.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_nothing_to_do_with_others_writes_runs_once() {
    const ROUNDS: usize = 15;
    let etcd = Etcd::start();
    let stores = [open(&etcd).await, open(&etcd).await, open(&etcd).await];
    let (runs, reruns) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut writers = tokio::task::JoinSet::new();
    for (number, store) in stores.iter().enumerate() {
        for lane in 0..4 {
            let (store, runs) = (store.clone(), Arc::clone(&runs));
            writers.spawn(async move {
                let own = config(&format!("c{number}-{lane}"), &format!("name{number}-{lane}"));
                let mut known = 0;
                for _ in 0..ROUNDS {
                    let written = store
                        .update_with(|tx| {
                            runs.fetch_add(1, Ordering::Relaxed);
                            match tx.get::<Config>(&own.id) {
                                Some(old) => tx.update(old.as_ref().clone()),
                                None => tx.create(own.clone()),
                            }
                        })
                        .await;
                    let written: Result<_, StoreError> = written;
                    let version = written.unwrap().version();
                    assert!(version > known, "versions of an object grow");
                    known = version;
                }
            });
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(runs.load(Ordering::Relaxed), stores.len() * 4 * ROUNDS);
    let fresh = open(&etcd).await;
    assert_eq!(fresh.view().count::<Config>(), 12);
    assert_eq!(fresh.view().revision(), (stores.len() * 4 * ROUNDS) as u64);
    // Whoever counts all of them is run again for each that comes in between, and misses none.
    let mut writers = tokio::task::JoinSet::new();
    for store in stores.clone() {
        let reruns = Arc::clone(&reruns);
        writers.spawn(async move {
            for _ in 0..ROUNDS {
                let counted: Result<_, StoreError> = store
                    .update_with(|tx| {
                        reruns.fetch_add(1, Ordering::Relaxed);
                        let count = tx.count::<Service>();
                        tx.create(service(&format!("n{count}")))
                    })
                    .await;
                counted.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert!(reruns.load(Ordering::Relaxed) >= stores.len() * ROUNDS);
    let fresh = open(&etcd).await;
    let last = format!("n{}", stores.len() * ROUNDS - 1);
    assert!(fresh.view().by_name::<Service>(&last).is_some());
}

/// Three managers fight for one name and write to the same objects, while each also does things that
/// look at everything: all of it makes one history.
#[tokio::test(flavor = "multi_thread")]
async fn rivals_for_a_name_make_one_history() {
    const ROUNDS: usize = 12;
    let etcd = Etcd::start();
    let stores = [open(&etcd).await, open(&etcd).await, open(&etcd).await];
    let (made, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut writers = tokio::task::JoinSet::new();
    for (number, store) in stores.iter().enumerate() {
        let (store, made, gone) = (store.clone(), Arc::clone(&made), Arc::clone(&gone));
        writers.spawn(async move {
            for round in 0..ROUNDS {
                let id = format!("h{number}-{round}");
                let taken = store.update(|tx| tx.create(config(&id, "fought-for"))).await;
                match taken {
                    Ok(_) => made.fetch_add(1, Ordering::Relaxed),
                    Err(StoreError::NameConflict { .. }) => 0,
                    Err(error) => panic!("{error:?}"),
                };
                // Whoever has the name now loses it.
                let freed: Result<usize, StoreError> = store
                    .update(|tx| {
                        let Some(holder) = tx.by_name::<Config>("fought-for") else { return Ok(0) };
                        tx.delete::<Config>(&holder.id).map(|_| 1)
                    })
                    .await;
                gone.fetch_add(freed.unwrap(), Ordering::Relaxed);
            }
        });
    }
    for store in stores.clone() {
        writers.spawn(async move {
            for _ in 0..ROUNDS {
                let counted: Result<_, StoreError> = store
                    .update(|tx| tx.create(service(&format!("n{}", tx.count::<Service>()))))
                    .await;
                counted.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let fresh = open(&etcd).await;
    let view = fresh.view();
    let (made, gone) = (made.load(Ordering::Relaxed), gone.load(Ordering::Relaxed));
    assert_eq!(made - gone, view.count::<Config>(), "{made} made, {gone} gone");
    assert_eq!(view.revision(), (made + gone + stores.len() * ROUNDS) as u64, "each counts once");
    for number in 0..stores.len() * ROUNDS {
        assert!(view.by_name::<Service>(&format!("n{number}")).is_some(), "n{number}");
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    for store in &stores {
        while store.view().revision() < view.revision() {
            assert!(tokio::time::Instant::now() < until, "a store does not hear of everything");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let objects = |view: &brig_store::View| view.objects().collect::<Vec<_>>();
        assert_eq!(objects(&store.view()), objects(&view));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_is_told_and_passes() {
    let mut etcd = Etcd::start();
    let store = open(&etcd).await;
    let other = open(&etcd).await;
    store.update(|tx| tx.create(service("before"))).await.unwrap();
    etcd.kill();
    let refused = store.update(|tx| tx.create(service("meanwhile"))).await;
    assert!(matches!(refused, Err(StoreError::NoQuorum(_))), "{refused:?}");
    assert!(!store.is_current());
    assert!(store.view().by_name::<Service>("before").is_some(), "reading goes on");
    etcd.boot();
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = store.update(|tx| tx.create(service("after"))).await {
        assert!(matches!(error, StoreError::NoQuorum(_)), "{error:?}");
        assert!(tokio::time::Instant::now() < until, "the store never comes back");
    }
    loop {
        let arrived = other.view().by_name::<Service>("after").is_some();
        if arrived && store.is_current() && other.is_current() {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "the other store does not hear of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Passes a connection on, and stops telling what comes back while `mute` says so.
async fn relay(to: String, mute: tokio::sync::watch::Receiver<bool>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tasks = TaskTracker::new();
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = tokio::net::TcpStream::connect(&to).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            connections.spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            });
            let mut mute = mute.clone();
            connections.spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    let _ = mute.wait_for(|mute| !*mute).await;
                    if to_client.write_all(&bytes[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A write is made, its answer is lost, and somebody else writes next. Whoever takes that for a
/// write that was not made makes it again, and is told that the name is taken: by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_not_made_twice() {
    let etcd = Etcd::start();
    let (mute, muted) = tokio::sync::watch::channel(false);
    let relayed = relay(etcd.endpoint(), muted).await;
    // What is not answered there is asked here.
    let client = EtcdClient::new(&[relayed, etcd.endpoint()], etcd.tls()).unwrap();
    let backend = EtcdBackend::new(client, "c", Limits::DEFAULT, Handle::current());
    let opened = tokio::task::spawn_blocking(move || Store::open(backend, sealer()).unwrap());
    let store = opened.await.unwrap();
    let other = open(&etcd).await;
    store.update(|tx| tx.create(service("before"))).await.unwrap();

    mute.send_replace(true);
    let mut writing = TaskTracker::new().spawn({
        let store = store.clone();
        async move { store.update(|tx| tx.create(service("lost"))).await }
    });
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while other.view().by_name::<Service>("lost").is_none() {
        assert!(tokio::time::Instant::now() < until, "it is not made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.update(|tx| tx.create(service("next"))).await.unwrap();
    // It cannot be told of what came next.
    let told = tokio::time::timeout(Duration::from_secs(12), &mut writing).await;
    mute.send_replace(false);
    let told = match told {
        Ok(told) => told.unwrap(),
        Err(_) => writing.await.unwrap(),
    };
    assert!(matches!(told, Ok(_) | Err(StoreError::NoQuorum(_))), "{told:?}");
    while store.view().by_name::<Service>("next").is_none() {
        assert!(tokio::time::Instant::now() < until, "the store does not go on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.view().by_name::<Service>("lost").is_some());
    assert_eq!(store.view().count::<Service>(), 3);
    store.update(|tx| tx.create(service("after"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_missed_what_was_compacted_reads_everything() {
    let mut etcd = Etcd::start();
    let store = open(&etcd).await;
    let gone = store.update(|tx| tx.create(service("gone"))).await.unwrap();
    let mut watcher = store.watch();
    etcd.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    etcd.boot();
    // Another manager writes and compacts before the first one is back; its watch may also be
    // quicker, then it sees the changes one by one.
    let other = open(&etcd).await;
    other.update(|tx| tx.delete::<Service>(&gone.id)).await.unwrap();
    for number in 0..5 {
        other.update(|tx| tx.create(service(&format!("new{number}")))).await.unwrap();
    }
    let status = etcd.ctl(&["endpoint", "status", "-w", "json"]);
    let status = String::from_utf8(status.stdout).unwrap();
    let at = status.split("\"revision\":").nth(1).unwrap().split(',').next().unwrap();
    assert!(etcd.ctl(&["compact", at]).status.success());
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let next = tokio::time::timeout(Duration::from_secs(20), watcher.next()).await;
        seen.extend(next.unwrap().unwrap().changes.clone());
    }
    assert!(seen.iter().any(|change| matches!(change, Change::Removed(o) if o.id() == gone.id)));
    assert_eq!(store.view().count::<Service>(), 5);
    store.update(|tx| tx.create(service("again"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_from_its_file_into_etcd_while_it_is_used() {
    let etcd = Etcd::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let store = Store::open(RedbBackend::open(&path).unwrap(), sealer()).unwrap();
    for number in 0..200 {
        store.update(|tx| tx.create(service(&format!("old{number}")))).await.unwrap();
    }
    let revision = store.view().revision();
    let mut watcher = store.watch();
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn({
        let store = store.clone();
        async move {
            for number in 0..50 {
                store.update(|tx| tx.create(service(&format!("new{number}")))).await.unwrap();
            }
        }
    });
    let target = backend(&etcd, &Handle::current());
    store
        .move_to(move |content| {
            target.import(&content)?;
            target.load()?;
            Ok(Arc::new(target) as Arc<dyn Backend>)
        })
        .await
        .unwrap();
    writer.join_all().await;
    let taken = store.update(|tx| tx.create(service("OLD7"))).await;
    assert!(matches!(taken, Err(StoreError::NameConflict { .. })), "{taken:?}");
    for next in 1..=50 {
        assert_eq!(watcher.next().await.unwrap().revision, revision + next, "no gap, no repeat");
    }
    let second = open(&etcd).await;
    assert_eq!(second.view().count::<Service>(), 250);
    assert_eq!(second.view().revision(), store.view().revision());
    second.update(|tx| tx.create(service("by another"))).await.unwrap();
    store.update(|tx| tx.create(service("and by the first"))).await.unwrap();
    assert_eq!(store.view().count::<Service>(), 252);
    let again = backend(&etcd, &Handle::current());
    let refused = tokio::task::spawn_blocking(move || again.import(&Default::default())).await;
    assert!(refused.unwrap().is_err(), "what is there is not overwritten");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_request_holds_is_written_in_parts() {
    let etcd = Etcd::start();
    let store = open(&etcd).await;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..40 {
        let store = store.clone();
        writers.spawn(async move {
            let secret = common::secret(&format!("s{number}"), &vec![7; 200_000]);
            store.update(|tx| tx.create(secret)).await.unwrap();
        });
    }
    writers.join_all().await;
    let fresh = open(&etcd).await;
    assert_eq!(fresh.view().count::<brig_proto::swarm::Secret>(), 40);
    let refused = store
        .update(|tx| {
            for number in 0..200 {
                tx.create(service(&format!("x{number}")))?;
            }
            Ok::<_, StoreError>(())
        })
        .await;
    let text = brig_types::error::chain(&refused.unwrap_err());
    assert!(text.contains("--max-txn-ops"), "{text}");
    store.update(|tx| tx.create(service("still works"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_claims_end_with_their_manager() {
    let etcd = Etcd::start();
    let start = |name: &str| {
        let live = Live::start(etcd.client(), "c");
        live.claim(&format!("m/{name}"), "here");
        live.campaign(name);
        live
    };
    let first = start("a");
    first.leads().wait_for(|leads| *leads).await.unwrap();
    let second = start("b");
    let both = |entries: &Arc<brig_store::etcd::LiveEntries>| entries.contains_key("m/b");
    first.entries().wait_for(both).await.unwrap();
    assert_eq!(first.leader().as_deref(), Some("a"));
    assert!(!*second.leads().borrow());
    second.claim("n/x", "b");
    first.entries().wait_for(|entries| entries.contains_key("n/x")).await.unwrap();
    // The claim goes over to whoever made it last.
    first.claim("n/x", "a");
    let is_a = |entries: &Arc<brig_store::etcd::LiveEntries>| {
        entries.get("n/x").map(String::as_str) == Some("a")
    };
    second.entries().wait_for(is_a).await.unwrap();
    second.give_back("n/x");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(second.get("n/x").as_deref(), Some("a"));
    first.stop();
    let next = tokio::time::timeout(Duration::from_secs(10), async {
        second.leads().wait_for(|leads| *leads).await.unwrap();
        let gone = |entries: &Arc<brig_store::etcd::LiveEntries>| !entries.contains_key("m/a");
        second.entries().wait_for(gone).await.unwrap();
    });
    next.await.unwrap();
    assert!(!*first.leads().borrow());
    second.stop();
}
