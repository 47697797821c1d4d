//! Follows what all managers write. Records that are sealed anew come without a head: nothing has
//! changed for anybody then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_proto::etcd::watch_client::WatchClient;
use brig_proto::etcd::{
    Event, WatchCreateRequest, WatchRequest, WatchResponse, event, watch_request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::metadata::MetadataValue;

use super::backend::{Names, Shared, read};
use super::client::{EtcdClient, EtcdError, MAX_ANSWER};
use super::layout::{self, Head, Place};
use crate::backend::{Foreign, News, NewsSink};

/// Pause before a watch is begun again.
const RETRY: Duration = Duration::from_millis(200);
/// How long a watch may take to begin.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked whether a majority is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Why a watch ended.
enum End {
    Failed(EtcdError),
    /// What it should go on with is gone.
    Compacted,
    /// The member that was asked has lost the others.
    Canceled(String),
}

/// Begins watches again and again, for ever.
pub(super) async fn run(client: EtcdClient, shared: Arc<Shared>, sink: NewsSink) {
    loop {
        let end = match watch(&client, &shared, &sink).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        shared.current.send_if_modified(|current| std::mem::replace(current, false));
        match end {
            End::Failed(error) => {
                client.failed(&error);
                tracing::info!(error = %brig_types::error::chain(&error), "the watch of the store ended");
            }
            End::Canceled(reason) => tracing::info!(reason, "the watch of the store ended"),
            End::Compacted => {
                tracing::warn!("fell behind the store, reading all of it");
                reload(&client, &shared, &sink).await;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn reload(client: &EtcdClient, shared: &Shared, sink: &NewsSink) {
    match read(client, &shared.layout, false).await {
        Ok((loaded, fresh)) => {
            let mut known = shared.lock();
            if fresh.heard >= known.heard {
                known.replace(fresh);
                drop(known);
                sink(News::Reloaded(loaded));
                shared.notify();
            }
        }
        Err(error) => {
            tracing::warn!(error = %brig_types::error::chain(&error), "cannot read the store");
        }
    }
}

async fn watch(
    client: &EtcdClient,
    shared: &Shared,
    sink: &NewsSink,
) -> Result<std::convert::Infallible, End> {
    let start = shared.lock().heard + 1;
    let (_requests, mut stream) =
        open(client, shared.layout.store(), start).await.map_err(End::Failed)?;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = stream.message() => message.map_err(|status| End::Failed(status.into()))?,
            _ = look.tick() => {
                let standing = client.check_quorum(PATIENCE).await;
                let is_current = standing.is_ok();
                shared.current.send_if_modified(|current| {
                    std::mem::replace(current, is_current) != is_current
                });
                continue;
            }
        };
        let Some(message) = message else {
            return Err(End::Canceled("the member ended it".to_owned()));
        };
        if message.canceled {
            return Err(if message.compact_revision > 0 {
                End::Compacted
            } else {
                End::Canceled(message.cancel_reason)
            });
        }
        take(shared, sink, message);
    }
}

/// Begins a watch of everything with a prefix; it lasts as long as the sender is kept.
pub(super) async fn open(
    client: &EtcdClient,
    prefix: Vec<u8>,
    start_revision: i64,
) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), EtcdError> {
    let (sender, requests) = mpsc::channel(1);
    let create = WatchCreateRequest {
        range_end: layout::prefix_end(&prefix),
        key: prefix,
        start_revision,
        progress_notify: true,
    };
    let request_union = Some(watch_request::RequestUnion::CreateRequest(create));
    // There is room for one.
    let _ = sender.try_send(WatchRequest { request_union });
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    // A member that is cut off from the others says so instead of being silent.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut watches = WatchClient::new(client.channel()?).max_decoding_message_size(MAX_ANSWER);
    let opened = async {
        let mut stream = watches.watch(request).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((first, stream))
    };
    let (first, stream) = tokio::time::timeout(PATIENCE, opened)
        .await
        .map_err(|_| EtcdError::Unanswered(client.endpoints().join(", ")))??;
    match first {
        Some(first) if first.created && !first.canceled => Ok((sender, stream)),
        Some(_) | None => Err(EtcdError::BadAnswer("the watch did not begin")),
    }
}

/// Takes the events of a message in, one commit after the other.
fn take(shared: &Shared, sink: &NewsSink, message: WatchResponse) {
    let mut events = message.events.into_iter().peekable();
    while let Some(first) = events.next() {
        let at = revision(&first);
        let mut together = vec![first];
        while let Some(next) = events.next_if(|event| revision(event) == at) {
            together.push(next);
        }
        commit(shared, sink, at, together);
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn commit(shared: &Shared, sink: &NewsSink, at: i64, events: Vec<Event>) {
    let mut head = None;
    let mut is_request = false;
    let mut changes = Vec::new();
    let mut names = Names::new();
    for event in events {
        let is_put = event.r#type() == event::EventType::Put;
        let Some(kv) = event.kv else { continue };
        match shared.layout.parse(&kv.key) {
            Some(Place::Head) if is_put => head = Head::parse(&kv.value),
            Some(Place::Name(name)) => names.push((name, is_put.then(|| layout::text(&kv)))),
            Some(Place::Object(kind, id)) => {
                let value = if is_put { layout::parse_record(&kv.value) } else { None };
                if is_put && value.is_none() {
                    tracing::error!(%kind, id, "a record in the replicated store is too short");
                    continue;
                }
                changes.push(Foreign { kind, id, value });
            }
            Some(Place::Waiting(writer)) => {
                let mut known = shared.lock();
                if is_put {
                    known.turns.asks(writer, Instant::now());
                } else {
                    known.turns.asks_no_more(writer);
                }
                known.heard = known.heard.max(at);
                is_request = true;
            }
            Some(Place::Head) | None => {}
        }
    }
    if head.is_none() && is_request && changes.is_empty() {
        shared.notify();
        return;
    }
    if head.is_none() && names.is_empty() && is_resealed(shared, &changes) {
        let mut known = shared.lock();
        known.heard = known.heard.max(at);
        drop(known);
        shared.notify();
        return;
    }
    let Some(head) = head else {
        tracing::error!(revision = at, "something else than brig writes to the replicated store");
        return;
    };
    {
        let mut known = shared.lock();
        known.heard = known.heard.max(at);
        known.remember(at, head);
        // The own commits are known already.
        if head.last > known.head.last {
            known.take(head, &changes, names);
        }
    }
    sink(News::Committed { first: head.first, last: head.last, changes });
    shared.notify();
}

/// Whether these are other bytes for what is known, or was known before what is known now.
fn is_resealed(shared: &Shared, changes: &[Foreign]) -> bool {
    let last = shared.lock().head.last;
    let is_old =
        |change: &Foreign| matches!(&change.value, Some((revision, _)) if *revision <= last);
    !changes.is_empty() && changes.iter().all(is_old)
}
