use async_trait::async_trait;
use brig_proto::swarm::{NodeDescription, Task, issuance_status};

use super::*;
use crate::executor::{Controller, Dependencies, Executor, TaskError};

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
    let config = SwarmConfig { state_dir: temp.path().join("swarm"), executor: Arc::new(NoTasks) };
    let request = InitRequest { listen_addr: "127.0.0.1:0".to_owned(), ..InitRequest::default() };
    let running = Running::create(&config, request).await.unwrap();
    let id = running.node_id();
    let path = temp.path().join("swarm/certificates/swarm-node.crt");
    let before = std::fs::read(&path).unwrap();
    let mut seen = running.agent.node();
    seen.wait_for(Option::is_some).await.unwrap();

    let control = running.control().unwrap();
    let store = control.store();
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
    let node = store.view().get::<Node>(&id).unwrap();
    let certificate = node.certificate.as_ref().unwrap();
    assert_eq!(certificate.certificate, std::fs::read(&path).unwrap());
    assert_eq!(certificate.status.as_ref().unwrap().state(), issuance_status::State::Issued);

    // The new identity still opens the store.
    drop(control);
    running.stop().await;
    drop(running);
    let running = Running::resume(&config).await.unwrap();
    assert_eq!(running.node_id(), id);
    running.stop().await;
}
