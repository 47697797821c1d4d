//! Starting, killing and removing a brigd of this build.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::{Client, Output, eventually};

/// A running daemon with folders of its own.
#[derive(Debug)]
pub struct Brigd {
    root: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
    args: Vec<String>,
    core: Option<usize>,
    quiet: bool,
    environment: Vec<(String, String)>,
}

/// A program of this build, beside the test's own.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let program = build_folder().join(name);
    assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
    program
}

/// `target/<profile>`: tests live in its `deps`, programs in itself.
pub(crate) fn build_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its own path");
    let folder = own.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    folder.to_path_buf()
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) fn free_port() -> u16 {
    // Below the ephemeral range, spread by process id, so that test processes do not meet.
    let base = 20_000 + u16::try_from(std::process::id() % 1_000).unwrap_or(0) * 10;
    for _ in 0..10_000 {
        let port = base.wrapping_add(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

impl Brigd {
    /// Starts a daemon and waits until it answers.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon that logs as little as an operator's does.
    #[must_use]
    pub fn start_quiet() -> Self {
        let mut daemon = Self::prepare(&[]);
        daemon.quiet = true;
        daemon.spawn();
        daemon
    }

    /// Starts a daemon that logs as little as an operator's does and has one processor.
    #[must_use]
    pub fn start_pinned(core: usize) -> Self {
        let mut daemon = Self::prepare(&["--log-level", "warn"]);
        daemon.quiet = true;
        daemon.core = Some(core);
        daemon.spawn();
        daemon
    }

    /// Starts a daemon with further flags.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let mut daemon = Self::prepare(args);
        daemon.spawn();
        daemon
    }

    /// Folders and flags, but no process yet.
    ///
    /// # Panics
    /// When the folders cannot be made.
    #[must_use]
    pub fn prepare(args: &[&str]) -> Self {
        let root = tempfile::Builder::new()
            .prefix("brig-e2e-")
            .tempdir_in("/var/tmp")
            .expect("a folder for the daemon");
        fs::write(root.path().join("brigd.json"), "{}").expect("an empty configuration");
        Self {
            root,
            child: None,
            port: free_port(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            core: None,
            quiet: false,
            environment: Vec::new(),
        }
    }

    /// Adds a variable to the daemon's environment.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Gives the daemon another configuration file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, json: &str) {
        fs::write(self.root.path().join("brigd.json"), json).expect("the configuration file");
    }

    /// Starts the process and waits until it answers.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn spawn(&mut self) {
        self.spawn_unchecked();
        let socket = self.socket();
        let log = self.log();
        eventually("brigd answers", Duration::from_secs(20), || {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("brigd ended with {status}:\n{log}");
            }
            UnixStream::connect(&socket).is_ok()
        });
    }

    /// Starts the process and does not wait.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn_unchecked(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the daemon's log");
        let brigd = built("brigd");
        let mut command = match self.core {
            None => Command::new(brigd),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(brigd);
                command
            }
        };
        command
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--pidfile")
            .arg(self.root.path().join("brigd.pid"))
            .arg("--config-file")
            .arg(self.root.path().join("brigd.json"))
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        if !self.quiet {
            command.arg("--debug");
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().expect("brigd starts"));
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.path().join("brig.sock")
    }

    /// The daemon's data root.
    #[must_use]
    pub fn data_root(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The daemon's run directory.
    #[must_use]
    pub fn exec_root(&self) -> PathBuf {
        self.root.path().join("run")
    }

    /// What tells this daemon's bridges, tables and control groups from another's.
    ///
    /// # Panics
    /// When the daemon has not written down what it is.
    #[must_use]
    pub fn instance(&self) -> String {
        let listed = self.brig().run(&[
            "network",
            "inspect",
            "-f",
            r#"{{index .Options "com.docker.network.bridge.name"}}"#,
            "bridge",
        ]);
        let name = listed.ok();
        name.strip_prefix("brig-").expect("a bridge named after the instance").to_owned()
    }

    /// Everything the daemon may write to.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The daemon's log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.path().join("brigd.log")
    }

    /// The process id.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("brigd is running").id()
    }

    /// Waits for a process that is to end by itself; its exit status.
    ///
    /// # Panics
    /// When it goes on for ten seconds.
    pub fn wait_exit(&mut self) -> i32 {
        let mut status = None;
        let child = self.child.as_mut().expect("brigd was started");
        eventually("brigd ends", Duration::from_secs(10), || {
            status = child.try_wait().expect("its status can be read");
            status.is_some()
        });
        self.child = None;
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and the end awaited.
    ///
    /// # Panics
    /// When it does not end within 20 seconds.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            eventually("brigd stops", Duration::from_secs(20), || {
                matches!(child.try_wait(), Ok(Some(_)))
            });
        }
    }

    /// Kills the daemon and removes everything it put on the machine.
    pub fn purge(&mut self) {
        self.kill();
        let purged = Command::new(built("brigd"))
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("--config-file")
            .arg(self.root.path().join("brigd.json"))
            .arg("--purge")
            .stdin(Stdio::null())
            .output();
        if let Ok(output) = purged
            && !output.status.success()
        {
            eprintln!("brigd --purge: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// brig's CLI for this daemon.
    #[must_use]
    pub fn brig(&self) -> Client {
        Client::brig(&self.socket(), &self.client_config())
    }

    /// brig's CLI and every docker CLI there is.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        let mut clients = vec![self.brig()];
        clients.extend(Client::dockers(&self.socket(), &self.client_config()));
        clients
    }

    /// The clients' configuration folder.
    #[must_use]
    pub fn client_config(&self) -> PathBuf {
        let folder = self.root.path().join("client");
        let _ = fs::create_dir_all(&folder);
        folder
    }

    /// Loads the busybox image.
    pub fn load_busybox(&self) {
        let archive = crate::image::busybox();
        let _ = self.brig().run(&["load", "-q", "-i", &archive.display().to_string()]).ok();
    }

    /// Makes this node a swarm of its own, on a loopback port of its own.
    pub fn init_swarm(&self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let _ = self
            .brig()
            .run(&["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", &listen])
            .ok();
    }

    /// Asks to be a worker of the swarm that a manager on this host has.
    #[must_use]
    pub fn join_as_worker(&self, manager: &Self) -> Output {
        let token = manager.brig().run(&["swarm", "join-token", "-q", "worker"]);
        let address = format!("127.0.0.1:{}", manager.port);
        let listen = format!("127.0.0.1:{}", self.port);
        let join = ["swarm", "join", "--token", token.ok(), "--listen-addr", &listen, &address];
        self.brig().run(&join)
    }

    /// The swarm's port.
    #[must_use]
    pub const fn swarm_port(&self) -> u16 {
        self.port
    }

    /// Waits until a service has `count` running containers; their ids.
    #[must_use]
    pub fn service_containers(&self, service: &str, count: usize) -> Vec<String> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        let mut ids = Vec::new();
        eventually(&format!("{service} runs {count}"), Duration::from_secs(30), || {
            let listed = self.brig().run(&["ps", "-q", "--no-trunc", "--filter", &filter]);
            ids = listed.stdout.lines().map(str::to_owned).collect();
            ids.len() == count
        });
        ids
    }
}

impl Drop for Brigd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
            eprintln!("--- end of brigd's log ---\n{}", tail.join("\n"));
        }
        self.purge();
    }
}
