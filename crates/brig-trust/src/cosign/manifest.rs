//! The manifests that signatures are in.

use std::collections::BTreeMap;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::CosignError;
use super::payload::shown;

/// Largest manifest.
pub(super) const MAX_MANIFEST: usize = 4 << 20;
/// Descriptors of one manifest or index.
pub(super) const MAX_DESCRIPTORS: usize = 1000;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The configuration of what is no image.
pub(super) const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What a layer with a payload is.
pub(super) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What a referrer with signatures is.
pub(super) const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Where a layer's signature is.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The tag under which an image's signatures are.
#[must_use]
pub fn signature_tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// The tag that stands in for the list of referrers where a registry keeps none.
pub(super) fn referrers_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// A reference to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
    /// What others have written goes back as it was.
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Descriptor {
    pub(super) fn new(media_type: &str, digest: Digest, size: usize) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size: size as u64,
            artifact_type: None,
            annotations: None,
            other: Map::new(),
        }
    }

    /// The signature that is written beside a payload.
    pub(super) fn signature(&self) -> Option<&str> {
        if self.media_type != SIMPLE_SIGNING {
            return None;
        }
        self.annotations.as_ref()?.get(SIGNATURE).map(String::as_str)
    }
}

/// A manifest of signatures, as cosign lays it out in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureManifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl SignatureManifest {
    pub(super) fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: None,
            // Replaced once the layers are known.
            config: Descriptor::new(OCI_CONFIG, Digest::from_sha256([0; 32]), 0),
            layers: Vec::new(),
            subject: None,
            other: Map::new(),
        }
    }

    /// Reads a manifest from a registry.
    ///
    /// # Errors
    /// [`CosignError::Manifest`], [`CosignError::TooLarge`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CosignError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(CosignError::TooLarge {
                what: "the manifest of signatures",
                limit: MAX_MANIFEST,
            });
        }
        let refused = |reason: String| CosignError::Manifest { reason };
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
        if manifest.schema_version != 2 {
            return Err(refused(format!("its schema is {}", manifest.schema_version)));
        }
        if let Some(kind) = manifest.media_type.as_deref().filter(|kind| *kind != OCI_MANIFEST) {
            return Err(refused(format!("it is {:?}", shown(kind))));
        }
        if manifest.layers.len() > MAX_DESCRIPTORS {
            return Err(CosignError::TooMany(MAX_DESCRIPTORS));
        }
        Ok(manifest)
    }

    /// The signatures in it: a payload's digest and what was signed over it.
    pub fn signatures(&self) -> impl Iterator<Item = (&Digest, &str)> {
        self.layers.iter().filter_map(|layer| Some((&layer.digest, layer.signature()?)))
    }

    /// Adds a signature.
    pub(super) fn push(&mut self, payload: Digest, size: usize, signature: String) {
        let mut layer = Descriptor::new(SIMPLE_SIGNING, payload, size);
        layer.annotations = Some(BTreeMap::from([(SIGNATURE.to_owned(), signature)]));
        self.layers.push(layer);
    }

    /// The configuration that goes with the layers. Other tools take the manifest for an image's.
    pub(super) fn image_config(&self) -> Vec<u8> {
        let layers: Vec<&str> = self.layers.iter().map(|layer| layer.digest.as_str()).collect();
        json!({
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": layers },
        })
        .to_string()
        .into_bytes()
    }

    /// Makes it a referrer of an image.
    pub(super) fn refer_to(&mut self, image: Descriptor) {
        self.artifact_type = Some(ARTIFACT.to_owned());
        self.subject = Some(image);
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, CosignError> {
        serde_json::to_vec(self).map_err(|e| CosignError::Manifest { reason: e.to_string() })
    }
}

/// A list of manifests: the referrers of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    pub(super) manifests: Vec<Descriptor>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Index {
    pub(super) fn empty() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            other: Map::new(),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, CosignError> {
        let refused = |reason: String| CosignError::Manifest { reason };
        let index: Self = serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
        if index.media_type.as_deref().is_some_and(|kind| kind != OCI_INDEX) {
            return Err(refused("the list of referrers is no index".to_owned()));
        }
        if index.manifests.len() > MAX_DESCRIPTORS {
            return Err(CosignError::TooMany(MAX_DESCRIPTORS));
        }
        Ok(index)
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, CosignError> {
        serde_json::to_vec(self).map_err(|e| CosignError::Manifest { reason: e.to_string() })
    }
}
