//! A real dockerd in a network namespace of its own: its bridges and packet filter are nobody
//! else's. Nothing outside reaches its containers; commands inside them do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Client, eventually};

const DOCKERD: &str = "/usr/sbin/dockerd";

/// A running dockerd with folders of its own.
#[derive(Debug)]
pub struct Dockerd {
    root: tempfile::TempDir,
    child: Child,
    parent: String,
}

impl Dockerd {
    /// Starts Debian's dockerd and waits until it answers.
    ///
    /// # Panics
    /// When it is not installed or does not start within a minute.
    #[must_use]
    pub fn start() -> Self {
        assert!(Path::new(DOCKERD).exists(), "{DOCKERD} is missing: apt-get install docker.io");
        let root = tempfile::Builder::new()
            .prefix("brig-e2e-dockerd-")
            .tempdir_in("/var/tmp")
            .expect("a folder for dockerd");
        fs::write(root.path().join("daemon.json"), "{}").expect("an empty configuration");
        let parent = root.path().file_name().expect("it has a name").to_string_lossy().into_owned();
        let at = |name: &str| root.path().join(name).display().to_string();
        let log = fs::File::create(at("log")).expect("dockerd's log");
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh", DOCKERD])
            .args(["--config-file", &at("daemon.json"), "--pidfile", &at("pid")])
            .args(["--data-root", &at("data"), "--exec-root", &at("run")])
            .args(["--cgroup-parent", &parent, "-H", &format!("unix://{}", at("docker.sock"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("unshare starts");
        let mut dockerd = Self { root, child, parent };
        let client = dockerd.client();
        eventually("dockerd answers", Duration::from_secs(60), || {
            let ended = dockerd.child.try_wait().expect("its status can be read");
            assert!(ended.is_none(), "dockerd ended:\n{}", dockerd.log());
            client.run(&["version"]).code == 0
        });
        dockerd
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("docker.sock")
    }

    /// A folder for clients' configuration and files.
    #[must_use]
    pub fn client_config(&self) -> PathBuf {
        let folder = self.root.path().join("client");
        let _ = fs::create_dir_all(&folder);
        folder
    }

    /// Debian's docker CLI where it is, else the one there is.
    ///
    /// # Panics
    /// Without any docker CLI.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::dockers(&self.socket(), &self.client_config()).pop().expect("a docker CLI")
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let client = self.client();
        let all = client.run(&["ps", "-aq"]).stdout;
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            let _ = client.run(&[&["rm", "-f", "-v"], &all[..]].concat());
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..600 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
            eprintln!("--- end of dockerd's log ---\n{}", tail.join("\n"));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for target in own.filter(|target| Path::new(target).starts_with(self.root.path())) {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
        let find =
            "find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} + 2>/dev/null";
        let _ = Command::new("sh").args(["-c", find, &self.parent]).status();
    }
}
