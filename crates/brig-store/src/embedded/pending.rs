//! What stands in the log and not in the tables yet.

use std::collections::{BTreeMap, HashMap};

use super::entry::{Entry, Name};
use super::tables::Reader;
use super::{path_of, row};
use crate::backend::{Batch, Revision};
use crate::sealer::BlindName;

/// Entries in their order, and what they left.
pub(super) struct Pending {
    entries: Vec<Entry>,
    left: Left,
    /// Of the last transaction, in an entry or in the tables.
    revision: Revision,
}

/// Versions of objects and holders of names after some transactions; `None`: gone, nobody.
#[derive(Default)]
struct Left {
    versions: HashMap<String, Option<Revision>>,
    holders: HashMap<BlindName, Option<String>>,
}

impl Left {
    fn take(&mut self, entry: &Entry) {
        for transaction in &entry.transactions {
            for record in &transaction.records {
                let version = record.value.as_ref().map(|_| record.version);
                self.versions.insert(record.path.clone(), version);
            }
            for (name, holder) in transaction.names.iter().filter_map(Name::claim) {
                self.holders.insert(name, holder.map(str::to_owned));
            }
        }
    }
}

impl Pending {
    /// What a log has after the revision of the tables; the reason if that does not fit together.
    pub(super) fn after(revision: Revision, entries: Vec<Entry>) -> Result<Self, &'static str> {
        let mut pending = Self { entries: Vec::new(), left: Left::default(), revision };
        // The tables take over all of a log or nothing of it.
        if entries.last().is_some_and(|last| last.last() > revision) {
            for entry in entries {
                if pending.revision.checked_add(1) != Some(entry.first) {
                    return Err("it does not belong to the tables beside it: one of them is older");
                }
                pending.push(entry);
            }
        }
        Ok(pending)
    }

    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds what was made durable.
    pub(super) fn push(&mut self, entry: Entry) {
        self.left.take(&entry);
        self.revision = entry.last();
        self.entries.push(entry);
    }

    /// Takes the last entry back, the only one.
    pub(super) fn forget_last(&mut self) {
        if let Some(entry) = self.entries.pop() {
            self.revision = entry.first.saturating_sub(1);
            self.left = Left::default();
            for entry in &self.entries {
                self.left.take(entry);
            }
        }
    }

    /// Forgets what the tables have now.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.left = Left::default();
    }

    /// Whether everything that transactions expect is so, when they follow each other.
    pub(super) fn holds(
        &self,
        tables: &Reader,
        first: Revision,
        group: &[Batch],
    ) -> Result<bool, redb::Error> {
        let mut own = Left::default();
        for (revision, batch) in (first..).zip(group) {
            for write in &batch.writes {
                let path = path_of(write.kind, &write.id);
                let known = own.versions.get(&path).or_else(|| self.left.versions.get(&path));
                let version = match known {
                    Some(version) => *version,
                    None => tables.version_of(&path)?,
                };
                if version != write.expected {
                    return Ok(false);
                }
                let version = batch.version.unwrap_or(revision);
                own.versions.insert(path, write.value.as_ref().map(|_| version));
            }
            for claim in &batch.names {
                let known = own.holders.get(&claim.name);
                let holder = match known.or_else(|| self.left.holders.get(&claim.name)) {
                    Some(holder) => holder.clone(),
                    None => tables.holder_of(&claim.name)?,
                };
                if holder != claim.from {
                    return Ok(false);
                }
                own.holders.insert(claim.name, claim.to.clone());
            }
        }
        Ok(true)
    }

    /// The tables' rows as they are after all of it.
    pub(super) fn over(&self, rows: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        if self.entries.is_empty() {
            return rows;
        }
        let mut rows: BTreeMap<String, Vec<u8>> = rows.into_iter().collect();
        let transactions = self.entries.iter().flat_map(|entry| &entry.transactions);
        for record in transactions.flat_map(|transaction| &transaction.records) {
            match &record.value {
                Some(value) => _ = rows.insert(record.path.clone(), row(record.version, value)),
                None => _ = rows.remove(&record.path),
            }
        }
        rows.into_iter().collect()
    }
}
