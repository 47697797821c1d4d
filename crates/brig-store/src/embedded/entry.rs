//! Transactions that were committed together, as the log keeps them: what they left, without what
//! they expected, for that was compared before.

use crate::backend::{Batch, Revision};
use crate::sealer::BlindName;

/// Transactions in a row.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Entry {
    /// Revision of the first one.
    #[prost(uint64, tag = "1")]
    pub(super) first: Revision,
    #[prost(message, repeated, tag = "2")]
    pub(super) transactions: Vec<Transaction>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Transaction {
    #[prost(message, repeated, tag = "1")]
    pub(super) records: Vec<Record>,
    #[prost(message, repeated, tag = "2")]
    pub(super) names: Vec<Name>,
}

/// What it left of an object.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Record {
    /// `<kind>/<id>`.
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(uint64, tag = "2")]
    pub(super) version: Revision,
    /// The sealed value; `None`: it is gone.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) value: Option<Vec<u8>>,
}

/// Who has a name now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Name {
    /// The keyed hash.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    /// `None`: nobody.
    #[prost(string, optional, tag = "2")]
    pub(super) holder: Option<String>,
}

impl Name {
    /// The name and who has it now.
    pub(super) fn claim(&self) -> Option<(BlindName, Option<&str>)> {
        Some((self.name.as_slice().try_into().ok()?, self.holder.as_deref()))
    }
}

impl Entry {
    pub(super) fn new(first: Revision, group: &[Batch]) -> Self {
        let transactions = (first..).zip(group).map(|(revision, batch)| {
            let version = batch.version.unwrap_or(revision);
            let records = batch.writes.iter().map(|write| Record {
                path: super::path_of(write.kind, &write.id),
                version,
                value: write.value.clone(),
            });
            let names = batch
                .names
                .iter()
                .map(|claim| Name { name: claim.name.to_vec(), holder: claim.to.clone() });
            Transaction { records: records.collect(), names: names.collect() }
        });
        Self { first, transactions: transactions.collect() }
    }

    /// Revision of the last one.
    pub(super) const fn last(&self) -> Revision {
        self.first.saturating_add(self.transactions.len() as u64).saturating_sub(1)
    }
}
