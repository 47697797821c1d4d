//! Metadata of content trust as a server sends it: read or refused, and what is read has one
//! canonical form that reads as the same again.
#![no_main]

use brig_trust::{
    Document, Gun, Key, Pinning, Role, Root, Signed, Snapshot, Targets, Timestamp, accept_root,
    canonical,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = canonical::parse(data) {
        let form = canonical::encode(&value);
        if canonical::check_writable(&value).is_ok() {
            assert_eq!(canonical::parse(&form).expect("its own form"), value);
        }
    }
    again::<Root>(data, &Role::Root);
    again::<Snapshot>(data, &Role::Snapshot);
    again::<Timestamp>(data, &Role::Timestamp);
    again::<Targets>(data, &Role::Targets);
    again::<Targets>(data, &Role::releases());
    if let Ok(root) = Signed::<Root>::parse(data, &Role::Root) {
        let gun = Gun::parse("registry.example/team/app").expect("a name");
        let now = root.document.expires.0;
        let _ = accept_root(&root, None, &gun, &Pinning::default(), now);
        let _ = accept_root(&root, Some(&root.document), &gun, &Pinning::default(), now);
        for role in Role::BASE {
            if let Some(keys) = root.document.role_keys(&role) {
                let _ = root.verify(&keys);
            }
        }
    }
    if let Ok(key) = serde_json::from_slice::<Key>(data) {
        let text = serde_json::to_vec(&key).expect("what was read can be written");
        let read: Key = serde_json::from_slice(&text).expect("and read again");
        assert_eq!(read.id(), key.id());
        let _ = (key.verifier(), key.canonical_id());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(role) = Role::parse(text) {
            assert_eq!(role.as_str(), text);
            assert!(!text.contains(".."));
        }
        if let Ok(gun) = Gun::parse(text) {
            assert!(gun.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
        }
    }
});

/// A document that is written again says the same.
fn again<T: Document + PartialEq>(data: &[u8], role: &Role) {
    let Ok(file) = Signed::<T>::parse(data, role) else {
        return;
    };
    if let Ok(written) = Signed::sign(file.document, role, &[]) {
        let read = Signed::<T>::parse(written.raw(), role).expect("what was written");
        assert_eq!(read.document, written.document);
    }
}
