//! Logs as crashes and bad disks leave them.

use proptest::prelude::*;

use super::*;
use crate::backend::{Batch, Write};
use crate::object::Kind;

const STORE: u64 = 7;
const SECTOR: usize = 512;

fn entry(first: Revision, transactions: usize, bytes: usize) -> Entry {
    let value = Some(vec![u8::try_from(first % 251).unwrap(); bytes]);
    let write = Write { kind: Kind::Config, id: format!("c{first}"), expected: None, value };
    Entry::new(first, &vec![Batch { writes: vec![write], ..Batch::default() }; transactions])
}

fn written(salt: u8, base: Revision, entries: &[Entry]) -> Vec<u8> {
    let salt = [salt; SALT];
    let mut bytes = header(STORE, salt, base);
    bytes.resize(BLOCK, 0);
    for (number, entry) in (0..).zip(entries) {
        push_frame(&mut bytes, salt, number, entry);
    }
    bytes
}

fn in_a_row(count: u64) -> Vec<Entry> {
    (0..count).map(|at| entry(1 + at, 1, 100)).collect()
}

fn entries(bytes: &[u8], revision: Revision) -> Result<Vec<Entry>, &'static str> {
    read(bytes, STORE, revision).map(|content| content.entries)
}

#[test]
fn nothing_written_is_nothing() {
    assert_eq!(entries(&vec![0; SIZE], 0), Ok(Vec::new()));
    assert!(entries(&[0; HEADER - 1], 0).is_err());
}

#[test]
fn damage_in_the_middle_is_told_and_at_the_end_it_was_never_acknowledged() {
    let all = in_a_row(3);
    let whole = written(1, 0, &all);
    assert_eq!(entries(&whole, 0).unwrap(), all);
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let last = flipped(3 * BLOCK + FRAME + SHA256_LEN);
    assert_eq!(entries(&last, 0).unwrap(), all[..2]);
    let middle = flipped(2 * BLOCK + FRAME + SHA256_LEN);
    assert!(entries(&middle, 0).unwrap_err().contains("in the middle"));
    assert_eq!(entries(&middle, 3).unwrap(), all[..1], "the tables have it");
    assert!(entries(&flipped(20), 0).unwrap_err().contains("beginning"));
    assert!(read(&whole, STORE + 1, 0).is_err_and(|reason| reason.contains("another store")));
}

#[test]
fn frames_of_before_do_not_count() {
    let old = written(1, 0, &in_a_row(5));
    let mut bytes = written(2, 5, &[entry(6, 2, 100)]);
    bytes.extend_from_slice(&old[bytes.len()..]);
    assert_eq!(entries(&bytes, 5).unwrap(), [entry(6, 2, 100)]);
}

#[test]
fn a_row_with_a_gap_is_damage() {
    for row in [vec![entry(2, 1, 9)], vec![entry(1, 1, 9), entry(3, 1, 9)]] {
        assert!(entries(&written(1, 0, &row), 0).unwrap_err().contains("not the next"));
    }
}

/// What a disk may have of two states when the power goes while it writes.
fn torn(before: &[u8], after: &[u8], taken: &[bool]) -> Vec<u8> {
    let sectors = before.chunks(SECTOR).zip(after.chunks(SECTOR)).enumerate();
    let pick = |(at, (old, new)): (usize, (&[u8], &[u8]))| {
        if taken[at % taken.len()] { new.to_vec() } else { old.to_vec() }
    };
    sectors.flat_map(pick).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn however_a_write_is_torn_nothing_acknowledged_is_lost(
        steps in proptest::collection::vec((1..4_usize, 0..9000_usize, any::<bool>()), 1..12),
        taken in proptest::collection::vec(any::<bool>(), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.wal");
        let mut log = Log::create(&path).unwrap();
        let (mut last, mut in_tables) = (0, 0);
        let mut before = std::fs::read(&path).unwrap();
        for (transactions, bytes, restarts) in steps {
            if restarts {
                log.restart();
                in_tables = last;
            }
            let added = entry(last + 1, transactions, bytes);
            prop_assert!(matches!(log.append(&added), Ok(true)));
            let after = std::fs::read(&path).unwrap();
            prop_assert_eq!(after.len(), SIZE);
            let content = read(&torn(&before, &after, &taken), log.store(), in_tables);
            let found = content.map(|content| content.entries.last().map_or(0, Entry::last));
            let known = found.map(|found| found.max(in_tables));
            prop_assert!(known == Ok(last) || known == Ok(added.last()), "{:?}", known);
            last = added.last();
            let whole = read(&after, log.store(), in_tables);
            prop_assert_eq!(whole.map(|content| content.entries.last().map(Entry::last)), Ok(Some(last)));
            before = after;
        }
    }

    #[test]
    fn whatever_stands_there_is_read_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        at in 0..3 * BLOCK,
    ) {
        let _ = entries(&bytes, 0);
        let mut log = written(1, 0, &in_a_row(2));
        for (to, from) in log.iter_mut().skip(at).zip(bytes) {
            *to = from;
        }
        let _ = entries(&log, 0);
    }
}
