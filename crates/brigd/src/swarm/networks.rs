//! The cluster's networks among those of `/networks`.

use brig_api::network::{NetworkCreateRequest, NetworkInspect};
use brig_swarm::ControlError;

use super::{convert, local};
use crate::server::ApiError;
use crate::state::AppState;

/// Whether a create request is about a network of the cluster.
#[must_use]
pub fn is_for_cluster(request: &NetworkCreateRequest) -> bool {
    request.scope == convert::network::SCOPE || request.driver == "overlay" || request.ingress
}

/// Looks a network of the cluster up.
///
/// # Errors
/// 404 with docker's text, also when there is no cluster.
pub fn inspect(state: &AppState, name: &str) -> Result<NetworkInspect, ApiError> {
    let not_found = || ApiError::not_found(format!("network {name} not found"));
    let control = local::control(state).map_err(|_| not_found())?;
    match control.network(name) {
        Ok(network) => Ok(convert::network::inspect(&network)),
        Err(ControlError::NotFound { .. }) => Err(not_found()),
        Err(error) => Err(error.into()),
    }
}

/// Creates a network of the cluster and returns its id.
///
/// # Errors
/// When this node is no manager; what the cluster says.
pub fn create(state: &AppState, request: &NetworkCreateRequest) -> Result<String, ApiError> {
    let control = local::control(state)?;
    Ok(control.create_network(&convert::network::spec(request))?)
}

/// Removes a network of the cluster.
///
/// # Errors
/// As [`inspect`]; the network is predefined or used.
pub async fn remove(state: &AppState, name: &str) -> Result<(), ApiError> {
    let id = inspect(state, name)?.id;
    Ok(local::control(state)?.remove_network(&id).await?)
}
