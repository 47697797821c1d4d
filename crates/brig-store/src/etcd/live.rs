//! What is true while a manager lives: that it is there, that it leads, which agents it serves.
//! Everything a manager claims hangs on one lease that it keeps alive; when it dies the claims
//! end with the lease.
//!
//! With a store in one file there is one manager, and what it claims is so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brig_proto::etcd::lease_client::LeaseClient;
use brig_proto::etcd::{
    Event, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RequestOp,
    TxnRequest, event,
};
use tokio::sync::{Notify, watch as flag};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{EtcdClient, EtcdError};
use super::layout::{self, Layout};
use super::watch;

/// How long a manager that is not heard of keeps what it claimed. etcd takes at least one and a
/// half elections.
const TTL: Duration = Duration::from_secs(2);
/// How often it is heard of.
const BEAT: Duration = Duration::from_millis(500);
/// How long a call may take.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(200);
/// The claim to lead.
const LEADER: &str = "leader";

/// What all managers claim.
pub type LiveEntries = BTreeMap<String, String>;

/// A manager's claims, and everybody's. Clones share them.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    own: Mutex<Own>,
    changed: Notify,
    entries: flag::Sender<Arc<LiveEntries>>,
    leads: flag::Sender<bool>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Nobody else is there.
    is_alone: AtomicBool,
}

#[derive(Default)]
struct Own {
    /// Since when the others have heard of this manager without a break.
    steady_since: Option<Instant>,
    claims: LiveEntries,
    /// Who this is when it leads; empty while it does not want to.
    candidate: String,
    /// Claims that were made or given back and not told yet.
    untold: Vec<String>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("leads", &*self.0.leads.borrow()).finish_non_exhaustive()
    }
}

impl Live {
    /// For the only manager.
    #[must_use]
    pub fn alone() -> Self {
        Self(Arc::new(Inner {
            own: Mutex::default(),
            changed: Notify::new(),
            entries: flag::Sender::default(),
            leads: flag::Sender::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            is_alone: AtomicBool::new(true),
        }))
    }

    /// For one of several; runs until [`Live::stop`]. Must be called within a runtime.
    #[must_use]
    pub fn start(client: EtcdClient, cluster: &str) -> Self {
        let live = Self::alone();
        live.share(client, cluster);
        live
    }

    /// The manager is not the only one any more: its claims are told, and who leads is decided
    /// between all. Must be called within a runtime.
    pub fn share(&self, client: EtcdClient, cluster: &str) {
        if !self.0.is_alone.swap(false, Ordering::AcqRel) {
            return;
        }
        let (own, layout) = (self.clone(), Layout::new(cluster));
        self.0.tasks.spawn(async move {
            let stop = own.0.stop.clone();
            let mut lease = 0;
            tokio::select! {
                () = stop.cancelled() => {}
                () = own.run(&client, &layout, &mut lease) => {}
            }
            own.0.leads.send_replace(false);
            if lease != 0 {
                // Others need not wait for the lease to end.
                let _ = revoke(&client, lease).await;
            }
        });
    }

    /// Claims something for as long as this manager lives.
    pub fn claim(&self, key: &str, value: &str) {
        self.own().claims.insert(key.to_owned(), value.to_owned());
        self.tell(key);
    }

    /// Gives a claim back.
    pub fn give_back(&self, key: &str) {
        self.own().claims.remove(key);
        self.tell(key);
    }

    /// Wants to lead, as `candidate`.
    pub fn campaign(&self, candidate: &str) {
        candidate.clone_into(&mut self.own().candidate);
        if self.0.is_alone.load(Ordering::Acquire) {
            self.0.leads.send_replace(true);
        }
        self.tell(LEADER);
    }

    /// Whether this manager leads. It stops leading before anybody else starts.
    #[must_use]
    pub fn leads(&self) -> flag::Receiver<bool> {
        self.0.leads.subscribe()
    }

    /// What everybody claims.
    #[must_use]
    pub fn entries(&self) -> flag::Receiver<Arc<LiveEntries>> {
        self.0.entries.subscribe()
    }

    /// The value of one claim.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        self.0.entries.borrow().get(key).cloned()
    }

    /// Whether the others have heard of this manager without a break for that long.
    #[must_use]
    pub fn is_steady(&self, time: Duration) -> bool {
        self.0.is_alone.load(Ordering::Acquire)
            || self.own().steady_since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Who leads now.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        self.get(LEADER)
    }

    /// Ends all claims.
    pub fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
    }

    /// Waits until the others were told of the end.
    pub async fn stopped(&self) {
        self.0.tasks.wait().await;
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, key: &str) {
        if self.0.is_alone.load(Ordering::Acquire) {
            let own = self.own();
            let mut entries = own.claims.clone();
            if !own.candidate.is_empty() {
                entries.insert(LEADER.to_owned(), own.candidate.clone());
            }
            drop(own);
            self.0.entries.send_replace(Arc::new(entries));
            return;
        }
        if key != LEADER {
            self.own().untold.push(key.to_owned());
        }
        self.0.changed.notify_one();
    }

    async fn run(&self, client: &EtcdClient, layout: &Layout, lease: &mut i64) {
        loop {
            let end = self.live(client, layout, lease).await;
            self.own().steady_since = None;
            if let Err(error) = end {
                client.failed(&error);
                tracing::info!(error = %brig_types::error::chain(&error), "this manager is not heard of by the others");
            }
            self.0.leads.send_if_modified(|leads| std::mem::replace(leads, false));
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One lease and one watch, until either ends.
    async fn live(
        &self,
        client: &EtcdClient,
        layout: &Layout,
        lease: &mut i64,
    ) -> Result<(), EtcdError> {
        // After an interruption the old lease may still be there.
        if *lease == 0 || beat(client, *lease).await.is_err() {
            self.0.leads.send_replace(false);
            *lease = grant(client).await?;
            let mut own = self.own();
            own.untold = own.claims.keys().cloned().collect();
        }
        let range = RangeRequest {
            key: layout.live(),
            range_end: layout::prefix_end(&layout.live()),
            ..RangeRequest::default()
        };
        let answer = client.range(&range, PATIENCE).await?;
        let start = answer.header.as_ref().map_or(0, |header| header.revision) + 1;
        let mut leader_lease = 0;
        let mut entries = LiveEntries::new();
        for kv in &answer.kvs {
            let Some(key) = short(layout, &kv.key) else { continue };
            if key == LEADER {
                leader_lease = kv.lease;
            }
            entries.insert(key, layout::text(kv));
        }
        self.0.entries.send_replace(Arc::new(entries.clone()));
        let (_requests, mut stream) = watch::open(client, layout.live(), start).await?;
        let mut heard = Instant::now();
        self.own().steady_since = Some(heard);
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.tell_claims(client, layout, *lease).await?;
            if !entries.contains_key(LEADER) {
                self.try_to_lead(client, layout, *lease).await?;
            }
            let leads = leader_lease == *lease && heard.elapsed() < TTL;
            self.0.leads.send_if_modified(|current| std::mem::replace(current, leads) != leads);
            tokio::select! {
                _ = beats.tick() => {
                    beat(client, *lease).await?;
                    heard = Instant::now();
                }
                () = self.0.changed.notified() => {}
                message = stream.message() => {
                    let message = message?.ok_or(EtcdError::BadAnswer("the watch ended"))?;
                    if message.canceled {
                        return Err(EtcdError::BadAnswer("the watch was canceled"));
                    }
                    for event in message.events {
                        self.give_up_lost(layout, &event, *lease);
                        take(layout, event, &mut entries, &mut leader_lease);
                    }
                    self.0.entries.send_replace(Arc::new(entries.clone()));
                }
            }
        }
    }

    /// Whoever claims something last has it: it must not be claimed back with the next lease.
    fn give_up_lost(&self, layout: &Layout, event: &Event, lease: i64) {
        let Some(kv) = event.kv.as_ref().filter(|kv| kv.lease != 0 && kv.lease != lease) else {
            return;
        };
        let Some(key) = short(layout, &kv.key) else { return };
        let mut own = self.own();
        if !own.untold.contains(&key) {
            own.claims.remove(&key);
        }
    }

    /// Tells of the claims that were made or given back since the last time.
    async fn tell_claims(
        &self,
        client: &EtcdClient,
        layout: &Layout,
        lease: i64,
    ) -> Result<(), EtcdError> {
        loop {
            let (key, value) = {
                let own = self.own();
                let Some(key) = own.untold.first().cloned() else { return Ok(()) };
                let value = own.claims.get(&key).cloned();
                (key, value)
            };
            let full = long(layout, &key);
            let request = match &value {
                Some(value) => TxnRequest {
                    success: vec![layout::put(full, value.clone().into_bytes(), lease)],
                    ..TxnRequest::default()
                },
                // Somebody else may claim it now.
                None => give_back(full, lease),
            };
            client.txn(&request, PATIENCE).await?;
            let mut own = self.own();
            if own.claims.get(&key) == value.as_ref() {
                own.untold.retain(|untold| *untold != key);
            }
        }
    }

    async fn try_to_lead(
        &self,
        client: &EtcdClient,
        layout: &Layout,
        lease: i64,
    ) -> Result<(), EtcdError> {
        let candidate = self.own().candidate.clone();
        if candidate.is_empty() {
            return Ok(());
        }
        let key = long(layout, LEADER);
        let request = TxnRequest {
            compare: vec![layout::is_absent(key.clone())],
            success: vec![layout::put(key, candidate.into_bytes(), lease)],
            failure: Vec::new(),
        };
        client.txn(&request, PATIENCE).await.map(drop)
    }
}

fn take(layout: &Layout, event: Event, entries: &mut LiveEntries, leader_lease: &mut i64) {
    let is_put = event.r#type() == event::EventType::Put;
    let Some(kv) = event.kv else { return };
    let Some(key) = short(layout, &kv.key) else { return };
    if key == LEADER {
        *leader_lease = if is_put { kv.lease } else { 0 };
    }
    if is_put {
        entries.insert(key, layout::text(&kv));
    } else {
        entries.remove(&key);
    }
}

fn long(layout: &Layout, key: &str) -> Vec<u8> {
    let mut full = layout.live();
    full.extend_from_slice(key.as_bytes());
    full
}

fn short(layout: &Layout, key: &[u8]) -> Option<String> {
    let key = key.strip_prefix(layout.live().as_slice())?;
    String::from_utf8(key.to_vec()).ok()
}

fn give_back(key: Vec<u8>, lease: i64) -> TxnRequest {
    use brig_proto::etcd::{Compare, compare};
    let own = Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Lease as i32,
        key: key.clone(),
        target_union: Some(compare::TargetUnion::Lease(lease)),
    };
    let success: Vec<RequestOp> = vec![layout::delete(key)];
    TxnRequest { compare: vec![own], success, failure: Vec::new() }
}

async fn grant(client: &EtcdClient) -> Result<i64, EtcdError> {
    let ttl = i64::try_from(TTL.as_secs()).unwrap_or(i64::MAX);
    let mut leases = LeaseClient::new(client.channel()?);
    let request = LeaseGrantRequest { ttl, id: 0 };
    match tokio::time::timeout(PATIENCE, leases.lease_grant(request)).await {
        Ok(answer) => Ok(answer?.into_inner().id),
        Err(_) => Err(EtcdError::Unanswered(client.endpoints().join(", "))),
    }
}

async fn revoke(client: &EtcdClient, lease: i64) -> Result<(), EtcdError> {
    let mut leases = LeaseClient::new(client.channel()?);
    let request = LeaseRevokeRequest { id: lease };
    match tokio::time::timeout(PATIENCE, leases.lease_revoke(request)).await {
        Ok(answer) => answer.map(drop).map_err(Into::into),
        Err(_) => Err(EtcdError::Unanswered(client.endpoints().join(", "))),
    }
}

/// Keeps a lease; fails when it is gone.
async fn beat(client: &EtcdClient, lease: i64) -> Result<(), EtcdError> {
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(LeaseKeepAliveRequest { id: lease });
    let mut leases = LeaseClient::new(client.channel()?);
    let asked = async {
        let mut answers =
            leases.lease_keep_alive(ReceiverStream::new(requests)).await?.into_inner();
        answers.next().await.transpose()
    };
    let answer = tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(|_| EtcdError::Unanswered(client.endpoints().join(", ")))??;
    match answer {
        Some(answer) if answer.ttl > 0 => Ok(()),
        Some(_) | None => Err(EtcdError::BadAnswer("the lease has ended")),
    }
}
