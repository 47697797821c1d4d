//! Freezing and thawing a container's processes.

use super::state::{Status, Transition};
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// Not running or paused already; runtime.
    pub async fn pause(&self, key: &str) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            let status = container.cell().record.state.status;
            match status {
                Status::Running => {}
                Status::Paused => {
                    return Err(EngineError::Conflict(format!(
                        "Container {} is already paused",
                        container.id
                    )));
                }
                Status::Restarting => {
                    return Err(EngineError::Conflict(format!(
                        "Container {} is restarting, wait until the container is running",
                        container.id
                    )));
                }
                _ => return Err(EngineError::NotRunning(container.id.to_string())),
            }
            engine.runtime().pause(&container.id).await?;
            container.cell().record.state.apply(Transition::Pause);
            container.save();
            engine.container_event(&container, "pause", &[]);
            Ok(())
        })
        .await
    }

    /// Thaws them.
    ///
    /// # Errors
    /// Not paused; runtime.
    pub async fn unpause(&self, key: &str) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            if container.cell().record.state.status != Status::Paused {
                return Err(EngineError::NotPaused(container.id.to_string()));
            }
            engine.runtime().resume(&container.id).await?;
            container.cell().record.state.apply(Transition::Unpause);
            container.save();
            engine.container_event(&container, "unpause", &[]);
            Ok(())
        })
        .await
    }
}
