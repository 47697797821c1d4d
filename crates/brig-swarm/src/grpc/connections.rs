//! The open connections and who is at their other end, so that they can be cut when that changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use brig_pki::admission::{Peer, Root, Standing};
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole;
use brig_types::id::NodeId;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::authorize::{Caller, Denied};

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionPeer {
    /// The certificate; `None` when the peer showed none.
    pub(crate) certificate: Option<Arc<Shown>>,
    /// Where it comes from.
    pub(crate) address: SocketAddr,
}

/// A certificate whose key the peer has.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) peer: Peer,
    /// Where it leads now; the roots can change while a connection lasts.
    root: RwLock<Root>,
}

impl Shown {
    pub(crate) const fn new(peer: Peer, root: Root) -> Self {
        Self { peer, root: RwLock::new(root) }
    }

    pub(crate) fn root(&self) -> Root {
        self.root.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_root(&self, root: Root) {
        *self.root.write().unwrap_or_else(PoisonError::into_inner) = root;
    }
}

/// The open connections of nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    open: Arc<Mutex<Open>>,
    /// Told of every new one: it may be the next to end.
    added: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    by_node: BTreeMap<NodeId, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Entry {
    peer: ConnectionPeer,
    shown: Arc<Shown>,
    /// What it was worth when it was opened.
    rank: Option<(NodeRole, Standing)>,
    cut: CancellationToken,
    ending: bool,
}

/// A connection in the list; it leaves the list with this.
#[derive(Debug)]
pub(crate) struct Ticket {
    connections: Connections,
    id: u64,
    /// Done when the connection is to end.
    pub(crate) cut: CancellationToken,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

impl Open {
    fn remove(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let node = &entry.shown.peer.identity.node;
        if let Some(ids) = self.by_node.get_mut(node) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_node.remove(node);
            }
        }
    }
}

/// Which connections to look at.
#[derive(Debug)]
pub(crate) enum Which {
    /// Those of these nodes.
    Of(BTreeSet<String>),
    /// All of them.
    All,
}

impl Connections {
    /// Notes a connection; `caller` is what its certificate is worth now.
    pub(crate) fn add(&self, peer: &ConnectionPeer, caller: Option<&Caller>) -> Option<Ticket> {
        let shown = Arc::clone(peer.certificate.as_ref()?);
        let cut = CancellationToken::new();
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        open.by_node.entry(shown.peer.identity.node.clone()).or_default().insert(id);
        let rank = caller.map(|caller| (caller.role, caller.standing));
        let entry = Entry { peer: peer.clone(), shown, rank, cut: cut.clone(), ending: false };
        open.entries.insert(id, entry);
        drop(open);
        self.added.notify_one();
        Some(Ticket { connections: self.clone(), id, cut })
    }

    /// Waits for a new connection.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// When the next connection is not worth any more what it was when it was opened.
    pub(crate) fn next_end(&self) -> Option<OffsetDateTime> {
        let open = self.lock();
        let entries = open.entries.values().filter(|entry| !entry.ending);
        let ends = entries.filter_map(|entry| match entry.rank? {
            (_, Standing::Full) => Some(entry.shown.peer.certificate.not_after),
            (_, Standing::RenewOnly { until }) => Some(until),
        });
        ends.min()
    }

    /// Finds out again where every certificate leads.
    pub(crate) fn look_at_roots(&self, credentials: &TlsCredentials) {
        let shown: Vec<Arc<Shown>> =
            self.lock().entries.values().map(|entry| Arc::clone(&entry.shown)).collect();
        for shown in shown {
            shown.set_root(credentials.root_of(&shown.peer));
        }
    }

    /// Finds the connections that are not worth any more what they were when they were opened.
    /// Each is answered once, with what cuts it; until then it stays open.
    pub(crate) fn fallen(
        &self,
        which: &Which,
        identify: impl Fn(&Shown) -> Result<Caller, Denied>,
    ) -> Vec<Fallen> {
        let mut open = self.lock();
        let ids: Vec<u64> = match which {
            Which::All => open.entries.keys().copied().collect(),
            Which::Of(nodes) => nodes
                .iter()
                .filter_map(|node| NodeId::parse(node).ok())
                .filter_map(|node| open.by_node.get(&node))
                .flatten()
                .copied()
                .collect(),
        };
        let mut fallen = Vec::new();
        for id in ids {
            let Some(entry) = open.entries.get_mut(&id).filter(|entry| !entry.ending) else {
                continue;
            };
            let reason = match (identify(&entry.shown), entry.rank) {
                (Err(denied), _) => denied.to_string(),
                (Ok(now), Some((NodeRole::Manager, _))) if now.role == NodeRole::Worker => {
                    format!("node {} was demoted", now.node)
                }
                (Ok(now), Some((_, Standing::Full))) if now.standing != Standing::Full => {
                    Denied::Expired(now.node).to_string()
                }
                (Ok(_), _) => continue,
            };
            entry.ending = true;
            let peer = entry.peer.address;
            fallen.push(Fallen {
                peer,
                shown: Arc::clone(&entry.shown),
                reason,
                cut: entry.cut.clone(),
            });
        }
        fallen
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is to end.
#[derive(Debug)]
pub(crate) struct Fallen {
    pub(crate) peer: SocketAddr,
    pub(crate) shown: Arc<Shown>,
    pub(crate) reason: String,
    pub(crate) cut: CancellationToken,
}
