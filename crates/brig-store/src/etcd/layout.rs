//! Keys and values.

use std::fmt::Write as _;

use brig_proto::etcd::{Compare, KeyValue, PutRequest, RequestOp, compare, request_op};

use super::turns::Writer;
use crate::backend::{Batch, Revision};
use crate::object::Kind;
use crate::sealer::BlindName;

/// Bytes of the number that tells a commit from all others.
const NONCE: usize = 16;
pub(super) type Nonce = [u8; NONCE];

/// The names of a cluster's keys.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `/brig/<cluster>/`.
    root: String,
}

/// What a key under the store's prefix is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Head,
    Object(Kind, String),
    Name(BlindName),
    /// A writer that others overtook.
    Waiting(Writer),
    /// What a writer committed apart from the row.
    Apart(Writer),
    /// Something was removed.
    Freed,
}

/// The last commit of the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: Revision,
    pub(super) last: Revision,
    pub(super) nonce: Nonce,
    /// The sum of all marks at that moment; `last` counts what they stand for.
    pub(super) apart: u64,
}

/// A writer's last commit apart from the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Transactions of this writer, over all its commits apart.
    pub(super) total: u64,
    /// Those of the last one. With none it only keeps an older request from having an effect.
    pub(super) count: u64,
    pub(super) nonce: Nonce,
}

impl Mark {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + NONCE);
        bytes.extend_from_slice(&self.total.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (total, rest) = bytes.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let nonce = rest.try_into().ok()?;
        let (total, count) = (u64::from_be_bytes(*total), u64::from_be_bytes(*count));
        (count <= total).then_some(Self { total, count, nonce })
    }
}

impl Head {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + NONCE);
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.last.to_be_bytes());
        bytes.extend_from_slice(&self.nonce);
        if self.apart > 0 {
            bytes.extend_from_slice(&self.apart.to_be_bytes());
        }
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
        let apart = match rest {
            [] => 0,
            rest => Some(u64::from_be_bytes(rest.try_into().ok()?)).filter(|apart| *apart > 0)?,
        };
        let (first, last) = (Revision::from_be_bytes(*first), Revision::from_be_bytes(*last));
        (first <= last.saturating_add(1)).then_some(Self { first, last, nonce: *nonce, apart })
    }
}

impl Layout {
    pub(super) fn new(cluster: &str) -> Self {
        Self { root: format!("/brig/{cluster}/") }
    }

    /// Everything that is the store's.
    pub(super) fn store(&self) -> Vec<u8> {
        format!("{}s/", self.root).into_bytes()
    }

    /// Everything that ends with a lease.
    pub(super) fn live(&self) -> Vec<u8> {
        format!("{}l/", self.root).into_bytes()
    }

    pub(super) fn head(&self) -> Vec<u8> {
        format!("{}s/head", self.root).into_bytes()
    }

    pub(super) fn object(&self, kind: Kind, id: &str) -> Vec<u8> {
        format!("{}s/o/{kind}/{id}", self.root).into_bytes()
    }

    /// All objects.
    pub(super) fn objects(&self) -> Vec<u8> {
        format!("{}s/o/", self.root).into_bytes()
    }

    pub(super) fn waiting(&self, writer: Writer) -> Vec<u8> {
        format!("{}s/w/{writer:016x}", self.root).into_bytes()
    }

    /// Written whenever something is removed.
    pub(super) fn freed(&self) -> Vec<u8> {
        format!("{}s/freed", self.root).into_bytes()
    }

    /// All marks.
    pub(super) fn marks(&self) -> Vec<u8> {
        format!("{}s/a/", self.root).into_bytes()
    }

    pub(super) fn mark(&self, writer: Writer) -> Vec<u8> {
        format!("{}s/a/{writer:016x}", self.root).into_bytes()
    }

    pub(super) fn name(&self, name: &BlindName) -> Vec<u8> {
        let mut key = format!("{}s/n/", self.root);
        for byte in name {
            // Writing to a string does not fail.
            let _ = write!(key, "{byte:02x}");
        }
        key.into_bytes()
    }

    pub(super) fn parse(&self, key: &[u8]) -> Option<Place> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(self.root.as_str())?;
        let key = key.strip_prefix("s/")?;
        if key == "head" {
            return Some(Place::Head);
        }
        if key == "freed" {
            return Some(Place::Freed);
        }
        if let Some(writer) = key.strip_prefix("w/") {
            // Courtesy alone: whoever writes something else there is let go like any other.
            return Some(Place::Waiting(Writer::from_str_radix(writer, 16).unwrap_or_default()));
        }
        if let Some(writer) = key.strip_prefix("a/") {
            return Writer::from_str_radix(writer, 16).ok().map(Place::Apart);
        }
        if let Some(hex) = key.strip_prefix("n/") {
            return parse_name(hex).map(Place::Name);
        }
        let (kind, id) = key.strip_prefix("o/")?.split_once('/')?;
        Some(Place::Object(Kind::parse(kind)?, id.to_owned()))
    }
}

fn parse_name(hex: &str) -> Option<BlindName> {
    let mut name = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in name.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(name)
}

/// The first key after all those with a prefix.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

/// A stored object: its revision before the sealed value.
pub(super) fn record(revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(8 + value.len());
    record.extend_from_slice(&revision.to_be_bytes());
    record.extend_from_slice(value);
    record
}

pub(super) fn parse_record(value: &[u8]) -> Option<(Revision, Vec<u8>)> {
    let (revision, sealed) = value.split_first_chunk::<8>()?;
    Some((Revision::from_be_bytes(*revision), sealed.to_vec()))
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestPut(PutRequest { key, value, lease })) }
}

pub(super) fn get(key: Vec<u8>) -> RequestOp {
    let range = brig_proto::etcd::RangeRequest { key, ..Default::default() };
    RequestOp { request: Some(request_op::Request::RequestRange(range)) }
}

pub(super) fn delete(key: Vec<u8>) -> RequestOp {
    let delete = brig_proto::etcd::DeleteRangeRequest { key, range_end: Vec::new() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
}

/// Holds while the key has this value.
pub(super) fn value_is(key: Vec<u8>, value: Vec<u8>) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Value as i32,
        key,
        target_union: Some(compare::TargetUnion::Value(value)),
        range_end: Vec::new(),
    }
}

/// Holds while there is no such key.
pub(super) fn is_absent(key: Vec<u8>) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Create as i32,
        key,
        target_union: Some(compare::TargetUnion::CreateRevision(0)),
        range_end: Vec::new(),
    }
}

/// Holds while this is etcd's revision of the key; 0 where there is none.
pub(super) fn is_unwritten_since(key: Vec<u8>, mod_revision: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Mod as i32,
        key,
        target_union: Some(compare::TargetUnion::ModRevision(mod_revision)),
        range_end: Vec::new(),
    }
}

/// Holds while nobody wrote any key with the prefix after this revision of etcd.
pub(super) fn is_calm_since(prefix: Vec<u8>, revision: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Less as i32,
        target: compare::CompareTarget::Mod as i32,
        target_union: Some(compare::TargetUnion::ModRevision(revision.saturating_add(1))),
        range_end: prefix_end(&prefix),
        key: prefix,
    }
}

/// What batches weigh in a request: operations and bytes.
pub(super) fn weight(group: &[Batch]) -> (usize, usize) {
    const KEY: usize = 160;
    let writes = group.iter().flat_map(|batch| &batch.writes);
    let values = writes.map(|write| write.value.as_ref().map_or(0, Vec::len) + KEY);
    let claims = group.iter().flat_map(|batch| &batch.names);
    let names = claims.map(|claim| claim.to.as_ref().map_or(0, String::len) + KEY);
    values.chain(names).fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
}

/// What a record that is sealed anew weighs: its key is compared with as well.
pub(super) fn record_weight(id: &str, value: &[u8]) -> usize {
    const KEY: usize = 160;
    2 * (KEY + id.len()) + value.len()
}

/// The text of a value; for keys that carry plain words.
pub(super) fn text(kv: &KeyValue) -> String {
    String::from_utf8_lossy(&kv.value).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_come_back() {
        let layout = Layout::new("c1");
        assert_eq!(layout.parse(&layout.head()), Some(Place::Head));
        let name = [0xab; 32];
        assert_eq!(layout.parse(&layout.name(&name)), Some(Place::Name(name)));
        assert_eq!(layout.parse(&layout.waiting(7)), Some(Place::Waiting(7)));
        assert_eq!(layout.parse(&layout.mark(7)), Some(Place::Apart(7)));
        for kind in Kind::ALL {
            let key = layout.object(kind, "x.y");
            assert_eq!(layout.parse(&key), Some(Place::Object(kind, "x.y".to_owned())));
            assert_eq!(Layout::new("c2").parse(&key), None);
        }
        assert_eq!(prefix_end(b"/a/"), b"/a0");
        assert_eq!(prefix_end(&[1, 0xff]), [2]);
    }

    proptest! {
        #[test]
        fn whatever_is_stored_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(head) = Head::parse(&bytes) {
                prop_assert_eq!(head.to_bytes(), &bytes[..]);
            }
            if let Some(mark) = Mark::parse(&bytes) {
                prop_assert_eq!(mark.to_bytes(), &bytes[..]);
            }
            let layout = Layout::new("c");
            let _ = layout.parse(&bytes);
            if let Some((revision, value)) = parse_record(&bytes) {
                prop_assert_eq!(record(revision, &value), bytes);
            }
        }
    }
}
