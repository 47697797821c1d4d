//! Configs: files for services that are no secret.

use std::sync::Arc;

use brig_proto::swarm::{Config, ConfigSpec};
use brig_store::Index;
use brig_types::id::ConfigId;
use brig_types::name;

use super::{Control, check_unused, check_version, find, name_of, only_labels_differ};
use crate::error::ControlError;
use crate::validate::service::invalid;

/// Data must be smaller than this many bytes.
const MAX_CONFIG: usize = 1000 * 1024;

impl Control {
    /// All configs.
    #[must_use]
    pub fn configs(&self) -> Vec<Arc<Config>> {
        self.store.view().all::<Config>().cloned().collect()
    }

    /// A config by id, name or id prefix.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub fn config(&self, reference: &str) -> Result<Arc<Config>, ControlError> {
        find(&self.store.view(), "config", reference, config_name)
    }

    /// Stores a config and returns its id.
    ///
    /// # Errors
    /// [`ControlError::InvalidArgument`], [`ControlError::AlreadyExists`].
    pub async fn create_config(&self, spec: ConfigSpec) -> Result<String, ControlError> {
        let name = name_of(spec.annotations.as_ref());
        name::secret_name(name).map_err(|error| invalid(error.to_string()))?;
        if spec.data.is_empty() || spec.data.len() >= MAX_CONFIG {
            return Err(invalid(format!(
                "config data must be larger than 0 and less than {MAX_CONFIG} bytes"
            )));
        }
        let id = ConfigId::generate().to_string();
        let config = Config { id: id.clone(), spec: Some(spec), ..Config::default() };
        self.store.update(|tx| tx.create(config).map_err(ControlError::from)).await?;
        Ok(id)
    }

    /// Changes a config's labels.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`]; [`ControlError::InvalidArgument`] when anything else would
    /// change.
    pub async fn update_config(
        &self,
        id: &str,
        version: u64,
        spec: ConfigSpec,
    ) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let mut config = (*find::<Config>(tx, "config", id, config_name)?).clone();
                check_version(&config, version)?;
                let old = config.spec.get_or_insert_default();
                let same_data = spec.data.is_empty() || spec.data == old.data;
                if !same_data
                    || !only_labels_differ(old.annotations.as_ref(), spec.annotations.as_ref())
                {
                    return Err(invalid("only updates to Labels are allowed"));
                }
                old.annotations.clone_from(&spec.annotations);
                tx.update(config)?;
                Ok(())
            })
            .await
    }

    /// Removes a config that no service uses.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]; [`ControlError::InvalidArgument`] when it is in use.
    pub async fn remove_config(&self, reference: &str) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let config = find::<Config>(tx, "config", reference, config_name)?;
                check_unused(tx, Index::Config, "config", &config.id, config_name(&config))?;
                tx.delete::<Config>(&config.id)?;
                Ok(())
            })
            .await
    }
}

fn config_name(config: &Config) -> &str {
    name_of(config.spec.as_ref().and_then(|spec| spec.annotations.as_ref()))
}
