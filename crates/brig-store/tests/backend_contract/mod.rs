//! What every backend has to do.

#![allow(dead_code, missing_docs, unreachable_pub)]

use brig_store::{Backend, BackendError, Batch, Kind, NameClaim, SealedRecord, Write};

/// Opens the same durable place again and again.
pub trait Place {
    type Backend: Backend;
    fn open(&self) -> Self::Backend;
}

pub fn put(id: &str, expected: Option<u64>, value: &[u8]) -> Write {
    Write { kind: Kind::Config, id: id.into(), expected, value: Some(value.to_vec()) }
}

pub fn take(name: u8, from: Option<&str>, to: Option<&str>) -> NameClaim {
    NameClaim { name: [name; 32], from: from.map(Into::into), to: to.map(Into::into) }
}

pub fn batch(writes: Vec<Write>, names: Vec<NameClaim>) -> Batch {
    Batch { writes, names, ..Batch::default() }
}

pub fn content(backend: &impl Backend) -> (u64, Vec<(String, u64, Vec<u8>)>) {
    let loaded = backend.load().unwrap();
    let mut rows: Vec<_> =
        loaded.records.into_iter().map(|r| (r.id, r.revision, r.value)).collect();
    rows.sort();
    (loaded.revision, rows)
}

pub fn backend_contract(place: &impl Place) {
    let backend = place.open();
    assert_eq!(content(&backend), (0, vec![]));
    // A group is applied in order, later transactions see earlier ones.
    let group = [
        batch(vec![put("a", None, b"1"), put("b", None, b"2")], vec![take(1, None, Some("a"))]),
        batch(vec![put("a", Some(1), b"3")], vec![take(1, Some("a"), Some("b"))]),
    ];
    backend.commit(1, &group).unwrap();
    let expected = (2, vec![("a".into(), 2, b"3".to_vec()), ("b".into(), 1, b"2".to_vec())]);
    assert_eq!(content(&backend), expected);

    // Whatever does not hold refuses the whole group, also what comes before it.
    let good = || batch(vec![put("good", None, b"x")], vec![]);
    let gone = Write { kind: Kind::Config, id: "c".into(), expected: Some(1), value: None };
    let bad_writes = [put("a", None, b"x"), put("a", Some(1), b"x"), put("c", Some(1), b"x"), gone];
    let bad_claims = [take(1, None, Some("c")), take(1, Some("a"), None), take(2, Some("a"), None)];
    let bad = bad_writes
        .into_iter()
        .map(|write| batch(vec![write], vec![]))
        .chain(bad_claims.into_iter().map(|claim| batch(vec![], vec![claim])));
    for bad in bad {
        let refused = backend.commit(3, &[good(), bad.clone()]);
        assert!(matches!(refused, Err(BackendError::Conflict)), "{bad:?}");
    }
    for not_next in [0, 2, 4] {
        let refused = backend.commit(not_next, &[good()]);
        assert!(matches!(refused, Err(BackendError::Conflict)), "{not_next}");
    }
    assert_eq!(content(&backend), expected);

    // Page by page, in an order, everything once.
    let first = backend.page(None, 1).unwrap();
    let rest = backend.page(first.first(), 5).unwrap();
    let ids: Vec<&str> = first.iter().chain(&rest).map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(backend.page(rest.last(), 5).unwrap().is_empty());
    // Other bytes for the same content: revisions stay, what changed meanwhile is passed over.
    let sealed = |id: &str, revision: u64, value: &[u8]| SealedRecord {
        kind: Kind::Config,
        id: id.into(),
        revision,
        value: value.to_vec(),
    };
    let anew = [sealed("a", 2, b"33"), sealed("b", 7, b"late"), sealed("gone", 1, b"x")];
    assert_eq!(backend.reseal(&anew).unwrap(), 1);
    let expected = (2, vec![("a".into(), 2, b"33".to_vec()), ("b".into(), 1, b"2".to_vec())]);
    assert_eq!(content(&backend), expected);

    drop(backend);
    let backend = place.open();
    assert_eq!(content(&backend), expected);
    let remove = Write { kind: Kind::Config, id: "a".into(), expected: Some(2), value: None };
    backend.commit(3, &[batch(vec![remove], vec![take(1, Some("b"), None)])]).unwrap();
    assert_eq!(content(&backend), (3, vec![("b".into(), 1, b"2".to_vec())]));
    backend.commit(4, &[batch(vec![], vec![take(1, None, Some("b"))])]).unwrap();
    // An object's version may be older than its transaction.
    let older = Batch { version: Some(3), ..batch(vec![put("c", None, b"4")], vec![]) };
    let newer = batch(vec![put("c", Some(3), b"5")], vec![]);
    backend.commit(5, &[older]).unwrap();
    assert_eq!(content(&backend).1.last(), Some(&("c".into(), 3, b"4".to_vec())));
    backend.commit(6, &[newer]).unwrap();
    assert_eq!(content(&backend).1.last(), Some(&("c".into(), 6, b"5".to_vec())));
}
