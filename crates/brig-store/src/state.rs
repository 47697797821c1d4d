//! Every object in memory, with indexes.
//!
//! Tables are shared between snapshots and copied only when one is written while a snapshot of it
//! is still held; objects are shared always. The state that transactions build on and the one that
//! readers see have tables of their own, each of which follows every change: were they shared,
//! every transaction would copy the tables that it writes, and joins would get slower with every
//! node that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brig_proto::brig::{Access, Policy, ScanDatabase, Trust, TrustMetadata};
use brig_proto::swarm::{Cluster, Config, Network, Node, Secret, Service, Task};

use crate::backend::Revision;
use crate::object::{Index, Kind, Object, StoreObject};
use crate::reads::Reads;
use crate::watch::Change;

/// All objects at one revision.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) revision: Revision,
    pub(crate) nodes: Arc<Table<Node>>,
    pub(crate) services: Arc<Table<Service>>,
    pub(crate) tasks: Arc<Table<Task>>,
    pub(crate) secrets: Arc<Table<Secret>>,
    pub(crate) configs: Arc<Table<Config>>,
    pub(crate) networks: Arc<Table<Network>>,
    pub(crate) clusters: Arc<Table<Cluster>>,
    pub(crate) access: Arc<Table<Access>>,
    pub(crate) trust: Arc<Table<Trust>>,
    pub(crate) policies: Arc<Table<Policy>>,
    pub(crate) trust_metadata: Arc<Table<TrustMetadata>>,
    pub(crate) scan_databases: Arc<Table<ScanDatabase>>,
    /// Where a transaction under way notes what it looks at.
    pub(crate) reads: Option<Arc<Reads>>,
}

impl State {
    /// Takes the changes of one transaction in, each object at most once.
    pub(crate) fn follow(&mut self, revision: Revision, changes: &[Change]) {
        // First what goes: one object may have got the name of another.
        for change in changes {
            match change {
                Change::Created(_) => {}
                Change::Updated { old, .. } | Change::Removed(old) => old.remove_from(self),
            }
        }
        for change in changes {
            match change {
                Change::Created(new) | Change::Updated { new, .. } => new.insert_into(self),
                Change::Removed(_) => {}
            }
        }
        self.revision = revision;
    }

    /// Takes the changes of one transaction back, as long as nothing was built on them.
    pub(crate) fn undo(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Created(new) | Change::Updated { new, .. } => new.remove_from(self),
                Change::Removed(_) => {}
            }
        }
        for change in changes {
            match change {
                Change::Created(_) => {}
                Change::Updated { old, .. } | Change::Removed(old) => old.insert_into(self),
            }
        }
    }

    fn note(&self, note: impl FnOnce(&Reads)) {
        if let Some(reads) = &self.reads {
            note(reads);
        }
    }

    /// Revision of the last transaction in this state.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.note(Reads::note_everything);
        self.revision
    }

    /// The object with this id.
    #[must_use]
    pub fn get<T: StoreObject>(&self, id: &str) -> Option<Arc<T>> {
        self.note(|reads| reads.note_object(T::KIND, id));
        T::table(self).get(id).cloned()
    }

    /// The object with this name. Names differ in more than upper and lower case.
    #[must_use]
    pub fn by_name<T: StoreObject>(&self, name: &str) -> Option<Arc<T>> {
        self.note(|reads| reads.note_name(T::KIND, name));
        T::table(self).by_name(name).cloned()
    }

    /// All objects of a kind, by id.
    pub fn all<T: StoreObject>(&self) -> impl Iterator<Item = &Arc<T>> {
        self.note(|reads| reads.note_kind(T::KIND));
        T::table(self).objects.values()
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub fn count<T: StoreObject>(&self) -> usize {
        self.note(|reads| reads.note_kind(T::KIND));
        T::table(self).objects.len()
    }

    /// All objects of all kinds.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        Object::all_in(self)
    }

    /// A state of these objects, that of a backup for example.
    ///
    /// # Errors
    /// The first object whose id or name another one has.
    pub fn of(objects: impl IntoIterator<Item = Object>) -> Result<Self, Object> {
        let mut state = Self::default();
        for object in objects {
            if object.id().is_empty() || object.conflicts_in(&state) {
                return Err(object);
            }
            object.insert_into(&mut state);
        }
        Ok(state)
    }

    /// The objects whose id starts with `prefix`, by id.
    pub fn by_id_prefix<T: StoreObject>(&self, prefix: &str) -> impl Iterator<Item = &Arc<T>> {
        self.note(|reads| reads.note_kind(T::KIND));
        let objects = &T::table(self).objects;
        objects
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(id, _)| id.starts_with(prefix))
            .map(|(_, object)| object)
    }

    /// The objects that an index has under `key`, by id.
    pub fn indexed<T: StoreObject>(
        &self,
        index: Index,
        key: &str,
    ) -> impl Iterator<Item = &Arc<T>> {
        self.note(|reads| reads.note_key(T::KIND, index, key));
        let table = T::table(self);
        let ids = table.indexes.get(&index).and_then(|keys| keys.get(key));
        ids.into_iter().flatten().filter_map(|id| table.objects.get(id))
    }

    /// Who has a name.
    pub(crate) fn holder(&self, kind: Kind, name: &str) -> Option<&str> {
        Object::holder_in(self, kind, name)
    }

    /// The nodes that are managers.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.indexed::<Node>(Index::Manager, "")
    }

    /// The tasks of a service.
    pub fn tasks_by_service(&self, service: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.indexed::<Task>(Index::Service, service)
    }

    /// The tasks on a node; with an empty id those that have none yet.
    pub fn tasks_by_node(&self, node: &str) -> impl Iterator<Item = &Arc<Task>> {
        self.indexed::<Task>(Index::Node, node)
    }
}

/// Objects of one type. Public only because a sealed trait names it.
#[derive(Clone, Debug)]
pub struct Table<T> {
    objects: BTreeMap<Arc<str>, Arc<T>>,
    names: BTreeMap<String, Arc<str>>,
    indexes: BTreeMap<Index, BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), names: BTreeMap::new(), indexes: BTreeMap::new() }
    }
}

impl<T: StoreObject> Table<T> {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.objects.get(id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<T>> {
        if name.is_empty() {
            return None;
        }
        self.names.get(&folded(name)).and_then(|id| self.objects.get(id))
    }

    pub(crate) fn insert(&mut self, object: Arc<T>) {
        self.remove(object.id());
        let id: Arc<str> = object.id().into();
        if !object.unique_name().is_empty() {
            self.names.insert(folded(object.unique_name()), Arc::clone(&id));
        }
        for (index, key) in object.indexed() {
            let keys = self.indexes.entry(index).or_default();
            match keys.get_mut(key) {
                Some(ids) => ids.insert(Arc::clone(&id)),
                None => keys.entry(key.into()).or_default().insert(Arc::clone(&id)),
            };
        }
        self.objects.insert(id, object);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        let Some(object) = self.objects.remove(id) else {
            return;
        };
        if !object.unique_name().is_empty() {
            self.names.remove(&folded(object.unique_name()));
        }
        for (index, key) in object.indexed() {
            let Some(keys) = self.indexes.get_mut(&index) else {
                continue;
            };
            if let Some(ids) = keys.get_mut(key) {
                ids.remove(id);
                if ids.is_empty() {
                    keys.remove(key);
                }
            }
        }
    }
}

/// A name as it is compared: two names that differ only in case are the same.
pub(crate) fn folded(name: &str) -> String {
    name.to_lowercase()
}
