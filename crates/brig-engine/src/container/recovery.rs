//! What an engine does about the containers that an earlier one left: the running ones are taken
//! over, the ends that nobody saw are recorded, half-made and half-removed ones are cleared.
//!
//! Whatever moment the earlier engine died at, the record is one of a few and the runtime knows
//! the truth about processes: the two together decide.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use brig_runtime::{Adopted, ContainerRecord, ExitInfo};
use brig_types::error::chain;
use brig_types::id::ContainerId;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use super::record::{MountKind, Record};
use super::restart_policy::Policy;
use super::state::{Status, Transition};
use super::{Container, Run};
use crate::disk;
use crate::engine::Engine;
use crate::error::EngineError;

/// The exit code of a process that ended without a trace.
const LOST_EXIT_CODE: i32 = 255;

/// What is found in the containers' directory.
#[derive(Debug, Default)]
struct Found {
    containers: Vec<Arc<Container>>,
    /// Directories whose record cannot be read: left alone, their files too.
    unreadable: BTreeSet<ContainerId>,
}

impl Engine {
    /// Hands the ends of containers to them, for as long as the engine lives.
    pub(crate) fn watch_exits(&self) -> Result<(), EngineError> {
        let mut exits = self.runtime().exits().ok_or_else(|| {
            EngineError::system("watch containers", io::ErrorKind::AlreadyExists.into())
        })?;
        let engine = self.clone();
        self.spawn(async move {
            loop {
                let next = tokio::select! {
                    next = exits.next() => next,
                    () = engine.shutdown_started() => None,
                };
                let Some((id, exit)) = next else { return };
                if let Some(container) = engine.registry().get(&id) {
                    engine.container_exited(&container, exit);
                }
            }
        });
        Ok(())
    }

    /// Takes over what there is. Containers that should run are started in the background.
    pub(crate) async fn recover(&self) -> Result<(), EngineError> {
        let engine = self.clone();
        let found = self.blocking(move || engine.load_records()).await?;
        let mut adoptions = JoinSet::new();
        for container in &found.containers {
            let (engine, container) = (self.clone(), Arc::clone(container));
            adoptions.spawn(async move { engine.adopt(&container).await });
        }
        while let Some(result) = adoptions.join_next().await {
            if let Err(error) = result {
                tracing::error!(%error, "a container's recovery was interrupted");
            }
        }
        let running: Vec<(ContainerId, i32)> = found
            .containers
            .iter()
            .filter_map(|container| {
                let process = container.cell().record.state.process?;
                Some((container.id.clone(), process.pid))
            })
            .collect();
        for (id, error) in self.networks().reattach(running).await? {
            tracing::warn!(container = %id, error = chain(&error), "a container's network was not taken over");
        }
        let engine = self.clone();
        let orphans = self.blocking(move || {
            engine.clear_orphans(&found);
            Ok(found)
        });
        for container in orphans.await?.containers {
            self.resume(&container);
        }
        Ok(())
    }

    /// Reads all records and makes them known. Blocking.
    fn load_records(&self) -> Result<Found, EngineError> {
        let root = self.containers_dir();
        let failed = |source| EngineError::disk("read", &root, source);
        let mut found = Found::default();
        for item in std::fs::read_dir(&root).map_err(failed)? {
            let dir = item.map_err(failed)?.path();
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(id) = ContainerId::parse(&name) else {
                tracing::warn!(dir = %dir.display(), "not a container's directory");
                continue;
            };
            match Record::load(&dir) {
                Ok(record) if record.id == id => {
                    let Some(container) = self.insert_recovered(record) else {
                        found.unreadable.insert(id);
                        continue;
                    };
                    found.containers.push(container);
                }
                // The record is written when everything else is there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Err(error) = disk::remove_tree(&dir) {
                        tracing::warn!(dir = %dir.display(), %error, "a half-made container stays");
                    }
                }
                Ok(_) | Err(_) => {
                    tracing::error!(dir = %dir.display(), "a container's record cannot be read; its files are left alone");
                    found.unreadable.insert(id);
                }
            }
        }
        Ok(found)
    }

    fn insert_recovered(&self, record: Record) -> Option<Arc<Container>> {
        let id = record.id.clone();
        if record.state.status != Status::Removing
            && let Err(error) = self.registry().reserve(Some(&record.name), &id)
        {
            tracing::error!(container = %id, error = chain(&error), "two containers have one name");
            return None;
        }
        let paths = self.paths(&id);
        // Before any of them is released, so that a volume's own mount goes with its last user and
        // not earlier.
        let ran = record.state.process.is_some() || paths.bundle.exists() || paths.rootfs.exists();
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            if let Err(error) = self.volumes().acquire(&mount.name, &id) {
                tracing::warn!(container = %id, error = chain(&error), "a volume of a container is gone");
            }
            if ran {
                self.volumes().note_active(&mount.name, &id);
            }
        }
        let listed = record.state.status != Status::Removing;
        let container = Container::new(record, paths);
        if listed {
            self.registry().insert(id, Arc::clone(&container));
        }
        Some(container)
    }

    /// Finds out what became of one container and brings its record in line.
    async fn adopt(&self, container: &Arc<Container>) {
        let (record, process) = {
            let cell = container.cell();
            (cell.record.clone(), cell.record.state.process)
        };
        if let Some(process) = process {
            let facts = ContainerRecord {
                bundle: container.paths.bundle.clone(),
                pid: process.pid,
                pid_start: process.pid_start,
                conmon_pid: process.conmon_pid,
                conmon_start: process.conmon_start,
                tty: record.config.tty,
                open_stdin: record.config.open_stdin,
                stdin_once: record.config.stdin_once && !record.config.tty,
            };
            match self.runtime().recover(&container.id, facts).await {
                Ok(Adopted::Running { console, paused }) => {
                    self.adopted(container, console, paused);
                    return;
                }
                Ok(Adopted::Exited(exit)) => self.note_exit(container, &exit),
                Ok(Adopted::Lost { reason }) => {
                    let exit = ExitInfo {
                        code: LOST_EXIT_CODE,
                        oom: false,
                        at: OffsetDateTime::now_utc(),
                        reason: Some(reason),
                    };
                    self.note_exit(container, &exit);
                }
                Err(error) => {
                    tracing::error!(container = %container.id, error = chain(&error), "a container cannot be taken over");
                    let exit = ExitInfo {
                        code: LOST_EXIT_CODE,
                        oom: false,
                        at: OffsetDateTime::now_utc(),
                        reason: Some(chain(&error)),
                    };
                    self.note_exit(container, &exit);
                }
            }
        } else if !container.paths.bundle.exists() && !container.paths.rootfs.exists() {
            // Nothing was under way: the one is made first, the other removed last.
            return;
        } else {
            // An earlier engine died between the beginning of a start and its record.
            let facts = ContainerRecord {
                bundle: container.paths.bundle.clone(),
                pid: 0,
                pid_start: 0,
                conmon_pid: 0,
                conmon_start: 0,
                tty: record.config.tty,
                open_stdin: record.config.open_stdin,
                stdin_once: record.config.stdin_once,
            };
            if let Err(error) = self.runtime().recover(&container.id, facts).await {
                tracing::warn!(container = %container.id, error = chain(&error), "a half-started container cannot be cleared");
            }
        }
        if let Err(error) = self.runtime().delete(&container.id, true).await {
            tracing::warn!(container = %container.id, error = chain(&error), "runtime state stays");
        }
        let (engine, this) = (self.clone(), Arc::clone(container));
        let released = tokio::task::spawn_blocking(move || engine.release_mounts(&this)).await;
        if let Err(error) = released {
            tracing::error!(%error, "releasing mounts was interrupted");
        }
    }

    fn adopted(&self, container: &Arc<Container>, console: brig_runtime::Console, paused: bool) {
        if let Err(error) = self.take_socket_back(container) {
            tracing::error!(
                container = %container.id, %error,
                "a container's socket of the engine was not taken over: restart the container"
            );
        }
        let cancel = self.child_token();
        {
            let mut cell = container.cell();
            cell.record.state.status = if paused { Status::Paused } else { Status::Running };
            cell.io.connect(&console);
            cell.run =
                Some(Run { console, cancel: cancel.clone(), began: tokio::time::Instant::now() });
        }
        self.accompany(container, cancel);
    }

    /// The socket that a container was lent listens as long as its conmon lives.
    fn take_socket_back(&self, container: &Arc<Container>) -> io::Result<()> {
        let record = container.record();
        let (Some(access), Some(process)) =
            (&record.host_config.engine_access, record.state.process)
        else {
            return Ok(());
        };
        let kept = self.runtime().kept(process.conmon_pid, process.conmon_start)?;
        self.lender().adopt(&container.id, access, kept)
    }

    /// Records an end that happened while no engine ran.
    fn note_exit(&self, container: &Arc<Container>, exit: &ExitInfo) {
        {
            let mut cell = container.cell();
            let state = &mut cell.record.state;
            state.exit_code = exit.code;
            state.oom_killed = exit.oom;
            state.finished_at = Some(exit.at);
            state.error = exit.reason.clone().unwrap_or_default();
            state.apply(Transition::Exit);
        }
        container.save();
        self.container_event(container, "die", &[("exitCode", exit.code.to_string())]);
        self.network_events(container, "disconnect");
        container.phase.send_modify(|phase| {
            phase.up = false;
            phase.exit_code = exit.code;
        });
    }

    /// Unmounts and deletes what belongs to no container. Blocking.
    fn clear_orphans(&self, found: &Found) {
        let known: BTreeSet<&ContainerId> = found
            .containers
            .iter()
            .map(|container| &container.id)
            .chain(&found.unreadable)
            .collect();
        for part in ["rootfs", "bundles"] {
            let root = self.config().exec_root.join(part);
            let Ok(items) = std::fs::read_dir(&root) else { continue };
            for item in items.flatten() {
                let name = item.file_name().to_string_lossy().into_owned();
                let Ok(id) = ContainerId::parse(&name) else { continue };
                if known.contains(&id) {
                    continue;
                }
                let path = item.path();
                if let Err(error) = self.snapshots().unmount(&id, &path) {
                    tracing::warn!(path = %path.display(), error = chain(&error), "an orphaned mount stays");
                    continue;
                }
                // Never below a mount point: that would delete what is mounted there.
                let removed = if part == "rootfs" {
                    std::fs::remove_dir(&path)
                } else {
                    disk::remove_tree(&path)
                };
                if let Err(error) = removed {
                    tracing::warn!(path = %path.display(), %error, "an orphaned directory stays");
                }
            }
        }
        self.lender().clear(|id| known.contains(id));
        self.volumes().remove_unowned(|id| known.contains(id));
        for id in self.snapshots().list() {
            if !known.contains(&id)
                && let Err(error) = self.snapshots().remove(&id)
            {
                tracing::warn!(container = %id, error = chain(&error), "an orphaned layer stays");
            }
        }
    }

    /// Goes on with what a container's record says should happen.
    fn resume(&self, container: &Arc<Container>) {
        let (status, remove, start) = {
            let mut cell = container.cell();
            let record = &mut cell.record;
            let status = record.state.status;
            let policy = Policy::parse(&record.host_config.restart_policy).unwrap_or(Policy::No);
            // One that was never started is not to be, whatever its policy.
            let start = !status.has_process()
                && matches!(status, Status::Exited | Status::Restarting)
                && record.state.started_at.is_some()
                && policy.starts_with_daemon(
                    record.state.exit_code,
                    record.stopped_by_hand,
                    record.restart_count,
                );
            if status == Status::Restarting && !start {
                record.state.apply(Transition::CancelRestart);
            }
            // One that removes itself has ended; one that was only created may still be started.
            let remove = status == Status::Removing
                || (status == Status::Exited && record.host_config.auto_remove);
            (status, remove, start)
        };
        let (engine, container) = (self.clone(), Arc::clone(container));
        if remove {
            let volumes = {
                let record = &container.cell().record;
                record.host_config.auto_remove || record.remove_volumes
            };
            if status != Status::Removing {
                container.cell().record.state.apply(Transition::Remove);
                self.registry().remove(&container.id, &container.name());
                self.container_event(&container, "destroy", &[]);
            }
            self.spawn(async move { engine.remove_remains(&container, volumes).await });
        } else if start {
            if status == Status::Exited {
                container.cell().record.restart_count = 0;
            }
            self.spawn(async move {
                let _op = container.op.lock().await;
                if let Err(error) = engine.start_locked(&container, Default::default(), true).await {
                    tracing::warn!(container = %container.id, error = chain(&error), "a container that should run was not started");
                }
            });
        } else if status == Status::Restarting {
            container.phase.send_modify(|phase| phase.up = false);
            container.save();
        }
    }
}
