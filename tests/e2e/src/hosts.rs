//! Several hosts on one machine (`tests/lib/hosts.sh`), with a brigd or a dockerd on each.
//!
//! The hosts' network is theirs alone; their daemons' sockets are reached through the file system.
//! Dropping a world ends every process of it and removes what is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::daemon::built;
use crate::{Client, Output, eventually, http};

const NETWORK: &str = "198.18.222";
/// Longest start of a daemon.
const START: Duration = Duration::from_secs(60);

/// A private switch with hosts, numbered from 1.
#[derive(Debug)]
pub struct Hosts {
    folder: PathBuf,
    name: String,
    /// Mounted in here.
    disks: Vec<PathBuf>,
}

/// What runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// brigd of this build.
    Brigd,
    /// dockerd of Debian's docker.io.
    Dockerd,
}

/// A daemon on a host.
#[derive(Clone, Debug)]
pub struct HostNode {
    /// The number of its host.
    pub host: usize,
    /// Which daemon it is.
    pub kind: Kind,
    /// Its host's address.
    pub address: String,
    folder: PathBuf,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Hosts {
    /// Starts `count` hosts.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn up(count: usize) -> Self {
        Self::up_with_small_disks(count, &[])
    }

    /// Starts `count` hosts, some of which have a disk of that many MiB for their daemon's data.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn up_with_small_disks(count: usize, disks: &[(usize, usize)]) -> Self {
        // A socket's path holds 107 bytes: short names.
        let name = format!("bh{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut hosts = Self { folder: Path::new("/var/tmp").join(&name), name, disks: Vec::new() };
        for (host, size) in disks {
            let disk = hosts.folder.join(host.to_string()).join("data");
            std::fs::create_dir_all(&disk).expect("a folder for the disk");
            let size = format!("size={size}m");
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(&disk)
                .status();
            assert!(mounted.is_ok_and(|status| status.success()), "a small disk");
            hosts.disks.push(disk);
        }
        let _ = hosts.script(&["up", &count.to_string()]).ok();
        hosts
    }

    /// The process whose network all hosts' packets pass.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn switch(&self) -> String {
        let pid = std::fs::read_to_string(self.folder.join("hub.pid")).expect("the switch's pid");
        pid.trim().to_owned()
    }

    /// Runs a program on a host to its end.
    #[must_use]
    pub fn exec(&self, host: usize, program: &[&str]) -> Output {
        self.script(&[&["exec", &host.to_string()], program].concat())
    }

    /// Runs `hosts.sh`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn script(&self, args: &[&str]) -> Output {
        // Its background processes keep what they inherit: no pipes.
        let log = |name: &str| self.folder.with_extension(name);
        let output = Command::new("bash")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../lib/hosts.sh"))
            .args(args)
            .env("HOSTS_DIR", &self.folder)
            .env("HOSTS_NET", NETWORK)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(log("out")).expect("a file for the output"))
            .stderr(std::fs::File::create(log("err")).expect("a file for the output"))
            .status()
            .expect("bash starts");
        let read = |name: &str| {
            let text = std::fs::read_to_string(log(name)).unwrap_or_default();
            let _ = std::fs::remove_file(log(name));
            text
        };
        Output {
            command: format!("hosts.sh {}", args.join(" ")),
            code: output.code().unwrap_or(-1),
            stdout: read("out"),
            stderr: read("err"),
        }
    }

    /// Cuts a host off from all others.
    pub fn cut(&self, host: usize) {
        let _ = self.script(&["cut", &host.to_string()]).ok();
    }

    /// Connects it again.
    pub fn heal(&self, host: usize) {
        let _ = self.script(&["heal", &host.to_string()]).ok();
    }

    /// Starts a program on a host and leaves it running; its output goes to a file of that name.
    ///
    /// # Panics
    /// When it does not start.
    pub fn spawn(&self, host: usize, log: &str, program: &[&str]) {
        let (host_name, log) = (host.to_string(), self.log(host, log).display().to_string());
        let mut args = vec!["spawn", host_name.as_str(), log.as_str()];
        args.extend(program);
        let _ = self.script(&args).ok();
    }

    /// The output of a program that was started with [`Hosts::spawn`].
    #[must_use]
    pub fn log(&self, host: usize, name: &str) -> PathBuf {
        self.folder.join(host.to_string()).join(name)
    }

    /// The network namespace of a host.
    ///
    /// # Panics
    /// When the host is not there.
    #[must_use]
    pub fn network_namespace(&self, host: usize) -> PathBuf {
        let pid = self.script(&["pid", &host.to_string()]);
        PathBuf::from(format!("/proc/{}/ns/net", pid.ok()))
    }

    /// Starts a daemon on a host and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(&self, host: usize, kind: Kind) -> HostNode {
        self.start_with(host, kind, &[])
    }

    /// Starts a daemon with more variables (`NAME=value`) in its environment.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(&self, host: usize, kind: Kind, environment: &[String]) -> HostNode {
        self.start_configured(host, kind, environment, "{}")
    }

    /// Starts a daemon with this configuration file.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_configured(
        &self,
        host: usize,
        kind: Kind,
        environment: &[String],
        configuration: &str,
    ) -> HostNode {
        let folder = self.folder.join(host.to_string());
        let node =
            HostNode { host, kind, address: format!("{NETWORK}.{host}"), folder: folder.clone() };
        let data = folder.join("data").display().to_string();
        let config = folder.join("daemon.json").display().to_string();
        std::fs::write(&config, configuration).expect("the configuration file");
        let cgroups = format!("/{}", self.name);
        let common = ["-H", "unix:///run/d.sock", "--data-root", &data, "--config-file", &config];
        let brigd;
        let mut program = match kind {
            Kind::Brigd => {
                brigd = built("brigd").display().to_string();
                vec![brigd.as_str(), "--exec-root", "/run/brig", "--pidfile", "/run/d.pid"]
            }
            Kind::Dockerd => {
                vec!["dockerd", "--exec-root", "/run/docker", "--pidfile", "/run/d.pid"]
            }
        };
        program.extend(["--cgroup-parent", &cgroups]);
        program.extend(common);
        let environment = environment.iter().map(String::as_str);
        let program: Vec<&str> = std::iter::once("env").chain(environment).chain(program).collect();
        // The log of the daemon before is kept.
        let log = self.log(host, "daemon.log");
        for number in 1.. {
            let earlier = self.log(host, &format!("daemon.{number}.log"));
            if !earlier.exists() {
                let _ = std::fs::rename(&log, &earlier);
                break;
            }
        }
        self.spawn(host, "daemon.log", &program);
        eventually("the daemon answers", START, || {
            http::get(&node.socket(), "/_ping").as_str() == Some("OK")
        });
        node
    }
}

impl HostNode {
    /// The daemon's socket as this machine sees it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/d.sock")
    }

    /// The daemon's data root.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A docker CLI for this daemon; brig's own where there is none.
    #[must_use]
    pub fn client(&self) -> Client {
        let config = self.folder.join("client");
        let _ = std::fs::create_dir_all(&config);
        Client::dockers(&self.socket(), &config)
            .into_iter()
            .next()
            .unwrap_or_else(|| Client::brig(&self.socket(), &config))
    }

    /// Runs the client and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.client().run(args).ok().to_owned()
    }

    /// Loads the busybox image.
    pub fn load_busybox(&self) {
        let archive = crate::image::busybox().display().to_string();
        let _ = self.ok(&["load", "-q", "-i", &archive]);
    }

    /// Makes a swarm of its own.
    pub fn init_swarm(&self) {
        let _ = self.ok(&["swarm", "init", "--advertise-addr", &self.address]);
    }

    /// Joins a manager's swarm as a worker; its node id.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn join(&self, manager: &Self) -> String {
        let token = manager.ok(&["swarm", "join-token", "-q", "worker"]);
        let peer = format!("{}:2377", manager.address);
        let _ = self.ok(&["swarm", "join", "--token", &token, &peer]);
        self.id()
    }

    /// Its node id.
    ///
    /// # Panics
    /// When it is in no swarm.
    #[must_use]
    pub fn id(&self) -> String {
        let info = http::get(&self.socket(), "/v1.41/info");
        info["Swarm"]["NodeID"].as_str().expect("a node id").to_owned()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(keep) = std::env::var_os("BRIG_KEEP_LOGS") {
                let _ = Command::new("cp").arg("-a").arg(&self.folder).arg(keep).status();
            }
            for host in 1..10 {
                let log = std::fs::read_to_string(self.log(host, "daemon.log"));
                let Ok(log) = log else { continue };
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
                eprintln!("--- end of host {host}'s daemon's log ---\n{}", tail.join("\n"));
            }
        }
        for disk in &self.disks {
            let _ = Command::new("umount").arg("-l").arg(disk).status();
        }
        let down = self.script(&["down"]);
        if down.code != 0 {
            eprintln!("{}: {}", down.command, down.stderr);
        }
        // Groups go once the last process has gone.
        for _ in 0..50 {
            let left = Command::new("find")
                .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path"])
                .arg(format!("*/{}*", self.name))
                .args(["-print", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .output();
            if left.is_ok_and(|output| output.stdout.is_empty()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
