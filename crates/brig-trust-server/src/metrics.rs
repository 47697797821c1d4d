//! Counters in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By route and status; both are few.
    requests: Mutex<BTreeMap<(&'static str, u16), Line>>,
    pub(crate) connections: AtomicU64,
    pub(crate) handshake_failures: AtomicU64,
    pub(crate) renewals: AtomicU64,
}

#[derive(Debug, Default)]
struct Line {
    count: u64,
    time: Duration,
}

impl Metrics {
    pub(crate) fn answered(&self, route: &'static str, status: u16, time: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let line = requests.entry((route, status)).or_default();
        line.count += 1;
        line.time += time;
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(2048);
        let mut single = |name: &str, help: &str, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "# HELP brig_trust_{name} {help}\n# TYPE brig_trust_{name} counter\nbrig_trust_{name} {value}\n"
            );
        };
        single("connections_total", "TLS connections.", &self.connections);
        single("handshake_failures_total", "Connections without one.", &self.handshake_failures);
        single("renewals_total", "Repositories signed anew before their end.", &self.renewals);
        text.push_str(
            "# HELP brig_trust_requests_total Requests by route and status.\n\
             # TYPE brig_trust_requests_total counter\n",
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, status), line) in requests.iter() {
            let count = line.count;
            let _ = writeln!(
                text,
                "brig_trust_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
            );
        }
        text.push_str(
            "# HELP brig_trust_request_seconds_total Time spent on them.\n\
             # TYPE brig_trust_request_seconds_total counter\n",
        );
        for ((route, status), line) in requests.iter() {
            let seconds = line.time.as_secs_f64();
            let _ = writeln!(
                text,
                "brig_trust_request_seconds_total{{route=\"{route}\",status=\"{status}\"}} {seconds:.6}"
            );
        }
        text
    }
}
