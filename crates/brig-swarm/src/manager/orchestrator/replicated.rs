//! Replicated services: as many tasks as there are replicas, each in a numbered slot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brig_proto::swarm::{Task, TaskState};

use super::plan::{self, Memory, Op, Plan, Situation};
use super::update;
use crate::task::{self, Slot};

/// Looks at a replicated service once.
pub(crate) fn plan(situation: &Situation<'_>, memory: &mut Memory) -> Plan {
    let mut plan = Plan::default();
    plan::restart_finished(situation, memory, &mut plan);
    let occupied = plan::occupied_slots(situation, memory);
    let wanted = task::replicas(situation.service).unwrap_or(0);
    let surplus = scale(situation, &occupied, wanted, &mut plan);
    let staying: BTreeMap<Slot, Vec<&Arc<Task>>> =
        occupied.into_iter().filter(|(slot, _)| !surplus.contains(slot)).collect();
    update::step(situation, memory, &staying, &mut plan);
    plan::start_waiting(situation, memory, &mut plan);
    plan
}

/// Adds tasks for missing replicas, takes those of surplus ones away; answers with the surplus
/// slots.
fn scale(
    situation: &Situation<'_>,
    occupied: &BTreeMap<Slot, Vec<&Arc<Task>>>,
    wanted: u64,
    plan: &mut Plan,
) -> BTreeSet<Slot> {
    let have = u64::try_from(occupied.len()).unwrap_or(u64::MAX);
    let surplus =
        if have > wanted { surplus_slots(occupied, have - wanted) } else { BTreeSet::new() };
    let mut number = 0_u64;
    let mut refilled = BTreeSet::new();
    for _ in have..wanted {
        let slot = loop {
            number += 1;
            let slot = Slot::Replica(number);
            if !occupied.contains_key(&slot) {
                break slot;
            }
        };
        let task = plan::new_task(situation, &slot, TaskState::Running);
        refilled.insert(slot);
        plan.ops.push(Op::Create(Box::new(task)));
    }
    for task in situation.tasks {
        let slot = Slot::of(task);
        let number = match slot {
            Slot::Replica(number) => number,
            Slot::Node(_) => 0,
        };
        let dead_and_over =
            !occupied.contains_key(&slot) && !refilled.contains(&slot) && number > wanted;
        if (surplus.contains(&slot) || dead_and_over) && task::desired(task) < TaskState::Remove {
            plan.ops.retain(|op| match op {
                Op::Create(created) => Slot::of(created) != slot,
                Op::Want(id, _) => *id != task.id,
            });
            plan.ops.push(Op::Want(task.id.clone(), TaskState::Remove));
        }
    }
    surplus
}

/// Which slots go: those without a running task first, then those on the fullest nodes, then the
/// highest numbers, so that slot 1 is the last to go.
fn surplus_slots(occupied: &BTreeMap<Slot, Vec<&Arc<Task>>>, count: u64) -> BTreeSet<Slot> {
    let running = |tasks: &[&Arc<Task>]| {
        tasks.iter().any(|task| task::is_wanted(task) && task::observed(task) == TaskState::Running)
    };
    let node_of = |tasks: &[&Arc<Task>]| {
        tasks
            .iter()
            .find(|task| task::is_wanted(task))
            .map(|task| task.node_id.clone())
            .unwrap_or_default()
    };
    let mut per_node: BTreeMap<String, u64> = BTreeMap::new();
    for tasks in occupied.values() {
        *per_node.entry(node_of(tasks)).or_default() += 1;
    }
    let mut left: Vec<&Slot> = occupied.keys().collect();
    let mut surplus = BTreeSet::new();
    for _ in 0..count {
        let Some(index) = left
            .iter()
            .enumerate()
            .max_by_key(|(_, slot)| {
                let tasks = occupied.get(**slot).map_or(&[][..], Vec::as_slice);
                let crowd = per_node.get(&node_of(tasks)).copied().unwrap_or(0);
                (!running(tasks), crowd, (**slot).clone())
            })
            .map(|(index, _)| index)
        else {
            break;
        };
        let slot = left.swap_remove(index);
        if let Some(tasks) = occupied.get(slot)
            && let Some(crowd) = per_node.get_mut(&node_of(tasks))
        {
            *crowd = crowd.saturating_sub(1);
        }
        surplus.insert(slot.clone());
    }
    surplus
}
