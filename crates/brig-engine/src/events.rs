//! The event bus: what happened, to everybody who listens, and the last 256 for whoever asks late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use brig_api::event::{Actor, Event};
use brig_api::filters::Filters;
use time::OffsetDateTime;
use tokio::sync::broadcast;

/// How many past events are kept, as dockerd does.
pub const KEPT: usize = 256;
/// How far a listener may fall behind before it loses the oldest.
const LAG: usize = 4096;

/// The names of event types of the Engine API.
pub mod kind {
    /// Containers.
    pub const CONTAINER: &str = "container";
    /// Images.
    pub const IMAGE: &str = "image";
    /// Volumes.
    pub const VOLUME: &str = "volume";
    /// Networks.
    pub const NETWORK: &str = "network";
}

/// Publishes and keeps events. One per engine; handed out by reference.
#[derive(Debug)]
pub struct EventBus {
    past: Mutex<VecDeque<Event>>,
    sender: broadcast::Sender<Event>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { past: Mutex::default(), sender: broadcast::Sender::new(LAG) }
    }
}

impl EventBus {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody. Time and scope are filled in where they are missing.
    pub fn publish(&self, mut event: Event) {
        if event.time_nano == 0 {
            let now = OffsetDateTime::now_utc();
            event.time = now.unix_timestamp();
            event.time_nano = i64::try_from(now.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        }
        if event.scope.is_empty() {
            event.scope = "local".to_owned();
        }
        // Under the lock, so that a new listener gets each event once: from the past or live.
        let mut past = self.lock();
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        let _ = self.sender.send(event);
    }

    /// Publishes an event of type `kind`.
    pub fn emit(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let (status, from) = match kind {
            kind::CONTAINER => (action, attributes.get("image").cloned().unwrap_or_default()),
            kind::IMAGE => (action, String::new()),
            _ => ("", String::new()),
        };
        self.publish(Event {
            status: status.to_owned(),
            id: if status.is_empty() { String::new() } else { id.to_owned() },
            from,
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            ..Event::default()
        });
    }

    /// Listens: past events not older than `since` first (none without it), then live ones up to
    /// `until`.
    #[must_use]
    pub fn subscribe(
        &self,
        since: Option<OffsetDateTime>,
        until: Option<OffsetDateTime>,
        filters: Filters,
    ) -> EventSubscription {
        let past = self.lock();
        let receiver = self.sender.subscribe();
        let pending = match since {
            Some(since) => past
                .iter()
                .filter(|event| i128::from(event.time_nano) >= since.unix_timestamp_nanos())
                .filter(|event| is_before(event, until) && matches(&filters, event))
                .cloned()
                .collect(),
            None => VecDeque::new(),
        };
        EventSubscription { pending, receiver, until, filters }
    }
}

fn is_before(event: &Event, until: Option<OffsetDateTime>) -> bool {
    until.is_none_or(|until| i128::from(event.time_nano) <= until.unix_timestamp_nanos())
}

/// One listener.
#[derive(Debug)]
pub struct EventSubscription {
    pending: VecDeque<Event>,
    receiver: broadcast::Receiver<Event>,
    until: Option<OffsetDateTime>,
    filters: Filters,
}

impl EventSubscription {
    /// The next event; `None` when `until` has passed or the engine is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        loop {
            let received = match self.until {
                Some(until) => {
                    let left = until - OffsetDateTime::now_utc();
                    let left = std::time::Duration::try_from(left).ok()?;
                    tokio::time::timeout(left, self.receiver.recv()).await.ok()?
                }
                None => self.receiver.recv().await,
            };
            match received {
                Ok(event) if !is_before(&event, self.until) => return None,
                Ok(event) if matches(&self.filters, &event) => return Some(event),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    tracing::debug!(lost, "a listener of events was too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Whether an event passes the filters. Unknown keys are ignored, as dockerd does.
#[must_use]
pub fn matches(filters: &Filters, event: &Event) -> bool {
    let name = event.actor.attributes.get("name").map(String::as_str).unwrap_or_default();
    let action = event.action.as_str();
    // `exec_create: sh -c x` is matched by its first word too.
    let short = action.split_once(':').map_or(action, |(short, _)| short);
    let by_object = [
        "container",
        "daemon",
        "plugin",
        "volume",
        "network",
        "node",
        "service",
        "secret",
        "config",
    ]
    .into_iter()
    .all(|key| filters.matches_prefix(key, &event.actor.id) || filters.matches_prefix(key, name));
    by_object
        && (filters.matches_exactly("event", action) || filters.matches_exactly("event", short))
        && filters.matches_exactly("type", &event.kind)
        && filters.matches_exactly("scope", &event.scope)
        && filters.matches_labels("label", &event.actor.attributes)
        && matches_image(filters, event, name)
}

fn matches_image(filters: &Filters, event: &Event, name: &str) -> bool {
    let image = match event.kind.as_str() {
        kind::IMAGE => name,
        _ => event.actor.attributes.get("image").map(String::as_str).unwrap_or_default(),
    };
    let bare = |text: &str| -> String {
        match text.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
            _ => text.to_owned(),
        }
    };
    let id = event.actor.id.as_str();
    [id, image, &bare(id), &bare(image)]
        .into_iter()
        .any(|candidate| filters.matches_exactly("image", candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn past_then_live_and_an_end() {
        let bus = EventBus::default();
        bus.emit(kind::CONTAINER, "create", "c1", attributes(&[("image", "busybox:1")]));
        bus.emit(kind::VOLUME, "create", "v1", BTreeMap::new());
        let since = OffsetDateTime::now_utc() - time::Duration::minutes(1);
        let until = OffsetDateTime::now_utc() + time::Duration::milliseconds(300);
        let filters = Filters::new().with("type", "container");
        let mut all = bus.subscribe(Some(since), Some(until), filters);
        let mut live = bus.subscribe(None, None, Filters::new());
        bus.emit(kind::CONTAINER, "start", "c1", BTreeMap::new());
        let first = all.next().await.unwrap();
        assert_eq!((first.action.as_str(), first.from.as_str()), ("create", "busybox:1"));
        assert_eq!(first.status, "create");
        assert_eq!(all.next().await.unwrap().action, "start");
        assert_eq!(all.next().await, None);
        assert_eq!(live.next().await.unwrap().action, "start");
    }

    #[test]
    fn only_the_last_are_kept() {
        let bus = EventBus::default();
        for n in 0..KEPT + 3 {
            bus.emit(kind::VOLUME, &n.to_string(), "v", BTreeMap::new());
        }
        let past = bus.lock();
        assert_eq!((past.len(), past[0].action.as_str()), (KEPT, "3"));
        assert_eq!(past[0].status, "");
    }

    #[test]
    fn filters() {
        let bus = EventBus::default();
        bus.emit(
            kind::CONTAINER,
            "exec_create: sh",
            "c0ffee",
            attributes(&[("name", "web"), ("image", "r.io:5000/app:1"), ("l", "x")]),
        );
        let event = bus.lock()[0].clone();
        for (key, value, expected) in [
            ("container", "c0f", true),
            ("container", "web", true),
            ("container", "other", false),
            ("event", "exec_create", true),
            ("event", "exec_start", false),
            ("image", "r.io:5000/app", true),
            ("image", "app", false),
            ("label", "l=x", true),
            ("label", "l=y", false),
            ("scope", "swarm", false),
            ("bogus", "x", true),
        ] {
            assert_eq!(
                matches(&Filters::new().with(key, value), &event),
                expected,
                "{key}={value}"
            );
        }
    }
}
