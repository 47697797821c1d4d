use std::cell::RefCell;

use brig_pki::signing::{Curve, PublisherCertificate, SigningKey};
use brig_trust::Key;

use super::*;

/// A repository's owner and the server's keys, in memory.
struct World {
    gun: Gun,
    now: OffsetDateTime,
    root_key: SigningKey,
    root_wrapped: Key,
    targets_key: SigningKey,
    server: RefCell<Vec<(ServerRole, SigningKey)>>,
}

impl Keys for World {
    fn held(&self, role: ServerRole, ids: &[KeyId]) -> Result<Vec<ServerKey>, Fault> {
        let again = |key: &SigningKey| SigningKey::from_der(&key.to_pkcs8().unwrap()).unwrap();
        let server = self.server.borrow();
        let held = server.iter().filter(|(one, _)| *one == role).map(|(_, key)| {
            let public = Key::of(key).unwrap();
            ServerKey { id: public.id(), public, private: again(key) }
        });
        Ok(held.filter(|key| ids.contains(&key.id)).collect())
    }
}

fn key() -> SigningKey {
    SigningKey::generate(Curve::P256).unwrap()
}

fn signed<T: Document>(document: T, role: &str, keys: &[&SigningKey]) -> Bytes {
    let ids: Vec<KeyId> = keys.iter().map(|key| Key::of(key).unwrap().id()).collect();
    let pairs: Vec<_> = ids.iter().zip(keys.iter().copied()).collect();
    let signed = Signed::sign(document, &Role::parse(role).unwrap(), &pairs).unwrap();
    Bytes::copy_from_slice(signed.raw())
}

impl World {
    fn new() -> Self {
        let (gun, now) = (Gun::parse("reg.example/team/app").unwrap(), OffsetDateTime::now_utc());
        let root_key = key();
        let pem = PublisherCertificate::issue(gun.as_str(), &root_key, now).unwrap();
        let server = [ServerRole::Snapshot, ServerRole::Timestamp].map(|role| (role, key()));
        Self {
            gun,
            now,
            root_wrapped: Key::from_certificate(pem.as_bytes()).unwrap(),
            root_key,
            targets_key: key(),
            server: RefCell::new(server.into()),
        }
    }

    fn server_key(&self, role: ServerRole) -> Key {
        let server = self.server.borrow();
        Key::of(&server.iter().rfind(|(one, _)| *one == role).unwrap().1).unwrap()
    }

    fn root(&self, version: u64) -> Root {
        let mut root = Root::new(
            Expires::in_days(self.now, Root::DAYS),
            self.root_wrapped.clone(),
            Key::of(&self.targets_key).unwrap(),
            self.server_key(ServerRole::Snapshot),
            self.server_key(ServerRole::Timestamp),
        );
        root.version = version;
        root
    }

    fn sign_root(&self, root: Root) -> Bytes {
        let id = self.root_wrapped.id();
        let signed = Signed::sign(root, &Role::Root, &[(&id, &self.root_key)]).unwrap();
        Bytes::copy_from_slice(signed.raw())
    }

    fn targets(&self, version: u64) -> Targets {
        Targets::new(Expires::in_days(self.now, Targets::DAYS), version)
    }

    fn sign_targets(&self, targets: Targets) -> Bytes {
        signed(targets, "targets", &[&self.targets_key])
    }

    fn try_publish(
        &self,
        current: Option<&Repository>,
        files: &[(&str, Bytes)],
    ) -> Result<Repository, Fault> {
        let parts = files
            .iter()
            .map(|(name, content)| Part { filename: (*name).to_owned(), content: content.clone() });
        let upload = Upload::read(parts.collect())?;
        let publication = publish(&self.gun, current, &upload, self, self.now)?;
        Ok(apply(current, publication))
    }

    fn first(&self) -> Repository {
        let files = [
            ("root", self.sign_root(self.root(1))),
            ("targets.json", self.sign_targets(self.targets(2))),
        ];
        self.try_publish(None, &files).unwrap()
    }
}

fn apply(current: Option<&Repository>, publication: Publication) -> Repository {
    let mut files = current.map(|current| current.files.clone()).unwrap_or_default();
    let of = |role: Role| publication.files.iter().find(|file| file.role == role).cloned();
    let timestamp = of(Role::Timestamp).unwrap();
    let snapshot = of(Role::Snapshot).or(current.map(|one| one.snapshot.clone())).unwrap();
    for file in publication.files {
        if !matches!(file.role, Role::Snapshot | Role::Timestamp) {
            files.insert(file.role.clone(), file);
        }
    }
    Repository { timestamp, snapshot, files, due: publication.due }
}

/// What an upload breaks and why.
fn reason(result: Result<Repository, Fault>) -> (String, String) {
    let fault = result.unwrap_err();
    match fault.reason() {
        Some((name, text)) => (name.to_owned(), text.to_owned()),
        None => (fault.code().to_owned(), String::new()),
    }
}

#[test]
fn what_is_published_verifies() {
    let world = World::new();
    let first = world.first();
    assert_eq!((first.timestamp.version, first.snapshot.version), (1, 1));
    let timestamp = Signed::<Timestamp>::parse(&first.timestamp.bytes, &Role::Timestamp).unwrap();
    let root = world.root(1);
    timestamp.verify(&root.role_keys(&Role::Timestamp).unwrap()).unwrap();
    timestamp.document.snapshot().unwrap().check("snapshot", &first.snapshot.bytes).unwrap();
    let snapshot = Signed::<Snapshot>::parse(&first.snapshot.bytes, &Role::Snapshot).unwrap();
    snapshot.verify(&root.role_keys(&Role::Snapshot).unwrap()).unwrap();
    for (role, file) in &first.files {
        snapshot.document.meta[role].check(role.as_str(), &file.bytes).unwrap();
    }
    // An upload of nothing makes new ones of both.
    let second = world.try_publish(Some(&first), &[]).unwrap();
    assert_eq!((second.timestamp.version, second.snapshot.version), (2, 2));
    assert_eq!(second.files, first.files);
    let refused = reason(world.try_publish(None, &[]));
    assert_eq!(refused, ("ErrValidation".to_owned(), NO_ROOT.to_owned()));
}

#[test]
fn delegations_follow_their_parents() {
    let world = World::new();
    let first = world.first();
    let (alice, deep) = (key(), key());
    let role = |name: &str| Role::parse(name).unwrap();
    let mut targets = world.targets(3);
    targets.delegate(&role("targets/alice"), &[Key::of(&alice).unwrap()], &[String::new()]);
    let mut of_alice = world.targets(1);
    of_alice.delegate(&role("targets/alice/deep"), &[Key::of(&deep).unwrap()], &["x".to_owned()]);
    let files = [
        ("targets/alice/deep", signed(world.targets(1), "targets/alice/deep", &[&deep])),
        ("targets/alice", signed(of_alice, "targets/alice", &[&alice])),
        ("targets", world.sign_targets(targets)),
    ];
    let second = world.try_publish(Some(&first), &files).unwrap();
    assert_eq!(second.files.len(), 4);
    // Later one of them alone: its parents come from the store. Versions may jump.
    let alone = [("targets/alice/deep", signed(world.targets(9), "targets/alice/deep", &[&deep]))];
    let third = world.try_publish(Some(&second), &alone).unwrap();
    assert_eq!(third.files[&role("targets/alice/deep")].version, 9);
    for (name, by) in [
        ("targets/alice/deep", &alice),
        ("targets/bob", &alice),
        ("targets/alice/other", &alice),
        ("targets/bob/deep", &deep),
    ] {
        let files = [(name, signed(world.targets(10), name, &[by]))];
        assert_eq!(reason(world.try_publish(Some(&third), &files)).0, "ErrBadTargets", "{name}");
    }
}

/// What it is, what is stored, what is sent, and the name of what that breaks.
type Case<'a> = (&'a str, Option<&'a Repository>, Vec<(&'a str, Bytes)>, &'a str);

#[test]
fn each_bad_upload_is_refused_for_its_reason() {
    let world = World::new();
    let first = world.first();
    let good_root = || world.sign_root(world.root(2));
    let stranger = World::new();
    let mut expired = world.targets(3);
    expired.expires = Expires::in_days(world.now, -1);
    let mut expired_root = world.root(2);
    expired_root.expires = Expires::in_days(world.now, -1);
    let mut renamed = world.targets(3);
    renamed.targets.insert("v1".to_owned(), FileMeta::of_image([1; 32], 1));
    let tampered = String::from_utf8(world.sign_targets(renamed).to_vec()).unwrap();
    let tampered = tampered.replace("\"v1\"", "\"v2\"");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let other_type = signed(
        Timestamp::new(Expires::in_days(world.now, 1), 3, FileMeta::of(b"")),
        "targets",
        &[&world.targets_key],
    );
    let snapshot = |key: &SigningKey, change: fn(&mut Snapshot)| {
        let mut snapshot = Snapshot::new(Expires::in_days(world.now, 9), 2, BTreeMap::new());
        for (role, file) in &first.files {
            snapshot.meta.insert(role.clone(), FileMeta::of(&file.bytes));
        }
        change(&mut snapshot);
        signed(snapshot, "snapshot", &[key])
    };
    let server = world.server.borrow();
    let own = &server[0].1;
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let cases: Vec<Case<'_>> = vec![
        ("no name", Some(&first), vec![("", world.sign_targets(world.targets(3)))], "NO_FILENAME"),
        ("no role", Some(&first), vec![("tragets", text("{}"))], "INVALID_ROLE"),
        ("a path", Some(&first), vec![("targets/../root", text("{}"))], "INVALID_ROLE"),
        ("not JSON", Some(&first), vec![("targets", text("{"))], "MALFORMED_JSON"),
        ("nothing signed", Some(&first), vec![("targets", text("{}"))], "MALFORMED_JSON"),
        ("deep JSON", Some(&first), vec![("targets", text(&deep))], "MALFORMED_JSON"),
        (
            "no version",
            Some(&first),
            vec![(
                "targets",
                text(r#"{"signed":{"_type":"Targets","expires":"2030-01-01T00:00:00Z"}}"#),
            )],
            "MALFORMED_JSON",
        ),
        (
            "twice",
            Some(&first),
            vec![
                ("targets", world.sign_targets(world.targets(3))),
                ("targets.json", world.sign_targets(world.targets(4))),
            ],
            "ErrValidation",
        ),
        (
            "only targets",
            None,
            vec![("targets", world.sign_targets(world.targets(1)))],
            "ErrValidation",
        ),
        ("only root", None, vec![("root", world.sign_root(world.root(1)))], "ErrValidation"),
        ("first root 3", None, vec![("root", world.sign_root(world.root(3)))], "ErrBadRoot"),
        ("root jumps", Some(&first), vec![("root", world.sign_root(world.root(3)))], "ErrBadRoot"),
        (
            "another owner",
            Some(&first),
            vec![("root", stranger.sign_root(stranger.root(2)))],
            "ErrBadRoot",
        ),
        ("expired root", Some(&first), vec![("root", world.sign_root(expired_root))], "ErrBadRoot"),
        (
            "unsigned root",
            Some(&first),
            vec![("root", signed(world.root(2), "root", &[]))],
            "ErrBadRoot",
        ),
        (
            "wrong key",
            Some(&first),
            vec![("targets", stranger.sign_targets(world.targets(3)))],
            "ErrBadTargets",
        ),
        (
            "no signature",
            Some(&first),
            vec![("targets", signed(world.targets(3), "targets", &[]))],
            "ErrBadTargets",
        ),
        ("tampered", Some(&first), vec![("targets", text(&tampered))], "ErrBadTargets"),
        ("expired", Some(&first), vec![("targets", world.sign_targets(expired))], "ErrBadTargets"),
        ("another type", Some(&first), vec![("targets", other_type)], "ErrBadTargets"),
        (
            "foreign snapshot",
            Some(&first),
            vec![("snapshot", snapshot(&stranger.targets_key, |_| {}))],
            "ErrBadSnapshot",
        ),
        (
            "snapshot of another file",
            Some(&first),
            vec![(
                "snapshot",
                snapshot(own, |s| {
                    s.meta.insert(Role::Targets, FileMeta::of(b"other"));
                }),
            )],
            "ErrBadSnapshot",
        ),
        (
            "snapshot before the root",
            Some(&first),
            vec![("snapshot", snapshot(own, |_| {})), ("root", good_root())],
            "ErrBadSnapshot",
        ),
        (
            "expired snapshot",
            Some(&first),
            vec![(
                "snapshot",
                snapshot(own, |s| {
                    s.expires = Expires(OffsetDateTime::UNIX_EPOCH);
                }),
            )],
            "ErrBadSnapshot",
        ),
    ];
    for (what, current, files, expected) in cases {
        assert_eq!(reason(world.try_publish(current, &files)).0, expected, "{what}");
    }
    // A sent timestamp counts for nothing.
    let timestamp = Timestamp::new(Expires::in_days(world.now, 999), 77, FileMeta::of(b""));
    let files = [("timestamp", signed(timestamp, "timestamp", &[own]))];
    assert_eq!(world.try_publish(Some(&first), &files).unwrap().timestamp.version, 2);
    // The owner's own snapshot is taken as it is.
    let files = [("snapshot", snapshot(own, |_| {}))];
    assert_eq!(world.try_publish(Some(&first), &files).unwrap().snapshot.bytes, files[0].1);
}

#[test]
fn without_its_keys_the_server_signs_nothing() {
    let world = World::new();
    let first = world.first();
    let rotated = |role: Role| {
        let mut root = world.root(2);
        root.set_key(role, Key::of(&key()).unwrap());
        [("root", world.sign_root(root))]
    };
    let refused = reason(world.try_publish(Some(&first), &rotated(Role::Snapshot)));
    assert_eq!(refused, ("ErrBadHierarchy".to_owned(), NO_SNAPSHOT_KEY.to_owned()));
    let refused = reason(world.try_publish(Some(&first), &rotated(Role::Timestamp)));
    assert_eq!(refused, ("ErrBadRoot".to_owned(), NO_TIMESTAMP_KEY.to_owned()));
    // Targets of a key that the new root does not name.
    let refused = reason(world.try_publish(Some(&first), &rotated(Role::Targets)));
    assert_eq!(refused.0, "ErrBadTargets");
    // A key that was made and is not named yet signs nothing; once it is, it does.
    world.server.borrow_mut().push((ServerRole::Snapshot, key()));
    let files = [("root", world.sign_root(world.root(2)))];
    let second = world.try_publish(Some(&first), &files).unwrap();
    let snapshot = Signed::<Snapshot>::parse(&second.snapshot.bytes, &Role::Snapshot).unwrap();
    snapshot.verify(&world.root(2).role_keys(&Role::Snapshot).unwrap()).unwrap();
    assert!(snapshot.verify(&world.first_snapshot_keys(&first)).is_err());
}

impl World {
    fn first_snapshot_keys(&self, _: &Repository) -> RoleKeys<'static> {
        RoleKeys { role: Role::Snapshot, keys: Vec::new(), threshold: 1 }
    }
}

#[test]
fn what_ends_soon_is_signed_anew() {
    let world = World::new();
    let first = world.first();
    let ahead = (TIMESTAMP_AHEAD, SNAPSHOT_AHEAD);
    let renewed = |now| renew(&world.gun, &first, &world, now, ahead).unwrap();
    assert!(renewed(world.now + Duration::days(6)).is_none());
    let later = renewed(world.now + Duration::days(8)).unwrap();
    let roles: Vec<_> = later.files.iter().map(|file| (file.role.as_str(), file.version)).collect();
    assert_eq!(roles, [("timestamp", 2)]);
    assert_eq!(later.after, Some(1));
    let much_later = renewed(world.now + Duration::days(Snapshot::DAYS - 29)).unwrap();
    let roles: Vec<_> =
        much_later.files.iter().map(|file| (file.role.as_str(), file.version)).collect();
    assert_eq!(roles, [("snapshot", 2), ("timestamp", 2)]);
    world.server.borrow_mut().clear();
    assert!(
        renew(&world.gun, &first, &world, world.now + Duration::days(99), ahead).unwrap().is_none()
    );
}
