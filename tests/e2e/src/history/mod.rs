//! What clients did to a cluster's objects, when, and what they were told: recorded while
//! something goes wrong, judged afterwards.
//!
//! Docker's API makes a register of every name: it is created, replaced by whoever names its
//! version (`Version.Index`), removed. Each write brings a value that no other write brings, so
//! what is read tells which write it came from.
//!
//! Writes have to be linearizable over all managers. Reads come from a manager's memory and may be
//! late, but never turn back, never show what nobody wrote, and always show what the same client
//! was told by the same manager before.

mod linear;
mod register;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use self::linear::{Model, Timed, order};
pub use self::register::{Register, Step, Value};

/// What a write was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was done.
    Done,
    /// It was refused because of what is stored.
    Refused,
    /// Nothing that says what became of it, now or later.
    Nothing,
}

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Created the name with this value.
    Create(Told, u64),
    /// Replaced one value by another one.
    Update(Told, u64, u64),
    /// Removed the object that was created with this value.
    Remove(Told, u64),
    /// Read; nothing when the name was not there.
    Read(Option<Seen>),
}

/// What a read showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The value and the one the object was created with.
    pub value: Value,
    /// `Version.Index`.
    pub version: u64,
}

/// An action, by whom and when.
#[derive(Clone, Debug)]
pub struct Event {
    /// Which name it was about.
    pub key: String,
    /// One client of one run of one manager: its actions follow each other.
    pub session: u64,
    /// When it began and ended, in nanoseconds of this run.
    pub call: u64,
    /// See `call`.
    pub end: u64,
    /// What was done.
    pub action: Action,
    /// Of a read: every manager had all there is to have, so it has to fit into the order of
    /// writes as they do.
    pub is_settled: bool,
}

/// Everything that clients did.
#[derive(Debug)]
pub struct History {
    start: Instant,
    events: Mutex<Vec<Event>>,
}

impl Default for History {
    fn default() -> Self {
        Self { start: Instant::now(), events: Mutex::default() }
    }
}

/// Why a history is impossible with a store that does what it promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

impl History {
    /// Nanoseconds since the history began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes what was done.
    pub fn note(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// What was done, by name.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<String, Vec<Event>> {
        let mut keys: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for event in self.events.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            keys.entry(event.key.clone()).or_default().push(event.clone());
        }
        keys
    }

    /// Writes that were done, that were refused, and of which nothing is known; reads.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize, usize) {
        let mut counts = (0, 0, 0, 0);
        for event in self.events.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            match event.action {
                Action::Create(told, _) | Action::Update(told, ..) | Action::Remove(told, _) => {
                    match told {
                        Told::Done => counts.0 += 1,
                        Told::Refused => counts.1 += 1,
                        Told::Nothing => counts.2 += 1,
                    }
                }
                Action::Read(_) => counts.3 += 1,
            }
        }
        counts
    }

    /// Everything that cannot be.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.by_key().into_iter().flat_map(|(key, events)| judge(&key, &events)).collect()
    }
}

/// What cannot be in the history of one name.
#[must_use]
pub fn judge(key: &str, events: &[Event]) -> Vec<Violation> {
    let violation = |what: String| Violation { key: key.to_owned(), what };
    let mut found = Vec::new();
    if let Some(what) = versions(events) {
        found.push(violation(what));
    }
    let writes = writes(events);
    if let Some(what) = unwritten(events, &writes) {
        found.push(violation(what));
        return found;
    }
    let Some(chosen) = order::<Register>(&writes) else {
        let mut told: Vec<&Event> = events.iter().collect();
        told.sort_by_key(|event| event.call);
        let told: Vec<String> = told
            .into_iter()
            .filter(|event| event.is_settled || !matches!(event.action, Action::Read(_)))
            .map(|event| format!("  {}–{}: {:?}", event.call, event.end, event.action))
            .collect();
        found.push(violation(format!("no order explains these:\n{}", told.join("\n"))));
        return found;
    };
    let row = Row::of(&writes, &chosen);
    found.extend(row.turns_back(events).into_iter().map(violation));
    found
}

/// A version belongs to one value, of one object.
fn versions(events: &[Event]) -> Option<String> {
    let mut known: BTreeMap<u64, Value> = BTreeMap::new();
    for event in events {
        let Action::Read(Some(seen)) = event.action else { continue };
        let value = *known.entry(seen.version).or_insert(seen.value);
        if value != seen.value {
            return Some(format!("version {} is {value:?} and {:?}", seen.version, seen.value));
        }
    }
    None
}

/// The writes that were done or may have been, and the reads that have to fit in with them. A
/// write of which nothing is known was done before what it wrote was seen.
fn writes(events: &[Event]) -> Vec<Timed<Step>> {
    let seen = |value: u64| {
        let reads = events.iter().filter(|event| match event.action {
            Action::Read(Some(seen)) => seen.value.value == value,
            _ => false,
        });
        reads.map(|event| event.end).min()
    };
    let timed = |event: &Event, told: Told, step: Step, value: Option<u64>| {
        let end = match told {
            Told::Done => Some(event.end),
            Told::Refused => return None,
            Told::Nothing => value.and_then(seen),
        };
        Some(Timed { call: event.call, end, step })
    };
    events
        .iter()
        .filter_map(|event| match event.action {
            Action::Create(told, value) => timed(event, told, Step::Create(value), Some(value)),
            Action::Update(told, before, value) => {
                timed(event, told, Step::Update(before, value), Some(value))
            }
            Action::Remove(told, value) => timed(event, told, Step::Remove(value), None),
            Action::Read(seen) if event.is_settled => {
                let step = Step::Read(seen.map(|seen| seen.value));
                Some(Timed { call: event.call, end: Some(event.end), step })
            }
            Action::Read(_) => None,
        })
        .collect()
}

/// Reads show what was written, not before somebody began to write it; refusals have a reason.
fn unwritten(events: &[Event], writes: &[Timed<Step>]) -> Option<String> {
    let began = |value: u64| {
        let of_value = writes.iter().filter(|write| match write.step {
            Step::Create(written) | Step::Update(_, written) => written == value,
            Step::Remove(_) | Step::Read(_) => false,
        });
        of_value.map(|write| write.call).min()
    };
    for event in events {
        match event.action {
            Action::Read(Some(seen)) => {
                let values = [seen.value.value, seen.value.created];
                if values.iter().any(|value| began(*value).is_none_or(|call| call > event.end)) {
                    return Some(format!("{seen:?} was read, which nobody had written"));
                }
            }
            Action::Create(Told::Refused, _) | Action::Update(Told::Refused, ..) => {
                let has_reason = writes
                    .iter()
                    .any(|write| write.call < event.end && !matches!(write.step, Step::Read(_)));
                if !has_reason {
                    return Some(format!("{:?} was refused without a reason", event.action));
                }
            }
            _ => {}
        }
    }
    None
}

/// The states of a name, one after the other.
struct Row {
    places: BTreeMap<u64, usize>,
    /// Where the name was not there.
    gaps: BTreeSet<usize>,
    /// A removal of which nothing is known is not in the row unless something shows it.
    gaps_are_known: bool,
}

impl Row {
    fn of(writes: &[Timed<Step>], chosen: &[usize]) -> Self {
        let mut row = Self {
            places: BTreeMap::new(),
            gaps: BTreeSet::from([0]),
            gaps_are_known: writes
                .iter()
                .all(|write| write.end.is_some() || !matches!(write.step, Step::Remove(_))),
        };
        let steps = chosen.iter().filter_map(|at| writes.get(*at));
        for (place, write) in (1..).zip(steps.filter(|write| !matches!(write.step, Step::Read(_))))
        {
            match write.step {
                Step::Create(value) | Step::Update(_, value) => {
                    row.places.insert(value, place);
                }
                Step::Remove(_) | Step::Read(_) => {
                    row.gaps.insert(place);
                }
            }
        }
        row
    }

    /// Sessions to which a manager showed something older than what it had told them before.
    fn turns_back(&self, events: &[Event]) -> Vec<String> {
        let mut sessions: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
        for event in events {
            sessions.entry(event.session).or_default().push(event);
        }
        let mut found = Vec::new();
        for events in sessions.values_mut() {
            events.sort_by_key(|event| event.call);
            let (mut place, mut version) = (0, 0);
            for event in events {
                let shown = match event.action {
                    Action::Create(Told::Done, value) | Action::Update(Told::Done, _, value) => {
                        self.places.get(&value).copied()
                    }
                    Action::Read(Some(seen)) => {
                        if seen.version < version {
                            found.push(format!("{event:?} was shown after version {version}"));
                        }
                        version = version.max(seen.version);
                        self.places.get(&seen.value.value).copied()
                    }
                    Action::Read(None) if self.gaps_are_known => {
                        let gap = self.gaps.range(place..).next().copied();
                        if gap.is_none() {
                            found.push(format!("{event:?}, but nothing had removed it"));
                        }
                        gap
                    }
                    _ => None,
                };
                let Some(shown) = shown else { continue };
                if shown < place {
                    found.push(format!("{event:?} was shown after something newer"));
                }
                place = place.max(shown);
            }
        }
        found
    }
}
