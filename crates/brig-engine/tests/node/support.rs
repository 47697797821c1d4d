//! An engine with a busybox image.

use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use brig_api::container::{ContainerConfig, ContainerCreateRequest, HostConfig};
use brig_api::stream::StdStream;
use brig_engine::{
    AttachRequest, AttachedStreams, Engine, EngineConfig, EventSubscription, LogsRequest,
    StartOptions, WaitCondition, WaitOutcome,
};
use brig_image::{ImageStore, OpenOptions};
use brig_network::NetworkConfig;
use brig_runtime::RuntimeConfig;

const INSIDE: &str = "BRIG_ENGINE_TEST_INSIDE";
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test in fresh namespaces, by running this program again inside them.
pub(crate) fn isolated<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("timeout")
            .args(["120", "unshare", "--net", "--mount", "--propagation", "private", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed in its namespaces: {status}");
        return;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    block_on(test());
}

pub(crate) fn block_on<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Folders of a node; removed at the end.
pub(crate) struct Node {
    dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = brig_sys::mount::unmount(&self.path().join("exec/rootfs"), true);
    }
}

impl Node {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("brig-en-").tempdir_in("/var/tmp").unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn engine(&self) -> Engine {
        engine_at(self.path()).await
    }
}

pub(crate) async fn engine_at(dir: &Path) -> Engine {
    let images = ImageStore::open(&dir.join("data"), OpenOptions::default()).unwrap();
    if images.resolve("busybox").is_err() {
        import_busybox(dir, &images).await;
    }
    let parent = format!("/{}", dir.file_name().unwrap().to_str().unwrap());
    let config = EngineConfig {
        data_root: dir.join("data"),
        exec_root: dir.join("exec"),
        runtime: RuntimeConfig {
            exec_root: dir.join("exec"),
            // Compiled filters are the same for all tests.
            cache_dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("seccomp-cache"),
            cgroup_parent: parent,
            runtime: None,
            conmon: None,
            init: None,
        },
        network: NetworkConfig::new("", dir.join("data/network")),
        log_options: Default::default(),
        dns: Vec::new(),
        sockets: vec![dir.join("own/brig.sock")],
        socket_mounts_allowed: false,
        admission: None,
    };
    Engine::start(config, images).await.unwrap()
}

async fn import_busybox(dir: &Path, images: &ImageStore) {
    let root = dir.join("image");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "cat", "echo", "id", "ls", "sleep", "true", "stat", "touch", "mount", "head", "env",
        "hostname", "kill", "mkdir", "seq", "stty", "wget", "httpd", "nslookup", "grep",
    ] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    for name in ["etc", "proc", "sys", "dev", "tmp", "run", "data"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/:/bin/sh\n")
        .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nwww:x:34:\nextra:x:77:www\n").unwrap();
    std::fs::write(root.join("data/seed"), "from the image").unwrap();
    let tar = dir.join("image.tar");
    let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".").status();
    assert!(made.unwrap().success());
    let file = tokio::fs::File::open(&tar).await.unwrap();
    let options = brig_image::ImportOptions {
        reference: Some(brig_types::reference::Reference::parse("busybox").unwrap()),
        changes: vec!["CMD [\"sh\"]".to_owned(), "ENV FROM_IMAGE=yes".to_owned()],
        ..Default::default()
    };
    images.import(file, options, &|_| {}).await.unwrap();
}

/// A request for `busybox` without network.
pub(crate) fn request(command: &[&str]) -> ContainerCreateRequest {
    ContainerCreateRequest {
        config: ContainerConfig {
            image: "busybox".to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            ..ContainerConfig::default()
        },
        host_config: HostConfig { network_mode: "none".to_owned(), ..HostConfig::default() },
        ..ContainerCreateRequest::default()
    }
}

pub(crate) fn sh(script: &str) -> ContainerCreateRequest {
    request(&["sh", "-c", script])
}

pub(crate) async fn wait(engine: &Engine, key: &str, condition: WaitCondition) -> WaitOutcome {
    let handle = engine.wait(key, condition).unwrap();
    tokio::time::timeout(LIMIT, handle.wait()).await.expect("the wait ends")
}

/// Creates, attaches, starts and waits; gives exit code, output and errors.
pub(crate) async fn run(engine: &Engine, request: ContainerCreateRequest) -> (i64, String, String) {
    run_with(engine, request, StartOptions::default()).await
}

pub(crate) async fn run_with(
    engine: &Engine,
    request: ContainerCreateRequest,
    options: StartOptions,
) -> (i64, String, String) {
    let id = engine.create_container(None, request).await.unwrap().id;
    let all = AttachRequest { stdout: true, stderr: true, stream: true, ..Default::default() };
    let streams = engine.attach(&id, all).await.unwrap();
    let ended = engine.wait(&id, WaitCondition::NextExit).unwrap();
    engine.start_container(&id, options).await.unwrap();
    let (out, err) = read(streams).await;
    let outcome = tokio::time::timeout(LIMIT, ended.wait()).await.unwrap();
    (outcome.exit_code, out, err)
}

/// Reads an attachment to its end.
pub(crate) async fn read(mut streams: AttachedStreams) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        while let Some(chunk) = streams.output.recv().await {
            match chunk.stream {
                StdStream::Stderr => err.extend_from_slice(&chunk.bytes),
                _ => out.extend_from_slice(&chunk.bytes),
            }
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("the output ends");
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

pub(crate) async fn logs(engine: &Engine, id: &str, request: LogsRequest) -> String {
    let request = LogsRequest { stdout: true, stderr: true, ..request };
    let mut stream = engine.logs(id, request).await.unwrap();
    let mut text = String::new();
    let all = async {
        while let Some(line) = stream.next().await {
            text.push_str(std::str::from_utf8(&line.data).unwrap());
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("the log ends");
    text
}

/// The next events, up to and with one of this action.
pub(crate) async fn actions(events: &mut EventSubscription, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap();
        let text = match event.kind.as_str() {
            "container" => event.action.clone(),
            kind => format!("{kind} {}", event.action),
        };
        let done = text == last;
        seen.push(text);
        if done {
            return seen;
        }
    }
}

/// What is mounted below a node's folders.
fn mounts_of(node: &Node) -> Vec<PathBuf> {
    let mounts = brig_sys::mount::mountinfo(None).unwrap();
    let points = mounts.into_iter().map(|mount| mount.mount_point);
    // The runtime keeps the folder of root file systems as a mount of its own.
    let own = node.path().join("exec/rootfs");
    points.filter(|point| point.starts_with(node.path()) && *point != own).collect()
}

/// Waits until no file of any container is left.
pub(crate) async fn nothing_left(node: &Node) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let left: Vec<PathBuf> = ["data/containers", "exec/bundles", "exec/rootfs"]
            .into_iter()
            .flat_map(|part| std::fs::read_dir(node.path().join(part)).unwrap())
            .map(|item| item.unwrap().path())
            .collect();
        if left.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "left: {left:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(mounts_of(node), Vec::<PathBuf>::new());
}

/// Removes all containers and ends the engine.
pub(crate) async fn finish(engine: Engine) {
    let all = brig_engine::ListOptions { all: true, ..Default::default() };
    for container in engine.list(all).await.unwrap() {
        let options = brig_engine::RemoveOptions { force: true, volumes: true };
        match engine.remove(&container.id, options).await {
            // It removed itself meanwhile.
            Err(brig_engine::EngineError::NoSuchContainer(_)) => {}
            result => result.unwrap(),
        }
    }
    engine.shutdown().await;
}
