//! A cluster that is lost and comes back from its backup somewhere else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use brig_pki::agefile::{Opener, Readers};
use brig_proto::swarm::{ClusterSpec, NodeRole};
use brig_swarm::{
    Backup, Control, InitRequest, JoinRequest, LocalNodeState, RestoreRequest, Swarm, SwarmError,
};
use brig_types::secret::SecretString;
use common::*;

const PHRASE: &str = "correct horse battery";

fn written(control: &Control) -> Vec<u8> {
    let readers = Readers::passphrase(SecretString::new(PHRASE.to_owned())).unwrap();
    let mut file = Vec::new();
    control.snapshot().write(&readers, &mut file).unwrap();
    file
}

fn read(file: &[u8]) -> Backup {
    Backup::read(file, &Opener::passphrase(SecretString::new(PHRASE.to_owned()))).unwrap()
}

fn elsewhere() -> RestoreRequest {
    RestoreRequest { listen_addr: "127.0.0.1:0".to_owned(), ..RestoreRequest::default() }
}

fn worker_token(control: &Control) -> String {
    let cluster = control.cluster().unwrap();
    cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap().worker
}

async fn join(dir: &Path, machine: &Machine, control: &Control, token: &str) -> Swarm {
    let worker = open(dir, machine).await;
    let manager = control.node("self").unwrap().manager_status.as_ref().unwrap().addr.clone();
    let request = JoinRequest {
        remote_addrs: vec![manager],
        join_token: SecretString::new(token.to_owned()),
        ..JoinRequest::default()
    };
    worker.join(request).await.unwrap();
    worker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cluster_goes_on_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let (old_machine, new_machine) = (Machine::default(), Machine::default());
    let swarm = open(&temp.path().join("old"), &old_machine).await;
    let mut spec = ClusterSpec::default();
    spec.encryption_config.get_or_insert_default().auto_lock_managers = true;
    let old_node = swarm.init(InitRequest { spec, ..on_loopback() }).await.unwrap();
    let control = swarm.control().unwrap();
    let id = control.create_secret(secret("db-password", b"hunter2-hunter2")).await.unwrap();
    let stored = control.secret(&id).unwrap();
    let mut web = service("web-frontend", "busybox", 2);
    grant(&mut web, &stored);
    let service = control.create_service(web).await.unwrap();
    eventually("two run", || running_tasks(&control, &service), |t| t.len() == 2).await;
    let token = worker_token(&control);
    let unlock = control.unlock_key().unwrap().unwrap().expose_secret().to_owned();
    let cluster = control.cluster().unwrap().id.clone();
    let created = control.service(&service).unwrap().meta.as_ref().unwrap().created_at;

    let file = written(&control);
    for plain in ["hunter2", "db-password", "web-frontend", "busybox", &token, &unlock, &cluster] {
        assert!(!file.windows(plain.len()).any(|w| w == plain.as_bytes()), "{plain}");
    }
    let backup = read(&file);
    assert!(backup.summary.autolock);
    assert!(matches!(swarm.restore(elsewhere(), &backup).await, Err(SwarmError::AlreadyInSwarm)));
    drop(control);
    swarm.shutdown().await;
    drop(swarm);
    std::fs::remove_dir_all(temp.path().join("old")).unwrap();

    let dir = temp.path().join("new");
    std::fs::create_dir(&dir).unwrap();
    let swarm = open(&dir, &new_machine).await;
    swarm.try_out(&backup).await.unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing is left");
    let node = swarm.restore(elsewhere(), &backup).await.unwrap();
    assert_ne!(node, old_node);
    let control = swarm.control().unwrap();
    assert_eq!(control.cluster().unwrap().id, cluster);
    assert_eq!(control.nodes().len(), 1, "the lost manager is out");
    eventually("two run again", || running_tasks(&control, &service), |t| t.len() == 2).await;
    let running = new_machine.running();
    assert_eq!(running.len(), 2);
    for (_, container) in running {
        assert_eq!(
            container.secrets,
            [("db-password".to_owned(), b"hunter2-hunter2".to_vec())],
            "the secret is in the container"
        );
    }
    assert_eq!(control.service(&service).unwrap().meta.as_ref().unwrap().created_at, created);
    assert_eq!(control.unlock_key().unwrap().unwrap().expose_secret(), unlock);
    assert_eq!(worker_token(&control), token);
    let worker = join(&temp.path().join("w"), &Machine::default(), &control, &token).await;
    let ready = || control.nodes().iter().filter(|n| n.role() == NodeRole::Worker).count();
    eventually("the worker is in", ready, |count| *count == 1).await;
    worker.leave(false).await.unwrap();
    drop(control);

    swarm.shutdown().await;
    drop(swarm);
    let swarm = open(&dir, &new_machine).await;
    assert_eq!(swarm.status().local_node_state, LocalNodeState::Locked, "autolock came along");
    swarm.unlock(&unlock).await.unwrap();
    swarm.leave(true).await.unwrap();
}

/// Certificates of managers that were lost with their cluster are worth nothing in the restored
/// one, even when they come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_find_a_manager_at_the_same_address() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(&temp.path().join("old"), &Machine::default()).await;
    let token = worker_token(&control);
    let worker = join(&temp.path().join("w"), &machine, &control, &token).await;
    let address = control.node("self").unwrap().manager_status.as_ref().unwrap().addr.clone();
    let backup = read(&written(&control));
    drop(control);
    swarm.shutdown().await;
    drop(swarm);

    let swarm = open(&temp.path().join("new"), &Machine::default()).await;
    let request = RestoreRequest { listen_addr: address, ..RestoreRequest::default() };
    swarm.restore(request, &backup).await.unwrap();
    let control = swarm.control().unwrap();
    let id = worker.status().node_id;
    let state = || control.node(&id).unwrap().status.as_ref().unwrap().state;
    eventually("the worker is ready", state, |state| {
        *state == brig_proto::swarm::node_status::State::Ready as i32
    })
    .await;
    let service = control.create_service(service("web", "busybox", 2)).await.unwrap();
    eventually("two run", || running_tasks(&control, &service), |t| t.len() == 2).await;
    assert!(!machine.running().is_empty(), "the worker works for the restored cluster");
    worker.leave(false).await.unwrap();
    swarm.leave(true).await.unwrap();
}

/// What is left of a cluster goes on with one manager, at another address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_goes_on_alone() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let service = control.create_service(service("web", "busybox", 1)).await.unwrap();
    eventually("one runs", || running_tasks(&control, &service), |t| t.len() == 1).await;
    let (cluster, node) = (control.cluster().unwrap().id.clone(), swarm.status().node_id);
    let address = |control: &Control| {
        control.node("self").unwrap().manager_status.as_ref().unwrap().addr.clone()
    };
    let before = address(&control);
    drop(control);
    let force = || InitRequest { force_new_cluster: true, ..on_loopback() };
    assert_eq!(swarm.init(force()).await.unwrap(), node);
    let control = swarm.control().unwrap();
    assert_eq!(control.cluster().unwrap().id, cluster);
    assert_ne!(address(&control), before);
    eventually("it still runs", || running_tasks(&control, &service), |t| t.len() == 1).await;
    assert_eq!(machine.running()[0].1.starts, 1, "it was not started again");
    drop(control);
    swarm.shutdown().await;
    drop(swarm);

    let swarm = open(temp.path(), &machine).await;
    let control = swarm.control().unwrap();
    assert_ne!(address(&control), before, "the new address is kept");
    drop(control);
    swarm.leave(true).await.unwrap();
    swarm.init(force()).await.unwrap();
    assert_ne!(swarm.control().unwrap().cluster().unwrap().id, cluster, "as any init");
    swarm.leave(true).await.unwrap();
}
