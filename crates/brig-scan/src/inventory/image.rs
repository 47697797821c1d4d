//! What an archive's manifests and configuration say: which image, which layers, whose history.

use std::collections::{BTreeMap, BTreeSet};

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use serde::Deserialize;

use super::archive::{MAX_DEPTH, Store, Wanted, missing};
use super::layer::LayerInventory;
use super::merge::merge;
use super::{Options, ScanError};
use crate::package::{ImageFacts, Inventory, Layer};

/// Most layers of an image.
const MAX_LAYERS: usize = 1000;
/// Most images of an archive.
const MAX_IMAGES: usize = 1000;

/// What is to be read of an image, whichever form its archive has.
struct Image {
    config: Vec<u8>,
    config_digest: Digest,
    manifest: Option<Digest>,
    names: Vec<String>,
    layers: Vec<String>,
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Platform {
    fn fits(&self, wanted: &str) -> bool {
        let mut parts = wanted.split('/');
        parts.next() == Some(self.os.as_str())
            && parts.next() == Some(self.architecture.as_str())
            && parts.next().is_none_or(|variant| variant == self.variant)
    }

    fn name(&self) -> String {
        let mut name = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            name.push('/');
            name.push_str(&self.variant);
        }
        name
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    config: Option<RunConfig>,
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Vec<HistoryStep>>,
}

#[derive(Default, Deserialize)]
struct RunConfig {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// One step of an image's history.
#[derive(Default, Deserialize)]
struct HistoryStep {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, ScanError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ScanError::Image(format!("its {what} cannot be read: {error}")))
}

pub(super) fn read_image(store: &dyn Store, options: &Options) -> Result<Inventory, ScanError> {
    let image = if let Some(manifest) = store.small("manifest.json")? {
        docker_image(store, &manifest, options)?
    } else if let Some(index) = store.small("index.json")? {
        oci_image(store, &index, options)?
    } else {
        return Err(ScanError::Unknown("it has neither manifest.json nor index.json"));
    };
    let mut config: Config = json(&image.config, "configuration")?;
    let diff_ids = std::mem::take(&mut config.rootfs.diff_ids);
    if diff_ids.len() != image.layers.len() {
        return Err(ScanError::Image(format!(
            "its configuration has {} layers, its manifest {}",
            diff_ids.len(),
            image.layers.len()
        )));
    }
    if diff_ids.len() > MAX_LAYERS {
        return Err(ScanError::Limit { what: "layers", limit: MAX_LAYERS as u64 });
    }
    let wanted: Vec<Wanted> = image
        .layers
        .into_iter()
        .zip(diff_ids)
        .map(|(name, diff_id)| Wanted { name, diff_id })
        .collect();
    let found = store.layers(&wanted, options)?;
    let facts = ImageFacts {
        id: Some(image.config_digest),
        manifest: image.manifest,
        names: image.names,
        ..ImageFacts::default()
    };
    let diff_ids = wanted.iter().map(|wanted| wanted.diff_id.clone());
    let layers: Vec<(Digest, &LayerInventory)> = diff_ids.zip(&found).collect();
    let inventory = assemble(config, facts, &layers);
    if inventory.packages.len() > options.limits.packages {
        return Err(ScanError::Limit { what: "packages", limit: options.limits.packages as u64 });
    }
    Ok(inventory)
}

/// The inventory of an image whose layers were read one by one.
///
/// `config` is its configuration, as it is stored; `facts` what is known of the image beside it: its
/// id, manifest and names.
///
/// # Errors
/// [`ScanError::Image`] when the configuration cannot be read or has other layers than these.
pub fn of_layers(
    config: &[u8],
    facts: ImageFacts,
    layers: &[&LayerInventory],
) -> Result<Inventory, ScanError> {
    let mut config: Config = json(config, "configuration")?;
    let diff_ids = std::mem::take(&mut config.rootfs.diff_ids);
    if diff_ids.len() != layers.len() {
        return Err(ScanError::Image(format!(
            "its configuration has {} layers, {} were read",
            diff_ids.len(),
            layers.len()
        )));
    }
    let layers: Vec<(Digest, &LayerInventory)> =
        diff_ids.into_iter().zip(layers.iter().copied()).collect();
    Ok(assemble(config, facts, &layers))
}

/// Puts the layers together and says of the image what its configuration says.
fn assemble(
    config: Config,
    mut facts: ImageFacts,
    layers: &[(Digest, &LayerInventory)],
) -> Inventory {
    let history = config.history.unwrap_or_default();
    let mut steps = history.iter().filter(|step| !step.empty_layer);
    let layers: Vec<(Layer, &LayerInventory)> = layers
        .iter()
        .map(|(diff_id, found)| {
            let step = steps.next();
            let layer = Layer {
                diff_id: diff_id.clone(),
                created_by: step.and_then(|step| step.created_by.clone()),
                created: step.and_then(|step| step.created.clone()),
                size: found.size,
            };
            (layer, *found)
        })
        .collect();
    let platform =
        Platform { os: config.os, architecture: config.architecture, variant: config.variant };
    facts.platform = Some(platform.name()).filter(|name| name.len() > 1);
    facts.labels = config.config.and_then(|config| config.labels).unwrap_or_default();
    facts.history =
        history.iter().map(|step| step.created_by.clone().unwrap_or_default()).collect();
    merge(&layers, facts)
}

fn docker_image(store: &dyn Store, manifest: &[u8], options: &Options) -> Result<Image, ScanError> {
    let images: Vec<DockerImage> = json(manifest, "manifest.json")?;
    if images.len() > MAX_IMAGES {
        return Err(ScanError::Limit { what: "images", limit: MAX_IMAGES as u64 });
    }
    let names = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    let chosen = choose(images, options, |image| {
        let mut all = names(image);
        all.push(image.config.trim_start_matches("blobs/sha256/").to_owned());
        all
    })?;
    let config = store.small(&chosen.config)?.ok_or_else(|| missing(&chosen.config))?;
    let config_digest = Digest::from_sha256(sha256(&config));
    // The file is named by its digest: `HEX.json` or `blobs/sha256/HEX`.
    let base = chosen.config.rsplit('/').next().unwrap_or_default();
    let named = base.strip_suffix(".json").unwrap_or(base);
    if let Ok(expected) = Digest::parse(&format!("sha256:{named}"))
        && expected != config_digest
    {
        return Err(ScanError::WrongDigest {
            what: "the image's configuration",
            expected,
            actual: config_digest,
        });
    }
    let names = names(&chosen);
    let layers = chosen.layers.unwrap_or_default();
    Ok(Image { config, config_digest, manifest: None, names, layers })
}

/// The one image, or the one that was asked for.
fn choose<T>(
    mut images: Vec<T>,
    options: &Options,
    names: impl Fn(&T) -> Vec<String>,
) -> Result<T, ScanError> {
    if let Some(wanted) = &options.image {
        let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        images.retain(|image| {
            names(image).iter().any(|name| {
                name == wanted
                    || name.strip_suffix(":latest") == Some(wanted.as_str())
                    || (id.len() >= 4 && name.starts_with(id))
            })
        });
    }
    if images.len() > 1 {
        let all: BTreeSet<String> =
            images.iter().filter_map(|image| names(image).into_iter().next()).collect();
        let names: Vec<String> = all.into_iter().take(10).collect();
        return Err(ScanError::Choice { names: names.join(", ") });
    }
    images.pop().ok_or_else(|| match &options.image {
        Some(wanted) => ScanError::Image(format!("it has no image {wanted:?}")),
        None => ScanError::Image("it has no image".to_owned()),
    })
}

fn oci_image(store: &dyn Store, index: &[u8], options: &Options) -> Result<Image, ScanError> {
    let index: Document = json(index, "index.json")?;
    if index.manifests.len() > MAX_IMAGES {
        return Err(ScanError::Limit { what: "images", limit: MAX_IMAGES as u64 });
    }
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let annotations = descriptor.annotations.iter().flatten();
        annotations
            .filter(|(key, _)| {
                matches!(
                    key.as_str(),
                    "io.containerd.image.name" | "org.opencontainers.image.ref.name"
                )
            })
            .map(|(_, name)| name.clone())
            .collect()
    };
    // Several platforms of one image may lie beside each other.
    let mut candidates = index.manifests;
    candidates.retain(is_image);
    let platform = wanted_platform(options);
    if candidates.len() > 1 && candidates.iter().any(|d| fits(d, &platform)) {
        candidates.retain(|descriptor| {
            descriptor.platform.as_ref().is_none_or(|known| known.fits(&platform))
        });
    }
    let mut chosen = choose(candidates, options, |descriptor| {
        let mut all = names(descriptor);
        all.push(descriptor.digest.hex().to_owned());
        all
    })?;
    let image_names = names(&chosen);
    for _ in 0..MAX_DEPTH {
        let bytes = blob(store, &chosen.digest, "a manifest")?;
        let document: Document = json(&bytes, "manifest")?;
        let Some(config) = document.config else {
            let all = document.manifests.into_iter().filter(is_image);
            let found: Vec<Descriptor> = all.collect();
            let only = found.len() == 1;
            chosen = found
                .into_iter()
                .find(|descriptor| only || fits(descriptor, &platform))
                .ok_or_else(|| ScanError::Image(format!("it has nothing for {platform}")))?;
            continue;
        };
        if document.media_type.contains("artifact") || config.media_type.contains("empty") {
            return Err(ScanError::Unknown("it is an artifact and no image"));
        }
        return Ok(Image {
            config: blob(store, &config.digest, "the image's configuration")?,
            config_digest: config.digest,
            manifest: Some(chosen.digest),
            names: image_names,
            layers: document.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        });
    }
    Err(ScanError::Image("its indexes lie too deep in each other".to_owned()))
}

/// Attestations lie beside images as manifests for no platform.
fn is_image(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
        && !descriptor.media_type.contains("artifact")
}

fn fits(descriptor: &Descriptor, platform: &str) -> bool {
    descriptor.platform.as_ref().is_some_and(|known| known.fits(platform))
}

fn wanted_platform(options: &Options) -> String {
    options.platform.clone().unwrap_or_else(|| {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        format!("linux/{architecture}")
    })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(store: &dyn Store, digest: &Digest, what: &'static str) -> Result<Vec<u8>, ScanError> {
    let name = blob_name(digest);
    let bytes = store.small(&name)?.ok_or_else(|| missing(&name))?;
    let actual = Digest::from_sha256(sha256(&bytes));
    if actual != *digest {
        return Err(ScanError::WrongDigest { what, expected: digest.clone(), actual });
    }
    Ok(bytes)
}
