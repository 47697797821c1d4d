//! What this node is in the cluster: its control side, `/info`, the header of `/_ping`.

use brig_api::swarm::{Peer, SwarmInfo};
use brig_swarm::{Control, LocalNodeState, SwarmError};

use super::convert;
use crate::state::State;

/// The control side; only managers have it.
///
/// # Errors
/// [`SwarmError`] with docker's text when this node is no manager.
pub fn control(state: &State) -> Result<Control, SwarmError> {
    state.swarm.control()
}

const fn word(state: LocalNodeState) -> &'static str {
    match state {
        LocalNodeState::Inactive => "inactive",
        LocalNodeState::Pending => "pending",
        LocalNodeState::Active => "active",
        LocalNodeState::Error => "error",
        LocalNodeState::Locked => "locked",
    }
}

/// The `Swarm` header of `/_ping`.
#[must_use]
pub fn ping_status(state: &State) -> &'static str {
    let status = state.swarm.status();
    match status.local_node_state {
        LocalNodeState::Active if status.control_available => "active/manager",
        LocalNodeState::Active => "active/worker",
        other => word(other),
    }
}

/// `Swarm` of `/info`.
pub async fn info(state: &State) -> SwarmInfo {
    let status = state.swarm.status();
    let mut warnings = Vec::new();
    if state.swarm.is_stale() {
        warnings.push("WARNING: this manager has lost the other managers: what it shows of the swarm may be out of date, and changes are refused".to_owned());
    }
    if status.managers == 2 {
        warnings.push("WARNING: Running Swarm in a two-manager configuration. This configuration provides no fault tolerance, and poses a high risk to lose control over the cluster.".to_owned());
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    SwarmInfo {
        node_id: status.node_id,
        node_addr: status.node_addr,
        local_node_state: word(status.local_node_state).to_owned(),
        control_available: status.control_available,
        error: status.error,
        remote_managers: status
            .remote_managers
            .into_iter()
            .map(|peer| Peer { node_id: peer.node_id, addr: peer.addr })
            .collect(),
        nodes: count(status.nodes),
        managers: count(status.managers),
        cluster: status.cluster.as_deref().map(convert::cluster::info),
        warnings,
    }
}
