//! Secrets. Their data goes in and never comes out here again.

use std::sync::Arc;

use brig_proto::swarm::{Secret, SecretSpec};
use brig_store::Index;
use brig_types::id::SecretId;
use brig_types::name;

use super::{Control, check_unused, check_version, find, name_of, only_labels_differ};
use crate::error::ControlError;
use crate::validate::service::invalid;

/// Data must be smaller than this many bytes.
const MAX_SECRET: usize = 500 * 1024;

impl Control {
    /// All secrets, without data.
    #[must_use]
    pub fn secrets(&self) -> Vec<Arc<Secret>> {
        let view = self.store.view();
        view.all::<Secret>().map(|secret| Arc::new(without_data(secret))).collect()
    }

    /// A secret by id, name or id prefix, without data.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub fn secret(&self, reference: &str) -> Result<Arc<Secret>, ControlError> {
        let view = self.store.view();
        let secret = find::<Secret>(&view, "secret", reference, secret_name)?;
        Ok(Arc::new(without_data(&secret)))
    }

    /// Stores a secret and returns its id.
    ///
    /// # Errors
    /// [`ControlError::InvalidArgument`], [`ControlError::AlreadyExists`].
    pub async fn create_secret(&self, spec: SecretSpec) -> Result<String, ControlError> {
        let name = name_of(spec.annotations.as_ref());
        name::secret_name(name).map_err(|error| invalid(error.to_string()))?;
        if spec.driver.is_some() {
            return Err(ControlError::NotImplemented(
                "secret drivers are not supported".to_owned(),
            ));
        }
        if spec.data.is_empty() || spec.data.len() >= MAX_SECRET {
            return Err(invalid(format!(
                "secret data must be larger than 0 and less than {MAX_SECRET} bytes"
            )));
        }
        let id = SecretId::generate().to_string();
        let secret = Secret { id: id.clone(), spec: Some(spec), ..Secret::default() };
        self.store.update(|tx| tx.create(secret).map_err(ControlError::from)).await?;
        Ok(id)
    }

    /// Changes a secret's labels.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`]; [`ControlError::InvalidArgument`] when anything else would
    /// change.
    pub async fn update_secret(
        &self,
        id: &str,
        version: u64,
        spec: SecretSpec,
    ) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let mut secret = (*find::<Secret>(tx, "secret", id, secret_name)?).clone();
                check_version(&secret, version)?;
                let old = secret.spec.get_or_insert_default();
                let same_data = spec.data.is_empty() || spec.data == old.data;
                if !same_data
                    || !only_labels_differ(old.annotations.as_ref(), spec.annotations.as_ref())
                {
                    return Err(invalid("only updates to Labels are allowed"));
                }
                old.annotations.clone_from(&spec.annotations);
                tx.update(secret)?;
                Ok(())
            })
            .await
    }

    /// Removes a secret that no service uses.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]; [`ControlError::InvalidArgument`] when it is in use.
    pub async fn remove_secret(&self, reference: &str) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let secret = find::<Secret>(tx, "secret", reference, secret_name)?;
                check_unused(tx, Index::Secret, "secret", &secret.id, secret_name(&secret))?;
                tx.delete::<Secret>(&secret.id)?;
                Ok(())
            })
            .await
    }
}

fn secret_name(secret: &Secret) -> &str {
    name_of(secret.spec.as_ref().and_then(|spec| spec.annotations.as_ref()))
}

/// A copy without the data; the data itself is not copied.
fn without_data(secret: &Secret) -> Secret {
    let spec = secret.spec.as_ref().map(|spec| {
        let mut copy = SecretSpec::default();
        copy.annotations.clone_from(&spec.annotations);
        copy.templating.clone_from(&spec.templating);
        copy.driver.clone_from(&spec.driver);
        copy
    });
    Secret { id: secret.id.clone(), meta: secret.meta, spec, internal: secret.internal }
}
