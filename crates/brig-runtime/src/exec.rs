//! More processes in a running container.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use brig_sys::process;
use brig_types::id::{ContainerId, ExecId};
use brig_types::signal::Signal;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::config::create_private_dir;
use crate::conmon::{self, LineReader, Task, Waiting};
use crate::console::{Console, ConsoleMode};
use crate::create::{CREATE_LIMIT, write_json};
use crate::error::RuntimeError;
use crate::exits::{ExitInfo, KILLED};
use crate::failure::Failure;
use crate::runtime::{Inner, Runtime};
use crate::spec::{self, ProcessSpec};
use crate::supervise::{KILL_LIMIT, kill_and_wait};

const PROCESS_FILE: &str = "process.json";
const MONITOR_LOST: &str = "the process's monitor was killed; the process was stopped";
/// How long conmon may take to end after it reported the exit status.
const CONMON_LIMIT: Duration = Duration::from_secs(5);

/// A process to run in a container.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// The container; it runs.
    pub container: ContainerId,
    /// The new process.
    pub exec: ExecId,
    /// What to run. Whether it has a terminal is said there.
    pub process: ProcessSpec,
    /// Whether its standard input is open. It ends when it is closed here.
    pub attach_stdin: bool,
}

/// A process that runs in a container. It ends with the container.
#[derive(Debug)]
pub struct Exec {
    /// The process, in the host's numbering.
    pub pid: i32,
    /// Its streams. Subscribed by [`Runtime::exec`] before it ran: see [`Exec::output`].
    pub console: Console,
    /// Everything that it writes, from the beginning. Drop it when nobody reads it: a full buffer
    /// makes the process wait.
    pub output: crate::console::ConsoleOutput,
    /// How it ends.
    pub exit: ExecExit,
    /// What this host did not allow although it was asked for.
    pub warnings: Vec<String>,
}

/// The end of such a process.
#[derive(Debug)]
pub struct ExecExit {
    ended: oneshot::Receiver<ExitInfo>,
}

impl ExecExit {
    /// Waits for it. All output was handed to the console by then or is about to be: read that to
    /// its end too.
    pub async fn wait(self) -> ExitInfo {
        self.ended.await.unwrap_or_else(|_| lost("the runtime was shut down"))
    }
}

fn lost(reason: &str) -> ExitInfo {
    ExitInfo {
        code: KILLED,
        oom: false,
        at: OffsetDateTime::now_utc(),
        reason: Some(reason.to_owned()),
    }
}

impl Runtime {
    /// Runs one more process in a container.
    ///
    /// # Errors
    /// [`RuntimeError::Exec`] when it cannot be started; its exit code is 126 or 127 as docker
    /// reports it.
    pub async fn exec(&self, request: ExecRequest) -> Result<Exec, RuntimeError> {
        if self.inner.stop.is_cancelled() {
            return Err(RuntimeError::ShuttingDown);
        }
        let inner = Arc::clone(&self.inner);
        self.detached(async move {
            let dir = inner.layout.execs.join(request.exec.as_str());
            let started = inner.exec(&request, dir.clone()).await;
            if started.is_err() {
                inner.clean_exec(&request.exec, dir).await;
            }
            started
        })
        .await
    }
}

impl Inner {
    async fn exec(
        self: &Arc<Self>,
        request: &ExecRequest,
        dir: PathBuf,
    ) -> Result<Exec, RuntimeError> {
        let built = spec::build_process(&request.process, &self.facts)?;
        create_private_dir(&dir)?;
        let mode = ConsoleMode {
            tty: request.process.tty,
            open_stdin: request.attach_stdin,
            stdin_once: true,
        };
        let process_file = dir.join(PROCESS_FILE);
        self.seal();
        let task = Task {
            conmon: &self.programs.conmon,
            runtime: &self.programs.runtime,
            sealed: self.sealed(),
            runtime_args: self.runtime_args(&dir),
            container: request.container.as_str(),
            id: request.exec.as_str(),
            bundle: &dir,
            // Exit files of execs are named after the container.
            exits: &dir,
            sockets: &self.layout.sockets,
            log: None,
            mode,
            exec: Some(process_file.clone()),
            keep: None,
        };
        let (waiting, written) =
            tokio::join!(task.launch(&self.launcher), write_json(process_file, built.spec));
        let waiting = waiting.map_err(|e| RuntimeError::system("starting conmon", e))?;
        let started = match written {
            Ok(()) => self.run_exec(waiting, request.exec.as_str(), &dir, mode).await,
            Err(error) => {
                // Before its pipe closes, which it would take for a go.
                let _ = waiting.child.signal(Signal::KILL);
                let _ = waiting.child.wait().await;
                Err(error)
            }
        };
        let (console, output, pid, sync) = started.map_err(|error| match error {
            RuntimeError::Exec(failure) => {
                let argv0 = request.process.args.first().map(String::as_str).unwrap_or_default();
                RuntimeError::Exec(Failure::translate(&failure.message, argv0))
            }
            other => other,
        })?;
        let exit = self.watch_exec(request, sync, pid, dir);
        Ok(Exec { pid, console, output, exit, warnings: built.warnings })
    }

    async fn run_exec(
        &self,
        mut waiting: Waiting,
        exec: &str,
        dir: &std::path::Path,
        mode: ConsoleMode,
    ) -> Result<(Console, crate::console::ConsoleOutput, i32, LineReader), RuntimeError> {
        self.release(&waiting);
        let reading = |e| RuntimeError::system("reading conmon's answer", e);
        let work = async {
            conmon::go(&waiting.start).map_err(reading)?;
            let (attach, _) = tokio::join!(waiting.attach.next(), waiting.child.wait());
            if attach.map_err(reading)?.is_none() {
                return Err(match waiting.sync.next().await.map_err(reading)? {
                    Some(message) => failed(message),
                    None => RuntimeError::Monitor(conmon::complaint(waiting.complaints).await),
                });
            }
            // Its socket is there, and it waits for another byte before it runs anything.
            let console = Console::connect(dir, mode, &self.tasks, &self.stop)
                .map_err(|e| RuntimeError::file("connecting to the monitor in", dir, e))?;
            let output = console.output();
            conmon::go(&waiting.start).map_err(reading)?;
            match waiting.sync.next().await.map_err(reading)? {
                Some(message) if message.data > 0 => {
                    let pid = i32::try_from(message.data).unwrap_or(0);
                    Ok((console, output, pid, waiting.sync))
                }
                Some(message) => Err(failed(message)),
                None => Err(RuntimeError::Monitor(conmon::complaint(waiting.complaints).await)),
            }
        };
        if let Ok(outcome) = tokio::time::timeout(CREATE_LIMIT, work).await {
            return outcome;
        }
        if let Err(error) = conmon::end(dir, exec).await {
            tracing::warn!(exec, %error, "what starts a process does not end");
        }
        Err(RuntimeError::Timeout {
            operation: "starting the process",
            seconds: CREATE_LIMIT.as_secs(),
        })
    }

    /// Waits for the exit status, which comes over the same pipe.
    fn watch_exec(
        self: &Arc<Self>,
        request: &ExecRequest,
        mut sync: LineReader,
        pid: i32,
        dir: PathBuf,
    ) -> ExecExit {
        let (report, ended) = oneshot::channel();
        let inner = Arc::clone(self);
        let exec = request.exec.clone();
        // Held from the beginning, so that it is this process and no later one.
        let pidfd = process::pidfd(pid);
        self.tasks.spawn(async move {
            let message = tokio::select! {
                () = inner.stop.cancelled() => return,
                message = sync.next() => message,
            };
            let info = match message {
                Ok(Some(message)) => ExitInfo {
                    code: i32::try_from(message.data).unwrap_or(KILLED),
                    oom: false,
                    at: OffsetDateTime::now_utc(),
                    reason: None,
                },
                _ => {
                    if let Ok(pidfd) = &pidfd
                        && let Err(error) = kill_and_wait(pidfd, KILL_LIMIT).await
                    {
                        tracing::error!(%exec, %error, "a process without monitor goes on");
                    }
                    lost(MONITOR_LOST)
                }
            };
            // Nobody waits for it: fine.
            let _ = report.send(info);
            // conmon writes its last files now; its end closes the pipe.
            let _ = tokio::time::timeout(CONMON_LIMIT, sync.next()).await;
            inner.clean_exec(&exec, dir).await;
        });
        ExecExit { ended }
    }

    async fn clean_exec(&self, exec: &ExecId, dir: PathBuf) {
        // A link that conmon leaves behind.
        let link = self.layout.sockets.join(exec.as_str());
        for removed in [tokio::fs::remove_file(link).await, tokio::fs::remove_dir_all(dir).await] {
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%exec, %error, "files of a process could not be removed");
            }
        }
    }
}

fn failed(message: conmon::Message) -> RuntimeError {
    let text = message.message.unwrap_or_default();
    RuntimeError::Exec(Failure { message: text, exit_code: 126 })
}
