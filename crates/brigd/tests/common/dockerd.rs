//! A real dockerd in a network namespace of its own, reachable from this one over a pair of
//! virtual cables: its bridges and packet filter are nobody else's.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Ran, clis};

const DOCKERD: &str = "/usr/sbin/dockerd";
const START_TIME: Duration = Duration::from_secs(30);

pub struct Dockerd {
    child: Child,
    dir: PathBuf,
    /// Name of the network namespace and, with another prefix, of the cables.
    suffix: String,
    /// Its address, and the one that this side of the cable has.
    pub address: String,
    pub here: String,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

fn must(program: &str, arguments: &[&str]) {
    let ran = Ran::of(Command::new(program).args(arguments).output().unwrap());
    assert!(ran.code == 0, "{program} {arguments:?}: {ran:?}");
}

impl Dockerd {
    /// `None`, and a word about it, without a dockerd on the host.
    pub fn start() -> Option<Self> {
        if !Path::new(DOCKERD).exists() || clis().is_empty() {
            eprintln!("SKIPPED: there is no {DOCKERD}; install docker.io");
            return None;
        }
        let pid = std::process::id();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let suffix = format!("{pid}-{number}");
        let dir = PathBuf::from(format!("/var/tmp/brigd-dockerd-{suffix}"));
        std::fs::create_dir_all(&dir).unwrap();
        let net = format!("172.31.{}.", (pid.wrapping_mul(7) + number) % 256);
        let (here, address) = (format!("{net}1"), format!("{net}2"));
        let space = format!("brigt{suffix}");
        let (outer, inner) = (format!("brh{suffix}"), format!("brn{suffix}"));
        must("ip", &["netns", "add", &space]);
        must(
            "ip",
            &["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &space],
        );
        must("ip", &["addr", "add", &format!("{here}/30"), "dev", &outer]);
        must("ip", &["link", "set", &outer, "up"]);
        let within = ["netns", "exec", &space, "ip"];
        let inside = |arguments: &[&str]| must("ip", &[&within[..], arguments].concat());
        inside(&["link", "set", "lo", "up"]);
        inside(&["addr", "add", &format!("{address}/30"), "dev", &inner]);
        inside(&["link", "set", &inner, "up"]);
        inside(&["route", "add", "default", "via", &here]);
        let log = std::fs::File::create(dir.join("log")).unwrap();
        // Not `ip netns exec`: that hides the cgroups.
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{space}"))
            .args([DOCKERD, "--bridge=none", "--storage-driver=vfs"])
            .args(["--cgroup-parent", &space, "-H"])
            .arg(format!("unix://{}", dir.join("d.sock").display()))
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dockerd = Self { child, dir, suffix, address, here };
        let deadline = Instant::now() + START_TIME;
        while dockerd.run(&["version"]).code != 0 {
            let ended = dockerd.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "dockerd does not start:\n{}",
                dockerd.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(dockerd)
    }

    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(clis().first().unwrap());
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.dir)
            .env("DOCKER_HOST", format!("unix://{}", self.dir.join("d.sock").display()))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.docker(arguments).output().unwrap())
    }

    pub fn must(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(ran.code == 0, "docker {arguments:?}: {ran:?}\n{}", self.log());
        ran.out
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.run(&["swarm", "leave", "--force"]);
        // `nsenter` became dockerd.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = Instant::now() + START_TIME;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- dockerd's log ---\n{}", self.log());
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for target in own.filter(|target| Path::new(target).starts_with(&self.dir)) {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
        let space = format!("brigt{}", self.suffix);
        let quiet = |program: &str, arguments: &[&str]| {
            let _ = Command::new(program).args(arguments).stderr(Stdio::null()).status();
        };
        quiet("ip", &["link", "delete", &format!("brh{}", self.suffix)]);
        quiet("ip", &["netns", "delete", &space]);
        let find = "find /sys/fs/cgroup -depth -type d -path \"*/$0*\" -exec rmdir {} +";
        quiet("sh", &["-c", find, &space]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
