//! Expired certificates, with Docker on one side.

use std::net::TcpListener;

use brig_pki::csr::NodeKey;
use brig_swarm::JoinRequest;
use brig_types::secret::SecretString;
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, Wanted};
use crate::common::dockerd::{Dockerd, place};
use crate::common::{Machine, new_swarm, open};
use crate::offline;
use crate::wire::Log;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_docker_manager_an_operator_is_told_what_to_do() {
    let Some(temp) = place() else { return };
    let log = Log::capture();
    let dockerd = Dockerd::start(temp.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let manager = format!("127.0.0.1:{port}");
    let init = ["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", &manager];
    dockerd.docker(&init).unwrap();
    // With a key that the test has.
    let authority = Authority::new();
    for (name, pem) in [("ca.crt", authority.root()), ("ca.key", authority.key())] {
        std::fs::write(temp.path().join(name), pem).unwrap();
    }
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (cert, key) = (path("ca.crt"), path("ca.key"));
    dockerd
        .docker(&["swarm", "ca", "--rotate", "--quiet", "--ca-cert", &cert, "--ca-key", &key])
        .unwrap();
    let token = dockerd.docker(&["swarm", "join-token", "--quiet", "worker"]).unwrap();
    let cluster = dockerd.docker(&["info", "--format", "{{.Swarm.Cluster.ID}}"]).unwrap();

    let home = temp.path().join("w");
    std::fs::create_dir(&home).unwrap();
    let worker = open(&home, &Machine::default()).await;
    let request = JoinRequest {
        remote_addrs: vec![manager],
        join_token: SecretString::new(token),
        ..JoinRequest::default()
    };
    worker.join(request).await.unwrap();
    let node = worker.status().node_id;
    worker.shutdown().await;
    let wanted = Wanted::worker(&cluster, &node).expired(Duration::HOUR, Duration::days(90));
    offline::replace_certificate(&home, |key| authority.issue(&wanted, &key.node_key));
    let worker = open(&home, &Machine::default()).await;
    // Docker's manager breaks calls off while it follows the new root: the next attempt counts.
    let give_up = OffsetDateTime::now_utc() + Duration::seconds(60);
    while !worker.status().error.contains("docker swarm leave") {
        let attempts = || log.lines(&["certificate was not renewed"]);
        assert!(OffsetDateTime::now_utc() < give_up, "{:?} {:?}", worker.status(), attempts());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let status = worker.status();
    assert!(status.error.contains("the manager does not renew it"), "{}", status.error);
    assert!(status.error.contains("not by Docker's"), "{}", status.error);
    worker.leave(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerd_whose_certificate_ends_while_it_runs_is_renewed() {
    let Some(temp) = place() else { return };
    let log = Log::capture();
    let home = temp.path().join("m");
    std::fs::create_dir(&home).unwrap();
    let (manager, control) = new_swarm(&home, &Machine::default()).await;
    let cluster = control.cluster().unwrap();
    let mut dockerd = Dockerd::start(temp.path());
    let node = dockerd.join(&control).await;
    dockerd.stop();
    manager.shutdown().await;
    drop(control);

    // It starts with a certificate that ends soon, while the manager is away.
    let authority = offline::authority(&home).await;
    let certificates = temp.path().join("data/swarm/certificates");
    let key = std::fs::read(certificates.join("swarm-node.key")).unwrap();
    let key = NodeKey::from_pem(&key).unwrap();
    let until = OffsetDateTime::now_utc() + Duration::seconds(12);
    let wanted = Wanted { until, ..Wanted::worker(&cluster.id, &node) };
    let chain = authority.issue(&wanted, &key);
    std::fs::write(certificates.join("swarm-node.crt"), &chain).unwrap();
    offline::register(&home, &node, &chain).await;
    let starting = tokio::task::spawn_blocking(move || {
        dockerd.start_again();
        dockerd
    });
    while OffsetDateTime::now_utc() < until + Duration::SECOND {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let manager = open(&home, &Machine::default()).await;
    let control = manager.control().unwrap();
    let give_up = OffsetDateTime::now_utc() + Duration::seconds(60);
    while log.lines(&["within the grace", &node]).is_empty() {
        assert!(OffsetDateTime::now_utc() < give_up, "{:?}", log.lines(&["refused"]));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    while control.node(&node).unwrap().status.as_ref().unwrap().state != 2 {
        assert!(OffsetDateTime::now_utc() < give_up);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    drop(starting.await.unwrap());
    manager.leave(true).await.unwrap();
}
