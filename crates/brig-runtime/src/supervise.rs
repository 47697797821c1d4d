//! Watching containers: one task for the exit files, one per container for its conmon.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use brig_sys::inotify::DirWatch;
use brig_sys::process;
use brig_types::error::chain;
use brig_types::id::ContainerId;
use brig_types::signal::Signal;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::exits::{self, ExitInfo};
use crate::runtime::Inner;

const MONITOR_LOST: &str = "the container's monitor process was killed; the container was stopped";
/// How long a process that got SIGKILL may take to go.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(10);
/// A process that takes longer is probably frozen.
const FROZEN_AFTER: Duration = Duration::from_millis(500);

/// A container that was created or adopted and not deleted yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) bundle: PathBuf,
    /// The container's first process.
    pub(crate) init: OwnedFd,
    pub(crate) conmon: OwnedFd,
    /// Its exit file may be there.
    exit_seen: Notify,
    /// It was deleted: its end is no news any more.
    pub(crate) deleted: CancellationToken,
}

impl Entry {
    pub(crate) fn new(bundle: PathBuf, init: OwnedFd, conmon: OwnedFd) -> Self {
        Self { bundle, init, conmon, exit_seen: Notify::new(), deleted: CancellationToken::new() }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Mutex<HashMap<ContainerId, Arc<Entry>>>,
}

impl Registry {
    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<Entry>> {
        self.lock().get(id).cloned()
    }

    pub(crate) fn insert(&self, id: ContainerId, entry: Arc<Entry>) {
        if let Some(old) = self.lock().insert(id, entry) {
            old.deleted.cancel();
        }
    }

    pub(crate) fn remove(&self, id: &ContainerId) -> Option<Arc<Entry>> {
        let entry = self.lock().remove(id);
        if let Some(entry) = &entry {
            entry.deleted.cancel();
        }
        entry
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Tells containers' tasks about exit files until the runtime stops.
    pub(crate) async fn watch_exits(self: Arc<Self>, mut watch: DirWatch) {
        loop {
            let name = tokio::select! {
                () = self.stop.cancelled() => return,
                name = watch.next() => name,
            };
            match name {
                Ok(name) => {
                    let entry = name
                        .to_str()
                        .and_then(|name| ContainerId::parse(name).ok())
                        .and_then(|id| self.registry.get(&id));
                    if let Some(entry) = entry {
                        entry.exit_seen.notify_one();
                    }
                }
                Err(error) => {
                    for entry in self.registry.all() {
                        entry.exit_seen.notify_one();
                    }
                    if !error.get_ref().is_some_and(|e| e.is::<brig_sys::inotify::Overflow>()) {
                        // Containers' ends are still noticed by their conmon's end.
                        tracing::error!(%error, "watching for exit files failed");
                        return;
                    }
                }
            }
        }
    }

    /// Has a container's exit file looked for, in case it was there before the watch.
    pub(crate) fn check_exit(&self, id: &ContainerId) {
        if let Some(entry) = self.registry.get(id) {
            entry.exit_seen.notify_one();
        }
    }

    /// Registers a container and watches it until it has ended or is deleted.
    pub(crate) fn watch(self: &Arc<Self>, id: ContainerId, entry: Entry) {
        let entry = Arc::new(entry);
        self.registry.insert(id.clone(), Arc::clone(&entry));
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                () = inner.stop.cancelled() => return,
                () = entry.deleted.cancelled() => return,
                ended = inner.wait_for_end(&id, &entry) => ended,
            };
            // Nobody listens: the daemon does not want to know.
            let _ = inner.exited.send((id, ended));
        });
    }

    async fn wait_for_end(&self, id: &ContainerId, entry: &Entry) -> ExitInfo {
        loop {
            let conmon_ended = tokio::select! {
                () = entry.exit_seen.notified() => false,
                ended = process::wait_exit(entry.conmon.as_fd()) => {
                    if let Err(error) = ended {
                        tracing::error!(%id, %error, "a container's monitor cannot be watched");
                    }
                    true
                }
            };
            match exits::read(&self.layout.exits, id, &entry.bundle) {
                Ok(Some(info)) => return info,
                Ok(None) => {}
                Err(error) => tracing::error!(%id, %error, "an exit file cannot be read"),
            }
            if conmon_ended {
                tracing::warn!(%id, "a container lost its monitor and is stopped");
                if let Err(error) = self.kill_and_wait(id, &entry.init).await {
                    tracing::error!(%id, %error, "a container without monitor cannot be stopped");
                }
                return ExitInfo::lost(MONITOR_LOST, &entry.bundle);
            }
        }
    }
}

impl Inner {
    /// Kills a container's first process, and with it the rest, and waits until it is gone.
    pub(crate) async fn kill_and_wait(&self, id: &ContainerId, init: &OwnedFd) -> io::Result<()> {
        match kill_and_wait(init, FROZEN_AFTER).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                // On version 1 control groups a frozen process does not even die.
                if let Err(error) = self.oci("resume", [id.as_str()]).await {
                    tracing::debug!(%id, error = chain(&error), "a container that does not die is not frozen");
                }
                kill_and_wait(init, KILL_LIMIT).await
            }
            answer => answer,
        }
    }
}

/// Kills a process and waits until it is gone.
pub(crate) async fn kill_and_wait(pidfd: &OwnedFd, limit: Duration) -> io::Result<()> {
    match process::send_signal(pidfd, Signal::KILL) {
        Ok(()) => {}
        Err(error) if process::is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    tokio::time::timeout(limit, process::wait_exit(pidfd.as_fd()))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
