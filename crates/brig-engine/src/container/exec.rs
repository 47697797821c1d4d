//! Further processes in running containers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use brig_api::exec::{ExecConfig, ExecInspect, ExecProcessConfig};
use brig_api::stream::StdStream;
use brig_runtime::{ExecRequest, ExitInfo};
use brig_types::error::chain;
use brig_types::id::ExecId;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Container;
use super::attach::{AttachedStreams, LastByte, OutputChunk, StdinWriter};
use super::detach_keys::DetachKeys;
use super::io::{IoSession, IoState};
use super::state::Status;
use super::{spec, stage};
use crate::engine::Engine;
use crate::error::EngineError;

/// How long one that ended can still be inspected.
const KEEP_ENDED: Duration = Duration::from_secs(5 * 60);
/// How long one may wait to be started.
const KEEP_UNUSED: Duration = Duration::from_secs(60 * 60);
/// Most of one container that are kept, whatever their state.
const MAX_PER_CONTAINER: usize = 4096;

/// The engine's execs.
#[derive(Debug, Default)]
pub(crate) struct ExecTable {
    all: Mutex<HashMap<ExecId, Arc<Exec>>>,
}

#[derive(Debug)]
struct Exec {
    id: ExecId,
    container: Arc<Container>,
    config: ExecConfig,
    keys: Option<DetachKeys>,
    created: Instant,
    io: Arc<IoSession>,
    cell: Mutex<ExecCell>,
}

#[derive(Debug, Default)]
struct ExecCell {
    started: bool,
    running: bool,
    pid: i32,
    exit_code: Option<i32>,
    ended: Option<Instant>,
}

impl ExecTable {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, Arc<Exec>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &str) -> Result<Arc<Exec>, EngineError> {
        let missing = || EngineError::NoSuchExec(key.chars().take(128).collect());
        let id = ExecId::parse(key).map_err(|_| missing())?;
        self.lock().get(&id).cloned().ok_or_else(missing)
    }

    /// Drops what nobody will ask for any more.
    fn prune(&self) {
        self.lock().retain(|_, exec| {
            let keep = {
                let cell = exec.cell();
                match (cell.ended, cell.started) {
                    (Some(ended), _) => ended.elapsed() < KEEP_ENDED,
                    (None, true) => true,
                    (None, false) => exec.created.elapsed() < KEEP_UNUSED,
                }
            };
            if !keep {
                // One that was never started still counts there.
                exec.container.cell().execs.retain(|id| *id != exec.id);
            }
            keep
        });
    }
}

impl Exec {
    fn cell(&self) -> MutexGuard<'_, ExecCell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(&self) -> String {
        self.config.cmd.join(" ")
    }
}

/// How to start an exec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecStart {
    /// Nobody listens; the answer comes when it runs.
    pub detach: bool,
    /// Size of the terminal, height and width.
    pub console_size: Option<[u32; 2]>,
}

/// What an exec reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecTarget {
    /// The container that it runs in.
    pub container: brig_types::id::ContainerId,
    /// Whether it was prepared to run with all capabilities.
    pub privileged: bool,
}

/// An exec that was found fit to run and is its holder's alone to start. Dropped before that, it can
/// be started by another call.
#[derive(Debug)]
pub struct PendingExec {
    engine: Engine,
    exec: Arc<Exec>,
    how: ExecStart,
    begun: bool,
}

impl Drop for PendingExec {
    fn drop(&mut self) {
        if !self.begun {
            self.exec.cell().started = false;
        }
    }
}

impl PendingExec {
    /// Whether it has a terminal.
    #[must_use]
    pub fn tty(&self) -> bool {
        self.exec.config.tty
    }

    /// Starts it and gives its streams. A process that cannot be started says why in its output and
    /// has an exit code then, as docker does it.
    pub async fn attach(mut self) -> AttachedStreams {
        let tty = self.tty();
        let config = &self.exec.config;
        // A terminal has one stream, whatever was asked for.
        let output = self.engine.pump_output(
            &self.exec.io,
            config.attach_stdout || tty,
            config.attach_stderr,
            LastByte::WithExit,
        );
        if let Err(error) = self.run().await {
            return failure_output(tty, &error);
        }
        let input = self.exec.config.attach_stdin.then(|| {
            let (engine, this) = (self.engine.clone(), Arc::clone(&self.exec));
            // The end of the client's input is always the process's.
            StdinWriter::new(&self.exec.io, self.exec.keys.clone(), true, move || {
                engine.exec_event(&this, "exec_detach", &[]);
            })
        });
        AttachedStreams { tty, output, input }
    }

    /// Starts it with nobody listening.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn detach(mut self) -> Result<(), EngineError> {
        self.run().await
    }

    async fn run(&mut self) -> Result<(), EngineError> {
        self.begun = true;
        let (engine, exec, how) = (self.engine.clone(), Arc::clone(&self.exec), self.how);
        self.engine.detached(async move { engine.run_exec(exec, how).await }).await
    }
}

impl Engine {
    /// Prepares a process for a running container and gives its id.
    ///
    /// # Errors
    /// Unknown or not running container, no command, bad detach keys.
    pub fn create_exec(&self, key: &str, config: ExecConfig) -> Result<ExecId, EngineError> {
        let container = self.registry().find(key)?;
        check_running(&container)?;
        if config.cmd.is_empty() {
            return Err(EngineError::Invalid("No exec command specified".to_owned()));
        }
        let keys = DetachKeys::parse(&config.detach_keys)?;
        self.execs().prune();
        if container.cell().execs.len() >= MAX_PER_CONTAINER {
            return Err(EngineError::Conflict(format!(
                "container {} has too many exec instances",
                container.id
            )));
        }
        let exec = Arc::new(Exec {
            id: ExecId::generate(),
            container: Arc::clone(&container),
            config,
            keys,
            created: Instant::now(),
            io: IoSession::new(),
            cell: Mutex::default(),
        });
        let id = exec.id.clone();
        container.cell().execs.push(id.clone());
        self.exec_event(&exec, &format!("exec_create: {}", exec.command()), &[]);
        self.execs().lock().insert(id.clone(), exec);
        Ok(id)
    }

    /// Takes a prepared process to start it.
    ///
    /// # Errors
    /// Unknown exec, started before, container not running.
    pub fn begin_exec(&self, key: &str, how: ExecStart) -> Result<PendingExec, EngineError> {
        let exec = self.execs().find(key)?;
        check_running(&exec.container)?;
        {
            let mut cell = exec.cell();
            if cell.started {
                return Err(EngineError::Conflict(if cell.running {
                    format!("Error: Exec command {} is already running", exec.id)
                } else {
                    format!("Error: Exec command {} has already run", exec.id)
                }));
            }
            cell.started = true;
        }
        Ok(PendingExec { engine: self.clone(), exec, how, begun: false })
    }

    /// Starts a prepared process and gives its streams, which are empty when it is detached.
    ///
    /// # Errors
    /// Those of [`Engine::begin_exec`]; detached: whatever keeps it from starting.
    pub async fn start_exec(
        &self,
        key: &str,
        how: ExecStart,
    ) -> Result<AttachedStreams, EngineError> {
        let pending = self.begin_exec(key, how)?;
        if !how.detach {
            return Ok(pending.attach().await);
        }
        let tty = pending.tty();
        pending.detach().await?;
        Ok(AttachedStreams { tty, output: mpsc::channel(1).1, input: None })
    }

    async fn run_exec(&self, exec: Arc<Exec>, how: ExecStart) -> Result<(), EngineError> {
        let record = exec.container.record();
        let (rootfs, record_for_user, config) =
            (exec.container.paths.rootfs.clone(), record.clone(), exec.config.clone());
        let user =
            if config.user.is_empty() { record.config.user.clone() } else { config.user.clone() };
        let (apparmor, flavor) = (self.runtime().facts().apparmor, self.runtime().flavor());
        let process = self
            .blocking(move || {
                let root = brig_sys::openat::open_dir(&rootfs)
                    .map_err(|source| EngineError::disk("open", &rootfs, source))?;
                let groups = &record_for_user.host_config.group_add;
                stage::check_databases(&root, flavor)?;
                let user = stage::resolve_user(&root, &user, groups)?;
                let mut config = config;
                config.console_size = how.console_size.or(config.console_size);
                spec::exec_process(&record_for_user, &config, &user, apparmor)
            })
            .await;
        self.exec_event(&exec, &format!("exec_start: {}", exec.command()), &[]);
        let request = match process {
            Ok(process) => ExecRequest {
                container: exec.container.id.clone(),
                exec: exec.id.clone(),
                process,
                attach_stdin: exec.config.attach_stdin,
            },
            Err(error) => {
                self.exec_ended(&exec, 126);
                return Err(error);
            }
        };
        let started = match self.runtime().exec(request).await {
            Ok(started) => started,
            Err(error) => {
                // 126 where docker knows no better.
                let code = match error.exit_code() {
                    127 => 127,
                    _ => 126,
                };
                self.exec_ended(&exec, code);
                return Err(error.into());
            }
        };
        {
            let mut cell = exec.cell();
            cell.running = true;
            cell.pid = started.pid;
        }
        exec.io.connect_with(&started.console, started.output);
        let engine = self.clone();
        let exit = started.exit;
        self.spawn(async move {
            tokio::select! {
                ExitInfo { code, .. } = exit.wait() => engine.exec_ended(&exec, code),
                () = engine.shutdown_started() => {}
            }
        });
        Ok(())
    }

    fn exec_ended(&self, exec: &Arc<Exec>, code: i32) {
        {
            let mut cell = exec.cell();
            cell.running = false;
            cell.pid = 0;
            cell.exit_code = Some(code);
            cell.ended = Some(Instant::now());
        }
        exec.io.end();
        exec.container.cell().execs.retain(|id| *id != exec.id);
        self.exec_event(exec, "exec_die", &[("exitCode", code.to_string())]);
    }

    fn exec_event(&self, exec: &Exec, action: &str, extra: &[(&str, String)]) {
        let mut all = vec![("execID", exec.id.to_string())];
        all.extend(extra.iter().map(|(key, value)| (*key, value.clone())));
        self.container_event(&exec.container, action, &all);
    }

    /// What became of an exec.
    ///
    /// # Errors
    /// Unknown exec.
    pub fn inspect_exec(&self, key: &str) -> Result<ExecInspect, EngineError> {
        let exec = self.execs().find(key)?;
        let cell = exec.cell();
        let config = &exec.config;
        let (entrypoint, arguments) = match config.cmd.split_first() {
            Some((first, rest)) => (first.clone(), rest.to_vec()),
            None => (String::new(), Vec::new()),
        };
        Ok(ExecInspect {
            id: exec.id.to_string(),
            running: cell.running,
            exit_code: cell.exit_code.map(i64::from),
            process_config: ExecProcessConfig {
                tty: config.tty,
                entrypoint,
                arguments,
                privileged: Some(config.privileged),
                user: config.user.clone(),
            },
            open_stdin: config.attach_stdin,
            open_stderr: config.attach_stderr,
            open_stdout: config.attach_stdout,
            can_remove: cell.ended.is_some(),
            container_id: exec.container.id.to_string(),
            detach_keys: config.detach_keys.clone(),
            pid: i64::from(cell.pid),
        })
    }

    /// The exit code of an exec whose output has ended; it may come a moment later.
    pub(crate) async fn exec_exit_code(&self, key: &str) -> Result<i64, EngineError> {
        let exec = self.execs().find(key)?;
        let mut state = exec.io.state();
        // The session lives as long as `exec`.
        let _ = state.wait_for(|state| matches!(state, IoState::Ended)).await;
        let code = exec.cell().exit_code;
        Ok(code.map_or(-1, i64::from))
    }

    /// What an exec would reach.
    ///
    /// # Errors
    /// Unknown exec.
    pub fn exec_target(&self, key: &str) -> Result<ExecTarget, EngineError> {
        let exec = self.execs().find(key)?;
        Ok(ExecTarget { container: exec.container.id.clone(), privileged: exec.config.privileged })
    }

    /// Tells an exec's terminal its size in characters.
    ///
    /// # Errors
    /// Unknown or not running exec; the monitor.
    pub async fn resize_exec(&self, key: &str, height: u16, width: u16) -> Result<(), EngineError> {
        let exec = self.execs().find(key)?;
        let console = exec
            .io
            .console()
            .ok_or_else(|| EngineError::Conflict(format!("exec {} is not running", exec.id)))?;
        match console.resize(height, width).await {
            // COMPAT: clients resize without asking whether there is a terminal.
            Ok(()) | Err(brig_runtime::ConsoleError::NoTerminal) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Drops the execs of a container that is gone.
    pub(crate) fn forget_execs(&self, container: &Container) {
        self.execs().lock().retain(|_, exec| exec.container.id != container.id);
    }
}

fn check_running(container: &Container) -> Result<(), EngineError> {
    let (status, name) = {
        let cell = container.cell();
        (cell.record.state.status, cell.record.name.clone())
    };
    match status {
        Status::Running => Ok(()),
        Status::Paused => Err(EngineError::Conflict(format!(
            "Container {name} is paused, unpause the container before exec"
        ))),
        Status::Restarting => Err(EngineError::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(EngineError::NotRunning(container.id.to_string())),
    }
}

/// The output of a process that could not be started: why.
fn failure_output(tty: bool, error: &EngineError) -> AttachedStreams {
    let (sender, output) = mpsc::channel(1);
    let bytes = Bytes::from(format!("{}\r\n", chain(error)));
    // The channel is new and has room.
    let _ = sender.try_send(OutputChunk { stream: StdStream::Stdout, bytes });
    AttachedStreams { tty, output, input: None }
}
