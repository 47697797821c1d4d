//! Where buildah runs: namespaces of its own, so that whatever becomes of it nothing is left.
//!
//! `setpriv` and `unshare` of util-linux make a tree that dies with the thread that began it: the
//! kernel kills `unshare` when this daemon is gone, `unshare` its child, and with that child, the
//! first process of its pid namespace, everything below and every mount goes.

use std::ffi::OsString;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use brig_network::{DnsOptions, EndpointRequest, Networks, SandboxRequest};
use brig_sys::cgroup::CgroupMode;
use brig_sys::ns::NsKind;
use brig_sys::spawn::Spawn;
use brig_types::id::ContainerId;
use brig_types::signal::Signal;
use tokio::sync::oneshot;

use super::BuildError;
use super::request::BuildNetwork;

const SETPRIV: &str = "/usr/bin/setpriv";
const SHELL: &str = "/bin/sh";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Control groups version 2 beside version 1, which crun refuses.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Tells that the namespaces are there, waits until they are connected, prepares the mounts, unpacks
/// the context, and becomes the program.
const SCRIPT: &str = r#"set -e
echo ready >&4; exec 4>&-
read -r _ <&3; exec 3<&-
if [ -n "$1" ]; then umount "$1"; fi
if [ -n "$2" ]; then mount --bind "$2" /etc/resolv.conf; fi
if [ -n "$3" ]; then tar -x -p --numeric-owner -C "$3" <&5; fi
exec 5<&-
shift 3
exec "$@""#;

/// One program to run.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(String, String)>,
    /// A tar and the folder that it is unpacked into first.
    pub(super) context: Option<(OwnedFd, PathBuf)>,
    pub(super) network: BuildNetwork,
    /// A folder for what the job needs while it runs.
    pub(super) scratch: PathBuf,
}

/// A job that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    /// What it prints.
    pub(super) output: Option<PipeReader>,
    done: oneshot::Receiver<std::io::Result<i32>>,
    kill: Option<OwnedFd>,
    connected: Option<(Networks, ContainerId)>,
}

impl Job {
    /// Starts it.
    pub(super) async fn start(self, networks: &Networks) -> Result<Running, BuildError> {
        let failed = BuildError::sandbox;
        let (output, printed) = std::io::pipe().map_err(failed("make a pipe"))?;
        let (gate, mut open) = std::io::pipe().map_err(failed("make a pipe"))?;
        let (ready, told) = std::io::pipe().map_err(failed("make a pipe"))?;
        let id = ContainerId::generate();
        let mut resolv = OsString::new();
        if let BuildNetwork::Bridge(name) = &self.network {
            let request = EndpointRequest {
                network: name.clone(),
                container_name: format!("build-{}", id.short()),
                ..EndpointRequest::default()
            };
            networks.reserve(&id, request).await?;
            let path = self.scratch.join("resolv.conf");
            let text = networks.resolv_conf(&id, &DnsOptions::default());
            std::fs::write(&path, text).map_err(failed("write resolv.conf"))?;
            resolv = path.into();
        }
        let mut running = Running {
            output: Some(output),
            done: oneshot::channel().1,
            kill: None,
            connected: matches!(self.network, BuildNetwork::Bridge(_))
                .then(|| (networks.clone(), id.clone())),
        };
        let isolated = self.network != BuildNetwork::Host;
        let spawn = self.spawn(&resolv, printed, gate, told)?;
        let (pid, pidfd, done) = on_own_thread(spawn).await?;
        running.done = done;
        running.kill = Some(pidfd);
        wait_ready(ready).await?;
        if isolated && let Some((networks, id)) = &running.connected {
            let ns = brig_sys::ns::open(pid, NsKind::Net).map_err(failed("open the network"))?;
            let request = SandboxRequest {
                container: id.clone(),
                ns,
                ports: Vec::new(),
                dns_servers: Vec::new(),
            };
            networks.connect_sandbox(request).await?;
        }
        open.write_all(b"go\n").map_err(failed("start the builder"))?;
        Ok(running)
    }

    fn spawn(
        self,
        resolv: &OsString,
        printed: PipeWriter,
        gate: PipeReader,
        told: PipeWriter,
    ) -> Result<Spawn, BuildError> {
        let failed = BuildError::sandbox;
        let hybrid = brig_sys::cgroup::mode() == CgroupMode::Hybrid;
        let mut spawn = Spawn::new(Path::new(SETPRIV))
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        if self.network != BuildNetwork::Host {
            spawn = spawn.arg("--net");
        }
        let (context, folder) = match self.context {
            Some((tar, folder)) => (Some(tar), folder.into_os_string()),
            None => (None, OsString::new()),
        };
        spawn = spawn
            .args(["--", SHELL, "-c", SCRIPT, SHELL])
            .arg(if hybrid { UNIFIED } else { "" })
            .arg(resolv)
            .arg(folder)
            .arg(self.program)
            .args(self.args)
            .env("PATH", PATH)
            .dir(&self.scratch);
        for (name, value) in self.env {
            spawn = spawn.env(name, value);
        }
        if let Some(tar) = context {
            spawn = spawn.fd(tar, 5);
        }
        let errors = printed.try_clone().map_err(failed("make a pipe"))?;
        Ok(spawn.fd(printed.into(), 1).fd(errors.into(), 2).fd(gate.into(), 3).fd(told.into(), 4))
    }
}

type Started = (i32, OwnedFd, oneshot::Receiver<std::io::Result<i32>>);

/// Starts a process on a thread that lives as long as it: it is killed when its thread ends.
async fn on_own_thread(spawn: Spawn) -> Result<Started, BuildError> {
    let failed = BuildError::sandbox;
    let (started, start) = oneshot::channel();
    let (finished, done) = oneshot::channel();
    std::thread::Builder::new()
        .name("brig-build".to_owned())
        .spawn(move || {
            let child = match spawn.start() {
                Ok(child) => child,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let pid = child.pid();
            let _ = started.send(brig_sys::process::pidfd(pid).map(|pidfd| (pid, pidfd)));
            let status = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| runtime.block_on(child.wait()))
                .map(|status| status.code().unwrap_or(-1));
            let _ = finished.send(status);
        })
        .map_err(failed("start a thread"))?;
    let (pid, pidfd) = start
        .await
        .map_err(|_| BuildError::sandbox("start the builder")(std::io::Error::other("no thread")))?
        .map_err(failed("start the builder"))?;
    Ok((pid, pidfd, done))
}

async fn wait_ready(ready: PipeReader) -> Result<(), BuildError> {
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut ready = ready;
        let mut byte = [0; 1];
        ready.read_exact(&mut byte)
    });
    read.await
        .map_err(std::io::Error::other)
        .and_then(|outcome| outcome)
        .map_err(BuildError::sandbox("make the builder's namespaces"))
}

impl Running {
    /// Waits for its end; its exit status.
    pub(super) async fn wait(mut self) -> Result<i32, BuildError> {
        let status = (&mut self.done)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("the builder's thread ended")))
            .map_err(BuildError::sandbox("wait for the builder"))?;
        self.kill = None;
        if let Some((networks, id)) = self.connected.take() {
            networks.disconnect(&id).await?;
        }
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pidfd) = self.kill.take() {
            let _ = brig_sys::process::send_signal(&pidfd, Signal::KILL);
        }
        if let (Some((networks, id)), Ok(runtime)) =
            (self.connected.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                if let Err(error) = networks.disconnect(&id).await {
                    tracing::warn!(%error, "a build's network is not taken back");
                }
            });
        }
    }
}
