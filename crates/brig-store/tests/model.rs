//! The store against a plain map, over random histories and reopenings.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeMap;

use brig_proto::swarm::Config;
use brig_store::{RedbBackend, Store, StoreError, StoreObject as _};
use common::{annotations, config, sealer};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Create { id: u8, name: u8 },
    Rename { id: u8, name: u8, stale: bool },
    Delete { id: u8 },
}

#[derive(Clone, Debug)]
enum Action {
    Transaction { steps: Vec<Step>, abort: bool },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_u8, 0..5_u8).prop_map(|(id, name)| Step::Create { id, name }),
        (0..6_u8, 0..5_u8, proptest::bool::weighted(0.1))
            .prop_map(|(id, name, stale)| Step::Rename { id, name, stale }),
        (0..6_u8).prop_map(|id| Step::Delete { id }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        9 => (proptest::collection::vec(step(), 1..4), proptest::bool::weighted(0.1))
            .prop_map(|(steps, abort)| Action::Transaction { steps, abort }),
        1 => Just(Action::Reopen),
    ]
}

/// id to name and revision.
type Model = BTreeMap<u8, (u8, u64)>;

fn model_step(model: &mut Model, step: &Step, revision: u64) -> bool {
    let taken = |model: &Model, id: u8, name: u8| {
        model.iter().any(|(&other, &(used, _))| other != id && used == name)
    };
    match *step {
        Step::Create { id, name } => {
            if model.contains_key(&id) || taken(model, id, name) {
                return false;
            }
            model.insert(id, (name, revision));
        }
        Step::Rename { id, name, stale } => {
            if stale || !model.contains_key(&id) || taken(model, id, name) {
                return false;
            }
            model.insert(id, (name, revision));
        }
        Step::Delete { id } => return model.remove(&id).is_some(),
    }
    true
}

fn store_step(tx: &mut brig_store::Tx<'_>, step: &Step) -> Result<(), StoreError> {
    match *step {
        Step::Create { id, name } => {
            tx.create(config(&format!("id{id}"), &format!("name{name}")))?;
        }
        Step::Rename { id, name, stale } => {
            let id = format!("id{id}");
            let current = tx.get::<Config>(&id);
            let mut next = current.map_or_else(|| config(&id, ""), |c| c.as_ref().clone());
            next.spec.as_mut().unwrap().annotations = annotations(&format!("name{name}"));
            if stale {
                next.meta_mut().version.get_or_insert_default().index += 1;
            }
            tx.update(next)?;
        }
        Step::Delete { id } => {
            tx.delete::<Config>(&format!("id{id}"))?;
        }
    }
    Ok(())
}

fn check(store: &Store, model: &Model, revision: u64) {
    let view = store.view();
    assert_eq!(view.revision(), revision);
    assert_eq!(view.count::<Config>(), model.len());
    for (id, (name, version)) in model {
        let object = view.get::<Config>(&format!("id{id}")).unwrap();
        assert_eq!(object.version(), *version);
        assert_eq!(object.unique_name(), format!("name{name}"));
        assert_eq!(view.by_name::<Config>(&format!("NAME{name}")).unwrap(), object);
    }
    for free in (0..5).filter(|free| !model.values().any(|(name, _)| name == free)) {
        assert_eq!(view.by_name::<Config>(&format!("name{free}")), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(actions in proptest::collection::vec(action(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let open = || Store::open(RedbBackend::open(&path).unwrap(), sealer()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut store = open();
        let mut watcher = store.watch();
        let mut model = Model::new();
        let mut revision = 0;
        for action in actions {
            let Action::Transaction { steps, abort } = action else {
                drop(store);
                store = open();
                watcher = store.watch();
                check(&store, &model, revision);
                continue;
            };
            let mut next = model.clone();
            let fits = steps.iter().all(|step| model_step(&mut next, step, revision + 1));
            let result = runtime.block_on(store.update(|tx| {
                steps.iter().try_for_each(|step| store_step(tx, step))?;
                if abort { Err(StoreError::Closed) } else { Ok(()) }
            }));
            prop_assert_eq!(result.is_ok(), fits && !abort, "{:?}", result);
            if result.is_ok() {
                // A transaction that cancels itself out is none.
                if let Some(commit) = watcher.try_next().unwrap() {
                    revision += 1;
                    prop_assert_eq!(commit.revision, revision);
                }
                model = next;
            }
            prop_assert!(watcher.try_next().unwrap().is_none());
            check(&store, &model, revision);
        }
    }
}
