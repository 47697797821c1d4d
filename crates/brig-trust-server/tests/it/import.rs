//! Taking a repository over from Debian's notary-server.

use brig_trust::cache::Cache;
use brig_trust::keystore::{KeyStore, KeyStoreError, Passphrases, Wanted};
use brig_trust::{Pinning, Publisher, Reading, RootCheck, Stale};
use brig_trust_server::import::fetch;
use brig_trust_server::{ImportError, ImportFailure, import_into};

use brig_types::secret::SecretString;
use time::OffsetDateTime;

use crate::notary::Notary;
use crate::support::Server;

/// What [`Notary`] has in its environment.
struct Known;

impl Passphrases for Known {
    fn passphrase(&mut self, wanted: &Wanted<'_>) -> Result<SecretString, KeyStoreError> {
        let is_root = wanted.name == "root";
        let text = if is_root { "rootpassword" } else { "password" };
        Ok(SecretString::new(text.to_owned()))
    }
}

#[test]
fn a_repository_goes_on_here() {
    let (old, mut new) = (Server::notary(), Server::start());
    new.kill();
    let (owner, reader) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gun = "example.com/collection";
    let name = brig_trust::Gun::parse(gun).unwrap();
    let (old_ca, new_ca) = (old.path("ca.pem"), new.path("ca.pem"));
    let notary = Notary { url: old.url(), ca: &old_ca, folder: owner.path() };
    let file = owner.path().join("file");
    std::fs::write(&file, "hello").unwrap();
    let file = file.display().to_string();
    notary.ok(&["init", gun]);
    notary.ok(&["add", gun, "v1", &file]);
    notary.ok(&["publish", gun]);
    notary.ok(&["key", "rotate", gun, "root"]);
    notary.ok(&["key", "rotate", gun, "snapshot", "-r"]);
    // Knows the repository since the third root.
    Notary { url: old.url(), ca: &old_ca, folder: reader.path() }.ok(&["list", gun]);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fetched = runtime.block_on(fetch(&old.remote(), &name)).unwrap();
    assert_eq!(fetched.root_keys.len(), 1);
    let data = new.path("data");
    // What was tampered with on the way is not taken.
    for at in 0..fetched.files.len() {
        let mut files = fetched.files.clone();
        let mut bytes = files[at].1.to_vec();
        let digit = bytes.iter().rposition(u8::is_ascii_alphanumeric).unwrap();
        bytes[digit - 8] = if bytes[digit - 8] == b'A' { b'B' } else { b'A' };
        files[at].1 = bytes.into();
        // The first root is believed for what it says, not for who signed it.
        if at > 0 {
            assert!(import_into(&data, None, &name, files).is_err(), "{:?}", fetched.files[at].0);
        }
    }
    let imported = import_into(&data, None, &name, fetched.files.clone()).unwrap();
    assert_eq!(imported.files, fetched.files.len());
    let again = import_into(&data, None, &name, fetched.files);
    assert!(matches!(again, Err(ImportFailure::Import(ImportError::Exists(_)))));

    new.run();
    let reader = Notary { url: new.url(), ca: &new_ca, folder: reader.path() };
    assert!(reader.ok(&["list", gun]).contains("v1"));
    let notary = Notary { url: new.url(), ca: &new_ca, folder: owner.path() };
    // Without its own keys the server can publish nothing yet.
    let (good, _) = notary.run(&["add", "-p", gun, "v2", &file]);
    assert!(!good);
    notary.ok(&["reset", gun, "--all"]);
    // Our client with notary's key files.
    let pinning = Pinning::default();
    let mut publisher = Publisher {
        remote: &new.remote(),
        cache: &Cache::new(owner.path()),
        gun: &name,
        keys: &mut KeyStore::new(owner.path()),
        passphrases: &mut Known,
        reading: Reading {
            pinning: &pinning,
            stale: Stale::Refuse,
            root: RootCheck::Always,
            now: OffsetDateTime::now_utc(),
        },
    };
    runtime.block_on(publisher.move_to_server()).unwrap();
    notary.ok(&["add", "-p", gun, "v2", &file]);
    let text = reader.ok(&["list", gun]);
    assert!(text.contains("v1") && text.contains("v2"), "{text}");
}
