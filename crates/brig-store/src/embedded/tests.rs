//! What is on the disk between a commit and the tables.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::backend::{NameClaim, Write};

const LARGE: usize = 3 << 20;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("s.redb")
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("s.wal")
    }

    fn open(&self) -> RedbBackend {
        RedbBackend::open(&self.path()).unwrap()
    }

    fn refusal(&self) -> String {
        brig_types::error::chain(&RedbBackend::open(&self.path()).unwrap_err())
    }
}

fn create(id: &str, bytes: usize) -> Batch {
    let value = Some(vec![1; bytes]);
    let write = Write { kind: Kind::Config, id: id.to_owned(), expected: None, value };
    Batch { writes: vec![write], ..Batch::default() }
}

fn in_tables(backend: &RedbBackend) -> Revision {
    backend.lock().as_ref().unwrap().tables.revision().unwrap()
}

fn ids(backend: &RedbBackend) -> Vec<String> {
    let mut ids: Vec<_> =
        backend.load().unwrap().records.into_iter().map(|record| record.id).collect();
    ids.sort();
    ids
}

#[test]
fn a_commit_stands_in_the_log_and_closing_brings_it_into_the_tables() {
    let place = Place::new();
    let backend = place.open();
    backend.commit(1, &[create("a", 9), create("b", 9)]).unwrap();
    assert_eq!(in_tables(&backend), 0);
    for path in [place.path(), place.log()] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{}", path.display());
    }
    // As after a crash: nobody closes it.
    drop(backend);
    let backend = place.open();
    assert_eq!((in_tables(&backend), ids(&backend)), (0, vec!["a".into(), "b".into()]));
    backend.commit(3, &[create("c", 9)]).unwrap();
    drop(backend);
    let backend = place.open();
    assert_eq!(backend.load().unwrap().revision, 3);
    backend.close();
    let backend = place.open();
    assert_eq!((in_tables(&backend), ids(&backend).len()), (3, 3));
}

#[test]
fn expectations_hold_for_what_stands_in_the_log() {
    let place = Place::new();
    let backend = place.open();
    let write = |id: &str, expected, value: Option<&[u8]>| Batch {
        writes: vec![Write {
            kind: Kind::Config,
            id: id.to_owned(),
            expected,
            value: value.map(<[u8]>::to_vec),
        }],
        ..Batch::default()
    };
    let name = |from: Option<&str>, to: Option<&str>| Batch {
        names: vec![NameClaim {
            name: [1; 32],
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        }],
        ..Batch::default()
    };
    backend.commit(1, &[write("a", None, Some(b"1")), name(None, Some("a"))]).unwrap();
    for bad in [write("a", None, Some(b"x")), name(None, Some("b")), write("b", Some(1), None)] {
        assert!(matches!(backend.commit(3, &[bad]), Err(BackendError::Conflict)));
    }
    backend.commit(3, &[write("a", Some(1), None), name(Some("a"), None)]).unwrap();
    backend.commit(5, &[write("a", None, Some(b"2")), name(None, Some("z"))]).unwrap();
    let backend = {
        drop(backend);
        place.open()
    };
    assert!(matches!(backend.commit(7, &[name(Some("a"), None)]), Err(BackendError::Conflict)));
    backend.commit(7, &[write("a", Some(5), Some(b"3")), name(Some("z"), Some("a"))]).unwrap();
}

#[test]
fn a_full_log_goes_into_the_tables_and_what_is_larger_at_once() {
    let place = Place::new();
    let backend = place.open();
    for at in 1..=40 {
        backend.commit(at, &[create(&format!("c{at:02}"), 100_000)]).unwrap();
    }
    let (known, tables) = (backend.load().unwrap().revision, in_tables(&backend));
    assert!(known == 40 && tables > 0 && tables < 40, "{known}, {tables}");
    backend.commit(41, &[create("large", LARGE)]).unwrap();
    assert_eq!(in_tables(&backend), 41);
    backend.commit(42, &[create("small", 1)]).unwrap();
    drop(backend);
    let backend = place.open();
    assert_eq!((in_tables(&backend), ids(&backend).len()), (41, 42));
    assert_eq!(std::fs::metadata(place.log()).unwrap().len(), 2 << 20);
}

#[test]
fn tables_and_logs_that_do_not_belong_together_are_refused() {
    let place = Place::new();
    let copy = |from: PathBuf, to: PathBuf| _ = std::fs::copy(from, to).unwrap();
    let aside = place.0.path().join("aside");
    let backend = place.open();
    backend.commit(1, &[create("a", 9)]).unwrap();
    drop(backend);
    copy(place.path(), aside.clone());
    let backend = place.open();
    backend.close();
    let backend = place.open();
    backend.commit(2, &[create("b", 9)]).unwrap();
    drop(backend);

    let good = place.0.path().join("good");
    copy(place.path(), good.clone());
    copy(aside, place.path());
    assert!(place.refusal().contains("one of them is older"), "{}", place.refusal());

    copy(good, place.path());
    let other = Place::new();
    other.open().commit(1, &[create("x", 9)]).unwrap();
    let log = std::fs::read(place.log()).unwrap();
    copy(other.log(), place.log());
    assert!(place.refusal().contains("the log of another store"), "{}", place.refusal());

    std::fs::remove_file(place.log()).unwrap();
    assert!(place.refusal().contains("s.wal"), "{}", place.refusal());
    std::fs::write(place.log(), log).unwrap();
    assert_eq!(ids(&place.open()), ["a", "b"]);
}

#[test]
fn a_store_of_before_there_was_a_log_gets_one() {
    let place = Place::new();
    let tables = Tables::open(&place.path()).unwrap();
    tables.apply(&[Entry::new(1, &[create("old", 9)])]).unwrap();
    tables.forget_log().unwrap();
    drop(tables);
    // Left of another store that was here before.
    std::fs::write(place.log(), [7; 99]).unwrap();
    let backend = place.open();
    backend.commit(2, &[create("new", 9)]).unwrap();
    drop(backend);
    assert_eq!(ids(&place.open()), ["new", "old"]);
}

#[test]
fn removed_files_are_gone() {
    let place = Place::new();
    place.open().close();
    RedbBackend::remove(&place.path()).unwrap();
    RedbBackend::remove(&place.path()).unwrap();
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 0);
}
