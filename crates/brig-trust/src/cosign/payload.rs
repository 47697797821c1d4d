//! What is signed: the "simple signing" form, which names an image's digest.

use std::collections::BTreeMap;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::CosignError;

/// Largest payload, and largest bundle.
pub const MAX_PAYLOAD: usize = 256 << 10;
/// What cosign says it signs.
pub(super) const TYPE: &str = "cosign container image signature";

/// What a signer says beyond the digest, such as `tag=1.0`.
pub type Annotations = BTreeMap<String, String>;

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    critical: Critical,
    /// COMPAT: cosign writes `null` where there is nothing.
    optional: Option<BTreeMap<String, Value>>,
}

/// The fields are in the order in which cosign writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: IdentityField,
    image: ImageField,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityField {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageField {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

impl Payload {
    /// For an image of a repository.
    #[must_use]
    pub fn new(repository: &str, digest: &Digest, annotations: &Annotations) -> Self {
        let optional: BTreeMap<_, _> =
            annotations.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect();
        Self {
            critical: Critical {
                identity: IdentityField { docker_reference: repository.to_owned() },
                image: ImageField { docker_manifest_digest: digest.to_string() },
                kind: TYPE.to_owned(),
            },
            optional: (!optional.is_empty()).then_some(optional),
        }
    }

    /// The bytes that are signed.
    ///
    /// # Errors
    /// [`CosignError::Payload`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, CosignError> {
        serde_json::to_vec(self).map_err(|e| CosignError::Payload { reason: e.to_string() })
    }

    /// Reads signed bytes. Every field of `critical` has to be known: that is what it is for.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CosignError> {
        let payload: Self = serde_json::from_slice(bytes)
            .map_err(|e| CosignError::Payload { reason: e.to_string() })?;
        if payload.critical.kind != TYPE {
            return Err(CosignError::Type { found: shown(&payload.critical.kind) });
        }
        Ok(payload)
    }

    /// As what the image was signed.
    #[must_use]
    pub fn docker_reference(&self) -> &str {
        &self.critical.identity.docker_reference
    }

    /// Which image was signed.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.critical.image.docker_manifest_digest
    }

    /// A text that the signer added.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.optional.as_ref()?.get(name)?.as_str()
    }
}

/// A text from elsewhere, as messages have it.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
