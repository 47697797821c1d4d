//! The thread that makes transactions durable, as many as wait with one sync.

use std::sync::{Arc, PoisonError};

use brig_types::secret::SecretBytes;

use crate::backend::{BackendError, Batch, NameClaim, Revision, Write};
use crate::error::{SealSource, StoreError};
use crate::object::Object;
use crate::sealer::Sealer;
use crate::state::folded;
use crate::store::{Shared, Staged};
use crate::tx::remaining;
use crate::watch::{Change, Commit};

/// Runs until the store closes and the queue is empty.
pub(crate) fn run(shared: &Shared) {
    while let Some(group) = next_group(shared) {
        // No snapshot is kept meanwhile: it would have every table copied that changes.
        let before = shared.read_committed().revision();
        match persist(shared, before, &group) {
            Ok(()) => publish(shared, before, group),
            Err(error) => refuse(shared, group, &error),
        }
    }
}

/// Waits for transactions and takes all of them.
fn next_group(shared: &Shared) -> Option<Vec<Staged>> {
    let mut head = shared.lock_head();
    while head.queue.is_empty() {
        if head.closing {
            return None;
        }
        head = shared.wake.wait(head).unwrap_or_else(PoisonError::into_inner);
    }
    Some(std::mem::take(&mut head.queue))
}

fn persist(shared: &Shared, before: Revision, group: &[Staged]) -> Result<(), StoreError> {
    let batches = group
        .iter()
        .filter(|staged| !staged.changes.is_empty())
        .map(|staged| batch(shared.sealer.as_ref(), &staged.changes))
        .collect::<Result<Vec<_>, _>>()?;
    if batches.is_empty() {
        return Ok(());
    }
    shared.backend.commit(before + 1, &batches).map_err(|error| StoreError::Commit(Arc::new(error)))
}

fn batch(sealer: &dyn Sealer, changes: &[Change]) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    for change in changes {
        let object = change.object();
        let (kind, id) = (object.kind(), object.id());
        let old = match change {
            Change::Created(_) => None,
            Change::Updated { old, .. } | Change::Removed(old) => Some(old),
        };
        let new = remaining(change);
        let value = match new {
            None => None,
            Some(object) => {
                let plain = SecretBytes::new(object.encode());
                let sealed = sealer.seal(kind.as_str(), id, plain.expose_secret());
                let failed = |error| StoreError::Seal { kind, source: SealSource::new(error) };
                Some(sealed.map_err(failed)?)
            }
        };
        let expected = old.map(Object::version);
        batch.writes.push(Write { kind, id: id.to_owned(), expected, value });

        let blind = |object: Option<&Object>| {
            let name = object.map(Object::unique_name).filter(|name| !name.is_empty())?;
            Some(sealer.blind(kind.as_str(), &folded(name)))
        };
        let (before, after) = (blind(old), blind(new));
        if before != after {
            claim(&mut batch, before, Some(id), None);
            claim(&mut batch, after, None, Some(id));
        }
    }
    batch.names.retain(|claim| claim.from != claim.to);
    Ok(batch)
}

/// Adds a step to a name's way through the transaction: one object may give it to another.
fn claim(batch: &mut Batch, name: Option<[u8; 32]>, from: Option<&str>, to: Option<&str>) {
    let Some(name) = name else {
        return;
    };
    let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
    match batch.names.iter_mut().find(|claim| claim.name == name) {
        // The taker may come before the giver: keep who had it and who gets it.
        Some(claim) if from.is_some() => claim.from = from,
        Some(claim) => claim.to = to,
        None => batch.names.push(NameClaim { name, from, to }),
    }
}

fn publish(shared: &Shared, before: Revision, group: Vec<Staged>) {
    let mut revision = before;
    let mut acknowledged = Vec::with_capacity(group.len());
    {
        // Watchers subscribe under this lock, so state and changes move together.
        let mut committed = shared.committed.write().unwrap_or_else(PoisonError::into_inner);
        for staged in group {
            if !staged.changes.is_empty() {
                revision += 1;
                committed.follow(revision, &staged.changes);
                let commit = Arc::new(Commit { revision, changes: staged.changes });
                shared.lock_node_watchers().send(&commit);
                // Nobody watching is fine.
                let _ = shared.commits.send(commit);
            }
            acknowledged.push(staged.done);
        }
    }
    for done in acknowledged {
        // The caller may have stopped waiting.
        let _ = done.send(Ok(()));
    }
}

/// Refuses the group and everything that was built on it since.
fn refuse(shared: &Shared, group: Vec<Staged>, error: &StoreError) {
    tracing::error!(
        error = %brig_types::error::chain(error),
        "the cluster store could not write"
    );
    let mut head = shared.lock_head();
    head.state = shared.read_committed();
    if let StoreError::Commit(source) = error
        && matches!(**source, BackendError::Fatal(_))
    {
        head.failed = Some(Arc::clone(source));
    }
    let late = std::mem::take(&mut head.queue);
    drop(head);
    for staged in group.into_iter().chain(late) {
        let _ = staged.done.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Annotations, Config, ConfigSpec, Node};

    use super::*;
    use crate::redb_backend::RedbBackend;
    use crate::sealer::{BlindName, SealError};
    use crate::store::Store;

    struct Plain;

    impl Sealer for Plain {
        fn seal(&self, _: &str, _: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
            Ok(plain.to_vec())
        }

        fn open(&self, _: &str, _: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
            Ok(SecretBytes::new(sealed.to_vec()))
        }

        fn blind(&self, _: &str, name: &str) -> BlindName {
            let mut blind = [0; 32];
            blind.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
            blind
        }
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        let backend = RedbBackend::open(&dir.path().join("s.redb")).unwrap();
        Store::open(backend, Arc::new(Plain)).unwrap()
    }

    #[tokio::test]
    async fn a_transaction_copies_no_table_that_nobody_looks_at() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let create = |id: &str| {
            let node = Node { id: id.to_owned(), ..Node::default() };
            store.update(|tx| tx.create(node).map(drop))
        };
        let table = || Arc::as_ptr(&store.view().nodes);
        create("first").await.unwrap();
        let before = table();
        let held = {
            create("second").await.unwrap();
            assert_eq!(table(), before);
            store.view()
        };
        create("third").await.unwrap();
        assert_ne!(table(), before, "a snapshot does not change");
        assert_eq!((held.count::<Node>(), store.view().count::<Node>()), (2, 3));
    }

    #[tokio::test]
    async fn names_can_be_exchanged_in_one_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let named = |config: &Config, name: &str| {
            let annotations = Annotations { name: name.to_owned(), ..Annotations::default() };
            let spec = ConfigSpec { annotations: Some(annotations), ..ConfigSpec::default() };
            Config { spec: Some(spec), ..config.clone() }
        };
        let new = |id: &str| Config { id: id.to_owned(), ..Config::default() };
        let fill = |tx: &mut crate::Tx<'_>| {
            tx.create(named(&new("a"), "x"))?;
            tx.create(named(&new("b"), "y")).map(drop)
        };
        store.update(fill).await.unwrap();
        let exchange = |tx: &mut crate::Tx<'_>| -> Result<(), StoreError> {
            for (id, name) in [("a", "z"), ("b", "x"), ("a", "y")] {
                let config = tx.get::<Config>(id).unwrap_or_default();
                tx.update(named(&config, name))?;
            }
            Ok(())
        };
        store.update(exchange).await.unwrap();
        let view = store.view();
        let holder = |name| view.by_name::<Config>(name).map(|config| config.id.clone());
        assert_eq!(
            (holder("x"), holder("y"), holder("z")),
            (Some("b".into()), Some("a".into()), None)
        );
    }
}
