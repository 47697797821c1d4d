//! What a backend knows of what is stored, without the values: who has which revision and name, how
//! many commits there were, and which came last.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::backend::CLEARED;
use super::layout::{Head, Mark, Nonce};
use super::turns::{Turns, Writer};
use crate::backend::{Foreign, Revision};
use crate::object::Kind;
use crate::sealer::BlindName;

/// Age at which a writer's mark is taken for left behind.
const STALE: Duration = Duration::from_secs(60);
/// Commits that are remembered to find an own one among them.
const REMEMBERED: usize = 4096;

/// What is stored, without the values.
pub(super) struct Known {
    pub(super) head: Head,
    /// The last commit, of the row or apart from it.
    pub(super) revision: Revision,
    /// etcd's revision of the last commit that was read or heard of.
    pub(super) heard: i64,
    pub(super) done: VecDeque<Done>,
    /// etcd's revision from which on no commit was missed.
    pub(super) done_from: i64,
    /// With etcd's revision of each.
    pub(super) objects: BTreeMap<(Kind, String), (Revision, i64)>,
    pub(super) names: BTreeMap<BlindName, (String, i64)>,
    marks: BTreeMap<Writer, KnownMark>,
    /// etcd's revision of the last commit that removed something.
    pub(super) freed: i64,
    pub(super) turns: Turns,
    /// Until when nothing is tried apart from the row.
    pub(super) row_until: Option<Instant>,
}

/// A commit that was made.
#[derive(Clone, Copy)]
pub(super) struct Done {
    /// etcd's revision.
    at: i64,
    pub(super) nonce: Nonce,
    pub(super) first: Revision,
}

struct KnownMark {
    total: u64,
    /// etcd's revision of it.
    at: i64,
    heard: Instant,
}

/// What was read at one moment.
#[derive(Default)]
pub(super) struct Fresh {
    pub(super) head: Head,
    pub(super) heard: i64,
    pub(super) objects: BTreeMap<(Kind, String), (Revision, i64)>,
    pub(super) names: BTreeMap<BlindName, (String, i64)>,
    pub(super) marks: BTreeMap<Writer, (Mark, i64)>,
    pub(super) freed: i64,
    pub(super) waiting: Vec<Writer>,
}

impl Fresh {
    pub(super) fn revision(&self) -> Revision {
        let apart = self.marks.values().map(|(mark, _)| mark.total).sum::<u64>();
        self.head.last + apart.saturating_sub(self.head.apart)
    }
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            head: Head::default(),
            revision: 0,
            heard: 0,
            done: VecDeque::new(),
            done_from: 0,
            objects: BTreeMap::new(),
            names: BTreeMap::new(),
            marks: BTreeMap::new(),
            freed: 0,
            turns: Turns::new(),
            row_until: None,
        }
    }

    pub(super) fn remember(&mut self, at: i64, nonce: Nonce, first: Revision) {
        if self.done.len() >= REMEMBERED
            && let Some(oldest) = self.done.pop_front()
        {
            self.done_from = self.done_from.max(oldest.at);
        }
        self.done.push_back(Done { at, nonce, first });
    }

    /// Knows what was read, and the commits from before.
    pub(super) fn replace(&mut self, fresh: Fresh) {
        let revision = fresh.revision();
        let Fresh { head, heard, objects, names, marks, freed, waiting } = fresh;
        self.freed = freed;
        (self.head, self.revision, self.heard, self.done_from) = (head, revision, heard, heard);
        (self.objects, self.names) = (objects, names);
        let now = Instant::now();
        let known = |(mark, at): (Mark, i64)| KnownMark { total: mark.total, at, heard: now };
        self.marks = marks.into_iter().map(|(writer, mark)| (writer, known(mark))).collect();
        for writer in waiting {
            self.turns.asks(writer, now);
        }
        self.remember(heard, head.nonce, head.first);
    }

    /// A commit of the row.
    pub(super) fn take(&mut self, head: Head, at: i64, changes: &[Foreign], names: Names) {
        (self.head, self.revision) = (head, head.last);
        self.turns.wrote(&head.nonce, Instant::now());
        self.follow(at, changes, names);
    }

    /// A commit apart from the row; answers the revision of its first transaction.
    pub(super) fn take_apart(
        &mut self,
        (writer, mark): (Writer, Mark),
        at: i64,
        changes: &[Foreign],
        names: Names,
    ) -> Revision {
        let known = KnownMark { total: mark.total, at, heard: Instant::now() };
        self.marks.insert(writer, known);
        let first = self.revision + 1;
        self.revision += mark.count;
        self.remember(at, mark.nonce, first);
        self.follow(at, changes, names);
        first
    }

    fn follow(&mut self, at: i64, changes: &[Foreign], names: Names) {
        if changes.iter().any(|change| change.value.is_none())
            || names.iter().any(|(_, holder)| holder.is_none())
        {
            self.freed = at;
        }
        for change in changes {
            let key = (change.kind, change.id.clone());
            match &change.value {
                Some((revision, _)) => self.objects.insert(key, (*revision, at)),
                None => self.objects.remove(&key),
            };
        }
        for (name, holder) in names {
            match holder {
                Some(id) => self.names.insert(name, (id, at)),
                None => self.names.remove(&name),
            };
        }
    }

    /// Records were sealed anew.
    pub(super) fn resealed(&mut self, at: i64, changes: &[Foreign]) {
        for change in changes {
            let known = self.objects.get_mut(&(change.kind, change.id.clone()));
            if let (Some(known), Some((revision, _))) = (known, &change.value)
                && known.0 == *revision
            {
                known.1 = at;
            }
        }
    }

    pub(super) fn forget_mark(&mut self, writer: Writer) {
        self.marks.remove(&writer);
    }

    /// The own mark: its total, and etcd's revision of it.
    pub(super) fn own_mark(&self) -> (u64, i64) {
        self.marks.get(&self.turns.own()).map_or((0, 0), |mark| (mark.total, mark.at))
    }

    /// Marks of writers that have not been heard of for long, and the sum of all others.
    pub(super) fn stale_marks(&self, now: Instant) -> (Vec<Writer>, u64) {
        let is_stale = |mark: &KnownMark| now.saturating_duration_since(mark.heard) > STALE;
        let stale = self.marks.iter().filter(|(_, mark)| is_stale(mark)).take(CLEARED);
        let stale: Vec<Writer> = stale.map(|(writer, _)| *writer).collect();
        let rest = self.marks.iter().filter(|(writer, _)| !stale.contains(writer));
        (stale.clone(), rest.map(|(_, mark)| mark.total).sum())
    }
}

/// Names and who has them now.
pub(super) type Names = Vec<(BlindName, Option<String>)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_marks_count_the_transactions() {
        let mut known = Known::new();
        let head = Head { first: 1, last: 7, nonce: [1; 16], apart: 0 };
        known.take(head, 10, &[], Names::new());
        let mark = |total, count| Mark { total, count, nonce: [2; 16] };
        assert_eq!(known.take_apart((1, mark(3, 3)), 11, &[], Names::new()), 8);
        assert_eq!(known.take_apart((2, mark(2, 2)), 12, &[], Names::new()), 11);
        assert_eq!(known.take_apart((1, mark(4, 1)), 13, &[], Names::new()), 13);
        known.take_apart((1, mark(4, 0)), 14, &[], Names::new());
        assert_eq!(known.revision, 13);
        // Whoever reads everything counts the same.
        let marks = BTreeMap::from([(1, (mark(4, 0), 14)), (2, (mark(2, 2), 12))]);
        let fresh = Fresh { head, heard: 14, marks, ..Fresh::default() };
        assert_eq!(fresh.revision(), known.revision);

        // A mark that was left behind goes with the next commit of the row.
        let now = Instant::now();
        assert_eq!(known.stale_marks(now), (Vec::new(), 6));
        known.marks.get_mut(&1).unwrap().heard = now + STALE * 2;
        let (cleared, apart) = known.stale_marks(now + STALE + Duration::from_secs(1));
        assert_eq!((cleared.as_slice(), apart), ([2].as_slice(), 4));
        let head = Head { first: 14, last: 14, nonce: [3; 16], apart };
        let marks = BTreeMap::from([(1, (mark(4, 0), 14))]);
        let fresh = Fresh { head, heard: 15, marks, ..Fresh::default() };
        assert_eq!(fresh.revision(), 14);
    }
}
