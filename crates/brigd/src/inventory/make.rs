//! Making what is missing: layers by the confined reader, images of their layers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use brig_image::{Image, ImageError};
use brig_scan::inventory::layer::LayerInventory;
use brig_scan::inventory::{Limits, of_layers};
use brig_scan::kept;
use brig_scan::package::{ImageFacts, Inventory};
use brig_types::digest::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::files::Kind;
use super::{Inventories, InventoryError, READERS};

/// Most that the layers of one image may say, in bytes as JSON.
const MAX_IMAGE: u64 = 192 << 20;

/// What became of reading a layer.
enum Made {
    /// It is kept, even if only as one that cannot be read.
    Kept,
    /// Another try may end differently: why this one did not work.
    Not(String),
}

impl Inventories {
    /// Makes the inventory of an image of this node, and of its layers where they have none.
    ///
    /// Cancel safe: a layer that is being read is read to its end and kept.
    pub(super) async fn make(&self, image: &Image) -> Result<Inventory, InventoryError> {
        let turn = self.turn(&image.id);
        let _turn = turn.lock().await;
        if let Some(inventory) = self.of_image(&image.id).await {
            return Ok(inventory);
        }
        let wanted: BTreeSet<Digest> = image.layers.iter().cloned().collect();
        let reading = wanted.into_iter().map(|diff_id| async {
            let made = self.layer(&diff_id).await?;
            Ok::<_, InventoryError>((diff_id, made))
        });
        let made: BTreeMap<Digest, Made> =
            futures_util::stream::iter(reading).buffered(READERS).try_collect().await?;
        let (this, id, raw) = (self.clone(), image.id.clone(), image.raw.clone());
        let order = image.layers.clone();
        tokio::task::spawn_blocking(move || this.put_together(&id, &raw, &order, made))
            .await
            .map_err(InventoryError::Task)?
    }

    fn put_together(
        &self,
        id: &Digest,
        config: &[u8],
        order: &[Digest],
        made: BTreeMap<Digest, Made>,
    ) -> Result<Inventory, InventoryError> {
        let mut left = MAX_IMAGE;
        let mut lasts = true;
        let mut layers = BTreeMap::new();
        for (diff_id, made) in made {
            let reason = match made {
                Made::Not(reason) => {
                    lasts = false;
                    Err(reason)
                }
                Made::Kept => match self.0.files.bytes(Kind::Layer, &diff_id) {
                    // SECURITY: each layer is bounded, and an image may have more than a hundred.
                    Some(bytes) => match left.checked_sub(kept::plain_length(&bytes)) {
                        Some(rest) => {
                            left = rest;
                            kept::decode(&bytes).map_err(|error| {
                                self.0.files.remove(Kind::Layer, diff_id.hex());
                                lasts = false;
                                brig_types::error::chain(&error)
                            })
                        }
                        None => Err("the image's layers say too much".to_owned()),
                    },
                    None => {
                        lasts = false;
                        Err("what was read of it is gone".to_owned())
                    }
                },
            };
            let layer = reason.unwrap_or_else(|reason| LayerInventory::unreadable(&reason));
            layers.insert(diff_id, layer);
        }
        let stack: Vec<&LayerInventory> =
            order.iter().filter_map(|diff_id| layers.get(diff_id)).collect();
        let facts = ImageFacts { id: Some(id.clone()), ..ImageFacts::default() };
        let inventory = of_layers(config, facts, &stack).map_err(InventoryError::Image)?;
        if lasts {
            self.0.files.write(Kind::Image, id, &inventory)?;
        }
        Ok(inventory)
    }

    /// Sees to it that a layer's inventory is kept.
    async fn layer(&self, diff_id: &Digest) -> Result<Made, InventoryError> {
        if self.0.files.has(Kind::Layer, diff_id) {
            return Ok(Made::Kept);
        }
        let turn = self.turn(diff_id);
        let turn = turn.lock_owned().await;
        let place = self.0.places.acquire().await.ok();
        let (this, diff_id) = (self.clone(), diff_id.clone());
        let work = move || {
            // Held by the work, which nobody can call off once it runs.
            let _turn = turn;
            this.layer_blocking(&diff_id)
        };
        let made = tokio::task::spawn_blocking(work).await.map_err(InventoryError::Task)?;
        drop(place);
        made
    }

    fn layer_blocking(&self, diff_id: &Digest) -> Result<Made, InventoryError> {
        if self.0.files.has(Kind::Layer, diff_id) {
            return Ok(Made::Kept);
        }
        let failed = || self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = failed().get(diff_id) {
            return Ok(Made::Not(reason.clone()));
        }
        let archive = match self.0.images.layer_archive(diff_id) {
            Ok(archive) => archive,
            Err(error) => {
                let reason = brig_types::error::chain(&error);
                if matches!(error, ImageError::NoArchive(_)) {
                    return self.keep_unreadable(diff_id, &reason);
                }
                return Ok(Made::Not(reason));
            }
        };
        let began = Instant::now();
        let source = Until { inner: archive, stop: self.0.stop.clone() };
        match self.0.reader.read_layer(source, &Limits::default()) {
            Ok(mut layer) => {
                layer.diff_id = Some(diff_id.clone());
                self.0.files.write(Kind::Layer, diff_id, &layer)?;
                self.0.layers_read.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    layer = %diff_id,
                    bytes = layer.size,
                    files = layer.files.len(),
                    milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "a layer was read"
                );
                Ok(Made::Kept)
            }
            Err(error) => {
                let reason = brig_types::error::chain(&error);
                if self.0.stop.is_cancelled() {
                    return Ok(Made::Not(reason));
                }
                tracing::warn!(layer = %diff_id, reason, "a layer cannot be read");
                if !error.is_of_the_moment() {
                    return self.keep_unreadable(diff_id, &reason);
                }
                failed().insert(diff_id.clone(), reason.clone());
                Ok(Made::Not(reason))
            }
        }
    }

    /// Keeps that a layer cannot be read: the next try would end the same way.
    fn keep_unreadable(&self, diff_id: &Digest, reason: &str) -> Result<Made, InventoryError> {
        let mut layer = LayerInventory::unreadable(reason);
        layer.diff_id = Some(diff_id.clone());
        self.0.files.write(Kind::Layer, diff_id, &layer)?;
        Ok(Made::Kept)
    }
}

/// Ends a source when the daemon stops.
struct Until<R> {
    inner: R,
    stop: CancellationToken,
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("the daemon stops"));
        }
        self.inner.read(buf)
    }
}
