//! Changes as they become durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brig_proto::swarm::Node;
use tokio::sync::{broadcast, mpsc};

use crate::backend::Revision;
use crate::object::Object;

/// Transactions that a slow watcher may be behind before it has to start over.
pub(crate) const WATCH_BACKLOG: usize = 4096;

/// What happened to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new.
    Created(Object),
    /// It has a new value.
    Updated {
        /// The value before.
        old: Object,
        /// The value now.
        new: Object,
    },
    /// It is gone; this was its last value.
    Removed(Object),
}

impl Change {
    /// The object: as it is now, or as it last was.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Created(object) | Self::Removed(object) | Self::Updated { new: object, .. } => {
                object
            }
        }
    }
}

/// One transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Its revision.
    pub revision: Revision,
    /// What it did, each object once, in the order of the transaction.
    pub changes: Vec<Change>,
}

/// Why a watcher gets no next transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Transactions were missed: look at the state again and watch from there.
    #[error("the watcher fell behind")]
    Lagged,
    /// The store is closed.
    #[error("the cluster store is closed")]
    Closed,
}

/// Receives transactions after the moment it was made: every one, or every one that concerns a
/// node.
#[derive(Debug)]
pub struct Watcher(Source);

#[derive(Debug)]
enum Source {
    All(broadcast::Receiver<Arc<Commit>>),
    Node { commits: mpsc::Receiver<Arc<Commit>>, lagged: Arc<AtomicBool> },
}

impl Watcher {
    pub(crate) const fn all(commits: broadcast::Receiver<Arc<Commit>>) -> Self {
        Self(Source::All(commits))
    }

    /// The next transaction. May be cancelled without losing one.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next(&mut self) -> Result<Arc<Commit>, WatchError> {
        match &mut self.0 {
            Source::All(commits) => commits.recv().await.map_err(|error| match error {
                broadcast::error::RecvError::Lagged(_) => WatchError::Lagged,
                broadcast::error::RecvError::Closed => WatchError::Closed,
            }),
            Source::Node { commits, lagged } => commits.recv().await.ok_or_else(|| ended(lagged)),
        }
    }

    /// The next transaction if there is one already.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Commit>>, WatchError> {
        match &mut self.0 {
            Source::All(commits) => match commits.try_recv() {
                Ok(commit) => Ok(Some(commit)),
                Err(broadcast::error::TryRecvError::Empty) => Ok(None),
                Err(broadcast::error::TryRecvError::Lagged(_)) => Err(WatchError::Lagged),
                Err(broadcast::error::TryRecvError::Closed) => Err(WatchError::Closed),
            },
            Source::Node { commits, lagged } => match commits.try_recv() {
                Ok(commit) => Ok(Some(commit)),
                Err(mpsc::error::TryRecvError::Empty) => Ok(None),
                Err(mpsc::error::TryRecvError::Disconnected) => Err(ended(lagged)),
            },
        }
    }
}

/// Why a node's watcher gets nothing more.
fn ended(lagged: &AtomicBool) -> WatchError {
    if lagged.load(Ordering::Acquire) { WatchError::Lagged } else { WatchError::Closed }
}

/// The watchers of single nodes. Thousands of agents are served at a time and nearly every
/// transaction concerns one of them: the others are not even woken.
#[derive(Debug, Default)]
pub(crate) struct NodeWatchers(BTreeMap<String, Vec<NodeSender>>);

#[derive(Debug)]
struct NodeSender {
    commits: mpsc::Sender<Arc<Commit>>,
    lagged: Arc<AtomicBool>,
}

impl NodeWatchers {
    pub(crate) fn add(&mut self, node: &str) -> Watcher {
        let (sender, commits) = mpsc::channel(WATCH_BACKLOG);
        let lagged = Arc::new(AtomicBool::new(false));
        let senders = self.0.entry(node.to_owned()).or_default();
        // Those of earlier sessions.
        senders.retain(|sender| !sender.commits.is_closed());
        senders.push(NodeSender { commits: sender, lagged: Arc::clone(&lagged) });
        Watcher(Source::Node { commits, lagged })
    }

    pub(crate) fn send(&mut self, commit: &Arc<Commit>) {
        match concerned(commit) {
            None => self.0.retain(|_, senders| deliver(senders, commit)),
            Some(nodes) => {
                for node in nodes {
                    if self.0.get_mut(node).is_some_and(|senders| !deliver(senders, commit)) {
                        self.0.remove(node);
                    }
                }
            }
        }
    }
}

/// Answers whether anybody is left.
fn deliver(senders: &mut Vec<NodeSender>, commit: &Arc<Commit>) -> bool {
    senders.retain(|sender| match sender.commits.try_send(Arc::clone(commit)) {
        Ok(()) => true,
        Err(mpsc::error::TrySendError::Full(_)) => {
            sender.lagged.store(true, Ordering::Release);
            false
        }
        Err(mpsc::error::TrySendError::Closed(_)) => false,
    });
    !senders.is_empty()
}

/// The nodes that a transaction concerns: those that it changed, and those of the tasks that it
/// changed. `None`: all of them, because it changed the cluster or one of its managers.
fn concerned(commit: &Commit) -> Option<BTreeSet<&str>> {
    let mut nodes = BTreeSet::new();
    for change in &commit.changes {
        let (new, old) = match change {
            Change::Created(object) | Change::Removed(object) => (object, None),
            Change::Updated { old, new } => (new, Some(old)),
        };
        for object in std::iter::once(new).chain(old) {
            match object {
                Object::Cluster(_) => return None,
                Object::Node(node) if is_manager(node) => return None,
                Object::Node(node) => nodes.insert(node.id.as_str()),
                Object::Task(task) => nodes.insert(task.node_id.as_str()),
                Object::Service(_)
                | Object::Secret(_)
                | Object::Config(_)
                | Object::Network(_)
                | Object::Access(_)
                | Object::ScanDatabase(_)
                | Object::Policy(_)
                | Object::Trust(_)
                | Object::TrustMetadata(_) => false,
            };
        }
    }
    Some(nodes)
}

const fn is_manager(node: &Node) -> bool {
    node.manager_status.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_listen_has_to_start_over() {
        let mut watchers = NodeWatchers::default();
        let (mut deaf, gone) = (watchers.add("n"), watchers.add("m"));
        drop(gone);
        let object =
            |id: &str| Object::Node(Arc::new(Node { id: id.to_owned(), ..Node::default() }));
        let commit =
            |id: &str| Arc::new(Commit { revision: 1, changes: vec![Change::Created(object(id))] });
        for _ in 0..=WATCH_BACKLOG {
            watchers.send(&commit("n"));
        }
        watchers.send(&commit("m"));
        assert!(watchers.0.is_empty(), "nobody is kept who cannot be told");
        for _ in 0..WATCH_BACKLOG {
            assert!(deaf.try_next().unwrap().is_some());
        }
        assert_eq!(deaf.try_next(), Err(WatchError::Lagged));
    }
}
