//! A real dockerd as worker of a brig manager.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use brig_proto::swarm::{
    ExternalCa, GlobalService, LogSelector, LogSubscriptionOptions, NodeRole, NodeSpec, Placement,
    ServiceSpec, service_spec,
};
use brig_swarm::{Control, TokenRotation};
use common::cfssl::{Cfssl, openssl_verifies};
use common::dockerd::{BOX, Dockerd, place};
use common::*;

/// A service on the dockerd; answers its id and its task's once it runs.
async fn run_there(control: &Control, mut spec: ServiceSpec) -> (String, String) {
    spec.mode = Some(service_spec::Mode::Global(GlobalService {}));
    "SIGKILL".clone_into(&mut container(&mut spec).stop_signal);
    let template = spec.task.as_mut().unwrap();
    template.placement = Some(Placement {
        constraints: vec!["node.role==worker".to_owned()],
        ..Placement::default()
    });
    template.networks = vec![brig_proto::swarm::NetworkAttachmentConfig {
        target: "host".to_owned(),
        ..Default::default()
    }];
    let id = control.create_service(spec).await.unwrap();
    let look = || {
        let task = control.tasks_of_service(&id).into_iter().next();
        (running_tasks(control, &id).len(), task.and_then(|task| task.status.clone()))
    };
    let give_up = std::time::Instant::now() + Duration::from_secs(60);
    while look().0 == 0 {
        assert!(std::time::Instant::now() < give_up, "{:#?}", look());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let task = running_tasks(control, &id).remove(0).id.clone();
    (id, task)
}

/// The root of the cluster once no rotation is under way and the dockerd has followed.
async fn root_that_is_followed(control: &Control, worker: &str) -> Vec<u8> {
    let look = || {
        let root = control.cluster().unwrap().root_ca.clone().unwrap();
        (root.root_rotation.is_some(), control.nodes_behind(), root.ca_cert)
    };
    let give_up = std::time::Instant::now() + Duration::from_secs(40);
    loop {
        let (rotating, behind, root) = look();
        if !rotating && behind.is_empty() {
            let node = control.node(worker).unwrap();
            let info = node.description.clone().unwrap().tls_info.unwrap();
            assert_eq!(info.trust_root, root);
            return root;
        }
        assert!(std::time::Instant::now() < give_up, "{rotating} {behind:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn rotate(control: &Control) {
    let cluster = control.cluster().unwrap();
    let mut spec = cluster.spec.clone().unwrap();
    spec.ca_config.get_or_insert_default().force_rotate += 1;
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    control.update_cluster(version, spec, TokenRotation::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerd_follows_rotations_of_the_root_and_its_task_runs_on() {
    let Some(temp) = place() else { return };
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let dockerd = Dockerd::start(temp.path());
    dockerd.import_box();
    let worker = dockerd.join(&control).await;
    let mut spec = service("web", BOX, 1);
    container(&mut spec).command = ["sleep", "1000"].map(str::to_owned).to_vec();
    let (id, task) = run_there(&control, spec).await;
    let containers = || dockerd.docker(&["ps", "--no-trunc", "--format", "{{.ID}}"]).unwrap();
    let before = containers();

    let certificates = temp.path().join("data/swarm/certificates");
    let mut roots = vec![control.cluster().unwrap().root_ca.clone().unwrap().ca_cert];
    for _ in 0..2 {
        rotate(&control).await;
        let root = root_that_is_followed(&control, &worker).await;
        assert!(!roots.contains(&root));
        assert_eq!(std::fs::read(certificates.join("swarm-root-ca.crt")).unwrap(), root);
        roots.push(root);
    }
    // Its certificate leads back to the first root, through the second.
    let chain = std::fs::read(certificates.join("swarm-node.crt")).unwrap();
    assert_eq!(String::from_utf8(chain).unwrap().matches("BEGIN CERTIFICATE").count(), 3);
    assert_eq!(running_tasks(&control, &id).iter().map(|t| &t.id).collect::<Vec<_>>(), [&task]);
    assert_eq!(containers(), before, "the container was never restarted");
    let node = control.node(&worker).unwrap();
    assert_eq!(node.status.as_ref().unwrap().state, 2);

    control.remove_service(&id).await.unwrap();
    dockerd.docker(&["swarm", "leave", "--force"]).unwrap();
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerd_joins_under_an_external_root_and_follows_from_it() {
    let Some(temp) = place() else { return };
    let cfssl = Cfssl::start();
    let swarm = open(temp.path(), &Machine::default()).await;
    let mut request = on_loopback();
    request.spec.ca_config.get_or_insert_default().external_cas =
        vec![ExternalCa { url: cfssl.url(), ca_cert: cfssl.root(), ..ExternalCa::default() }];
    swarm.init(request).await.unwrap();
    let control = swarm.control().unwrap();
    let dockerd = Dockerd::start(temp.path());
    let worker = dockerd.join(&control).await;
    let certificates = temp.path().join("data/swarm/certificates");
    let chain = certificates.join("swarm-node.crt");
    let subject = openssl_verifies(&cfssl.path("ca.pem"), &chain);
    assert!(subject.starts_with(&format!("subject=CN={worker},OU=swarm-worker,O=")), "{subject}");
    // The external root cross-signs a root of the swarm's own.
    rotate(&control).await;
    let root = root_that_is_followed(&control, &worker).await;
    assert_ne!(root, cfssl.root());
    openssl_verifies(&certificates.join("swarm-root-ca.crt"), &chain);
    dockerd.docker(&["swarm", "leave", "--force"]).unwrap();
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerd_joins_runs_a_task_with_a_secret_and_leaves() {
    let Some(temp) = place() else { return };
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let dockerd = Dockerd::start(temp.path());
    dockerd.import_box();

    let worker = dockerd.join(&control).await;

    let stored = control.node(&worker).unwrap();
    let version = stored.meta.as_ref().unwrap().version.unwrap().index;
    let manager =
        NodeSpec { desired_role: NodeRole::Manager as i32, ..stored.spec.clone().unwrap() };
    let refused = control.update_node(&worker, version, manager).await.unwrap_err().to_string();
    assert!(refused.contains("it runs Docker Engine"), "{refused}");

    control.create_secret(secret("db", b"hunter2\n")).await.unwrap();
    let mut spec = service("web", BOX, 1);
    grant(&mut spec, &control.secret("db").unwrap());
    container(&mut spec).command =
        ["sh", "-c", "cat /run/secrets/db; exec sleep 1000"].map(str::to_owned).to_vec();
    let (id, task) = run_there(&control, spec).await;
    assert_eq!(control.task(&task).unwrap().node_id, worker);
    let names = dockerd.docker(&["ps", "--format", "{{.Names}}"]).unwrap();
    assert_eq!(names, format!("web.{worker}.{task}"));

    let selector = LogSelector { service_ids: vec![id.clone()], ..LogSelector::default() };
    // A task runs as soon as its process does, which has nothing to say yet.
    let follow = LogSubscriptionOptions { follow: true, ..LogSubscriptionOptions::default() };
    let mut lines = control.service_logs(selector, follow).unwrap();
    assert_eq!(lines.missing_nodes(), [""; 0]);
    let line = tokio::time::timeout(Duration::from_secs(10), lines.next()).await.unwrap().unwrap();
    assert_eq!(line.data, b"hunter2\n");

    control.remove_service(&id).await.unwrap();
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while !control.tasks_of_service(&id).is_empty() {
        assert!(std::time::Instant::now() < give_up, "{:#?}", control.tasks_of_service(&id));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let info = dockerd
        .docker(&["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}"])
        .unwrap();
    assert_eq!(info.trim(), "active");
    dockerd.docker(&["swarm", "leave"]).unwrap();
    control.remove_node(&worker, true).await.unwrap();
    swarm.leave(true).await.unwrap();
}
