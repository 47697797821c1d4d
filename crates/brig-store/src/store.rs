//! The store's handle: views, transactions, watchers.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::{broadcast, oneshot};

use crate::backend::{Backend, BackendError, Content, Loaded, News, Revision, SealedRecord};
use crate::error::{SealSource, StoreError};
use crate::object::Object;
use crate::reads::Reads;
use crate::sealer::Sealer;
use crate::state::State;
use crate::tx::Tx;
use crate::watch::{Change, Commit, NodeWatchers, WATCH_BACKLOG, Watcher};
use crate::writer;

/// Objects that are restored in one transaction.
const RESTORED_AT_ONCE: usize = 1000;
/// How often a transaction is run again because others were first.
const MAX_ATTEMPTS: usize = 1000;

/// Opens the records and puts them together.
pub(crate) fn read_state(sealer: &dyn Sealer, loaded: Loaded) -> Result<State, StoreError> {
    let mut state = State { revision: loaded.revision, ..State::default() };
    for record in loaded.records {
        let object = read_record(sealer, &record)?;
        if object.conflicts_in(&state) {
            let source = SealSource::new("it is not what its place says");
            return Err(StoreError::Damaged { kind: record.kind, id: record.id, source });
        }
        object.insert_into(&mut state);
    }
    Ok(state)
}

pub(crate) fn read_record(
    sealer: &dyn Sealer,
    record: &SealedRecord,
) -> Result<Object, StoreError> {
    let damaged = |source| StoreError::Damaged { kind: record.kind, id: record.id.clone(), source };
    let plain = sealer
        .open(record.kind.as_str(), &record.id, &record.value)
        .map_err(|error| damaged(SealSource::new(error)))?;
    let mut object = Object::decode(record.kind, plain.expose_secret())
        .map_err(|error| damaged(SealSource::new(error)))?;
    object.set_version(record.revision);
    if object.id() != record.id {
        return Err(damaged(SealSource::new("it is not what its place says")));
    }
    Ok(object)
}

/// The cluster store. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    backend: RwLock<Arc<dyn Backend>>,
    pub(crate) sealer: Arc<dyn Sealer>,
    pub(crate) head: Mutex<Head>,
    pub(crate) wake: Condvar,
    /// What readers see; never ahead of what is durable.
    pub(crate) committed: RwLock<State>,
    pub(crate) commits: broadcast::Sender<Arc<Commit>>,
    pub(crate) node_watchers: Mutex<NodeWatchers>,
}

/// The state that the next transaction builds on, and the transactions that are not durable yet.
pub(crate) struct Head {
    pub(crate) state: State,
    pub(crate) queue: Vec<Staged>,
    /// What a shared backend told of and nobody looked at yet.
    pub(crate) news: VecDeque<News>,
    /// A backend that is to take the place of the present one.
    pub(crate) moving: Option<Move>,
    pub(crate) failed: Option<Arc<BackendError>>,
    pub(crate) closing: bool,
}

/// A transaction that waits to become durable.
pub(crate) struct Staged {
    pub(crate) changes: Vec<Change>,
    /// Version of what it writes.
    pub(crate) version: Revision,
    /// What it looked at; `None` where nobody asks.
    pub(crate) reads: Option<Arc<Reads>>,
    pub(crate) done: oneshot::Sender<Result<(), Refused>>,
}

/// Why a transaction did not become durable.
pub(crate) enum Refused {
    /// Somebody else's came first: what it read is not true any more.
    Overtaken,
    /// It cannot.
    Because(StoreError),
}

/// Fills another backend and answers it.
pub(crate) type Fill =
    Box<dyn FnOnce(Content) -> Result<Arc<dyn Backend>, BackendError> + Send + 'static>;

/// The way into another backend.
pub(crate) struct Move {
    pub(crate) fill: Fill,
    pub(crate) done: oneshot::Sender<Result<(), StoreError>>,
}

impl Shared {
    pub(crate) fn lock_head(&self) -> MutexGuard<'_, Head> {
        // A panic inside a transaction undid that transaction while it unwound.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_node_watchers(&self) -> MutexGuard<'_, NodeWatchers> {
        self.node_watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.backend.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_backend(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        let mut place = self.backend.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, backend)
    }

    /// Has the backend tell of what others write.
    pub(crate) fn follow(self: &Arc<Self>, backend: &dyn Backend) {
        let shared = Arc::downgrade(self);
        backend.follow(Box::new(move |news| {
            if let Some(shared) = shared.upgrade() {
                shared.lock_head().news.push_back(news);
                shared.wake.notify_one();
            }
        }));
    }

    /// Revision of what is durable.
    pub(crate) fn revision(&self) -> Revision {
        self.committed.read().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// A snapshot of what is durable.
    pub(crate) fn read_committed(&self) -> State {
        self.committed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A snapshot. Cheap to make, may be kept, never changes.
#[derive(Clone, Debug)]
pub struct View(State);

impl Deref for View {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl Store {
    /// Reads everything from the backend into memory and starts the writing thread. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Open`]; [`StoreError::Damaged`] when a value does not open or makes no sense.
    pub fn open(backend: impl Backend, sealer: Arc<dyn Sealer>) -> Result<Self, StoreError> {
        let loaded = backend.load().map_err(|error| StoreError::Open(Arc::new(error)))?;
        let state = read_state(sealer.as_ref(), loaded)?;
        let (commits, _) = broadcast::channel(WATCH_BACKLOG);
        let shared = Arc::new(Shared {
            backend: RwLock::new(Arc::new(backend)),
            sealer,
            head: Mutex::new(Head {
                state: state.clone(),
                queue: Vec::new(),
                news: VecDeque::new(),
                moving: None,
                failed: None,
                closing: false,
            }),
            wake: Condvar::new(),
            committed: RwLock::new(state),
            commits,
            node_watchers: Mutex::default(),
        });
        shared.follow(shared.backend().as_ref());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&for_thread))
            .map_err(|error| {
                let fatal = crate::backend::BackendError::Fatal(Box::new(error));
                StoreError::Open(Arc::new(fatal))
            })?;
        Ok(Self(Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) })))
    }

    /// Ends writing, whoever still has a clone of this: what was accepted becomes durable, later
    /// transactions fail with [`StoreError::Closed`], and the file can be opened anew. Blocks.
    pub fn close(&self) {
        self.0.close();
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// The state as of now.
    #[must_use]
    pub fn view(&self) -> View {
        View(self.0.shared.read_committed())
    }

    /// Whether the state is what is stored now, as far as anybody can know. A manager that is cut
    /// off from the others goes on reading what it last saw.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.0.shared.backend().is_current()
    }

    /// Runs a transaction and returns when it is durable.
    ///
    /// `f` sees everything that was accepted before it, also what is not durable yet; if that
    /// fails, so does this, whatever `f` answered. An error of `f` undoes what it wrote. It runs on the caller's thread
    /// while other writers wait, so it must be short. Where other managers write to the same store
    /// and were first with something that it looked at or writes, a copy of it runs again on what
    /// they left.
    ///
    /// Cancel-safe in this sense: once `f` has run, the transaction takes its course, unless
    /// somebody else's comes first.
    ///
    /// # Errors
    /// What `f` returns; [`StoreError::Commit`], [`StoreError::NoQuorum`], [`StoreError::Failed`],
    /// [`StoreError::Closed`].
    pub async fn update<R, E>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<R, E> + Clone,
    ) -> Result<R, E>
    where
        E: From<StoreError>,
    {
        self.update_with(|tx| f.clone()(tx)).await
    }

    /// The same for an `f` that can be run any number of times.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub async fn update_with<R, E>(
        &self,
        mut f: impl FnMut(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<R, E>
    where
        E: From<StoreError>,
    {
        for _ in 0..MAX_ATTEMPTS {
            let (result, durable) = self.stage(&mut f)?;
            match durable.await {
                Ok(Ok(())) => return result,
                Ok(Err(Refused::Overtaken)) => {}
                Ok(Err(Refused::Because(error))) => return Err(error.into()),
                Err(_) => return Err(StoreError::Closed.into()),
            }
        }
        Err(StoreError::Contended.into())
    }

    /// Moves everything into another backend: `fill` gets what is stored and answers the backend
    /// that has it. Writers wait meanwhile, readers do not; nobody who watches notices. When it
    /// fails the present backend stays.
    ///
    /// # Errors
    /// [`StoreError::Commit`] with what `fill` failed with, [`StoreError::Closed`].
    pub async fn move_to(
        &self,
        fill: impl FnOnce(Content) -> Result<Arc<dyn Backend>, BackendError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (done, moved) = oneshot::channel();
        {
            let mut head = self.0.shared.lock_head();
            if head.closing {
                return Err(StoreError::Closed);
            }
            head.moving = Some(Move { fill: Box::new(fill), done });
            self.0.shared.wake.notify_one();
        }
        moved.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Adds objects of another store, of a backup for example, in as many transactions as is good
    /// for their number.
    ///
    /// # Errors
    /// As [`Tx::restore`]; what was added before the error stays.
    pub async fn restore(
        &self,
        objects: impl IntoIterator<Item = Object>,
    ) -> Result<usize, StoreError> {
        let mut objects = objects.into_iter();
        let mut count = 0;
        loop {
            let some: Vec<Object> = objects.by_ref().take(RESTORED_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(count);
            }
            count += some.len();
            let mut rest = some;
            while !rest.is_empty() {
                rest = self.restore_some(rest).await?;
            }
        }
    }

    /// As many as go into one transaction; answers the others.
    async fn restore_some(&self, objects: Vec<Object>) -> Result<Vec<Object>, StoreError> {
        self.update(|tx| {
            let mut objects = objects.into_iter();
            while !tx.is_full()
                && let Some(object) = objects.next()
            {
                tx.restore(object)?;
            }
            Ok(objects.collect())
        })
        .await
    }

    /// What `f` answers, and when that counts.
    #[allow(clippy::type_complexity)]
    fn stage<R, E>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<R, E>,
    ) -> Result<(Result<R, E>, oneshot::Receiver<Result<(), Refused>>), E>
    where
        E: From<StoreError>,
    {
        let shared = &self.0.shared;
        let mut head = shared.lock_head();
        if let Some(error) = &head.failed {
            return Err(StoreError::Failed(Arc::clone(error)).into());
        }
        if head.closing {
            return Err(StoreError::Closed.into());
        }
        let backend = shared.backend();
        let reads = backend.is_shared().then(Arc::<Reads>::default);
        head.state.reads.clone_from(&reads);
        let mut tx = Tx::new(&mut head.state, backend.room());
        let version = tx.version();
        let (result, changes) = match f(&mut tx) {
            Ok(result) => (Ok(result), tx.finish()),
            Err(error) => {
                drop(tx);
                // A refusal may rest on what is not durable yet and never will be: it waits for that.
                if head.state.revision == shared.revision() {
                    head.state.reads = None;
                    return Err(error);
                }
                (Err(error), Vec::new())
            }
        };
        head.state.reads = None;
        let (done, durable) = oneshot::channel();
        head.queue.push(Staged { changes, version, reads, done });
        shared.wake.notify_one();
        Ok((result, durable))
    }

    /// Watches from now on.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        Watcher::all(self.0.shared.commits.subscribe())
    }

    /// Looks at the state and watches everything after it: nothing is missed, nothing seen twice.
    pub fn view_and_watch<R>(&self, f: impl FnOnce(&View) -> R) -> (R, Watcher) {
        let shared = &self.0.shared;
        let (view, watcher) = {
            let committed = shared.committed.read().unwrap_or_else(PoisonError::into_inner);
            (View(committed.clone()), Watcher::all(shared.commits.subscribe()))
        };
        (f(&view), watcher)
    }

    /// The same for what concerns one node: its object, its tasks, the managers and the cluster.
    pub fn view_and_watch_node<R>(&self, node: &str, f: impl FnOnce(&View) -> R) -> (R, Watcher) {
        let shared = &self.0.shared;
        let (view, watcher) = {
            let committed = shared.committed.read().unwrap_or_else(PoisonError::into_inner);
            (View(committed.clone()), shared.lock_node_watchers().add(node))
        };
        (f(&view), watcher)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("revision", &self.view().revision()).finish_non_exhaustive()
    }
}

impl Handle {
    fn close(&self) {
        self.shared.lock_head().closing = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writing thread panicked");
        }
        self.shared.backend().close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
