use std::os::unix::fs::PermissionsExt as _;

use brig_types::id::NodeId;

use super::*;
use crate::ca::{DEFAULT_NODE_EXPIRY, RootCa};
use crate::identity::NodeIdentity;
use crate::token::NodeRole;

struct World {
    _temp: tempfile::TempDir,
    dir: CertificateDir,
    root: RootCa,
}

fn world() -> World {
    let temp = tempfile::tempdir().unwrap();
    let dir = CertificateDir::new(temp.path().join("certificates"));
    let root = RootCa::generate().unwrap();
    dir.store_roots(root.cert_pem()).unwrap();
    World { _temp: temp, dir, root }
}

impl World {
    fn pair(&self) -> (Vec<u8>, NodeKey) {
        let key = NodeKey::generate().unwrap();
        let who =
            NodeIdentity { cluster: "c".into(), role: NodeRole::Manager, node: NodeId::generate() };
        let csr = key.csr_pem().unwrap();
        (self.root.issue(&csr, &who, DEFAULT_NODE_EXPIRY).unwrap(), key)
    }
}

#[test]
fn written_files_have_their_modes_and_come_back() {
    let world = world();
    assert!(world.dir.load(None).unwrap().is_none());
    let (chain, key) = world.pair();
    let keys = StoreKeys::generate_for_manager().unwrap();
    let ring = keys.cluster.clone().unwrap();
    let place = crate::seal::Place { kind: "k", id: "i" };
    let sealed = ring.seal(place, b"x").unwrap();
    world.dir.store(&chain, &KeyFile::new(key, Some(keys))).unwrap();
    for (name, mode) in [(ROOT_FILE, 0o644), (CHAIN_FILE, 0o644), (KEY_FILE, 0o600)] {
        let found = fs::metadata(world.dir.file(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
    let stored = world.dir.load(None).unwrap().unwrap();
    assert_eq!(stored.chain_pem, chain);
    assert_eq!(stored.roots_pem, world.root.cert_pem());
    let ring = stored.key.store_keys.unwrap().cluster.unwrap();
    assert_eq!(ring.open(place, &sealed).unwrap().as_slice(), b"x");
    let names: Vec<_> = fs::read_dir(world.dir.path()).unwrap().collect();
    assert_eq!(names.len(), 3, "no leftovers");
}

#[test]
fn openssl_reads_the_key_itself() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("key.pem");
    let key = NodeKey::generate().unwrap();
    fs::write(&path, key.key_pem().expose_secret()).unwrap();
    let output = std::process::Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, key.public_key_der());
}

#[test]
fn a_crash_after_the_key_is_finished() {
    let world = world();
    let (old_chain, old_key) = world.pair();
    world.dir.store(&old_chain, &KeyFile::new(old_key, None)).unwrap();
    let (new_chain, new_key) = world.pair();
    files::write_new(&world.dir.file(NEW_CHAIN_FILE), &new_chain, 0o644).unwrap();
    world.dir.store_key(&KeyFile::new(new_key, None)).unwrap();
    assert_eq!(world.dir.load(None).unwrap().unwrap().chain_pem, new_chain);
    assert!(!world.dir.file(NEW_CHAIN_FILE).exists());
}

#[test]
fn a_crash_before_the_key_is_undone() {
    let world = world();
    let (old_chain, old_key) = world.pair();
    world.dir.store(&old_chain, &KeyFile::new(old_key, None)).unwrap();
    let (new_chain, _) = world.pair();
    files::write_new(&world.dir.file(NEW_CHAIN_FILE), &new_chain, 0o644).unwrap();
    assert_eq!(world.dir.load(None).unwrap().unwrap().chain_pem, old_chain);
    assert!(!world.dir.file(NEW_CHAIN_FILE).exists());
}

#[test]
fn foreign_headers_stay_and_locked_files_say_so() {
    let (_, key) = world().pair();
    let mut file = KeyFile::new(key, None);
    file.other.insert("raft-dek".into(), "EiA=".into());
    file.kek_version = 7;
    let text = file.to_pem().unwrap();
    assert!(text.contains("kek-version: 7\n"), "headers end before the blank line");
    let read = KeyFile::parse(text.as_bytes(), None).unwrap();
    assert_eq!(read.kek_version, 7);
    assert_eq!(read.other["raft-dek"], "EiA=");
    let locked = text.replace("PRIVATE KEY", FOREIGN_LOCKED_TAG);
    assert!(matches!(KeyFile::parse(locked.as_bytes(), None), Err(PkiError::Locked)));
    assert!(KeyFile::parse(b"garbage", None).is_err());
}

#[test]
fn foreign_chains_are_refused() {
    let world = world();
    let (chain, _) = world.pair();
    let stranger = NodeKey::generate().unwrap();
    assert!(matches!(
        world.dir.store(&chain, &KeyFile::new(stranger, None)),
        Err(PkiError::KeyMismatch)
    ));
}

#[test]
fn a_locked_file_opens_with_its_unlock_key_only() {
    let world = world();
    let (chain, key) = world.pair();
    let public = key.public_key_der();
    let mut keys = StoreKeys::generate_for_manager().unwrap();
    let before = keys.kek.clone();
    world.dir.store(&chain, &KeyFile::new(key, Some(keys.clone()))).unwrap();
    let plain = world.dir.load(None).unwrap().unwrap().key;

    let unlock = KeyEncryptionKey::generate().unwrap();
    keys.kek = unlock.clone();
    keys.locked = true;
    let locked = KeyFile { store_keys: Some(keys), kek_version: 7, ..plain };
    world.dir.store_key(&locked).unwrap();
    let text = fs::read_to_string(world.dir.file(KEY_FILE)).unwrap();
    assert!(text.starts_with("-----BEGIN BRIG ENCRYPTED PRIVATE KEY-----"), "{text}");
    for kek in [&before, &unlock] {
        assert!(!text.contains(&STANDARD.encode(kek.expose_secret())));
    }
    assert!(!text.contains(&STANDARD.encode(locked.node_key.key_der())[..40]));
    assert!(!text.contains(WRAPPING_KEY));

    assert!(matches!(world.dir.load(None), Err(PkiError::Locked)));
    let wrong = KeyEncryptionKey::generate().unwrap();
    assert!(matches!(world.dir.load(Some(&wrong)), Err(PkiError::WrongUnlockKey)));
    assert!(matches!(world.dir.load(Some(&before)), Err(PkiError::WrongUnlockKey)));
    let read = world.dir.load(Some(&unlock)).unwrap().unwrap().key;
    assert_eq!(read.node_key.public_key_der(), public);
    assert_eq!(read.kek_version, 7);
    let read = read.store_keys.unwrap();
    let rings = locked.store_keys.unwrap();
    assert!(read.locked);
    assert_eq!(read.cluster.unwrap().current_id(), rings.cluster.unwrap().current_id());
    assert_eq!(read.node.current_id(), rings.node.current_id());

    let altered = text.replace("brig-dek: Q", "brig-dek: R");
    assert_ne!(altered, text);
    assert!(KeyFile::parse(altered.as_bytes(), Some(&unlock)).is_err());
}

#[test]
fn files_of_managers_before_they_had_two_rings_are_read() {
    let (_, key) = world().pair();
    let keys = StoreKeys::generate().unwrap();
    let id = keys.node.current_id();
    let text = KeyFile::new(key, Some(keys)).to_pem().unwrap();
    let read = KeyFile::parse(text.as_bytes(), None).unwrap().store_keys.unwrap();
    assert!(read.cluster.is_none());
    assert_eq!(read.node.current_id(), id);
}

#[test]
fn a_key_that_nobody_has_seen_locks_nobody_out() {
    let (_, key) = world().pair();
    let keys = StoreKeys::generate_for_manager().unwrap();
    let id = keys.node.current_id();
    let plain = KeyFile::new(key, Some(keys.clone()));
    let unlock = || KeyEncryptionKey::generate().unwrap();
    let opens = |keys: &StoreKeys, with: Option<&KeyEncryptionKey>| {
        let file = KeyFile { store_keys: Some(keys.clone()), ..plain.clone() };
        let read = KeyFile::parse(file.to_pem().unwrap().as_bytes(), with)?;
        let read = read.store_keys.unwrap();
        assert_eq!((read.node.current_id(), read.escrow), (id, keys.escrow.clone()));
        Ok::<_, PkiError>(())
    };
    let (first, second, third) = (unlock(), unlock(), unlock());
    let unseen = keys.rewrapped(Some(first.clone()), false).unwrap();
    assert!(unseen.locked && unseen.escrow == Escrow::Beside);
    opens(&unseen, None).unwrap();
    let seen = unseen.rewrapped(Some(first.clone()), true).unwrap();
    assert!(matches!(opens(&seen, None), Err(PkiError::Locked)));
    opens(&seen, Some(&first)).unwrap();

    let rotated = seen.rewrapped(Some(second.clone()), false).unwrap();
    let again = rotated.rewrapped(Some(third.clone()), false).unwrap();
    for key in [&first, &second, &third] {
        opens(&again, Some(key)).unwrap();
    }
    assert!(matches!(opens(&again, Some(&unlock())), Err(PkiError::WrongUnlockKey)));
    let seen = again.rewrapped(Some(third.clone()), true).unwrap();
    for key in [&first, &second] {
        assert!(matches!(opens(&seen, Some(key)), Err(PkiError::WrongUnlockKey)));
    }
    opens(&seen, Some(&third)).unwrap();
    let off = seen.rewrapped(None, false).unwrap();
    assert!(!off.locked);
    opens(&off, None).unwrap();
}

#[test]
fn headers_that_could_not_be_written_again_are_refused() {
    let mut file = KeyFile::new(NodeKey::generate().unwrap(), None);
    file.other.insert("raft-dek".into(), "EiA=".into());
    let text = file.to_pem().unwrap();
    assert!(KeyFile::parse(text.as_bytes(), None).is_ok());
    let odd = text.replace("EiA=", "Ei:A=");
    assert!(matches!(KeyFile::parse(odd.as_bytes(), None), Err(PkiError::Pem { .. })));
}
