//! The port to what is in images: the daemon plugs its inventories in there. Nodes tell managers what
//! they run; managers keep what they did not know.

use async_trait::async_trait;
use brig_proto::brig::ImageInUse;

/// What is in this node's images and, on a manager, in those of other nodes.
#[async_trait]
pub trait ImageInventories: Send + Sync + 'static {
    /// The images that tasks of this node run.
    async fn in_use(&self) -> Vec<ImageInUse>;

    /// What is in an image of this node, as it is kept; `None` when that is not known, or not yet.
    async fn inventory(&self, image: &str) -> Option<Vec<u8>>;

    /// On a manager: a node runs these images and no others. The tasks are known to be the node's.
    /// Answers the ids of images of which nothing is known.
    async fn announced(&self, node: &str, images: Vec<ImageInUse>) -> Vec<String>;

    /// On a manager: what is in an image that the node announced.
    ///
    /// # Errors
    /// Why it is not kept.
    async fn sent(&self, node: &str, image: &str, inventory: Vec<u8>) -> Result<(), String>;
}
