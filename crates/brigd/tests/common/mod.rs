//! A real daemon on roots of its own, and ways to talk to it.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const BRIGD: &str = env!("CARGO_BIN_EXE_brigd");
const START_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(30);

/// The docker CLIs that may be on a machine.
pub const CLIS: [&str; 2] = ["/usr/local/bin/docker", "/usr/bin/docker"];

/// The CLIs that are really there. Tests say which they skip.
pub fn clis() -> Vec<&'static str> {
    let found: Vec<_> = CLIS.into_iter().filter(|cli| Path::new(cli).exists()).collect();
    if found.is_empty() {
        eprintln!("SKIPPED: no docker CLI at {CLIS:?}");
    }
    found
}

pub struct Daemon {
    child: Option<Child>,
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub arguments: Vec<String>,
    /// What the next process gets besides our own environment.
    pub environment: Vec<(&'static str, String)>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Daemon {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(more: &[&str]) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let dir = PathBuf::from(format!("/var/tmp/brigd-test-{pid}-{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let mut arguments: Vec<String> = vec![
            "--config-file".into(),
            text(dir.join("brigd.json")),
            "--data-root".into(),
            text(dir.join("data")),
            "--exec-root".into(),
            text(dir.join("exec")),
            // No `--bip`: brigd chooses a free subnet under its lock, a test could only guess one.
            "--debug".into(),
        ];
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        std::fs::write(dir.join("brigd.json"), "{}").unwrap();
        let socket = dir.join("exec/brig.sock");
        let mut daemon = Self { child: None, dir, socket, arguments, environment: Vec::new() };
        daemon.launch();
        daemon
    }

    /// Starts the process and waits until it answers.
    pub fn launch(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .unwrap();
        let child = Command::new(BRIGD)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + START_TIME;
        while UnixStream::connect(&self.socket).is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the daemon did not start ({ended:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Stops the daemon as systemd would and tells how it ended.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + STOP_TIME;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A docker CLI that talks to this daemon.
    pub fn docker(&self, cli: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(cli);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.dir)
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a docker CLI; its output as text.
    pub fn run(&self, cli: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.docker(cli, arguments).output().unwrap())
    }

    /// Runs a docker CLI that must succeed.
    pub fn must(&self, cli: &str, arguments: &[&str]) -> String {
        let ran = self.run(cli, arguments);
        assert!(ran.code == 0, "docker {arguments:?}: {ran:?}\n{}", self.log());
        ran.out
    }

    /// Sends bytes and reads until the daemon closes the connection.
    pub fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A daemon that refuses a body before its end closes the connection under it.
        let sent = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(!answer.is_empty(), "{sent:?} {read:?}");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One request without body on a connection of its own.
    pub fn get(&self, method: &str, path: &str) -> String {
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// One request with a JSON body on a connection of its own.
    pub fn post(&self, path: &str, json: &str) -> String {
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{json}",
            json.len()
        ))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Containers first: they outlive the daemon by design.
        if self.child.is_some() && !clis().is_empty() {
            let cli = CLIS.into_iter().find(|cli| Path::new(cli).exists()).unwrap();
            let list = self.run(cli, &["ps", "-aq", "--no-trunc"]).out;
            let ids: Vec<&str> = list.split_whitespace().collect();
            if !ids.is_empty() {
                let arguments: Vec<&str> = ["rm", "-f", "-v"].into_iter().chain(ids).collect();
                self.run(cli, &arguments);
            }
        }
        if let Some(child) = &mut self.child {
            let pid = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let deadline = Instant::now() + STOP_TIME;
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
        clean(&self.dir);
    }
}

/// Takes away what a daemon leaves for its next start: bridge, packet filter, cgroups, mounts,
/// files.
fn clean(dir: &Path) {
    let instance = brigd::instance::Instance::of(&dir.join("data"));
    let suffix = instance.suffix();
    let quiet = |program: &str, arguments: &[&str]| {
        let _ = Command::new(program).args(arguments).stderr(Stdio::null()).status();
    };
    quiet("ip", &["link", "delete", &format!("brig-{suffix}")]);
    quiet("nft", &["delete", "table", "ip", &format!("brig_{suffix}")]);
    let parent = format!("brig-{suffix}");
    for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir(root.path().join(&parent));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&parent));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|target| Path::new(target).starts_with(dir))
        .collect();
    for target in below.iter().rev() {
        let _ = rustix::mount::unmount(*target, rustix::mount::UnmountFlags::DETACH);
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// A finished command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
