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

use super::backend::{Shared, read};
use super::client::{EtcdClient, EtcdError, MAX_ANSWER};
use super::known::Names;
use super::layout::{self, Head, Mark, Place};
use crate::backend::{Foreign, News, NewsSink, Revision};

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
    let mut mark = None;
    let mut gone = Vec::new();
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
                is_request = true;
            }
            Some(Place::Apart(writer)) => match is_put.then(|| Mark::parse(&kv.value)) {
                Some(parsed) => mark = parsed.map(|mark| (writer, mark)),
                None => gone.push(writer),
            },
            Some(Place::Head | Place::Freed) | None => {}
        }
    }
    let news = {
        let mut known = shared.lock();
        // What was read anew may be newer than what the watch tells.
        let is_known = at <= known.heard;
        known.heard = known.heard.max(at);
        if let Some(head) = head {
            known.remember(at, head.nonce, head.first);
            // The own commits are known already.
            if head.last > known.revision {
                known.take(head, at, &changes, names);
                gone.into_iter().for_each(|writer| known.forget_mark(writer));
            }
            Some((head.first, head.last))
        } else if let Some((writer, mark)) = mark {
            let is_news = !is_known && mark.count > 0;
            let first = (!is_known)
                .then(|| known.take_apart((writer, mark), at, &changes, names))
                .filter(|_| is_news);
            first.map(|first| (first, known.revision))
        } else if names.is_empty() && is_resealed(known.revision, &changes) {
            known.resealed(at, &changes);
            None
        } else {
            if !is_request || !changes.is_empty() {
                let what = "something else than brig writes to the replicated store";
                tracing::error!(revision = at, "{what}");
            }
            None
        }
    };
    if let Some((first, last)) = news {
        sink(News::Committed { first, last, changes });
    }
    shared.notify();
}

/// Whether these are other bytes for what is known, or was known before what is known now.
fn is_resealed(last: Revision, changes: &[Foreign]) -> bool {
    let is_old =
        |change: &Foreign| matches!(&change.value, Some((revision, _)) if *revision <= last);
    !changes.is_empty() && changes.iter().all(is_old)
}
