//! The two engines under the same hand: a dockerd of Debian's docker.io, and brigd.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brig_e2e::{Brigd, Client, eventually, http};
use serde_json::Value;

/// Memory in MiB of proportional set size.
pub(crate) struct Memory {
    /// The daemons.
    pub(crate) daemons: f64,
    /// One monitor a container.
    pub(crate) monitors: f64,
}

pub(crate) trait Engine {
    fn name(&self) -> &'static str;
    fn client(&self) -> Client;
    fn socket(&self) -> PathBuf;
    fn swarm_init(&self);
    fn memory(&self) -> Memory;

    fn cli(&self, args: &[&str]) {
        let _ = self.client().run(args).ok();
    }

    fn cli_with(&self, args: &[&str], input: &[u8]) {
        let _ = self.client().run_with(args, input).ok();
    }

    /// Whether a task of the service is in state running, asked of the API directly.
    fn task_runs(&self, service: &str) -> bool {
        let filter = format!("%7B%22service%22%3A%7B%22{service}%22%3Atrue%7D%7D");
        let tasks = http::get(&self.socket(), &format!("/v1.41/tasks?filters={filter}"));
        let runs = |task: &Value| task["Status"]["State"] == "running";
        tasks.as_array().is_some_and(|tasks| tasks.iter().any(runs))
    }
}

/// Waits until no container is left.
pub(crate) fn wait_until_idle(engine: &dyn Engine) {
    eventually("no container is left", Duration::from_secs(60), || {
        engine.client().run(&["ps", "-aq"]).stdout.trim().is_empty()
    });
}

fn pss_mib(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0
}

/// Processes whose command line has all of `words`.
fn pids(words: &[&str]) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            words.iter().all(|word| line.contains(word))
        })
        .collect()
}

pub(crate) struct Docker {
    root: tempfile::TempDir,
    child: Child,
}

impl Docker {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let root =
            tempfile::Builder::new().prefix("brig-bench-docker-").tempdir_in("/var/tmp").unwrap();
        let log = std::fs::File::create(root.path().join("dockerd.log")).unwrap();
        let at = |name: &str| root.path().join(name).display().to_string();
        let child = Command::new("dockerd")
            .args(["--data-root", &at("data"), "--exec-root", &at("run"), "--pidfile", &at("pid")])
            .args([
                "-H",
                &format!("unix://{}", at("docker.sock")),
                "--config-file",
                &at("daemon.json"),
            ])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        std::fs::write(root.path().join("daemon.json"), "{}").unwrap();
        let docker = Self { child: child.expect("dockerd is installed"), root };
        eventually("dockerd answers", Duration::from_secs(60), || {
            http::get(&docker.socket(), "/_ping").as_str() == Some("OK")
        });
        docker
    }
}

impl Engine for Docker {
    fn name(&self) -> &'static str {
        "dockerd"
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("docker.sock")
    }

    fn client(&self) -> Client {
        let config = self.root.path().join("client");
        let _ = std::fs::create_dir_all(&config);
        Client::dockers(&self.socket(), &config).remove(0)
    }

    fn swarm_init(&self) {
        self.cli(&[
            "swarm",
            "init",
            "--advertise-addr",
            "127.0.0.1",
            "--listen-addr",
            "127.0.0.1:23991",
        ]);
    }

    fn memory(&self) -> Memory {
        let run = self.root.path().join("run").display().to_string();
        let containerd = pids(&["containerd", &run, "--config"]);
        let shims = pids(&["containerd-shim", &run]);
        let daemons = containerd.iter().filter(|pid| !shims.contains(pid)).copied();
        Memory {
            daemons: pss_mib(self.child.id()) + daemons.map(pss_mib).sum::<f64>(),
            monitors: shims.into_iter().map(pss_mib).sum(),
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.client().run(&["swarm", "leave", "--force"]);
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

pub(crate) struct Brig(Brigd);

impl Brig {
    pub(crate) fn start() -> Self {
        Self(Brigd::start_quiet())
    }
}

impl Engine for Brig {
    fn name(&self) -> &'static str {
        "brigd"
    }

    fn socket(&self) -> PathBuf {
        self.0.socket()
    }

    fn client(&self) -> Client {
        self.0.brig()
    }

    fn swarm_init(&self) {
        self.0.init_swarm();
    }

    fn memory(&self) -> Memory {
        let conmons = pids(&["conmon", &self.0.root().display().to_string()]);
        Memory { daemons: pss_mib(self.0.pid()), monitors: conmons.into_iter().map(pss_mib).sum() }
    }
}
