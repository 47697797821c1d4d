//! A generator of node traffic against one manager that has one processor for itself; the
//! generator keeps to another one.

pub(crate) mod certificates;
pub(crate) mod sessions;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use brig_e2e::Brigd;
use brig_e2e::rpc::Swarm;

/// The manager's processor and the generator's.
const MANAGER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;

/// A manager under load.
pub(crate) struct Manager {
    daemon: Brigd,
    pub(crate) swarm: Swarm,
}

/// What a process used up to a moment.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    at: Instant,
    cpu: Duration,
}

impl Manager {
    /// A fresh swarm of one node.
    pub(crate) async fn start() -> Self {
        let daemon = Brigd::start_pinned(MANAGER_CORE);
        daemon.init_swarm();
        let token = daemon.brig().run(&["swarm", "join-token", "-q", "worker"]).ok().to_owned();
        let address = format!("127.0.0.1:{}", daemon.swarm_port());
        let swarm = Swarm::find(&address, &token).await.unwrap();
        Self { daemon, swarm }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.daemon.socket()
    }

    /// Processor time up to now.
    pub(crate) fn usage(&self) -> Usage {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid())).unwrap();
        // Fields 14 and 15, counted after the name, which may hold anything.
        let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Usage { at: Instant::now(), cpu: Duration::from_millis(ticks * 1000 / TICKS) }
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).unwrap().count()
    }
}

/// Clock ticks a second in /proc, on every Linux there is.
const TICKS: u64 = 100;

impl Usage {
    /// Wall time and processor time since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> (Duration, Duration) {
        (self.at - earlier.at, self.cpu.saturating_sub(earlier.cpu))
    }
}

/// Runs a load on the generator's processor.
pub(crate) fn run(work: impl Future<Output = ()>) {
    let mut own = rustix::thread::CpuSet::new();
    own.set(GENERATOR_CORE);
    let everywhere = rustix::thread::sched_getaffinity(None).unwrap();
    rustix::thread::sched_setaffinity(None, &own).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    rustix::thread::sched_setaffinity(None, &everywhere).unwrap();
}
