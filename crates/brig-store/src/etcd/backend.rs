//! The backend: its own copy of who has which revision and name, and commits by comparing the
//! head.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use brig_proto::etcd::{
    KeyValue, RangeRequest, RequestOp, TxnRequest, TxnResponse, request_op, response_op,
};
use tokio::runtime::Handle;
use tokio::sync::watch as flag;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{EtcdClient, EtcdError};
use super::layout::{self, Head, Layout, Place};
use super::turns::{Turns, Writer};
use super::watch;
use crate::backend::{
    Backend, BackendError, Batch, Content, Foreign, Loaded, NewsSink, Revision, Room, SealedRecord,
};
use crate::object::Kind;
use crate::sealer::BlindName;

/// Keys that are read at a time.
const PAGE: i64 = 512;
/// How long one page may take.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(5);
/// How long one attempt to write may take. The leader may be gone; asking again is harmless.
const ATTEMPT_PATIENCE: Duration = Duration::from_millis(700);
/// Pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);
/// How long writing is tried. A new leader is there in less than half of it.
const WRITE_PATIENCE: Duration = Duration::from_secs(6);
/// How long the news that say what became of a write may take.
const NEWS_PATIENCE: Duration = Duration::from_secs(3);
const UNKNOWN: &str = "a write was not answered, and whether it was made is not known";
/// Requests of others that one commit clears away.
const CLEARED: usize = 4;
/// Heads that are remembered to find an own one among them.
const HEADS: usize = 4096;

/// What etcd takes in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations, `--max-txn-ops`.
    pub operations: usize,
    /// Bytes, `--max-request-bytes`.
    pub bytes: usize,
}

impl Limits {
    /// What etcd takes when nobody told it otherwise.
    pub const DEFAULT: Self = Self { operations: 128, bytes: (3 << 20) / 2 };

    /// Room for the head, for requests to be let go first, and for what surrounds the values.
    const fn usable(self) -> Self {
        Self {
            operations: self.operations.saturating_sub(3 + CLEARED),
            bytes: self.bytes.saturating_sub(16 << 10),
        }
    }
}

/// Sealed records in etcd.
pub struct EtcdBackend {
    client: EtcdClient,
    runtime: Handle,
    limits: Limits,
    stop: CancellationToken,
    tasks: TaskTracker,
    shared: Arc<Shared>,
}

/// What the backend and its watch both know.
pub(super) struct Shared {
    pub(super) layout: Layout,
    known: Mutex<Known>,
    /// Notified when another head is known.
    moved: Condvar,
    /// Whether the watch stands and a majority is behind it.
    pub(super) current: flag::Sender<bool>,
}

/// What is stored, without the values.
pub(super) struct Known {
    pub(super) head: Head,
    /// etcd's revision of the last head that was read or heard of.
    pub(super) heard: i64,
    /// With etcd's revision of each.
    heads: VecDeque<(i64, Head)>,
    /// etcd's revision from which on no head was missed.
    row_from: i64,
    objects: BTreeMap<(Kind, String), Revision>,
    names: BTreeMap<BlindName, String>,
    pub(super) turns: Turns,
}

/// What was read at one moment.
#[derive(Default)]
pub(super) struct Fresh {
    head: Head,
    pub(super) heard: i64,
    objects: BTreeMap<(Kind, String), Revision>,
    names: BTreeMap<BlindName, String>,
    waiting: Vec<Writer>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        self.moved.notify_all();
    }
}

impl Known {
    fn new() -> Self {
        Self {
            head: Head::default(),
            heard: 0,
            heads: VecDeque::new(),
            row_from: 0,
            objects: BTreeMap::new(),
            names: BTreeMap::new(),
            turns: Turns::new(),
        }
    }

    pub(super) fn remember(&mut self, at: i64, head: Head) {
        if self.heads.len() >= HEADS
            && let Some((oldest, _)) = self.heads.pop_front()
        {
            self.row_from = self.row_from.max(oldest);
        }
        self.heads.push_back((at, head));
    }

    /// Knows what was read, and the heads from before.
    pub(super) fn replace(&mut self, fresh: Fresh) {
        let Fresh { head, heard, objects, names, waiting } = fresh;
        (self.head, self.heard, self.row_from) = (head, heard, heard);
        (self.objects, self.names) = (objects, names);
        for writer in waiting {
            self.turns.asks(writer, Instant::now());
        }
        self.remember(heard, head);
    }

    pub(super) fn take(&mut self, head: Head, changes: &[Foreign], names: Names) {
        self.head = head;
        self.turns.wrote(&head.nonce, Instant::now());
        for change in changes {
            let key = (change.kind, change.id.clone());
            match &change.value {
                Some((revision, _)) => self.objects.insert(key, *revision),
                None => self.objects.remove(&key),
            };
        }
        for (name, holder) in names {
            match holder {
                Some(id) => self.names.insert(name, id),
                None => self.names.remove(&name),
            };
        }
    }
}

/// Names and who has them now.
pub(super) type Names = Vec<(BlindName, Option<String>)>;

impl EtcdBackend {
    /// A cluster's part of an etcd. Its methods block and must not be called from within the
    /// runtime.
    #[must_use]
    pub fn new(client: EtcdClient, cluster: &str, limits: Limits, runtime: Handle) -> Self {
        let shared = Arc::new(Shared {
            layout: Layout::new(cluster),
            known: Mutex::new(Known::new()),
            moved: Condvar::new(),
            current: flag::Sender::new(true),
        });
        Self {
            client,
            runtime,
            limits,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shared,
        }
    }

    /// The connection, for those who look after the members.
    #[must_use]
    pub const fn client(&self) -> &EtcdClient {
        &self.client
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits.usable()
    }

    pub(super) fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Whether there is a store of the cluster at all.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`].
    pub fn exists(&self) -> Result<bool, BackendError> {
        let head = RangeRequest { key: self.shared.layout.head(), ..RangeRequest::default() };
        let answer = self.runtime.block_on(self.client.range(&head, READ_PATIENCE));
        Ok(!answer.map_err(|error| unavailable(&error))?.kvs.is_empty())
    }

    /// Writes everything of another backend where there is nothing yet; what an attempt that was
    /// broken off left is removed first. The store exists once the last write is there.
    ///
    /// # Errors
    /// [`BackendError::Conflict`] when there is a store already.
    pub fn import(&self, content: &Content) -> Result<(), BackendError> {
        let Content { loaded, names } = content;
        if self.exists()? {
            return Err(BackendError::Conflict);
        }
        let layout = &self.shared.layout;
        self.runtime
            .block_on(self.client.delete_prefix(&layout.store(), READ_PATIENCE))
            .map_err(|error| unavailable(&error))?;
        let records = loaded.records.iter().map(|record| {
            let key = layout.object(record.kind, &record.id);
            layout::put(key, layout::record(record.revision, &record.value), 0)
        });
        let names = names
            .iter()
            .map(|(name, id)| layout::put(layout.name(name), id.clone().into_bytes(), 0));
        let limits = self.limits.usable();
        let mut success = Vec::new();
        let mut bytes = 0;
        for op in records.chain(names) {
            let size = prost::Message::encoded_len(&op);
            if success.len() >= limits.operations || bytes + size > limits.bytes {
                self.write_blindly(std::mem::take(&mut success))?;
                bytes = 0;
            }
            bytes += size;
            success.push(op);
        }
        self.write_blindly(success)?;
        let head = Head { first: loaded.revision + 1, last: loaded.revision, nonce: self.nonce()? };
        let request = TxnRequest {
            compare: vec![layout::is_absent(layout.head())],
            success: vec![layout::put(layout.head(), head.to_bytes(), 0)],
            failure: Vec::new(),
        };
        let answer = self.runtime.block_on(self.client.txn(&request, READ_PATIENCE));
        match answer.map_err(|error| unavailable(&error))?.succeeded {
            true => Ok(()),
            false => Err(BackendError::Conflict),
        }
    }

    fn write_blindly(&self, success: Vec<RequestOp>) -> Result<(), BackendError> {
        if success.is_empty() {
            return Ok(());
        }
        let request = TxnRequest { success, ..TxnRequest::default() };
        let answer = self.runtime.block_on(self.client.txn(&request, READ_PATIENCE));
        answer.map(drop).map_err(translate)
    }

    /// Everything, and etcd's revision that it is of. Without a majority it is what the member
    /// knows that answers.
    async fn read(&self) -> Result<(Loaded, Fresh), BackendError> {
        let layout = &self.shared.layout;
        match read(&self.client, layout, false).await {
            Err(BackendError::Unavailable(reason)) => {
                let known = read(&self.client, layout, true).await?;
                tracing::warn!(reason, "the store has no quorum, going on with what is known here");
                self.shared.current.send_replace(false);
                Ok(known)
            }
            outcome => outcome,
        }
    }

    /// Commits transactions that fit into one request.
    fn commit_part(&self, first: Revision, group: &[Batch]) -> Result<(), BackendError> {
        let layout = &self.shared.layout;
        let (base, since, mut success, next, waiting) = {
            let known = self.shared.lock();
            if known.head.last.checked_add(1) != Some(first) {
                return Err(BackendError::Conflict);
            }
            let (mut success, next) = self.request(&known, first, group)?;
            let cleared = known.turns.stale(Instant::now()).into_iter().take(CLEARED);
            let own = known.turns.own();
            let cleared = cleared.chain(known.turns.asked.then_some(own));
            success.extend(cleared.map(|writer| layout::delete(layout.waiting(writer))));
            (known.head, known.heard, success, next, layout.waiting(own))
        };
        let head_key = layout.head();
        success.push(layout::put(head_key.clone(), next.head.to_bytes(), 0));
        let read = RangeRequest { key: head_key.clone(), ..RangeRequest::default() };
        let read = RequestOp { request: Some(request_op::Request::RequestRange(read)) };
        let request = TxnRequest {
            // The first commit of all has nothing to compare with.
            compare: vec![if base == Head::default() {
                layout::is_absent(head_key)
            } else {
                layout::value_is(head_key, base.to_bytes())
            }],
            success,
            // Whoever is overtaken asks to be let go first.
            failure: vec![read, layout::put(waiting, Vec::new(), 0)],
        };
        let began = Instant::now();
        let outcome = self.send(&request, next.head, since);
        let mut known = self.shared.lock();
        known.turns.asked = outcome.asked;
        outcome.result?;
        known.turns.took(began.elapsed());
        // The watch may have told of it already, and of what came after.
        if known.head == base {
            known.take(next.head, &next.changes, next.names);
        }
        drop(known);
        self.shared.notify();
        Ok(())
    }

    fn nonce(&self) -> Result<[u8; 16], BackendError> {
        self.shared.lock().turns.nonce()
    }

    /// The operations of a group, after its expectations were found to hold.
    fn request(
        &self,
        known: &Known,
        first: Revision,
        group: &[Batch],
    ) -> Result<(Vec<RequestOp>, Next), BackendError> {
        type Staged<'a> = Option<(Revision, &'a [u8])>;
        let mut objects: BTreeMap<(Kind, &str), Staged<'_>> = BTreeMap::new();
        let mut names: BTreeMap<BlindName, Option<&str>> = BTreeMap::new();
        let mut revision = first.wrapping_sub(1);
        for batch in group {
            revision += 1;
            let version = batch.version.unwrap_or(revision);
            for write in &batch.writes {
                let current = match objects.get(&(write.kind, write.id.as_str())) {
                    Some(staged) => staged.map(|(revision, _)| revision),
                    None => known.objects.get(&(write.kind, write.id.clone())).copied(),
                };
                if current != write.expected {
                    return Err(BackendError::Conflict);
                }
                let value = write.value.as_deref().map(|value| (version, value));
                objects.insert((write.kind, &write.id), value);
            }
            for claim in &batch.names {
                let current = match names.get(&claim.name) {
                    Some(staged) => *staged,
                    None => known.names.get(&claim.name).map(String::as_str),
                };
                if current != claim.from.as_deref() {
                    return Err(BackendError::Conflict);
                }
                names.insert(claim.name, claim.to.as_deref());
            }
        }
        let layout = &self.shared.layout;
        let mut ops = Vec::with_capacity(objects.len() + names.len() + 1);
        let mut changes = Vec::with_capacity(objects.len());
        for ((kind, id), value) in objects {
            let key = layout.object(kind, id);
            ops.push(match value {
                Some((revision, value)) => layout::put(key, layout::record(revision, value), 0),
                None => layout::delete(key),
            });
            // The values are not needed here.
            let value = value.map(|(revision, _)| (revision, Vec::new()));
            changes.push(Foreign { kind, id: id.to_owned(), value });
        }
        for (name, holder) in &names {
            ops.push(match holder {
                Some(id) => layout::put(layout.name(name), id.as_bytes().to_vec(), 0),
                None => layout::delete(layout.name(name)),
            });
        }
        let names = names.into_iter().map(|(name, id)| (name, id.map(str::to_owned))).collect();
        let head = Head { first, last: revision, nonce: known.turns.nonce()? };
        Ok((ops, Next { head, changes, names }))
    }

    /// Sends a transaction until it is known what became of it.
    fn send(&self, request: &TxnRequest, own: Head, since: i64) -> Sent {
        let until = Instant::now() + WRITE_PATIENCE;
        // Whether an earlier attempt may have worked without our hearing of it.
        let mut unsure = false;
        loop {
            let attempt = self.client.txn_once(request, ATTEMPT_PATIENCE);
            let error = match self.runtime.block_on(attempt) {
                Ok(answer) if answer.succeeded => return Sent { asked: false, result: Ok(()) },
                Ok(answer) => {
                    let was = match head_of(&answer) {
                        Some((head, _)) if head == own => Was::Done,
                        Some((_, heard)) if unsure => self.is_in_the_row(own, since, heard),
                        Some(_) | None => Was::NotDone,
                    };
                    let result = match was {
                        Was::Done => Ok(()),
                        Was::NotDone => Err(BackendError::Conflict),
                        Was::Unknown => Err(BackendError::Unavailable(UNKNOWN.to_owned())),
                    };
                    return Sent { asked: true, result };
                }
                Err(error) => error,
            };
            let asked = self.shared.lock().turns.asked;
            if !error.may_pass() {
                // That says nothing about the attempts before.
                let error = if unsure { unavailable(&error) } else { translate(error) };
                return Sent { asked, result: Err(error) };
            }
            unsure = true;
            if self.stop.is_cancelled() || Instant::now() + ATTEMPT_PAUSE >= until {
                self.shared.current.send_replace(false);
                return Sent { asked, result: Err(unavailable(&error)) };
            }
            std::thread::sleep(ATTEMPT_PAUSE);
        }
    }

    /// Whether a head was the last one at some time after `since`, once the watch has told of
    /// everything up to `heard`. Taking one for not done that was done would do it twice: the
    /// second time it finds what the first one left, and is refused because of that.
    fn is_in_the_row(&self, head: Head, since: i64, heard: i64) -> Was {
        let until = Instant::now() + NEWS_PATIENCE;
        let mut known = self.shared.lock();
        loop {
            if known.heads.iter().any(|(_, other)| *other == head) {
                return Was::Done;
            }
            if known.heard >= heard {
                return if known.row_from <= since { Was::NotDone } else { Was::Unknown };
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Was::Unknown;
            }
            let (next, _) =
                self.shared.moved.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner);
            known = next;
        }
    }
}

/// Whether something was done.
enum Was {
    Done,
    NotDone,
    /// Nobody told of it in time.
    Unknown,
}

/// What became of a transaction.
struct Sent {
    /// Whether this writer asks to be let go first now.
    asked: bool,
    result: Result<(), BackendError>,
}

struct Next {
    head: Head,
    changes: Vec<Foreign>,
    names: Names,
}

impl Backend for EtcdBackend {
    fn is_shared(&self) -> bool {
        true
    }

    fn is_current(&self) -> bool {
        *self.shared.current.borrow()
    }

    fn load(&self) -> Result<Loaded, BackendError> {
        let (loaded, fresh) = self.runtime.block_on(self.read())?;
        let mut known = self.shared.lock();
        if fresh.heard >= known.heard {
            known.replace(fresh);
        }
        Ok(loaded)
    }

    fn commit(&self, first: Revision, group: &[Batch]) -> Result<(), BackendError> {
        if self.stop.is_cancelled() {
            return Err(BackendError::Fatal("the store is closed".into()));
        }
        let limits = self.limits.usable();
        let (mut operations, mut bytes) = (0, 0);
        for batch in group {
            let (more, size) = layout::weight(batch);
            if more > limits.operations || size > limits.bytes {
                return Err(BackendError::TooLarge(format!(
                    "{more} changes of {size} bytes, etcd takes {} of {} (--max-txn-ops, --max-request-bytes)",
                    limits.operations, limits.bytes
                )));
            }
            operations += more;
            bytes += size;
        }
        if operations <= limits.operations && bytes <= limits.bytes {
            return self.commit_part(first, group);
        }
        Err(BackendError::TooLarge(format!("{operations} changes of {bytes} bytes at a time")))
    }

    fn page(
        &self,
        after: Option<&SealedRecord>,
        limit: usize,
    ) -> Result<Vec<SealedRecord>, BackendError> {
        self.read_page(after, limit)
    }

    fn reseal(&self, records: &[SealedRecord]) -> Result<usize, BackendError> {
        if self.stop.is_cancelled() {
            return Err(BackendError::Fatal("the store is closed".into()));
        }
        self.reseal_all(records)
    }

    fn turn(&self) -> Option<Instant> {
        self.shared.lock().turns.turn(Instant::now())
    }

    fn room(&self) -> Room {
        let limits = self.limits.usable();
        // Each object may give one name up and take another; sealing and keys add to the bytes.
        Room { objects: (limits.operations / 3).max(1), bytes: limits.bytes / 4 * 3 }
    }

    fn fits(&self, group: &[Batch]) -> usize {
        let limits = self.limits.usable();
        let (mut operations, mut bytes) = (0, 0);
        let fitting = group.iter().take_while(|batch| {
            let (more, size) = layout::weight(batch);
            operations += more;
            bytes += size;
            operations <= limits.operations && bytes <= limits.bytes
        });
        fitting.count().max(1)
    }

    fn follow(&self, sink: NewsSink) {
        let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
        let stop = self.stop.clone();
        let follow = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch::run(client, shared, sink) => {}
            }
        };
        self.tasks.spawn_on(follow, &self.runtime);
    }

    fn close(&self) {
        self.stop.cancel();
    }
}

impl Drop for EtcdBackend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Reads everything page by page, all of it as of one moment; `local` for whatever the member
/// knows that is asked.
pub(super) async fn read(
    client: &EtcdClient,
    layout: &Layout,
    local: bool,
) -> Result<(Loaded, Fresh), BackendError> {
    let wrong = |reason: &str| BackendError::Format {
        path: String::from_utf8_lossy(&layout.store()).into_owned().into(),
        reason: reason.to_owned(),
    };
    let (mut key, end) = (layout.store(), layout::prefix_end(&layout.store()));
    let mut at = 0;
    let mut loaded = Loaded::default();
    let mut known = Fresh::default();
    loop {
        let request = RangeRequest {
            key: key.clone(),
            range_end: end.clone(),
            limit: PAGE,
            revision: at,
            serializable: local,
            ..RangeRequest::default()
        };
        let answer =
            client.range(&request, READ_PATIENCE).await.map_err(|error| unavailable(&error))?;
        if at == 0 {
            at = answer.header.as_ref().map_or(0, |header| header.revision);
        }
        let Some(last) = answer.kvs.last() else { break };
        key.clone_from(&last.key);
        key.push(0);
        let more = answer.more;
        for kv in answer.kvs {
            match layout.parse(&kv.key) {
                Some(Place::Head) => {
                    known.head = Head::parse(&kv.value).ok_or_else(|| wrong("its head"))?;
                }
                Some(Place::Waiting(writer)) => known.waiting.push(writer),
                Some(Place::Name(name)) => {
                    known.names.insert(name, layout::text(&kv));
                }
                Some(Place::Object(kind, id)) => {
                    let (revision, value) = layout::parse_record(&kv.value)
                        .ok_or_else(|| wrong("a record is too short"))?;
                    known.objects.insert((kind, id.clone()), revision);
                    loaded.records.push(SealedRecord { kind, id, revision, value });
                }
                None => return Err(wrong("a key of an unknown kind")),
            }
        }
        if !more {
            break;
        }
    }
    known.heard = at;
    loaded.revision = known.head.last;
    Ok((loaded, known))
}

fn head_of(answer: &TxnResponse) -> Option<(Head, i64)> {
    let Some(response_op::Response::ResponseRange(range)) =
        answer.responses.first()?.response.as_ref()
    else {
        return None;
    };
    let kv: &KeyValue = range.kvs.first()?;
    Some((Head::parse(&kv.value)?, kv.mod_revision))
}

pub(super) fn unavailable(error: &EtcdError) -> BackendError {
    BackendError::Unavailable(brig_types::error::chain(error))
}

pub(super) fn translate(error: EtcdError) -> BackendError {
    if error.is_full() {
        BackendError::Quota
    } else if error.is_too_large() {
        BackendError::TooLarge(brig_types::error::chain(&error))
    } else {
        unavailable(&error)
    }
}
