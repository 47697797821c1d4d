//! Commits apart from the row.
//!
//! A commit of the row compares the last one, so only one writer at a time gets through: right for
//! whatever looks at many objects. What reads and writes single objects and names only is compared
//! with just those, so such commits of several managers go through etcd side by side. What gives
//! them their place is the order in which etcd applied them, which the watch tells.
//!
//! The writer's mark, a key of its own, is written with each. A commit of the row compares all
//! marks with what it knows, so it is never built on less than everything before it; a writer that
//! asks for its turn in the row is let go by those that would go apart, or it would never get
//! through. Together with the head the marks say how many transactions there are.
//!
//! The mark is compared too. So it tells what became of a commit whose answer was lost; and when
//! that was not made, replacing the mark by one that counts nothing sees to it that it never will
//! be, however long the request is still under way somewhere.

use std::collections::BTreeMap;
use std::time::Instant;

use brig_proto::etcd::TxnRequest;

use super::backend::{Changes, EtcdBackend, Sent, UNKNOWN, found, revision_of};
use super::known::Known;
use super::layout::{self, Head, Mark, Nonce};
use super::turns::ACTIVE;
use crate::backend::{Backend as _, BackendError, Batch, Revision, Seen};

impl Known {
    /// Whether commits apart met each other lately: who writes the same things as others does
    /// better in the row.
    pub(super) fn is_row_time(&self, now: Instant) -> bool {
        self.row_until.is_some_and(|until| now < until)
    }
}

impl EtcdBackend {
    /// `None` where the row is the way.
    pub(super) fn commit_group_apart(
        &self,
        first: Revision,
        group: &[Batch],
    ) -> Result<Option<Revision>, BackendError> {
        if self.is_stopped() || self.fits(group) < group.len() {
            return Ok(None);
        }
        let layout = self.layout();
        let (mut success, mut guards, total, own, nonces) = {
            let known = self.shared().lock();
            if known.revision.checked_add(1) != Some(first) {
                return Err(BackendError::Conflict);
            }
            if known.head == Head::default() || known.is_row_time(Instant::now()) {
                return Ok(None);
            }
            let (mut success, changes) = self.request(&known, first, group)?;
            let own = known.turns.own();
            if known.turns.asked {
                success.push(layout::delete(layout.waiting(own)));
            }
            let guards = self.guards(&known, &changes, group);
            let nonces = (known.turns.nonce()?, known.turns.nonce()?);
            (success, guards, known.own_mark(), own, nonces)
        };
        let ((total, own_at), count) = (total, group.len() as u64);
        let mark = Mark { total: total + count, count, nonce: nonces.0 };
        let key = layout.mark(own);
        guards.insert(key.clone(), own_at);
        if guards.len() > self.limits().operations {
            return Ok(None);
        }
        success.push(layout::put(key.clone(), mark.to_bytes(), 0));
        let compare = guards.into_iter().map(|(key, at)| layout::is_unwritten_since(key, at));
        let request = TxnRequest { compare: compare.collect(), success, failure: Vec::new() };
        let began = Instant::now();
        let Sent { answer, unsure } = self.send(&request)?;
        let done_at = match answer.succeeded {
            true => Some(revision_of(&answer)),
            false if unsure => {
                let nothing = Mark { total, count: 0, nonce: nonces.1 };
                self.done_or_never(key, own_at, nothing, &mark.nonce)?
            }
            false => None,
        };
        let mut known = self.shared().lock();
        let Some(at) = done_at else {
            known.row_until = Some(Instant::now() + ACTIVE);
            return Ok(None);
        };
        known.turns.asked = false;
        known.turns.took(began.elapsed());
        drop(known);
        self.place_of(&mark.nonce, at).map(Some).ok_or_else(unknown)
    }

    /// Etcd's revision of a commit that may have been made; `None` when it was not, and will not
    /// be any more: the mark is another one then.
    fn done_or_never(
        &self,
        key: Vec<u8>,
        own_at: i64,
        nothing: Mark,
        nonce: &Nonce,
    ) -> Result<Option<i64>, BackendError> {
        let request = TxnRequest {
            compare: vec![layout::is_unwritten_since(key.clone(), own_at)],
            success: vec![layout::put(key.clone(), nothing.to_bytes(), 0)],
            failure: vec![layout::get(key)],
        };
        let Sent { answer, .. } = self.send(&request)?;
        if answer.succeeded {
            return Ok(None);
        }
        let kv = found(&answer).ok_or_else(unknown)?;
        match Mark::parse(&kv.value) {
            Some(mark) if mark.nonce == *nonce => Ok(Some(kv.mod_revision)),
            // An attempt at this one was not answered.
            Some(mark) if mark.nonce == nothing.nonce => Ok(None),
            Some(_) | None => Err(unknown()),
        }
    }

    /// Every key that the group reads or writes, with etcd's revision of it.
    fn guards(&self, known: &Known, changes: &Changes, group: &[Batch]) -> BTreeMap<Vec<u8>, i64> {
        let layout = self.layout();
        let object = |kind, id: &str| {
            let at = known.objects.get(&(kind, id.to_owned())).map_or(0, |(_, at)| *at);
            (layout.object(kind, id), at)
        };
        let name = |name| (layout.name(name), known.names.get(name).map_or(0, |(_, at)| *at));
        let written = changes.objects.iter().map(|change| object(change.kind, &change.id));
        let claimed = changes.names.iter().map(|(blind, _)| name(blind));
        let seen = group.iter().flat_map(|batch| batch.seen.iter().flatten());
        let seen = seen.map(|seen| match seen {
            Seen::Object(kind, id) => object(*kind, id),
            Seen::Name(blind) => name(blind),
        });
        let mut guards: BTreeMap<Vec<u8>, i64> = written.chain(claimed).chain(seen).collect();
        // What is not there may have been there meanwhile, which nothing else would tell: somebody
        // else's object with the same name would get a higher version than the later one.
        if guards.values().any(|at| *at == 0) {
            guards.insert(layout.freed(), known.freed);
        }
        guards
    }
}

fn unknown() -> BackendError {
    BackendError::Unavailable(UNKNOWN.to_owned())
}
