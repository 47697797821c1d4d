//! Creating a container.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use brig_sys::{cgroup, process};
use brig_types::error::chain;
use brig_types::id::ContainerId;
use brig_types::signal::Signal;
use oci_spec::runtime::Spec;

use crate::config::{Flavor, create_private_dir};
use crate::conmon::{self, Task, Waiting};
use crate::console::{Console, ConsoleMode};
use crate::error::RuntimeError;
use crate::exits;
use crate::failure::Failure;
use crate::runtime::{Inner, Runtime};
use crate::seccomp::FilterKey;
use crate::supervise::Entry;

/// What the OCI runtime reads in a bundle.
const CONFIG_FILE: &str = "config.json";
/// Where runc and crun log to when their standard error is not enough.
const RUNTIME_LOG: &str = "oci-log";
/// crun takes a compiled filter from here, in base64.
const FILTER_ANNOTATION: &str = "run.oci.seccomp_bpf_data";
/// And leaves it here in the container's state.
const FILTER_FILE: &str = "seccomp.bpf";
/// Far more than creating a container takes on the slowest machine.
pub(crate) const CREATE_LIMIT: Duration = Duration::from_secs(120);

/// A container to create.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The container.
    pub id: ContainerId,
    /// Folder for its runtime files; absolute. Made if missing; the caller removes it after
    /// [`Runtime::delete`].
    pub bundle: PathBuf,
    /// Its configuration, from [`crate::spec::build`].
    pub spec: Spec,
    /// Whether it has a terminal; must agree with the configuration.
    pub tty: bool,
    /// Whether its standard input is open.
    pub open_stdin: bool,
    /// Whether its standard input ends with the first client that closes it.
    pub stdin_once: bool,
    /// Where its output goes.
    pub log: LogTarget,
    /// A descriptor that its conmon keeps open for as long as it lives; [`Runtime::kept`] gives it
    /// to the next daemon.
    pub keep: Option<Arc<OwnedFd>>,
}

/// A log file in the Kubernetes CRI format (`TIME STREAM F|P TEXT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// The file; its folder exists. `None` keeps no log.
    pub path: Option<PathBuf>,
}

/// A container that waits to be started. Record the four numbers: with them
/// [`Runtime::recover`] finds it again.
#[derive(Debug)]
pub struct Created {
    /// Its first process.
    pub pid: i32,
    /// When that started (see [`brig_sys::process::start_time`]).
    pub pid_start: u64,
    /// Its conmon.
    pub conmon_pid: i32,
    /// When that started.
    pub conmon_start: u64,
    /// Its streams; nothing was written yet.
    pub console: Console,
}

/// How a compiled filter takes part in a create.
enum Filter {
    /// Not at all.
    None,
    /// The runtime compiles it and it is kept.
    Compile(FilterKey),
    /// A kept one is used.
    Ready(Arc<[u8]>),
}

impl Runtime {
    /// Creates a container up to the point where its first process waits. Goes on to its end even
    /// if the caller does not wait for it.
    ///
    /// # Errors
    /// [`RuntimeError::Create`] with the OCI runtime's reason, and others. Nothing of the container
    /// is left then, except files in its bundle.
    pub async fn create(&self, request: CreateRequest) -> Result<Created, RuntimeError> {
        if self.inner.stop.is_cancelled() {
            return Err(RuntimeError::ShuttingDown);
        }
        let inner = Arc::clone(&self.inner);
        let task = self.inner.tasks.spawn(async move { inner.create(request).await });
        task.await.map_err(|e| RuntimeError::system("creating a container", io::Error::other(e)))?
    }
}

impl Inner {
    async fn create(self: Arc<Self>, request: CreateRequest) -> Result<Created, RuntimeError> {
        let (filter, ready) = self.filter(&request.spec).await;
        match self.try_create(&request, &filter).await {
            Err(error) if ready && filter_is_to_blame(&error) => {
                tracing::warn!(
                    error = chain(&error),
                    "compiled filters do not work here: not used any more"
                );
                if let Some(filters) = &self.filters {
                    filters.turn_off();
                }
                self.try_create(&request, &Filter::None).await
            }
            answer => answer,
        }
    }

    async fn filter(self: &Arc<Self>, spec: &Spec) -> (Filter, bool) {
        let rules = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let key = self.filters.as_ref().zip(rules).and_then(|(cache, rules)| cache.key(rules));
        let Some(key) = key else { return (Filter::None, false) };
        let inner = Arc::clone(self);
        let wanted = key.clone();
        // The first time it is on the disk.
        let found = tokio::task::spawn_blocking(move || inner.filters.as_ref()?.get(&wanted)).await;
        match found {
            Ok(Some(filter)) => (Filter::Ready(filter), true),
            _ => (Filter::Compile(key), false),
        }
    }

    async fn try_create(
        self: &Arc<Self>,
        request: &CreateRequest,
        filter: &Filter,
    ) -> Result<Created, RuntimeError> {
        let (id, bundle) = (&request.id, request.bundle.as_path());
        if bundle.exists() {
            for name in conmon::STALE_FILES {
                remove_if_there(&bundle.join(name))?;
            }
        }
        create_private_dir(bundle)?;
        exits::forget(&self.layout.exits, id);

        let mode = ConsoleMode {
            tty: request.tty,
            open_stdin: request.open_stdin,
            stdin_once: request.stdin_once,
        };
        self.seal();
        let task = Task {
            conmon: &self.programs.conmon,
            runtime: &self.programs.runtime,
            sealed: self.sealed(),
            runtime_args: self.runtime_args(bundle),
            container: id.as_str(),
            id: id.as_str(),
            bundle,
            exits: &self.layout.exits,
            sockets: &self.layout.sockets,
            log: request.log.path.as_deref(),
            mode,
            exec: None,
            keep: request.keep.as_deref(),
        };
        // conmon loads while the configuration is written; it reads nothing before its first byte.
        let config = write_config(bundle.join(CONFIG_FILE), request.spec.clone(), filter);
        let (waiting, written) = tokio::join!(task.launch(&self.launcher), config);
        let waiting = waiting.map_err(|e| RuntimeError::system("starting conmon", e))?;
        if let Err(error) = written {
            kill(waiting).await;
            return Err(error);
        }
        let argv0 = argv0(&request.spec);
        let answer = self.run_conmon(waiting, bundle, id.as_str(), &argv0).await;
        // A link that conmon makes for itself and leaves behind.
        remove_if_there(&self.layout.sockets.join(id.as_str()))?;
        let pid = answer?;
        let created = self.finish_create(request, mode, filter, pid).await;
        if created.is_err() {
            self.discard(id, pid).await;
        }
        created
    }

    /// Lets conmon create the container and returns its first process.
    async fn run_conmon(
        &self,
        mut waiting: Waiting,
        bundle: &Path,
        id: &str,
        argv0: &str,
    ) -> Result<i32, RuntimeError> {
        self.release(&waiting);
        let answered = tokio::time::timeout(CREATE_LIMIT, async {
            conmon::go(&waiting.start)?;
            // conmon forks itself away; what was started ends at once, having written its file.
            let (message, _) = tokio::join!(waiting.sync.next(), waiting.child.wait());
            message
        })
        .await;
        let Ok(message) = answered else {
            if let Err(error) = conmon::end(bundle, id).await {
                tracing::warn!(id, %error, "what creates a container does not end");
            }
            let _ = self.oci("delete", ["--force", id]).await;
            return Err(RuntimeError::Timeout {
                operation: "creating the container",
                seconds: CREATE_LIMIT.as_secs(),
            });
        };
        match message {
            Ok(Some(message)) if message.data > 0 => i32::try_from(message.data)
                .map_err(|_| RuntimeError::Monitor("it reported no process".to_owned())),
            Ok(Some(message)) => {
                let said = message.message.unwrap_or_default();
                let raw = if said.trim().is_empty() { read_log(bundle) } else { said };
                Err(RuntimeError::Create(Failure::translate(&raw, argv0)))
            }
            Ok(None) => Err(RuntimeError::Monitor(conmon::complaint(waiting.complaints).await)),
            Err(error) => Err(RuntimeError::system("reading conmon's answer", error)),
        }
    }

    /// What has to happen to a conmon before it forks.
    pub(crate) fn release(&self, waiting: &Waiting) {
        let pid = waiting.child.pid();
        for group in &self.conmon_groups {
            if let Err(error) = cgroup::attach(group, pid) {
                tracing::debug!(%error, group = %group.display(), "conmon stays where it is");
            }
        }
        if let Err(error) = process::restore_core_limit(pid) {
            tracing::debug!(%error, "containers inherit the daemon's core limit");
        }
    }

    async fn finish_create(
        self: &Arc<Self>,
        request: &CreateRequest,
        mode: ConsoleMode,
        filter: &Filter,
        pid: i32,
    ) -> Result<Created, RuntimeError> {
        let bundle = request.bundle.as_path();
        self.check_filter(&request.id, filter)?;
        let lost = |e| RuntimeError::system("finding the container's processes", e);
        let conmon_pid = conmon::read_pid(&bundle.join(conmon::CONMON_PID_FILE)).map_err(lost)?;
        let conmon = process::pidfd(conmon_pid).map_err(lost)?;
        let conmon_start = process::start_time(conmon_pid).map_err(lost)?;
        let init = process::pidfd(pid).map_err(lost)?;
        let pid_start = process::start_time(pid).map_err(lost)?;
        let console = Console::connect(bundle, mode, &self.tasks, &self.stop)
            .map_err(|e| RuntimeError::file("connecting to the monitor in", bundle, e))?;
        self.watch(request.id.clone(), Entry::new(bundle.to_owned(), init, conmon));
        Ok(Created { pid, pid_start, conmon_pid, conmon_start, console })
    }

    /// SECURITY: a container must not start without its filter. crun keeps the filter that it will
    /// load, so what it took can be compared before anything runs.
    fn check_filter(
        self: &Arc<Self>,
        id: &ContainerId,
        filter: &Filter,
    ) -> Result<(), RuntimeError> {
        let path = self.layout.state.join(id.as_str()).join(FILTER_FILE);
        match filter {
            Filter::None => {}
            Filter::Ready(wanted) => {
                if fs::read(&path).ok().as_deref() != Some(&**wanted) {
                    return Err(RuntimeError::Monitor(FILTER_IGNORED.to_owned()));
                }
            }
            Filter::Compile(key) => {
                if let Ok(compiled) = fs::read(&path) {
                    let (inner, key) = (Arc::clone(self), key.clone());
                    // Flushing it to the disk is nothing to wait for.
                    self.tasks.spawn_blocking(move || {
                        let kept = inner.filters.as_ref().map(|f| f.put(&key, &compiled));
                        if let Some(Err(error)) = kept {
                            tracing::warn!(%error, "a compiled filter was not kept");
                        }
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes a container that was created and cannot be used.
    async fn discard(&self, id: &ContainerId, pid: i32) {
        self.registry.remove(id);
        if let Err(error) = self.oci("delete", ["--force", id.as_str()]).await {
            tracing::warn!(%id, pid, error = chain(&error), "an unusable container could not be deleted");
        }
    }

    /// The OCI runtime's global arguments.
    pub(crate) fn runtime_args(&self, bundle: &Path) -> Vec<std::ffi::OsString> {
        let with = |name: &str, path: &Path| {
            let mut arg = std::ffi::OsString::from(name);
            arg.push(path);
            arg
        };
        let mut args = vec![with("--root=", &self.layout.state)];
        if self.programs.flavor == Flavor::Runc {
            args.push("--log-format=json".into());
            args.push(with("--log=", &bundle.join(RUNTIME_LOG)));
        }
        args
    }
}

const FILTER_IGNORED: &str = "the OCI runtime did not take the compiled seccomp filter";

fn filter_is_to_blame(error: &RuntimeError) -> bool {
    match error {
        RuntimeError::Monitor(text) => text == FILTER_IGNORED,
        RuntimeError::Create(failure) => failure.message.contains("seccomp"),
        _ => false,
    }
}

async fn kill(waiting: Waiting) {
    let _ = waiting.child.signal(Signal::KILL);
    let _ = waiting.child.wait().await;
}

async fn write_config(path: PathBuf, mut spec: Spec, filter: &Filter) -> Result<(), RuntimeError> {
    // SECURITY: whoever may set annotations must not replace the filter with them.
    if let Some(annotations) = spec.annotations_mut() {
        annotations.remove(FILTER_ANNOTATION);
    }
    if let Filter::Ready(filter) = filter {
        let text = base64::engine::general_purpose::STANDARD.encode(filter);
        let mut annotations = spec.annotations().clone().unwrap_or_default();
        annotations.insert(FILTER_ANNOTATION.to_owned(), text);
        spec.set_annotations(Some(annotations));
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(None);
        }
    }
    write_json(path, spec).await
}

/// Writes a file that only the OCI runtime reads, right away: after a crash nobody needs it.
pub(crate) async fn write_json<T>(path: PathBuf, value: T) -> Result<(), RuntimeError>
where
    T: serde::Serialize + Send + 'static,
{
    let write = move || {
        let failed = |e| RuntimeError::file("writing", &path, e);
        let json = serde_json::to_vec(&value).map_err(|e| failed(e.into()))?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        io::Write::write_all(&mut file, &json).map_err(failed)
    };
    tokio::task::spawn_blocking(write)
        .await
        .map_err(|e| RuntimeError::system("writing a configuration", io::Error::other(e)))?
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RuntimeError::file("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// What runc wrote to its log, when conmon passed nothing on.
fn read_log(bundle: &Path) -> String {
    fs::read_to_string(bundle.join(RUNTIME_LOG)).unwrap_or_default()
}

fn argv0(spec: &Spec) -> String {
    spec.process()
        .as_ref()
        .and_then(|process| process.args().as_ref())
        .and_then(|args| args.first())
        .cloned()
        .unwrap_or_default()
}
