//! Certificates a second over the real calls: `IssueNodeCertificate`, then
//! `NodeCertificateStatus`, over TLS to a manager process with one processor.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use brig_e2e::rpc::{self, Member};
use brig_pki::csr::NodeKey;
use tokio::task::LocalSet;

use super::Manager;
use crate::report;

/// How long each kind is measured.
const SPAN: Duration = Duration::from_secs(5);
/// Callers at once. Most nodes of a cluster renew on their own; this many at a time is a storm.
const CALLERS: usize = 64;
/// Requests that are made beforehand, each with its own key.
const REQUESTS: usize = 256;
/// The goal for each kind over connections that exist.
const GOAL: f64 = 2000.0;

/// Measures joins and renewals, each over kept connections and with a connection for each.
pub(crate) async fn measure() {
    let manager = Manager::start().await;
    let requests: Rc<Vec<Vec<u8>>> =
        Rc::new((0..REQUESTS).map(|_| NodeKey::generate().unwrap().csr_pem().unwrap()).collect());
    let mut members = Vec::new();
    for _ in 0..CALLERS {
        let channel = manager.swarm.anonymous().await.unwrap();
        members.push(manager.swarm.join(channel).await.unwrap());
    }
    println!("\ncertificates a second, manager on one core, {CALLERS} callers on another\n");
    println!("{:<52}{:>10}{:>22}", "what", "per second", "manager's CPU, each");
    for (renew, keep) in [(true, true), (false, true), (true, false), (false, false)] {
        let count = Rc::new(Cell::new(0_u64));
        let before = manager.usage();
        let end = Instant::now() + SPAN;
        let local = LocalSet::new();
        for (caller, member) in members.iter().enumerate() {
            let load = Load { manager: &manager, renew, keep };
            let requests = Rc::clone(&requests);
            local.spawn_local(load.call(caller, member.clone(), requests, end, Rc::clone(&count)));
        }
        local.await;
        let (took, cpu) = manager.usage().since(before);
        let done = count.get() as f64;
        let what = format!(
            "{}, {}",
            if renew { "renewals" } else { "joins as a worker" },
            if keep { "connections kept" } else { "a TLS connection for each" }
        );
        let rate = done / took.as_secs_f64();
        let each = cpu.as_secs_f64() * 1e6 / done;
        println!("{what:<52}{rate:>10.0}{:>19.0} us", each);
        let goal = keep.then_some(GOAL);
        report::load(&format!("certificates: {what}"), rate, "1/s", goal);
        report::load(&format!("certificates: {what}, manager's CPU"), each, "us", None);
    }
    println!("  goal with connections kept: over {GOAL:.0}");
}

struct Load<'a> {
    manager: &'a Manager,
    renew: bool,
    keep: bool,
}

impl Load<'_> {
    /// One caller until the end.
    fn call(
        self,
        caller: usize,
        member: Member,
        requests: Rc<Vec<Vec<u8>>>,
        end: Instant,
        count: Rc<Cell<u64>>,
    ) -> impl Future<Output = ()> + 'static {
        let swarm = self.manager.swarm.clone();
        let (renew, keep) = (self.renew, self.keep);
        async move {
            let mut kept = None;
            for round in 0.. {
                if Instant::now() >= end {
                    return;
                }
                let channel = match kept.take() {
                    Some(channel) => channel,
                    None if renew => swarm.mutual(&member.credentials).await.unwrap(),
                    None => swarm.anonymous().await.unwrap(),
                };
                let csr = requests[(caller * 7 + round) % requests.len()].clone();
                let token = if renew { "" } else { swarm.token.as_str() };
                let issued = rpc::issue(channel.clone(), csr, token).await;
                let (id, certificate) = issued.unwrap();
                assert!(!certificate.certificate.is_empty());
                assert_eq!(renew, id == member.id);
                count.set(count.get() + 1);
                kept = keep.then_some(channel);
            }
        }
    }
}
