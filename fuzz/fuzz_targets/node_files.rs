//! What lies in a node's certificate directory: the key file with its headers, the wrapped data
//! keys, and the trusted bundle.
#![no_main]

use brig_pki::keyfile::KeyFile;
use brig_pki::token::UnlockKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    brig_pki::install_provider();
    if let Ok(file) = KeyFile::parse(data, None) {
        // What was read can be written, and reads the same.
        let written = file.to_pem().expect("a key file that was read can be written");
        let again = KeyFile::parse(written.as_bytes(), None).expect("and read again");
        assert_eq!(again.kek_version, file.kek_version);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = UnlockKey::parse(text)
    {
        assert_eq!(key.to_secret_string().expose_secret(), text.trim());
    }
    let _ = brig_pki::ca::check_bundle(data);
});
