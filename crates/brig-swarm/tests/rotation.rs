//! Rotating the root certificate: nobody is locked out, whatever happens on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::ca::RootCa;
use brig_pki::identity::CertInfo;
use brig_proto::swarm::{CaConfig, Cluster, JoinTokens, NodeTlsInfo, node_status};
use brig_swarm::{Control, InitRequest, JoinRequest, Swarm, TokenLimit, TokenRotation};
use brig_types::secret::SecretString;
use common::*;

/// A manager and workers, with heartbeats that soon find a node down.
struct World {
    dir: tempfile::TempDir,
    manager: Option<(Swarm, Control)>,
    workers: Vec<Option<Swarm>>,
    machines: Vec<Machine>,
}

impl World {
    async fn new(workers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swarm = open(&dir.path().join("m"), &Machine::default()).await;
        let mut request = InitRequest { listen_addr: "127.0.0.1:0".to_owned(), ..on_loopback() };
        request.spec.dispatcher.get_or_insert_default().heartbeat_period =
            Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
        swarm.init(request).await.unwrap();
        let control = swarm.control().unwrap();
        let mut world = Self {
            dir,
            manager: Some((swarm, control)),
            workers: Vec::new(),
            machines: Vec::new(),
        };
        for _ in 0..workers {
            world.add().await;
        }
        world
    }

    fn control(&self) -> &Control {
        &self.manager.as_ref().unwrap().1
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.control().cluster().unwrap()
    }

    fn root(&self) -> Vec<u8> {
        self.cluster().root_ca.as_ref().unwrap().ca_cert.clone()
    }

    fn tokens(&self) -> JoinTokens {
        self.cluster().root_ca.as_ref().unwrap().join_tokens.clone().unwrap()
    }

    fn is_rotating(&self) -> bool {
        self.cluster().root_ca.as_ref().unwrap().root_rotation.is_some()
    }

    fn worker_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("w{number}"))
    }

    /// What a node has on its disk; the manager without a number.
    fn file(&self, number: Option<usize>, name: &str) -> Vec<u8> {
        let dir = number.map_or_else(|| self.dir.path().join("m"), |n| self.worker_dir(n));
        std::fs::read(dir.join("swarm/certificates").join(name)).unwrap()
    }

    async fn add(&mut self) -> usize {
        let number = self.workers.len();
        let machine = Machine::default();
        let swarm = open(&self.worker_dir(number), &machine).await;
        let address = self.control().node("self").unwrap().manager_status.clone().unwrap().addr;
        let request = JoinRequest {
            remote_addrs: vec![address],
            join_token: SecretString::new(self.tokens().worker),
            ..JoinRequest::default()
        };
        swarm.join(request).await.unwrap();
        self.workers.push(Some(swarm));
        self.machines.push(machine);
        number
    }

    /// The containers that run on the workers, with how often they were started.
    fn containers(&self) -> Vec<(String, u32)> {
        let running = self.machines.iter().flat_map(Machine::running);
        running.map(|(task, container)| (task, container.starts)).collect()
    }

    fn id(&self, number: usize) -> String {
        self.workers[number].as_ref().unwrap().status().node_id
    }

    async fn stop(&mut self, number: usize) {
        self.workers[number].take().unwrap().shutdown().await;
    }

    async fn start(&mut self, number: usize) {
        self.workers[number] = Some(open(&self.worker_dir(number), &self.machines[number]).await);
    }

    async fn restart_manager(&mut self) {
        let (swarm, control) = self.manager.take().unwrap();
        drop(control);
        swarm.shutdown().await;
        drop(swarm);
        let swarm = open(&self.dir.path().join("m"), &Machine::default()).await;
        let control = swarm.control().unwrap();
        self.manager = Some((swarm, control));
    }

    async fn update(&self, change: impl FnOnce(&mut CaConfig)) -> Result<(), String> {
        let cluster = self.cluster();
        let mut spec = cluster.spec.clone().unwrap();
        change(spec.ca_config.get_or_insert_default());
        let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
        let updated = self.control().update_cluster(version, spec, TokenRotation::default()).await;
        updated.map_err(|error| error.to_string())
    }

    /// Begins a rotation; retried because nodes' reports do not hold it up.
    async fn force(&self) {
        self.update(|config| config.force_rotate += 1).await.unwrap();
    }

    async fn finished(&self) {
        eventually("the rotation is over", || self.state(), |_| !self.is_rotating()).await;
    }

    /// Every node that is up has a certificate of the present root and trusts nothing else.
    async fn settled(&self) {
        let root = self.root();
        let issuer = CertInfo::from_pem(&root).unwrap();
        let is_there = |info: &NodeTlsInfo| {
            info.trust_root == root
                && info.cert_issuer_public_key == issuer.public_key_der
                && info.cert_issuer_subject == issuer.subject_der
        };
        eventually(
            "every node has followed",
            || self.state(),
            |nodes| nodes.iter().all(|(_, up, info)| !up || is_there(info)),
        )
        .await;
    }

    fn state(&self) -> Vec<(String, bool, NodeTlsInfo)> {
        let info = |node: &Arc<brig_proto::swarm::Node>| {
            let up = node.status.as_ref().unwrap().state == node_status::State::Ready as i32;
            let known = node.description.clone().unwrap_or_default().tls_info.unwrap_or_default();
            (node.id.clone(), up, known)
        };
        self.control().nodes().iter().map(info).collect()
    }

    async fn down(&self, id: &str) {
        let state = || self.control().node(id).unwrap().status.as_ref().unwrap().state;
        eventually("the node is down", state, |s| *s == node_status::State::Down as i32).await;
    }

    async fn up(&self, id: &str) {
        let state = || self.control().node(id).unwrap().status.as_ref().unwrap().state;
        eventually("the node is up", state, |s| *s == node_status::State::Ready as i32).await;
    }
}

fn verified_by_openssl(dir: &Path, root: &[u8], chain: &[u8]) {
    let leaf_end = chain.windows(27).position(|w| w == b"-----END CERTIFICATE-----\n-").unwrap();
    let (leaf, rest) = chain.split_at(leaf_end + 26);
    for (name, content) in [("root.pem", root), ("leaf.pem", leaf), ("rest.pem", rest)] {
        std::fs::write(dir.join(name), content).unwrap();
    }
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "rest.pem"])
        .arg("leaf.pem")
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_follows_and_tokens_pin_the_new_root() {
    let mut world = World::new(3).await;
    let service = world.control().create_service(service("web", "busybox", 4)).await.unwrap();
    let running = || running_tasks(world.control(), &service).len();
    eventually("all run", running, |count| *count == 4).await;
    let containers = world.containers();
    let limit = TokenLimit { lifetime: Some(Duration::from_secs(3600)), uses: Some(7) };
    let cluster = world.cluster();
    let tokens = TokenRotation { worker: true, limit, ..TokenRotation::default() };
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    world.control().update_cluster(version, cluster.spec.clone().unwrap(), tokens).await.unwrap();

    let (old_root, old_tokens) = (world.root(), world.tokens());
    world.force().await;
    assert_eq!((world.root(), world.tokens()), (old_root.clone(), old_tokens.clone()));
    // Who joins in the middle of it joins with what it was told before.
    let late = world.add().await;
    world.finished().await;
    let new_root = world.root();
    assert_ne!(new_root, old_root);
    world.settled().await;

    let new_tokens = world.tokens();
    assert_ne!(new_tokens.worker.split('-').nth(2), old_tokens.worker.split('-').nth(2));
    assert_ne!(new_tokens.manager, old_tokens.manager);
    let limits = new_tokens.worker_limit.unwrap();
    assert_eq!(limits.uses_left, Some(6), "one joined with the old token");
    assert_eq!(limits.expires_at, old_tokens.worker_limit.unwrap().expires_at);
    for number in [None, Some(0), Some(late)] {
        assert_eq!(world.file(number, "swarm-root-ca.crt"), new_root);
        let chain = world.file(number, "swarm-node.crt");
        for root in [&old_root, &new_root] {
            verified_by_openssl(world.dir.path(), root, &chain);
        }
    }
    assert_eq!(world.containers(), containers, "the tasks noticed nothing");
    assert!(containers.len() >= 3);

    // The new token opens the door, also after a restart, and certificates still lead back.
    world.restart_manager().await;
    world.add().await;
    world.settled().await;
    verified_by_openssl(world.dir.path(), &old_root, &world.file(None, "swarm-node.crt"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_say_which_root_there_will_be() {
    let world = World::new(1).await;
    let first = world.root();
    let pem = |root: &RootCa| root.cert_pem().to_vec();
    let key = |root: &RootCa| root.key_pem().unwrap().expose_secret().to_vec();
    let own = RootCa::generate().unwrap();
    let other = RootCa::generate().unwrap();

    let refusals: [(Vec<u8>, Vec<u8>, &str); 6] = [
        (Vec::new(), key(&own), "the signing CA cert must also be provided"),
        (b"nonsense".to_vec(), key(&own), "no valid PEM certificate found"),
        ([pem(&own), pem(&other)].concat(), key(&own), "cannot contain multiple certificates"),
        (pem(&own), key(&other), "certificate key mismatch"),
        (pem(&own), b"nonsense".to_vec(), "no valid PEM private key found"),
        (pem(&own), Vec::new(), "there must be at least one valid, reachable external CA"),
    ];
    for (cert, key, text) in refusals {
        let refused = world
            .update(|config| {
                config.signing_ca_cert = cert;
                config.signing_ca_key = key;
            })
            .await
            .unwrap_err();
        assert!(refused.starts_with("rpc error: code = InvalidArgument desc = "), "{refused}");
        assert!(refused.contains(text), "{refused}");
        assert!(!world.is_rotating());
    }

    world
        .update(|config| {
            config.signing_ca_cert = pem(&own);
            config.signing_ca_key = key(&own);
            config.node_cert_expiry = Some(prost_types::Duration { seconds: 7200, nanos: 0 });
        })
        .await
        .unwrap();
    let config = world.cluster().spec.clone().unwrap().ca_config.unwrap();
    assert!(config.signing_ca_cert.is_empty() && config.signing_ca_key.is_empty());
    assert!(
        world.cluster().root_ca.as_ref().unwrap().root_rotation.clone().unwrap().ca_key.is_empty()
    );
    // Settings without a root change nothing of it.
    world.update(|_| {}).await.unwrap();
    world.finished().await;
    assert_eq!(world.root(), pem(&own));
    world.settled().await;
    let leaf = CertInfo::from_pem(&world.file(Some(0), "swarm-node.crt")).unwrap();
    assert_eq!((leaf.not_after - leaf.not_before).whole_hours(), 3);
    // The root that is there is no change, and keeps its key.
    world.update(|config| config.signing_ca_cert = pem(&own)).await.unwrap();
    assert!(!world.is_rotating());
    world.force().await;
    world.finished().await;
    world.settled().await;
    assert!(world.root() != first && world.root() != pem(&own));
}

/// With a manager that is not there, a rotation stays where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_is_aborted_and_begun_anew() {
    let mut world = World::new(1).await;
    let (first, tokens) = (world.root(), world.tokens());
    let id = world.id(0);
    world.stop(0).await;
    world.down(&id).await;
    world.force().await;
    let pending = || world.cluster().root_ca.clone().unwrap().root_rotation;
    let second = pending().unwrap();
    // The manager is moved while the worker holds up the end.
    let own = || world.file(None, "swarm-node.crt");
    let by = |root: &[u8]| {
        let issuer = CertInfo::of_issuer(&own(), &first);
        let wanted = CertInfo::from_pem(root).unwrap().public_key_der;
        issuer.is_ok_and(|issuer| issuer.public_key_der == wanted)
    };
    eventually("the manager is moved", || by(&second.ca_cert), |moved| *moved).await;
    world.force().await;
    let third = pending().unwrap();
    assert_ne!(third.ca_cert, second.ca_cert);
    let old = CertInfo::from_pem(&first).unwrap().subject_der;
    assert_eq!(CertInfo::from_pem(&third.cross_signed_ca_cert).unwrap().issuer_der, old);
    // Back to where it began; the key is there already.
    world.update(|config| config.signing_ca_cert = first.clone()).await.unwrap();
    assert!(pending().is_none());
    assert_eq!((world.root(), world.tokens()), (first.clone(), tokens));
    eventually("the manager is moved back", || by(&first), |moved| *moved).await;
    world.start(0).await;
    world.up(&id).await;
    world.settled().await;
    world.add().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_is_stopped_at_any_step_goes_on() {
    let mut world = World::new(2).await;
    for pause in [0, 40, 200, 700, 1_500] {
        let before = world.root();
        world.force().await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.restart_manager().await;
        world.finished().await;
        assert_ne!(world.root(), before);
        world.settled().await;
    }
    world.add().await;
    // A node's way back is no longer than every implementation can follow.
    let chain = world.file(None, "swarm-node.crt");
    let count = String::from_utf8(chain).unwrap().matches("BEGIN").count();
    assert!((4..=6).contains(&count), "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_does_not_hold_up_the_end_and_follows_later() {
    let mut world = World::new(2).await;
    let (id, first) = (world.id(0), world.root());
    world.stop(0).await;
    world.down(&id).await;
    // It sleeps through two rotations.
    for _ in 0..2 {
        let before = world.root();
        world.force().await;
        world.finished().await;
        assert_ne!(world.root(), before);
        world.settled().await;
    }
    world.restart_manager().await;
    // It still trusts the first root only, and its own certificate is of that root.
    assert_eq!(world.file(Some(0), "swarm-root-ca.crt"), first);
    world.start(0).await;
    world.up(&id).await;
    world.settled().await;
    assert_eq!(world.file(Some(0), "swarm-root-ca.crt"), world.root());
}
