use std::path::Path;
use std::process::{Command, Stdio};

use async_trait::async_trait;
use brig_proto::swarm::{NodeDescription, Task, issuance_status};

use super::*;
use crate::executor::{Controller, Dependencies, Executor, TaskError};
use crate::manager::control::TokenRotation;
use crate::replica::StoreSettings;
use crate::wire_time;

const HOUR: Duration = Duration::from_secs(3600);

/// Whether openssl finds that a certificate is valid that long from now, and no longer.
fn lasts(path: &Path, time: Duration) -> bool {
    let valid_in = |time: Duration| {
        Command::new("openssl")
            .args(["x509", "-noout", "-checkend", &time.as_secs().to_string(), "-in"])
            .arg(path)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    // It begins at the nearest full minute.
    valid_in(time - Duration::from_secs(90)) && !valid_in(time + Duration::from_secs(31))
}

struct NoTasks;

#[async_trait]
impl Executor for NoTasks {
    async fn describe(&self) -> NodeDescription {
        NodeDescription::default()
    }

    async fn configure(&self, _: &Node) {}

    async fn retain(&self, _: &[String]) {}

    async fn discard(&self, _: &str) {}

    async fn controller(
        &self,
        _: &Task,
        _: Arc<dyn Dependencies>,
    ) -> Result<Arc<dyn Controller>, TaskError> {
        Err(TaskError::fatal("no tasks here"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_renews_its_certificate() {
    let temp = tempfile::tempdir().unwrap();
    let config = SwarmConfig {
        state_dir: temp.path().join("swarm"),
        executor: Arc::new(NoTasks),
        store: StoreSettings::default(),
    };
    let mut request =
        InitRequest { listen_addr: "127.0.0.1:0".to_owned(), ..InitRequest::default() };
    request.spec.ca_config.get_or_insert_default().node_cert_expiry = Some(wire_time::wire(HOUR));
    let running = Running::create(&config, request).await.unwrap();
    let id = running.node_id();
    let path = temp.path().join("swarm/certificates/swarm-node.crt");
    let before = std::fs::read(&path).unwrap();
    let mut seen = running.agent.node();
    seen.wait_for(Option::is_some).await.unwrap();

    let control = running.control().unwrap();
    let store = control.store();
    assert!(lasts(&path, HOUR), "what init asked for");
    let cluster = control.cluster().unwrap();
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    let set = |expiry: Duration| {
        let mut spec = cluster.spec.clone().unwrap();
        spec.ca_config.as_mut().unwrap().node_cert_expiry = Some(wire_time::wire(expiry));
        control.update_cluster(version, spec, TokenRotation::default())
    };
    let refused = set(HOUR - Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s"
    );
    set(HOUR * 720).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before, "holds from the next certificate on");
    store
        .update(|tx| -> Result<(), StoreError> {
            let mut node = (*tx.get::<Node>(&id).unwrap()).clone();
            let status = node.certificate.as_mut().unwrap().status.as_mut().unwrap();
            status.state = issuance_status::State::Rotate as i32;
            tx.update(node).map(drop)
        })
        .await
        .unwrap();
    let renewed = async {
        while std::fs::read(&path).unwrap() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.unwrap();
    assert!(lasts(&path, HOUR * 720), "what the update asked for");
    let node = store.view().get::<Node>(&id).unwrap();
    let certificate = node.certificate.as_ref().unwrap();
    assert_eq!(certificate.certificate, std::fs::read(&path).unwrap());
    assert_eq!(certificate.status.as_ref().unwrap().state(), issuance_status::State::Issued);

    // The new identity still opens the store.
    drop(control);
    running.stop().await;
    drop(running);
    let running = Running::resume(&config, None).await.unwrap();
    assert_eq!(running.node_id(), id);
    running.stop().await;
}
