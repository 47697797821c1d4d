//! Expired certificates, with Docker on one side.

use std::net::TcpListener;
use std::path::Path;

use brig_swarm::JoinRequest;
use brig_types::secret::SecretString;
use time::Duration;

use crate::authority::{Authority, Wanted};
use crate::common::{Machine, eventually, open};
use crate::engine::{DOCKERD, Dockerd};
use crate::offline;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_docker_manager_an_operator_is_told_what_to_do() {
    if !Path::new(DOCKERD).exists() {
        println!("skipped: needs dockerd (docker.io)");
        return;
    }
    let temp = tempfile::Builder::new().prefix("brig-dockerd-").tempdir_in("/var/tmp").unwrap();
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
    let told = |status: &brig_swarm::SwarmStatus| status.error.contains("docker swarm leave");
    let status = eventually("told", || worker.status(), told).await;
    assert!(status.error.contains("the manager does not renew it"), "{}", status.error);
    assert!(status.error.contains("not by Docker's"), "{}", status.error);
    worker.leave(false).await.unwrap();
}
