//! What an archive's files mean: `manifest.json` (Docker image spec v1.2, "Combined Image JSON")
//! or `index.json` (OCI image layout spec).

use std::collections::BTreeMap;

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use serde::Deserialize;

use super::spool::{Section, Spool};
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::limits::{
    MAX_ARCHIVE_CONFIGS, MAX_ARCHIVE_IMAGES, MAX_CONFIG, MAX_LAYERS, MAX_MANIFEST,
};
use crate::manifest::{Descriptor, INDEX_TYPES, MANIFEST_TYPES, Manifest, choose};
use crate::platform::Platform;
use crate::pull::read_config;

const DOCKER_MANIFEST: &str = "manifest.json";
const OCI_INDEX: &str = "index.json";
const LEGACY_INDEX: &str = "repositories";
/// The whole reference, as containerd's and Docker's tools note it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// A reference or only a tag (OCI image spec, annotations).
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const MAX_INDEX_DEPTH: usize = 3;

/// One image of an archive.
#[derive(Debug)]
pub(crate) struct ArchivedImage {
    pub(crate) id: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) raw: Vec<u8>,
    /// Bottom first, as many as the configuration has.
    pub(crate) layers: Vec<ArchivedLayer>,
    pub(crate) tags: Vec<Reference>,
}

/// One layer of an archive.
#[derive(Clone, Debug)]
pub(crate) struct ArchivedLayer {
    pub(crate) section: Section,
    /// Digest and size, where the archive says them.
    pub(crate) blob: Option<(Digest, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads what images an archive has. Blocks.
pub(crate) fn read_images(
    spool: &Spool,
    wanted: &Platform,
) -> Result<Vec<ArchivedImage>, ImageError> {
    if spool.contains(DOCKER_MANIFEST) {
        docker_images(spool)
    } else if spool.contains(OCI_INDEX) {
        oci_images(spool, wanted)
    } else if spool.contains(LEGACY_INDEX) {
        Err(ImageError::Archive(
            "it is in the format before Docker 1.10, which has no content addresses".to_owned(),
        ))
    } else {
        Err(ImageError::Archive(
            "it has neither manifest.json nor index.json: not an image archive (a root file system \
             is brought in with import)"
                .to_owned(),
        ))
    }
}

fn docker_images(spool: &Spool) -> Result<Vec<ArchivedImage>, ImageError> {
    let bytes = spool.read(DOCKER_MANIFEST, MAX_MANIFEST)?;
    let entries: Vec<DockerImage> = serde_json::from_slice(&bytes)
        .map_err(|error| ImageError::Archive(format!("{DOCKER_MANIFEST}: {error}")))?;
    if entries.len() > MAX_ARCHIVE_IMAGES {
        return Err(ImageError::Archive("it has too many images".to_owned()));
    }
    let mut images = Vec::new();
    let mut kept = 0;
    for entry in entries {
        let names = entry.layers.unwrap_or_default();
        if names.len() > MAX_LAYERS {
            return Err(ImageError::Archive(format!("max depth exceeded: {} layers", names.len())));
        }
        let raw = spool.read(&entry.config, MAX_CONFIG)?;
        keep(&mut kept, &raw)?;
        let config = read_config(&raw, names.len())?;
        let mut layers = Vec::new();
        for name in &names {
            layers.push(ArchivedLayer { section: spool.section(name)?, blob: None });
        }
        let mut tags = Vec::new();
        for tag in entry.repo_tags.unwrap_or_default() {
            tags.push(tag_of(&tag)?);
        }
        let id = Digest::from_sha256(sha256(&raw));
        images.push(ArchivedImage { id, config, raw, layers, tags });
    }
    Ok(images)
}

/// One archive may name a large configuration a thousand times.
fn keep(kept: &mut u64, raw: &[u8]) -> Result<(), ImageError> {
    *kept = kept.saturating_add(u64::try_from(raw.len()).unwrap_or(u64::MAX));
    if *kept > MAX_ARCHIVE_CONFIGS {
        return Err(ImageError::Archive(format!(
            "its images' configurations are larger than {MAX_ARCHIVE_CONFIGS} bytes"
        )));
    }
    Ok(())
}

fn tag_of(text: &str) -> Result<Reference, ImageError> {
    let reference = Reference::parse(text)?;
    if reference.digest().is_some() || reference.tag().is_none() {
        return Err(ImageError::Archive(format!("{text:?} is not a name with a tag")));
    }
    Ok(reference)
}

#[derive(Deserialize)]
struct OciIndex {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

fn oci_images(spool: &Spool, wanted: &Platform) -> Result<Vec<ArchivedImage>, ImageError> {
    let bytes = spool.read(OCI_INDEX, MAX_MANIFEST)?;
    let index: OciIndex = serde_json::from_slice(&bytes)
        .map_err(|error| ImageError::Archive(format!("{OCI_INDEX}: {error}")))?;
    let entries = index.manifests.unwrap_or_default();
    if entries.len() > MAX_ARCHIVE_IMAGES {
        return Err(ImageError::Archive("it has too many images".to_owned()));
    }
    let is_image = |entry: &&Descriptor| {
        MANIFEST_TYPES.contains(&entry.media_type.as_str())
            || INDEX_TYPES.contains(&entry.media_type.as_str())
    };
    let mut images: Vec<ArchivedImage> = Vec::new();
    let mut kept = 0;
    for entry in entries.iter().filter(is_image) {
        // Notes beside an image, such as attestations, are not for this machine.
        if entry.platform.as_ref().is_some_and(|p| p.os == "unknown") {
            continue;
        }
        let image = oci_image(spool, entry, wanted, 1)?;
        let tag = entry.annotations.as_ref().and_then(oci_tag);
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.tags.extend(tag),
            None => {
                keep(&mut kept, &image.raw)?;
                images.push(ArchivedImage { tags: tag.into_iter().collect(), ..image });
            }
        }
    }
    Ok(images)
}

fn oci_image(
    spool: &Spool,
    descriptor: &Descriptor,
    wanted: &Platform,
    depth: usize,
) -> Result<ArchivedImage, ImageError> {
    let bytes = oci_blob(spool, descriptor, MAX_MANIFEST)?;
    let parsed = Manifest::parse(&bytes, Some(&descriptor.media_type))
        .map_err(|error| ImageError::InvalidImage(brig_types::error::chain(&error)))?;
    let image = match parsed {
        Manifest::Image(image) => image,
        Manifest::Index(_) if depth >= MAX_INDEX_DEPTH => {
            return Err(ImageError::Archive("lists lead to lists".to_owned()));
        }
        Manifest::Index(entries) => {
            let entry = choose(&entries, wanted)
                .ok_or_else(|| ImageError::Archive(format!("it has no image for {wanted}")))?;
            return oci_image(spool, entry, wanted, depth + 1);
        }
    };
    let raw = oci_blob(spool, &image.config, MAX_CONFIG)?;
    let config = read_config(&raw, image.layers.len())?;
    let mut layers = Vec::new();
    for layer in image.layers {
        let section = spool.section(&blob_name(&layer.digest))?;
        if section.len() != layer.size {
            return Err(ImageError::Archive(format!(
                "layer {} has {} bytes instead of {}",
                layer.digest.short(),
                section.len(),
                layer.size
            )));
        }
        layers.push(ArchivedLayer { section, blob: Some((layer.digest, layer.size)) });
    }
    Ok(ArchivedImage { id: image.config.digest, config, raw, layers, tags: Vec::new() })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn oci_blob(spool: &Spool, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
    let bytes = spool.read(&blob_name(&descriptor.digest), limit)?;
    let actual = Digest::from_sha256(sha256(&bytes));
    if actual != descriptor.digest
        || u64::try_from(bytes.len()).is_ok_and(|len| len != descriptor.size)
    {
        return Err(ImageError::Archive(format!(
            "{} does not have its digest and size",
            descriptor.digest
        )));
    }
    Ok(bytes)
}

/// The name that an index gives an image; none if it only notes a tag without a repository.
fn oci_tag(annotations: &BTreeMap<String, String>) -> Option<Reference> {
    let whole = annotations.get(CONTAINERD_NAME);
    let partial = annotations.get(OCI_NAME).filter(|name| name.contains([':', '/']));
    let reference = Reference::parse(whole.or(partial)?).ok()?;
    reference.digest().is_none().then(|| reference.with_default_tag())
}
