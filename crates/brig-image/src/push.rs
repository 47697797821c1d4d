//! Pushing images. Layers are here unpacked; what they were when they came from a registry is
//! remembered (digest, size, repositories), so that what the registry has already is only named
//! again, and an image that comes back unchanged has the manifest it came with.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use brig_pki::hash::{Sha256, sha256};
use brig_types::digest::Digest;
use brig_types::id::random_hex;
use brig_types::reference::Reference;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::error::{ImageError, RegistryError};
use crate::manifest::{
    DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, Descriptor, ImageManifest, Manifest,
    OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD, OCI_MANIFEST,
};
use crate::progress::{LayerState, Progress, ProgressSink};
use crate::registry::{BlobFile, Credentials, Session, Upload};
use crate::store::{Image, ImageStore, Source};

/// Forms of a layer that the registry is asked for before it is sent.
const MAX_ASKED: usize = 4;
/// Repositories that a layer may be taken from.
const MAX_MOUNTS: usize = 3;

/// One tag that a push published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The name with its tag.
    pub reference: Reference,
    /// The image.
    pub id: Digest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the manifest in bytes.
    pub size: u64,
}

impl ImageStore {
    /// Pushes a tag, or all tags of the repository if the reference has none.
    ///
    /// Cancel safe: what was sent by then stays in the registry, where nothing names it.
    ///
    /// # Errors
    /// [`ImageError`]; tags before the failing one are published.
    pub async fn push(
        &self,
        reference: &Reference,
        auth: Option<Credentials>,
        progress: &ProgressSink,
    ) -> Result<Vec<Pushed>, ImageError> {
        progress(Progress::PushingTo { repository: reference.name() });
        if reference.digest().is_some() {
            return Err(ImageError::TagWithDigest);
        }
        let known = self.tags_of(reference);
        if known.is_empty() {
            return Err(ImageError::NotPushable(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        let wanted: Vec<(Reference, Arc<Image>)> = match reference.tag() {
            None => known,
            Some(_) => known.into_iter().filter(|(tag, _)| tag == reference).collect(),
        };
        if wanted.is_empty() {
            return Err(ImageError::NotPushable(format!(
                "tag does not exist: {}",
                reference.familiar()
            )));
        }
        let endpoint = self
            .shared
            .registry
            .endpoints(reference.domain())
            .await?
            .into_iter()
            .find(|endpoint| !endpoint.mirror)
            .ok_or_else(|| RegistryError::Invalid("no endpoint".to_owned()))?;
        let mut pushed = Vec::new();
        for (tag, image) in wanted {
            let mounts = self.mounts(&image, &tag);
            let session =
                Session::new(&self.shared.registry, endpoint.clone(), tag.clone(), auth.clone())
                    .for_push(&mounts);
            let pusher = Pusher { store: self, session, tag, image, progress };
            let done = pusher.run().await.inspect_err(|error| {
                if matches!(error, ImageError::Registry(RegistryError::Request { .. })) {
                    self.shared.registry.forget(reference.domain());
                }
            })?;
            pushed.push(done);
        }
        Ok(pushed)
    }

    /// Other repositories of the registry that have layers of the image.
    fn mounts(&self, image: &Image, target: &Reference) -> Vec<String> {
        let state = self.shared.state();
        let sources = image.layers.iter().filter_map(|layer| state.sources.get(layer)).flatten();
        let mut found: Vec<String> = Vec::new();
        for name in sources.flat_map(|source| source.repositories.iter().rev()) {
            if let Some(path) = same_registry(name, target)
                && path != target.path()
                && !found.contains(&path)
                && found.len() < MAX_MOUNTS
            {
                found.push(path);
            }
        }
        found
    }
}

/// The path of a repository if it is of the target's registry.
fn same_registry(name: &str, target: &Reference) -> Option<String> {
    let reference = Reference::parse(name).ok()?;
    (reference.domain() == target.domain()).then(|| reference.path().to_owned())
}

struct Pusher<'a> {
    store: &'a ImageStore,
    session: Session<'a>,
    tag: Reference,
    image: Arc<Image>,
    progress: &'a ProgressSink,
}

impl Pusher<'_> {
    async fn run(&self) -> Result<Pushed, ImageError> {
        let shared = &self.store.shared;
        let _pin = shared.layers.pin(&self.image.layers);
        let mut unique: Vec<Digest> = Vec::new();
        for layer in self.image.layers.iter().rev() {
            if !unique.contains(layer) {
                unique.push(layer.clone());
                self.report(layer, LayerState::Preparing);
            }
        }
        let at_once = shared.registry.settings().concurrent_uploads.max(1);
        for layer in unique.iter().skip(at_once) {
            self.report(layer, LayerState::Waiting);
        }
        let manifests = self.known_manifests().await?;
        let transfers = unique.into_iter().map(|layer| self.layer(layer, &manifests));
        let sources: Vec<(Digest, Source)> =
            futures_util::stream::iter(transfers).buffer_unordered(at_once).try_collect().await?;
        let sources: BTreeMap<Digest, Source> = sources.into_iter().collect();

        let id = &self.image.id;
        if self.session.blob_size(id).await?.is_none() {
            self.session.put_blob(id, &self.image.raw).await?;
        }
        let (media_type, bytes) = self.manifest(&sources, manifests)?;
        let tag = self.tag.tag().unwrap_or_default();
        self.session.put_manifest(tag, &media_type, &bytes).await?;
        let digest = Digest::from_sha256(sha256(&bytes));
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.remember(sources, digest.clone(), bytes).await?;
        (self.progress)(Progress::Pushed { tag: tag.to_owned(), digest: digest.clone(), size });
        Ok(Pushed { reference: self.tag.clone(), id: id.clone(), digest, size })
    }

    /// Manifests that the image came or went with, the newest first.
    async fn known_manifests(&self) -> Result<Vec<(Vec<u8>, ImageManifest)>, ImageError> {
        let shared = &self.store.shared;
        let digests = shared
            .state()
            .records
            .get(&self.image.id)
            .map(|record| record.manifests.clone())
            .unwrap_or_default();
        let mut found = Vec::new();
        for digest in digests.iter().rev() {
            let Some(bytes) = shared.read_blob(digest).await? else { continue };
            if let Ok(Manifest::Image(manifest)) = Manifest::parse(&bytes, None)
                && manifest.config.digest == self.image.id
                && manifest.layers.len() == self.image.layers.len()
            {
                found.push((bytes, manifest));
            }
        }
        Ok(found)
    }

    /// Sees to it that the registry has a layer; returns what it is there.
    async fn layer(
        &self,
        layer: Digest,
        manifests: &[(Vec<u8>, ImageManifest)],
    ) -> Result<(Digest, Source), ImageError> {
        let layer = &layer;
        let own = self.tag.name();
        let here =
            |source: Source| (layer.clone(), Source { repositories: vec![own.clone()], ..source });
        let candidates = self.candidates(layer, manifests);
        for source in candidates.iter().take(MAX_ASKED) {
            if self.session.blob_size(&source.digest).await? == Some(source.size) {
                self.report(layer, LayerState::LayerAlreadyExists);
                return Ok(here(source.clone()));
            }
        }
        let mut asked = 0;
        for source in &candidates {
            for name in source.repositories.iter().rev() {
                let Some(from) = same_registry(name, &self.tag) else { continue };
                if from == self.tag.path() || asked >= MAX_MOUNTS {
                    continue;
                }
                asked += 1;
                if self.session.mount_blob(&source.digest, &from).await? {
                    let id = layer.short().to_owned();
                    (self.progress)(Progress::Mounted { id, from });
                    return Ok(here(source.clone()));
                }
            }
        }
        let blob = self.compress(layer).await?;
        let source = Source {
            digest: blob.digest.clone(),
            size: blob.size,
            media_type: DOCKER_LAYER_GZIP.to_owned(),
            repositories: Vec::new(),
        };
        // The same bytes compress the same way: it may be there under that digest.
        if self.session.blob_size(&blob.digest).await? == Some(blob.size) {
            self.report(layer, LayerState::LayerAlreadyExists);
            return Ok(here(source));
        }
        let report = |state| self.report(layer, state);
        Upload { session: &self.session, blob: &blob, report: &report }.run().await?;
        self.report(layer, LayerState::Pushed);
        Ok(here(source))
    }

    /// What the layer was in registries: first as the image's own manifests have it.
    fn candidates(&self, layer: &Digest, manifests: &[(Vec<u8>, ImageManifest)]) -> Vec<Source> {
        let state = self.store.shared.state();
        let remembered = state.sources.get(layer).cloned().unwrap_or_default();
        let at = self.image.layers.iter().position(|id| id == layer);
        let mut found: Vec<Source> = Vec::new();
        for (_, manifest) in manifests {
            if let Some(named) = at.and_then(|at| manifest.layers.get(at))
                && !found.iter().any(|known| known.digest == named.digest)
            {
                let repositories = remembered
                    .iter()
                    .find(|source| source.digest == named.digest)
                    .map(|source| source.repositories.clone())
                    .unwrap_or_default();
                found.push(Source {
                    digest: named.digest.clone(),
                    size: named.size,
                    media_type: named.media_type.clone(),
                    repositories,
                });
            }
        }
        for source in remembered.into_iter().rev() {
            if !found.iter().any(|known| known.digest == source.digest) {
                found.push(source);
            }
        }
        found
    }

    /// Packs and compresses a layer into a nameless file.
    async fn compress(&self, layer: &Digest) -> Result<BlobFile, ImageError> {
        let (shared, layer) = (Arc::clone(&self.store.shared), layer.clone());
        tokio::task::spawn_blocking(move || {
            let (tar, _) = shared.layers.archive(&layer)?;
            let path = shared.layers.tmp().join(format!("push-{}", random_hex()));
            compress(tar, &path).map_err(ImageError::io("compressing a layer into", &path))
        })
        .await
        .map_err(ImageError::Task)?
    }

    /// The manifest that fits what the registry has: one that is known, or a new one.
    fn manifest(
        &self,
        sources: &BTreeMap<Digest, Source>,
        known: Vec<(Vec<u8>, ImageManifest)>,
    ) -> Result<(String, Vec<u8>), ImageError> {
        let layers: Vec<&Source> =
            self.image.layers.iter().filter_map(|layer| sources.get(layer)).collect();
        for (bytes, manifest) in known {
            let same = |(named, source): (&Descriptor, &&Source)| named.digest == source.digest;
            if manifest.layers.iter().zip(&layers).all(same) {
                let media_type = media_type_of(&bytes).unwrap_or_else(|| OCI_MANIFEST.to_owned());
                return Ok((media_type, bytes));
            }
        }
        let kinds: Vec<Compression> =
            layers.iter().map(|source| Compression::of(&source.media_type)).collect();
        // Docker's own types know gzip only.
        let docker = kinds.iter().all(|kind| *kind == Compression::Gzip);
        let (manifest_type, config_type) =
            if docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
        let layers: Vec<_> = layers
            .iter()
            .zip(kinds)
            .map(|(source, kind)| {
                json!({
                    "mediaType": kind.media_type(docker), "size": source.size,
                    "digest": source.digest.as_str(),
                })
            })
            .collect();
        let bytes = serde_json::to_vec_pretty(&json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {
                "mediaType": config_type, "size": self.image.raw.len(),
                "digest": self.image.id.as_str(),
            },
            "layers": layers,
        }))
        .map_err(|error| ImageError::InvalidImage(format!("manifest: {error}")))?;
        Ok((manifest_type.to_owned(), bytes))
    }

    /// Keeps the manifest, its digest as a name, and what the layers are in the registry.
    async fn remember(
        &self,
        sources: BTreeMap<Digest, Source>,
        digest: Digest,
        manifest: Vec<u8>,
    ) -> Result<(), ImageError> {
        let (store, id) = (self.store.clone(), self.image.id.clone());
        let name = self.tag.repository().with_digest(digest.clone());
        tokio::task::spawn_blocking(move || {
            store.shared.note_push(&id, name, (digest, manifest), sources)
        })
        .await
        .map_err(ImageError::Task)?
    }

    fn report(&self, layer: &Digest, state: LayerState) {
        (self.progress)(Progress::Layer { id: layer.short().to_owned(), state });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(media_type: &str) -> Self {
        if media_type.ends_with("gzip") {
            Self::Gzip
        } else if media_type.ends_with("zstd") {
            Self::Zstd
        } else {
            Self::None
        }
    }

    const fn media_type(self, docker: bool) -> &'static str {
        match self {
            Self::Gzip if docker => DOCKER_LAYER_GZIP,
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
            Self::None => OCI_LAYER_TAR,
        }
    }
}

fn media_type_of(manifest: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Typed>(manifest).ok()?.media_type
}

fn compress(mut tar: impl Read, path: &std::path::Path) -> io::Result<BlobFile> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    std::fs::remove_file(path)?;
    let counting = Counting { file: &file, hash: Sha256::new(), size: 0 };
    let mut encoder = flate2::write::GzEncoder::new(counting, flate2::Compression::default());
    io::copy(&mut tar, &mut encoder)?;
    let Counting { hash, size, .. } = encoder.finish()?;
    let digest = Digest::from_sha256(hash.finish());
    Ok(BlobFile { file: Arc::new(file), digest, size })
}

struct Counting<'a> {
    file: &'a File,
    hash: Sha256,
    size: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += u64::try_from(written).unwrap_or(0);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
