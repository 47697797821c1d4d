//! Assignments against a store of records that are kept nowhere.

use std::sync::Arc;

use brig_proto::swarm::{
    Annotations, ContainerSpec, FileTarget, SecretReference, TaskSpec, TaskStatus,
    secret_reference, task_spec,
};
use brig_store::{RedbBackend, Store, StoreError};

use super::*;
use crate::manager::keys::DataKeys;

struct World {
    _temp: tempfile::TempDir,
    store: Store,
}

async fn world() -> World {
    let temp = tempfile::tempdir().unwrap();
    let backend = RedbBackend::open(&temp.path().join("store")).unwrap();
    let ring = Arc::new(brig_pki::seal::KeyRing::generate().unwrap());
    let store = Store::open(backend, Arc::new(DataKeys::new(ring))).unwrap();
    let mut spec = SecretSpec::default();
    spec.annotations = Some(Annotations { name: "db".to_owned(), ..Annotations::default() });
    spec.data = b"hunter2".to_vec();
    let secret = Secret { id: "secret".to_owned(), spec: Some(spec), ..Secret::default() };
    store.update(|tx| tx.create(secret).map(drop)).await.map_err(|e: StoreError| e).unwrap();
    World { _temp: temp, store }
}

fn task(id: &str, state: TaskState) -> Arc<Task> {
    Arc::new(Task {
        id: id.to_owned(),
        node_id: "node".to_owned(),
        desired_state: TaskState::Running as i32,
        service_annotations: Some(Annotations { name: "web".to_owned(), ..Annotations::default() }),
        status: Some(TaskStatus { state: state as i32, ..TaskStatus::default() }),
        spec: Some(TaskSpec {
            runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                image: "busybox".to_owned(),
                secrets: vec![SecretReference {
                    secret_id: "secret".to_owned(),
                    secret_name: "db".to_owned(),
                    target: Some(secret_reference::Target::File(FileTarget {
                        name: "db".to_owned(),
                        uid: "0".to_owned(),
                        gid: "0".to_owned(),
                        mode: 0o400,
                    })),
                }],
                ..ContainerSpec::default()
            })),
            ..TaskSpec::default()
        }),
        ..Task::default()
    })
}

/// Changes as `+task`, `-secret` and so on.
fn told(set: &mut AssignmentSet) -> Vec<String> {
    set.take_changes()
        .into_iter()
        .map(|change| {
            let sign = if change.action() == AssignmentAction::Update { '+' } else { '-' };
            match change.assignment.unwrap().item.unwrap() {
                Item::Task(task) => format!("{sign}{}", task.id),
                Item::Secret(secret) => {
                    let has_data = !secret.spec.as_ref().unwrap().data.is_empty();
                    assert_eq!(has_data, sign == '+', "data goes with grants only");
                    format!("{sign}{}", secret.id)
                }
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

#[tokio::test]
async fn a_secret_comes_with_its_first_task_and_goes_with_its_last() {
    let world = world().await;
    let view = world.store.view();
    let mut set = AssignmentSet::default();
    set.task_changed(&task("a", TaskState::Pending), &view);
    assert!(told(&mut set).is_empty(), "not assigned yet");
    set.task_changed(&task("a", TaskState::Assigned), &view);
    assert_eq!(told(&mut set), ["+secret", "+a"]);
    set.task_changed(&task("b", TaskState::Assigned), &view);
    assert_eq!(told(&mut set), ["+b"]);
    set.task_changed(&task("a", TaskState::Running), &view);
    assert!(told(&mut set).is_empty(), "an agent knows what it reported");
    set.task_changed(&task("a", TaskState::Failed), &view);
    assert!(told(&mut set).is_empty(), "b still uses the secret");
    set.task_changed(&task("b", TaskState::Shutdown), &view);
    assert_eq!(told(&mut set), ["-secret"]);
    set.task_removed("a");
    set.task_removed("a");
    assert_eq!(told(&mut set), ["-a"]);
}

#[tokio::test]
async fn one_message_never_says_two_things_about_a_secret() {
    let world = world().await;
    let view = world.store.view();
    let mut set = AssignmentSet::default();
    set.task_changed(&task("a", TaskState::Assigned), &view);
    told(&mut set);
    set.task_changed(&task("a", TaskState::Failed), &view);
    set.task_changed(&task("b", TaskState::Assigned), &view);
    assert_eq!(told(&mut set), ["+b"], "the agent has the secret already");
    set.task_changed(&task("b", TaskState::Failed), &view);
    set.task_changed(&task("c", TaskState::Assigned), &view);
    set.task_changed(&task("c", TaskState::Failed), &view);
    assert_eq!(told(&mut set), ["+c", "-secret"]);
}

#[tokio::test]
async fn wishes_are_sent_and_malformed_tasks_withheld() {
    let world = world().await;
    let view = world.store.view();
    let mut set = AssignmentSet::default();
    set.task_changed(&task("a", TaskState::Assigned), &view);
    told(&mut set);
    let mut stopped = (*task("a", TaskState::Running)).clone();
    stopped.desired_state = TaskState::Shutdown as i32;
    set.task_changed(&Arc::new(stopped), &view);
    assert_eq!(told(&mut set), ["+a"]);
    let mut broken = (*task("x", TaskState::Assigned)).clone();
    broken.service_annotations = None;
    set.task_changed(&Arc::new(broken), &view);
    assert!(told(&mut set).is_empty());
    assert_eq!(set.take_rejected(), [("x".to_owned(), "the service has no name".to_owned())]);
}

#[test]
fn messages_are_chained_and_a_complete_one_is_whole() {
    let changes = |count: usize| {
        (0..count)
            .map(|n| {
                change(
                    Item::Task((*task(&n.to_string(), TaskState::Assigned)).clone()),
                    AssignmentAction::Update,
                )
            })
            .collect::<Vec<_>>()
    };
    let mut sequence = Sequence::default();
    let first = sequence.messages(Type::Complete, changes(250));
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].applies_to.as_str(), first[0].results_in.as_str()), ("", "1"));
    assert!(sequence.messages(Type::Incremental, Vec::new()).is_empty());
    let more = sequence.messages(Type::Incremental, changes(250));
    let chain: Vec<_> =
        more.iter().map(|m| (m.applies_to.as_str(), m.results_in.as_str())).collect();
    assert_eq!(chain, [("1", "2"), ("2", "3"), ("3", "4")]);
    assert!(more.iter().all(|message| message.changes.len() <= MAX_CHANGES));
    let mut empty = Sequence::default();
    assert_eq!(empty.messages(Type::Complete, Vec::new()).len(), 1, "an empty set is said too");
}
