//! What every storage of trust data has to do, done in a cluster's store; and what only this one
//! does: pieces, old versions, other managers.

use std::sync::Arc;

use brig_pki::hash::sha256;
use brig_store::{BlindName, RedbBackend, SealError, Sealer, Store};
use brig_swarm::TrustRecords;
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, KeyId, Role};
use brig_trust_server::storage::{
    Publication, Storage, StorageError, StoredFile, StoredKey, Stretch,
};
use brig_types::secret::SecretBytes;
use bytes::Bytes;
use time::{Duration, OffsetDateTime};

use super::cluster::ClusterStorage;
use super::records;

struct Plain;

impl Sealer for Plain {
    fn seal(&self, _: &str, _: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        Ok(plain.to_vec())
    }

    fn open(&self, _: &str, _: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        Ok(SecretBytes::new(sealed.to_vec()))
    }

    fn blind(&self, _: &str, name: &str) -> BlindName {
        sha256(name.as_bytes())
    }
}

/// A store, and this thread's runtime, as threads for blocking work have it.
struct World {
    runtime: tokio::runtime::Runtime,
    store: Store,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = RedbBackend::open(&folder.path().join("s.redb")).unwrap();
        let store = Store::open(backend, Arc::new(Plain)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { runtime, store, _folder: folder }
    }

    fn storage(&self) -> ClusterStorage {
        let records = TrustRecords::of(self.store.clone());
        ClusterStorage::of(records, self.runtime.handle().clone())
    }

    /// Pieces that are in the store.
    fn pieces(&self, gun: &Gun) -> usize {
        TrustRecords::of(self.store.clone()).group(&records::name_of(gun)).len()
    }
}

fn gun(name: &str) -> Gun {
    Gun::parse(name).unwrap()
}

fn start() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000)
}

fn file(role: &str, version: u64, content: impl Into<Bytes>) -> StoredFile {
    let bytes = content.into();
    let role = Role::parse(role).unwrap();
    StoredFile { role, version, digest: sha256(&bytes), bytes, stored: start() }
}

fn publication(name: &str, after: Option<u64>, files: Vec<StoredFile>) -> Publication {
    let due = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
    Publication { gun: gun(name), after, files, named_keys: Vec::new(), due }
}

fn kind(result: Result<u64, StorageError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(StorageError::Version) => "version",
        Err(StorageError::Overtaken) => "overtaken",
        Err(StorageError::TooLarge { .. }) => "too large",
        Err(_) => "failed",
    }
}

#[test]
fn a_publication_is_there_whole_or_not_at_all() {
    let world = World::new();
    let storage = world.storage();
    let (a, b) = (gun("r/a"), gun("R/a"));
    let role = |name: &str| Role::parse(name).unwrap();
    let first = vec![file("root", 1, "r1"), file("targets", 2, "t2"), file("timestamp", 1, "s1")];
    assert_eq!(storage.generation(&a).unwrap(), 0);
    let generation = storage.publish(publication("r/a", None, first.clone())).unwrap();
    assert_eq!(storage.generation(&a).unwrap(), generation);
    assert!(storage.newest(&b, &Role::Root).unwrap().is_none(), "names differ in case");
    storage.publish(publication("R/a", None, first.clone())).unwrap();
    for (after, files, expected) in [
        (None, vec![file("timestamp", 2, "x")], "overtaken"),
        (Some(2), vec![file("timestamp", 3, "x")], "overtaken"),
        (Some(1), vec![file("targets", 2, "x"), file("timestamp", 2, "x")], "version"),
        (Some(1), vec![file("targets/x", 1, "x"), file("root", 1, "x")], "version"),
        (
            Some(1),
            vec![file("targets", 3, vec![7; records::MAX_FILE + 1]), file("timestamp", 2, "x")],
            "too large",
        ),
        (Some(1), vec![file("targets", 9, "t9"), file("timestamp", 2, "s2")], "done"),
    ] {
        assert_eq!(kind(storage.publish(publication("r/a", after, files))), expected);
    }
    assert_ne!(storage.generation(&a).unwrap(), generation);
    assert_eq!(storage.newest(&a, &role("targets/x")).unwrap(), None);
    assert_eq!(storage.newest(&a, &role("targets")).unwrap().unwrap(), file("targets", 9, "t9"));
    assert_eq!(storage.version(&a, &role("targets"), 2).unwrap().unwrap().bytes, "t2");
    assert_eq!(storage.version(&a, &role("targets"), 3).unwrap(), None);
    assert_eq!(storage.by_digest(&a, &sha256(b"t2")).unwrap().unwrap(), file("targets", 2, "t2"));
    assert_eq!(world.pieces(&a), 5, "nothing stays of what was refused");
    // What is deleted is gone, and it can be begun anew.
    let before = storage.generation(&a).unwrap();
    assert!(storage.delete(&a, start()).unwrap());
    assert!(!storage.delete(&a, start()).unwrap());
    assert_eq!((storage.newest(&a, &role("root")).unwrap(), world.pieces(&a)), (None, 0));
    storage.publish(publication("r/a", None, first)).unwrap();
    assert_ne!(storage.generation(&a).unwrap(), before);
    let seen = |gun: Option<&Gun>, stretch, limit| -> Vec<(u64, String, u64)> {
        let changes = storage.changes(gun, stretch, limit).unwrap();
        changes.into_iter().map(|change| (change.id, change.gun, change.version)).collect()
    };
    let line = |id, name: &str, version| (id, name.to_owned(), version);
    let all = [("r/a", 1), ("R/a", 1), ("r/a", 2), ("r/a", 0), ("r/a", 1)];
    let all: Vec<_> =
        all.iter().zip(1..).map(|((name, version), id)| line(id, name, *version)).collect();
    assert_eq!(seen(None, Stretch::After(0), 100), all);
    assert_eq!(seen(None, Stretch::After(3), 1), all[3..4]);
    assert_eq!(seen(None, Stretch::Before(None), 2), all[3..]);
    assert_eq!(seen(None, Stretch::Before(Some(3)), 5), all[..2]);
    assert_eq!(seen(Some(&b), Stretch::After(0), 5), all[1..2]);
    assert_eq!(seen(Some(&a), Stretch::Before(Some(4)), 1), all[2..3]);
    let due = |at, from: Option<&Gun>| storage.due(at, from, 1).unwrap();
    assert_eq!(due(start(), None), std::slice::from_ref(&b));
    assert_eq!(due(start(), Some(&b)), std::slice::from_ref(&a));
    assert!(due(OffsetDateTime::UNIX_EPOCH, None).is_empty());
}

#[test]
fn keys_stay_and_those_that_no_root_names_do_not_pile_up() {
    let world = World::new();
    let storage = world.storage();
    let key = |at: i64| StoredKey {
        role: ServerRole::Snapshot,
        id: KeyId::parse(&format!("{at:064x}")).unwrap(),
        sealed: vec![7; 10],
        made: start() + Duration::seconds(at),
        named: false,
    };
    let a = gun("r/a");
    for at in [2, 1] {
        storage.add_key(&a, key(at)).unwrap();
    }
    assert_eq!(storage.keys(&a).unwrap(), [key(1), key(2)]);
    let mut naming = publication("r/a", None, vec![file("timestamp", 1, "x")]);
    naming.named_keys = vec![key(1).id];
    storage.publish(naming).unwrap();
    storage.delete(&a, start()).unwrap();
    for at in 3..30 {
        storage.add_key(&a, key(at)).unwrap();
    }
    let kept = storage.keys(&a).unwrap();
    assert!(kept.len() == 9 && kept[0] == StoredKey { named: true, ..key(1) }, "{kept:?}");
    assert!(!format!("{kept:?}").contains("7, 7"));
    assert_eq!(storage.keys(&gun("r")).unwrap(), []);
}

#[test]
fn large_files_are_cut_and_old_ones_go() {
    let world = World::new();
    let (storage, a) = (world.storage(), gun("r/a"));
    let large = |version: u8| vec![version; 1 << 20];
    let mut after = None;
    for version in 1..=100 {
        let mut files =
            vec![file("timestamp", version, format!("t{version}")), file("root", version, "r")];
        if version <= 6 {
            let version = u8::try_from(version).unwrap();
            files.push(file("targets", u64::from(version), large(version)));
        }
        for file in &mut files {
            file.stored = start() + Duration::minutes(i64::try_from(version).unwrap());
        }
        storage.publish(publication("r/a", after, files)).unwrap();
        after = Some(version);
    }
    let newest = storage.newest(&a, &Role::Targets).unwrap().unwrap();
    assert!(newest.bytes == large(6) && newest.version == 6);
    let kept = |role: Role| {
        (1..=100).filter(|v| storage.version(&a, &role, *v).unwrap().is_some()).collect::<Vec<_>>()
    };
    assert_eq!(kept(Role::Targets), [2, 3, 4, 5, 6]);
    assert_eq!(kept(Role::Timestamp), (84..=100).collect::<Vec<_>>());
    assert_eq!(kept(Role::Root).len(), 100);
    assert_eq!(world.pieces(&a), 5 * 4 + 17 + 100);
    assert_eq!(storage.changes(None, Stretch::After(0), 1000).unwrap().len(), 100);
}

#[test]
fn publishers_at_the_same_time_are_all_answered() {
    let world = World::new();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let storage = world.storage();
            scope.spawn(move || {
                let name = format!("r/{}", writer / 2);
                for _ in 0..10 {
                    // Two writers for each name: exactly one of both gets each version.
                    let known = storage.newest(&gun(&name), &Role::Timestamp).unwrap();
                    let known = known.map(|file| file.version);
                    let version = known.unwrap_or(0) + 1;
                    let files = vec![file("timestamp", version, format!("{writer} {version}"))];
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
    let changes = world.storage().changes(None, Stretch::After(0), 1000).unwrap();
    assert!(changes.iter().map(|change| change.id).eq(1..=changes.len() as u64));
    for name in 0..4 {
        let name = format!("r/{name}");
        let versions: Vec<_> =
            changes.iter().filter(|one| one.gun == name).map(|one| one.version).collect();
        assert!(versions.iter().copied().eq(1..=versions.len() as u64), "{versions:?}");
    }
}
