//! Keys and values.

use std::fmt::Write as _;

use brig_proto::etcd::{Compare, KeyValue, PutRequest, RequestOp, compare, request_op};

use super::turns::Writer;
use crate::backend::{Batch, Revision};
use crate::object::Kind;
use crate::sealer::BlindName;

/// Bytes of the random number in a head.
const NONCE: usize = 16;

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
}

/// The last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: Revision,
    pub(super) last: Revision,
    pub(super) nonce: [u8; NONCE],
}

impl Head {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + NONCE);
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&self.last.to_be_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        let nonce = rest.try_into().ok()?;
        let (first, last) = (Revision::from_be_bytes(*first), Revision::from_be_bytes(*last));
        (first <= last.saturating_add(1)).then_some(Self { first, last, nonce })
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
        if let Some(writer) = key.strip_prefix("w/") {
            // Courtesy alone: whoever writes something else there is let go like any other.
            return Some(Place::Waiting(Writer::from_str_radix(writer, 16).unwrap_or_default()));
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
    }
}

/// Holds while there is no such key.
pub(super) fn is_absent(key: Vec<u8>) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Create as i32,
        key,
        target_union: Some(compare::TargetUnion::CreateRevision(0)),
    }
}

/// Holds while nobody wrote the key since this revision of etcd.
pub(super) fn is_unwritten_since(key: Vec<u8>, mod_revision: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Mod as i32,
        key,
        target_union: Some(compare::TargetUnion::ModRevision(mod_revision)),
    }
}

/// What a batch weighs in a request.
pub(super) fn weight(batch: &Batch) -> (usize, usize) {
    const KEY: usize = 160;
    let values = batch.writes.iter().map(|write| write.value.as_ref().map_or(0, Vec::len) + KEY);
    let names = batch.names.iter().map(|claim| claim.to.as_ref().map_or(0, String::len) + KEY);
    (batch.writes.len() + batch.names.len(), values.chain(names).sum())
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
            let layout = Layout::new("c");
            let _ = layout.parse(&bytes);
            if let Some((revision, value)) = parse_record(&bytes) {
                prop_assert_eq!(record(revision, &value), bytes);
            }
        }
    }
}
