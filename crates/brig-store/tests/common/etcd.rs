//! A real etcd with mutual TLS, gone with the value.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_pki::ca::{RootCa, STORE_EXPIRY, STORE_MEMBER_NAME};
use brig_pki::csr::NodeKey;
use brig_store::etcd::{EtcdClient, EtcdTls};

pub struct Etcd {
    dir: tempfile::TempDir,
    child: Option<Child>,
    client_port: u16,
    peer_port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn write_pair(dir: &Path, name: &str, issue: impl FnOnce(&[u8]) -> Vec<u8>) {
    let key = NodeKey::generate().unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), issue(&key.csr_pem().unwrap())).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.key_pem().expose_secret()).unwrap();
}

impl Etcd {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = RootCa::generate_for_store().unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.cert_pem()).unwrap();
        let local = [Ipv4Addr::LOCALHOST.into()];
        write_pair(dir.path(), "member", |csr| {
            ca.issue_store_member(csr, &local, STORE_EXPIRY).unwrap()
        });
        write_pair(dir.path(), "client", |csr| ca.issue_store_client(csr, STORE_EXPIRY).unwrap());
        let mut etcd = Self { dir, child: None, client_port: free_port(), peer_port: free_port() };
        etcd.boot();
        etcd
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    pub fn boot(&mut self) {
        let client = format!("https://127.0.0.1:{}", self.client_port);
        let peer = format!("https://127.0.0.1:{}", self.peer_port);
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("etcd")
            .args(["--name", "one", "--data-dir", &self.path("data")])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--initial-cluster", &format!("one={peer}")])
            .args(["--client-cert-auth", "--trusted-ca-file", &self.path("ca.pem")])
            .args(["--cert-file", &self.path("member.pem")])
            .args(["--key-file", &self.path("member.key")])
            .args(["--peer-client-cert-auth", "--peer-trusted-ca-file", &self.path("ca.pem")])
            .args(["--peer-cert-file", &self.path("member.pem")])
            .args(["--peer-key-file", &self.path("member.key")])
            .args(["--peer-cert-allowed-cn", STORE_MEMBER_NAME])
            .args(["--logger", "zap", "--log-level", "warn"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is needed: scripts/setup.sh test");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.client_port)).is_err() {
            assert!(Instant::now() < until, "etcd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn tls(&self) -> EtcdTls {
        let path = |name: &str| PathBuf::from(self.path(name));
        EtcdTls { ca: path("ca.pem"), cert: path("client.pem"), key: path("client.key") }
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    pub fn client(&self) -> EtcdClient {
        EtcdClient::new(&[self.endpoint()], self.tls()).unwrap()
    }

    pub fn ctl(&self, args: &[&str]) -> std::process::Output {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("https://{}", self.endpoint())])
            .args(["--cacert", &self.path("ca.pem"), "--cert", &self.path("client.pem")])
            .args(["--key", &self.path("client.key")])
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
