//! A real dockerd.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brig_proto::swarm::{NodeStatus, node_status};
use brig_swarm::Control;
use tempfile::TempDir;

use super::eventually;

const DOCKERD: &str = "/usr/sbin/dockerd";
const BUSYBOX: &str = "/bin/busybox";
/// The image that [`Dockerd::import_box`] makes.
pub(crate) const BOX: &str = "local/box:1";

/// A directory for a dockerd and for what it meets; `None`, and a line that says so, where there is
/// no dockerd.
pub(crate) fn place() -> Option<TempDir> {
    if ![DOCKERD, BUSYBOX].iter().all(|path| Path::new(path).exists()) {
        println!("skipped: needs dockerd (docker.io) and busybox-static");
        return None;
    }
    // Sockets want a short path.
    Some(tempfile::Builder::new().prefix("brig-dockerd-").tempdir_in("/var/tmp").unwrap())
}

/// A dockerd of its own in a directory; gone with this.
pub(crate) struct Dockerd {
    child: Child,
    dir: PathBuf,
    cgroup: String,
    socket: String,
}

impl Dockerd {
    /// Starts it.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = format!("unix://{}", dir.join("d.sock").display());
        let cgroup = format!("brig-swarm-test-{}", std::process::id());
        let child = spawn(dir, &socket, &cgroup);
        let dockerd = Self { child, dir: dir.to_owned(), cgroup, socket };
        dockerd.wait();
        dockerd
    }

    /// Stops it; its swarm stays.
    pub(crate) fn stop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }

    /// Starts it again. It takes its time while it cannot reach its managers.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.dir, &self.socket, &self.cgroup);
        self.wait();
    }

    fn wait(&self) {
        let give_up = std::time::Instant::now() + Duration::from_secs(40);
        while self.docker(&["version"]).is_err() {
            assert!(std::time::Instant::now() < give_up, "dockerd does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Gives it an image with a shell.
    pub(crate) fn import_box(&self) {
        let (root, tar) = (self.dir.join("root"), self.dir.join("rootfs.tar"));
        let script = format!(
            "set -e; mkdir -p {0}/bin {0}/tmp; cp {BUSYBOX} {0}/bin/busybox; for name in sh sleep cat; do ln -s busybox {0}/bin/$name; done; tar -C {0} -cf {1} .",
            root.display(),
            tar.display()
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        self.docker(&["import", tar.to_str().unwrap(), BOX]).unwrap();
    }

    /// Lets it join as a worker; answers its node's id once that is ready.
    pub(crate) async fn join(&self, control: &Control) -> String {
        let manager = control.node("self").unwrap().manager_status.as_ref().unwrap().addr.clone();
        let cluster = control.cluster().unwrap();
        let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
        let join =
            ["swarm", "join", "--advertise-addr", "127.0.0.1", "--token", &tokens.worker, &manager];
        let joined = self.docker(&join).unwrap();
        assert!(joined.contains("joined a swarm as a worker"), "{joined}");
        let id = self.docker(&["info", "--format", "{{.Swarm.NodeID}}"]).unwrap();
        let state = || control.node(&id).unwrap().status.clone().unwrap_or_default();
        let is_ready = |status: &_| NodeStatus::state(status) == node_status::State::Ready;
        eventually("the dockerd is ready", state, is_ready).await;
        id
    }

    pub(crate) fn docker(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("docker").args(["-H", &self.socket]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = self.docker(&["swarm", "leave", "--force"]);
        let pid = i32::try_from(self.child.id()).unwrap();
        let _ = Command::new("kill").arg(pid.to_string()).status();
        let _ = self.child.wait();
        // What a dockerd leaves behind.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for target in own.filter(|target| Path::new(target).starts_with(&self.dir)) {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
        let find = "find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} +";
        let _ = Command::new("sh").args(["-c", find, &self.cgroup]).stderr(Stdio::null()).status();
    }
}

fn spawn(dir: &Path, socket: &str, cgroup: &str) -> Child {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    Command::new(DOCKERD)
        .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "-D", "-H", socket])
        .args(["--storage-driver=vfs", "--cgroup-parent", cgroup])
        .arg("--data-root")
        .arg(dir.join("data"))
        .arg("--exec-root")
        .arg(dir.join("exec"))
        .arg("--pidfile")
        .arg(dir.join("pid"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}
