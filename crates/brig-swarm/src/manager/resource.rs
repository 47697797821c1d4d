//! Small services that every manager answers: whether it serves, and networks for plain
//! containers, of which there are none yet.

use brig_proto::swarm::{
    AttachNetworkRequest, AttachNetworkResponse, DetachNetworkRequest, DetachNetworkResponse,
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
    resource_allocator_server,
};
use tonic::{Request, Response, Status};

/// Networks of the cluster for plain containers of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceAllocator;

#[tonic::async_trait]
impl resource_allocator_server::ResourceAllocator for ResourceAllocator {
    async fn attach_network(
        &self,
        request: Request<AttachNetworkRequest>,
    ) -> Result<Response<AttachNetworkResponse>, Status> {
        let target = request.into_inner().config.unwrap_or_default().target;
        Err(Status::not_found(format!("network {target} not found")))
    }

    async fn detach_network(
        &self,
        request: Request<DetachNetworkRequest>,
    ) -> Result<Response<DetachNetworkResponse>, Status> {
        let id = request.into_inner().attachment_id;
        Err(Status::not_found(format!("attachment {id} not found")))
    }
}

/// Whether this manager serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health;

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving as i32 }))
    }
}
