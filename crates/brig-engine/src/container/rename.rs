//! Giving a container another name.

use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Renames a container; names on its networks follow.
    ///
    /// # Errors
    /// Unknown container, bad or taken name; disk.
    pub async fn rename(&self, key: &str, new_name: &str) -> Result<(), EngineError> {
        if new_name.is_empty() {
            return Err(EngineError::Invalid("Neither old nor new names may be empty".to_owned()));
        }
        let container = self.registry().find(key)?;
        let new = brig_types::name::container_name(new_name)
            .map_err(|error| {
                EngineError::Invalid(format!("Error when allocating new name: {error}"))
            })?
            .to_owned();
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            let old = container.name();
            if old == new {
                return Err(EngineError::Invalid(
                    "Renaming a container with the same name as its current name".to_owned(),
                ));
            }
            engine
                .registry()
                .reserve(Some(&new), &container.id)
                .map_err(|error| EngineError::Rename(Box::new(error)))?;
            let mut record = container.record();
            record.name.clone_from(&new);
            let dir = container.paths.dir.clone();
            let saved = engine.blocking(move || {
                record
                    .save(&dir, record.durability())
                    .map_err(|source| EngineError::disk("write", &dir, source))
            });
            if let Err(error) = saved.await {
                engine.registry().release(&new, &container.id);
                return Err(error);
            }
            container.cell().record.name.clone_from(&new);
            engine.registry().release(&old, &container.id);
            engine.rename_on_networks(&container, &new).await;
            engine.container_event(&container, "rename", &[("oldName", format!("/{old}"))]);
            Ok(())
        })
        .await
    }
}
