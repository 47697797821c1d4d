//! Thousands of workers' sessions on one manager: each a mutual TLS connection of its own with its
//! session, its assignments and its heartbeats at the period it is told.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_e2e::http;
use brig_e2e::rpc::{self, Failure, Member};
use brig_pki::csr::NodeKey;
use brig_pki::identity::CertInfo;
use brig_proto::swarm::{
    AssignmentsRequest, HeartbeatRequest, NodeDescription, NodeTlsInfo, SessionRequest,
    dispatcher_client::DispatcherClient,
};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::Manager;
use crate::report;

/// Callers at once while nodes join, come and renew.
const AT_ONCE: usize = 64;
/// How long the settled swarm is watched.
const SPAN: Duration = Duration::from_secs(20);
/// The goal for renewing everybody.
const RENEWAL_GOAL: Duration = Duration::from_secs(60);
/// Periods without a heartbeat after which a manager gives a node up.
const GRACE: u32 = 3;

/// What the workers saw.
#[derive(Default)]
struct Seen {
    heartbeats: u64,
    /// Refused, or answered after the deadline.
    missed: u64,
    slowest: Duration,
    lost: u64,
}

impl Seen {
    fn beat(&mut self, took: Duration, missed: bool) {
        self.heartbeats += 1;
        self.slowest = self.slowest.max(took);
        self.missed += u64::from(missed);
    }
}

/// Opens the sessions, watches them, and renews every certificate while they go on.
pub(crate) async fn measure(count: usize) {
    let manager = Manager::start().await;
    println!("\n{count} workers' sessions on one manager on one core\n");
    let empty = manager.resident();
    let members = join(&manager, count).await;
    let seen = Rc::new(RefCell::new(Seen::default()));
    let stop = CancellationToken::new();
    let local = LocalSet::new();
    local.run_until(watch(&manager, members, &seen, &stop, empty)).await;
    stop.cancel();
    local.await;
}

async fn join(manager: &Manager, count: usize) -> Vec<Member> {
    let before = manager.usage();
    let mut joins = JoinSet::new();
    for caller in 0..AT_ONCE {
        let (swarm, share) = (manager.swarm.clone(), (count + caller) / AT_ONCE);
        joins.spawn(async move {
            let channel = swarm.anonymous().await.unwrap();
            let mut members = Vec::new();
            for _ in 0..share {
                members.push(swarm.join(channel.clone()).await.unwrap());
            }
            members
        });
    }
    let members = joins.join_all().await.concat();
    row("nodes joined", "took", manager.usage().since(before));
    members
}

async fn watch(
    manager: &Manager,
    members: Vec<Member>,
    seen: &Rc<RefCell<Seen>>,
    stop: &CancellationToken,
    empty: f64,
) {
    let count = members.len();
    let before = manager.usage();
    let mut channels = Vec::new();
    let mut opening = JoinSet::new();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    for member in members {
        let (swarm, permits) = (manager.swarm.clone(), Arc::clone(&permits));
        opening.spawn_local(async move {
            let _permit = permits.acquire().await.unwrap();
            let channel = swarm.mutual(&member.credentials).await.unwrap();
            let session = open(&channel, &swarm.roots).await.unwrap();
            (channel, session)
        });
        // Those who are in keep their heart beating while others come.
        while let Some(opened) = opening.try_join_next() {
            channels.push(keep(opened.unwrap(), seen, stop));
        }
        tokio::task::yield_now().await;
    }
    while let Some(opened) = opening.join_next().await {
        channels.push(keep(opened.unwrap(), seen, stop));
    }
    row("sessions opened", "took", manager.usage().since(before));
    tokio::time::sleep(Duration::from_secs(3)).await;

    *seen.borrow_mut() = Seen::default();
    let before = manager.usage();
    tokio::time::sleep(SPAN).await;
    let (took, cpu) = manager.usage().since(before);
    let resident = manager.resident();
    let busy = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    println!(
        "  at rest             {busy:.1} % of a core, {resident:.0} MiB resident ({:.0} KiB a session), {} descriptors",
        (resident - empty) * 1024.0 / count as f64,
        manager.descriptors()
    );
    heartbeats("at rest", &seen.borrow());
    report::load("sessions: manager's CPU at rest", busy, "%", None);
    report::load("sessions: manager's memory", resident, "MiB", None);
    let missed_at_rest = seen.borrow().missed + seen.borrow().lost;

    *seen.borrow_mut() = Seen::default();
    let before = manager.usage();
    let mut renewing = JoinSet::new();
    for channel in channels {
        let permits = Arc::clone(&permits);
        renewing.spawn_local(async move {
            let _permit = permits.acquire().await.unwrap();
            let csr = NodeKey::generate().unwrap().csr_pem().unwrap();
            rpc::issue(channel, csr, "").await.unwrap();
        });
    }
    let renewed = renewing.join_all().await.len();
    let (took, cpu) = manager.usage().since(before);
    row(&format!("{renewed} renewed"), "took", (took, cpu));
    println!("                      goal: within {} s", RENEWAL_GOAL.as_secs());
    heartbeats("while renewing", &seen.borrow());
    report::load(
        "sessions: all certificates renewed",
        took.as_secs_f64(),
        "s",
        Some(RENEWAL_GOAL.as_secs_f64()),
    );
    let missed = missed_at_rest + seen.borrow().missed + seen.borrow().lost;
    report::load("sessions: heartbeats missed", missed as f64, "", Some(0.0));
    let nodes = http::get(&manager.socket(), "/v1.41/nodes");
    let down = nodes.as_array().map_or(usize::MAX, |nodes| {
        nodes.iter().filter(|node| node["Status"]["State"] != "ready").count()
    });
    println!("  nodes not ready     {down}, resident {:.0} MiB", manager.resident());
}

/// A session and everything of a worker that goes on in it.
struct Opened {
    channel: Channel,
    session: String,
    messages: tonic::Streaming<brig_proto::swarm::SessionMessage>,
    assignments: tonic::Streaming<brig_proto::swarm::AssignmentsMessage>,
}

async fn open(channel: &Channel, roots: &[u8]) -> Result<Opened, Failure> {
    let mut dispatcher = DispatcherClient::new(channel.clone());
    let root = CertInfo::from_pem(roots)?;
    let tls_info = NodeTlsInfo {
        trust_root: roots.to_vec(),
        cert_issuer_subject: root.subject_der,
        cert_issuer_public_key: root.public_key_der,
    };
    let description = NodeDescription {
        hostname: "simulated".to_owned(),
        tls_info: Some(tls_info),
        ..NodeDescription::default()
    };
    let request = SessionRequest { description: Some(description), ..SessionRequest::default() };
    let mut messages = dispatcher.session(request).await?.into_inner();
    let session = messages.message().await?.ok_or("the session ended")?.session_id;
    let request = AssignmentsRequest { session_id: session.clone() };
    let mut assignments = dispatcher.assignments(request).await?.into_inner();
    assignments.message().await?.ok_or("the assignments ended")?;
    Ok(Opened { channel: channel.clone(), session, messages, assignments })
}

/// Keeps a session; answers its connection.
fn keep(
    (channel, opened): (Channel, Opened),
    seen: &Rc<RefCell<Seen>>,
    stop: &CancellationToken,
) -> Channel {
    let Opened { channel: own, session, mut messages, mut assignments } = opened;
    let (seen, stop) = (Rc::clone(seen), stop.clone());
    tokio::task::spawn_local(async move {
        let streams = async move {
            loop {
                let goes_on = tokio::select! {
                    message = messages.message() => matches!(message, Ok(Some(_))),
                    change = assignments.message() => matches!(change, Ok(Some(_))),
                };
                if !goes_on {
                    break;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = streams => seen.borrow_mut().lost += 1,
            () = beat(own, session, &seen) => {}
        }
    });
    channel
}

/// Beats at the period that the manager asks for.
async fn beat(channel: Channel, session: String, seen: &Rc<RefCell<Seen>>) {
    let mut dispatcher = DispatcherClient::new(channel);
    let mut period = Duration::ZERO;
    loop {
        let start = Instant::now();
        let request = HeartbeatRequest { session_id: session.clone() };
        let answer = dispatcher.heartbeat(request).await;
        let took = start.elapsed();
        // From the last answer to this one.
        let late = !period.is_zero() && period + took > period * GRACE;
        seen.borrow_mut().beat(took, late || answer.is_err());
        if let Some(told) = answer.ok().and_then(|answer| answer.into_inner().period) {
            period = Duration::try_from(told).unwrap_or(period);
        }
        tokio::time::sleep(period).await;
    }
}

fn row(what: &str, verb: &str, (took, cpu): (Duration, Duration)) {
    println!(
        "  {:<20}{verb} {:.1} s, {:.1} s of the manager's CPU",
        what,
        took.as_secs_f64(),
        cpu.as_secs_f64()
    );
}

fn heartbeats(when: &str, seen: &Seen) {
    println!(
        "  heartbeats          {when}: {} sent, {} missed, {} sessions lost, slowest answer {:.0} ms",
        seen.heartbeats,
        seen.missed,
        seen.lost,
        seen.slowest.as_secs_f64() * 1000.0
    );
}
