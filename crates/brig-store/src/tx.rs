//! A transaction while it is being written.

use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::Meta;

use crate::backend::{Revision, Room};
use crate::error::StoreError;
use crate::object::{Object, StoreObject};
use crate::state::State;
use crate::watch::Change;

/// Longest id that is accepted.
const MAX_ID: usize = 128;

/// A transaction: reads see its own writes and everything before it.
///
/// Dropped without being finished, it leaves no trace.
#[derive(Debug)]
pub struct Tx<'a> {
    state: &'a mut State,
    revision: Revision,
    now: prost_types::Timestamp,
    /// Every single step, for undoing them in reverse.
    steps: Vec<Change>,
    finished: bool,
    room: Room,
    /// Bytes of what was written, once for each step.
    bytes: usize,
}

/// Bytes that a record has beside its message: key, cipher, name.
const AROUND: usize = 512;

impl<'a> Tx<'a> {
    pub(crate) fn new(state: &'a mut State, room: Room) -> Self {
        Self {
            room,
            bytes: 0,
            revision: state.revision + 1,
            state,
            now: SystemTime::now().into(),
            steps: Vec::new(),
            finished: false,
        }
    }

    /// Version of what this writes.
    pub(crate) const fn version(&self) -> Revision {
        self.revision
    }

    /// Whether there should be another transaction for what is still to be written, because the
    /// store may refuse a larger one.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.steps.len() >= self.room.objects || self.bytes >= self.room.bytes
    }

    /// Adds an object. Version and times are set here.
    ///
    /// # Errors
    /// [`StoreError::InvalidId`], [`StoreError::AlreadyExists`], [`StoreError::NameConflict`].
    pub fn create<T: StoreObject>(&mut self, object: T) -> Result<Arc<T>, StoreError> {
        self.insert(object, |_| {})
    }

    fn insert<T: StoreObject>(
        &mut self,
        mut object: T,
        times: impl FnOnce(&mut Meta),
    ) -> Result<Arc<T>, StoreError> {
        let id = object.id();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(plain) {
            return Err(StoreError::InvalidId(T::KIND));
        }
        if T::table(self.state).get(id).is_some() {
            return Err(StoreError::AlreadyExists { kind: T::KIND, id: id.to_owned() });
        }
        self.check_name(&object)?;
        let meta = object.meta_mut();
        meta.created_at = Some(self.now);
        self.stamp(&mut object);
        times(object.meta_mut());
        let object = Arc::new(object);
        T::table_mut(self.state).insert(Arc::clone(&object));
        self.bytes += object.encoded_len() + AROUND;
        self.steps.push(Change::Created(T::wrap(Arc::clone(&object))));
        Ok(object)
    }

    /// Adds an object of another store, of a backup for example: as [`Tx::create`], but it keeps its
    /// times.
    ///
    /// # Errors
    /// As [`Tx::create`].
    pub fn restore(&mut self, object: Object) -> Result<(), StoreError> {
        object.restore_in(self)
    }

    pub(crate) fn restore_object<T: StoreObject>(&mut self, object: T) -> Result<(), StoreError> {
        let times = object.meta().map(|meta| (meta.created_at, meta.updated_at));
        let (created_at, updated_at) = times.unwrap_or_default();
        let restore = |meta: &mut Meta| {
            (meta.created_at, meta.updated_at) = (created_at, updated_at);
        };
        self.insert(object, restore).map(drop)
    }

    /// Replaces an object that has not changed since it was read.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::SequenceConflict`], [`StoreError::NameConflict`].
    pub fn update<T: StoreObject>(&mut self, mut object: T) -> Result<Arc<T>, StoreError> {
        let old = self.existing::<T>(object.id())?;
        if old.version() != object.version() {
            let id = object.id().to_owned();
            return Err(StoreError::SequenceConflict { kind: T::KIND, id });
        }
        self.check_name(&object)?;
        object.meta_mut().created_at = old.meta().and_then(|meta| meta.created_at);
        self.stamp(&mut object);
        let new = Arc::new(object);
        T::table_mut(self.state).insert(Arc::clone(&new));
        self.bytes += new.encoded_len() + AROUND;
        self.steps.push(Change::Updated { old: T::wrap(old), new: T::wrap(Arc::clone(&new)) });
        Ok(new)
    }

    /// Removes an object and returns its last value.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn delete<T: StoreObject>(&mut self, id: &str) -> Result<Arc<T>, StoreError> {
        let old = self.existing::<T>(id)?;
        T::table_mut(self.state).remove(id);
        self.steps.push(Change::Removed(T::wrap(Arc::clone(&old))));
        Ok(old)
    }

    fn existing<T: StoreObject>(&self, id: &str) -> Result<Arc<T>, StoreError> {
        T::table(self.state)
            .get(id)
            .cloned()
            .ok_or_else(|| StoreError::NotFound { kind: T::KIND, id: id.to_owned() })
    }

    fn check_name<T: StoreObject>(&self, object: &T) -> Result<(), StoreError> {
        let name = object.unique_name();
        match T::table(self.state).by_name(name) {
            Some(holder) if holder.id() != object.id() => {
                Err(StoreError::NameConflict { kind: T::KIND, name: name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn stamp<T: StoreObject>(&self, object: &mut T) {
        let meta = object.meta_mut();
        meta.version.get_or_insert_default().index = self.revision;
        meta.updated_at = Some(self.now);
    }

    /// Keeps what was written and returns it, each object once; empty if nothing changed.
    pub(crate) fn finish(mut self) -> Vec<Change> {
        self.finished = true;
        let changes = merge(std::mem::take(&mut self.steps));
        if !changes.is_empty() {
            self.state.revision = self.revision;
        }
        changes
    }
}

impl Deref for Tx<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        while let Some(step) = self.steps.pop() {
            match step {
                Change::Created(object) => object.remove_from(self.state),
                Change::Updated { old, .. } | Change::Removed(old) => old.insert_into(self.state),
            }
        }
    }
}

/// Joins the steps of each object into one change, in the order of first steps.
fn merge(steps: Vec<Change>) -> Vec<Change> {
    let mut merged: Vec<Option<Change>> = Vec::with_capacity(steps.len());
    let mut places = std::collections::BTreeMap::new();
    for step in steps {
        let key = (step.object().kind(), step.object().id().to_owned());
        let Some(place) = places.get(&key).and_then(|&place: &usize| merged.get_mut(place)) else {
            places.insert(key, merged.len());
            merged.push(Some(step));
            continue;
        };
        *place = match (place.take(), step) {
            (None, step) => Some(step),
            (Some(Change::Created(_)), Change::Updated { new, .. }) => Some(Change::Created(new)),
            (Some(Change::Created(_)), Change::Removed(_)) => None,
            (Some(Change::Updated { old, .. }), Change::Updated { new, .. }) => {
                Some(Change::Updated { old, new })
            }
            (Some(Change::Updated { old, .. }), Change::Removed(_)) => Some(Change::Removed(old)),
            (Some(Change::Removed(old)), Change::Created(new)) => {
                Some(Change::Updated { old, new })
            }
            // The table does not allow any other order.
            (Some(_), step) => Some(step),
        };
    }
    merged.into_iter().flatten().collect()
}

/// The object that a change leaves behind, if any.
pub(crate) const fn remaining(change: &Change) -> Option<&Object> {
    match change {
        Change::Created(object) | Change::Updated { new: object, .. } => Some(object),
        Change::Removed(_) => None,
    }
}
