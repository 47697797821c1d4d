//! What was acknowledged is there after the process was killed in the middle of writing.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brig_proto::swarm::Secret;
use brig_store::{RedbBackend, Store, StoreError};
use common::{sealer, secret};

const PATH_VARIABLE: &str = "BRIG_STORE_CRASH_TEST";

/// Not a test of its own: the process that is killed runs it.
#[test]
fn writer_process() {
    let Ok(path) = std::env::var(PATH_VARIABLE) else {
        return;
    };
    let store = Store::open(RedbBackend::open(path.as_ref()).unwrap(), sealer()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut round = 0_u64;
        loop {
            round += 1;
            let mut writers = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let store = store.clone();
                writers.spawn(async move {
                    let object = secret(&brig_types::id::random_swarm_id(), b"value");
                    store.update(|tx| tx.create(object)).await.unwrap()
                });
            }
            for written in writers.join_all().await {
                println!("\nACK {}", written.id);
            }
            if round.is_multiple_of(5) {
                let oldest = store.view().all::<Secret>().next().unwrap().id.clone();
                println!("\nDEL {oldest}");
                store.update(|tx| tx.delete::<Secret>(&oldest)).await.unwrap();
                println!("\nGONE {oldest}");
            }
        }
    });
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut acknowledged = std::collections::BTreeSet::new();
    let mut maybe = std::collections::BTreeSet::new();
    let mut gone = std::collections::BTreeSet::new();
    for round in 0..4_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer_process", "--exact", "--nocapture"])
            .env(PATH_VARIABLE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut deadline = None;
        for line in lines.map_while(Result::ok) {
            match line.split_once(' ') {
                Some(("ACK", id)) => _ = acknowledged.insert(id.to_owned()),
                Some(("DEL", id)) => _ = maybe.insert(id.to_owned()),
                Some(("GONE", id)) => _ = gone.insert(id.to_owned()),
                _ => continue,
            }
            let until = *deadline
                .get_or_insert_with(|| Instant::now() + Duration::from_millis(150 + 130 * round));
            if Instant::now() > until {
                // SIGKILL; what is still in the pipe was acknowledged too.
                let _ = child.kill();
            }
        }
        child.wait().unwrap();
        let store = Store::open(RedbBackend::open(&path).unwrap(), sealer()).unwrap();
        let view = store.view();
        for id in &acknowledged {
            let there = view.get::<Secret>(id).is_some();
            assert!(there || maybe.contains(id), "{id} was acknowledged and is lost");
            assert!(!(there && gone.contains(id)), "{id} was removed and is back");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.update(|tx| Ok::<_, StoreError>(tx.revision()))).unwrap();
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    assert!(!gone.is_empty());
}
