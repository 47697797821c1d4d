//! A repository on a server that lies: what is believed, what is refused, and why.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use brig_pki::signing::{Curve, SigningKey};
use brig_trust::cache::Cache;
use brig_trust::keystore::{KeyInfo, KeyStore, KeyStoreError, Passphrases, Wanted};
use brig_trust::metadata::Expires;
use brig_trust::remote::{Remote, RemoteError, RemoteFile, ServerRole};
use brig_trust::{
    Change, Delegation, Document, FileMeta, Gun, Keeper, Key, KeyId, Pinning, Publisher, Reading,
    Repository, Role, Root, RootCheck, Signed, Snapshot, Stale, Targets, Timestamp, UpdateError,
    read_offline, update,
};
use brig_types::secret::SecretString;
use time::{Duration, OffsetDateTime};

/// A trust server in memory, with its keys in the open: what an attacker would have.
struct Server {
    snapshot: SigningKey,
    timestamp: SigningKey,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    newest: BTreeMap<Role, Vec<u8>>,
    all: BTreeMap<String, Vec<u8>>,
    down: bool,
    asked: Vec<String>,
}

impl Server {
    fn new() -> Self {
        let key = || SigningKey::generate(Curve::P256).unwrap();
        Self { snapshot: key(), timestamp: key(), state: Mutex::default() }
    }

    fn put<T: Document>(&self, role: &Role, file: &Signed<T>) {
        let mut state = self.state.lock().unwrap();
        let raw = file.raw().to_vec();
        let hash = file.meta().sha256().unwrap();
        state.all.insert(RemoteFile::Hash(role.clone(), hash).name(), raw.clone());
        let version = file.document.version();
        state.all.insert(RemoteFile::Version(role.clone(), version).name(), raw.clone());
        state.newest.insert(role.clone(), raw);
    }

    fn raw(&self, role: &Role) -> Vec<u8> {
        self.state.lock().unwrap().newest[role].clone()
    }

    fn read<T: Document>(&self, role: &Role) -> Signed<T> {
        Signed::parse(&self.raw(role), role).unwrap()
    }

    /// A snapshot of everything, changed by `with`, and a timestamp of it.
    fn seal_with(&self, with: impl FnOnce(&mut Snapshot), timestamp: impl FnOnce(&mut Timestamp)) {
        let now = OffsetDateTime::now_utc();
        let (meta, version) = {
            let state = self.state.lock().unwrap();
            let meta: BTreeMap<Role, FileMeta> = state
                .newest
                .iter()
                .filter(|(role, _)| !matches!(role, Role::Snapshot | Role::Timestamp))
                .map(|(role, raw)| (role.clone(), FileMeta::of(raw)))
                .collect();
            let old = state.newest.get(&Role::Snapshot);
            let version = old.map_or(0, |raw| {
                Signed::<Snapshot>::parse(raw, &Role::Snapshot).unwrap().document.version
            });
            (meta, version + 1)
        };
        let mut snapshot = Snapshot::new(Expires::in_days(now, 1000), version, meta);
        with(&mut snapshot);
        let id = Key::of(&self.snapshot).unwrap().id();
        let snapshot = Signed::sign(snapshot, &Role::Snapshot, &[(&id, &self.snapshot)]).unwrap();
        self.put(&Role::Snapshot, &snapshot);
        self.stamp(snapshot.meta(), version, timestamp);
    }

    fn stamp(&self, meta: FileMeta, version: u64, with: impl FnOnce(&mut Timestamp)) {
        let now = OffsetDateTime::now_utc();
        let mut document = Timestamp::new(Expires::in_days(now, 14), version, meta);
        with(&mut document);
        let id = Key::of(&self.timestamp).unwrap().id();
        let signed = Signed::sign(document, &Role::Timestamp, &[(&id, &self.timestamp)]).unwrap();
        self.put(&Role::Timestamp, &signed);
    }

    fn seal(&self) {
        self.seal_with(|_| {}, |_| {});
    }

    fn down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

impl Remote for Server {
    async fn fetch(
        &self,
        _: &Gun,
        file: &RemoteFile,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let mut state = self.state.lock().unwrap();
        state.asked.push(file.name());
        if state.down {
            return Err(RemoteError::Status(503));
        }
        let found = match file {
            RemoteFile::Newest(role) => state.newest.get(role),
            file => state.all.get(&file.name()),
        };
        match found {
            Some(content) if content.len() > limit => {
                Err(RemoteError::TooLarge { name: file.name(), limit })
            }
            found => Ok(found.cloned()),
        }
    }

    async fn publish(&self, _: &Gun, files: &[(Role, Vec<u8>)]) -> Result<(), RemoteError> {
        for (role, raw) in files {
            match role {
                Role::Root => self.put(role, &Signed::<Root>::parse(raw, role).unwrap()),
                Role::Snapshot => self.put(role, &Signed::<Snapshot>::parse(raw, role).unwrap()),
                role => self.put(role, &Signed::<Targets>::parse(raw, role).unwrap()),
            }
        }
        if files.iter().any(|(role, _)| *role == Role::Snapshot) {
            let snapshot = self.read::<Snapshot>(&Role::Snapshot);
            self.stamp(snapshot.meta(), snapshot.document.version, |_| {});
        } else {
            self.seal();
        }
        Ok(())
    }

    async fn server_key(&self, _: &Gun, role: ServerRole) -> Result<Key, RemoteError> {
        Ok(Key::of(match role {
            ServerRole::Snapshot => &self.snapshot,
            ServerRole::Timestamp => &self.timestamp,
        })
        .unwrap())
    }

    async fn rotate_server_key(&self, gun: &Gun, role: ServerRole) -> Result<Key, RemoteError> {
        self.server_key(gun, role).await
    }

    async fn delete(&self, _: &Gun) -> Result<(), RemoteError> {
        *self.state.lock().unwrap() = State::default();
        Ok(())
    }

    fn host(&self) -> &str {
        "memory"
    }
}

struct NoPassphrase;

impl Passphrases for NoPassphrase {
    fn passphrase(&mut self, _: &Wanted<'_>) -> Result<SecretString, KeyStoreError> {
        Ok(SecretString::default())
    }
}

/// A server with one repository, its publisher, and a reader that has seen it once.
struct Stage {
    server: Server,
    gun: Gun,
    keys: KeyStore,
    signer: KeyId,
    pinning: Pinning,
    publisher: tempfile::TempDir,
    reader: tempfile::TempDir,
}

fn image(tag: u8) -> FileMeta {
    FileMeta::of_image([tag; 32], 528)
}

impl Stage {
    async fn new() -> Self {
        let publisher = tempfile::tempdir().unwrap();
        let mut keys = KeyStore::new(publisher.path());
        let key = SigningKey::generate(Curve::P256).unwrap();
        let public = Key::of(&key).unwrap();
        let signer = keys.add(key, &KeyInfo::signer("nigel"), &mut NoPassphrase).unwrap();
        let mut stage = Self {
            server: Server::new(),
            gun: Gun::parse("reg:5000/team/app").unwrap(),
            keys,
            signer,
            pinning: Pinning::default(),
            publisher,
            reader: tempfile::tempdir().unwrap(),
        };
        let nigel = Role::signer("nigel").unwrap();
        let delegate = |role: &Role| Change::Delegate {
            role: role.clone(),
            keys: vec![public.clone()],
            paths: vec![String::new()],
        };
        let add =
            |role: &Role| Change::Add { role: role.clone(), name: "1".into(), meta: image(1) };
        let releases = Role::releases();
        let changes = [delegate(&nigel), delegate(&releases), add(&nigel), add(&releases)];
        stage.publisher().initialise(&changes).await.unwrap();
        stage
    }

    fn reading(&self) -> Reading<'_> {
        Reading {
            pinning: &self.pinning,
            stale: Stale::UseRemembered,
            root: RootCheck::WhenNeeded,
            now: OffsetDateTime::now_utc(),
        }
    }

    fn publisher(&mut self) -> Publisher<'_, Server> {
        Publisher {
            remote: &self.server,
            cache: Box::leak(Box::new(Cache::new(self.publisher.path()))),
            gun: &self.gun,
            keys: &mut self.keys,
            passphrases: Box::leak(Box::new(NoPassphrase)),
            reading: Reading {
                pinning: &self.pinning,
                stale: Stale::UseRemembered,
                root: RootCheck::WhenNeeded,
                now: OffsetDateTime::now_utc(),
            },
        }
    }

    async fn change(&mut self, changes: &[Change]) {
        let mut publisher = self.publisher();
        let known = publisher.read().await.unwrap();
        publisher.publish(&known, changes).await.unwrap();
    }

    async fn sign(&mut self, tag: &str, meta: FileMeta) {
        let roles = [Role::signer("nigel").unwrap(), Role::releases()];
        let changes = roles.map(|role| Change::Add { role, name: tag.into(), meta: meta.clone() });
        self.change(&changes).await;
    }

    async fn read(&self) -> Result<Repository, UpdateError> {
        update(&self.server, &Cache::new(self.reader.path()), &self.gun, &self.reading()).await
    }

    async fn refused(&self) -> String {
        brig_types::error::chain(&self.read().await.unwrap_err())
    }

    /// Signs a document with a key of the publisher's.
    fn by<T: Document>(&self, document: T, role: &Role, id: &KeyId) -> Signed<T> {
        Signed::sign(document, role, &[(id, self.keys.opened(id).unwrap())]).unwrap()
    }
}

#[tokio::test]
async fn what_was_signed_is_found_with_as_few_questions_as_can_be() {
    let mut stage = Stage::new().await;
    stage.server.asked();
    let first = stage.read().await.unwrap();
    assert_eq!(first.released("1").unwrap().meta, image(1));
    assert_eq!(first.released("2").unwrap_err().to_string(), "No valid trust data for 2");
    assert_eq!(stage.server.asked().len(), 6);
    stage.read().await.unwrap();
    assert_eq!(stage.server.asked(), ["timestamp.json"]);
    stage.sign("2", image(2)).await;
    stage.server.asked();
    assert_eq!(stage.read().await.unwrap().released("2").unwrap().meta, image(2));
    assert_eq!(stage.server.asked().len(), 4);
    // Signing the same again changes nothing, and asks for no key.
    let mut empty = KeyStore::new(stage.reader.path());
    std::mem::swap(&mut stage.keys, &mut empty);
    stage.sign("2", image(2)).await;
    std::mem::swap(&mut stage.keys, &mut empty);
}

#[tokio::test]
async fn a_tag_that_only_a_signer_has_is_not_released() {
    let mut stage = Stage::new().await;
    let role = Role::signer("nigel").unwrap();
    stage.change(&[Change::Add { role, name: "own".into(), meta: image(3) }]).await;
    let text = stage.read().await.unwrap().released("own").unwrap_err().to_string();
    assert_eq!(text, "No trust data for own");
    // What targets itself has is released; what the releases say comes first.
    stage.change(&[Change::Add { role: Role::Targets, name: "1".into(), meta: image(9) }]).await;
    stage.change(&[Change::Add { role: Role::Targets, name: "t".into(), meta: image(9) }]).await;
    let read = stage.read().await.unwrap();
    assert_eq!(read.released("1").unwrap().meta, image(1));
    assert_eq!(read.released("t").unwrap().meta, image(9));
}

#[tokio::test]
async fn old_files_are_no_news() {
    let mut stage = Stage::new().await;
    let old = stage.server.state.lock().unwrap().clone();
    stage.sign("1", image(2)).await;
    stage.read().await.unwrap();
    *stage.server.state.lock().unwrap() = old;
    assert_eq!(stage.refused().await, "version 1 is lower than current version 2");
    // An old snapshot under a new timestamp.
    let meta = stage.server.read::<Snapshot>(&Role::Snapshot).meta();
    stage.server.stamp(meta, 9, |_| {});
    assert_eq!(stage.refused().await, "version 1 is lower than current version 2");
    // An old file under a new snapshot.
    stage.server.seal_with(|snapshot| snapshot.version = 9, |timestamp| timestamp.version = 10);
    assert_eq!(stage.refused().await, "version 1 is lower than current version 2");
}

#[tokio::test]
async fn files_of_different_times_do_not_mix() {
    let mut stage = Stage::new().await;
    let releases = Role::releases();
    let before = stage.server.raw(&releases);
    stage.sign("1", image(2)).await;
    let now = stage.server.raw(&releases);
    // The old file under the new one's name, as the hash of the new one was asked for.
    let name = RemoteFile::Hash(releases.clone(), FileMeta::of(&now).sha256().unwrap()).name();
    stage.server.state.lock().unwrap().all.insert(name.clone(), before);
    assert!(
        stage
            .refused()
            .await
            .starts_with("sha256 checksum for targets/releases did not match: expected ")
    );
    let mut longer = now.clone();
    longer.push(b' ');
    stage.server.state.lock().unwrap().all.insert(name.clone(), longer);
    assert!(
        stage.refused().await.starts_with("targets/releases has "),
        "{}",
        stage.refused().await
    );
    stage.server.state.lock().unwrap().all.remove(&name);
    assert!(stage.refused().await.contains("does not have targets/releases"));
    stage.server.state.lock().unwrap().all.insert(name, now);
    stage.read().await.unwrap();
    // A snapshot that another one was stamped for.
    let stamped = stage.server.read::<Timestamp>(&Role::Timestamp);
    stage.sign("1", image(3)).await;
    let snapshot = stage.server.read::<Snapshot>(&Role::Snapshot);
    let hash = stamped.document.snapshot().unwrap().sha256().unwrap();
    let name = RemoteFile::Hash(Role::Snapshot, hash).name();
    let reader = tempfile::tempdir().unwrap();
    stage.reader = reader;
    stage.server.put(&Role::Timestamp, &stamped);
    stage.server.state.lock().unwrap().all.insert(name, snapshot.raw().to_vec());
    assert!(stage.refused().await.starts_with("sha256 checksum for snapshot did not match"));
}

#[tokio::test]
async fn wrong_keys_and_too_few_signatures() {
    let stage = Stage::new().await;
    let stranger = SigningKey::generate(Curve::P256).unwrap();
    let id = Key::of(&stranger).unwrap().id();
    let good = stage.server.read::<Timestamp>(&Role::Timestamp);
    let theirs = Key::of(&stage.server.timestamp).unwrap().id();
    for claimed in [&id, &theirs] {
        let document = good.document.clone();
        let forged = Signed::sign(document, &Role::Timestamp, &[(claimed, &stranger)]).unwrap();
        stage.server.put(&Role::Timestamp, &forged);
        assert_eq!(stage.refused().await, "valid signatures did not meet threshold for timestamp");
    }
    let unsigned = Signed::sign(good.document.clone(), &Role::Timestamp, &[]).unwrap();
    stage.server.put(&Role::Timestamp, &unsigned);
    assert_eq!(stage.refused().await, "valid signatures did not meet threshold for timestamp");
    stage.server.put(&Role::Timestamp, &good);
    // Targets are fatal; a delegation is left out.
    let targets = stage.server.read::<Targets>(&Role::Targets);
    let forged =
        Signed::sign(targets.document.clone(), &Role::Targets, &[(&id, &stranger)]).unwrap();
    stage.server.put(&Role::Targets, &forged);
    stage.server.seal();
    assert_eq!(stage.refused().await, "valid signatures did not meet threshold for targets");
    stage.server.put(&Role::Targets, &targets);
    let releases = Role::releases();
    let file = stage.server.read::<Targets>(&releases);
    let forged = Signed::sign(file.document.clone(), &releases, &[(&id, &stranger)]).unwrap();
    stage.server.put(&releases, &forged);
    stage.server.seal();
    let read = stage.read().await.unwrap();
    assert_eq!(
        read.warnings,
        [
            "Error getting targets/releases: valid signatures did not meet threshold for targets/releases"
        ]
    );
    assert_eq!(read.released("1").unwrap_err().to_string(), "No trust data for 1");
}

#[tokio::test]
async fn what_has_run_out() {
    let mut stage = Stage::new().await;
    let past = Expires(OffsetDateTime::now_utc() - Duration::DAY);
    stage.read().await.unwrap();
    stage.server.seal_with(|_| {}, |timestamp| timestamp.expires = past);
    assert!(stage.refused().await.starts_with("timestamp expired at "));
    stage.server.seal_with(|snapshot| snapshot.expires = past, |_| {});
    assert!(stage.refused().await.starts_with("snapshot expired at "));
    let releases = Role::releases();
    let mut document = stage.server.read::<Targets>(&releases).document;
    document.expires = past;
    document.version += 1;
    let late = stage.by(document, &releases, &stage.signer.clone());
    stage.server.put(&releases, &late);
    stage.server.seal();
    let read = stage.read().await.unwrap();
    assert!(
        read.warnings[0]
            .starts_with("Error getting targets/releases: targets/releases expired at ")
    );
    assert!(read.released("1").is_err());
    // Its signer makes it good again, and loses nothing.
    stage.sign("2", image(2)).await;
    let read = stage.read().await.unwrap();
    assert_eq!(read.released("1").unwrap().meta, image(1));
    assert_eq!(read.targets[&releases].document.version, late.document.version + 1);
}

#[tokio::test]
async fn without_the_server() {
    let stage = Stage::new().await;
    stage.server.down(true);
    assert_eq!(stage.refused().await, "unable to reach trust server at this time: 503.");
    stage.server.down(false);
    stage.read().await.unwrap();
    stage.server.down(true);
    let read = stage.read().await.unwrap();
    assert!(read.warnings[0].contains("using cached timestamp"), "{:?}", read.warnings);
    assert_eq!(read.released("1").unwrap().meta, image(1));
    let strict = Reading { stale: Stale::Refuse, ..stage.reading() };
    let cache = Cache::new(stage.reader.path());
    assert!(update(&stage.server, &cache, &stage.gun, &strict).await.is_err());
    let later = OffsetDateTime::now_utc() + Duration::days(15);
    let reading = Reading { now: later, ..stage.reading() };
    assert!(update(&stage.server, &cache, &stage.gun, &reading).await.is_err());
    // From disk alone, as long as a policy lets it.
    let offline = |now, grace| {
        let files = cache.load(&stage.gun).unwrap();
        read_offline(files, &stage.gun, now, grace)
    };
    let now = OffsetDateTime::now_utc();
    assert_eq!(offline(now, Duration::ZERO).unwrap().released("1").unwrap().meta, image(1));
    assert!(offline(later, Duration::ZERO).is_err());
    assert!(offline(later, Duration::days(2)).is_ok());
    let mut changed = cache.load(&stage.gun).unwrap();
    changed.get_mut(&Role::releases()).unwrap()[30] ^= 1;
    assert!(read_offline(changed, &stage.gun, now, Duration::ZERO).is_err());
}

#[tokio::test]
async fn roots_are_followed_and_others_are_not() {
    let mut stage = Stage::new().await;
    stage.read().await.unwrap();
    for _ in 0..3 {
        stage.publisher().rotate(&Role::Root, Keeper::Publisher).await.unwrap();
    }
    stage.sign("2", image(2)).await;
    stage.server.asked();
    let read = stage.read().await.unwrap();
    assert_eq!(read.root.document.version, 4);
    let asked = stage.server.asked();
    assert!(
        asked.contains(&"2.root.json".to_owned()) && asked.contains(&"3.root.json".to_owned()),
        "{asked:?}"
    );
    // A newcomer does not need the steps; whoever knows an older root is stopped by a gap.
    let newcomer = tempfile::tempdir().unwrap();
    let known = std::mem::replace(&mut stage.reader, newcomer);
    stage.publisher().rotate(&Role::Root, Keeper::Publisher).await.unwrap();
    stage.publisher().rotate(&Role::Root, Keeper::Publisher).await.unwrap();
    let gap = stage.server.state.lock().unwrap().all.remove("5.root.json").unwrap();
    stage.read().await.unwrap();
    stage.reader = known;
    assert!(stage.refused().await.contains("does not have trust data"));
    stage.server.state.lock().unwrap().all.insert("5.root.json".to_owned(), gap);
    stage.read().await.unwrap();
    stage.publisher().rotate(&Role::Targets, Keeper::Publisher).await.unwrap();
    stage.publisher().rotate(&Role::Snapshot, Keeper::Publisher).await.unwrap();
    stage.sign("3", image(3)).await;
    assert_eq!(stage.read().await.unwrap().released("3").unwrap().meta, image(3));
    stage.publisher().rotate(&Role::Snapshot, Keeper::Server).await.unwrap();
    stage.sign("4", image(4)).await;
    assert_eq!(stage.read().await.unwrap().released("4").unwrap().meta, image(4));

    // Another publisher's repository of the same name.
    let thief = Stage::new().await;
    stage.server = thief.server;
    assert_eq!(
        stage.refused().await,
        "could not rotate trust to a new trusted root: failed to validate data with current trusted certificates"
    );
    // A server that has nothing at all is one that is out of reach.
    stage.server = Server::new();
    let read = stage.read().await.unwrap();
    assert!(read.warnings[0].contains("using cached timestamp"), "{:?}", read.warnings);
}

#[tokio::test]
async fn delegations_sign_within_their_paths_alone() {
    let stage = Stage::new().await;
    let nigel = Role::signer("nigel").unwrap();
    let key = stage.keys.opened(&stage.signer).map(|key| Key::of(key).unwrap()).unwrap();
    // `releases` may sign `v…` only; below it `targets/releases/deep` claims everything.
    let mut targets = stage.server.read::<Targets>(&Role::Targets).document;
    targets.version += 1;
    for delegation in &mut targets.delegations.roles {
        if delegation.name == Role::releases() {
            delegation.paths = vec!["v".to_owned()];
        }
    }
    let id =
        stage.server.read::<Root>(&Role::Root).document.roles[&Role::Targets].key_ids[0].clone();
    let targets = stage.by(targets, &Role::Targets, &id);
    stage.server.put(&Role::Targets, &targets);
    let deep = Role::parse("targets/releases/deep").unwrap();
    let mut releases = stage.server.read::<Targets>(&Role::releases()).document;
    releases.version += 1;
    releases.targets.insert("v1".into(), image(1));
    releases.delegations.keys.insert(key.id(), key.clone());
    releases.delegations.roles.push(Delegation {
        key_ids: vec![key.id()],
        name: deep.clone(),
        paths: vec![String::new(), "v2".to_owned()],
        threshold: 1,
    });
    let releases = stage.by(releases, &Role::releases(), &stage.signer.clone());
    stage.server.put(&Role::releases(), &releases);
    let mut file = Targets::new(Expires::in_days(OffsetDateTime::now_utc(), 10), 1);
    for tag in ["v2", "v3", "latest"] {
        file.targets.insert(tag.into(), image(6));
    }
    let file = stage.by(file, &deep, &stage.signer.clone());
    stage.server.put(&deep, &file);
    stage.server.seal();
    let read = stage.read().await.unwrap();
    assert_eq!(read.released("v1").unwrap().meta, image(1));
    // Outside of its paths, although its file has it; `nigel` still says so, which releases nothing.
    assert_eq!(read.released("1").unwrap_err().to_string(), "No trust data for 1");
    assert_eq!(read.released("latest").unwrap_err().to_string(), "No valid trust data for latest");
    assert_eq!(read.released("v2").unwrap_err().to_string(), "No trust data for v2");
    assert_eq!(read.released("v3").unwrap_err().to_string(), "No valid trust data for v3");
    let all: Vec<_> = read.all_targets().into_iter().map(|t| (t.role, t.name)).collect();
    assert!(all.contains(&(deep.clone(), "v2".into())) && !all.contains(&(deep, "v3".into())));
    assert!(all.contains(&(nigel, "1".into())));
}

#[tokio::test]
async fn sizes_have_limits() {
    let stage = Stage::new().await;
    let huge = vec![b' '; (1 << 20) + 1];
    stage.server.state.lock().unwrap().newest.insert(Role::Timestamp, huge);
    assert!(stage.refused().await.contains("more than 1048576 bytes"));
    let deep = format!("{{\"signed\":{}{}}}", "[".repeat(1000), "]".repeat(1000)).into_bytes();
    stage.server.state.lock().unwrap().newest.insert(Role::Timestamp, deep);
    assert!(stage.refused().await.contains("nested too deeply"));
}

#[tokio::test]
async fn a_signer_who_is_removed_has_nothing_to_say() {
    let mut stage = Stage::new().await;
    let nigel = Role::signer("nigel").unwrap();
    let ids = vec![stage.signer.clone()];
    stage
        .change(&[
            Change::WithdrawKeys { role: Role::releases(), ids },
            Change::Withdraw { role: nigel.clone() },
        ])
        .await;
    let read = stage.read().await.unwrap();
    assert!(read.released("1").is_err());
    assert!(read.skipped.contains_key(&Role::releases()) && !read.targets.contains_key(&nigel));
    // The next signer begins above the file that does not count.
    let key = SigningKey::generate(Curve::P256).unwrap();
    let public = Key::of(&key).unwrap();
    stage.keys.add(key, &KeyInfo::signer("alice"), &mut NoPassphrase).unwrap();
    let role = Role::releases();
    stage
        .change(&[
            Change::Delegate { role: role.clone(), keys: vec![public], paths: vec![String::new()] },
            Change::Add { role: role.clone(), name: "2".into(), meta: image(2) },
        ])
        .await;
    let read = stage.read().await.unwrap();
    assert_eq!(read.released("2").unwrap().meta, image(2));
    assert!(read.released("1").is_err());
    assert_eq!(read.targets[&role].document.version, 2);
}

#[tokio::test]
async fn a_threshold_of_two_is_met_by_two_keys_and_not_by_one_twice() {
    let stage = Stage::new().await;
    let other = SigningKey::generate(Curve::P256).unwrap();
    let public = Key::of(&other).unwrap();
    let (releases, second) = (Role::releases(), public.id());
    let mut targets = stage.server.read::<Targets>(&Role::Targets).document;
    targets.version += 1;
    targets.delegations.keys.insert(second.clone(), public);
    for delegation in &mut targets.delegations.roles {
        if delegation.name == releases {
            delegation.key_ids.push(second.clone());
            delegation.threshold = 2;
        }
    }
    let id =
        stage.server.read::<Root>(&Role::Root).document.roles[&Role::Targets].key_ids[0].clone();
    let targets = stage.by(targets, &Role::Targets, &id);
    stage.server.put(&Role::Targets, &targets);
    let own = (&stage.signer, stage.keys.opened(&stage.signer).unwrap());
    for (signers, counts) in
        [(vec![own], false), (vec![own, own], false), (vec![own, (&second, &other)], true)]
    {
        let mut document = stage.server.read::<Targets>(&releases).document;
        document.version += 1;
        let file = Signed::sign(document, &releases, &signers).unwrap();
        stage.server.put(&releases, &file);
        stage.server.seal();
        let read = stage.read().await.unwrap();
        assert_eq!(read.released("1").is_ok(), counts, "{} signatures", signers.len());
    }
}
