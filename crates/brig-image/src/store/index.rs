//! The index on disk: which images there are and what they are called.

use std::collections::BTreeMap;
use std::path::Path;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};

use super::files::{self, Durability};
use crate::error::ImageError;

/// Larger than any index of a real node.
const MAX_INDEX: u64 = 256 << 20;
const FORMAT: u32 = 1;

/// `images.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexFile {
    format: u32,
    /// By id.
    pub(super) images: BTreeMap<Digest, IndexImage>,
    /// Full reference with tag to id.
    pub(super) tags: BTreeMap<String, Digest>,
    /// Full reference with digest to id.
    pub(super) digests: BTreeMap<String, Digest>,
    /// What layers are in registries, by diff id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sources: BTreeMap<Digest, Vec<Source>>,
}

/// A layer as a registry has it: what was pulled or pushed. Only remembered, not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Source {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    /// Full names of repositories, the newest last.
    pub(crate) repositories: Vec<String>,
}

/// What the configuration does not say about an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexImage {
    /// When a name was last given, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_tagged: Option<String>,
    /// Manifests that led here; kept as blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) manifests: Vec<Digest>,
}

impl Default for IndexFile {
    fn default() -> Self {
        Self {
            format: FORMAT,
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            digests: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }
}

impl IndexFile {
    /// Reads the index; an absent one is empty, a damaged one an error.
    pub(super) fn read(path: &Path) -> Result<Self, ImageError> {
        let Some(bytes) = files::read(path, MAX_INDEX)? else {
            return Ok(Self::default());
        };
        let damaged = |source| ImageError::Damaged { path: path.to_owned(), source };
        let index: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        if index.format != FORMAT {
            return Err(damaged(serde::de::Error::custom(format!(
                "format {} is newer than this program",
                index.format
            ))));
        }
        Ok(index)
    }

    /// Replaces the index durably.
    pub(super) fn write(&self, path: &Path) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(self)
            .map_err(|source| ImageError::Damaged { path: path.to_owned(), source })?;
        files::replace(path, &bytes, Durability::Synced)
    }
}
