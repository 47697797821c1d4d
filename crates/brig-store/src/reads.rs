//! What a transaction looked at, and whether what others wrote meanwhile has to do with it.
//!
//! Where several managers write, their commits stand in one row. A transaction that was built
//! before another manager's commit arrived still holds after it if that commit wrote nothing that
//! the transaction read or writes: it then keeps its place in the queue and becomes durable one
//! place further on. Only what it does have to do with runs again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::object::{Index, Kind, Object};
use crate::state::folded;
use crate::watch::Change;

/// Single things that are remembered of one transaction; of one that looks at more, it is taken
/// that it looked at everything.
const MAX_THINGS: usize = 20_000;

/// What a transaction read.
#[derive(Debug, Default)]
pub(crate) struct Reads(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    everything: bool,
    /// All objects of a kind.
    kinds: BTreeSet<Kind>,
    things: BTreeSet<Thing>,
}

/// One thing that may be read or written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// An object, or that there is none.
    Object(Kind, String),
    /// A name, as it is compared.
    Name(Kind, String),
    /// The objects that an index has under a key.
    Key(Kind, Index, String),
}

impl Reads {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, thing: Thing) {
        let mut seen = self.lock();
        if seen.everything || seen.kinds.contains(&kind) {
            return;
        }
        seen.things.insert(thing);
        if seen.things.len() > MAX_THINGS {
            seen.everything = true;
            seen.things.clear();
        }
    }

    pub(crate) fn note_everything(&self) {
        self.lock().everything = true;
    }

    pub(crate) fn note_kind(&self, kind: Kind) {
        self.lock().kinds.insert(kind);
    }

    pub(crate) fn note_object(&self, kind: Kind, id: &str) {
        self.note(kind, Thing::Object(kind, id.to_owned()));
    }

    pub(crate) fn note_name(&self, kind: Kind, name: &str) {
        self.note(kind, Thing::Name(kind, folded(name)));
    }

    pub(crate) fn note_key(&self, kind: Kind, index: Index, key: &str) {
        self.note(kind, Thing::Key(kind, index, key.to_owned()));
    }
}

/// What was written since.
#[derive(Debug, Default)]
pub(crate) struct Written {
    kinds: BTreeSet<Kind>,
    things: BTreeSet<Thing>,
}

impl Written {
    pub(crate) fn of(changes: &[Change]) -> Self {
        let mut written = Self::default();
        written.add(changes);
        written
    }

    pub(crate) fn add(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Created(object) | Change::Removed(object) => self.add_object(object),
                Change::Updated { old, new } => {
                    self.add_object(old);
                    self.add_object(new);
                }
            }
        }
    }

    fn add_object(&mut self, object: &Object) {
        let kind = object.kind();
        self.kinds.insert(kind);
        self.things.insert(Thing::Object(kind, object.id().to_owned()));
        if !object.unique_name().is_empty() {
            self.things.insert(Thing::Name(kind, folded(object.unique_name())));
        }
        for (index, key) in object.indexed() {
            self.things.insert(Thing::Key(kind, index, key.to_owned()));
        }
    }

    /// Whether it is something that a transaction read or writes. Of one whose reads are not known
    /// it has to be taken so.
    pub(crate) fn concerns(&self, reads: Option<&Reads>, writes: &[Change]) -> bool {
        if self.kinds.is_empty() {
            return false;
        }
        let Some(reads) = reads else { return true };
        {
            let seen = reads.lock();
            if seen.everything
                || seen.kinds.iter().any(|kind| self.kinds.contains(kind))
                || seen.things.iter().any(|thing| self.things.contains(thing))
            {
                return true;
            }
        }
        let is_ours = |object: &Object| {
            let kind = object.kind();
            let name = object.unique_name();
            self.kinds.contains(&kind)
                && (self.things.contains(&Thing::Object(kind, object.id().to_owned()))
                    || !name.is_empty() && self.things.contains(&Thing::Name(kind, folded(name))))
        };
        writes.iter().any(|change| match change {
            Change::Created(object) | Change::Removed(object) => is_ours(object),
            Change::Updated { old, new } => is_ours(old) || is_ours(new),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use brig_proto::swarm::{Annotations, Config, ConfigSpec, Task};

    use super::*;

    fn config(id: &str, name: &str) -> Object {
        let annotations = Annotations { name: name.to_owned(), ..Annotations::default() };
        let spec = ConfigSpec { annotations: Some(annotations), ..ConfigSpec::default() };
        Object::Config(Arc::new(Config { id: id.into(), spec: Some(spec), ..Config::default() }))
    }

    fn task(id: &str, service: &str) -> Object {
        let service_id = service.to_owned();
        Object::Task(Arc::new(Task { id: id.into(), service_id, ..Task::default() }))
    }

    #[test]
    fn only_what_was_read_or_is_written_concerns() {
        let renamed = Change::Updated { old: config("a", "X"), new: config("a", "y") };
        let written = Written::of(&[renamed, Change::Created(task("t", "s"))]);
        let concerns = |note: &dyn Fn(&Reads), writes: &[Change]| {
            let reads = Reads::default();
            note(&reads);
            written.concerns(Some(&reads), writes)
        };
        assert!(!concerns(&|_| {}, &[]));
        assert!(written.concerns(None, &[]));
        assert!(!Written::default().concerns(None, &[]));
        let kind = Kind::Config;
        let related: [&dyn Fn(&Reads); 6] = [
            &|reads| reads.note_object(kind, "a"),
            &|reads| reads.note_name(kind, "x"),
            &|reads| reads.note_name(kind, "Y"),
            &|reads| reads.note_kind(kind),
            &|reads| reads.note_key(Kind::Task, Index::Service, "s"),
            &Reads::note_everything,
        ];
        for note in related {
            assert!(concerns(note, &[]));
        }
        let foreign: [&dyn Fn(&Reads); 5] = [
            &|reads| reads.note_object(kind, "t"),
            &|reads| reads.note_object(Kind::Task, "a"),
            &|reads| reads.note_name(kind, "z"),
            &|reads| reads.note_kind(Kind::Service),
            &|reads| reads.note_key(Kind::Task, Index::Service, "other"),
        ];
        for note in foreign {
            assert!(!concerns(note, &[]));
        }
        assert!(concerns(&|_| {}, &[Change::Created(config("b", "Y"))]));
        assert!(concerns(&|_| {}, &[Change::Removed(config("a", "other"))]));
        assert!(!concerns(&|_| {}, &[Change::Created(config("b", "z"))]));
        let many = |reads: &Reads| {
            (0..=MAX_THINGS).for_each(|n| reads.note_object(Kind::Node, &n.to_string()));
        };
        assert!(concerns(&many, &[]), "what was forgotten is taken for read");
    }
}
