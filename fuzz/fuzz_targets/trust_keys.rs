//! Key files of content trust from elsewhere, in PEM and as the DER inside, and how a server asks for
//! credentials.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use brig_trust::keystore::{KeyInfo, KeyStore, KeyStoreError, Passphrases, Wanted};
use brig_types::secret::{SecretBytes, SecretString};
use libfuzzer_sys::fuzz_target;

/// The right passphrase for a file from elsewhere, and none for what is written.
struct Answers;

impl Passphrases for Answers {
    fn passphrase(&mut self, wanted: &Wanted<'_>) -> Result<SecretString, KeyStoreError> {
        if wanted.attempt > 0 {
            return Err(KeyStoreError::NoPassphrase("asked twice".to_owned()));
        }
        Ok(SecretString::new(if wanted.is_new { String::new() } else { "secret".to_owned() }))
    }
}

fn folder() -> &'static tempfile::TempDir {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir_in("/dev/shm").expect("a folder"))
}

fn import(content: &[u8]) {
    let info = KeyInfo { role: "targets".to_owned(), gun: None };
    let mut store = KeyStore::new(folder().path());
    let content = SecretBytes::new(content.to_vec());
    if let Ok(id) = store.import(Path::new("a.pem"), &content, &info, &mut Answers) {
        let mut again = KeyStore::new(folder().path());
        again.open(&id, &mut Answers).expect("what was written is opened");
    }
}

fuzz_target!(|data: &[u8]| {
    import(data);
    for tag in ["ENCRYPTED PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
        import(brig_fuzz::pem(tag, data).as_bytes());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = brig_types::challenge::Challenge::parse_all(text);
    }
});
