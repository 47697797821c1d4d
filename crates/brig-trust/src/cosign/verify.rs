//! Whether a signature counts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bundle;
use super::error::CosignError;
use super::key::PublicKey;
use super::payload::{Annotations, MAX_PAYLOAD, Payload, shown};

/// Longest signature, base64: RSA of 8192 bits.
const MAX_SIGNATURE: usize = 2048;

/// What is held against the name that a signature has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// It is of the same repository. Signatures in bundles may have no name, and are taken then.
    #[default]
    Repository,
    /// It is of the same repository, and of the same tag where it names one.
    Tag,
    /// Nothing, as cosign does: the digest alone counts. For copies in other registries.
    Any,
}

/// What a signature has to say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The image as it is asked for.
    pub reference: &'a Reference,
    /// Its digest.
    pub digest: &'a Digest,
    /// What is held against the signature's name.
    pub identity: Identity,
    /// What the signer has to have added.
    pub annotations: &'a Annotations,
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who made it: [`PublicKey::fingerprint`].
    pub key: String,
    /// As what the image was signed, if the signature says it.
    pub signed_as: Option<String>,
    /// The bytes that were signed.
    pub payload: Vec<u8>,
}

/// A signature as it is attached to an image: nothing of it is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Attached {
    /// The signed bytes and the signature.
    SimpleSigning {
        /// The signed bytes.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        payload: Vec<u8>,
        /// The signature, base64.
        signature: String,
    },
    /// A sigstore bundle (v0.3) with both.
    Bundle {
        /// The bundle, JSON.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        bundle: Vec<u8>,
    },
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

impl Attached {
    /// Whether it counts.
    ///
    /// # Errors
    /// [`CosignError`].
    pub fn verify(
        &self,
        keys: &[PublicKey],
        expected: &Expected<'_>,
    ) -> Result<Verified, CosignError> {
        match self {
            Self::SimpleSigning { payload, signature } => {
                verify(payload, signature, keys, expected)
            }
            Self::Bundle { bundle } => bundle::verify(bundle, keys, expected),
        }
    }
}

/// Verifies a signature over a payload of the "simple signing" form.
///
/// Nothing of the payload is read before one of the keys has proved to have signed it.
///
/// # Errors
/// [`CosignError`].
pub fn verify(
    payload: &[u8],
    signature: &str,
    keys: &[PublicKey],
    expected: &Expected<'_>,
) -> Result<Verified, CosignError> {
    let key = signer(payload, signature, keys)?;
    let signed = Payload::parse(payload)?;
    same_digest(signed.digest(), expected.digest)?;
    same_identity(signed.docker_reference(), expected)?;
    for (name, value) in expected.annotations {
        if signed.annotation(name) != Some(value) {
            return Err(CosignError::Annotation(format!("{name}={value}")));
        }
    }
    Ok(Verified {
        key: key.fingerprint(),
        signed_as: Some(shown(signed.docker_reference())),
        payload: payload.to_vec(),
    })
}

/// The key that has signed a message.
pub(super) fn signer<'a>(
    message: &[u8],
    signature: &str,
    keys: &'a [PublicKey],
) -> Result<&'a PublicKey, CosignError> {
    if message.len() > MAX_PAYLOAD {
        return Err(CosignError::TooLarge { what: "what was signed", limit: MAX_PAYLOAD });
    }
    if signature.len() > MAX_SIGNATURE {
        return Err(CosignError::TooLarge { what: "the signature", limit: MAX_SIGNATURE });
    }
    if keys.is_empty() {
        return Err(CosignError::NoKeys);
    }
    let signature = STANDARD.decode(signature).map_err(|_| CosignError::Base64)?;
    keys.iter().find(|key| key.verifies(message, &signature)).ok_or(CosignError::Key)
}

pub(super) fn same_digest(signed: &str, wanted: &Digest) -> Result<(), CosignError> {
    if signed == wanted.as_str() {
        return Ok(());
    }
    Err(CosignError::Digest { signed: shown(signed), wanted: wanted.clone() })
}

pub(super) fn same_identity(signed: &str, expected: &Expected<'_>) -> Result<(), CosignError> {
    let wanted = expected.reference;
    let is_same = match (expected.identity, Reference::parse(signed)) {
        (Identity::Any, _) => true,
        (_, Err(_)) => false,
        (identity, Ok(signed)) => {
            signed.name() == wanted.name()
                && (identity == Identity::Repository
                    || signed.tag().is_none()
                    || signed.tag() == wanted.tag())
        }
    };
    if is_same {
        return Ok(());
    }
    let wanted =
        if expected.identity == Identity::Tag { wanted.to_string() } else { wanted.name() };
    Err(CosignError::Identity { signed: shown(signed), wanted })
}

/// What was found of all signatures of an image.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Those that count.
    pub verified: Vec<Verified>,
    /// Why the others do not.
    pub refused: Vec<CosignError>,
}

impl Judgement {
    /// The keys that have signed, each once.
    #[must_use]
    pub fn signers(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.verified.iter().map(|v| v.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Why nothing counts, one reason a line and each once.
impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refused.is_empty() {
            return f.write_str("there are no signatures");
        }
        let mut reasons: Vec<String> = self.refused.iter().map(ToString::to_string).collect();
        reasons.dedup();
        f.write_str(&reasons.join("\n"))
    }
}

/// Verifies every signature that was found.
#[must_use]
pub fn judge(found: &[Attached], keys: &[PublicKey], expected: &Expected<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    for attached in found {
        match attached.verify(keys, expected) {
            Ok(verified) => judgement.verified.push(verified),
            Err(error) => judgement.refused.push(error),
        }
    }
    judgement
}
