//! A real dockerd.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const DOCKERD: &str = "/usr/sbin/dockerd";

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
