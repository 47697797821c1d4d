//! All containers of the engine, by id, name or unique prefix of an id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_types::id::ContainerId;

use super::names::random_name;
use crate::error::EngineError;

/// An index over containers of type `T` that keeps names unique.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    index: Mutex<Index<T>>,
}

#[derive(Debug)]
struct Index<T> {
    by_id: BTreeMap<ContainerId, Arc<T>>,
    by_name: BTreeMap<String, ContainerId>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { index: Mutex::new(Index { by_id: BTreeMap::new(), by_name: BTreeMap::new() }) }
    }
}

impl<T> Registry<T> {
    fn lock(&self) -> MutexGuard<'_, Index<T>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a container, or a random one that is free.
    pub(crate) fn reserve(
        &self,
        name: Option<&str>,
        id: &ContainerId,
    ) -> Result<String, EngineError> {
        let mut index = self.lock();
        let name = match name {
            Some(name) => {
                if let Some(owner) = index.by_name.get(name) {
                    return Err(EngineError::NameInUse {
                        name: name.to_owned(),
                        owner: owner.to_string(),
                    });
                }
                name.to_owned()
            }
            None => (0..100)
                .map(random_name)
                .find(|name| !index.by_name.contains_key(name))
                .unwrap_or_else(|| id.short().to_owned()),
        };
        index.by_name.insert(name.clone(), id.clone());
        Ok(name)
    }

    /// Gives a name back, if it is this container's.
    pub(crate) fn release(&self, name: &str, id: &ContainerId) {
        let mut index = self.lock();
        if index.by_name.get(name) == Some(id) {
            index.by_name.remove(name);
        }
    }

    /// Makes a container known under its reserved name.
    pub(crate) fn insert(&self, id: ContainerId, container: Arc<T>) {
        self.lock().by_id.insert(id, container);
    }

    /// Forgets a container and its name.
    pub(crate) fn remove(&self, id: &ContainerId, name: &str) {
        let mut index = self.lock();
        index.by_id.remove(id);
        if index.by_name.get(name) == Some(id) {
            index.by_name.remove(name);
        }
    }

    /// Finds by id, else by name, else by the only id that begins so.
    pub(crate) fn find(&self, key: &str) -> Result<Arc<T>, EngineError> {
        let index = self.lock();
        let missing = || EngineError::NoSuchContainer(key.chars().take(128).collect());
        if let Ok(id) = ContainerId::parse(key)
            && let Some(container) = index.by_id.get(&id)
        {
            return Ok(Arc::clone(container));
        }
        let bare = key.strip_prefix('/').unwrap_or(key);
        if let Some(container) = index.by_name.get(bare).and_then(|id| index.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        // The smallest id that begins so; what is no beginning of an id begins none.
        let first = ContainerId::parse(&format!("{key:0<64}")).map_err(|_| missing())?;
        if key.is_empty() {
            return Err(missing());
        }
        let mut hits =
            index.by_id.range(first..).take_while(|(id, _)| id.as_str().starts_with(key));
        match (hits.next(), hits.next()) {
            (None, _) => Err(missing()),
            (Some((_, container)), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousId(key.to_owned())),
        }
    }

    /// By full id.
    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<T>> {
        self.lock().by_id.get(id).cloned()
    }

    /// Every container, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.lock().by_id.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(&format!("{text:0<64}")).unwrap()
    }

    #[test]
    fn lookup_order_and_ambiguity() {
        let registry = Registry::<u32>::default();
        for (n, (hex, name)) in [("abc1", "one"), ("abc2", "abc1"), ("d", "x")].iter().enumerate() {
            registry.reserve(Some(name), &id(hex)).unwrap();
            registry.insert(id(hex), Arc::new(n as u32));
        }
        assert_eq!(*registry.find("one").unwrap(), 0);
        assert_eq!(*registry.find("/one").unwrap(), 0);
        // A name wins over a prefix of an id.
        assert_eq!(*registry.find("abc1").unwrap(), 1);
        assert_eq!(*registry.find("abc2").unwrap(), 1);
        assert_eq!(*registry.find(id("d").as_str()).unwrap(), 2);
        assert_eq!(
            registry.find("abc").unwrap_err().to_string(),
            "Multiple IDs found with provided prefix: abc"
        );
        assert_eq!(registry.find("nope").unwrap_err().to_string(), "No such container: nope");
        assert!(registry.find("").is_err());
    }

    #[test]
    fn names_are_unique_until_released() {
        let registry = Registry::<u32>::default();
        let (a, b) = (id("a"), id("b"));
        registry.reserve(Some("web"), &a).unwrap();
        let error = registry.reserve(Some("web"), &b).unwrap_err();
        assert!(error.to_string().starts_with(
            "Conflict. The container name \"/web\" is already in use by container \"a000"
        ));
        registry.release("web", &b);
        assert!(registry.reserve(Some("web"), &b).is_err());
        registry.release("web", &a);
        registry.reserve(Some("web"), &b).unwrap();
        assert!(!registry.reserve(None, &a).unwrap().is_empty());
    }
}
