use prost::Message as _;

use crate::authorization::{Access, Validity, rule};
use crate::swarm::{
    Annotations, ContainerSpec, JoinTokens, Node, NodeRole, RootCa, Secret, SecretSpec, Service,
    ServiceSpec, Task, TaskSpec, TaskState, TaskStatus, node_status, port_config, service_spec,
    task_spec,
};

fn annotations(name: &str) -> Annotations {
    Annotations {
        name: name.to_owned(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        indices: Vec::new(),
    }
}

#[test]
fn a_service_survives_the_wire() {
    let service = Service {
        id: "s".repeat(25),
        spec: Some(ServiceSpec {
            annotations: Some(annotations("web")),
            task: Some(TaskSpec {
                runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                    image: "busybox".to_owned(),
                    init: Some(true),
                    ..ContainerSpec::default()
                })),
                ..TaskSpec::default()
            }),
            mode: Some(service_spec::Mode::Replicated(crate::swarm::ReplicatedService {
                replicas: 3,
            })),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let bytes = service.encode_to_vec();
    assert_eq!(Service::decode(bytes.as_slice()).unwrap(), service);
}

#[test]
fn field_numbers_are_swarmkits() {
    // Task{id:1 "t", desired_state:10 RUNNING(512), status:9{state:2 ASSIGNED(192)}}
    let bytes = [0x0a, 1, b't', 0x4a, 3, 0x10, 0xc0, 0x01, 0x50, 0x80, 0x04];
    let task = Task::decode(bytes.as_slice()).unwrap();
    assert_eq!(task.id, "t");
    assert_eq!(task.desired_state(), TaskState::Running);
    assert_eq!(task.status, Some(TaskStatus { state: 192, ..TaskStatus::default() }));
    assert_eq!(task.encode_to_vec(), bytes);
}

#[test]
fn enum_numbers_are_swarmkits() {
    let states = [
        (TaskState::New, 0),
        (TaskState::Pending, 64),
        (TaskState::Assigned, 192),
        (TaskState::Accepted, 256),
        (TaskState::Preparing, 320),
        (TaskState::Ready, 384),
        (TaskState::Starting, 448),
        (TaskState::Running, 512),
        (TaskState::Complete, 576),
        (TaskState::Shutdown, 640),
        (TaskState::Failed, 704),
        (TaskState::Rejected, 768),
        (TaskState::Remove, 800),
        (TaskState::Orphaned, 832),
    ];
    for (state, number) in states {
        assert_eq!(state as i32, number);
    }
    assert_eq!(NodeRole::Manager as i32, 1);
    assert_eq!(node_status::State::Ready as i32, 2);
    assert_eq!(port_config::PublishMode::Host as i32, 1);
}

#[test]
fn unknown_enum_numbers_are_kept() {
    let bytes = [0x48, 0x63];
    let node = Node::decode(bytes.as_slice()).unwrap();
    assert_eq!(node.role, 99);
    assert_eq!(node.encode_to_vec(), bytes);
}

#[test]
fn secrets_are_not_printed() {
    let mut spec = SecretSpec::default();
    spec.annotations = Some(annotations("db"));
    spec.data = b"hunter2".to_vec();
    let secret = Secret { spec: Some(spec), ..Secret::default() };
    let root = RootCa {
        ca_key: b"hunter2".to_vec(),
        join_tokens: Some(JoinTokens {
            worker: "hunter2".to_owned(),
            manager: "hunter2".to_owned(),
            ..JoinTokens::default()
        }),
        ..RootCa::default()
    };
    let text = format!("{secret:?} {root:?}");
    let bytes = format!("{:?}", b"hunter2");
    assert!(text.contains("db") && text.contains("<7 bytes>"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains(&bytes), "{text}");
}

#[test]
fn every_method_has_an_owner() {
    let access = |path: &str| rule(path).map(|rule| rule.access);
    assert_eq!(access("/docker.swarmkit.v1.CA/GetRootCACertificate"), Some(Access::Anyone));
    assert_eq!(access("/docker.swarmkit.v1.Dispatcher/Session"), Some(Access::Nodes));
    assert_eq!(access("/docker.swarmkit.v1.Health/Check"), Some(Access::Managers));
    for path in [
        "",
        "/docker.swarmkit.v1.Dispatcher/",
        "/other.Dispatcher/Session",
        "Dispatcher/Session",
        "/docker.swarmkit.v1.Control/GetNode",
        "/docker.swarmkit.v1.Watch/Watch",
        "/docker.swarmkit.v1.RaftMembership/Join",
    ] {
        assert_eq!(access(path), None, "{path}");
    }
}

#[test]
fn expired_certificates_are_good_for_their_renewal_only() {
    let validity = |method: &str| rule(&format!("/docker.swarmkit.v1.{method}")).unwrap().validity;
    for method in ["NodeCA/IssueNodeCertificate", "NodeCA/NodeCertificateStatus"] {
        assert_eq!(validity(method), Validity::Renewable);
    }
    for method in ["CA/GetUnlockKey", "Dispatcher/Session", "LogBroker/PublishLogs"] {
        assert_eq!(validity(method), Validity::Now);
    }
}
