//! Moves every node to a certificate of the root that the cluster is to have, and lets a rotation
//! end when they have it.
//!
//! Nothing is remembered but how long nodes have been away: all the rest is in the store, so a
//! manager that is killed at any moment goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_pki::identity::CertInfo;
use brig_proto::swarm::{
    Cluster, IssuanceStatus, Node, NodeRole, RootRotation, issuance_status::State, node_status,
};
use brig_store::{Change, Object, Store};
use tokio::time::Instant;

use super::rotation;
use super::signers::Signers;
use crate::error::ControlError;
use crate::manager::changes::{self, Wake};
use crate::manager::dispatcher::{DEFAULT_PERIOD, heartbeats};
use crate::wire_time;

/// Time between passes in which nodes are told to get another certificate.
const EVERY: Duration = Duration::from_secs(3);
/// Nodes that are told in one pass.
const BATCH: usize = 30;
/// Shortest time between two looks, when much happens.
const PAUSE: Duration = Duration::from_millis(50);
/// The time between two looks as a multiple of what one takes: many nodes take longer.
const SPARED: u32 = 20;
/// How many heartbeats long a node may be down before the end of a rotation no longer waits for
/// it: half a minute where nothing else is set.
const DOWN_PATIENCE: u32 = 15;
/// The longest such time, where heartbeats are far apart.
const MAX_DOWN_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What was seen of a node that does not have the right certificate.
#[derive(Default)]
struct Seen {
    /// Since when it is not up.
    away: Option<Instant>,
    /// When it may be told again, and how often it was.
    told: Option<(Instant, u32)>,
}

/// What a look at the store finds to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// Nodes without the right certificate that can be told so.
    to_tell: Vec<String>,
    /// The rotation that may end, and the nodes that it leaves behind.
    to_finish: Option<(RootRotation, Vec<String>)>,
}

/// Runs until it is dropped.
pub(crate) async fn run(store: Store, signers: Arc<Signers>) {
    let mut seen = BTreeMap::new();
    let mut next_telling = Instant::now();
    let mut target = Vec::new();
    loop {
        let now = Instant::now();
        let (looked, mut watcher) = store.view_and_watch(|view| {
            let cluster = view.all::<Cluster>().next()?;
            signers.keep_only(cluster);
            let wanted = rotation::target(cluster.root_ca.as_ref()?);
            if target != wanted {
                // Nobody was told of this one yet.
                target = wanted.to_vec();
                seen.clear();
                next_telling = now;
            }
            let may_tell = next_telling <= now;
            if may_tell {
                next_telling = now + EVERY;
            }
            let nodes = view.all::<Node>().map(Arc::as_ref);
            let issuer = issuer(cluster)?;
            let findings = look(cluster, &issuer, nodes, &mut seen, now, may_tell);
            Some((findings, Concern { issuer, rotating: is_rotating(cluster) }))
        });
        let took = now.elapsed();
        let (findings, concern) = looked.unzip();
        let findings = findings.unwrap_or_default();
        if let Err(error) = tell(&store, &findings.to_tell).await {
            tracing::error!(error = %brig_types::error::chain(&error), "cannot tell nodes to renew their certificates");
        }
        if let Some((rotation, left)) = findings.to_finish {
            match finish(&store, &rotation, &left).await {
                Ok(true) if left.is_empty() => {
                    tracing::info!("the swarm has a new root certificate");
                }
                Ok(true) => tracing::warn!(
                    nodes = left.join(", "),
                    "the swarm has a new root certificate; nodes that are down follow when they come back"
                ),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %brig_types::error::chain(&error), "cannot finish the rotation of the root certificate");
                }
            }
        }
        tokio::time::sleep(PAUSE.max(took.saturating_mul(SPARED))).await;
        if !worth_a_look(&mut watcher, next_telling, concern.as_ref()).await {
            return;
        }
    }
}

/// What can change the findings of a look.
struct Concern {
    issuer: CertInfo,
    rotating: bool,
}

impl Concern {
    /// Thousands of nodes can join or renew in a row, and a look at all of them for each would cost
    /// more than their certificates.
    fn is_touched_by(&self, change: &Change) -> bool {
        match change.object() {
            Object::Cluster(_) => true,
            Object::Node(node) => self.rotating || is_straggler(node, &self.issuer),
            Object::Service(_) | Object::Task(_) | Object::Secret(_) => false,
            Object::Config(_)
            | Object::Network(_)
            | Object::Access(_)
            | Object::ScanDatabase(_)
            | Object::Policy(_)
            | Object::Trust(_)
            | Object::TrustMetadata(_) => false,
        }
    }
}

/// Sleeps until something changed that concerns it, or it is time; `false` when the store is
/// closed.
async fn worth_a_look(
    watcher: &mut brig_store::Watcher,
    at: Instant,
    concern: Option<&Concern>,
) -> bool {
    loop {
        let wake = tokio::select! {
            wake = changes::wait(watcher, None) => wake,
            () = tokio::time::sleep_until(at) => return true,
        };
        match wake {
            Wake::Changes(commits) => {
                let touches = |change| concern.is_none_or(|it| it.is_touched_by(change));
                if changes::of(&commits).any(touches) {
                    return true;
                }
            }
            Wake::Time | Wake::Missed => return true,
            Wake::Closed => return false,
        }
    }
}

fn is_rotating(cluster: &Cluster) -> bool {
    cluster.root_ca.as_ref().is_some_and(|root| root.root_rotation.is_some())
}

/// The root that nodes are to have certificates of.
fn issuer(cluster: &Cluster) -> Option<CertInfo> {
    match CertInfo::from_pem(rotation::target(cluster.root_ca.as_ref()?)) {
        Ok(issuer) => Some(issuer),
        Err(error) => {
            tracing::error!(error = %error, "the cluster's root certificate cannot be read");
            None
        }
    }
}

/// Whether a node is up without the right certificate.
fn is_straggler(node: &Node, issuer: &CertInfo) -> bool {
    state(node) == node_status::State::Ready && !rotation::is_issued_by(node, issuer)
}

fn look<'a>(
    cluster: &Cluster,
    issuer: &CertInfo,
    nodes: impl Iterator<Item = &'a Node>,
    seen: &mut BTreeMap<String, Seen>,
    now: Instant,
    may_tell: bool,
) -> Findings {
    let Some(root) = &cluster.root_ca else { return Findings::default() };
    // Those that are away hold up nothing but the end of a rotation.
    let is_behind = |node: &&Node| match &root.root_rotation {
        Some(_) => !rotation::is_issued_by(node, issuer),
        None => is_straggler(node, issuer),
    };
    let behind: Vec<&Node> = nodes.filter(is_behind).collect();
    let ids: BTreeSet<&str> = behind.iter().map(|node| node.id.as_str()).collect();
    seen.retain(|id, _| ids.contains(id.as_str()));
    let mut findings = Findings::default();
    let mut left = Vec::new();
    let mut holding = false;
    for node in behind {
        let entry = seen.entry(node.id.clone()).or_default();
        let up = state(node) == node_status::State::Ready;
        if up {
            entry.away = None;
            if may_tell && findings.to_tell.len() < BATCH && can_be_told(node, entry, now) {
                let times = entry.told.map_or(0, |(_, times)| times);
                entry.told = Some((now + rotation::patience(times), times + 1));
                findings.to_tell.push(node.id.clone());
            }
        }
        let away = (!up).then(|| *entry.away.get_or_insert(now));
        let given_up = away.is_some_and(|since| since + absence(cluster, node) <= now);
        // A manager that does not show the new root would lock everybody out.
        if given_up && node.role() != NodeRole::Manager {
            left.push(node.id.clone());
        } else {
            holding = true;
        }
    }
    if let Some(rotation) = root.root_rotation.clone().filter(|_| !holding) {
        findings.to_finish = Some((rotation, left));
    }
    findings
}

fn state(node: &Node) -> node_status::State {
    node.status.as_ref().map_or(node_status::State::Unknown, |status| status.state())
}

/// A node that asked already is left to it.
fn can_be_told(node: &Node, seen: &Seen, now: Instant) -> bool {
    let status = node.certificate.as_ref().and_then(|certificate| certificate.status.as_ref());
    let busy = status.is_some_and(|status| {
        matches!(status.state(), State::Renew | State::Pending | State::Rotate)
    });
    // Without a description it has only just come.
    let described = node.description.as_ref().is_some_and(|known| known.tls_info.is_some());
    !busy && described && seen.told.is_none_or(|(again, _)| again <= now)
}

/// How long a node may be away. One that is not known to be down may be on its way back after
/// this manager's restart.
fn absence(cluster: &Cluster, node: &Node) -> Duration {
    let period = cluster
        .spec
        .as_ref()
        .and_then(|spec| spec.dispatcher.as_ref())
        .and_then(|dispatcher| dispatcher.heartbeat_period.as_ref());
    let period = wire_time::duration(period, DEFAULT_PERIOD);
    let down = period.saturating_mul(DOWN_PATIENCE).min(MAX_DOWN_PATIENCE);
    match state(node) {
        node_status::State::Down => down,
        _ => down.saturating_add(period.saturating_mul(heartbeats::GRACE_AFTER_START)),
    }
}

/// Tells nodes to get another certificate.
async fn tell(store: &Store, nodes: &[String]) -> Result<(), ControlError> {
    if nodes.is_empty() {
        return Ok(());
    }
    tracing::info!(count = nodes.len(), "telling nodes to renew their certificates");
    store
        .update(|tx| {
            for id in nodes {
                let Some(node) = tx.get::<Node>(id) else { continue };
                let mut node = (*node).clone();
                let certificate = node.certificate.get_or_insert_default();
                // Why it failed the last time stays to be seen.
                let err = certificate.status.take().map(|status| status.err).unwrap_or_default();
                certificate.status = Some(IssuanceStatus { state: State::Rotate as i32, err });
                tx.update(node)?;
            }
            Ok(())
        })
        .await
}

/// Lets the new root take over, unless something changed meanwhile.
async fn finish(
    store: &Store,
    rotation: &RootRotation,
    left: &[String],
) -> Result<bool, ControlError> {
    let now = SystemTime::now();
    store
        .update(|tx| {
            let Some(cluster) = tx.all::<Cluster>().next().cloned() else { return Ok(false) };
            let Some(root) = cluster.root_ca.as_ref() else { return Ok(false) };
            if root.root_rotation.as_ref() != Some(rotation) {
                return Ok(false);
            }
            let issuer = CertInfo::from_pem(&rotation.ca_cert).map_err(ControlError::Pki)?;
            let all_there = tx.all::<Node>().all(|node| {
                let is_left = left.contains(&node.id) && state(node) != node_status::State::Ready;
                is_left || rotation::is_issued_by(node, &issuer)
            });
            if !all_there {
                return Ok(false);
            }
            let nodes = tx.all::<Node>().map(Arc::as_ref);
            let finished = rotation::finished(&cluster, nodes, now)?;
            let done = finished.is_some();
            if let Some(finished) = finished {
                tx.update(finished)?;
            }
            Ok(done)
        })
        .await
}

#[cfg(test)]
mod tests;
