//! What is in the images of this node, kept from the moment they are here.
//!
//! A layer is read once, in the confined reader ([`brig_scan::sandbox`]), after the pull that brought
//! it: its archive is put together again from the unpacked tree while that is still in the page
//! cache, so a pull waits for nothing. What its files say is kept under its diff id and serves every
//! image that has the layer; the image's own inventory is made of those and kept too.
//!
//! ```text
//! <data root>/inventories/layers/<hex>   what one layer's files say
//! <data root>/inventories/images/<hex>   what is in an image of this node, by image id
//! <data root>/inventories/nodes/<hex>    what is in an image that other nodes run
//! ```
//!
//! Nothing here is the only copy: what is damaged, missing or of another version is made anew.

pub mod api;
mod error;
mod exchange;
mod files;
mod keep;
mod make;
mod running;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use brig_image::{Image, ImageStore};
use brig_scan::package::Inventory;
use brig_scan::sandbox::Sandbox;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use error::InventoryError;
use exchange::Announced;
pub use exchange::Exchange;
use files::{Files, Kind};

/// Folder in the data root.
const FOLDER: &str = "inventories";
/// How many layers are read at once.
const READERS: usize = 2;
/// How far the reader stands back behind what users wait for.
const NICENESS: u8 = 5;
/// Address space of the reader, in bytes.
const MEMORY: u64 = 1 << 30;
/// Most that one layer may say, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// The inventories of this node's images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inventories(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    images: ImageStore,
    files: Files,
    reader: Sandbox,
    /// Whoever makes something of a digest; others wait and find it done.
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    places: Semaphore,
    /// Layers that could not be read for reasons that may pass. Tried again by the next process.
    failed: Mutex<HashMap<Digest, String>>,
    layers_read: AtomicU64,
    /// What other nodes of the cluster say that they run, by node.
    nodes: Mutex<HashMap<String, Announced>>,
    stop: CancellationToken,
}

impl Inventories {
    /// Opens what is kept below `root`, the daemon's data root. Blocks.
    ///
    /// # Errors
    /// When the folders cannot be made or listed.
    pub fn open(
        root: &Path,
        images: ImageStore,
        stop: CancellationToken,
    ) -> Result<Self, InventoryError> {
        let reader = Sandbox {
            memory: MEMORY,
            answer: MAX_ANSWER,
            niceness: NICENESS,
            ..Sandbox::default()
        };
        Ok(Self(Arc::new(Shared {
            images,
            files: Files::open(&root.join(FOLDER))?,
            reader,
            turns: Mutex::default(),
            places: Semaphore::new(READERS),
            failed: Mutex::default(),
            layers_read: AtomicU64::new(0),
            nodes: Mutex::default(),
            stop,
        })))
    }

    /// What is known of an image by its id, without making anything: of this node's, or of one that
    /// another node runs.
    pub async fn of_image(&self, id: &Digest) -> Option<Inventory> {
        let (this, id) = (self.clone(), id.clone());
        let found = tokio::task::spawn_blocking(move || this.kept(&id));
        found.await.ok().flatten()
    }

    /// What is in the image that `name` stands for: a reference, with or without a digest, or an id.
    /// An image of this node whose inventory is not there yet is read now. `None` when the image is
    /// neither here nor known from another node.
    ///
    /// A layer that cannot be read is no error: it is in [`Inventory::unread`], with the reason.
    ///
    /// # Errors
    /// [`InventoryError`] when the image's configuration or the disk is at fault.
    pub async fn ensure(&self, name: &str) -> Result<Option<Inventory>, InventoryError> {
        match self.0.images.resolve(name) {
            Ok(image) => self.of(&image).await.map(Some),
            Err(_) => {
                let (this, name) = (self.clone(), name.to_owned());
                let known = move || this.known_from_nodes(&name);
                tokio::task::spawn_blocking(known).await.map_err(InventoryError::Task)
            }
        }
    }

    /// [`Inventories::ensure`] of an image of this node.
    ///
    /// # Errors
    /// As there.
    pub async fn of(&self, image: &Image) -> Result<Inventory, InventoryError> {
        let mut inventory = match self.of_image(&image.id).await {
            Some(inventory) => inventory,
            None => self.make(image).await?,
        };
        name(&mut inventory, image);
        Ok(inventory)
    }

    /// How many layers this process has read.
    #[must_use]
    pub fn layers_read(&self) -> u64 {
        self.0.layers_read.load(Ordering::Relaxed)
    }

    fn kept(&self, id: &Digest) -> Option<Inventory> {
        let files = &self.0.files;
        let mut inventory: Inventory =
            files.read(Kind::Image, id).or_else(|| files.read(Kind::Node, id))?;
        if let Ok(image) = self.0.images.resolve(id.as_str()) {
            name(&mut inventory, &image);
        }
        Some(inventory)
    }

    /// An image that only other nodes have, by its id or by the digest in a reference.
    fn known_from_nodes(&self, name: &str) -> Option<Inventory> {
        let digest = match Digest::parse(name) {
            Ok(id) => id,
            Err(_) => Reference::parse(name).ok()?.digest()?.clone(),
        };
        let files = &self.0.files;
        files
            .read(Kind::Node, &digest)
            .or_else(|| files.read(Kind::Node, &self.image_of_digest(&digest)?))
    }

    fn turn(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(digest.clone()).or_default())
    }
}

/// Names change without the image: they are told as they are now.
fn name(inventory: &mut Inventory, image: &Image) {
    let facts = &mut inventory.image;
    facts.names = image.tags.iter().map(Reference::familiar).collect();
    facts.manifest = image.repo_digests.first().and_then(Reference::digest).cloned();
}

#[cfg(test)]
mod tests;
