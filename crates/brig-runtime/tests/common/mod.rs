//! A runtime of its own for each test, with a busybox root file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_runtime::spec::{self, ContainerSpecInput};
use brig_runtime::{
    ConsoleOutput, ContainerRecord, CreateRequest, Created, ExitInfo, Exits, LogTarget, Runtime,
    RuntimeConfig, RuntimeError, StdStream,
};
use brig_types::id::ContainerId;
use brig_types::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub parent: String,
    program: PathBuf,
    pub runtime: Option<Runtime>,
    pub exits: Option<Exits>,
    seen: BTreeMap<String, ExitInfo>,
    created: Vec<(ContainerId, ContainerRecord)>,
}

impl Rig {
    pub fn new(program: &str) -> Self {
        let program = ["/usr/bin", "/usr/sbin"]
            .iter()
            .map(|dir| Path::new(dir).join(program))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("these tests need {program}"));
        let dir = tempfile::Builder::new().prefix("brig-rt-").tempdir_in("/var/tmp").unwrap();
        let parent = format!("/{}", dir.path().file_name().unwrap().to_str().unwrap());
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let list = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
        for name in String::from_utf8(list.stdout).unwrap().lines() {
            if name != "busybox" {
                symlink("busybox", bin.join(name)).unwrap();
            }
        }
        for name in ["proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir(dir.path().join("rootfs").join(name)).unwrap();
        }
        fs::write(dir.path().join("rootfs/etc/plain"), "no program").unwrap();
        let mut rig = Self {
            dir,
            parent,
            program,
            runtime: None,
            exits: None,
            seen: BTreeMap::new(),
            created: Vec::new(),
        };
        rig.boot();
        rig
    }

    /// Starts the runtime, again if need be.
    pub fn boot(&mut self) {
        self.exits = None;
        self.runtime = None;
        let runtime = Runtime::probe(RuntimeConfig {
            exec_root: self.dir.path().join("exec"),
            cache_dir: self.dir.path().join("cache"),
            cgroup_parent: self.parent.clone(),
            runtime: Some(self.program.clone()),
            conmon: None,
            init: None,
        })
        .unwrap();
        self.exits = runtime.exits();
        assert!(runtime.exits().is_none());
        self.runtime = Some(runtime);
    }

    /// As if the daemon was killed: nothing of it is left.
    pub async fn crash(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown().await;
        }
        self.exits = None;
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub fn input(&self, args: &[&str]) -> ContainerSpecInput {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let rootfs = self.dir.path().join("rootfs");
        ContainerSpecInput::new(ContainerId::generate(), rootfs, args)
    }

    pub fn sh(&self, script: &str) -> ContainerSpecInput {
        self.input(&["sh", "-c", script])
    }

    pub fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.dir.path().join("bundles").join(id.as_str())
    }

    pub fn log(&self, id: &ContainerId) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    pub fn request(&self, input: &ContainerSpecInput, stdin: bool, once: bool) -> CreateRequest {
        let built = spec::build(input, self.runtime().facts()).unwrap();
        CreateRequest {
            id: input.id.clone(),
            bundle: self.bundle(&input.id),
            spec: built.spec,
            tty: input.process.tty,
            open_stdin: stdin,
            stdin_once: once,
            log: LogTarget { path: Some(self.log(&input.id)) },
            keep: None,
        }
    }

    pub async fn create(
        &mut self,
        input: &ContainerSpecInput,
        stdin: bool,
        once: bool,
    ) -> Result<Created, RuntimeError> {
        let request = self.request(input, stdin, once);
        let created = self.runtime().create(request).await?;
        let record = ContainerRecord {
            bundle: self.bundle(&input.id),
            pid: created.pid,
            pid_start: created.pid_start,
            conmon_pid: created.conmon_pid,
            conmon_start: created.conmon_start,
            tty: input.process.tty,
            open_stdin: stdin,
            stdin_once: once,
        };
        self.created.push((input.id.clone(), record));
        Ok(created)
    }

    pub fn record(&self, id: &ContainerId) -> ContainerRecord {
        self.created.iter().find(|(other, _)| other == id).unwrap().1.clone()
    }

    /// Waits for a container's end.
    pub async fn exit(&mut self, id: &ContainerId) -> ExitInfo {
        let exits = self.exits.as_mut().unwrap();
        while !self.seen.contains_key(id.as_str()) {
            let (ended, info) = tokio::time::timeout(LIMIT, exits.next())
                .await
                .expect("the container ends")
                .expect("the runtime runs");
            assert!(self.seen.insert(ended.to_string(), info).is_none(), "reported twice");
        }
        self.seen.remove(id.as_str()).unwrap()
    }

    /// Runs a container to its end and deletes it.
    pub async fn run(&mut self, input: &ContainerSpecInput) -> (ExitInfo, String, String) {
        let created = self.create(input, false, false).await.unwrap();
        let output = created.console.output();
        self.runtime().start(&input.id).await.unwrap();
        let (out, err) = collect(output).await;
        let info = self.exit(&input.id).await;
        self.runtime().delete(&input.id, false).await.unwrap();
        (info, out, err)
    }

    /// Nothing is left in the runtime's own folders, or soon won't be.
    pub async fn assert_clean(&self) {
        let mut left = Vec::new();
        for _ in 0..500 {
            left = ["oci", "exits", "sockets", "execs"]
                .iter()
                .flat_map(|name| fs::read_dir(self.dir.path().join("exec").join(name)).unwrap())
                .map(|entry| entry.unwrap().path())
                .collect();
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("left over: {left:?}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // By system calls only: there may be no tokio runtime any more.
        for (id, record) in &self.created {
            let group = format!("/sys/fs/cgroup/freezer{}/{id}/freezer.state", self.parent);
            let _ = fs::write(group, "THAWED");
            for (pid, start) in
                [(record.pid, record.pid_start), (record.conmon_pid, record.conmon_start)]
            {
                if let Ok(pidfd) = brig_sys::process::pidfd_of(pid, start) {
                    let _ = brig_sys::process::send_signal(&pidfd, Signal::KILL);
                }
                for _ in 0..400 {
                    if !brig_sys::process::alive(pid, start) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            remove_groups(&format!("{}/{id}", self.parent));
        }
        remove_groups(&format!("{}/conmon", self.parent));
        remove_groups(&self.parent);
    }
}

fn remove_groups(group: &str) {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    for root in roots {
        let path = brig_sys::cgroup::group_path(&root, group).unwrap();
        for _ in 0..100 {
            match fs::remove_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => break,
            }
        }
    }
}

/// Reads output to its end.
pub async fn collect(mut output: ConsoleOutput) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(chunk) = tokio::time::timeout(LIMIT, output.recv()).await.expect("output ends") {
        let chunk = chunk.unwrap();
        match chunk.stream {
            StdStream::Stdout => out.extend_from_slice(&chunk.bytes),
            StdStream::Stderr => err.extend_from_slice(&chunk.bytes),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Reads output until it has this text.
pub async fn read_until(output: &mut ConsoleOutput, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let chunk = tokio::time::timeout(LIMIT, output.recv())
            .await
            .unwrap_or_else(|_| panic!("{text:?} does not come: {seen:?}"))
            .unwrap_or_else(|| panic!("ended without {text:?}: {seen:?}"))
            .unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk.bytes));
    }
    seen
}
