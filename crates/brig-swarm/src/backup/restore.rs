//! What of a backup goes into the store of the machine that it is restored on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{Cluster, Node, NodeRole, TaskState};
use brig_store::{Object, State};

use crate::replica::{AUTHORITY, NEXT_AUTHORITY};
use crate::{task, wire_time};

/// The objects as they are after their managers are lost: those are taken out, as if an operator
/// had removed them, so that their certificates are worth nothing and their tasks go elsewhere.
pub(crate) fn without_managers(state: &State, now: SystemTime) -> Vec<Object> {
    let lost: BTreeSet<String> =
        state.all::<Node>().filter(|node| is_manager(node)).map(|node| node.id.clone()).collect();
    state
        .objects()
        .filter_map(|object| match object {
            Object::Node(node) if lost.contains(&node.id) => None,
            Object::Task(old) if lost.contains(&old.node_id) => {
                let state = task::observed(&old);
                if !(TaskState::Assigned..=TaskState::Running).contains(&state) {
                    return Some(Object::Task(old));
                }
                let mut orphan = Arc::unwrap_or_clone(old);
                let status = orphan.status.get_or_insert_default();
                status.state = TaskState::Orphaned as i32;
                status.timestamp = Some(wire_time::timestamp(now));
                Some(Object::Task(Arc::new(orphan)))
            }
            Object::Cluster(old) => {
                let mut cluster: Cluster = Arc::unwrap_or_clone(old);
                // Data keys are counted anew, they are new ones.
                cluster.data_key_rotation = None;
                // What the lost managers hold of the replicated store opens no other one.
                cluster
                    .unlock_keys
                    .retain(|key| key.subsystem != AUTHORITY && key.subsystem != NEXT_AUTHORITY);
                Some(Object::Cluster(Arc::new(cluster)))
            }
            other => Some(other),
        })
        .collect()
}

/// Whether a node is, or was told to be, a manager.
pub(crate) fn is_manager(node: &Node) -> bool {
    node.role() == NodeRole::Manager || node.manager_status.is_some()
}
