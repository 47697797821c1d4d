//! What a container uses right now: control groups and network counters, read from the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_api::stats::{
    BlkioEntry, BlkioStats, ContainerStats, CpuStats, CpuUsage, InterfaceStats, MemoryStats,
    PidsStats, ThrottlingData,
};
use brig_sys::cgroup::{self, CgroupMode};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::state::ProcessFacts;
use crate::disk::read_limited;
use crate::engine::Engine;
use crate::error::EngineError;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Largest file of the kernel's that is read.
const MAX_FILE: u64 = 1 << 20;
/// `/proc/stat` grows with processors and interrupts.
const MAX_PROC_STAT: u64 = 16 << 20;
/// Looks that wait for a slow client; it gets old ones then.
const BUFFERED: usize = 2;
/// Nanoseconds of a tick of the kernel's user interface, which is always 100 a second.
const TICK: u64 = 10_000_000;

/// What of a container's statistics is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatsRequest {
    /// One look each second until the container is removed.
    pub stream: bool,
    /// Without `stream`: no second look to compare with.
    pub one_shot: bool,
}

/// What Docker Engine tells of `memory.stat` under cgroup v1. Kernels add to it, and some clients
/// refuse fields that they do not know.
const SEPARATE_MEMORY: [&str; 32] = [
    "active_anon",
    "active_file",
    "cache",
    "dirty",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
    "inactive_anon",
    "inactive_file",
    "mapped_file",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "rss",
    "rss_huge",
    "total_active_anon",
    "total_active_file",
    "total_cache",
    "total_dirty",
    "total_inactive_anon",
    "total_inactive_file",
    "total_mapped_file",
    "total_pgfault",
    "total_pgmajfault",
    "total_pgpgin",
    "total_pgpgout",
    "total_rss",
    "total_rss_huge",
    "total_unevictable",
    "total_writeback",
    "unevictable",
    "writeback",
];

/// The same under cgroup v2; what a kernel does not count is 0.
const UNIFIED_MEMORY: [&str; 31] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault",
];

impl Engine {
    /// Looks at what a container uses. One that doesn't run gives zeroes.
    ///
    /// # Errors
    /// Unknown container.
    pub fn stats(
        &self,
        key: &str,
        request: StatsRequest,
    ) -> Result<mpsc::Receiver<ContainerStats>, EngineError> {
        let container = self.registry().find(key)?;
        let (sender, receiver) = mpsc::channel(BUFFERED);
        let (engine, stop) = (self.clone(), self.child_token());
        let work = async move {
            let mut phase = container.phase.subscribe();
            let mut previous: Option<ContainerStats> = None;
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    gone = phase.wait_for(|phase| phase.removed) => {
                        drop(gone);
                        return;
                    }
                }
                let (process, name) = {
                    let cell = container.cell();
                    (cell.record.state.process, format!("/{}", cell.record.name))
                };
                let id = container.id.to_string();
                let look = async {
                    let groups = process?;
                    engine.blocking(move || Ok(look(groups))).await.ok().flatten()
                };
                let looked = look.await;
                let runs = looked.is_some();
                let mut stats = looked.unwrap_or_else(|| ContainerStats {
                    read: brig_api::time::zero(),
                    preread: brig_api::time::zero(),
                    ..ContainerStats::default()
                });
                (stats.name, stats.id) = (name, id);
                let first = previous.is_none();
                if let Some(before) = previous.take().filter(|_| runs) {
                    stats.preread = before.read;
                    stats.precpu_stats = before.cpu_stats;
                }
                if !request.stream {
                    if request.one_shot || !runs || !first {
                        let _ = sender.send(stats).await;
                        return;
                    }
                } else if sender.send(stats.clone()).await.is_err() {
                    return;
                }
                previous = runs.then_some(stats);
            }
        };
        self.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
        Ok(receiver)
    }
}

/// One look at a running container; `None` when it has ended. Blocking.
fn look(process: ProcessFacts) -> Option<ContainerStats> {
    let proc = PathBuf::from(format!("/proc/{}", process.pid));
    let groups = Groups::of(&text(&proc.join("cgroup"))?, cgroup::mode());
    let interfaces = interfaces(&text(&proc.join("net/dev")).unwrap_or_default());
    // What was read belongs to this process only if it is still there.
    if !brig_sys::process::alive(process.pid, process.pid_start) {
        return None;
    }
    let (system, online) = system_cpu();
    Some(ContainerStats {
        read: brig_api::time::rfc3339nano(OffsetDateTime::now_utc()),
        preread: brig_api::time::zero(),
        pids_stats: groups.pids(),
        blkio_stats: groups.blkio(),
        cpu_stats: CpuStats { system_cpu_usage: system, online_cpus: online, ..groups.cpu() },
        memory_stats: groups.memory(),
        networks: interfaces,
        ..ContainerStats::default()
    })
}

fn text(path: &Path) -> Option<String> {
    String::from_utf8(read_limited(path, MAX_FILE).ok()?).ok()
}

/// Where a container's control groups are.
#[derive(Debug)]
enum Groups {
    /// Each controller in a hierarchy of its own.
    Separate(BTreeMap<String, PathBuf>),
    Unified(PathBuf),
}

impl Groups {
    /// Reads `/proc/PID/cgroup`.
    fn of(table: &str, mode: CgroupMode) -> Self {
        let root = Path::new(cgroup::ROOT);
        let place = |hierarchy: &Path, group: &str| {
            cgroup::group_path(hierarchy, group).unwrap_or_else(|_| hierarchy.to_owned())
        };
        let lines = table.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        if mode == CgroupMode::V2 {
            let group = lines.filter(|(names, _)| names.is_empty()).map(|(_, group)| group).next();
            return Self::Unified(place(root, group.unwrap_or("/")));
        }
        Self::Separate(
            lines
                .flat_map(|(names, group)| names.split(',').map(move |name| (name, group)))
                .filter(|(name, _)| !name.is_empty() && !name.contains(['=', '/']))
                // systemd links each controller's name to the directory that it shares.
                .map(|(name, group)| (name.to_owned(), place(&root.join(name), group)))
                .collect(),
        )
    }

    /// A file of a controller.
    fn read(&self, controller: &str, file: &str) -> Option<String> {
        let dir = match self {
            Self::Separate(dirs) => dirs.get(controller)?,
            Self::Unified(dir) => dir,
        };
        text(&dir.join(file))
    }

    fn number(&self, controller: &str, file: &str) -> u64 {
        self.read(controller, file).as_deref().map_or(0, limit)
    }

    /// A file of `name value` lines.
    fn table(&self, controller: &str, file: &str) -> BTreeMap<String, u64> {
        table(&self.read(controller, file).unwrap_or_default())
    }

    fn pids(&self) -> PidsStats {
        PidsStats {
            current: self.number("pids", "pids.current"),
            limit: self.number("pids", "pids.max"),
        }
    }

    fn cpu(&self) -> CpuStats {
        let stat = self.table("cpu", "cpu.stat");
        let of = |table: &BTreeMap<String, u64>, name: &str| table.get(name).copied().unwrap_or(0);
        let throttling_data = ThrottlingData {
            periods: of(&stat, "nr_periods"),
            throttled_periods: of(&stat, "nr_throttled"),
            throttled_time: match self {
                Self::Separate(_) => of(&stat, "throttled_time"),
                Self::Unified(_) => of(&stat, "throttled_usec").saturating_mul(1000),
            },
        };
        let cpu_usage = match self {
            Self::Separate(_) => {
                let modes = self.table("cpuacct", "cpuacct.stat");
                let each = self.read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
                CpuUsage {
                    total_usage: self.number("cpuacct", "cpuacct.usage"),
                    percpu_usage: each
                        .split_ascii_whitespace()
                        .filter_map(|word| word.parse().ok())
                        .collect(),
                    usage_in_kernelmode: of(&modes, "system").saturating_mul(TICK),
                    usage_in_usermode: of(&modes, "user").saturating_mul(TICK),
                }
            }
            Self::Unified(_) => CpuUsage {
                total_usage: of(&stat, "usage_usec").saturating_mul(1000),
                percpu_usage: Vec::new(),
                usage_in_kernelmode: of(&stat, "system_usec").saturating_mul(1000),
                usage_in_usermode: of(&stat, "user_usec").saturating_mul(1000),
            },
        };
        CpuStats { cpu_usage, throttling_data, ..CpuStats::default() }
    }

    fn memory(&self) -> MemoryStats {
        let kernel = self.table("memory", "memory.stat");
        let known: &[&str] = match self {
            Self::Separate(_) => &SEPARATE_MEMORY,
            Self::Unified(_) => &UNIFIED_MEMORY,
        };
        let value = |name: &&str| ((*name).to_owned(), kernel.get(*name).copied().unwrap_or(0));
        let stats =
            if kernel.is_empty() { BTreeMap::new() } else { known.iter().map(value).collect() };
        let (usage, limit, max_usage, failcnt) = match self {
            Self::Separate(_) => (
                self.number("memory", "memory.usage_in_bytes"),
                self.number("memory", "memory.limit_in_bytes"),
                self.number("memory", "memory.max_usage_in_bytes"),
                self.number("memory", "memory.failcnt"),
            ),
            Self::Unified(_) => (
                self.number("memory", "memory.current"),
                self.number("memory", "memory.max"),
                0,
                self.table("memory", "memory.events").get("oom").copied().unwrap_or(0),
            ),
        };
        // Without a limit the machine is one.
        let machine = rustix::system::sysinfo();
        let machine = machine.totalram.saturating_mul(machine.mem_unit.into());
        MemoryStats { usage, max_usage, stats, failcnt, limit: limit.min(machine) }
    }

    fn blkio(&self) -> BlkioStats {
        let (bytes, operations) = match self {
            Self::Separate(_) => {
                let first = |files: [&str; 2]| {
                    files
                        .into_iter()
                        .filter_map(|file| self.read("blkio", file))
                        .map(|text| separate_blkio(&text))
                        .find(|entries| !entries.is_empty())
                        .unwrap_or_default()
                };
                (
                    first([
                        "blkio.bfq.io_service_bytes_recursive",
                        "blkio.throttle.io_service_bytes_recursive",
                    ]),
                    first([
                        "blkio.bfq.io_serviced_recursive",
                        "blkio.throttle.io_serviced_recursive",
                    ]),
                )
            }
            Self::Unified(_) => unified_blkio(&self.read("io", "io.stat").unwrap_or_default()),
        };
        BlkioStats {
            io_service_bytes_recursive: Some(bytes),
            io_serviced_recursive: Some(operations),
            ..BlkioStats::default()
        }
    }
}

/// A number, or `max`.
fn limit(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Version 1: `8:0 Read 4096`.
fn separate_blkio(text: &str) -> Vec<BlkioEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = device(words.next()?)?;
            let op = words.next()?.to_ascii_lowercase();
            Some(BlkioEntry { major, minor, op, value: words.next()?.parse().ok()? })
        })
        .collect()
}

/// Version 2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`: bytes and operations.
fn unified_blkio(text: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "read"),
                "wbytes" => (&mut bytes, "write"),
                "rios" => (&mut operations, "read"),
                "wios" => (&mut operations, "write"),
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
        }
    }
    (bytes, operations)
}

/// Nanoseconds that the host's processors spent on anything, and how many there are.
fn system_cpu() -> (u64, u32) {
    let table = read_limited(Path::new("/proc/stat"), MAX_PROC_STAT).unwrap_or_default();
    parse_system_cpu(&String::from_utf8_lossy(&table))
}

fn parse_system_cpu(table: &str) -> (u64, u32) {
    let mut ticks = 0_u64;
    let mut online = 0_u32;
    for line in table.lines().take_while(|line| line.starts_with("cpu")) {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("cpu") {
            // user, nice, system, idle, iowait, irq, softirq: what docker sums up.
            let numbers = words.take(7).filter_map(|word| word.parse::<u64>().ok());
            ticks = numbers.fold(0, u64::saturating_add);
        } else {
            online = online.saturating_add(1);
        }
    }
    (ticks.saturating_mul(TICK), online)
}

/// The interfaces of `/proc/PID/net/dev` without the loopback.
fn interfaces(table: &str) -> BTreeMap<String, InterfaceStats> {
    table
        .lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let numbers: Vec<u64> =
                numbers.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                _,
                _,
                _,
                _,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
                ..,
            ] = *numbers.as_slice()
            else {
                return None;
            };
            let stats = InterfaceStats {
                rx_bytes,
                rx_packets,
                rx_errors,
                rx_dropped,
                tx_bytes,
                tx_packets,
                tx_errors,
                tx_dropped,
            };
            Some((name.trim().to_owned(), stats))
        })
        .filter(|(name, _)| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions() {
        let table = "9:name=systemd:/b/x\n4:memory:/b/x\n1:cpu,cpuacct:/b/y\n0::/b/x\n";
        let Groups::Separate(dirs) = Groups::of(table, CgroupMode::Hybrid) else { panic!() };
        assert_eq!(dirs["memory"], Path::new("/sys/fs/cgroup/memory/b/x"));
        assert_eq!(dirs["cpuacct"], Path::new("/sys/fs/cgroup/cpuacct/b/y"));
        assert_eq!(dirs.len(), 3);
        let Groups::Unified(dir) = Groups::of("0::/b/x\n", CgroupMode::V2) else { panic!() };
        assert_eq!(dir, Path::new("/sys/fs/cgroup/b/x"));
    }

    #[test]
    fn version_two_is_read_in_dockers_units() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\nthrottled_usec 7\n",
        );
        write("memory.current", "1000\n");
        write("memory.max", "max\n");
        write("memory.stat", "anon 1\ninactive_file 400\n");
        write("memory.events", "low 0\noom 2\n");
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        let groups = Groups::Unified(dir.path().to_owned());
        let cpu = groups.cpu();
        assert_eq!((cpu.cpu_usage.total_usage, cpu.throttling_data.throttled_time), (5000, 7000));
        let memory = groups.memory();
        assert_eq!((memory.without_cache(), memory.failcnt), (600, 2));
        assert!(memory.limit > 1 << 20 && memory.limit < u64::MAX);
        assert_eq!(groups.pids(), PidsStats { current: 3, limit: u64::MAX });
        let bytes = groups.blkio().io_service_bytes_recursive.unwrap();
        assert_eq!((bytes[0].op.as_str(), bytes[1].value), ("read", 2));
    }

    #[test]
    fn version_one_and_the_host() {
        let entries = separate_blkio("8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n");
        assert_eq!((entries.len(), entries[0].op.as_str()), (2, "read"));
        let (nanos, online) = parse_system_cpu("cpu  1 2 3 4 5 6 7 8 9\ncpu0 1\ncpu1 1\nintr 5\n");
        assert_eq!((nanos, online), (28 * TICK, 2));
        let dev = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 1 0 0 0 0 20 3 0 0 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found["eth0"].rx_bytes, found["eth0"].rx_dropped, found["eth0"].tx_packets),
            (10, 1, 3)
        );
    }
}
