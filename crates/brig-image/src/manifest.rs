//! Manifests and manifest lists (OCI image spec `manifest.md`, `image-index.md`; Docker manifest
//! schema 2).

use std::collections::BTreeMap;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::limits::MAX_LAYERS;
use crate::platform::Platform;

/// Media types of single manifests.
pub const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
];
/// Media types of lists of manifests.
pub const INDEX_TYPES: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
];

/// Docker's single manifest.
pub(crate) const DOCKER_MANIFEST: &str = MANIFEST_TYPES[0];
/// OCI's single manifest.
pub(crate) const OCI_MANIFEST: &str = MANIFEST_TYPES[1];
/// Docker's image configuration.
pub(crate) const DOCKER_CONFIG: &str = CONFIG_TYPES[0];
/// OCI's image configuration.
pub(crate) const OCI_CONFIG: &str = CONFIG_TYPES[1];
/// A layer compressed with gzip, in Docker's words.
pub(crate) const DOCKER_LAYER_GZIP: &str = LAYER_TYPES[1];
/// A layer that is not compressed.
pub(crate) const OCI_LAYER_TAR: &str = LAYER_TYPES[4];
/// A layer compressed with gzip, in OCI's words.
pub(crate) const OCI_LAYER_GZIP: &str = LAYER_TYPES[5];
/// A layer compressed with zstd.
pub(crate) const OCI_LAYER_ZSTD: &str = LAYER_TYPES[6];

const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"];
const LAYER_TYPES: [&str; 10] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// A pointer to content: its type, address and size. `urls` are never followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Media type.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Address.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// What it runs on, within lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// One image: its configuration and layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// The configuration; its digest is the image's id.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// What a manifest's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image.
    Image(ImageManifest),
    /// Several images for several platforms.
    Index(Vec<Descriptor>),
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidManifest {
    /// Not the JSON of a manifest.
    #[error("manifest is not readable")]
    Json(#[source] serde_json::Error),
    /// Type and content contradict each other.
    #[error("manifest is ambiguous: it is both an image and a list, or not what its type says")]
    Ambiguous,
    /// The obsolete first format.
    #[error(
        "manifest format (Docker Image manifest version 2, schema 1) is not supported: it is \
         deprecated and not secure"
    )]
    Schema1,
    /// Something else than a container image.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// More layers than can be mounted.
    #[error("max depth exceeded: {0} layers")]
    TooManyLayers(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Reads a manifest. `content_type` is what the transport or descriptor called it, if it did.
    ///
    /// # Errors
    /// [`InvalidManifest`]. Content that could be read as image and as list is refused, because
    /// two readers of it would see two images (CVE-2021-41190).
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, InvalidManifest> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(InvalidManifest::Json)?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(InvalidManifest::Schema1);
        }
        let named = content_type
            .map(|t| t.split(';').next().unwrap_or_default().trim())
            .filter(|t| MANIFEST_TYPES.contains(t) || INDEX_TYPES.contains(t));
        if let (Some(outer), Some(inner)) = (named, raw.media_type.as_deref())
            && outer != inner
        {
            return Err(InvalidManifest::Ambiguous);
        }
        let media_type = raw.media_type.as_deref().or(named);
        match (raw.manifests, raw.layers, raw.config) {
            (Some(manifests), None, None) => {
                if media_type.is_some_and(|t| !INDEX_TYPES.contains(&t)) {
                    return Err(InvalidManifest::Ambiguous);
                }
                Ok(Self::Index(manifests))
            }
            (None, layers, Some(config)) => {
                if media_type.is_some_and(|t| !MANIFEST_TYPES.contains(&t)) {
                    return Err(InvalidManifest::Ambiguous);
                }
                let layers = layers.unwrap_or_default();
                if !config.media_type.is_empty()
                    && !CONFIG_TYPES.contains(&config.media_type.as_str())
                {
                    return Err(InvalidManifest::MediaType(printable(&config.media_type)));
                }
                for layer in &layers {
                    if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
                        return Err(InvalidManifest::MediaType(printable(&layer.media_type)));
                    }
                }
                if layers.len() > MAX_LAYERS {
                    return Err(InvalidManifest::TooManyLayers(layers.len()));
                }
                Ok(Self::Image(ImageManifest { config, layers }))
            }
            _ => Err(InvalidManifest::Ambiguous),
        }
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The best entry of a list for a platform.
#[must_use]
pub fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let mut best: Option<(u8, &Descriptor)> = None;
    for entry in manifests {
        // Lists hold other things too, such as attestations, under types or platforms of their own.
        if !MANIFEST_TYPES.contains(&entry.media_type.as_str())
            && !INDEX_TYPES.contains(&entry.media_type.as_str())
        {
            continue;
        }
        let Some(score) = entry.platform.as_ref().and_then(|p| wanted.accepts(p)) else {
            continue;
        };
        if best.is_none_or(|(found, _)| score < found) {
            best = Some((score, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    #[test]
    fn images_and_lists_are_told_apart() {
        let layer = format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":3}}"#,
            digest('a')
        );
        let config = format!(
            r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}}"#,
            digest('b')
        );
        let image = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
        assert!(matches!(Manifest::parse(image.as_bytes(), None), Ok(Manifest::Image(_))));
        assert!(matches!(
            Manifest::parse(image.as_bytes(), Some(INDEX_TYPES[1])),
            Err(InvalidManifest::Ambiguous)
        ));
        let both =
            format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"manifests":[]}}"#);
        assert!(matches!(Manifest::parse(both.as_bytes(), None), Err(InvalidManifest::Ambiguous)));
        let helm = image.replace("oci.image.config", "cncf.helm.config");
        assert!(matches!(
            Manifest::parse(helm.as_bytes(), None),
            Err(InvalidManifest::MediaType(_))
        ));
        assert!(matches!(
            Manifest::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            Err(InvalidManifest::Schema1)
        ));
        assert!(Manifest::parse(b"[]", None).is_err());
    }

    #[test]
    fn attestations_are_never_chosen() {
        let entry = |c, os: &str, arch: &str| Descriptor {
            media_type: MANIFEST_TYPES[1].to_owned(),
            digest: Digest::parse(&digest(c)).unwrap(),
            size: 1,
            platform: Some(Platform { os: os.into(), architecture: arch.into(), variant: None }),
            annotations: None,
        };
        let list = [
            entry('1', "unknown", "unknown"),
            entry('2', "linux", "arm64"),
            entry('3', "linux", "amd64"),
        ];
        let wanted = Platform::of("linux", "amd64", None);
        assert_eq!(choose(&list, &wanted).map(|d| &d.digest), Some(&list[2].digest));
        assert!(choose(&list[..1], &wanted).is_none());
    }
}
