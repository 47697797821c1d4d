//! Which nodes have a session, and until when each of them has to be heard of again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Periods without a heartbeat after which a node is down.
pub(crate) const GRACE: u32 = 3;
/// A deadline that is noticed this late was missed by the manager, not by the nodes: the process
/// or the machine stood still, and heartbeats wait to be read.
pub(crate) const STALLED: Duration = Duration::from_secs(1);
/// The same for nodes that were there when the manager started.
pub(crate) const GRACE_AFTER_START: u32 = 6;
/// The same for nodes whose manager is gone: they have to notice that, and find another one.
pub(crate) const GRACE_WITHOUT_MANAGER: u32 = 10;
/// How long a node is down before its tasks are given up.
pub(crate) const ORPHAN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Registrations of one node within [`RATE_WINDOW`].
const RATE_LIMIT: usize = 3;
const RATE_WINDOW: Duration = Duration::from_secs(8);
/// Most that a period is longer or shorter than asked for.
const JITTER: Duration = Duration::from_millis(500);

/// A call within a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat<'a> {
    /// The caller.
    pub(crate) node: &'a str,
    /// The session that it believes to be in.
    pub(crate) session: &'a str,
}

/// All sessions of a dispatcher.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    nodes: BTreeMap<String, Entry>,
    registrations: BTreeMap<String, VecDeque<Instant>>,
    /// What [`Sessions::next_deadline`] answered last: whoever asked sleeps until then.
    awaited: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    session: Option<(String, CancellationToken)>,
    deadline: Instant,
}

impl Sessions {
    /// Waits for a node that had a session with an earlier manager.
    pub(crate) fn expect(&mut self, node: String, deadline: Instant) {
        self.nodes.entry(node).or_insert(Entry { session: None, deadline });
    }

    /// Whether the node has a session.
    pub(crate) fn has(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|entry| entry.session.is_some())
    }

    /// Whether `session` is the node's current one.
    pub(crate) fn check(&self, beat: Beat<'_>) -> Result<CancellationToken, Status> {
        let current = self
            .nodes
            .get(beat.node)
            .and_then(|entry| entry.session.as_ref())
            .ok_or_else(|| Status::not_found("node not registered"))?;
        if current.0 == beat.session {
            Ok(current.1.clone())
        } else {
            Err(Status::invalid_argument("session invalid"))
        }
    }

    /// Begins a session, or goes on with the one the node names.
    pub(crate) fn register(
        &mut self,
        beat: Beat<'_>,
        now: Instant,
        period: Duration,
        parent: &CancellationToken,
    ) -> Result<(String, CancellationToken), Status> {
        if let Ok(end) = self.check(beat) {
            return Ok((beat.session.to_owned(), end));
        }
        let recent = self.registrations.entry(beat.node.to_owned()).or_default();
        recent.retain(|at| now.duration_since(*at) < RATE_WINDOW);
        if recent.len() >= RATE_LIMIT {
            return Err(Status::unavailable(format!(
                "node {} exceeded rate limit count of registrations",
                beat.node
            )));
        }
        recent.push_back(now);
        let session = (brig_types::id::SessionId::generate().to_string(), parent.child_token());
        let old = self.nodes.insert(
            beat.node.to_owned(),
            Entry { session: Some(session.clone()), deadline: now + period * GRACE },
        );
        if let Some((_, end)) = old.and_then(|entry| entry.session) {
            end.cancel();
        }
        Ok(session)
    }

    /// A heartbeat; the next one is due in `period`. Answers whether the node would be missed
    /// earlier than whoever waits for the next deadline knows of.
    pub(crate) fn beat(
        &mut self,
        beat: Beat<'_>,
        now: Instant,
        period: Duration,
    ) -> Result<bool, Status> {
        self.check(beat)?;
        let deadline = now + period * GRACE;
        if let Some(entry) = self.nodes.get_mut(beat.node) {
            entry.deadline = deadline;
        }
        Ok(self.awaited.is_none_or(|awaited| deadline < awaited))
    }

    /// Ends a node's session.
    pub(crate) fn end(&mut self, node: &str) {
        if let Some((_, end)) = self.nodes.remove(node).and_then(|entry| entry.session) {
            end.cancel();
        }
    }

    /// Misses nobody before `deadline`.
    pub(crate) fn postpone(&mut self, deadline: Instant) {
        for entry in self.nodes.values_mut() {
            entry.deadline = entry.deadline.max(deadline);
        }
    }

    /// When the next node would be missed.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.awaited = self.nodes.values().map(|entry| entry.deadline).min();
        self.awaited
    }

    /// Ends the sessions of nodes that have been silent for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<String> {
        let silent: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, entry)| entry.deadline <= now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in &silent {
            self.end(node);
        }
        self.registrations.retain(|_, times| {
            times.retain(|at| now.duration_since(*at) < RATE_WINDOW);
            !times.is_empty()
        });
        silent
    }
}

/// The period with some randomness, so that nodes do not all come at once.
pub(crate) fn with_jitter(period: Duration) -> Duration {
    let random = brig_pki::random::bytes::<2>().map_or(0, u16::from_be_bytes);
    let span = JITTER.min(period / 4);
    (period - span) + span * 2 * u32::from(random) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    fn beat<'a>(node: &'a str, session: &'a str) -> Beat<'a> {
        Beat { node, session }
    }

    #[test]
    fn silence_ends_a_session() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let parent = CancellationToken::new();
        let (id, end) = sessions.register(beat("n", ""), start, PERIOD, &parent).unwrap();
        let later = start + Duration::from_secs(14);
        sessions.beat(beat("n", &id), later, PERIOD).unwrap();
        assert!(sessions.expire(later + Duration::from_secs(14)).is_empty());
        assert!(!end.is_cancelled());
        assert_eq!(sessions.expire(later + Duration::from_secs(15)), ["n"]);
        assert!(end.is_cancelled());
        let error = sessions.beat(beat("n", &id), later, PERIOD).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    }

    #[test]
    fn only_an_earlier_deadline_is_news() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let parent = CancellationToken::new();
        let (id, _) = sessions.register(beat("n", ""), start, PERIOD, &parent).unwrap();
        assert!(sessions.beat(beat("n", &id), start, PERIOD).unwrap(), "nobody waits yet");
        assert_eq!(sessions.next_deadline(), Some(start + PERIOD * GRACE));
        let later = start + Duration::from_secs(1);
        assert!(!sessions.beat(beat("n", &id), later, PERIOD).unwrap());
        assert!(sessions.beat(beat("n", &id), later, PERIOD / 5).unwrap(), "a shorter period");
    }

    #[test]
    fn a_manager_that_stood_still_misses_nobody() {
        let (mut sessions, start) = (Sessions::default(), Instant::now());
        let parent = CancellationToken::new();
        let (id, _) = sessions.register(beat("n", ""), start, PERIOD, &parent).unwrap();
        let later = start + Duration::from_secs(60);
        sessions.postpone(later + PERIOD);
        assert!(sessions.expire(later).is_empty());
        assert!(sessions.check(beat("n", &id)).is_ok());
        assert_eq!(sessions.expire(later + PERIOD), ["n"]);
    }

    #[test]
    fn a_new_session_replaces_the_old_one() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let parent = CancellationToken::new();
        let (first, end) = sessions.register(beat("n", ""), now, PERIOD, &parent).unwrap();
        let (same, _) = sessions.register(beat("n", &first), now, PERIOD, &parent).unwrap();
        assert_eq!(first, same);
        let (second, _) = sessions.register(beat("n", "stale"), now, PERIOD, &parent).unwrap();
        assert_ne!(first, second);
        assert!(end.is_cancelled());
        let error = sessions.check(beat("n", &first)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }

    #[test]
    fn registrations_are_limited() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let parent = CancellationToken::new();
        for _ in 0..3 {
            sessions.register(beat("n", ""), now, PERIOD, &parent).unwrap();
        }
        let error = sessions.register(beat("n", ""), now, PERIOD, &parent).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        let later = now + RATE_WINDOW;
        assert!(sessions.register(beat("n", ""), later, PERIOD, &parent).is_ok());
    }

    #[test]
    fn jitter_stays_small() {
        for _ in 0..100 {
            let period = with_jitter(PERIOD);
            assert!(period >= PERIOD - JITTER && period <= PERIOD + JITTER, "{period:?}");
        }
        assert!(with_jitter(Duration::from_millis(1)) > Duration::ZERO);
    }
}
