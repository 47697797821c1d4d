//! The thread that makes transactions durable, as many as wait with one sync.

use std::sync::{Arc, PoisonError};

use brig_types::secret::SecretBytes;

use crate::backend::{BackendError, Batch, NameClaim, Write};
use crate::error::{SealSource, StoreError};
use crate::object::Object;
use crate::sealer::Sealer;
use crate::state::{State, folded};
use crate::store::{Shared, Staged};
use crate::tx::remaining;
use crate::watch::{Change, Commit};

/// Runs until the store closes and the queue is empty.
pub(crate) fn run(shared: &Shared) {
    while let Some((group, after)) = next_group(shared) {
        let before = shared.read_committed();
        match persist(shared, &before, &group) {
            Ok(()) => publish(shared, &before, after, group),
            Err(error) => refuse(shared, &before, group, &error),
        }
    }
}

/// Waits for transactions and takes all of them, with the state that follows the last one.
fn next_group(shared: &Shared) -> Option<(Vec<Staged>, State)> {
    let mut head = shared.lock_head();
    while head.queue.is_empty() {
        if head.closing {
            return None;
        }
        head = shared.wake.wait(head).unwrap_or_else(PoisonError::into_inner);
    }
    Some((std::mem::take(&mut head.queue), head.state.clone()))
}

fn persist(shared: &Shared, before: &State, group: &[Staged]) -> Result<(), StoreError> {
    let batches = group
        .iter()
        .filter(|staged| !staged.changes.is_empty())
        .map(|staged| batch(shared.sealer.as_ref(), &staged.changes))
        .collect::<Result<Vec<_>, _>>()?;
    if batches.is_empty() {
        return Ok(());
    }
    shared
        .backend
        .commit(before.revision() + 1, &batches)
        .map_err(|error| StoreError::Commit(Arc::new(error)))
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

fn publish(shared: &Shared, before: &State, after: State, group: Vec<Staged>) {
    let mut revision = before.revision();
    let mut acknowledged = Vec::with_capacity(group.len());
    {
        // Watchers subscribe under this lock, so state and changes move together.
        let mut committed = shared.committed.write().unwrap_or_else(PoisonError::into_inner);
        *committed = after;
        for staged in group {
            if !staged.changes.is_empty() {
                revision += 1;
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
fn refuse(shared: &Shared, before: &State, group: Vec<Staged>, error: &StoreError) {
    tracing::error!(
        error = %brig_types::error::chain(error),
        "the cluster store could not write"
    );
    let mut head = shared.lock_head();
    head.state = before.clone();
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
