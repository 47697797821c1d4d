//! Finding containers again after the daemon was away.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use brig_sys::process;
use brig_types::id::ContainerId;

use crate::conmon;
use crate::console::{Console, ConsoleMode};
use crate::control::OciStatus;
use crate::error::RuntimeError;
use crate::exits::{self, ExitInfo};
use crate::runtime::{Inner, Runtime};
use crate::supervise::Entry;

const UNWATCHED: &str = "the container's monitor process was killed while the daemon was away; the container was \
     stopped";
const NEVER_STARTED: &str = "the daemon was stopped before the container was started";
const GONE: &str = "the container's processes are gone";
/// How long conmon may take to write the exit file of a container that has ended.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// What the daemon wrote down about a container.
#[derive(Clone, Debug)]
pub struct ContainerRecord {
    /// Its bundle.
    pub bundle: PathBuf,
    /// [`crate::Created::pid`]; 0 when the daemon went away while it was created.
    pub pid: i32,
    /// [`crate::Created::pid_start`].
    pub pid_start: u64,
    /// [`crate::Created::conmon_pid`].
    pub conmon_pid: i32,
    /// [`crate::Created::conmon_start`].
    pub conmon_start: u64,
    /// As in [`crate::CreateRequest`].
    pub tty: bool,
    /// As in [`crate::CreateRequest`].
    pub open_stdin: bool,
    /// As in [`crate::CreateRequest`].
    pub stdin_once: bool,
}

/// What became of a container.
#[derive(Debug)]
pub enum Adopted {
    /// It runs, is watched again, and its output from now on can be subscribed to. What it wrote
    /// meanwhile is in its log.
    Running {
        /// Its streams.
        console: Console,
        /// Whether it is frozen.
        paused: bool,
    },
    /// It ended. [`Runtime::delete`] it when that is written down.
    Exited(ExitInfo),
    /// Nothing of it is left, and how it ended is not known.
    Lost {
        /// Why.
        reason: String,
    },
}

impl Runtime {
    /// What was given to a container's conmon to keep ([`crate::CreateRequest::keep`]).
    ///
    /// # Errors
    /// conmon is gone, holds nothing, or the kernel does not let us have it.
    pub fn kept(
        &self,
        conmon_pid: i32,
        conmon_start: u64,
    ) -> std::io::Result<std::os::fd::OwnedFd> {
        process::take_copy(conmon_pid, conmon_start, conmon::KEPT_FD)
    }

    /// Looks for a container that this or an earlier daemon created. One that cannot go on, because
    /// nobody watches it or because it was never started, is stopped and deleted. Goes on to its
    /// end even if the caller does not wait for it.
    ///
    /// # Errors
    /// When the OCI runtime or the kernel fail; try again.
    pub async fn recover(
        &self,
        id: &ContainerId,
        record: ContainerRecord,
    ) -> Result<Adopted, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let id = id.clone();
        self.detached(async move { inner.recover(&id, record).await }).await
    }
}

impl Inner {
    async fn recover(
        self: Arc<Self>,
        id: &ContainerId,
        record: ContainerRecord,
    ) -> Result<Adopted, RuntimeError> {
        if let Some(info) = self.exit_of(id, &record)? {
            return Ok(Adopted::Exited(info));
        }
        if record.pid <= 0 {
            // Between the intent and the answer of conmon.
            conmon::end(&record.bundle, id.as_str())
                .await
                .map_err(|e| RuntimeError::system("stopping what creates the container", e))?;
            self.delete(id, true).await?;
            return Ok(Adopted::Lost { reason: NEVER_STARTED.to_owned() });
        }
        let init = process::pidfd_of(record.pid, record.pid_start).ok();
        let conmon = process::pidfd_of(record.conmon_pid, record.conmon_start).ok();
        match (conmon, init) {
            (Some(conmon), Some(init)) => self.adopt(id, &record, conmon, init).await,
            (Some(conmon), None) => {
                // It has ended and conmon is about to say so.
                let end = process::wait_exit(conmon.as_fd());
                let _ = tokio::time::timeout(EXIT_LIMIT, end).await;
                self.ended_or_lost(id, &record).await
            }
            (None, Some(init)) => {
                self.kill_and_wait(id, &init)
                    .await
                    .map_err(|e| RuntimeError::system("stopping an unwatched container", e))?;
                self.delete(id, true).await?;
                Ok(Adopted::Exited(ExitInfo::lost(UNWATCHED, &record.bundle)))
            }
            (None, None) => self.ended_or_lost(id, &record).await,
        }
    }

    async fn adopt(
        self: &Arc<Self>,
        id: &ContainerId,
        record: &ContainerRecord,
        conmon: std::os::fd::OwnedFd,
        init: std::os::fd::OwnedFd,
    ) -> Result<Adopted, RuntimeError> {
        let mode = ConsoleMode {
            tty: record.tty,
            open_stdin: record.open_stdin,
            stdin_once: record.stdin_once,
        };
        let paused = match self.state(id).await?.map(|state| state.status) {
            Some(OciStatus::Running) => false,
            Some(OciStatus::Paused) => true,
            Some(OciStatus::Stopped) => {
                let end = process::wait_exit(conmon.as_fd());
                let _ = tokio::time::timeout(EXIT_LIMIT, end).await;
                return self.ended_or_lost(id, record).await;
            }
            Some(OciStatus::Creating | OciStatus::Created) | None => {
                // It has no network and no secrets yet; only its creator could finish it.
                self.delete(id, true).await?;
                let end = process::wait_exit(conmon.as_fd());
                let _ = tokio::time::timeout(EXIT_LIMIT, end).await;
                exits::forget(&self.layout.exits, id);
                return Ok(Adopted::Lost { reason: NEVER_STARTED.to_owned() });
            }
        };
        let console = Console::connect(&record.bundle, mode, &self.tasks, &self.stop)
            .unwrap_or_else(|error| {
                // It is ending right now, which will be reported.
                tracing::debug!(%id, %error, "a container's streams are closed already");
                Console::ended(&record.bundle, mode)
            });
        self.watch(id.clone(), Entry::new(record.bundle.clone(), init, conmon));
        // It may have ended before the watch began.
        self.check_exit(id);
        Ok(Adopted::Running { console, paused })
    }

    async fn ended_or_lost(
        &self,
        id: &ContainerId,
        record: &ContainerRecord,
    ) -> Result<Adopted, RuntimeError> {
        if let Some(info) = self.exit_of(id, record)? {
            return Ok(Adopted::Exited(info));
        }
        self.delete(id, true).await?;
        Ok(Adopted::Lost { reason: GONE.to_owned() })
    }

    fn exit_of(
        &self,
        id: &ContainerId,
        record: &ContainerRecord,
    ) -> Result<Option<ExitInfo>, RuntimeError> {
        exits::read(&self.layout.exits, id, &record.bundle)
            .map_err(|e| RuntimeError::file("reading the exit file of", &record.bundle, e))
    }
}
