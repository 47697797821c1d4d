//! Global services: one task on every node that fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use brig_proto::swarm::{Node, Task, TaskState, node_spec, node_status};

use super::plan::{self, Memory, Op, Plan, Situation};
use super::update;
use crate::manager::scheduler::constraint;
use crate::task::{self, Slot};

/// Looks at a global service once.
pub(crate) fn plan(situation: &Situation<'_>, memory: &mut Memory) -> Plan {
    let mut plan = Plan::default();
    plan::restart_finished(situation, memory, &mut plan);
    let occupied = plan::occupied_slots(situation, memory);
    let mut staying: BTreeMap<Slot, Vec<&Arc<Task>>> = BTreeMap::new();
    for (slot, tasks) in occupied {
        let Slot::Node(node_id) = &slot else { continue };
        let fits = situation.nodes.get(node_id).is_some_and(|node| fits(situation, node));
        if fits {
            staying.insert(slot, tasks);
            continue;
        }
        for task in tasks.into_iter().filter(|task| task::is_wanted(task)) {
            if !plan.moves(&task.id, TaskState::Shutdown) {
                plan.ops.push(Op::Want(task.id.clone(), TaskState::Shutdown));
            }
        }
    }
    for node in situation.nodes.values() {
        let slot = Slot::Node(node.id.clone());
        let takes_new = plan::availability(node) == node_spec::Availability::Active
            && node
                .status
                .as_ref()
                .is_some_and(|status| status.state == node_status::State::Ready as i32);
        if staying.contains_key(&slot) || !takes_new || !fits(situation, node) {
            continue;
        }
        let task = plan::new_task(situation, &slot, TaskState::Running);
        plan.ops.push(Op::Create(Box::new(task)));
    }
    for task in situation.tasks {
        if !situation.nodes.contains_key(&task.node_id) && task::desired(task) < TaskState::Remove {
            plan.ops.push(Op::Want(task.id.clone(), TaskState::Remove));
        }
    }
    update::step(situation, memory, &staying, &mut plan);
    plan::start_waiting(situation, memory, &mut plan);
    plan
}

/// Whether the service belongs on a node.
fn fits(situation: &Situation<'_>, node: &Node) -> bool {
    let placement = task::template(situation.service).and_then(|spec| spec.placement.as_ref());
    !plan::is_down(node)
        && plan::availability(node) != node_spec::Availability::Drain
        && placement.is_none_or(|placement| {
            constraint::all_match(&placement.constraints, node)
                && constraint::platform_matches(&placement.platforms, node)
        })
}
