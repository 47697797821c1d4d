//! Whose turn it is to commit. Every commit compares the head, so of several managers that send
//! one at a time only one gets through; what the others sent went through etcd's log for nothing.
//! While several write, they therefore go one after the other, in a circle, each with everything
//! that waits at it.
//!
//! This is courtesy alone. Whoever does not take its turn in time is passed over, and one that
//! knows nothing of turns does no harm: what may be written is decided by the head.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use brig_pki::random;

use crate::backend::BackendError;

/// A writer among the others.
pub(super) type Writer = u64;

/// For how long somebody who has written, or could not, is thought to have more to write.
const ACTIVE: Duration = Duration::from_millis(250);
/// Limits of the time in which a writer has to take its turn.
const MIN_SLOT: Duration = Duration::from_millis(3);
const MAX_SLOT: Duration = Duration::from_millis(60);
/// Age at which somebody's request is taken for left behind.
const STALE: Duration = Duration::from_secs(10);

/// What is known of the writers.
#[derive(Debug)]
pub(super) struct Turns {
    own: Writer,
    /// Who wrote last, and when that was heard of.
    last: Option<(Writer, Instant)>,
    /// Who wrote lately.
    active: BTreeMap<Writer, Instant>,
    /// Who could not: others were first.
    waiting: BTreeMap<Writer, Instant>,
    /// Whether this writer said so of itself.
    pub(super) asked: bool,
    /// How long a commit takes.
    pace: Duration,
}

impl Turns {
    pub(super) fn new() -> Self {
        // Numbers that are the same would only make two writers go at the same time.
        let own =
            random::bytes().map_or_else(|_| u64::from(std::process::id()), u64::from_be_bytes);
        Self::of(own)
    }

    fn of(own: Writer) -> Self {
        Self {
            own,
            last: None,
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asked: false,
            pace: MIN_SLOT,
        }
    }

    pub(super) const fn own(&self) -> Writer {
        self.own
    }

    /// A number that no other commit has, with its writer in it.
    pub(super) fn nonce(&self) -> Result<[u8; 16], BackendError> {
        let mut nonce = [0; 16];
        let random: [u8; 8] =
            random::bytes().map_err(|error| BackendError::Fatal(Box::new(error)))?;
        let parts = self.own.to_be_bytes().into_iter().chain(random);
        nonce.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Ok(nonce)
    }

    /// Somebody has committed.
    pub(super) fn wrote(&mut self, nonce: &[u8; 16], now: Instant) {
        let Some(writer) = nonce.first_chunk().map(|writer| u64::from_be_bytes(*writer)) else {
            return;
        };
        if let Some((last, _)) = self.last {
            // Whoever was before this one in the circle had nothing to write.
            let turn = place(last, writer);
            self.active.retain(|other, _| *other == last || place(last, *other) >= turn);
        }
        self.active.insert(writer, now);
        self.active.retain(|_, at| now.saturating_duration_since(*at) < ACTIVE);
        self.waiting.remove(&writer);
        self.last = Some((writer, now));
    }

    /// How long an own commit took.
    pub(super) fn took(&mut self, time: Duration) {
        self.pace = (self.pace * 7 + time.min(MAX_SLOT)) / 8;
    }

    /// Somebody could not write.
    pub(super) fn asks(&mut self, writer: Writer, now: Instant) {
        self.waiting.insert(writer, now);
    }

    /// Somebody does not ask any more.
    pub(super) fn asks_no_more(&mut self, writer: Writer) {
        self.waiting.remove(&writer);
    }

    /// Requests that nobody will take back.
    pub(super) fn stale(&self, now: Instant) -> Vec<Writer> {
        let is_stale = |at: &Instant| now.saturating_duration_since(*at) > STALE;
        let stale = self.waiting.iter().filter(|(_, at)| is_stale(at));
        stale.map(|(writer, _)| *writer).filter(|writer| *writer != self.own).collect()
    }

    /// Until when others should be let go first.
    pub(super) fn turn(&self, now: Instant) -> Option<Instant> {
        let (last, at) = self.last?;
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < ACTIVE;
        let fresh = |writers: &BTreeMap<Writer, Instant>| -> Vec<Writer> {
            writers.iter().filter(|(_, at)| is_fresh(at)).map(|(writer, _)| *writer).collect()
        };
        let turn = place(last, self.own);
        let mut before = fresh(&self.active);
        before.extend(fresh(&self.waiting));
        before.retain(|writer| *writer != self.own && place(last, *writer) < turn);
        before.sort_unstable();
        before.dedup();
        let slots = u32::try_from(before.len()).unwrap_or(u32::MAX);
        let slot = (self.pace * 3 / 2).clamp(MIN_SLOT, MAX_SLOT);
        (slots > 0).then(|| at + slot.saturating_mul(slots))
    }
}

/// A writer's place in the circle that begins after another one; that one's own place is the last.
const fn place(after: Writer, writer: Writer) -> u64 {
    writer.wrapping_sub(after).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(writer: Writer) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&writer.to_be_bytes());
        nonce
    }

    fn slots(turns: &Turns, now: Instant) -> u32 {
        turns.turn(now).map_or(0, |until| {
            u32::try_from((until - now).as_micros() / MIN_SLOT.as_micros()).unwrap()
        })
    }

    #[test]
    fn they_go_in_a_circle() {
        let mut writers = [10, 20, 30].map(Turns::of);
        let now = Instant::now();
        let mut waits = |writer: Writer| {
            for turns in &mut writers {
                turns.pace = MIN_SLOT * 2 / 3;
                turns.wrote(&nonce(writer), now);
            }
            [0, 1, 2].map(|at: usize| slots(&writers[at], now))
        };
        assert_eq!(waits(10), [0, 0, 0], "nobody has heard of the others");
        assert_eq!(waits(20), [0, 1, 0]);
        assert_eq!(waits(30), [0, 1, 2]);
        assert_eq!(waits(10), [2, 0, 1]);
        assert_eq!(waits(20), [1, 2, 0]);
        // The third lets its turn pass.
        assert_eq!(waits(10), [1, 0, 1]);
        assert_eq!(waits(20), [0, 1, 0]);
    }

    #[test]
    fn whoever_is_alone_waits_for_nobody_and_hears_who_asks() {
        let mut turns = Turns::of(10);
        turns.pace = MIN_SLOT * 2 / 3;
        let now = Instant::now();
        assert_eq!(turns.turn(now), None);
        turns.wrote(&nonce(10), now);
        assert_eq!(turns.turn(now), None);
        turns.asks(20, now);
        turns.asks(10, now);
        assert_eq!(slots(&turns, now), 1);
        let later = now + ACTIVE;
        assert_eq!(turns.turn(later), None, "it does not come any more");
        assert!(turns.stale(later).is_empty());
        assert_eq!(turns.stale(now + STALE * 2), [20]);
        turns.asks_no_more(20);
        assert_eq!(turns.turn(now), None);
    }
}
