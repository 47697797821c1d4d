//! The thread that makes transactions durable, as many as wait with one sync, and that takes in
//! what other managers wrote. All changes of the committed state happen here.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use brig_types::secret::SecretBytes;

use crate::backend::{
    BackendError, Batch, Content, Foreign, Loaded, NameClaim, News, Revision, SealedRecord, Write,
};
use crate::error::{SealSource, StoreError};
use crate::object::{Kind, Object};
use crate::reads::Written;
use crate::sealer::Sealer;
use crate::state::{State, folded};
use crate::store::{Head, Move, Refused, Shared, Staged, read_record, read_state};
use crate::tx::remaining;
use crate::watch::{Change, Commit};

/// How long the news that explain a conflict may take.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);

/// How long transactions that were overtaken may take to come again, all of them together.
const GATHER: Duration = Duration::from_millis(2);

/// When to write after others were first.
#[derive(Default)]
struct Pace {
    /// How many transactions were overtaken, and when.
    overtaken: Option<(usize, Instant)>,
}

impl Pace {
    fn note(&mut self, overtaken: usize) {
        if overtaken > 0 {
            self.overtaken = Some((overtaken, Instant::now()));
        }
    }

    /// Until when to wait with so many transactions in the queue.
    fn wait_until(&self, queued: usize) -> Option<Instant> {
        let (count, at) = self.overtaken?;
        Some(at + GATHER).filter(|until| queued < count && *until > Instant::now())
    }
}

/// What there is to do.
enum Work {
    News(News),
    Move(Move),
    /// Transactions.
    Group(Vec<Staged>),
}

/// Runs until the store closes and the queue is empty.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut pace = Pace::default();
    while let Some(work) = next_work(shared, &pace) {
        match work {
            Work::News(news) => pace.note(take_in(shared, news)),
            Work::Move(wanted) => {
                let outcome = move_to(shared, wanted.fill);
                // Whoever asked may have stopped waiting.
                let _ = wanted.done.send(outcome);
            }
            Work::Group(group) => {
                pace.overtaken = None;
                pace.note(write(shared, group));
            }
        }
    }
}

/// Waits for something to do. What others wrote comes first: nothing can be written before it is
/// known.
fn next_work(shared: &Shared, pace: &Pace) -> Option<Work> {
    let mut head = shared.lock_head();
    loop {
        if let Some(news) = head.news.pop_front() {
            return Some(Work::News(news));
        }
        if let Some(wanted) = head.moving.take() {
            return Some(Work::Move(wanted));
        }
        if !head.queue.is_empty()
            && !head.closing
            && let Some(until) = pace.wait_until(head.queue.len()).max(shared.backend().turn())
            && until > Instant::now()
        {
            let left = until.saturating_duration_since(Instant::now());
            (head, _) =
                shared.wake.wait_timeout(head, left).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        if !head.queue.is_empty() {
            return Some(Work::Group(std::mem::take(&mut head.queue)));
        }
        if head.closing {
            return None;
        }
        head = shared.wake.wait(head).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Answers how many transactions have to run again.
fn write(shared: &Arc<Shared>, mut group: Vec<Staged>) -> usize {
    while !group.is_empty() {
        // No snapshot is kept meanwhile: it would have every table copied that changes.
        let before = shared.revision();
        match persist(shared, before, &group) {
            Ok(count) => {
                let rest = group.split_off(count.min(group.len()));
                publish(shared, before, group);
                group = rest;
            }
            Err(error) => return not_written(shared, before, group, error),
        }
    }
    0
}

/// Answers how many transactions have to run again.
fn not_written(
    shared: &Arc<Shared>,
    before: Revision,
    mut group: Vec<Staged>,
    error: StoreError,
) -> usize {
    match error {
        StoreError::Commit(error)
            if shared.backend().is_shared() && matches!(*error, BackendError::Conflict) =>
        {
            // What the others wrote may have nothing to do with these.
            {
                let mut head = shared.lock_head();
                group.append(&mut head.queue);
                head.queue = group;
            }
            let (is_known, mut overtaken) = catch_up(shared, before);
            if !is_known {
                overtaken += refuse(shared, Vec::new(), || Refused::Overtaken);
            }
            overtaken
        }
        StoreError::Commit(error) if matches!(*error, BackendError::Unavailable(_)) => {
            let error = StoreError::NoQuorum(error);
            tell(&error);
            refuse(shared, group, || Refused::Because(error.clone()));
            0
        }
        error => {
            tell(&error);
            if let StoreError::Commit(source) = &error
                && matches!(**source, BackendError::Fatal(_))
            {
                shared.lock_head().failed = Some(Arc::clone(source));
            }
            refuse(shared, group, || Refused::Because(error.clone()));
            0
        }
    }
}

fn tell(error: &StoreError) {
    tracing::error!(
        error = %brig_types::error::chain(error),
        "the cluster store could not write"
    );
}

/// Makes as many transactions durable as the backend takes at a time; answers how many.
fn persist(shared: &Shared, before: Revision, group: &[Staged]) -> Result<usize, StoreError> {
    let batches = group
        .iter()
        .filter(|staged| !staged.changes.is_empty())
        .map(|staged| batch(shared.sealer.as_ref(), staged))
        .collect::<Result<Vec<_>, _>>()?;
    if batches.is_empty() {
        return Ok(group.len());
    }
    let backend = shared.backend();
    let fitting = backend.fits(&batches).clamp(1, batches.len());
    backend
        .commit(before + 1, batches.get(..fitting).unwrap_or(&batches))
        .map_err(|error| StoreError::Commit(Arc::new(error)))?;
    let is_write = |staged: &Staged| !staged.changes.is_empty();
    let last = group.iter().enumerate().filter(|(_, staged)| is_write(staged)).nth(fitting - 1);
    Ok(match last {
        Some((at, _)) if fitting < batches.len() => at + 1,
        Some(_) | None => group.len(),
    })
}

fn batch(sealer: &dyn Sealer, staged: &Staged) -> Result<Batch, StoreError> {
    let mut batch = Batch { version: Some(staged.version), ..Batch::default() };
    for change in &staged.changes {
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
                announce(shared, Commit { revision, changes: staged.changes });
            }
            acknowledged.push(staged.done);
        }
    }
    for done in acknowledged {
        // The caller may have stopped waiting.
        let _ = done.send(Ok(()));
    }
}

fn announce(shared: &Shared, commit: Commit) {
    let commit = Arc::new(commit);
    shared.lock_node_watchers().send(&commit);
    // Nobody watching is fine.
    let _ = shared.commits.send(commit);
}

/// Refuses the group and everything that was built on it since; answers how many that were.
fn refuse(shared: &Shared, group: Vec<Staged>, reason: impl Fn() -> Refused) -> usize {
    let mut head = shared.lock_head();
    head.state = shared.read_committed();
    let late = std::mem::take(&mut head.queue);
    drop(head);
    let count = group.len() + late.len();
    for staged in group.into_iter().chain(late) {
        let _ = staged.done.send(Err(reason()));
    }
    count
}

/// Takes in what others wrote until there is something that was not known at `revision`; answers
/// whether there is, and how many transactions that overtook.
fn catch_up(shared: &Arc<Shared>, revision: Revision) -> (bool, usize) {
    let until = Instant::now() + NEWS_PATIENCE;
    let mut overtaken = 0;
    while shared.revision() == revision {
        let left = until.saturating_duration_since(Instant::now());
        let news = {
            let head = shared.lock_head();
            let waits = |head: &mut Head| head.news.is_empty() && !head.closing;
            let (mut head, _) = shared
                .wake
                .wait_timeout_while(head, left, waits)
                .unwrap_or_else(PoisonError::into_inner);
            head.news.pop_front()
        };
        match news {
            Some(news) => overtaken += take_in(shared, news),
            None if shared.lock_head().closing => break,
            None => {
                overtaken += reload(shared);
                break;
            }
        }
    }
    (shared.revision() != revision, overtaken)
}

/// Answers how many transactions were overtaken.
fn take_in(shared: &Arc<Shared>, news: News) -> usize {
    let known = shared.revision();
    match news {
        News::Committed { last, .. } if last <= known => 0,
        News::Committed { first, .. } if first != known + 1 => {
            tracing::warn!(first, known, "missed what other managers wrote");
            reload(shared)
        }
        News::Committed { last, changes, .. } => match decode(shared, changes) {
            Ok(changes) => follow(shared, last, changes),
            // It may be of before the last change of keys: what is stored now is not.
            Err(error) => {
                let error = brig_types::error::chain(&error);
                tracing::info!(error, "reading all of the store, for a commit that does not open");
                reload(shared)
            }
        },
        News::Reloaded(loaded) => {
            let before = shared.read_committed();
            let outcome = differences(shared.sealer.as_ref(), &before, loaded);
            drop(before);
            adopt(shared, outcome)
        }
    }
}

fn reload(shared: &Arc<Shared>) -> usize {
    match shared.backend().load() {
        Ok(loaded) => take_in(shared, News::Reloaded(loaded)),
        Err(error) => {
            tracing::error!(error = %brig_types::error::chain(&error), "cannot read the cluster store");
            0
        }
    }
}

/// Makes a state that others left the present one; answers how many transactions that overtook.
fn adopt(shared: &Shared, outcome: Result<(State, Vec<Change>), StoreError>) -> usize {
    let (after, changes) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let text = brig_types::error::chain(&error);
            tracing::error!(error = text, "what another manager wrote cannot be read");
            shared.lock_head().failed = Some(Arc::new(BackendError::Fatal(Box::new(error))));
            return 0;
        }
    };
    let overtaken = {
        let mut head = shared.lock_head();
        head.state = after.clone();
        let overtaken = std::mem::take(&mut head.queue);
        let mut committed = shared.committed.write().unwrap_or_else(PoisonError::into_inner);
        let revision = after.revision();
        *committed = after;
        if !changes.is_empty() {
            announce(shared, Commit { revision, changes });
        }
        overtaken
    };
    run_again(overtaken)
}

fn run_again(overtaken: Vec<Staged>) -> usize {
    let count = overtaken.len();
    for staged in overtaken {
        let _ = staged.done.send(Err(Refused::Overtaken));
    }
    count
}

/// Makes what others wrote part of the present state; answers how many transactions it overtook.
fn follow(shared: &Shared, last: Revision, changes: Vec<Change>) -> usize {
    let overtaken = {
        let mut head = shared.lock_head();
        let overtaken = head.put_before_queue(last, &changes);
        let mut committed = shared.committed.write().unwrap_or_else(PoisonError::into_inner);
        committed.follow(last, &changes);
        if !changes.is_empty() {
            announce(shared, Commit { revision: last, changes });
        }
        overtaken
    };
    run_again(overtaken)
}

impl Head {
    /// Puts what others wrote before the transactions that wait. Those that it has to do with are
    /// taken back and answered, with all that was built on them.
    fn put_before_queue(&mut self, last: Revision, changes: &[Change]) -> Vec<Staged> {
        let mut written = Written::of(changes);
        let mut position = last;
        let (mut kept, mut overtaken) = (Vec::new(), Vec::new());
        for staged in std::mem::take(&mut self.queue) {
            let next = position + u64::from(!staged.changes.is_empty());
            // Versions grow only while none is ahead of its transaction's place.
            if staged.version > next || written.concerns(staged.reads.as_deref(), &staged.changes) {
                written.add(&staged.changes);
                overtaken.push(staged);
            } else {
                position = next;
                kept.push(staged);
            }
        }
        for staged in overtaken.iter().rev() {
            self.state.undo(&staged.changes);
        }
        self.state.follow(position, changes);
        self.queue = kept;
        overtaken
    }
}

/// Opens what others wrote.
fn decode(shared: &Shared, foreign: Vec<Foreign>) -> Result<Vec<Change>, StoreError> {
    let before = shared.committed.read().unwrap_or_else(PoisonError::into_inner);
    let changed: BTreeSet<(Kind, String)> =
        foreign.iter().map(|change| (change.kind, change.id.clone())).collect();
    let mut names = BTreeSet::new();
    let mut changes = Vec::with_capacity(foreign.len());
    for Foreign { kind, id, value } in foreign {
        let old = Object::find(&before, kind, &id);
        let new = value
            .map(|(revision, value)| {
                let record = SealedRecord { kind, id: id.clone(), revision, value };
                read_record(shared.sealer.as_ref(), &record)
            })
            .transpose()?;
        if let Some(new) = new.as_ref().filter(|new| !new.unique_name().is_empty()) {
            // A name may go from one object to another.
            let holder = before.holder(kind, new.unique_name());
            let is_taken =
                holder.is_some_and(|holder| !changed.contains(&(kind, holder.to_owned())));
            if is_taken || !names.insert((kind, folded(new.unique_name()))) {
                let source = SealSource::new("it is not what its place says");
                return Err(StoreError::Damaged { kind, id, source });
            }
        }
        changes.extend(change(old, new));
    }
    Ok(changes)
}

fn change(old: Option<Object>, new: Option<Object>) -> Option<Change> {
    match (old, new) {
        (None, None) => None,
        (None, Some(new)) => Some(Change::Created(new)),
        (Some(old), None) => Some(Change::Removed(old)),
        (Some(old), Some(new)) if old.version() == new.version() => None,
        (Some(old), Some(new)) => Some(Change::Updated { old, new }),
    }
}

/// What happened between a state and everything that is stored now.
fn differences(
    sealer: &dyn Sealer,
    before: &State,
    loaded: Loaded,
) -> Result<(State, Vec<Change>), StoreError> {
    let after = read_state(sealer, loaded)?;
    let mut changes = Vec::new();
    for kind in Kind::ALL {
        for old in Object::all(before, kind) {
            let new = Object::find(&after, kind, old.id());
            changes.extend(change(Some(old), new));
        }
        for new in Object::all(&after, kind) {
            if Object::find(before, kind, new.id()).is_none() {
                changes.push(Change::Created(new));
            }
        }
    }
    Ok((after, changes))
}

/// Puts everything into another backend and goes on with that one.
fn move_to(shared: &Arc<Shared>, fill: crate::store::Fill) -> Result<(), StoreError> {
    let failed = |error| StoreError::Commit(Arc::new(error));
    let loaded = shared.backend().load().map_err(failed)?;
    let state = shared.read_committed();
    let names = Kind::ALL
        .into_iter()
        .flat_map(|kind| Object::all(&state, kind))
        .filter(|object| !object.unique_name().is_empty())
        .map(|object| {
            let name = folded(object.unique_name());
            (shared.sealer.blind(object.kind().as_str(), &name), object.id().to_owned())
        })
        .collect();
    let backend = fill(Content { loaded, names }).map_err(failed)?;
    let old = shared.set_backend(Arc::clone(&backend));
    shared.follow(backend.as_ref());
    old.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Annotations, Config, ConfigSpec, Node};

    use super::*;
    use crate::embedded::RedbBackend;
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
