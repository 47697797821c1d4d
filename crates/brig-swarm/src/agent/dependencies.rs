//! The secrets and configs that this node was given. They are nowhere but in memory, and a task
//! sees only those that its spec names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use brig_proto::swarm::{Config, Secret, Task};

use crate::executor::Dependencies;
use crate::task;

/// Everything that the manager sent for this node's tasks.
#[derive(Default)]
pub(crate) struct DependencyStore {
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    secrets: BTreeMap<String, Arc<Secret>>,
    configs: BTreeMap<String, Arc<Config>>,
}

impl DependencyStore {
    /// What one task may see of a store.
    pub(crate) fn granted(store: &Arc<Self>, task: &Task) -> Granted {
        let ids = |spec: &brig_proto::swarm::TaskSpec| -> (BTreeSet<String>, BTreeSet<String>) {
            (
                task::secret_ids(spec).map(str::to_owned).collect(),
                task::config_ids(spec).map(str::to_owned).collect(),
            )
        };
        let (secrets, configs) = task.spec.as_ref().map(ids).unwrap_or_default();
        Granted { store: Arc::clone(store), task: task.id.clone(), secrets, configs }
    }

    /// Takes over what a manager assigned, in one step: a task never finds half of it.
    pub(crate) fn apply(&self, news: News) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if news.complete {
            *held = Held::default();
        }
        for secret in news.secrets {
            held.secrets.insert(secret.id.clone(), Arc::new(secret));
        }
        for config in news.configs {
            held.configs.insert(config.id.clone(), Arc::new(config));
        }
        // Memory of a secret is wiped once no task holds it.
        held.secrets.retain(|id, _| !news.removed_secrets.contains(id));
        held.configs.retain(|id, _| !news.removed_configs.contains(id));
    }
}

/// What one assignment says about secrets and configs.
#[derive(Default)]
pub(crate) struct News {
    /// Whether these are all there are.
    pub(crate) complete: bool,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) configs: Vec<Config>,
    pub(crate) removed_secrets: BTreeSet<String>,
    pub(crate) removed_configs: BTreeSet<String>,
}

impl News {
    /// A secret that came; what was said of it before in the same message does not count.
    pub(crate) fn secret(&mut self, secret: Secret, update: bool) {
        self.secrets.retain(|other| other.id != secret.id);
        if update {
            self.removed_secrets.remove(&secret.id);
            self.secrets.push(secret);
        } else {
            self.removed_secrets.insert(secret.id);
        }
    }

    /// The same for a config.
    pub(crate) fn config(&mut self, config: Config, update: bool) {
        self.configs.retain(|other| other.id != config.id);
        if update {
            self.removed_configs.remove(&config.id);
            self.configs.push(config);
        } else {
            self.removed_configs.insert(config.id);
        }
    }
}

/// A task's view of the node's secrets and configs.
pub(crate) struct Granted {
    store: Arc<DependencyStore>,
    task: String,
    secrets: BTreeSet<String>,
    configs: BTreeSet<String>,
}

impl Granted {
    /// Managers send what a driver made for one task under `<id>.<task id>`.
    fn own(&self, id: &str) -> String {
        format!("{id}.{}", self.task)
    }
}

impl Dependencies for Granted {
    fn secret(&self, id: &str) -> Option<Arc<Secret>> {
        if !self.secrets.contains(id) {
            return None;
        }
        let held = self.store.held.read().unwrap_or_else(PoisonError::into_inner);
        held.secrets.get(&self.own(id)).or_else(|| held.secrets.get(id)).cloned()
    }

    fn config(&self, id: &str) -> Option<Arc<Config>> {
        if !self.configs.contains(id) {
            return None;
        }
        let held = self.store.held.read().unwrap_or_else(PoisonError::into_inner);
        held.configs.get(&self.own(id)).or_else(|| held.configs.get(id)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{ContainerSpec, SecretReference, TaskSpec, task_spec};

    use super::*;

    #[test]
    fn a_task_sees_only_what_it_was_granted() {
        let store = Arc::new(DependencyStore::default());
        let mut news = News::default();
        for id in ["mine", "other"] {
            news.secret(Secret { id: id.to_owned(), ..Secret::default() }, true);
        }
        store.apply(news);
        let task = Task {
            id: "t1".to_owned(),
            spec: Some(TaskSpec {
                runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                    secrets: vec![SecretReference {
                        secret_id: "mine".to_owned(),
                        ..SecretReference::default()
                    }],
                    ..ContainerSpec::default()
                })),
                ..TaskSpec::default()
            }),
            ..Task::default()
        };
        let granted = DependencyStore::granted(&store, &task);
        assert!(granted.secret("mine").is_some());
        assert!(granted.secret("other").is_none());
        let mut news = News::default();
        news.secret(Secret { id: "mine".to_owned(), ..Secret::default() }, false);
        store.apply(news);
        assert!(granted.secret("mine").is_none());
    }
}
