//! A whole swarm of one node, over real TLS on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::time::{Duration, Instant};

use brig_proto::swarm::{
    LogSelector, LogSubscriptionOptions, ReplicatedService, TaskState, UpdateConfig, service_spec,
    update_config::{FailureAction, UpdateOrder},
    update_status::UpdateState,
};
use brig_swarm::{ControlError, LocalNodeState, SwarmError, UpdateOptions};
use common::*;

fn scaled(
    mut spec: brig_proto::swarm::ServiceSpec,
    replicas: u64,
) -> brig_proto::swarm::ServiceSpec {
    spec.mode = Some(service_spec::Mode::Replicated(ReplicatedService { replicas }));
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_lives_from_create_to_leave() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let secret_id = control.create_secret(secret("db", b"hunter2")).await.unwrap();
    let stored = control.secret("db").unwrap();
    assert!(stored.spec.as_ref().unwrap().data.is_empty(), "data never comes back");

    let mut spec = service("web", "busybox:1", 1);
    grant(&mut spec, &stored);
    with_auth(&mut spec, "credentials");
    let id = control.create_service(spec.clone()).await.unwrap();
    eventually("one runs", || running_tasks(&control, &id), |t| t.len() == 1).await;
    let (task, container) = machine.running().pop().unwrap();
    assert_eq!(container.secrets, [("db".to_owned(), b"hunter2".to_vec())]);
    assert_eq!(container.registry_auth, "credentials");
    let status = control.task(&task).unwrap().status.clone().unwrap();
    assert_eq!(status.applied_by, swarm.status().node_id);

    let refused = control.remove_secret("db").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "rpc error: code = InvalidArgument desc = secret 'db' is in use by the following service: web"
    );

    // Another image, credentials not sent again.
    container_image(&mut spec, "busybox:2");
    crate::container(&mut spec).pull_options = None;
    let current = control.service("web").unwrap();
    control
        .update_service(&id, version(&current), spec.clone(), UpdateOptions::default())
        .await
        .unwrap();
    let stale = control
        .update_service(&id, version(&current), spec.clone(), UpdateOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(stale, ControlError::OutOfSequence));
    let images =
        || -> Vec<String> { machine.running().into_iter().map(|(_, c)| c.image).collect() };
    eventually("the new image runs", images, |images| images == &["busybox:2"]).await;
    assert_eq!(machine.running()[0].1.registry_auth, "credentials");
    assert_ne!(machine.running()[0].0, task, "a new task");

    let current = control.service(&id).unwrap();
    let before: Vec<String> = machine.running().into_iter().map(|(id, _)| id).collect();
    control
        .update_service(&id, version(&current), scaled(spec.clone(), 3), UpdateOptions::default())
        .await
        .unwrap();
    eventually("three run", || running_tasks(&control, &id), |t| t.len() == 3).await;
    assert!(machine.running().iter().any(|(id, _)| *id == before[0]), "scaling replaces nothing");
    let slots: Vec<u64> = {
        let mut slots: Vec<u64> = running_tasks(&control, &id).iter().map(|t| t.slot).collect();
        slots.sort_unstable();
        slots
    };
    assert_eq!(slots, [1, 2, 3]);

    let current = control.service(&id).unwrap();
    control
        .update_service(&id, version(&current), scaled(spec, 1), UpdateOptions::default())
        .await
        .unwrap();
    eventually("one is left", || machine.running(), |running| running.len() == 1).await;
    assert_eq!(running_tasks(&control, &id)[0].slot, 1, "the lowest slot stays");

    control.remove_service("web").await.unwrap();
    eventually("no container is left", || machine.containers(), |all| all.is_empty()).await;
    eventually("no task is left", || control.tasks(), Vec::is_empty).await;
    control.remove_secret(&secret_id).await.unwrap();

    assert!(matches!(swarm.leave(false).await, Err(SwarmError::LeaveManager)));
    swarm.leave(true).await.unwrap();
    assert_eq!(swarm.status().local_node_state, LocalNodeState::Inactive);
    assert!(!temp.path().join("swarm").exists());
    assert!(matches!(swarm.leave(true).await, Err(SwarmError::NotPartOfSwarm)));
}

fn container_image(spec: &mut brig_proto::swarm::ServiceSpec, image: &str) {
    image.clone_into(&mut container(spec).image);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_daemon_keeps_its_tasks() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    control.create_secret(secret("db", b"hunter2")).await.unwrap();
    let mut spec = service("web", "busybox", 2);
    grant(&mut spec, &control.secret("db").unwrap());
    with_auth(&mut spec, "credentials");
    let id = control.create_service(spec).await.unwrap();
    eventually("two run", || running_tasks(&control, &id), |t| t.len() == 2).await;
    let before = machine.running();
    let node = swarm.status().node_id;
    drop(control);
    swarm.shutdown().await;
    drop(swarm);
    assert_eq!(machine.running(), before, "containers outlive the daemon");
    for entry in walk(temp.path()) {
        let bytes = std::fs::read(&entry).unwrap();
        for needle in [&b"hunter2"[..], b"credentials"] {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{}", entry.display());
        }
    }

    let swarm = open(temp.path(), &machine).await;
    assert_eq!(swarm.status().node_id, node);
    let control = swarm.control().unwrap();
    eventually(
        "the node is back",
        || control.nodes()[0].status.clone().unwrap().state,
        |state| *state == brig_proto::swarm::node_status::State::Ready as i32,
    )
    .await;
    eventually("two run", || running_tasks(&control, &id), |t| t.len() == 2).await;
    assert_eq!(machine.running(), before, "the very same containers, started once");

    // The daemon watches them again, and the secret is there for a successor.
    machine.crash(&before[0].0, 3);
    eventually(
        "the crash is noticed",
        || control.task(&before[0].0).unwrap().status.clone().unwrap(),
        |status| status.err == "task: non-zero exit (3)",
    )
    .await;
    eventually("two run again", || machine.running(), |running| running.len() == 2).await;
    assert!(machine.running().iter().all(|(_, c)| c.secrets.len() == 1));
    swarm.shutdown().await;
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_ended_while_nobody_watched_are_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let id = control.create_service(service("web", "busybox", 1)).await.unwrap();
    eventually("one runs", || running_tasks(&control, &id), |t| t.len() == 1).await;
    let first = machine.running().pop().unwrap().0;
    drop(control);
    swarm.shutdown().await;
    machine.crash(&first, 0);
    let swarm = open(temp.path(), &machine).await;
    let control = swarm.control().unwrap();
    eventually("another one runs", || machine.running(), |running| running.len() == 1).await;
    assert_eq!(state(&control.task(&first).unwrap()), TaskState::Complete);
    swarm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_tasks_are_restarted_and_history_is_limited() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let mut spec = service("bad", "crash", 1);
    let restart = spec.task.as_mut().unwrap().restart.as_mut().unwrap();
    restart.delay = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    restart.max_attempts = 8;
    let id = control.create_service(spec).await.unwrap();
    let tasks = eventually(
        "all attempts are used",
        || control.tasks_of_service(&id),
        |tasks| {
            tasks.len() >= 5
                && tasks.iter().all(|t| {
                    state(t) == TaskState::Failed && t.desired_state > TaskState::Running as i32
                })
        },
    )
    .await;
    assert_eq!(tasks.len(), 5, "no more than the history keeps");
    assert_eq!(tasks[0].status.as_ref().unwrap().err, "task: non-zero exit (1)");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ids = |tasks: &[std::sync::Arc<brig_proto::swarm::Task>]| -> Vec<String> {
        tasks.iter().map(|t| t.id.clone()).collect()
    };
    assert_eq!(ids(&control.tasks_of_service(&id)), ids(&tasks), "nothing is tried any more");

    let missing = control.create_service(service("none", "missing", 1)).await.unwrap();
    eventually(
        "the image is missing",
        || control.tasks_of_service(&missing),
        |tasks| {
            tasks.iter().any(|t| {
                state(t) == TaskState::Rejected
                    && t.status.as_ref().unwrap().err == "No such image: missing"
            })
        },
    )
    .await;
    swarm.leave(true).await.unwrap();
    assert!(machine.containers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_update_is_rolled_back() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let quick = |action, order| UpdateConfig {
        parallelism: 1,
        monitor: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }),
        failure_action: action as i32,
        order: order as i32,
        ..UpdateConfig::default()
    };
    let mut spec = service("web", "good:1", 3);
    spec.update = Some(quick(FailureAction::Rollback, UpdateOrder::StopFirst));
    spec.rollback = Some(quick(FailureAction::Pause, UpdateOrder::StartFirst));
    let id = control.create_service(spec.clone()).await.unwrap();
    eventually("three run", || running_tasks(&control, &id), |t| t.len() == 3).await;
    let mut bad = spec.clone();
    container_image(&mut bad, "crash:2");
    let current = control.service(&id).unwrap();
    control.update_service(&id, version(&current), bad, UpdateOptions::default()).await.unwrap();
    let service = eventually(
        "rolled back",
        || control.service(&id).unwrap(),
        |service| {
            service
                .update_status
                .as_ref()
                .is_some_and(|status| status.state == UpdateState::RollbackCompleted as i32)
        },
    )
    .await;
    assert_eq!(container(&mut service.spec.clone().unwrap()).image, "good:1");
    eventually(
        "three good ones run",
        || machine.running(),
        |running| running.len() == 3 && running.iter().all(|(_, c)| c.image == "good:1"),
    )
    .await;

    // By hand: forward, then back.
    let mut next = spec.clone();
    container_image(&mut next, "good:3");
    let current = control.service(&id).unwrap();
    control.update_service(&id, version(&current), next, UpdateOptions::default()).await.unwrap();
    eventually(
        "all are new",
        || machine.running(),
        |running| running.len() == 3 && running.iter().all(|(_, c)| c.image == "good:3"),
    )
    .await;
    let updated = |state| {
        let control = control.clone();
        let id = id.clone();
        async move {
            eventually(
                "the update ends",
                || control.service(&id).unwrap().update_status.clone(),
                |status| status.as_ref().is_some_and(|status| status.state == state as i32),
            )
            .await
        }
    };
    updated(UpdateState::Completed).await;
    let current = control.service(&id).unwrap();
    let options = UpdateOptions { roll_back: true, ..UpdateOptions::default() };
    control.update_service(&id, version(&current), spec, options).await.unwrap();
    updated(UpdateState::RollbackCompleted).await;
    eventually(
        "all are old",
        || machine.running(),
        |running| running.len() == 3 && running.iter().all(|(_, c)| c.image == "good:1"),
    )
    .await;
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_stops_tasks_and_activating_brings_them_back() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let mut everywhere = service("agent", "busybox", 1);
    everywhere.mode = Some(service_spec::Mode::Global(brig_proto::swarm::GlobalService {}));
    control.create_service(everywhere).await.unwrap();
    control.create_service(service("web", "busybox", 2)).await.unwrap();
    eventually("three run", || machine.running(), |running| running.len() == 3).await;
    let set = async |availability| {
        let node = control.node("self").unwrap();
        let mut spec = node.spec.clone().unwrap();
        spec.availability = availability as i32;
        let version = node.meta.as_ref().unwrap().version.as_ref().unwrap().index;
        control.update_node(&node.id, version, spec).await
    };
    set(brig_proto::swarm::node_spec::Availability::Drain).await.unwrap();
    eventually("none runs", || machine.running(), |running| running.is_empty()).await;
    let waiting = eventually(
        "the reason is shown",
        || control.tasks_of_service(&control.service("web").unwrap().id),
        |tasks| tasks.iter().any(|t| !t.status.as_ref().unwrap().err.is_empty()),
    )
    .await;
    assert!(waiting.iter().any(|t| t.status.as_ref().unwrap().err
        == "no suitable node (1 node not available for new tasks)"));
    set(brig_proto::swarm::node_spec::Availability::Active).await.unwrap();
    eventually("three run", || machine.running(), |running| running.len() == 3).await;
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_all_replicas() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let id = control.create_service(service("web", "busybox", 3)).await.unwrap();
    eventually("three run", || running_tasks(&control, &id), |t| t.len() == 3).await;
    let selector = LogSelector { service_ids: vec![id.clone()], ..LogSelector::default() };
    let read = |follow| {
        let options = LogSubscriptionOptions { follow, ..LogSubscriptionOptions::default() };
        control.service_logs(selector.clone(), options).unwrap()
    };
    let mut stream = read(false);
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        assert_eq!(line.context.unwrap().service_id, id);
        lines.push(String::from_utf8(line.data).unwrap());
    }
    lines.sort();
    assert_eq!(lines, ["hello from 1\n", "hello from 2\n", "hello from 3\n"]);
    let mut stream = read(true);
    for _ in 0..3 {
        stream.next().await.unwrap();
    }
    let current = control.service(&id).unwrap();
    control
        .update_service(
            &id,
            version(&current),
            scaled(service("web", "busybox", 3), 4),
            UpdateOptions::default(),
        )
        .await
        .unwrap();
    let late = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
    assert_eq!(late.unwrap().unwrap().data, b"hello from 4\n", "followers hear of new tasks");
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_ports_belong_to_one_task_of_a_node() {
    use brig_proto::swarm::{EndpointSpec, PortConfig};
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let publish = |published_port| EndpointSpec {
        ports: vec![PortConfig { target_port: 80, published_port, ..PortConfig::default() }],
        ..EndpointSpec::default()
    };
    let mut spec = service("web", "busybox", 3);
    spec.endpoint = Some(publish(8080));
    let id = control.create_service(spec.clone()).await.unwrap();
    eventually("three run", || running_tasks(&control, &id), |t| t.len() == 3).await;
    let holders = || {
        let mut holders: Vec<u64> = machine
            .running()
            .iter()
            .filter(|(_, c)| c.published == [8080])
            .map(|(task, _)| control.task(task).unwrap().slot)
            .collect();
        holders.sort_unstable();
        holders
    };
    assert_eq!(holders(), [1]);
    container_image(&mut spec, "busybox:2");
    let current = control.service(&id).unwrap();
    control
        .update_service(&id, version(&current), spec.clone(), UpdateOptions::default())
        .await
        .unwrap();
    eventually(
        "all are new",
        || machine.running(),
        |running| running.len() == 3 && running.iter().all(|(_, c)| c.image == "busybox:2"),
    )
    .await;
    assert_eq!(holders(), [1], "the successor in the slot has the port");

    let mut other = service("other", "busybox", 1);
    other.endpoint = Some(publish(8080));
    let refused = control.create_service(other.clone()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "rpc error: code = InvalidArgument desc = port '8080' is already in use by service 'web' ({id})"
        )
    );
    other.endpoint = Some(publish(0));
    let other = control.create_service(other).await.unwrap();
    let endpoint = control.service(&other).unwrap().endpoint.clone().unwrap();
    assert_eq!(endpoint.ports[0].published_port, 30_000);
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_soon_after_its_service_was_created() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let warm = control.create_service(service("warm", "busybox", 1)).await.unwrap();
    eventually("it runs", || running_tasks(&control, &warm), |t| t.len() == 1).await;
    let mut best = Duration::MAX;
    for attempt in 0..5 {
        let start = Instant::now();
        let id =
            control.create_service(service(&format!("s{attempt}"), "busybox", 1)).await.unwrap();
        eventually("it runs", || running_tasks(&control, &id), |t| t.len() == 1).await;
        best = best.min(start.elapsed());
    }
    println!("service create to running task: {best:?}");
    assert!(best < Duration::from_millis(100), "{best:?}");
    swarm.leave(true).await.unwrap();
}
