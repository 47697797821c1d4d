//! Places for connections: how many there may be, and who has to go when there are too many.
//!
//! A connection that is doing something keeps its place. When all places are taken, the oldest
//! one that waits goes: a client that keeps thousands of connections open takes them from itself,
//! and whoever comes new is served.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// Of which nobody knows yet who they are.
    pub handshakes: usize,
}

/// The places of one kind of listener.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    places: Mutex<Places>,
    freed: Notify,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    clock: u64,
    taken: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    phase: Phase,
    /// When the phase began, by the pool's own clock.
    since: u64,
    cut: CancellationToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Idle,
    Busy(u32),
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            places: Mutex::default(),
            freed: Notify::new(),
            evicted: AtomicU64::new(0),
        })
    }

    /// A place for a new connection, if need be that of an older one which waits. Waits itself
    /// while all others are at work.
    pub async fn admit(self: &Arc<Self>) -> Slot {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(slot) = self.try_admit() {
                return slot;
            }
            freed.await;
        }
    }

    fn try_admit(self: &Arc<Self>) -> Option<Slot> {
        let mut places = self.places();
        let handshakes = places.taken.values().filter(|p| p.phase == Phase::Handshake).count();
        if handshakes >= self.limits.handshakes {
            self.evict(&mut places, Phase::Handshake);
        }
        if places.taken.len() >= self.limits.total
            && !self.evict(&mut places, Phase::Idle)
            && !self.evict(&mut places, Phase::Handshake)
        {
            return None;
        }
        places.clock += 1;
        let (id, cut) = (places.clock, CancellationToken::new());
        let place = Place { phase: Phase::Handshake, since: id, cut: cut.clone() };
        places.taken.insert(id, place);
        Some(Slot(Arc::new(Taken { pool: Arc::clone(self), id, cut })))
    }

    /// Takes the place of whoever is in this phase for longest.
    fn evict(&self, places: &mut Places, phase: Phase) -> bool {
        let waiting = places.taken.iter().filter(|(_, place)| place.phase == phase);
        let Some(id) = waiting.min_by_key(|(_, place)| place.since).map(|(id, _)| *id) else {
            return false;
        };
        if let Some(place) = places.taken.remove(&id) {
            place.cut.cancel();
        }
        // The first, and then ever fewer of them: a flood must not fill the log.
        let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
        if evicted.is_power_of_two() {
            tracing::warn!(
                evicted,
                limit = self.limits.total,
                "too many connections: those that wait longest are closed"
            );
        }
        true
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; free again when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Slot(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    pool: Arc<Pool>,
    id: u64,
    cut: CancellationToken,
}

impl Slot {
    /// Cancelled when the place was given to somebody else.
    #[must_use]
    pub fn cut(&self) -> &CancellationToken {
        &self.0.cut
    }

    /// It is known who this is; from now on the connection waits for requests.
    pub fn established(&self) {
        self.change(|phase| if phase == Phase::Handshake { Phase::Idle } else { phase });
    }

    /// Something is being done until the guard is dropped.
    #[must_use]
    pub fn begin(&self) -> Busy {
        self.hold();
        Busy(self.clone())
    }

    /// Something is being done until the connection ends.
    pub fn hold(&self) {
        self.change(|phase| match phase {
            Phase::Busy(n) => Phase::Busy(n.saturating_add(1)),
            Phase::Idle | Phase::Handshake => Phase::Busy(1),
        });
    }

    /// Whether nothing is being done.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let places = self.0.pool.places();
        places.taken.get(&self.0.id).is_none_or(|place| !matches!(place.phase, Phase::Busy(_)))
    }

    fn change(&self, to: impl FnOnce(Phase) -> Phase) {
        let mut places = self.0.pool.places();
        places.clock += 1;
        let now = places.clock;
        let Some(place) = places.taken.get_mut(&self.0.id) else { return };
        place.phase = to(place.phase);
        place.since = now;
        let waits = place.phase == Phase::Idle;
        drop(places);
        if waits {
            // Whoever waits for a place can have this one.
            self.0.pool.freed.notify_one();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.pool.places().taken.remove(&self.id);
        self.pool.freed.notify_one();
    }
}

/// A place in a pool of its own.
#[cfg(test)]
pub(super) fn a_place() -> Slot {
    Pool::new(Limits { total: 1, handshakes: 1 }).try_admit().unwrap()
}

/// Work on a connection.
#[derive(Debug)]
pub struct Busy(Slot);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|phase| match phase {
            Phase::Busy(n) if n > 1 => Phase::Busy(n - 1),
            _ => Phase::Idle,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pool(total: usize, handshakes: usize) -> Arc<Pool> {
        Pool::new(Limits { total, handshakes })
    }

    #[tokio::test]
    async fn who_waits_longest_goes_first() {
        let pool = pool(3, 2);
        let (a, b, c) = (pool.admit().await, pool.admit().await, pool.admit().await);
        // Only two may be unknown.
        assert!(a.cut().is_cancelled() && !b.cut().is_cancelled());
        drop(a);
        b.established();
        c.established();
        // Used again, so the other one waits longer.
        drop(b.begin());
        let d = pool.admit().await;
        assert!(!c.cut().is_cancelled());
        let _e = pool.admit().await;
        assert!(c.cut().is_cancelled() && !b.cut().is_cancelled() && !d.cut().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_keeps_the_place() {
        let pool = pool(2, 2);
        let (a, b) = (pool.admit().await, pool.admit().await);
        let (work, more) = (a.begin(), a.begin());
        b.hold();
        assert!(!a.is_waiting());
        let wait = Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, pool.admit()).await.is_err());
        drop(more);
        assert!(tokio::time::timeout(wait, pool.admit()).await.is_err());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn({
            let pool = Arc::clone(&pool);
            async move { pool.admit().await }
        });
        tokio::task::yield_now().await;
        drop(work);
        let c = tokio::time::timeout(wait, tasks.join_next()).await.unwrap().unwrap().unwrap();
        assert!(a.cut().is_cancelled() && !b.cut().is_cancelled());
        c.hold();
        drop(b);
        assert!(tokio::time::timeout(wait, pool.admit()).await.is_ok());
        assert_eq!(pool.places().taken.len(), 1);
    }
}
