//! What the store knows, as one value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brig_types::digest::Digest;
use brig_types::reference::Reference;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Image;
use super::blobs::Blobs;
use super::index::{IndexFile, IndexImage, Source};
use super::layers::Layers;
use crate::config::{ImageConfig, parse_time};
use crate::error::ImageError;

/// Most forms of one layer that are remembered, and most repositories of each.
const MAX_SOURCES: usize = 8;
const MAX_REPOSITORIES: usize = 16;

/// One image without its names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Sum of the layers' sizes.
    pub(crate) size: u64,
    pub(crate) config: Arc<ImageConfig>,
    pub(crate) raw: Arc<[u8]>,
    pub(crate) manifests: Vec<Digest>,
    pub(crate) last_tagged: Option<OffsetDateTime>,
}

/// Images and names. Names only ever lead to images that are in `records`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) records: BTreeMap<Digest, Record>,
    pub(crate) tags: BTreeMap<Reference, Digest>,
    pub(crate) digests: BTreeMap<Reference, Digest>,
    /// What layers are in registries, by diff id; the newest last.
    pub(crate) sources: BTreeMap<Digest, Vec<Source>>,
}

impl State {
    /// Puts index, configurations and layers together; what is incomplete is left out, with a
    /// warning, so that one broken image does not take the others along.
    pub(super) fn load(
        index: &IndexFile,
        blobs: &Blobs,
        layers: &Layers,
    ) -> Result<Self, ImageError> {
        let mut state = Self::default();
        for (id, image) in &index.images {
            let Some(raw) = blobs.read(id)? else {
                tracing::warn!(%id, "image without its configuration is dropped");
                continue;
            };
            let Ok(config) = serde_json::from_slice::<ImageConfig>(&raw) else {
                tracing::warn!(%id, "image with an unreadable configuration is dropped");
                continue;
            };
            let sizes: Option<Vec<u64>> = config
                .rootfs
                .diff_ids
                .iter()
                .map(|layer| layers.get(layer).map(|meta| meta.size))
                .collect();
            let Some(sizes) = sizes else {
                tracing::warn!(%id, "image with missing layers is dropped");
                continue;
            };
            let record = Record {
                size: sizes.iter().sum(),
                config: Arc::new(config),
                raw: raw.into(),
                manifests: image.manifests.clone(),
                last_tagged: image.last_tagged.as_deref().and_then(parse_time),
            };
            state.records.insert(id.clone(), record);
        }
        for (names, target) in
            [(&index.tags, &mut state.tags), (&index.digests, &mut state.digests)]
        {
            for (name, id) in names {
                match Reference::parse(name) {
                    Ok(reference) if state.records.contains_key(id) => {
                        target.insert(reference, id.clone());
                    }
                    _ => tracing::warn!(name, %id, "name without an image is dropped"),
                }
            }
        }
        state.sources.clone_from(&index.sources);
        state.forget_sources();
        Ok(state)
    }

    /// Remembers what a layer is in a registry.
    pub(crate) fn remember(&mut self, diff_id: &Digest, source: Source) {
        let known = self.sources.entry(diff_id.clone()).or_default();
        let mut source = source;
        if let Some(at) = known.iter().position(|old| old.digest == source.digest) {
            let old = known.remove(at);
            let new = std::mem::take(&mut source.repositories);
            source.repositories = old.repositories;
            source.repositories.retain(|name| !new.contains(name));
            source.repositories.extend(new);
            let surplus = source.repositories.len().saturating_sub(MAX_REPOSITORIES);
            source.repositories.drain(..surplus);
        }
        known.push(source);
        let surplus = known.len().saturating_sub(MAX_SOURCES);
        known.drain(..surplus);
    }

    /// Drops what is remembered of layers that no image has any more.
    pub(super) fn forget_sources(&mut self) {
        let layers: BTreeSet<&Digest> =
            self.records.values().flat_map(|record| &record.config.rootfs.diff_ids).collect();
        self.sources.retain(|layer, _| layers.contains(layer));
    }

    pub(super) fn index(&self) -> IndexFile {
        let mut index = IndexFile::default();
        for (id, record) in &self.records {
            let image = IndexImage {
                last_tagged: record.last_tagged.and_then(|t| t.format(&Rfc3339).ok()),
                manifests: record.manifests.clone(),
            };
            index.images.insert(id.clone(), image);
        }
        let text = |(name, id): (&Reference, &Digest)| (name.to_string(), id.clone());
        index.tags = self.tags.iter().map(text).collect();
        index.digests = self.digests.iter().map(text).collect();
        index.sources.clone_from(&self.sources);
        index
    }

    /// The image as callers see it.
    pub(crate) fn image(&self, id: &Digest) -> Option<Image> {
        let record = self.records.get(id)?;
        let named = |names: &BTreeMap<Reference, Digest>| {
            names.iter().filter(|(_, to)| *to == id).map(|(name, _)| name.clone()).collect()
        };
        Some(Image {
            id: id.clone(),
            config: Arc::clone(&record.config),
            raw: Arc::clone(&record.raw),
            layers: record.config.rootfs.diff_ids.clone(),
            size: record.size,
            tags: named(&self.tags),
            repo_digests: named(&self.digests),
            last_tagged: record.last_tagged,
        })
    }

    /// All names of an image.
    pub(super) fn names(&self, id: &Digest) -> Vec<Reference> {
        let names = self.tags.iter().chain(&self.digests);
        names.filter(|(_, to)| *to == id).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn remove_name(&mut self, name: &Reference) -> bool {
        self.tags.remove(name).is_some() | self.digests.remove(name).is_some()
    }

    /// Gives an image names; returns tags that another image lost.
    pub(crate) fn name(
        &mut self,
        id: &Digest,
        tags: &[Reference],
        digests: &[Reference],
    ) -> Vec<(Reference, Digest)> {
        let mut moved = Vec::new();
        let mut changed = false;
        for tag in tags {
            let old = self.tags.insert(tag.clone(), id.clone());
            changed |= old.as_ref() != Some(id);
            if let Some(old) = old
                && old != *id
            {
                moved.push((tag.clone(), old));
            }
        }
        for digest in digests {
            self.digests.insert(digest.clone(), id.clone());
        }
        if changed && let Some(record) = self.records.get_mut(id) {
            record.last_tagged = Some(OffsetDateTime::now_utc());
        }
        moved
    }

    /// Layers that only this image has, top first, as indexes into its layers.
    pub(super) fn own_layers(&self, id: &Digest) -> Vec<usize> {
        let Some(record) = self.records.get(id) else { return Vec::new() };
        let others: BTreeSet<&Digest> = self
            .records
            .iter()
            .filter(|(other, _)| *other != id)
            .flat_map(|(_, record)| &record.config.rootfs.diff_ids)
            .collect();
        let layers = record.config.rootfs.diff_ids.iter().enumerate().rev();
        layers.filter(|(_, layer)| !others.contains(layer)).map(|(at, _)| at).collect()
    }
}
