//! The trust server's records: objects as all others, sealed and on every manager. What is in them
//! is the daemon's business.

use std::sync::Arc;

use brig_proto::brig::Trust;
use brig_store::{Index, Store, StoreError, Tx};

use super::Control;

impl Control {
    /// What the trust server keeps in the cluster's store.
    #[must_use]
    pub fn trust_records(&self) -> TrustRecords {
        TrustRecords::of(self.store.clone())
    }
}

/// The cluster's store as far as it is the trust server's.
#[derive(Clone, Debug)]
pub struct TrustRecords(Store);

impl TrustRecords {
    /// Those of this store.
    #[must_use]
    pub const fn of(store: Store) -> Self {
        Self(store)
    }

    /// The record with this name, and those with the ids that it asks for, all of one moment.
    pub fn read<R>(
        &self,
        name: &str,
        read: impl FnOnce(&Trust, &dyn Fn(&str) -> Option<Arc<Trust>>) -> R,
    ) -> Option<R> {
        let view = self.0.view();
        let named = view.by_name::<Trust>(name)?;
        Some(read(&named, &|id| view.get::<Trust>(id)))
    }

    /// The records that belong together, by id.
    #[must_use]
    pub fn group(&self, group: &str) -> Vec<Arc<Trust>> {
        self.0.view().indexed::<Trust>(Index::Group, group).cloned().collect()
    }

    /// Whether what is read is what is stored now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.0.is_current()
    }

    /// Changes records in one transaction; durable when it returns. As [`Store::update`].
    ///
    /// # Errors
    /// What `change` returns, and [`StoreError`].
    pub async fn update<R, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<R, E> + Clone,
    ) -> Result<R, E> {
        self.0.update(change).await
    }
}
