//! Records page by page, and other bytes for the same content.

use brig_proto::etcd::{KeyValue, RangeRequest, RequestOp, TxnRequest, request_op, response_op};

use super::backend::{EtcdBackend, READ_PATIENCE, translate, unavailable};
use super::layout::{self, Place};
use crate::backend::{BackendError, SealedRecord};

/// How often one part is tried while others write to the same records.
const ATTEMPTS: usize = 20;

impl EtcdBackend {
    pub(super) fn read_page(
        &self,
        after: Option<&SealedRecord>,
        limit: usize,
    ) -> Result<Vec<SealedRecord>, BackendError> {
        let layout = self.layout();
        let objects = layout.objects();
        let key = match after {
            Some(record) => {
                let mut key = layout.object(record.kind, &record.id);
                key.push(0);
                key
            }
            None => objects.clone(),
        };
        let request = RangeRequest {
            key,
            range_end: layout::prefix_end(&objects),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            ..RangeRequest::default()
        };
        let answer = self
            .block_on(self.client().range(&request, READ_PATIENCE))
            .map_err(|error| unavailable(&error))?;
        answer.kvs.into_iter().map(|kv| self.record(&kv)).collect()
    }

    fn record(&self, kv: &KeyValue) -> Result<SealedRecord, BackendError> {
        let place = self.layout().parse(&kv.key);
        match (place, layout::parse_record(&kv.value)) {
            (Some(Place::Object(kind, id)), Some((revision, value))) => {
                Ok(SealedRecord { kind, id, revision, value })
            }
            _ => Err(BackendError::Format {
                path: String::from_utf8_lossy(&kv.key).into_owned().into(),
                reason: "it is no record".to_owned(),
            }),
        }
    }

    /// Parts of as many records as one transaction takes.
    pub(super) fn reseal_all(&self, records: &[SealedRecord]) -> Result<usize, BackendError> {
        let limits = self.limits();
        let (mut replaced, mut rest) = (0, records);
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take(limits.operations).take_while(|record| {
                bytes += layout::record_weight(&record.id, &record.value);
                bytes <= limits.bytes
            });
            let (part, later) = rest.split_at(fitting.count().clamp(1, rest.len()));
            replaced += self.reseal_part(part)?;
            rest = later;
        }
        Ok(replaced)
    }

    fn reseal_part(&self, records: &[SealedRecord]) -> Result<usize, BackendError> {
        for _ in 0..ATTEMPTS {
            let current = self.current(records)?;
            let (mut compare, mut success) = (Vec::new(), Vec::new());
            for (record, mod_revision) in &current {
                let key = self.layout().object(record.kind, &record.id);
                let value = layout::record(record.revision, &record.value);
                compare.push(layout::is_unwritten_since(key.clone(), *mod_revision));
                success.push(layout::put(key, value, 0));
            }
            if success.is_empty() {
                return Ok(0);
            }
            let request = TxnRequest { compare, success, failure: Vec::new() };
            let answer = self.block_on(self.client().txn(&request, READ_PATIENCE));
            if answer.map_err(translate)?.succeeded {
                return Ok(current.len());
            }
        }
        Err(BackendError::Unavailable("others write to the same records all the time".to_owned()))
    }

    /// Those of the records that have their revision still, with etcd's revision of their key.
    fn current<'a>(
        &self,
        records: &'a [SealedRecord],
    ) -> Result<Vec<(&'a SealedRecord, i64)>, BackendError> {
        let range = |record: &SealedRecord| RequestOp {
            request: Some(request_op::Request::RequestRange(RangeRequest {
                key: self.layout().object(record.kind, &record.id),
                ..RangeRequest::default()
            })),
        };
        let request =
            TxnRequest { success: records.iter().map(range).collect(), ..TxnRequest::default() };
        let answer = self
            .block_on(self.client().txn(&request, READ_PATIENCE))
            .map_err(|error| unavailable(&error))?;
        let mut current = Vec::with_capacity(records.len());
        for (record, response) in records.iter().zip(answer.responses) {
            let Some(response_op::Response::ResponseRange(range)) = response.response else {
                continue;
            };
            let Some(kv) = range.kvs.first() else { continue };
            if self.record(kv)?.revision == record.revision {
                current.push((record, kv.mod_revision));
            }
        }
        Ok(current)
    }
}
