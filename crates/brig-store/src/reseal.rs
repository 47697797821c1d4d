//! Sealing what is stored with the key that seals now, and finding out which keys are in use.
//!
//! Objects do not change by it: neither their versions nor what watchers see. All of it may be
//! interrupted anywhere and begun again: what is sealed with the current key is passed over.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::SealedRecord;
use crate::error::{SealSource, StoreError};
use crate::sealer::KeyTag;
use crate::store::Store;

/// Records that are read and sealed anew in one step; writers wait for as long as that takes.
const PAGE: usize = 256;

/// How many records each key sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records by key.
    pub records: BTreeMap<KeyTag, usize>,
    /// Records that another key sealed than the current one.
    pub outdated: usize,
}

impl Store {
    /// Waits until every transaction that was accepted before this is durable or refused. What
    /// becomes durable after it was sealed after it.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Closed`].
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.update(|_| Ok(())).await
    }

    /// Seals anew what another key sealed than the current one. Returns how many records that
    /// were; those that were written meanwhile are sealed with the current key already. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Seal`], [`StoreError::Commit`]. What was sealed until
    /// then stays sealed anew.
    pub fn reseal(&self) -> Result<usize, StoreError> {
        let shared = self.shared();
        let mut replaced = 0;
        self.pages(|page| {
            let outdated = page.iter().filter(|record| shared.sealer.is_outdated(&record.value));
            let fresh = outdated
                .map(|record| self.sealed_anew(record))
                .collect::<Result<Vec<_>, StoreError>>()?;
            if !fresh.is_empty() {
                replaced += shared
                    .backend()
                    .reseal(&fresh)
                    .map_err(|error| StoreError::Commit(Arc::new(error)))?;
            }
            Ok(())
        })?;
        Ok(replaced)
    }

    /// Counts the records of each key. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let sealer = &self.shared().sealer;
        let mut usage = Usage::default();
        self.pages(|page| {
            for record in page {
                if let Some(key) = sealer.key_of(&record.value) {
                    *usage.records.entry(key).or_default() += 1;
                }
                usage.outdated += usize::from(sealer.is_outdated(&record.value));
            }
            Ok(())
        })?;
        Ok(usage)
    }

    fn pages(
        &self,
        mut each: impl FnMut(&[SealedRecord]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut last: Option<SealedRecord> = None;
        loop {
            let page = self
                .shared()
                .backend()
                .page(last.as_ref(), PAGE)
                .map_err(|error| StoreError::Open(Arc::new(error)))?;
            each(&page)?;
            last = match page.into_iter().next_back() {
                Some(record) => Some(record),
                None => return Ok(()),
            };
        }
    }

    fn sealed_anew(&self, record: &SealedRecord) -> Result<SealedRecord, StoreError> {
        let sealer = &self.shared().sealer;
        let (kind, id) = (record.kind, &record.id);
        let plain = sealer.open(kind.as_str(), id, &record.value).map_err(|error| {
            StoreError::Damaged { kind, id: id.clone(), source: SealSource::new(error) }
        })?;
        let value = sealer
            .seal(kind.as_str(), id, plain.expose_secret())
            .map_err(|error| StoreError::Seal { kind, source: SealSource::new(error) })?;
        Ok(SealedRecord { value, ..record.clone() })
    }
}
