//! Who may talk to this manager: the cluster's nodes as the store has them now. Follows the store
//! and the clock and cuts whoever may not any more.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use brig_pki::admission::{Fingerprint, IssuedRegister, Peer};
use brig_pki::tls::TlsCredentials;
use brig_pki::token::NodeRole as Role;
use brig_proto::swarm::Node;
use brig_store::{Change, Object, Store};
use brig_types::id::NodeId;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ca::server::pki_role;
use super::changes::{self, Wake};
use super::dispatcher::Dispatcher;
use super::issued::Issued;
use crate::grpc::authorize::{Membership, identify};
use crate::grpc::connections::{Connections, Which};

/// Time between the end of a removed node's session, which tells it why, and the end of its
/// connections with everything that may still run over them.
const CUT_DELAY: Duration = Duration::from_secs(1);

/// The cluster's nodes and their certificates.
#[derive(Debug)]
pub(crate) struct Gate {
    cluster: String,
    store: Store,
    issued: RwLock<Issued>,
}

impl Gate {
    /// Knows what the store holds now; [`Gate::watch`] keeps it up to date.
    pub(crate) fn new(cluster: String, store: Store) -> Self {
        let gate = Self { cluster, store, issued: RwLock::default() };
        gate.reload();
        gate
    }

    fn reload(&self) {
        let view = self.store.view();
        self.issued_mut().reload(view.all::<Node>().map(AsRef::as_ref), Instant::now());
    }

    /// Cuts connections when their node is removed or demoted, when their certificate ends, or
    /// when the root that it leads to is gone.
    pub(crate) async fn watch(
        self: Arc<Self>,
        dispatcher: Dispatcher,
        connections: Connections,
        credentials: Arc<TlsCredentials>,
    ) {
        let mut roots = credentials.roots_changed();
        let mut watcher = self.store.watch();
        self.reload();
        let mut cutting = JoinSet::new();
        loop {
            let at = connections.next_end().map(SystemTime::from);
            let which = tokio::select! {
                wake = changes::wait(&mut watcher, at) => match wake {
                    Wake::Changes(commits) => {
                        Which::Of(self.follow(changes::of(&commits), &dispatcher))
                    }
                    Wake::Missed => {
                        watcher = self.store.watch();
                        self.reload();
                        Which::All
                    }
                    Wake::Time => Which::All,
                    Wake::Closed => return,
                },
                changed = roots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    connections.look_at_roots(&credentials);
                    Which::All
                }
                () = connections.added() => continue,
                Some(_) = cutting.join_next() => continue,
            };
            let now = OffsetDateTime::now_utc();
            for fallen in connections.fallen(&which, |shown| identify(shown, self.as_ref(), now)) {
                let (peer, reason) = (fallen.peer, fallen.reason);
                let certificate = &fallen.shown.peer.certificate.subject;
                tracing::warn!(%peer, certificate, reason, "cutting a connection");
                cutting.spawn(cut(fallen.cut));
            }
        }
    }

    /// Takes changes in; answers the nodes whose connections have to be looked at.
    fn follow<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
        dispatcher: &Dispatcher,
    ) -> BTreeSet<String> {
        let now = Instant::now();
        let mut concerned = BTreeSet::new();
        for change in changes {
            let Object::Node(node) = change.object() else { continue };
            match change {
                Change::Created(_) => self.issued_mut().update(node, now),
                Change::Updated { old: Object::Node(old), .. } => {
                    if old.certificate != node.certificate {
                        self.issued_mut().update(node, now);
                    }
                    if old.role != node.role || old.certificate != node.certificate {
                        concerned.insert(node.id.clone());
                    }
                }
                Change::Updated { .. } => {}
                Change::Removed(_) => {
                    self.issued_mut().remove(&node.id);
                    dispatcher.end_session(&node.id);
                    concerned.insert(node.id.clone());
                }
            }
        }
        concerned
    }

    fn issued(&self) -> RwLockReadGuard<'_, Issued> {
        self.issued.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn issued_mut(&self) -> RwLockWriteGuard<'_, Issued> {
        self.issued.write().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn cut(connection: CancellationToken) {
    tokio::time::sleep(CUT_DELAY).await;
    connection.cancel();
}

impl IssuedRegister for Gate {
    fn holds(&self, node: &NodeId, leaf: &Fingerprint) -> bool {
        self.issued().holds(node.as_str(), leaf, Instant::now())
    }
}

impl Membership for Gate {
    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn role(&self, node: &NodeId) -> Option<Role> {
        self.store.view().get::<Node>(node.as_str()).map(|node| pki_role(node.role()))
    }

    fn seen(&self, peer: &Peer) {
        let node = peer.identity.node.as_str();
        let Some(stored) = self.store.view().get::<Node>(node) else { return };
        let mut issued = self.issued_mut();
        // The watch may not have told of it yet.
        issued.update(&stored, Instant::now());
        issued.seen(node, &peer.fingerprint);
    }
}
