//! What follows when a container's process ends: the state changes, waiters hear of it, and only
//! then is the run taken apart.

use std::sync::Arc;

use brig_runtime::ExitInfo;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::Container;
use super::health::HealthState;
use super::io::IoSession;
use super::record::MountKind;
use super::restart_policy::Policy;
use super::state::{Status, Transition};
use crate::engine::Engine;
use crate::events::kind;

/// What the end of a run leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Stay,
    Restart(std::time::Duration),
    Remove,
}

impl Engine {
    /// The process of `container` ended.
    pub(crate) fn container_exited(&self, container: &Arc<Container>, exit: ExitInfo) {
        let restart_wait = CancellationToken::new();
        let after = {
            let mut cell = container.cell();
            if cell.starting {
                // The start is still being recorded; it looks here when it is done.
                cell.early_exit = Some(exit);
                return;
            }
            if !cell.record.state.status.has_process() {
                return;
            }
            let run = cell.run.take();
            let ran = run.as_ref().map_or(std::time::Duration::ZERO, |run| run.began.elapsed());
            if let Some(run) = run {
                run.cancel.cancel();
            }
            let policy =
                Policy::parse(&cell.record.host_config.restart_policy).unwrap_or(Policy::No);
            let record = &cell.record;
            let restarts = policy.restarts(exit.code, record.stopped_by_hand, record.restart_count)
                && !self.is_shutting_down();
            let removes = record.host_config.auto_remove && !cell.stays;
            let after = match (restarts, removes) {
                (true, _) => After::Restart(cell.backoff.next(ran)),
                (false, true) => After::Remove,
                (false, false) => After::Stay,
            };
            let state = &mut cell.record.state;
            state.exit_code = exit.code;
            state.oom_killed = exit.oom;
            state.finished_at = Some(OffsetDateTime::now_utc());
            let transition = match after {
                After::Restart(_) => Transition::ExitAndRestart,
                After::Stay | After::Remove => Transition::Exit,
            };
            state.apply(transition);
            if after == After::Remove {
                state.apply(Transition::Remove);
            }
            if let After::Restart(_) = after {
                cell.record.restart_count += 1;
                cell.restart_wait = Some(restart_wait.clone());
            }
            // COMPAT: what the checks found stays to be seen, as docker has it: nobody checks any
            // more, so it counts as unhealthy.
            cell.record.last_health = cell.health.take().map(HealthState::at_the_end);
            std::mem::replace(&mut cell.io, IoSession::new()).end();
            container.phase.send_modify(|phase| phase.clean = false);
            after
        };
        if after == After::Remove {
            // The name is free and the container no longer listed before anybody is told.
            self.registry().remove(&container.id, &container.name());
        }
        if exit.oom {
            self.container_event(container, "oom", &[]);
        }
        self.container_event(container, "die", &[("exitCode", exit.code.to_string())]);
        self.network_events(container, "disconnect");
        if after == After::Remove {
            self.container_event(container, "destroy", &[]);
        } else {
            // Not flushed: after a loss of power the container is down anyway.
            container.save();
        }
        {
            // Under the lock: a restart that was called off meanwhile must not show as up.
            let cell = container.cell();
            container.phase.send_modify(|phase| {
                phase.up = cell.record.state.status.is_up();
                phase.ended_runs += 1;
                phase.exit_code = exit.code;
                phase.error.clear();
                phase.removed = after == After::Remove;
            });
        }
        let (engine, container) = (self.clone(), Arc::clone(container));
        self.spawn(async move {
            engine.tear_down(&container).await;
            match after {
                After::Stay => {}
                After::Remove => engine.remove_remains(&container, true).await,
                After::Restart(wait) => engine.restart_later(container, wait, restart_wait).await,
            }
        });
    }

    /// Starts a container again after its wait, unless that is cancelled.
    pub(crate) async fn restart_later(
        &self,
        container: Arc<Container>,
        wait: std::time::Duration,
        cancel: CancellationToken,
    ) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => return,
            () = self.shutdown_started() => return,
        }
        let _op = container.op.lock().await;
        let waiting = container.cell().record.state.status == Status::Restarting;
        if !waiting || cancel.is_cancelled() || self.is_shutting_down() {
            return;
        }
        if let Err(error) = self.start_locked(&container, Default::default(), true).await {
            tracing::warn!(
                container = %container.id,
                error = brig_types::error::chain(&error),
                "an automatic start failed"
            );
        }
    }

    /// Takes a run apart: network, runtime state, mounts. Everything is tried, failures are
    /// logged; at the end the container is clean for its next start or its removal.
    pub(crate) async fn tear_down(&self, container: &Arc<Container>) {
        let guard = self.teardown_begun();
        let id = &container.id;
        self.release_network(container).await;
        if let Err(error) = self.runtime().delete(id, true).await {
            tracing::warn!(container = %id, error = brig_types::error::chain(&error), "runtime state stays");
        }
        let (engine, this) = (self.clone(), Arc::clone(container));
        let unmounted = tokio::task::spawn_blocking(move || engine.release_mounts(&this)).await;
        if let Err(error) = unmounted {
            tracing::error!(container = %id, %error, "releasing mounts was interrupted");
        }
        container.phase.send_modify(|phase| phase.clean = true);
        drop(guard);
    }

    /// Unmounts the root file system and lets go of volumes. Blocking.
    pub(crate) fn release_mounts(&self, container: &Container) {
        let id = &container.id;
        if let Err(error) = self.snapshots().unmount(id, &container.paths.rootfs) {
            tracing::warn!(container = %id, error = brig_types::error::chain(&error), "the root file system stays mounted");
        }
        if let Err(error) = super::stage::release_subpaths(&container.paths.subpaths) {
            tracing::warn!(container = %id, %error, "a part of a volume stays mounted");
        }
        if let Err(error) = self.lender().end(id) {
            tracing::warn!(container = %id, %error, "a lent socket's file stays");
        }
        let shm = container.paths.shm();
        if brig_sys::mount::is_mountpoint(&shm).unwrap_or(false)
            && let Err(error) = brig_sys::mount::unmount(&shm, true)
        {
            tracing::warn!(container = %id, %error, "shared memory stays mounted");
        }
        for dir in [&container.paths.bundle, &container.paths.rootfs] {
            // The bundle may hold files; the mount point must be empty, so only rmdir it.
            let result = if dir == &container.paths.rootfs {
                match std::fs::remove_dir(dir) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    result => result,
                }
            } else {
                crate::disk::remove_tree(dir)
            };
            if let Err(error) = result {
                tracing::warn!(container = %id, dir = %dir.display(), %error, "a directory stays");
            }
        }
        for mount in container.record().mounts {
            if mount.kind == MountKind::Volume {
                self.volumes().deactivate(&mount.name, id);
                self.events().emit(
                    kind::VOLUME,
                    "unmount",
                    &mount.name,
                    [
                        ("container".to_owned(), id.to_string()),
                        ("driver".to_owned(), crate::volumes::LOCAL_DRIVER.to_owned()),
                    ]
                    .into(),
                );
            }
        }
    }
}
