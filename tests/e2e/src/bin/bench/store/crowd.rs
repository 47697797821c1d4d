//! The cluster's store with many objects in it: how long a manager takes to come out of a backup, and
//! to start. No task of it can run, a constraint that no node fulfils sees to that: the figures are the
//! store's and the loops', not the containers'.

use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_e2e::{Brigd, http};
use brig_pki::agefile::Readers;
use brig_pki::ca::RootCa;
use brig_pki::token::JoinToken;
use brig_proto::swarm::{
    Annotations, Cluster, ClusterSpec, ContainerSpec, JoinTokens, ManagerStatus, Node, NodeRole,
    NodeSpec, Placement, ReplicatedService, RootCa as StoredRoot, Secret, SecretReference,
    SecretSpec, Service, ServiceSpec, Task, TaskSpec, TaskState, TaskStatus, node_spec,
    service_spec, task_spec,
};
use brig_store::{Object, State};
use brig_swarm::Snapshot;
use brig_types::id::random_swarm_id;
use brig_types::secret::SecretString;

use super::print;

const PASSPHRASE: &str = "a passphrase for the bench";
/// Bytes of each secret.
const SECRET_SIZE: usize = 512;

/// How much there is of everything.
struct Amount {
    services: usize,
    secrets: usize,
    tasks: usize,
    /// Whether the tasks run, on the manager that is lost.
    running: bool,
}

pub(super) fn restore() {
    println!("\na cluster out of a backup: 1,000 services, 1,000 secrets, 10,000 tasks");
    let amount = Amount { services: 1000, secrets: 1000, tasks: 10_000, running: true };
    let daemon = Brigd::start_quiet();
    let (file, size) = backup(daemon.root(), &amount);
    let began = Instant::now();
    run_restore(&daemon, &file);
    let answered = began.elapsed();
    let listed = http::get(&daemon.socket(), "/v1.41/services");
    assert_eq!(listed.as_array().map_or(0, Vec::len), amount.services);
    print("backup", size as f64 / 1e6, "MB", None);
    print("restore", answered.as_secs_f64(), "s", Some(60.0));
    print("restore, with the list of services", began.elapsed().as_secs_f64(), "s", None);
}

pub(super) fn start(objects: usize) {
    println!("\na manager starts with {objects} objects");
    let (services, secrets) = (1000, 1000);
    let tasks = objects.saturating_sub(services + secrets);
    let mut daemon = Brigd::start_quiet();
    let (file, _) = backup(daemon.root(), &Amount { services, secrets, tasks, running: false });
    run_restore(&daemon, &file);
    for kind in ["after a stop", "after kill -9"] {
        if kind == "after a stop" {
            daemon.stop();
        } else {
            daemon.kill();
        }
        let began = Instant::now();
        daemon.spawn();
        let mut state = String::new();
        while state != "active" {
            assert!(began.elapsed() < Duration::from_secs(120), "{state}");
            let info = http::get(&daemon.socket(), "/v1.41/info");
            state = info["Swarm"]["LocalNodeState"].as_str().unwrap_or_default().to_owned();
        }
        print(&format!("start {kind}"), began.elapsed().as_secs_f64(), "s", None);
    }
}

fn run_restore(daemon: &Brigd, file: &Path) {
    let listen = format!("127.0.0.1:{}", daemon.swarm_port());
    let phrase = daemon.root().join("phrase");
    std::fs::write(&phrase, PASSPHRASE).unwrap();
    let arguments = [
        "cluster",
        "restore",
        "--advertise-addr",
        "127.0.0.1",
        "--listen-addr",
        &listen,
        "--passphrase-file",
        &phrase.display().to_string(),
        &file.display().to_string(),
    ];
    let _ = daemon.brig().run(&arguments).ok();
}

fn backup(folder: &Path, amount: &Amount) -> (std::path::PathBuf, u64) {
    brig_pki::install_provider();
    let state = State::of(objects(amount)).expect("objects that differ");
    let path = folder.join("bench.backup");
    let readers = Readers::passphrase(SecretString::new(PASSPHRASE.to_owned())).unwrap();
    let out = BufWriter::new(std::fs::File::create(&path).unwrap());
    Snapshot::new(state, "bench".to_owned()).write(&readers, out).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    (path, size)
}

fn annotations(name: String) -> Option<Annotations> {
    Some(Annotations { name, ..Annotations::default() })
}

fn objects(amount: &Amount) -> Vec<Object> {
    let mut objects = vec![Object::Cluster(Arc::new(cluster()))];
    let lost = random_swarm_id();
    objects.push(Object::Node(Arc::new(manager(&lost))));
    let secrets: Vec<String> = (0..amount.secrets).map(|_| random_swarm_id()).collect();
    for (number, id) in secrets.iter().enumerate() {
        let mut spec = SecretSpec::default();
        spec.annotations = annotations(format!("secret-{number}"));
        spec.data = vec![0x5a; SECRET_SIZE];
        let secret = Secret { id: id.clone(), spec: Some(spec), ..Secret::default() };
        objects.push(Object::Secret(Arc::new(secret)));
    }
    let each = amount.tasks / amount.services.max(1);
    for number in 0..amount.services {
        let secret = secrets.get(number % secrets.len().max(1)).cloned().unwrap_or_default();
        let task = task_spec(number, &secret);
        let service = Service {
            id: random_swarm_id(),
            spec: Some(ServiceSpec {
                annotations: annotations(format!("service-{number}")),
                task: Some(task.clone()),
                mode: Some(service_spec::Mode::Replicated(ReplicatedService {
                    replicas: each as u64,
                })),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        for slot in 1..=each {
            objects.push(Object::Task(Arc::new(one_task(&service, &task, slot, amount, &lost))));
        }
        objects.push(Object::Service(Arc::new(service)));
    }
    objects
}

fn one_task(service: &Service, spec: &TaskSpec, slot: usize, amount: &Amount, node: &str) -> Task {
    let state = if amount.running { TaskState::Running } else { TaskState::Pending };
    Task {
        id: random_swarm_id(),
        service_id: service.id.clone(),
        slot: slot as u64,
        node_id: if amount.running { node.to_owned() } else { String::new() },
        spec: Some(spec.clone()),
        service_annotations: service.spec.as_ref().and_then(|spec| spec.annotations.clone()),
        status: Some(TaskStatus { state: state as i32, ..TaskStatus::default() }),
        desired_state: TaskState::Running as i32,
        ..Task::default()
    }
}

fn task_spec(number: usize, secret: &str) -> TaskSpec {
    TaskSpec {
        runtime: Some(task_spec::Runtime::Container(ContainerSpec {
            image: "busybox:latest".to_owned(),
            args: vec!["sleep".to_owned(), "1000".to_owned()],
            env: (0..10).map(|n| format!("SETTING_{n}=value-{number}-{n}")).collect(),
            secrets: vec![SecretReference {
                secret_id: secret.to_owned(),
                secret_name: format!("secret-{number}"),
                ..SecretReference::default()
            }],
            ..ContainerSpec::default()
        })),
        placement: Some(Placement {
            constraints: vec!["node.labels.nowhere==true".to_owned()],
            ..Placement::default()
        }),
        ..TaskSpec::default()
    }
}

fn manager(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        role: NodeRole::Manager as i32,
        spec: Some(NodeSpec {
            desired_role: NodeRole::Manager as i32,
            membership: node_spec::Membership::Accepted as i32,
            ..NodeSpec::default()
        }),
        manager_status: Some(ManagerStatus::default()),
        ..Node::default()
    }
}

fn cluster() -> Cluster {
    let root = RootCa::generate().unwrap();
    let ca_cert = root.cert_pem().to_vec();
    let token =
        || JoinToken::generate(&ca_cert).unwrap().to_secret_string().expose_secret().to_owned();
    Cluster {
        id: random_swarm_id(),
        spec: Some(ClusterSpec {
            annotations: annotations("default".to_owned()),
            ..ClusterSpec::default()
        }),
        root_ca: Some(StoredRoot {
            ca_key: root.key_pem().unwrap().expose_secret().to_vec(),
            join_tokens: Some(JoinTokens {
                worker: token(),
                manager: token(),
                ..JoinTokens::default()
            }),
            ca_cert,
            ..StoredRoot::default()
        }),
        subnet_size: 24,
        default_address_pool: vec!["10.0.0.0/8".to_owned()],
        ..Cluster::default()
    }
}
