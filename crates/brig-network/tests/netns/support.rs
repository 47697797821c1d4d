//! A host in a namespace, containers that are only namespaces, and a world outside.

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_network::{
    Endpoint, EndpointRequest, HostPort, NetworkConfig, NetworkError, NetworkSpec, Networks,
    PortBound, PortRequest, Protocol, SandboxRequest, SubnetSpec,
};
use brig_sys::ns::{self, NsKind};
use brig_types::id::ContainerId;

const INSIDE: &str = "BRIG_NETWORK_TEST_INSIDE";
const TIMEOUT: Duration = Duration::from_millis(700);

/// Runs a test in a fresh network namespace, by running this program again inside one.
pub(crate) fn isolated<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_none() {
        let status = Command::new("timeout")
            .args(["60", "unshare", "--net", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed in its namespace: {status}");
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test());
}

/// Runs a program that must succeed and returns what it says.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace that lives as long as its process.
pub(crate) struct Namespace {
    process: Child,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let process = Command::new("unshare")
            .args(["--net", "--", "sleep", "120"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", process.id());
        let start = Instant::now();
        while std::fs::read_link(&theirs).is_ok_and(|link| link == own) {
            assert!(start.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(1));
        }
        Self { process }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    pub(crate) fn ns(&self) -> OwnedFd {
        ns::open(self.pid(), NsKind::Net).unwrap()
    }

    /// Runs a program inside; returns whether it succeeded and what it said.
    pub(crate) fn exec(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("nsenter")
            .args(["-t", &self.pid().to_string(), "-n", "--"])
            .args(arguments)
            .output()
            .unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    pub(crate) fn ping(&self, address: Ipv4Addr) -> bool {
        self.exec(&["busybox", "ping", "-c", "1", "-W", "1", &address.to_string()]).0
    }

    /// Serves `text` and the client's address to everybody who connects.
    pub(crate) fn serve(&self, port: u16, text: &str) {
        self.serve_at("0.0.0.0", port, text);
    }

    /// Like [`Namespace::serve`], at an address.
    pub(crate) fn serve_at(&self, address: &str, port: u16, text: &str) {
        let listener =
            ns::in_net(self.ns().as_fd(), || TcpListener::bind((address, port))).unwrap();
        let text = text.to_owned();
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = write!(stream, "{text} {}", peer.ip().to_canonical());
            }
        });
    }

    /// Connects from inside and reads everything.
    pub(crate) fn fetch(&self, address: impl ToSocketAddrs) -> io::Result<String> {
        let address = address.to_socket_addrs()?.next().unwrap();
        ns::in_net(self.ns().as_fd(), || read_from(address))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Connects from the host and reads everything.
pub(crate) fn fetch(address: impl ToSocketAddrs) -> io::Result<String> {
    read_from(address.to_socket_addrs()?.next().unwrap())
}

fn read_from(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A container: an id and a namespace.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) ns: Namespace,
    pub(crate) name: String,
}

impl Container {
    pub(crate) fn new(name: &str) -> Self {
        Self { id: ContainerId::generate(), ns: Namespace::new(), name: name.to_owned() }
    }

    pub(crate) fn request(&self, network: &str) -> EndpointRequest {
        EndpointRequest {
            network: network.to_owned(),
            container_name: self.name.clone(),
            ..EndpointRequest::default()
        }
    }

    /// Connects to networks and publishes ports.
    pub(crate) async fn connect(
        &self,
        networks: &Networks,
        names: &[&str],
        ports: &[PortRequest],
    ) -> Result<(Vec<Endpoint>, Vec<PortBound>), NetworkError> {
        for network in names {
            networks.reserve(&self.id, self.request(network)).await?;
        }
        let bound = networks
            .connect_sandbox(SandboxRequest {
                container: self.id.clone(),
                ns: self.ns.ns(),
                ports: ports.to_vec(),
                dns_servers: Vec::new(),
            })
            .await?;
        Ok((networks.endpoints(&self.id), bound))
    }

    /// Connects to one network and returns the address.
    pub(crate) async fn join(&self, networks: &Networks, network: &str) -> Ipv4Addr {
        let (endpoints, _) = self.connect(networks, &[network], &[]).await.unwrap();
        endpoints.first().unwrap().ip.unwrap()
    }
}

/// A neighbour of the host, on a wire.
pub(crate) struct World {
    pub(crate) ns: Namespace,
}

impl World {
    pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    pub(crate) fn new() -> Self {
        let ns = Namespace::new();
        let pid = ns.pid().to_string();
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", &pid]);
        run("ip", &["addr", "add", "198.51.100.1/24", "dev", "up0"]);
        run("ip", &["link", "set", "up0", "up"]);
        for arguments in [
            ["ip", "addr", "add", "198.51.100.2/24", "dev", "up1"],
            ["ip", "link", "set", "up", "dev", "up1"],
        ] {
            assert!(ns.exec(&arguments).0);
        }
        assert!(ns.exec(&["ip", "link", "set", "lo", "up"]).0);
        Self { ns }
    }

    /// A route to the containers past the host's translation, as a hostile neighbour would set.
    pub(crate) fn route_to(&self, subnet: &str) {
        assert!(self.ns.exec(&["ip", "route", "add", subnet, "via", "198.51.100.1"]).0);
    }
}

pub(crate) fn config(instance: &str, dir: &std::path::Path) -> NetworkConfig {
    let resolv_conf = dir.join("resolv.conf");
    if !resolv_conf.exists() {
        std::fs::write(&resolv_conf, "search example.org\nnameserver 198.51.100.2\n").unwrap();
    }
    let mut config = NetworkConfig::new(instance, dir.join("state"));
    config.resolv_conf = resolv_conf;
    config
}

pub(crate) async fn start(dir: &std::path::Path) -> Networks {
    Networks::start(config("", dir)).await.unwrap()
}

pub(crate) fn spec(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }
}

pub(crate) fn with_subnet(name: &str, subnet: &str) -> NetworkSpec {
    let subnet = SubnetSpec { subnet: subnet.to_owned(), ..SubnetSpec::default() };
    NetworkSpec { subnets: vec![subnet], ..spec(name) }
}

pub(crate) fn tcp(container_port: u16, host_port: u16) -> PortRequest {
    PortRequest {
        container_port,
        protocol: Protocol::Tcp,
        host_ip: None,
        host_port: HostPort::Fixed(host_port),
    }
}

/// Waits for something that the kernel does in its own time.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
