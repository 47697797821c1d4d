//! Cosign's signatures as registries and files hold them: key files, manifests, payloads and bundles
//! are read or refused, and nothing counts that the key has not signed. The first byte chooses.
#![no_main]

use std::sync::LazyLock;

use brig_trust::cosign::{
    Annotations, Attached, Expected, Identity, KeyPair, PrivateKeyFile, PublicKey,
    SignatureManifest, judge, public_keys, verify,
};
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use libfuzzer_sys::fuzz_target;

static PAIR: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let keys = [PAIR.public().clone()];
    let reference = Reference::parse("registry.example/team/app:1.0").expect("a reference");
    let digest = Digest::from_sha256([0xab; 32]);
    let annotations = Annotations::new();
    let identity = match choice >> 6 {
        0 => Identity::Any,
        1 => Identity::Tag,
        _ => Identity::Repository,
    };
    let expected =
        Expected { reference: &reference, digest: &digest, identity, annotations: &annotations };
    match choice & 7 {
        // Whatever the owner of the key is made to sign: it counts for this digest alone.
        0 => {
            let signature = PAIR.sign(data).expect("a signature");
            if let Ok(verified) = verify(data, &signature, &keys, &expected) {
                let text = String::from_utf8(verified.payload).expect("JSON is UTF-8");
                assert!(text.contains("critical"));
            }
        }
        // Nothing that was not signed counts.
        1 => {
            let bundle = Attached::Bundle { bundle: data.to_vec() };
            assert!(bundle.verify(&keys, &expected).is_err());
        }
        2 => {
            let text = String::from_utf8_lossy(data);
            let (payload, signature) = text.split_once('|').unwrap_or((&text, ""));
            assert!(verify(payload.as_bytes(), signature, &keys, &expected).is_err());
        }
        3 => {
            if let Ok(manifest) = SignatureManifest::parse(data) {
                let _ = manifest.signatures().count();
            }
        }
        // Opening takes a tenth of a second, and is left out.
        4 => {
            let _ = PrivateKeyFile::parse(data);
            let wrapped = brig_fuzz::pem("ENCRYPTED SIGSTORE PRIVATE KEY", data);
            let _ = PrivateKeyFile::parse(wrapped.as_bytes());
        }
        5 => {
            let _ = public_keys(data);
            let wrapped = brig_fuzz::pem("PUBLIC KEY", data);
            if let Ok(read) = public_keys(wrapped.as_bytes()) {
                for key in read {
                    let again = PublicKey::from_pem(key.to_pem().as_bytes()).expect("its own form");
                    assert_eq!(again, key);
                }
            }
        }
        _ => {
            if let Ok(stored) = serde_json::from_slice::<Vec<Attached>>(data) {
                assert!(judge(&stored, &keys, &expected).verified.is_empty());
                let text = serde_json::to_vec(&stored).expect("what was read can be written");
                let read: Vec<Attached> = serde_json::from_slice(&text).expect("and read again");
                assert_eq!(read, stored);
            }
        }
    }
});
