//! Sigstore's bundles (v0.3), the form that newer cosign writes: an in-toto statement about the
//! image, in a DSSE envelope. Read, never written.
//!
//! Only the envelope and the key count. Certificates, timestamps and entries of transparency logs
//! that a bundle may carry prove nothing here and are passed over.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::error::CosignError;
use super::key::PublicKey;
use super::payload::{MAX_PAYLOAD, shown};
use super::verify::{Expected, Verified, same_digest, same_identity, signer};

/// The type of a bundle.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: [&str; 2] =
    ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// What says that an image is signed; other statements say other things of it.
pub(super) const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
/// Signatures of one envelope that are looked at.
const MAX_SIGNATURES: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    #[allow(dead_code, reason = "has no meaning in this kind of statement")]
    predicate: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Subject {
    /// The repository; not all versions of cosign write it.
    #[serde(default)]
    name: Option<String>,
    digest: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
}

/// Verifies a bundle's signature of an image.
pub(super) fn verify(
    bundle: &[u8],
    keys: &[PublicKey],
    expected: &Expected<'_>,
) -> Result<Verified, CosignError> {
    if bundle.len() > MAX_PAYLOAD {
        return Err(CosignError::TooLarge { what: "the bundle", limit: MAX_PAYLOAD });
    }
    let unreadable = |reason: String| CosignError::Payload { reason };
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|e| unreadable(e.to_string()))?;
    if bundle.media_type != MEDIA_TYPE {
        return Err(CosignError::Type { found: shown(&bundle.media_type) });
    }
    let envelope = bundle.dsse_envelope;
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(CosignError::TooMany(MAX_SIGNATURES));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| CosignError::Base64)?;
    let message = pre_authentication_encoding(&envelope.payload_type, &payload);
    let mut key = Err(CosignError::Key);
    for signature in &envelope.signatures {
        key = signer(&message, &signature.sig, keys);
        if key.is_ok() {
            break;
        }
    }
    let key = key?;
    if envelope.payload_type != STATEMENT_TYPE {
        return Err(CosignError::Type { found: shown(&envelope.payload_type) });
    }
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|e| unreadable(e.to_string()))?;
    if !STATEMENT.contains(&statement.kind.as_str()) {
        return Err(CosignError::Type { found: shown(&statement.kind) });
    }
    if statement.predicate_type != SIGN {
        return Err(CosignError::Type { found: shown(&statement.predicate_type) });
    }
    let [subject] = statement.subject.as_slice() else {
        return Err(unreadable("it is not about one image".to_owned()));
    };
    let digest = subject.digest.get("sha256").map_or("", String::as_str);
    same_digest(&format!("sha256:{digest}"), expected.digest)?;
    let name = subject.name.as_deref().filter(|name| !name.is_empty());
    if let Some(name) = name {
        same_identity(name, expected)?;
    }
    for (name, value) in expected.annotations {
        let found = subject.annotations.as_ref().and_then(|all| all.get(name)?.as_str());
        if found != Some(value) {
            return Err(CosignError::Annotation(format!("{name}={value}")));
        }
    }
    Ok(Verified { key: key.fingerprint(), signed_as: name.map(shown), payload })
}

/// DSSE's PAE: the signed bytes.
fn pre_authentication_encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::key::KeyPair;
    use super::*;

    /// A bundle around a statement.
    pub(crate) fn bundled(pair: &KeyPair, statement: &Value) -> Value {
        let payload = statement.to_string().into_bytes();
        let message = pre_authentication_encoding(STATEMENT_TYPE, &payload);
        json!({
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": { "hint": "aGludA==" },
                "timestampVerificationData": {},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload),
                "payloadType": STATEMENT_TYPE,
                "signatures": [{ "sig": pair.sign(&message).unwrap() }],
            },
        })
    }

    pub(crate) fn statement(hex: &str) -> Value {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": hex }, "annotations": { "tag": "1.0" } }],
            "predicateType": SIGN,
            "predicate": {},
        })
    }

    #[test]
    fn the_encoding_is_the_specifications() {
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
