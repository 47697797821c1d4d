use brig_pki::hash::sha256;
use time::Duration;

use super::*;

fn gun(name: &str) -> Gun {
    Gun::parse(name).unwrap()
}

fn file(role: &str, version: u64, content: &str) -> StoredFile {
    let bytes = Bytes::copy_from_slice(content.as_bytes());
    StoredFile {
        role: Role::parse(role).unwrap(),
        version,
        digest: sha256(&bytes),
        bytes,
        stored: OffsetDateTime::UNIX_EPOCH + Duration::days(20_000),
    }
}

fn publication(name: &str, after: Option<u64>, files: Vec<StoredFile>) -> Publication {
    Publication {
        gun: gun(name),
        after,
        files,
        named_keys: Vec::new(),
        due: OffsetDateTime::UNIX_EPOCH
            + Duration::days(i64::try_from(after.unwrap_or(0)).unwrap()),
    }
}

fn open(folder: &tempfile::TempDir) -> EmbeddedStorage {
    EmbeddedStorage::open(&folder.path().join("db")).unwrap()
}

fn kind(result: Result<u64, StorageError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(StorageError::Version) => "version",
        Err(StorageError::Overtaken) => "overtaken",
        Err(_) => "failed",
    }
}

#[test]
fn a_publication_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&folder);
    let (a, b) = (gun("r/a"), gun("r/a/b"));
    let first = vec![file("root", 1, "r1"), file("targets", 2, "t2"), file("timestamp", 1, "ts1")];
    storage.publish(publication("r/a", None, first.clone())).unwrap();
    storage.publish(publication("r/a/b", None, first.clone())).unwrap();
    for (after, files, expected) in [
        (None, vec![file("timestamp", 2, "x")], "overtaken"),
        (Some(2), vec![file("timestamp", 3, "x")], "overtaken"),
        (Some(1), vec![file("targets", 2, "x"), file("timestamp", 2, "x")], "version"),
        (
            Some(1),
            vec![file("targets/x", 1, "x"), file("root", 1, "x"), file("timestamp", 2, "x")],
            "version",
        ),
        (Some(1), vec![file("targets", 9, "t9"), file("timestamp", 2, "ts2")], "done"),
    ] {
        assert_eq!(kind(storage.publish(publication("r/a", after, files))), expected);
    }
    let role = |name: &str| Role::parse(name).unwrap();
    assert_eq!(storage.newest(&a, &role("targets/x")).unwrap(), None);
    assert_eq!(storage.newest(&a, &role("targets")).unwrap().unwrap(), file("targets", 9, "t9"));
    assert_eq!(storage.version(&a, &role("targets"), 2).unwrap().unwrap().bytes, "t2");
    assert_eq!(storage.version(&a, &role("targets"), 3).unwrap(), None);
    assert_eq!(storage.by_digest(&a, &sha256(b"t2")).unwrap().unwrap(), file("targets", 2, "t2"));
    assert_eq!(storage.by_digest(&a, &sha256(b"x")).unwrap(), None);
    // What is deleted is gone; a longer name is another repository.
    let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_001);
    assert!(storage.delete(&a, at).unwrap());
    assert!(!storage.delete(&a, at).unwrap());
    assert_eq!(storage.by_digest(&a, &sha256(b"t2")).unwrap(), None);
    assert_eq!(storage.newest(&a, &role("root")).unwrap(), None);
    assert!(storage.newest(&b, &role("root")).unwrap().is_some());
    storage.publish(publication("r/a", None, first)).unwrap();
    // The feed: everything, forwards and backwards, of one or all.
    let seen = |gun: Option<&Gun>, stretch, limit| -> Vec<(u64, String, u64)> {
        let changes = storage.changes(gun, stretch, limit).unwrap();
        changes.into_iter().map(|change| (change.id, change.gun, change.version)).collect()
    };
    let line = |id, name: &str, version| (id, name.to_owned(), version);
    let (one, two, three, four, five) = (
        line(1, "r/a", 1),
        line(2, "r/a/b", 1),
        line(3, "r/a", 2),
        line(4, "r/a", 0),
        line(5, "r/a", 1),
    );
    assert_eq!(
        seen(None, Stretch::After(0), 100),
        [&one, &two, &three, &four, &five].map(Clone::clone)
    );
    assert_eq!(seen(None, Stretch::After(3), 1), std::slice::from_ref(&four));
    assert_eq!(seen(None, Stretch::Before(None), 2), [four.clone(), five.clone()]);
    assert_eq!(seen(None, Stretch::Before(Some(3)), 5), [one.clone(), two.clone()]);
    assert_eq!(seen(Some(&b), Stretch::After(0), 5), [two]);
    assert_eq!(seen(Some(&a), Stretch::Before(Some(4)), 1), std::slice::from_ref(&three));
    assert_eq!(seen(Some(&a), Stretch::After(1), 9), [three, four, five]);
}

#[test]
fn keys_that_no_root_names_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&folder);
    let made = |at: i64, letter: char| StoredKey {
        role: ServerRole::Snapshot,
        id: KeyId::parse(&letter.to_string().repeat(64)).unwrap(),
        sealed: vec![7; 10],
        made: OffsetDateTime::UNIX_EPOCH + Duration::seconds(at),
        named: false,
    };
    let a = gun("r/a");
    storage.add_key(&a, made(2, 'b')).unwrap();
    storage.add_key(&a, made(1, 'c')).unwrap();
    assert_eq!(storage.keys(&a).unwrap(), [made(1, 'c'), made(2, 'b')]);
    assert_eq!(storage.keys(&gun("r")).unwrap(), []);
    let mut naming = publication("r/a", None, vec![file("timestamp", 1, "x")]);
    naming.named_keys = vec![made(1, 'c').id];
    storage.publish(naming).unwrap();
    let named: Vec<_> = storage.keys(&a).unwrap().iter().map(|key| key.named).collect();
    assert_eq!(named, [true, false]);
    // Closed and opened again.
    drop(storage);
    assert_eq!(open(&folder).keys(&a).unwrap().len(), 2);
}

#[test]
fn due_repositories_come_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&folder);
    for name in ["r/a", "r/b", "r/c"] {
        storage.publish(publication(name, None, vec![file("timestamp", 1, name)])).unwrap();
    }
    let at = OffsetDateTime::UNIX_EPOCH + Duration::seconds(1);
    assert_eq!(storage.due(at, None, 2).unwrap(), [gun("r/a"), gun("r/b")]);
    assert_eq!(storage.due(at, Some(&gun("r/b")), 2).unwrap(), [gun("r/c")]);
    assert_eq!(storage.due(OffsetDateTime::UNIX_EPOCH, None, 2).unwrap(), []);
}

#[test]
fn one_process_at_a_time_and_no_file_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&folder);
    let path = folder.path().join("db");
    assert!(matches!(EmbeddedStorage::open(&path), Err(StorageError::InUse(_))));
    drop(storage);
    drop(open(&folder));
    let other = folder.path().join("other");
    std::fs::write(&other, vec![7; 8192]).unwrap();
    assert!(EmbeddedStorage::open(&other).is_err());
}

#[test]
fn writers_at_the_same_time_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let storage = std::sync::Arc::new(open(&folder));
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let storage = std::sync::Arc::clone(&storage);
            scope.spawn(move || {
                let name = format!("r/{}", writer / 2);
                for _ in 0..10 {
                    // Two writers for each name: exactly one of both gets each version.
                    let known = storage.newest(&gun(&name), &Role::Timestamp).unwrap();
                    let known = known.map(|file| file.version);
                    let version = known.unwrap_or(0) + 1;
                    let files = vec![file("timestamp", version, &format!("{writer} {version}"))];
                    match storage.publish(publication(&name, known, files.clone())) {
                        Ok(_) => {
                            let stored = storage.version(&gun(&name), &Role::Timestamp, version);
                            assert_eq!(stored.unwrap().as_ref(), files.first());
                        }
                        Err(StorageError::Overtaken) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let changes = storage.changes(None, Stretch::After(0), 1000).unwrap();
    for name in 0..4 {
        let name = format!("r/{name}");
        let versions: Vec<_> =
            changes.iter().filter(|one| one.gun == name).map(|one| one.version).collect();
        assert!(versions.iter().copied().eq(1..=versions.len() as u64), "{versions:?}");
    }
}
