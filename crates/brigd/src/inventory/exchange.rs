//! Between nodes: what this node's tasks run, and, on a manager, what other nodes say they run.
//!
//! A manager keeps what nodes send in files beside its own inventories, not in the cluster's store: it
//! can be had again from any node that runs the image, it is larger than what a store of objects is
//! good for, and every node tells every manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use brig_api::filters::Filters;
use brig_engine::{Engine, ListOptions};
use brig_proto::brig::ImageInUse;
use brig_scan::kept;
use brig_scan::package::Inventory;
use brig_swarm::ImageInventories;
use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::Inventories;
use super::files::Kind;

/// Most images of other nodes that are kept.
const MAX_IMAGES: usize = 10_000;
/// Largest inventory of another node, in bytes.
const MAX_PLAIN: u64 = 128 << 20;
/// How long an image is remembered after the last node ran it.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a node is believed that says nothing more; it repeats itself far more often.
const BELIEVED: Duration = Duration::from_secs(6 * 3600);
/// The label of a task's container.
pub(super) const TASK_LABEL: &str = "com.docker.swarm.task.id";

/// What a node said.
#[derive(Debug)]
pub(super) struct Announced {
    at: Instant,
    images: Vec<ImageInUse>,
}

/// The cluster's port to this node's inventories.
#[derive(Debug)]
pub struct Exchange {
    engine: Engine,
    inventories: Inventories,
}

impl Exchange {
    /// For the containers of this engine.
    #[must_use]
    pub const fn new(engine: Engine, inventories: Inventories) -> Self {
        Self { engine, inventories }
    }
}

#[async_trait]
impl ImageInventories for Exchange {
    async fn in_use(&self) -> Vec<ImageInUse> {
        let filters = Filters::new().with("label", TASK_LABEL);
        let options = ListOptions { filters, ..ListOptions::default() };
        let containers = match self.engine.list(options).await {
            Ok(containers) => containers,
            Err(error) => {
                let error = brig_types::error::chain(&error);
                tracing::warn!(error, "managers are not told what runs here");
                return Vec::new();
            }
        };
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for container in containers {
            if let Some(task) = container.labels.get(TASK_LABEL) {
                found.entry(container.image_id).or_default().insert(task.clone());
            }
        }
        let digests = |id: &str| {
            let image = self.engine.images().resolve(id).ok();
            let names = image.iter().flat_map(|image| &image.repo_digests);
            let digests: BTreeSet<String> =
                names.filter_map(Reference::digest).map(Digest::to_string).collect();
            digests.into_iter().collect()
        };
        found
            .into_iter()
            .map(|(image, tasks)| ImageInUse {
                digests: digests(&image),
                image,
                tasks: tasks.into_iter().collect(),
            })
            .collect()
    }

    async fn inventory(&self, image: &str) -> Option<Vec<u8>> {
        let (this, id) = (self.inventories.clone(), Digest::parse(image).ok()?);
        let bytes = move || this.0.files.bytes(Kind::Image, &id);
        tokio::task::spawn_blocking(bytes).await.ok().flatten()
    }

    async fn announced(&self, node: &str, images: Vec<ImageInUse>) -> Vec<String> {
        self.inventories.announced(node, images)
    }

    async fn sent(&self, node: &str, image: &str, inventory: Vec<u8>) -> Result<(), String> {
        self.inventories.sent(node, image, inventory).await
    }
}

impl Inventories {
    /// A node runs these images. Answers which of them nothing is known of.
    pub(super) fn announced(&self, node: &str, images: Vec<ImageInUse>) -> Vec<String> {
        let files = &self.0.files;
        let mut wanted: Vec<String> = images
            .iter()
            .filter_map(|image| Digest::parse(&image.image).ok())
            .filter(|id| !files.has(Kind::Image, id) && !files.has(Kind::Node, id))
            .map(|id| id.to_string())
            .collect();
        wanted.truncate(MAX_IMAGES.saturating_sub(files.names(Kind::Node).len()));
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node.to_owned(), Announced { at: Instant::now(), images });
        wanted
    }

    /// Keeps what is in an image that the node announced.
    pub(super) async fn sent(
        &self,
        node: &str,
        image: &str,
        inventory: Vec<u8>,
    ) -> Result<(), String> {
        let id = Digest::parse(image).map_err(|error| error.to_string())?;
        if !self.announces(node, image) {
            return Err("the node does not run that image".to_owned());
        }
        let this = self.clone();
        let keep = move || {
            let found: Inventory = kept::decode_within(&inventory, MAX_PLAIN)
                .map_err(|error| brig_types::error::chain(&error))?;
            if found.image.id.as_ref() != Some(&id) {
                return Err("it is another image's".to_owned());
            }
            if this.0.files.has(Kind::Node, &id) {
                return Ok(());
            }
            let written = this.0.files.write_bytes(Kind::Node, &id, &inventory);
            written.map_err(|error| brig_types::error::chain(&error))
        };
        tokio::task::spawn_blocking(keep).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn announces(&self, node: &str, image: &str) -> bool {
        let nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = nodes.get(node).map(|announced| announced.images.as_slice());
        known.unwrap_or_default().iter().any(|known| known.image == image)
    }

    /// The image that a task runs, as its node says.
    pub(super) fn image_of_task(&self, node: &str, task: &str) -> Option<Digest> {
        let nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let image =
            nodes.get(node)?.images.iter().find(|image| image.tasks.iter().any(|id| id == task))?;
        Digest::parse(&image.image).ok()
    }

    /// The image that some node says it pulled by this digest.
    pub(super) fn image_of_digest(&self, digest: &Digest) -> Option<Digest> {
        let nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut images = nodes.values().flat_map(|announced| &announced.images);
        let found = images.find(|image| image.digests.iter().any(|own| own == digest.as_str()))?;
        Digest::parse(&found.image).ok()
    }

    /// Forgets images that no node has run for a while. Blocks.
    pub(super) fn forget_nodes_images(&self) {
        let running: BTreeSet<String> = {
            let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.retain(|_, announced| announced.at.elapsed() < BELIEVED);
            let images = nodes.values().flat_map(|announced| &announced.images);
            images.map(|image| image.image.clone()).collect()
        };
        let files = &self.0.files;
        for hex in files.names(Kind::Node) {
            if running.contains(&format!("sha256:{hex}")) {
                files.touch(Kind::Node, &hex);
            } else if files.age(Kind::Node, &hex).is_some_and(|age| age > REMEMBERED) {
                files.remove(Kind::Node, &hex);
            }
        }
    }
}
