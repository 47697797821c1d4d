//! The etcd process of this manager. It outlives brigd, as containers do: a daemon that is
//! restarted finds it again by its process id and start time, and no leader has to be elected.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use brig_pki::ca::STORE_MEMBER_NAME;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::record::Member;
use super::{CA, MEMBER_CERT, MEMBER_KEY, OWN_LIMITS, TRUSTED, authority};
use crate::error::SwarmError;
use crate::node::blocking;
use crate::node::files;

/// What etcd writes.
pub(crate) const LOG: &str = "etcd.log";
const PROCESS: &str = "process.json";
const DATA: &str = "data";
/// Where programs are.
const FOLDERS: [&str; 6] =
    ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Size at which a log is begun anew at the next start.
const MAX_LOG: u64 = 16 << 20;
/// Bytes that a member's database may have before it takes no more writes.
pub(crate) const QUOTA: u64 = 4 << 30;
/// How often the members' leader is heard of, and after how long a silence the others elect one.
/// With etcd's own second two elections in a row may take more than the three seconds in which
/// there is to be another leader.
const HEARTBEAT: Duration = Duration::from_millis(100);
const ELECTION: Duration = Duration::from_millis(750);
/// As systemd gives it to brigd.
const OOM_SCORE: &str = "-500";
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// First and longest pause before it is started again.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// A process that is told from a later one with the same number by when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    started: u64,
}

/// The etcd of this manager, kept running.
pub(crate) struct Child {
    dir: PathBuf,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Child {
    /// Finds it running or starts it, and starts it again whenever it ends, in these control
    /// groups.
    pub(crate) async fn start(
        dir: PathBuf,
        member: &Member,
        groups: &[PathBuf],
    ) -> Result<Self, SwarmError> {
        let arguments = arguments(&dir, member, false);
        Self::start_as(Arc::new(Start {
            program: find()?,
            arguments,
            dir,
            groups: groups.to_owned(),
        }))
        .await
    }

    /// The same for one that is to forget all other members.
    pub(crate) async fn start_alone(dir: PathBuf, member: &Member) -> Result<Self, SwarmError> {
        let arguments = arguments(&dir, member, true);
        Self::start_as(Arc::new(Start { program: find()?, arguments, dir, groups: Vec::new() }))
            .await
    }

    async fn start_as(how: Arc<Start>) -> Result<Self, SwarmError> {
        let dir = how.dir.clone();
        let process = blocking({
            let how = Arc::clone(&how);
            move || match running(&how.dir) {
                Some(process) => Ok(process),
                None => how.spawn(),
            }
        })
        .await?;
        let stop = CancellationToken::new();
        let work = supervise(how, process);
        let stopping = stop.clone();
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = work => {}
            }
        });
        tasks.close();
        Ok(Self { dir, stop, tasks })
    }

    /// Whether there is an etcd to start.
    pub(crate) fn check_program() -> Result<(), SwarmError> {
        find().map(drop)
    }

    /// Ends the process and has it started again.
    pub(crate) async fn restart(&self) -> Result<(), SwarmError> {
        let dir = self.dir.clone();
        blocking(move || {
            if let Some(process) = running(&dir) {
                end(process);
            }
            Ok(())
        })
        .await
    }

    /// Looks after it no longer; it goes on.
    pub(crate) fn leave_alone(&self) {
        self.stop.cancel();
    }

    /// Ends it.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
        if let Err(error) = Self::end_leftover(&self.dir).await {
            tracing::error!(error = %brig_types::error::chain(&error), "etcd was not ended");
        }
    }

    /// Whether a member could listen, so that nobody counts on one that cannot. Where one of this
    /// node's runs already it is that one that listens.
    pub(crate) fn check_places(dir: &Path, member: &Member) -> Result<(), SwarmError> {
        if running(dir).is_some() {
            return Ok(());
        }
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let places = [
            (local, member.client_port),
            (member.ip, member.client_port),
            (member.ip, member.peer_port),
        ];
        for place in places.map(SocketAddr::from) {
            TcpListener::bind(place).map_err(|error| cannot_listen(place, &error))?;
        }
        Ok(())
    }

    /// Ends the process that runs in a directory, if there is one.
    pub(crate) async fn end_leftover(dir: &Path) -> Result<(), SwarmError> {
        let dir = dir.to_owned();
        blocking(move || {
            let Some(process) = running(&dir) else { return Ok(()) };
            end(process);
            files::remove_file(&dir.join(PROCESS))
        })
        .await
    }
}

fn end(process: Process) {
    signal(process, Signal::TERM);
    let until = std::time::Instant::now() + END_PATIENCE;
    while is_alive(process) {
        if std::time::Instant::now() > until {
            signal(process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn supervise(how: Arc<Start>, first: Process) {
    let mut process = first;
    let mut backoff = FIRST_BACKOFF;
    loop {
        let began = tokio::time::Instant::now();
        while is_alive(process) {
            tokio::time::sleep(LOOK).await;
        }
        if began.elapsed() > MAX_BACKOFF {
            backoff = FIRST_BACKOFF;
        }
        tracing::warn!(log = %how.dir.join(LOG).display(), "etcd ended, starting it again");
        loop {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            let how = Arc::clone(&how);
            match blocking(move || how.spawn()).await {
                Ok(next) => {
                    process = next;
                    break;
                }
                Err(error) => {
                    tracing::error!(error = %brig_types::error::chain(&error), "etcd does not start");
                }
            }
        }
    }
}

fn find() -> Result<PathBuf, SwarmError> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join("etcd"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            SwarmError::Etcd(
                "there is no etcd on this node, and several managers keep the swarm in it: install the package etcd-server (apt-get install etcd-server; its service need not run)"
                    .to_owned(),
            )
        })
}

fn cannot_listen(place: SocketAddr, error: &io::Error) -> SwarmError {
    let port = place.port();
    SwarmError::Etcd(if error.kind() == io::ErrorKind::AddrInUse {
        format!(
            "its etcd is to listen on {place}, where something else listens already: \"ss -ltnp sport = :{port}\" shows what; if that is the system's own etcd, \"systemctl disable --now etcd\" ends it"
        )
    } else {
        format!(
            "its etcd cannot listen on {place}: {error}; --advertise-addr has to be an address of this machine"
        )
    })
}

fn arguments(dir: &Path, member: &Member, alone: bool) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    let listen = |port: u16| format!("https://{}", SocketAddr::new(member.ip, port));
    let client_urls = format!("https://{},{}", member.local(), listen(member.client_port));
    let state = if member.existing { "existing" } else { "new" };
    let mut arguments: Vec<String> = [
        ("--name", member.name.clone()),
        ("--data-dir", path(DATA)),
        ("--listen-peer-urls", listen(member.peer_port)),
        ("--initial-advertise-peer-urls", member.peer_url()),
        ("--listen-client-urls", client_urls),
        ("--advertise-client-urls", member.client_url()),
        ("--initial-cluster", member.initial_cluster.clone()),
        ("--initial-cluster-state", state.to_owned()),
        ("--trusted-ca-file", path(CA)),
        ("--cert-file", path(MEMBER_CERT)),
        ("--key-file", path(MEMBER_KEY)),
        ("--peer-trusted-ca-file", path(CA)),
        ("--peer-cert-file", path(MEMBER_CERT)),
        ("--peer-key-file", path(MEMBER_KEY)),
        ("--peer-cert-allowed-cn", STORE_MEMBER_NAME.to_owned()),
        ("--auto-compaction-mode", "periodic".to_owned()),
        ("--auto-compaction-retention", "5m".to_owned()),
        ("--quota-backend-bytes", QUOTA.to_string()),
        ("--max-txn-ops", OWN_LIMITS.operations.to_string()),
        ("--max-request-bytes", OWN_LIMITS.bytes.to_string()),
        ("--heartbeat-interval", HEARTBEAT.as_millis().to_string()),
        ("--election-timeout", ELECTION.as_millis().to_string()),
        ("--logger", "zap".to_owned()),
        ("--log-level", "warn".to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect();
    arguments
        .extend(["--client-cert-auth", "--peer-client-cert-auth", "--pre-vote"].map(Into::into));
    if alone {
        arguments.push("--force-new-cluster".to_owned());
    }
    arguments
}

/// How it is started.
struct Start {
    dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    groups: Vec<PathBuf>,
}

impl Start {
    fn spawn(&self) -> Result<Process, SwarmError> {
        // It reads them once.
        if let Ok(trusted) = fs::read(self.dir.join(CA)) {
            let id = authority::id(&trusted)?;
            files::write_private(&self.dir.join(TRUSTED), id.as_bytes())?;
        }
        let process = spawn(&self.dir, &self.program, &self.arguments)?;
        for group in &self.groups {
            if let Err(error) = fs::write(group.join("cgroup.procs"), process.pid.to_string()) {
                tracing::warn!(%error, group = %group.display(), "etcd stays in the daemon's control group");
            }
        }
        // A container that takes too much memory is to go before what the cluster rests on.
        let score = format!("/proc/{}/oom_score_adj", process.pid);
        if let Err(error) = fs::write(&score, OOM_SCORE) {
            tracing::info!(%error, "etcd may be chosen when memory runs out");
        }
        Ok(process)
    }
}

fn spawn(dir: &Path, program: &Path, arguments: &[String]) -> Result<Process, SwarmError> {
    let failed = |source| files::failed("start etcd in", dir, source);
    files::create_private_dir(&dir.join(DATA))?;
    let path = dir.join(LOG);
    let is_long = fs::metadata(&path).is_ok_and(|found| found.len() > MAX_LOG);
    let log = OpenOptions::new()
        .create(true)
        .write(true)
        .append(!is_long)
        .truncate(is_long)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // What is typed at brigd's terminal is not for it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let pid = i32::try_from(child.id()).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let started = start_time(pid).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    // Somebody has to take note of its end while this process lives.
    std::thread::Builder::new()
        .name("etcd-wait".to_owned())
        .spawn(move || child.wait())
        .map_err(failed)?;
    let process = Process { pid, started };
    let text = serde_json::to_vec(&process).map_err(|error| failed(error.into()))?;
    files::write_private(&dir.join(PROCESS), &text)?;
    Ok(process)
}

/// The process that was started here, if it still runs.
fn running(dir: &Path) -> Option<Process> {
    let mut text = Vec::new();
    fs::File::open(dir.join(PROCESS)).ok()?.take(4096).read_to_end(&mut text).ok()?;
    let process: Process = serde_json::from_slice(&text).ok()?;
    is_alive(process).then_some(process)
}

fn is_alive(process: Process) -> bool {
    start_time(process.pid) == Some(process.started)
}

/// When a process began, in ticks since the machine did; `None` once it has ended.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // The first one is field 3, the time is field 22.
    fields.nth(18)?.parse().ok()
}

fn signal(process: Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // Looked at after the handle was made: it cannot be another process.
    if is_alive(process)
        && let Err(error) = pidfd_send_signal(&handle, signal)
    {
        tracing::warn!(%error, "etcd cannot be signalled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = i32::try_from(std::process::id()).unwrap();
        let started = start_time(own).unwrap();
        assert!(is_alive(Process { pid: own, started }));
        assert!(!is_alive(Process { pid: own, started: started + 1 }));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}
