//! The orchestrators against a small world: agents that do what is wanted one step at a time, and
//! things that go wrong in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_proto::swarm::{
    Annotations, ContainerSpec, GlobalService, Meta, Node, NodeSpec, NodeStatus, ReplicatedService,
    RestartPolicy, Service, ServiceSpec, Task, TaskSpec, TaskState, UpdateConfig, Version,
    node_spec::Availability, node_status, restart_policy::RestartCondition, service_spec,
    task_spec, update_config::UpdateOrder, update_status::UpdateState,
};
use proptest::prelude::*;

use super::plan::{Memory, Op, ServiceChange, Situation};
use super::{global, replicated, taskreaper};
use crate::task::{self, Slot};
use crate::wire_time;

struct World {
    service: Service,
    tasks: Vec<Arc<Task>>,
    nodes: BTreeMap<String, Arc<Node>>,
    memory: Memory,
    now: SystemTime,
    revision: u64,
    /// Images whose tasks fail as soon as they run.
    bad_images: BTreeSet<String>,
    /// Nodes that were lost once: what they ran was replaced, and they may come back with it.
    lost: BTreeSet<String>,
}

impl World {
    fn new(mode: service_spec::Mode, nodes: usize) -> Self {
        let restart = RestartPolicy {
            condition: RestartCondition::Any as i32,
            delay: Some(wire_time::wire(Duration::from_secs(5))),
            ..RestartPolicy::default()
        };
        let mut world = Self {
            service: Service {
                id: "service".to_owned(),
                spec: Some(ServiceSpec {
                    annotations: Some(Annotations::default()),
                    task: Some(TaskSpec {
                        runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                            image: "v1".to_owned(),
                            ..ContainerSpec::default()
                        })),
                        restart: Some(restart),
                        ..TaskSpec::default()
                    }),
                    mode: Some(mode),
                    ..ServiceSpec::default()
                }),
                spec_version: Some(Version::default()),
                ..Service::default()
            },
            tasks: Vec::new(),
            nodes: BTreeMap::new(),
            memory: Memory::default(),
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            revision: 1,
            bad_images: BTreeSet::new(),
            lost: BTreeSet::new(),
        };
        for number in 0..nodes {
            world.set_node(
                &format!("node{number}"),
                node_status::State::Ready,
                Availability::Active,
            );
        }
        world
    }

    fn replicated(replicas: u64) -> Self {
        Self::new(service_spec::Mode::Replicated(ReplicatedService { replicas }), 2)
    }

    fn set_node(&mut self, id: &str, state: node_status::State, availability: Availability) {
        if state == node_status::State::Down {
            self.lost.insert(id.to_owned());
        }
        let node = Node {
            id: id.to_owned(),
            spec: Some(NodeSpec { availability: availability as i32, ..NodeSpec::default() }),
            status: Some(NodeStatus { state: state as i32, ..NodeStatus::default() }),
            ..Node::default()
        };
        self.nodes.insert(id.to_owned(), Arc::new(node));
    }

    fn spec(&mut self) -> &mut ServiceSpec {
        self.service.spec.as_mut().unwrap()
    }

    /// A user's update.
    fn update(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        let old = self.service.spec.clone();
        change(self.spec());
        self.revision += 1;
        self.service.previous_spec = old;
        self.service.previous_spec_version = self.service.spec_version;
        self.service.spec_version = Some(Version { index: self.revision });
        self.service.update_status = None;
    }

    fn set_image(&mut self, image: &str) {
        self.update(|spec| {
            let container = task::container_mut(spec.task.as_mut().unwrap()).unwrap();
            image.clone_into(&mut container.image);
        });
    }

    fn set_replicas(&mut self, replicas: u64) {
        self.update(|spec| {
            spec.mode = Some(service_spec::Mode::Replicated(ReplicatedService { replicas }));
        });
    }

    /// One look of the orchestrator.
    fn plan(&mut self) -> Option<SystemTime> {
        let situation = Situation {
            service: &self.service,
            tasks: &self.tasks,
            nodes: &self.nodes,
            default_log_driver: None,
            now: self.now,
        };
        let plan = if task::is_global(&self.service) {
            global::plan(&situation, &mut self.memory)
        } else {
            replicated::plan(&situation, &mut self.memory)
        };
        for op in plan.ops {
            match op {
                Op::Create(mut task) => {
                    self.revision += 1;
                    task.meta = Some(Meta {
                        created_at: Some(wire_time::timestamp(
                            self.now + Duration::from_nanos(self.revision),
                        )),
                        ..Meta::default()
                    });
                    self.tasks.push(Arc::new(*task));
                }
                Op::Want(id, state) => {
                    let task = self.tasks.iter_mut().find(|task| task.id == id).unwrap();
                    let task = Arc::make_mut(task);
                    task.desired_state = task.desired_state.max(state as i32);
                }
            }
        }
        match plan.service {
            Some(ServiceChange::Status(status)) => self.service.update_status = Some(status),
            Some(ServiceChange::RollBack(status)) => {
                self.service.spec = self.service.previous_spec.take();
                self.service.spec_version = self.service.previous_spec_version.take();
                self.service.update_status = Some(status);
            }
            None => {}
        }
        let gone = taskreaper::plan(&self.tasks, true, 5);
        self.tasks.retain(|task| !gone.contains(&task.id));
        plan.wake
    }

    /// Every task goes one step on; answers whether anything moved.
    fn agents_work(&mut self) -> bool {
        let mut moved = false;
        let nodes: Vec<String> = self
            .nodes
            .values()
            .filter(|node| {
                super::plan::availability(node) == Availability::Active
                    && node.status.as_ref().unwrap().state == node_status::State::Ready as i32
            })
            .map(|node| node.id.clone())
            .collect();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let (desired, observed) = (task::desired(task), task::observed(task));
            let image = &task::container(task.spec.as_ref().unwrap()).unwrap().image;
            let next = if desired >= TaskState::Shutdown {
                match observed {
                    TaskState::New | TaskState::Pending => continue,
                    state if state > TaskState::Running => continue,
                    _ => TaskState::Shutdown,
                }
            } else {
                match observed {
                    TaskState::New if nodes.is_empty() => continue,
                    TaskState::New => TaskState::Assigned,
                    TaskState::Assigned => TaskState::Ready,
                    TaskState::Ready if desired == TaskState::Running => TaskState::Running,
                    TaskState::Running if self.bad_images.contains(image) => TaskState::Failed,
                    _ => continue,
                }
            };
            let task = Arc::make_mut(task);
            if next == TaskState::Assigned && task.node_id.is_empty() {
                task.node_id.clone_from(&nodes[index % nodes.len()]);
            }
            let down = self.nodes.get(&task.node_id).is_none_or(|node| super::plan::is_down(node));
            if down {
                continue;
            }
            task.status.as_mut().unwrap().state = next as i32;
            moved = true;
        }
        moved
    }

    /// Lets everything happen until nothing does any more; `check` looks at every moment.
    fn settle(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..2_000 {
            let wake = self.plan();
            check(self);
            if self.agents_work() {
                self.now += Duration::from_millis(10);
                check(self);
                continue;
            }
            match wake {
                Some(at) => self.now = self.now.max(at),
                None => {
                    // A plan that changes nothing twice has settled.
                    let before = (self.tasks.clone(), self.service.clone());
                    if self.plan().is_none() && before == (self.tasks.clone(), self.service.clone())
                    {
                        return;
                    }
                }
            }
        }
        panic!("never settles: {:#?}", self.summary());
    }

    fn summary(&self) -> Vec<(Slot, TaskState, TaskState)> {
        let describe =
            |task: &Arc<Task>| (Slot::of(task), task::observed(task), task::desired(task));
        self.tasks.iter().map(describe).collect()
    }

    fn running(&self) -> Vec<&Arc<Task>> {
        let wanted = |task: &&Arc<Task>| {
            task::observed(task) == TaskState::Running && task::desired(task) == TaskState::Running
        };
        self.tasks.iter().filter(wanted).collect()
    }

    fn assert_complete(&self, replicas: usize) {
        let running = self.running();
        let slots: BTreeSet<Slot> = running.iter().map(|task| Slot::of(task)).collect();
        assert_eq!(running.len(), replicas, "{:#?}", self.summary());
        assert_eq!(slots.len(), replicas, "one task in each slot");
        assert!(running.iter().all(|task| task::is_up_to_date(&self.service, task, None)));
        let wanted = self.tasks.iter().filter(|task| task::is_wanted(task)).count();
        assert_eq!(wanted, replicas, "{:#?}", self.summary());
    }

    fn update_state(&self) -> UpdateState {
        let state = self.service.update_status.as_ref().map_or(0, |status| status.state);
        UpdateState::try_from(state).unwrap()
    }
}

/// Two tasks of one slot must not have a process at the same time.
fn one_process_per_slot(world: &World) {
    let mut slots = BTreeSet::new();
    for task in world.tasks.iter().filter(|t| task::observed(t) == TaskState::Running) {
        let lost = world.lost.contains(&task.node_id);
        assert!(lost || slots.insert(Slot::of(task)), "{:#?}", world.summary());
    }
}

#[test]
fn scaling_keeps_what_runs() {
    let mut world = World::replicated(3);
    world.settle(one_process_per_slot);
    world.assert_complete(3);
    let before: BTreeSet<String> = world.running().iter().map(|t| t.id.clone()).collect();
    world.set_replicas(5);
    world.settle(one_process_per_slot);
    world.assert_complete(5);
    let after: BTreeSet<String> = world.running().iter().map(|t| t.id.clone()).collect();
    assert!(before.is_subset(&after));
    assert_eq!(world.update_state(), UpdateState::Unknown, "scaling is no update");
    world.set_replicas(0);
    world.settle(one_process_per_slot);
    assert!(world.tasks.is_empty(), "{:#?}", world.summary());
}

#[test]
fn an_update_goes_slot_by_slot() {
    let mut world = World::replicated(4);
    world.settle(one_process_per_slot);
    world.update(|spec| {
        spec.update = Some(UpdateConfig {
            parallelism: 1,
            delay: Some(wire_time::wire(Duration::from_secs(30))),
            ..UpdateConfig::default()
        });
    });
    world.settle(one_process_per_slot);
    let start = world.now;
    world.set_image("v2");
    world.settle(|world| {
        one_process_per_slot(world);
        assert!(world.running().len() >= 3, "{:#?}", world.summary());
    });
    world.assert_complete(4);
    assert_eq!(world.update_state(), UpdateState::Completed);
    assert!(world.now.duration_since(start).unwrap() >= Duration::from_secs(90), "delays are kept");
}

#[test]
fn start_first_never_has_too_few() {
    let mut world = World::replicated(3);
    world.settle(|_| {});
    world.update(|spec| {
        spec.update = Some(UpdateConfig {
            parallelism: 0,
            order: UpdateOrder::StartFirst as i32,
            ..UpdateConfig::default()
        });
        task::container_mut(spec.task.as_mut().unwrap()).unwrap().image = "v2".to_owned();
    });
    world.settle(|world| {
        let up = world.tasks.iter().filter(|t| task::observed(t) == TaskState::Running).count();
        assert!(up >= 3, "{:#?}", world.summary());
    });
    world.assert_complete(3);
}

#[test]
fn a_bad_update_pauses() {
    let mut world = World::replicated(3);
    world.settle(|_| {});
    world.bad_images.insert("bad".to_owned());
    world.set_image("bad");
    for _ in 0..200 {
        world.plan();
        world.agents_work();
        world.now += Duration::from_millis(10);
    }
    assert_eq!(world.update_state(), UpdateState::Paused);
    let status = world.service.update_status.as_ref().unwrap();
    assert!(
        status.message.starts_with("update paused due to failure or early termination of task ")
    );
    // A place is free again once the new task runs, so a second one was under way already.
    assert_eq!(world.running().len(), 1, "the others still run");
}

#[test]
fn a_drained_node_is_emptied_first() {
    let mut world = World::replicated(4);
    world.settle(one_process_per_slot);
    world.set_node("node0", node_status::State::Ready, Availability::Drain);
    world.settle(one_process_per_slot);
    world.assert_complete(4);
    assert!(world.running().iter().all(|task| task.node_id == "node1"));
}

#[test]
fn a_lost_node_is_replaced_at_once() {
    let mut world = World::replicated(4);
    world.settle(one_process_per_slot);
    let before = world.now;
    world.set_node("node0", node_status::State::Down, Availability::Active);
    world.settle(one_process_per_slot);
    world.assert_complete(4);
    assert!(world.now.duration_since(before).unwrap() < Duration::from_secs(1));
}

#[test]
fn global_services_follow_the_nodes() {
    let mut world = World::new(service_spec::Mode::Global(GlobalService {}), 3);
    world.settle(one_process_per_slot);
    world.assert_complete(3);
    world.set_node("node3", node_status::State::Ready, Availability::Active);
    world.set_node("node0", node_status::State::Ready, Availability::Drain);
    world.set_node("node1", node_status::State::Ready, Availability::Pause);
    world.settle(one_process_per_slot);
    world.assert_complete(3);
    let on: BTreeSet<String> = world.running().iter().map(|t| t.node_id.clone()).collect();
    assert_eq!(on, ["node1", "node2", "node3"].map(str::to_owned).into());
    world.nodes.remove("node2");
    world.settle(one_process_per_slot);
    world.set_image("v2");
    world.settle(one_process_per_slot);
    world.assert_complete(2);
}

#[test]
fn tasks_that_may_not_restart_are_left_alone() {
    let mut world = World::replicated(2);
    world.update(|spec| {
        let restart = spec.task.as_mut().unwrap().restart.as_mut().unwrap();
        restart.condition = RestartCondition::None as i32;
    });
    world.bad_images.insert("v1".to_owned());
    world.settle(one_process_per_slot);
    assert_eq!(world.tasks.len(), 2, "{:#?}", world.summary());
    assert!(world.tasks.iter().all(|t| task::observed(t) == TaskState::Failed));
    // An update still reaches them.
    world.set_image("v2");
    world.settle(one_process_per_slot);
    world.assert_complete(2);
}

#[test]
fn a_restart_waits_for_its_delay() {
    let mut world = World::replicated(1);
    world.settle(one_process_per_slot);
    let id = world.running()[0].id.clone();
    for task in &mut world.tasks {
        Arc::make_mut(task).status.as_mut().unwrap().state = TaskState::Failed as i32;
    }
    let crashed = world.now;
    world.settle(one_process_per_slot);
    world.assert_complete(1);
    assert_ne!(world.running()[0].id, id);
    let waited = world.now.duration_since(crashed).unwrap();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
}

#[test]
fn what_cannot_be_prepared_is_tried_again_after_the_delay() {
    let mut world = World::replicated(1);
    world.settle(one_process_per_slot);
    let end = |world: &mut World, state: TaskState| {
        let last = world.tasks.last_mut().unwrap();
        Arc::make_mut(last).status.as_mut().unwrap().state = state as i32;
    };
    end(&mut world, TaskState::Failed);
    world.plan();
    assert_eq!(task::desired(world.tasks.last().unwrap()), TaskState::Ready);
    let tasks = world.tasks.len();
    end(&mut world, TaskState::Rejected);
    for _ in 0..3 {
        world.plan();
    }
    assert_eq!(world.tasks.len(), tasks, "{:#?}", world.summary());
    world.now += Duration::from_secs(5);
    world.plan();
    assert_eq!(world.tasks.len(), tasks + 1, "{:#?}", world.summary());
}

#[test]
fn a_forgetful_manager_finishes_an_update() {
    let mut world = World::replicated(3);
    world.settle(one_process_per_slot);
    world.set_image("v2");
    for _ in 0..3 {
        world.plan();
        world.agents_work();
    }
    world.memory = Memory::default();
    world.settle(one_process_per_slot);
    world.assert_complete(3);
    assert_eq!(world.update_state(), UpdateState::Completed);
}

#[derive(Clone, Debug)]
enum Event {
    Crash(usize),
    Node(usize, bool, bool),
    Replicas(u64),
    Image(u8),
    Forget,
    Work,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..8).prop_map(Event::Crash),
        (0_usize..2, any::<bool>(), any::<bool>())
            .prop_map(|(n, up, drain)| Event::Node(n, up, drain)),
        (0_u64..5).prop_map(Event::Replicas),
        (0_u8..3).prop_map(Event::Image),
        Just(Event::Forget),
        Just(Event::Work),
        Just(Event::Work),
        Just(Event::Work),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens, in the end there is what was asked for, and on the way no slot has two
    /// processes.
    #[test]
    fn everything_converges(events in prop::collection::vec(event(), 0..40), replicas in 0_u64..5) {
        let mut world = World::replicated(replicas);
        let mut wanted = replicas;
        for event in events {
            match event {
                Event::Crash(index) => {
                    if let Some(task) = world.tasks.get_mut(index)
                        && task::observed(task) == TaskState::Running
                    {
                        Arc::make_mut(task).status.as_mut().unwrap().state = TaskState::Failed as i32;
                    }
                }
                Event::Node(number, up, drain) => {
                    let state = if up { node_status::State::Ready } else { node_status::State::Down };
                    let availability = if drain { Availability::Drain } else { Availability::Active };
                    world.set_node(&format!("node{number}"), state, availability);
                }
                Event::Replicas(replicas) => {
                    wanted = replicas;
                    world.set_replicas(replicas);
                }
                Event::Image(version) => world.set_image(&format!("v{version}")),
                Event::Forget => world.memory = Memory::default(),
                Event::Work => {
                    world.plan();
                    one_process_per_slot(&world);
                    world.agents_work();
                    one_process_per_slot(&world);
                    world.now += Duration::from_millis(700);
                }
            }
        }
        for node in ["node0", "node1"] {
            world.set_node(node, node_status::State::Ready, Availability::Active);
        }
        // A paused update goes on when the user says so.
        world.service.update_status = None;
        world.settle(|_| {});
        if world.update_state() == UpdateState::Paused {
            world.service.update_status = None;
            world.settle(|_| {});
        }
        world.assert_complete(usize::try_from(wanted).unwrap());
    }
}
