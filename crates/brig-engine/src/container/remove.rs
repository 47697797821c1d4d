//! Removing containers and everything of theirs.

use std::sync::Arc;

use super::Container;
use super::record::MountKind;
use super::state::{Status, Transition};
use crate::disk;
use crate::engine::Engine;
use crate::error::EngineError;

/// How to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// A running container is killed first.
    pub force: bool,
    /// Volumes that were made for it without a name go too.
    pub volumes: bool,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// Unknown; running without `force`; being removed already; what could not be removed.
    pub async fn remove(&self, key: &str, options: RemoveOptions) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            engine.remove_locked(&container, options).await
        })
        .await
    }

    /// Removes with `op` held.
    pub(crate) async fn remove_locked(
        &self,
        container: &Arc<Container>,
        options: RemoveOptions,
    ) -> Result<(), EngineError> {
        let id = &container.id;
        let status = container.cell().record.state.status;
        match status {
            Status::Running | Status::Paused if options.force => {
                self.kill_locked(container).await?;
            }
            Status::Restarting if options.force => self.cancel_restart(container),
            Status::Running | Status::Restarting => {
                return Err(EngineError::RemoveRunning(id.clone()));
            }
            Status::Paused => {
                return Err(EngineError::Conflict(format!(
                    "You cannot remove a paused container {id}. Unpause and then stop the container before attempting removal or force remove"
                )));
            }
            Status::Created | Status::Exited | Status::Dead | Status::Removing => {}
        }
        // One that removes itself did so when it was killed.
        if container.phase.borrow().removed {
            container.wait_clean().await;
            return Ok(());
        }
        container.wait_clean().await;
        let name = {
            let mut cell = container.cell();
            cell.record.state.apply(Transition::Remove);
            // A daemon that goes on with a removal that was cut off does the same.
            cell.record.remove_volumes = options.volumes;
            cell.record.name.clone()
        };
        container.save();
        self.registry().remove(id, &name);
        self.container_event(container, "destroy", &[]);
        let exit_code = container.cell().record.state.exit_code;
        container.phase.send_modify(|phase| {
            phase.up = false;
            phase.removed = true;
            phase.exit_code = exit_code;
        });
        self.remove_remains(container, options.volumes).await;
        Ok(())
    }

    /// Deletes what is on disk of a container that nobody sees any more. What fails is logged and
    /// tried again at the next start of the engine.
    pub(crate) async fn remove_remains(&self, container: &Arc<Container>, volumes: bool) {
        let (engine, this) = (self.clone(), Arc::clone(container));
        let done = tokio::task::spawn_blocking(move || {
            let id = &this.id;
            for mount in this.record().mounts {
                if mount.kind == MountKind::Volume {
                    engine.volumes().release(&mount.name, id);
                    if mount.anonymous && volumes {
                        engine.remove_anonymous_volume(&mount.name);
                    }
                }
            }
            this.cell().io.end();
            if let Err(error) = engine.snapshots().remove(id) {
                tracing::warn!(container = %id, error = brig_types::error::chain(&error), "a container's files stay");
                return;
            }
            // Last: with the record there, the next start of the engine tries again.
            if let Err(error) = disk::remove_tree(&this.paths.dir) {
                tracing::warn!(container = %id, %error, "a container's directory stays");
            }
        })
        .await;
        if let Err(error) = done {
            tracing::error!(container = %container.id, %error, "a removal was interrupted");
        }
        self.forget_execs(container);
    }

    fn remove_anonymous_volume(&self, name: &str) {
        match self.volumes().remove(name) {
            Ok(()) => self.volume_event("destroy", name),
            // Another container uses it by `--volumes-from`.
            Err(EngineError::VolumeInUse { .. } | EngineError::NoSuchVolume(_)) => {}
            Err(error) => {
                tracing::warn!(
                    volume = name,
                    error = brig_types::error::chain(&error),
                    "an anonymous volume stays"
                );
            }
        }
    }
}
