//! Who may reach the cluster from elsewhere: one object, sealed like every other, that managers
//! share. What is in it is the daemon's business.

use std::sync::Arc;

use brig_proto::brig::Access;
use brig_store::{State, StoreObject as _};

use super::{Control, check_version};
use crate::error::ControlError;

impl Control {
    /// What is stored; nothing before the first manager has written it.
    #[must_use]
    pub fn access(&self) -> Option<Arc<Access>> {
        first(&self.store.view())
    }

    /// How many managers the cluster has.
    #[must_use]
    pub fn managers(&self) -> usize {
        self.store.view().managers().count()
    }

    /// Stores it in place of what was read; `version` is 0 when there was nothing.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`] when somebody else was faster.
    pub async fn put_access(
        &self,
        mut access: Access,
        version: u64,
    ) -> Result<Arc<Access>, ControlError> {
        self.store
            .update(|tx| match first(tx) {
                Some(old) => {
                    check_version(&*old, version)?;
                    access.id.clone_from(&old.id);
                    access.meta.clone_from(&old.meta);
                    Ok(tx.update(access)?)
                }
                None if version == 0 => {
                    access.meta = None;
                    Ok(tx.create(access)?)
                }
                None => Err(ControlError::OutOfSequence),
            })
            .await
    }
}

fn first(state: &State) -> Option<Arc<Access>> {
    state.all::<Access>().find(|access| !access.id().is_empty()).cloned()
}
