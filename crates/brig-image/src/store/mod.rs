//! The image store: content on disk, names in one index, everything known in memory.
//!
//! ```text
//! <data root>/image/blobs/<hex>         manifests and configurations
//! <data root>/image/layers/<hex>/       unpacked layers by diff id
//! <data root>/image/images.json         images, tags, repo digests
//! <data root>/image/tmp, trash          unfinished and dying things
//! <data root>/overlay/<container id>/   writable layers ([`crate::snapshot`])
//! ```
//!
//! Readers see an immutable state; a writer makes the next one, writes the index, and swaps it
//! in. So no reader waits for a disk.

pub mod remove;

pub(crate) mod blobs;
pub(crate) mod files;
mod index;
pub(crate) mod layers;
mod resolve;
mod state;
pub(crate) mod trash;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use brig_types::digest::Digest;
use brig_types::reference::Reference;
use time::OffsetDateTime;

use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::registry::{RegistryClient, RegistrySettings};
use crate::snapshot::Snapshots;
use blobs::Blobs;
pub(crate) use index::Source;
use layers::{Layers, StagedLayer};
use state::{Record, State};
use trash::Trash;

/// Most manifests that are kept for one image by pushes.
const MAX_MANIFESTS: usize = 32;

/// How to open a store.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// How registries are reached.
    pub registry: RegistrySettings,
    /// Bounds on what is read.
    pub limits: Limits,
}

/// All images of this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    index_path: PathBuf,
    root: PathBuf,
    pub(crate) limits: Limits,
    pub(crate) registry: RegistryClient,
    pub(crate) blobs: Blobs,
    pub(crate) layers: Arc<Layers>,
    snapshots: Snapshots,
    state: RwLock<Arc<State>>,
    /// Told of every new state.
    pub(crate) changes: tokio::sync::watch::Sender<()>,
    /// Held by whoever makes the next state.
    writer: Mutex<()>,
    /// One pull of a reference at a time; others wait and find it done.
    pub(crate) pulls: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// An image as callers see it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub id: Digest,
    /// The configuration.
    pub config: Arc<ImageConfig>,
    /// The configuration's bytes, which the id is the digest of.
    pub raw: Arc<[u8]>,
    /// Diff ids of the layers, bottom first.
    pub layers: Vec<Digest>,
    /// Sum of the layers' sizes, in bytes.
    pub size: u64,
    /// Names with a tag.
    pub tags: Vec<Reference>,
    /// Names with the digest of the manifest that was pulled.
    pub repo_digests: Vec<Reference>,
    /// When it got its last name here.
    pub last_tagged: Option<OffsetDateTime>,
}

impl Image {
    /// When the image was made.
    #[must_use]
    pub fn created(&self) -> OffsetDateTime {
        self.config.created_at()
    }

    /// Processor, in Go's words.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.config.architecture
    }

    /// Operating system, in Go's words.
    #[must_use]
    pub fn os(&self) -> &str {
        if self.config.os.is_empty() { "linux" } else { &self.config.os }
    }
}

/// One line of `docker history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image, for the newest line only.
    pub id: Option<Digest>,
    /// When.
    pub created: OffsetDateTime,
    /// The command.
    pub created_by: String,
    /// Bytes that the step added.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// Tags of the image, for the newest line only.
    pub tags: Vec<Reference>,
}

/// A finished image on its way into the store.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) id: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) raw: Vec<u8>,
    /// Manifests that led to it.
    pub(crate) manifests: Vec<(Digest, Vec<u8>)>,
    pub(crate) tags: Vec<Reference>,
    pub(crate) repo_digests: Vec<Reference>,
    /// What its layers are in a registry, by diff id.
    pub(crate) sources: Vec<(Digest, Source)>,
}

impl ImageStore {
    /// Opens the store below `root`, the daemon's data root, and repairs what a crash left: unfinished
    /// layers, layers and containers' layers that nothing refers to. Blocks.
    ///
    /// # Errors
    /// When the directories cannot be made or read, or the index is damaged; nothing is removed then.
    pub fn open(root: &Path, options: OpenOptions) -> Result<Self, ImageError> {
        let image_root = root.join("image");
        files::make_dir(&image_root)?;
        let trash = Arc::new(Trash::open(image_root.join("trash"))?);
        let blobs = Blobs::open(image_root.join("blobs"))?;
        let index_path = image_root.join("images.json");
        let index = index::IndexFile::read(&index_path)?;
        for name in files::names(&image_root)? {
            if brig_files::is_temporary(name.as_ref()) {
                trash.put(&image_root.join(name))?;
            }
        }
        let layers = Arc::new(Layers::open(&image_root, Arc::clone(&trash))?);
        let snapshots = Snapshots::open(root.join("overlay"), Arc::clone(&layers), trash)?;
        let state = State::load(&index, &blobs, &layers)?;
        let store = Self {
            shared: Arc::new(Shared {
                index_path,
                root: image_root,
                limits: options.limits,
                registry: RegistryClient::new(options.registry)?,
                blobs,
                layers,
                snapshots,
                state: RwLock::new(Arc::new(state)),
                changes: tokio::sync::watch::Sender::new(()),
                writer: Mutex::new(()),
                pulls: Mutex::default(),
            }),
        };
        store.shared.collect()?;
        Ok(store)
    }

    /// The containers' writable layers on top of these images.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.shared.snapshots
    }

    /// All images, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Image>> {
        let state = self.shared.state();
        state.records.keys().filter_map(|id| state.image(id)).map(Arc::new).collect()
    }

    /// Sum of the sizes of all layers, shared ones once, in bytes.
    #[must_use]
    pub fn layers_size(&self) -> u64 {
        self.shared.layers.total_size()
    }

    /// Bytes of an image that other images have too.
    #[must_use]
    pub fn shared_size(&self, image: &Image) -> u64 {
        let state = self.shared.state();
        let others: BTreeSet<&Digest> = state
            .records
            .iter()
            .filter(|(id, _)| **id != image.id)
            .flat_map(|(_, record)| &record.config.rootfs.diff_ids)
            .collect();
        let own: BTreeSet<&Digest> = image.layers.iter().collect();
        own.into_iter()
            .filter(|id| others.contains(id))
            .filter_map(|id| self.shared.layers.get(id))
            .map(|meta| meta.size)
            .sum()
    }

    /// How an image came to be, newest first.
    #[must_use]
    pub fn history(&self, image: &Image) -> Vec<HistoryEntry> {
        let mut layers = image.layers.iter();
        let size_of = |id: Option<&Digest>| {
            id.and_then(|id| self.shared.layers.get(id)).map_or(0, |meta| meta.size)
        };
        let mut entries: Vec<HistoryEntry> = image
            .config
            .history
            .iter()
            .map(|item| HistoryEntry {
                id: None,
                created: item
                    .created
                    .as_deref()
                    .and_then(crate::config::parse_time)
                    .unwrap_or(OffsetDateTime::UNIX_EPOCH),
                created_by: item.created_by.clone(),
                size: if item.empty_layer { 0 } else { size_of(layers.next()) },
                comment: item.comment.clone(),
                tags: Vec::new(),
            })
            .collect();
        // An image need not say how all of its layers came to be.
        entries.extend(layers.map(|id| HistoryEntry {
            id: None,
            created: image.created(),
            created_by: String::new(),
            size: size_of(Some(id)),
            comment: String::new(),
            tags: Vec::new(),
        }));
        entries.reverse();
        if let Some(newest) = entries.first_mut() {
            newest.id = Some(image.id.clone());
            newest.tags.clone_from(&image.tags);
        }
        entries
    }

    /// Gives the image called `source` the name `target` (with `latest` if it has no tag), taking
    /// it from another image if need be. Blocks shortly. Returns the image's id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::TagWithDigest`], or the index cannot be written.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Digest, ImageError> {
        if target.digest().is_some() {
            return Err(ImageError::TagWithDigest);
        }
        let id = self.resolve(source)?.id.clone();
        let target = target.clone().with_default_tag();
        self.shared.update(|state| {
            state.name(&id, std::slice::from_ref(&target), &[]);
            Ok(())
        })?;
        Ok(id)
    }
}

impl Shared {
    pub(crate) const fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// [`Blobs::read`] off the async threads.
    pub(crate) async fn read_blob(
        self: &Arc<Self>,
        digest: &Digest,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let (shared, digest) = (Arc::clone(self), digest.clone());
        tokio::task::spawn_blocking(move || shared.blobs.read(&digest))
            .await
            .map_err(ImageError::Task)?
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the next state and its index. On an error nothing changed.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let writer = self.write();
        self.update_as(&writer, change)
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update_as<T>(
        &self,
        _writer: &MutexGuard<'_, ()>,
        change: impl FnOnce(&mut State) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let before = self.state();
        let mut next = (*before).clone();
        let result = change(&mut next)?;
        if next != *before {
            next.index().write(&self.index_path)?;
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
            self.changes.send_replace(());
        }
        Ok(result)
    }

    /// Publishes an image: its layers, its blobs, then its names. Blocks; one `syncfs` in all.
    ///
    /// Returns tags that were taken from other images.
    pub(crate) fn commit(
        &self,
        image: NewImage,
        staged: Vec<StagedLayer>,
    ) -> Result<Vec<(Reference, Digest)>, ImageError> {
        // Held throughout: a collection in between would find the blobs unused.
        let writer = self.write();
        let known = self.state().records.contains_key(&image.id);
        if !known || !staged.is_empty() || !image.manifests.is_empty() {
            let config = std::iter::once((&image.id, &image.raw));
            for (digest, bytes) in config.chain(image.manifests.iter().map(|(d, b)| (d, b))) {
                // What an image may refer to already is never replaced by something not yet synced.
                if self.blobs.read(digest)?.is_none() {
                    self.blobs.write(digest, bytes)?;
                }
            }
            files::sync_file_system(&self.root)?;
            files::sync_dir(self.blobs.dir())?;
            self.layers.publish(staged)?;
        }
        let NewImage { id, config, raw, manifests, tags, repo_digests, sources } = image;
        let result = self.update_as(&writer, |state| {
            let size = self.size_of(&config);
            let record = state.records.entry(id.clone()).or_insert_with(|| Record {
                size,
                config: Arc::new(config),
                raw: raw.into(),
                manifests: Vec::new(),
                last_tagged: None,
            });
            for (digest, _) in manifests {
                if !record.manifests.contains(&digest) {
                    record.manifests.push(digest);
                }
            }
            for (layer, source) in sources {
                state.remember(&layer, source);
            }
            Ok(state.name(&id, &tags, &repo_digests))
        });
        if result.is_err()
            && let Err(error) = self.collect_as(&writer)
        {
            tracing::warn!(error = %brig_types::error::chain(&error), "unused layers stay");
        }
        result
    }

    /// Notes what a push made of an image: its manifest, the name by its digest, and what the
    /// layers are in the registry. Blocks. An image that is gone meanwhile needs no notes.
    pub(crate) fn note_push(
        &self,
        id: &Digest,
        name: Reference,
        manifest: (Digest, Vec<u8>),
        sources: BTreeMap<Digest, Source>,
    ) -> Result<(), ImageError> {
        let writer = self.write();
        if !self.state().records.contains_key(id) {
            return Ok(());
        }
        let (digest, bytes) = manifest;
        if self.blobs.read(&digest)?.is_none() {
            self.blobs.write(&digest, &bytes)?;
            files::sync_file_system(&self.root)?;
            files::sync_dir(self.blobs.dir())?;
        }
        self.update_as(&writer, |state| {
            for (layer, source) in sources {
                state.remember(&layer, source);
            }
            if let Some(record) = state.records.get_mut(id) {
                record.manifests.retain(|known| *known != digest);
                record.manifests.push(digest.clone());
                // Newer ones say all that older ones of the same registry say.
                let surplus = record.manifests.len().saturating_sub(MAX_MANIFESTS);
                record.manifests.drain(..surplus);
            }
            state.name(id, &[], &[name]);
            Ok(())
        })
    }

    fn size_of(&self, config: &ImageConfig) -> u64 {
        let sizes = config.rootfs.diff_ids.iter().filter_map(|id| self.layers.get(id));
        sizes.map(|meta| meta.size).sum()
    }

    /// Removes layers and blobs that no image names and nobody pins; returns the layers.
    pub(crate) fn collect(&self) -> Result<Vec<Digest>, ImageError> {
        let writer = self.write();
        self.collect_as(&writer)
    }

    fn collect_as(&self, _writer: &MutexGuard<'_, ()>) -> Result<Vec<Digest>, ImageError> {
        let state = self.state();
        let layers: BTreeSet<&Digest> =
            state.records.values().flat_map(|r| &r.config.rootfs.diff_ids).collect();
        let gone = self.layers.collect(&layers)?;
        let blobs: BTreeSet<&Digest> = state
            .records
            .iter()
            .flat_map(|(id, record)| std::iter::once(id).chain(&record.manifests))
            .collect();
        self.blobs.retain(&blobs)?;
        Ok(gone)
    }
}
