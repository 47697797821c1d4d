//! Signatures with every field wrong, key files of other tools, and what a registry may send.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::PkiError;
use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bundle::tests::{bundled, statement};
use super::manifest::{ARTIFACT, Descriptor, Index, OCI_MANIFEST};
use super::*;

/// Key files that cosign has made, with the passphrase `hello`: today's label and the old one, the
/// cost of old and of newer versions.
const SIGSTORE_KEY: &str = include_str!("tests/sigstore.key");
const COSIGN_KEY: &str = include_str!("tests/cosign-rsa.key");
const COSIGN_EC_KEY: &str = include_str!("tests/cosign-ec.key");

fn reference() -> Reference {
    Reference::parse("127.0.0.1:5000/team/app:1.0").unwrap()
}

fn digest() -> Digest {
    Digest::from_sha256([0xab; 32])
}

fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

struct World {
    pair: KeyPair,
    reference: Reference,
    digest: Digest,
    annotations: Annotations,
    identity: Identity,
}

impl World {
    fn new() -> Self {
        Self {
            pair: KeyPair::generate().unwrap(),
            reference: reference(),
            digest: digest(),
            annotations: Annotations::new(),
            identity: Identity::Repository,
        }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            reference: &self.reference,
            digest: &self.digest,
            identity: self.identity,
            annotations: &self.annotations,
        }
    }

    /// Signs these bytes, whatever they are, and verifies the signature.
    fn judged(&self, payload: &[u8]) -> Result<Verified, CosignError> {
        let signature = self.pair.sign(payload).unwrap();
        verify(payload, &signature, &[self.pair.public().clone()], &self.expected())
    }

    fn judged_json(&self, payload: &Value) -> Result<Verified, CosignError> {
        self.judged(payload.to_string().as_bytes())
    }
}

fn payload() -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": "127.0.0.1:5000/team/app" },
            "image": { "docker-manifest-digest": digest().as_str() },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut payload = payload();
    *payload.pointer_mut(pointer).unwrap() = value;
    payload
}

#[test]
fn what_is_signed_is_verified() {
    let world = World::new();
    let name = world.reference.name();
    let bytes = Payload::new(&name, &world.digest, &world.annotations).to_bytes().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        format!(
            "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"{name}\"}},\"image\":{{\"docker-manifest-digest\":\"{}\"}},\"type\":\"cosign container image signature\"}},\"optional\":null}}",
            world.digest
        )
    );
    let verified = world.judged(&bytes).unwrap();
    assert_eq!(verified.key, world.pair.public().fingerprint());
    assert_eq!(verified.signed_as.as_deref(), Some(name.as_str()));
    assert_eq!(verified.payload, bytes);
    // As skopeo writes it.
    let skopeo =
        with("/optional", json!({ "creator": "containers/image", "timestamp": 1_700_000 }));
    world.judged_json(&skopeo).unwrap();
    // The second key of two.
    let keys = [KeyPair::generate().unwrap().public().clone(), world.pair.public().clone()];
    let signature = world.pair.sign(&bytes).unwrap();
    let verified = verify(&bytes, &signature, &keys, &world.expected()).unwrap();
    assert_eq!(verified.key, keys[1].fingerprint());
}

#[test]
fn every_field_that_is_wrong_is_refused_for_that() {
    let world = World::new();
    let other = Digest::from_sha256([1; 32]).to_string();
    let digest_at = "/critical/image/docker-manifest-digest";
    for wrong in [json!(other), json!(""), json!(digest().hex()), json!("sha512:00")] {
        let refused = world.judged_json(&with(digest_at, wrong.clone()));
        assert!(matches!(refused, Err(CosignError::Digest { .. })), "{wrong}: {refused:?}");
    }
    for wrong in ["", "atomic container signature", "cosign container image signature "] {
        let refused = world.judged_json(&with("/critical/type", json!(wrong)));
        assert!(matches!(refused, Err(CosignError::Type { .. })), "{wrong}: {refused:?}");
    }
    let name_at = "/critical/identity/docker-reference";
    for wrong in [
        "",
        "team/app",
        "127.0.0.1:5000/team/app2",
        "127.0.0.1:5001/team/app",
        "a b",
        "evil/team/app",
    ] {
        let refused = world.judged_json(&with(name_at, json!(wrong)));
        assert!(matches!(refused, Err(CosignError::Identity { .. })), "{wrong}: {refused:?}");
    }
    let unreadable = [
        with(digest_at, json!(7)),
        with("/critical/type", Value::Null),
        with("/critical", json!({})),
        with("/critical/image", json!({ "docker-manifest-digest": digest().as_str(), "more": 1 })),
        with("/optional", json!("text")),
        json!([]),
        json!({ "critical": payload()["critical"], "optional": null, "critical2": {} }),
        with("/critical/identity", json!({})),
    ];
    for wrong in unreadable {
        let refused = world.judged_json(&wrong);
        assert!(matches!(refused, Err(CosignError::Payload { .. })), "{wrong}: {refused:?}");
    }
    // Said twice: which one counts would depend on the reader.
    let twice = payload().to_string().replacen(
        "\"image\":{",
        &format!("\"image\":{{\"docker-manifest-digest\":\"{other}\","),
        1,
    );
    assert!(matches!(world.judged(twice.as_bytes()), Err(CosignError::Payload { .. })));
    for bytes in [&b""[..], b"\xff\xfe", b"{", &[b'['; 100_000]] {
        assert!(matches!(world.judged(bytes), Err(CosignError::Payload { .. })));
    }
}

#[test]
fn signatures_that_are_none_are_refused() {
    let world = World::new();
    let bytes = payload().to_string().into_bytes();
    let good = world.pair.sign(&bytes).unwrap();
    let key = [world.pair.public().clone()];
    let judged = |bytes: &[u8], signature: &str, keys: &[PublicKey]| {
        verify(bytes, signature, keys, &world.expected())
    };
    judged(&bytes, &good, &key).unwrap();
    let stranger = [KeyPair::generate().unwrap().public().clone()];
    assert!(matches!(judged(&bytes, &good, &stranger), Err(CosignError::Key)));
    assert!(matches!(judged(&bytes, &good, &[]), Err(CosignError::NoKeys)));
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() = b' ';
    assert!(matches!(judged(&changed, &good, &key), Err(CosignError::Key)));
    let der = STANDARD.decode(&good).unwrap();
    let odd = [
        good.trim_end_matches('=').to_owned() + "*",
        good.clone() + "\n",
        format!(" {good}"),
        good[..good.len() - 1].to_owned(),
        good.replacen(|c: char| c.is_ascii_uppercase(), "_", 1),
    ];
    for signature in odd {
        let refused = judged(&bytes, &signature, &key);
        assert!(matches!(refused, Err(CosignError::Base64)), "{signature:?}: {refused:?}");
    }
    for signature in [vec![], vec![0; 64], der[1..].to_vec(), [&der[..], &[0]].concat()] {
        let refused = judged(&bytes, &STANDARD.encode(&signature), &key);
        assert!(matches!(refused, Err(CosignError::Key)), "{signature:?}: {refused:?}");
    }
    let long = STANDARD.encode(vec![0; 3000]);
    assert!(matches!(judged(&bytes, &long, &key), Err(CosignError::TooLarge { .. })));
    let mut large = bytes.clone();
    large.resize(MAX_PAYLOAD + 1, b' ');
    let signature = world.pair.sign(&large).unwrap();
    assert!(matches!(judged(&large, &signature, &key), Err(CosignError::TooLarge { .. })));
}

#[test]
fn tags_and_annotations_count_where_they_are_demanded() {
    let mut world = World::new();
    let tagged = |tag: &str| {
        let name = format!("127.0.0.1:5000/team/app{tag}");
        with("/critical/identity/docker-reference", json!(name))
    };
    for (identity, tag, is_good) in [
        (Identity::Repository, "", true),
        (Identity::Repository, ":2.0", true),
        (Identity::Tag, "", true),
        (Identity::Tag, ":1.0", true),
        (Identity::Tag, ":2.0", false),
        (Identity::Any, ":2.0", true),
    ] {
        world.identity = identity;
        assert_eq!(world.judged_json(&tagged(tag)).is_ok(), is_good, "{identity:?} {tag}");
    }
    let elsewhere = with("/critical/identity/docker-reference", json!("other.example/app"));
    assert!(world.judged_json(&elsewhere).is_ok());
    world.identity = Identity::Repository;
    assert!(world.judged_json(&elsewhere).is_err());
    // Docker Hub has several names.
    world.reference = Reference::parse("busybox").unwrap();
    let hub = with("/critical/identity/docker-reference", json!("index.docker.io/library/busybox"));
    world.judged_json(&hub).unwrap();

    world.identity = Identity::Any;
    world.annotations = annotations(&[("tag", "1.0")]);
    let refused = world.judged_json(&payload());
    assert!(matches!(refused, Err(CosignError::Annotation(what)) if what == "tag=1.0"));
    for (value, is_good) in [(json!("1.0"), true), (json!(1.0), false), (json!("1"), false)] {
        let signed = with("/optional", json!({ "tag": value, "more": [1, {}] }));
        assert_eq!(world.judged_json(&signed).is_ok(), is_good);
    }
}

#[test]
fn bundles_of_newer_cosign() {
    let mut world = World::new();
    world.annotations = annotations(&[("tag", "1.0")]);
    let key = [world.pair.public().clone()];
    let judged = |bundle: &Value| {
        let attached = Attached::Bundle { bundle: bundle.to_string().into_bytes() };
        attached.verify(&key, &world.expected())
    };
    let good = statement(world.digest.hex());
    judged(&bundled(&world.pair, &good)).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut statement = good.clone();
        *statement.pointer_mut(pointer).unwrap() = value;
        judged(&bundled(&world.pair, &statement))
    };
    let hex = "0".repeat(64);
    let refused = changed("/subject/0/digest/sha256", json!(hex));
    assert!(matches!(refused, Err(CosignError::Digest { .. })), "{refused:?}");
    let refused = changed("/subject/0/digest", json!({ "sha512": hex }));
    assert!(matches!(refused, Err(CosignError::Digest { .. })), "{refused:?}");
    for at in ["/_type", "/predicateType"] {
        let refused = changed(at, json!("https://slsa.dev/provenance/v1"));
        assert!(matches!(refused, Err(CosignError::Type { .. })), "{at}: {refused:?}");
    }
    let named = |name: &str| json!([{ "name": name, "digest": good["subject"][0]["digest"], "annotations": { "tag": "1.0" } }]);
    assert!(changed("/subject", named("127.0.0.1:5000/team/app")).is_ok());
    let refused = changed("/subject", named("127.0.0.1:5000/team/other"));
    assert!(matches!(refused, Err(CosignError::Identity { .. })), "{refused:?}");
    let refused = changed("/subject/0/annotations", Value::Null);
    assert!(matches!(refused, Err(CosignError::Annotation(_))), "{refused:?}");
    for subjects in [json!([]), json!([good["subject"][0], good["subject"][0]])] {
        let refused = changed("/subject", subjects);
        assert!(matches!(refused, Err(CosignError::Payload { .. })), "{refused:?}");
    }
    // The envelope around it.
    let envelope = |pointer: &str, value: Value| {
        let mut bundle = bundled(&world.pair, &good);
        *bundle.pointer_mut(pointer).unwrap() = value;
        judged(&bundle)
    };
    let refused = envelope("/mediaType", json!("application/json"));
    assert!(matches!(refused, Err(CosignError::Type { .. })), "{refused:?}");
    for (at, value) in [
        ("/dsseEnvelope/payloadType", json!("application/json")),
        ("/dsseEnvelope/payload", json!("e30=")),
        ("/dsseEnvelope/signatures", json!([])),
    ] {
        let refused = envelope(at, value);
        assert!(matches!(refused, Err(CosignError::Key)), "{at}: {refused:?}");
    }
    let refused = envelope("/dsseEnvelope/payload", json!("*"));
    assert!(matches!(refused, Err(CosignError::Base64)), "{refused:?}");
    let many = envelope("/dsseEnvelope/signatures", json!(vec![json!({ "sig": "" }); 17]));
    assert!(matches!(many, Err(CosignError::TooMany(16))), "{many:?}");
    // The signature of a plain payload is not one of a bundle, nor the other way round.
    let payload = good.to_string();
    let refused = world.judged(payload.as_bytes());
    assert!(matches!(refused, Err(CosignError::Payload { .. })), "{refused:?}");
}

#[test]
fn key_files_of_cosign_are_opened() {
    for (text, algorithm) in
        [(SIGSTORE_KEY, "ecdsa"), (COSIGN_KEY, "rsa"), (COSIGN_EC_KEY, "old ecdsa")]
    {
        let file = PrivateKeyFile::parse(text.as_bytes()).unwrap();
        assert!(file.is_encrypted());
        assert!(matches!(file.open(b"hullo"), Err(KeyFileError::Passphrase)), "{algorithm}");
        let pair = file.open(b"hello").unwrap_or_else(|e| panic!("{algorithm}: {e:?}"));
        let signature = STANDARD.decode(pair.sign(b"message").unwrap()).unwrap();
        assert!(pair.public().verifies(b"message", &signature), "{algorithm}");
    }
}

#[test]
fn key_files_are_written_and_read() {
    let pair = KeyPair::generate().unwrap();
    let text = pair.to_encrypted_pem(b"correct horse").unwrap();
    let shown = std::str::from_utf8(text.expose_secret()).unwrap();
    assert!(shown.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), "{shown}");
    let file = PrivateKeyFile::parse(text.expose_secret()).unwrap();
    assert_eq!(file.open(b"correct horse").unwrap().public(), pair.public());
    assert!(matches!(file.open(b""), Err(KeyFileError::Passphrase)));
    let public = pair.public().to_pem();
    assert_eq!(PublicKey::from_pem(public.as_bytes()).unwrap(), *pair.public());
    let two = format!("{public}{}", KeyPair::generate().unwrap().public().to_pem());
    assert_eq!(public_keys(two.as_bytes()).unwrap().len(), 2);
    assert!(PublicKey::from_pem(two.as_bytes()).is_err());
    // Each in place of the other.
    let refused = PublicKey::from_pem(text.expose_secret()).unwrap_err().to_string();
    assert!(refused.contains("cosign.pub"), "{refused}");
    let refused = PrivateKeyFile::parse(public.as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("cosign.key"), "{refused}");
}

#[test]
fn key_files_that_are_changed_are_refused() {
    let block = pem::parse(SIGSTORE_KEY).unwrap();
    let good: Value = serde_json::from_slice(block.contents()).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        let block = pem::Pem::new("ENCRYPTED SIGSTORE PRIVATE KEY", json.to_string());
        PrivateKeyFile::parse(pem::encode(&block).as_bytes()).and_then(|f| f.open(b"hello"))
    };
    for (at, value) in [
        ("/kdf/name", json!("argon2")),
        ("/cipher/name", json!("none")),
        ("/kdf/salt", json!("*")),
        ("/cipher/nonce", json!("AA")),
        ("/kdf/params", json!({ "N": 32768, "r": 8 })),
        ("/kdf/params", json!({ "N": -1, "r": 8, "p": 1 })),
        ("/kdf/params", json!({ "N": 32768, "r": 8, "p": 1, "q": 1 })),
        ("/kdf", json!([])),
    ] {
        let refused = changed(at, value);
        assert!(matches!(refused, Err(KeyFileError::NotPrivate(_))), "{at}: {refused:?}");
    }
    // What would take a machine's memory or days is not begun.
    for (n, r, p) in
        [(1_u64 << 40, 8, 1), (1 << 18, 8, 1), (32768, 1 << 20, 1), (32768, 8, 1 << 30)]
    {
        let refused = changed("/kdf/params", json!({ "N": n, "r": r, "p": p }));
        assert!(matches!(refused, Err(KeyFileError::Key(PkiError::PrivateKey { .. }))));
    }
    assert!(matches!(
        changed("/cipher/nonce", json!("AAAA")),
        Err(KeyFileError::Key(PkiError::PrivateKey { .. }))
    ));
    for at in ["/kdf/salt", "/ciphertext"] {
        assert!(matches!(changed(at, json!("AAAA")), Err(KeyFileError::Passphrase)), "{at}");
    }
    let large = format!("{SIGSTORE_KEY}{}", " ".repeat(MAX_KEY_FILE));
    assert!(matches!(PrivateKeyFile::parse(large.as_bytes()), Err(KeyFileError::TooLarge(_))));
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(PrivateKeyFile::parse(text.as_bytes()), Err(KeyFileError::NotPrivate(_))));
        assert!(matches!(public_keys(text.as_bytes()), Err(KeyFileError::NotPublic(_))));
    }
}

/// A repository in memory.
#[derive(Default)]
struct Memory {
    manifests: HashMap<String, Vec<u8>>,
    blobs: HashMap<Digest, Vec<u8>>,
    referrers: Option<Vec<u8>>,
}

impl Memory {
    fn keep(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::from_sha256(sha256(content));
        self.blobs.insert(digest.clone(), content.to_vec());
        digest
    }
}

impl Source for Memory {
    type Error = std::convert::Infallible;

    async fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.manifests.get(reference).cloned())
    }

    async fn blob(&self, digest: &Digest, _: usize) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.blobs.get(digest).cloned())
    }

    async fn referrers(&self, _: &Digest) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.referrers.clone())
    }
}

#[tokio::test]
async fn signatures_are_found_wherever_cosign_puts_them() {
    let world = World::new();
    let mut memory = Memory::default();
    assert_eq!(find(&memory, &world.digest).await.unwrap(), []);
    let sign = |memory: &mut Memory, kind: &str| {
        let bytes = with("/optional", json!({ "kind": kind })).to_string().into_bytes();
        let signature = world.pair.sign(&bytes).unwrap();
        let mut manifest = SignatureManifest::empty();
        manifest.push(memory.keep(&bytes), bytes.len(), signature);
        manifest
    };
    // Under the tag, beside a layer that is something else.
    let mut tagged = sign(&mut memory, "tag");
    let other = Descriptor::new("application/vnd.dsse.envelope.v1+json", world.digest.clone(), 1);
    tagged.layers.insert(0, other);
    memory.manifests.insert(signature_tag(&world.digest), tagged.to_bytes().unwrap());
    // As referrers: two forms of signatures, and something else.
    let mut index = Index::empty();
    let mut refer = |memory: &mut Memory, kind: &str, manifest: &SignatureManifest| {
        let bytes = manifest.to_bytes().unwrap();
        let digest = Digest::from_sha256(sha256(&bytes));
        let mut descriptor = Descriptor::new(OCI_MANIFEST, digest.clone(), bytes.len());
        descriptor.artifact_type = Some(kind.to_owned());
        index.manifests.push(descriptor);
        memory.manifests.insert(digest.to_string(), bytes);
    };
    let referrer = sign(&mut memory, "referrer");
    refer(&mut memory, ARTIFACT, &referrer);
    let bundle = bundled(&world.pair, &statement(world.digest.hex())).to_string();
    let mut manifest = SignatureManifest::empty();
    let blob = memory.keep(bundle.as_bytes());
    manifest.layers.push(Descriptor::new(bundle::MEDIA_TYPE, blob, bundle.len()));
    // Its own list of referrers has this type for it.
    refer(&mut memory, "application/vnd.oci.empty.v1+json", &manifest);
    refer(&mut memory, "application/spdx+json", &referrer);
    let index = index.to_bytes().unwrap();
    memory.manifests.insert(format!("sha256-{}", world.digest.hex()), index.clone());
    for keeps_lists in [false, true] {
        if keeps_lists {
            memory.referrers = Some(index.clone());
        }
        let found = find(&memory, &world.digest).await.unwrap();
        assert_eq!(found.len(), 3);
        let judgement = judge(&found, &[world.pair.public().clone()], &world.expected());
        assert_eq!((judgement.verified.len(), judgement.refused.len()), (3, 0));
        assert_eq!(judgement.signers(), [world.pair.public().fingerprint()]);
        // What was found may be kept.
        let kept = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Attached>>(&kept).unwrap(), found);
    }
    let judgement = judge(&[], &[world.pair.public().clone()], &world.expected());
    assert_eq!(judgement.to_string(), "there are no signatures");
}

#[tokio::test]
async fn more_than_is_looked_at_is_refused() {
    let world = World::new();
    let mut memory = Memory::default();
    let blob = memory.keep(b"{}");
    let mut manifest = SignatureManifest::empty();
    for _ in 0..=MAX_FOUND {
        manifest.push(blob.clone(), 2, String::new());
    }
    let tag = signature_tag(&world.digest);
    memory.manifests.insert(tag.clone(), manifest.to_bytes().unwrap());
    let many = find(&memory, &world.digest).await;
    assert!(matches!(many, Err(FindError::Odd { source: CosignError::TooMany(_), .. })));
    let mut large = SignatureManifest::empty();
    large.push(blob, MAX_PAYLOAD + 1, String::new());
    memory.manifests.insert(tag.clone(), large.to_bytes().unwrap());
    let large = find(&memory, &world.digest).await;
    assert!(matches!(large, Err(FindError::Odd { source: CosignError::TooLarge { .. }, .. })));
    for bytes in ["", "[]", "{\"schemaVersion\":1}", "{\"schemaVersion\":2,\"layers\":[]}"] {
        memory.manifests.insert(tag.clone(), bytes.as_bytes().to_vec());
        let odd = find(&memory, &world.digest).await;
        assert!(matches!(odd, Err(FindError::Odd { source: CosignError::Manifest { .. }, .. })));
    }
}

#[test]
fn what_others_wrote_into_a_manifest_stays() {
    let before = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "x", "digest": digest().as_str(), "size": 3, "data": "e30=" },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": digest().as_str(),
            "size": 2,
            "annotations": {
                "dev.cosignproject.cosign/signature": "c2ln",
                "dev.sigstore.cosign/bundle": "{}",
            },
            "urls": [],
        }],
        "annotations": { "a": "b" },
    });
    let mut manifest = SignatureManifest::parse(before.to_string().as_bytes()).unwrap();
    assert_eq!(manifest.signatures().collect::<Vec<_>>(), [(&digest(), "c2ln")]);
    let written: Value = serde_json::from_slice(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(written, before);
    manifest.push(digest(), 2, "bmV3".to_owned());
    let written: Value = serde_json::from_slice(&manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(written["layers"][0], before["layers"][0]);
    assert_eq!(written["layers"].as_array().unwrap().len(), 2);
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "\\PC{0,200}".prop_map(String::into_bytes),
        // Nearly right.
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
            let mut bytes = payload().to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

proptest! {
    #[test]
    fn nothing_unsigned_is_ever_taken(bytes in anything(), signature in "[A-Za-z0-9+/=]{0,120}") {
        let world = World::new();
        let key = [world.pair.public().clone()];
        prop_assert!(verify(&bytes, &signature, &key, &world.expected()).is_err());
        let attached = Attached::Bundle { bundle: bytes.clone() };
        prop_assert!(attached.verify(&key, &world.expected()).is_err());
        let _ = SignatureManifest::parse(&bytes);
        let _ = Index::parse(&bytes);
        prop_assert!(PrivateKeyFile::parse(&bytes).is_err());
        prop_assert!(public_keys(&bytes).is_err());
    }

    #[test]
    fn what_is_taken_says_the_digest(bytes in anything()) {
        // Whatever the key's owner was made to sign.
        let world = World::new();
        if let Ok(verified) = world.judged(&bytes) {
            let signed: Value = serde_json::from_slice(&verified.payload).unwrap();
            let found = &signed["critical"]["image"]["docker-manifest-digest"];
            prop_assert_eq!(found.as_str(), Some(world.digest.as_str()));
            prop_assert_eq!(&signed["critical"]["type"], "cosign container image signature");
        }
    }

    #[test]
    fn payloads_come_back(
        tag in "[a-z0-9]{1,20}",
        hash in any::<[u8; 32]>(),
        extra in proptest::collection::btree_map("\\PC{1,10}", "\\PC{0,10}", 0..4),
    ) {
        let digest = Digest::from_sha256(hash);
        let extra: BTreeMap<String, String> = extra;
        let written = Payload::new(&tag, &digest, &extra);
        let read = Payload::parse(&written.to_bytes().unwrap()).unwrap();
        prop_assert_eq!(read.digest(), digest.as_str());
        for (name, value) in &extra {
            prop_assert_eq!(read.annotation(name), Some(value.as_str()));
        }
        prop_assert_eq!(read, written);
    }
}
