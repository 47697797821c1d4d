//! Pulling an image: what the reference stands for, what is missing here, fetching, publishing.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::config::ImageConfig;
use crate::error::{ImageError, RegistryError};
use crate::limits::{MAX_CONFIG, MAX_CONFIG_VALUES};
use crate::manifest::{Descriptor, ImageManifest, Manifest, choose};
use crate::platform::Platform;
use crate::progress::{LayerState, Progress, ProgressSink};
use crate::registry::{Credentials, Found, Session, Transfer};
use crate::store::layers::StagedLayer;
use crate::store::{ImageStore, NewImage, Source, files};
use crate::unpack::Expected;
use crate::unpack::stream::ChannelReader;

/// Lists may lead to lists; no deeper than this.
const MAX_INDEX_DEPTH: usize = 3;

/// What a pull came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOutcome {
    /// The image.
    pub id: Digest,
    /// The digest that the reference stands for: of the manifest, or of the list it was chosen from.
    pub digest: Digest,
    /// Nothing had to be fetched.
    pub up_to_date: bool,
}

impl ImageStore {
    /// Pulls the image that `reference` (with `latest` if it has neither tag nor digest) stands for
    /// and names it so. Two pulls of one reference run one after the other.
    ///
    /// Cancel safe: a pull that is dropped leaves nothing but, shortly, its temporary files.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is named or kept then.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Credentials>,
        progress: &ProgressSink,
    ) -> Result<PullOutcome, ImageError> {
        let reference = reference.clone().with_default_tag();
        let outcome = self.pull_one(&reference, platform.as_ref(), auth.as_ref(), progress).await?;
        progress(Progress::Done {
            reference: reference.familiar(),
            up_to_date: outcome.up_to_date,
        });
        Ok(outcome)
    }

    /// Pulls all tags of a repository, one after the other.
    ///
    /// # Errors
    /// [`ImageError`]; tags before the failing one are here.
    pub async fn pull_all(
        &self,
        repository: &Reference,
        platform: Option<Platform>,
        auth: Option<Credentials>,
        progress: &ProgressSink,
    ) -> Result<Vec<(Reference, PullOutcome)>, ImageError> {
        let mut last = None;
        let mut tags = None;
        for endpoint in self.shared.registry.endpoints(repository.domain()).await? {
            let mirror = endpoint.mirror;
            let session =
                Session::new(&self.shared.registry, endpoint, repository.clone(), auth.clone());
            match session.tags().await {
                Ok(found) => {
                    tags = Some(found);
                    break;
                }
                Err(error) if mirror => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let tags = tags.ok_or_else(|| {
            last.unwrap_or_else(|| RegistryError::Invalid("no endpoint".to_owned()))
        })?;
        let mut pulled = Vec::new();
        for tag in tags {
            let reference = repository.with_tag(&tag)?;
            let outcome =
                self.pull_one(&reference, platform.as_ref(), auth.as_ref(), progress).await?;
            pulled.push((reference, outcome));
        }
        progress(Progress::Done {
            reference: repository.familiar(),
            up_to_date: pulled.iter().all(|(_, outcome)| outcome.up_to_date),
        });
        Ok(pulled)
    }

    async fn pull_one(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        auth: Option<&Credentials>,
        progress: &ProgressSink,
    ) -> Result<PullOutcome, ImageError> {
        let tag = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or_default().to_owned(),
        };
        progress(Progress::PullingFrom { repository: reference.path().to_owned(), tag });
        let turn = self.pull_turn(reference);
        let _turn = turn.lock().await;

        let endpoints = self.shared.registry.endpoints(reference.domain()).await?;
        let mut last = None;
        for endpoint in endpoints {
            let mirror = endpoint.mirror;
            let puller = Puller {
                store: self,
                session: Session::new(
                    &self.shared.registry,
                    endpoint,
                    reference.clone(),
                    auth.cloned(),
                ),
                reference,
                wanted: platform,
                progress,
            };
            match puller.run().await {
                Ok(outcome) => {
                    progress(Progress::Digest(outcome.digest.clone()));
                    return Ok(outcome);
                }
                Err(error) if mirror => {
                    tracing::info!(
                        error = %brig_types::error::chain(&error),
                        "mirror does not have the image"
                    );
                    last = Some(error);
                }
                Err(error) => {
                    if matches!(error, ImageError::Registry(RegistryError::Request { .. })) {
                        self.shared.registry.forget(reference.domain());
                    }
                    return Err(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Invalid("no endpoint".to_owned()).into()))
    }

    fn pull_turn(&self, reference: &Reference) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulls = self.shared.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(pulls.entry(reference.to_string()).or_default())
    }
}

struct Puller<'a> {
    store: &'a ImageStore,
    session: Session<'a>,
    reference: &'a Reference,
    wanted: Option<&'a Platform>,
    progress: &'a ProgressSink,
}

/// An image that was decided on, before its layers are here.
struct Chosen {
    /// What the reference stands for.
    digest: Digest,
    /// The manifests on the way.
    manifests: Vec<(Digest, Vec<u8>)>,
    image: ImageManifest,
    config: ImageConfig,
    raw: Vec<u8>,
}

impl Puller<'_> {
    async fn run(&self) -> Result<PullOutcome, ImageError> {
        let announced = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => Some(digest.clone()),
            (None, tag) => self.session.digest_of(tag.unwrap_or_default()).await?,
        };
        if let Some(digest) = &announced
            && let Some(id) = self.present(digest).await?
        {
            self.name(&id, digest).await?;
            return Ok(PullOutcome { id, digest: digest.clone(), up_to_date: true });
        }
        let found = match &announced {
            Some(digest) => self.session.manifest_by_digest(digest, None).await?,
            None => self.session.manifest_by_tag(self.reference.tag().unwrap_or_default()).await?,
        };
        let chosen = self.choose(found).await?;
        self.fetch(chosen).await
    }

    /// The image that is here for a digest, if it is for the right platform.
    async fn present(&self, digest: &Digest) -> Result<Option<Digest>, ImageError> {
        let state = self.store.shared.state();
        let name = self.reference.repository().with_digest(digest.clone());
        let Some(id) = state.digests.get(&name) else { return Ok(None) };
        let Some(record) = state.records.get(id) else { return Ok(None) };
        let platform = record.config.platform();
        let fits = match self.wanted {
            Some(wanted) => wanted.accepts(&platform).is_some(),
            // What was pulled for another platform on purpose is not what is wanted now, unless
            // there is nothing else under that digest.
            None => Platform::host().accepts(&platform).is_some() || !self.is_list(digest).await?,
        };
        Ok(fits.then(|| id.clone()))
    }

    async fn is_list(&self, digest: &Digest) -> Result<bool, ImageError> {
        let bytes = self.store.shared.read_blob(digest).await?;
        Ok(bytes.is_some_and(|b| matches!(Manifest::parse(&b, None), Ok(Manifest::Index(_)))))
    }

    /// Follows lists to the image for the platform, and reads its configuration.
    async fn choose(&self, found: Found) -> Result<Chosen, ImageError> {
        let digest = found.digest.clone();
        let host = Platform::host();
        let wanted = self.wanted.unwrap_or(&host);
        let mut manifests = Vec::new();
        let mut current = found;
        let image = loop {
            let parsed = Manifest::parse(&current.bytes, Some(&current.media_type))
                .map_err(|error| ImageError::InvalidImage(brig_types::error::chain(&error)))?;
            manifests.push((current.digest.clone(), current.bytes));
            match parsed {
                Manifest::Image(image) => break image,
                Manifest::Index(_) if manifests.len() >= MAX_INDEX_DEPTH => {
                    return Err(ImageError::InvalidImage("lists lead to lists".to_owned()));
                }
                Manifest::Index(entries) => {
                    let entry = choose(&entries, wanted)
                        .ok_or_else(|| RegistryError::NoPlatform(wanted.to_string()))?;
                    current =
                        self.session.manifest_by_digest(&entry.digest, Some(entry.size)).await?;
                    if current.media_type.is_empty() {
                        current.media_type.clone_from(&entry.media_type);
                    }
                }
            }
        };
        let here = self.store.shared.read_blob(&image.config.digest).await?;
        let raw = match here {
            Some(raw) => raw,
            None => self.session.blob(&image.config, MAX_CONFIG, "image configuration").await?,
        };
        let config = read_config(&raw, image.layers.len())?;
        if let Some(wanted) = self.wanted
            && wanted.accepts(&config.platform()).is_none()
        {
            return Err(ImageError::WrongPlatform {
                reference: self.reference.familiar(),
                wanted: wanted.to_string(),
                actual: config.platform().to_string(),
            });
        }
        Ok(Chosen { digest, manifests, image, config, raw })
    }

    async fn fetch(&self, chosen: Chosen) -> Result<PullOutcome, ImageError> {
        let shared = &self.store.shared;
        let Chosen { digest, manifests, image, config, raw } = chosen;
        let diff_ids = config.rootfs.diff_ids.clone();
        let id = image.config.digest.clone();

        for layer in &image.layers {
            self.report(layer, LayerState::PullingFsLayer);
        }
        let _pin = shared.layers.pin(&diff_ids);
        let absent: Vec<Digest> =
            diff_ids.iter().filter(|id| !shared.layers.contains(id)).cloned().collect();
        let _locks = shared.layers.lock(&absent).await;

        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for (layer, diff_id) in image.layers.iter().zip(&diff_ids) {
            if shared.layers.contains(diff_id) {
                self.report(layer, LayerState::AlreadyExists);
            } else if seen.insert(diff_id) {
                missing.push((layer.clone(), diff_id.clone()));
            }
        }
        self.require_room(&missing).await?;
        let at_once = shared.registry.settings().concurrent_downloads.max(1);
        for (layer, _) in missing.iter().skip(at_once) {
            self.report(layer, LayerState::Waiting);
        }
        let fetched = !missing.is_empty();
        let transfers =
            missing.clone().into_iter().map(|(layer, diff_id)| self.layer(layer, diff_id));
        let staged: Vec<StagedLayer> =
            futures_util::stream::iter(transfers).buffered(at_once).try_collect().await?;

        // A mirror is not where the image would be pushed to, but its layers are the same there.
        let repository = self.reference.name();
        let sources = image.layers.iter().zip(&diff_ids).map(|(layer, diff_id)| {
            let source = Source {
                digest: layer.digest.clone(),
                size: layer.size,
                media_type: layer.media_type.clone(),
                repositories: vec![repository.clone()],
            };
            (diff_id.clone(), source)
        });
        let new = NewImage {
            sources: sources.collect(),
            id: id.clone(),
            config,
            raw,
            manifests,
            tags: self.tags(),
            repo_digests: vec![self.reference.repository().with_digest(digest.clone())],
        };
        let known = shared.state().records.contains_key(&id);
        self.store.commit(new, staged).await?;
        for (layer, _) in &missing {
            self.report(layer, LayerState::PullComplete);
        }
        Ok(PullOutcome { id, digest, up_to_date: known && !fetched })
    }

    /// Layers that do not even fit compressed are not begun: a full disk is better said now than
    /// after minutes, and than to all others who write there.
    async fn require_room(&self, missing: &[(Descriptor, Digest)]) -> Result<(), ImageError> {
        let needed = missing.iter().fold(0_u64, |sum, (layer, _)| sum.saturating_add(layer.size));
        let layers = Arc::clone(&self.store.shared.layers);
        tokio::task::spawn_blocking(move || files::require_room(layers.tmp(), needed))
            .await
            .map_err(ImageError::Task)?
    }

    /// Fetches and unpacks one layer, both at once.
    async fn layer(&self, layer: Descriptor, diff_id: Digest) -> Result<StagedLayer, ImageError> {
        let limits = self.store.shared.limits;
        if layer.size > limits.layer_compressed {
            let limit = limits.layer_compressed;
            return Err(RegistryError::TooLarge { what: "layer", limit }.into());
        }
        let (sink, source) = ChannelReader::channel();
        let unpacking = {
            let layers = Arc::clone(&self.store.shared.layers);
            let (blob, size) = (layer.digest.clone(), layer.size);
            tokio::task::spawn_blocking(move || {
                let expected = Expected { blob: Some((&blob, size)), diff_id: Some(&diff_id) };
                layers.stage(source, expected, &limits).map_err(|e| e.into_image_error(&blob))
            })
        };
        let report = |state| self.report(&layer, state);
        let transfer = Transfer { session: &self.session, layer: &layer, report: &report };
        let sent = transfer.run(sink).await;
        if matches!(sent, Ok(true)) {
            report(LayerState::VerifyingChecksum);
        }
        let unpacked = unpacking.await.map_err(ImageError::Task)?;
        // The transfer's error is the cause; the unpacker only saw its source end.
        sent?;
        let staged = unpacked?;
        report(LayerState::DownloadComplete);
        report(LayerState::Extracting { current: layer.size, total: layer.size });
        Ok(staged)
    }

    fn tags(&self) -> Vec<Reference> {
        match self.reference.digest() {
            Some(_) => Vec::new(),
            None => vec![self.reference.clone()],
        }
    }

    /// Names an image that is here already.
    async fn name(&self, id: &Digest, digest: &Digest) -> Result<(), ImageError> {
        let shared = Arc::clone(&self.store.shared);
        let (id, tags) = (id.clone(), self.tags());
        let digests = vec![self.reference.repository().with_digest(digest.clone())];
        tokio::task::spawn_blocking(move || {
            shared.update(|state| {
                if !state.records.contains_key(&id) {
                    return Err(ImageError::NotFound(id.as_str().to_owned()));
                }
                state.name(&id, &tags, &digests);
                Ok(())
            })
        })
        .await
        .map_err(ImageError::Task)?
    }

    fn report(&self, layer: &Descriptor, state: LayerState) {
        (self.progress)(Progress::Layer { id: layer.digest.short().to_owned(), state });
    }
}

impl ImageStore {
    /// [`crate::store::Shared::commit`] off the async threads.
    pub(crate) async fn commit(
        &self,
        image: NewImage,
        staged: Vec<StagedLayer>,
    ) -> Result<Vec<(Reference, Digest)>, ImageError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.commit(image, staged))
            .await
            .map_err(ImageError::Task)?
    }

    /// Adds an image that was made here, of layers that are there or staged. Answers its id and
    /// what had its name before.
    pub(crate) async fn commit_made(
        &self,
        config: ImageConfig,
        reference: Option<Reference>,
        staged: Vec<StagedLayer>,
    ) -> Result<(Digest, Vec<(Reference, Digest)>), ImageError> {
        let raw = serde_json::to_vec(&config)
            .map_err(|error| ImageError::InvalidImage(format!("configuration: {error}")))?;
        let id = Digest::from_sha256(sha256(&raw));
        let _pin = self.shared.layers.pin(&config.rootfs.diff_ids);
        let new = NewImage {
            id: id.clone(),
            config,
            raw,
            manifests: Vec::new(),
            tags: reference.map(Reference::with_default_tag).into_iter().collect(),
            repo_digests: Vec::new(),
            sources: Vec::new(),
        };
        let renamed = self.commit(new, staged).await?;
        Ok((id, renamed))
    }
}

/// Reads an image configuration that must describe `layers` layers.
pub(crate) fn read_config(raw: &[u8], layers: usize) -> Result<ImageConfig, ImageError> {
    if crate::config::values(raw) > MAX_CONFIG_VALUES {
        return Err(ImageError::InvalidImage(format!(
            "the configuration has more than {MAX_CONFIG_VALUES} values"
        )));
    }
    let config: ImageConfig = serde_json::from_slice(raw)
        .map_err(|error| ImageError::InvalidImage(format!("configuration: {error}")))?;
    if !config.os.is_empty() && config.os != "linux" {
        return Err(ImageError::WrongOs(config.os));
    }
    if config.rootfs.diff_ids.len() != layers {
        return Err(ImageError::InvalidImage(format!(
            "the configuration has {} layers, the manifest {layers}",
            config.rootfs.diff_ids.len()
        )));
    }
    Ok(config)
}
