//! Takes from nodes what is in the images that they run.
//!
//! A node is heard about its own tasks only, and about the digests that those were given.

use std::sync::Arc;

use brig_proto::brig::{
    AnnounceRequest, AnnounceResponse, ImageInUse, SendRequest, SendResponse, inventories_server,
};
use brig_proto::swarm::{Task, task_spec};
use brig_store::Store;
use tonic::{Request, Response, Status};

use crate::grpc::authorize::caller;
use crate::inventories::ImageInventories;

/// Largest inventory that is taken, in bytes.
pub(crate) const MAX_INVENTORY: usize = 16 << 20;
/// Most images that a node may run.
const MAX_IMAGES: usize = 4096;
/// Most digests and tasks of one image.
const MAX_NAMES: usize = 4096;
/// Longest id or digest, in bytes.
const MAX_TEXT: usize = 256;

/// The service.
pub(crate) struct InventoryServer {
    pub(crate) store: Store,
    pub(crate) inventories: Option<Arc<dyn ImageInventories>>,
}

impl InventoryServer {
    fn port(&self) -> Result<&Arc<dyn ImageInventories>, Status> {
        self.inventories.as_ref().ok_or_else(|| Status::unimplemented("no inventories are kept"))
    }

    /// What the store confirms of what a node says.
    fn confirmed(&self, node: &str, image: ImageInUse) -> Option<ImageInUse> {
        let view = self.store.view();
        let claimed = &image.digests;
        let tasks: Vec<String> = image
            .tasks
            .iter()
            .filter(|id| view.get::<Task>(id).is_some_and(|task| runs(&task, node, claimed)))
            .cloned()
            .collect();
        (!tasks.is_empty()).then_some(ImageInUse { tasks, ..image })
    }
}

/// Whether a task is the node's, and its image one of these digests where it was given one.
fn runs(task: &Task, node: &str, digests: &[String]) -> bool {
    let runtime = task.spec.as_ref().and_then(|spec| spec.runtime.as_ref());
    let Some(task_spec::Runtime::Container(container)) = runtime else { return false };
    let digest = container.image.split_once('@').map(|(_, digest)| digest);
    task.node_id == node && digest.is_none_or(|digest| digests.iter().any(|own| own == digest))
}

fn is_sound(image: &ImageInUse) -> bool {
    let ImageInUse { image, digests, tasks } = image;
    image.len() <= MAX_TEXT
        && digests.len() <= MAX_NAMES
        && tasks.len() <= MAX_NAMES
        && digests.iter().chain(tasks).all(|text| text.len() <= MAX_TEXT)
}

#[tonic::async_trait]
impl inventories_server::Inventories for InventoryServer {
    async fn announce(
        &self,
        request: Request<AnnounceRequest>,
    ) -> Result<Response<AnnounceResponse>, Status> {
        let node = caller(&request)?.node.to_string();
        let images = request.into_inner().images;
        if images.len() > MAX_IMAGES || !images.iter().all(is_sound) {
            return Err(Status::invalid_argument("more images than a node can run"));
        }
        let images = images.into_iter().filter_map(|image| self.confirmed(&node, image)).collect();
        let wanted = self.port()?.announced(&node, images).await;
        Ok(Response::new(AnnounceResponse { wanted }))
    }

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let node = caller(&request)?.node.to_string();
        let SendRequest { image, inventory } = request.into_inner();
        if image.len() > MAX_TEXT || inventory.len() > MAX_INVENTORY {
            return Err(Status::invalid_argument("the inventory is too large"));
        }
        let kept = self.port()?.sent(&node, &image, inventory).await;
        kept.map_err(Status::failed_precondition)?;
        Ok(Response::new(SendResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{ContainerSpec, TaskSpec};

    use super::*;

    fn task(node: &str, image: &str) -> Task {
        let container = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
        let runtime = Some(task_spec::Runtime::Container(container));
        let spec = Some(TaskSpec { runtime, ..TaskSpec::default() });
        Task { node_id: node.to_owned(), spec, ..Task::default() }
    }

    #[test]
    fn a_node_is_heard_about_its_own_tasks_and_their_digests_only() {
        let digests = ["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        assert!(runs(&task("n1", "app:1@sha256:bb"), "n1", &digests));
        assert!(!runs(&task("n1", "app:1@sha256:cc"), "n1", &digests));
        assert!(!runs(&task("n2", "app:1@sha256:bb"), "n1", &digests));
        // Of an image that has no registry nobody knows a digest.
        assert!(runs(&task("n1", "app:1"), "n1", &[]));
        assert!(!runs(&Task { node_id: "n1".to_owned(), ..Task::default() }, "n1", &digests));
    }
}
