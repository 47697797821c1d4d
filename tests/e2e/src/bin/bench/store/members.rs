//! Three managers on three hosts, and the etcd members of brigd's by hand.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{eventually, http};
use brig_pki::tls::Connector;
use brig_proto::etcd::kv_client::KvClient;
use brig_proto::etcd::maintenance_client::MaintenanceClient;
use brig_proto::etcd::{PutRequest, RequestOp, StatusRequest, TxnRequest, request_op};
use brig_store::etcd::EtcdTls;
use brig_types::secret::SecretBytes;
use hyper_util::rt::TokioIo;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};

/// Where a member listens for the manager beside it.
pub(super) const MEMBER: &str = "127.0.0.1:2379";
pub(super) const MANAGERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(90);

/// A swarm of three managers.
pub(super) struct Managers {
    pub(super) hosts: Hosts,
    pub(super) nodes: Vec<HostNode>,
}

impl Managers {
    pub(super) fn start(kind: Kind) -> Self {
        let hosts = Hosts::up(MANAGERS);
        let nodes: Vec<HostNode> = (1..=MANAGERS).map(|host| hosts.start(host, kind)).collect();
        nodes[0].init_swarm();
        let token = nodes[0].ok(&["swarm", "join-token", "-q", "manager"]);
        let peer = format!("{}:2377", nodes[0].address);
        for node in &nodes[1..] {
            let address = &node.address;
            let _ =
                node.ok(&["swarm", "join", "--token", &token, "--advertise-addr", address, &peer]);
        }
        let managers = Self { hosts, nodes };
        managers.wait();
        managers
    }

    /// Waits until every manager sees all of them.
    pub(super) fn wait(&self) {
        for node in &self.nodes {
            eventually("all managers are there", PATIENCE, || {
                let there = self.standing(node);
                there.len() == MANAGERS
                    && there.iter().filter(|(_, _, leads)| *leads).count() == 1
                    && there.iter().all(|(_, reachable, _)| *reachable)
            });
        }
    }

    /// Id, whether it is reachable, whether it leads.
    fn standing(&self, node: &HostNode) -> Vec<(String, bool, bool)> {
        let nodes = http::get(&node.socket(), "/v1.41/nodes");
        let status = |node: &serde_json::Value| {
            let status = node.get("ManagerStatus")?;
            Some((
                node["ID"].as_str()?.to_owned(),
                status["Reachability"] == "reachable",
                status["Leader"] == true,
            ))
        };
        nodes.as_array().into_iter().flatten().filter_map(status).collect()
    }

    /// The number of the leader among the nodes.
    pub(super) fn leader(&self) -> usize {
        let standing = self.standing(&self.nodes[0]);
        let leader = standing.iter().find(|(_, _, leads)| *leads).unwrap();
        self.nodes.iter().position(|node| node.id() == leader.0).unwrap()
    }

    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(HostNode::socket).collect()
    }

    /// A client's place on a host: its network, and the files that open the member there.
    pub(super) fn place(&self, at: usize) -> Place {
        let dir = self.nodes[at].data().join("swarm/etcd");
        let path = |name: &str| dir.join(name);
        let tls = EtcdTls { ca: path("ca.pem"), cert: path("client.pem"), key: path("client.key") };
        let namespace = self.hosts.network_namespace(self.nodes[at].host);
        Place { runtime: runtime_in(namespace), tls }
    }
}

/// See [`Managers::place`].
pub(super) struct Place {
    pub(super) runtime: Runtime,
    pub(super) tls: EtcdTls,
}

impl Place {
    /// A connection to the member beside it.
    pub(super) fn channel(&self) -> Channel {
        let _inside = self.runtime.enter();
        let read = |path: &Path| std::fs::read(path).unwrap();
        let key = SecretBytes::new(read(&self.tls.key));
        let connector =
            Connector::mutual(&read(&self.tls.ca), &read(&self.tls.cert), &key, "127.0.0.1")
                .unwrap();
        let dial = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(MEMBER).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(stream).await?))
            }
        });
        Endpoint::from_shared(format!("http://{MEMBER}")).unwrap().connect_with_connector_lazy(dial)
    }

    /// Whether the member beside it leads the others.
    pub(super) fn leads(&self) -> bool {
        let channel = self.channel();
        self.runtime
            .block_on(self.runtime.spawn(async move {
                let answer = MaintenanceClient::new(channel).status(StatusRequest {}).await;
                let status = answer.unwrap().into_inner();
                status.header.is_some_and(|header| header.member_id == status.leader)
            }))
            .unwrap()
    }
}

/// Writes one key.
pub(super) async fn put(channel: Channel, key: Vec<u8>, value: Vec<u8>) {
    let put = request_op::Request::RequestPut(PutRequest { key, value, lease: 0 });
    let request =
        TxnRequest { success: vec![RequestOp { request: Some(put) }], ..TxnRequest::default() };
    KvClient::new(channel).txn(request).await.unwrap();
}

/// A runtime whose threads are in a network namespace.
fn runtime_in(namespace: PathBuf) -> Runtime {
    let enter = move || {
        let file = std::fs::File::open(&namespace).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(enter)
        .build()
        .unwrap()
}
