//! Servers in processes of their own, and a client that says exactly what it is told to.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_pki::web::{WebConnector, WebTrust};
use brig_trust::remote::{Action, Credentials, HttpRemote, ServerAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const FOLDER: &str = "BRIG_TRUST_TEST_FOLDER";
pub(crate) const ADDRESS: &str = "BRIG_TRUST_TEST_ADDRESS";
pub(crate) const PREFIX: &str = "BRIG_TRUST_TEST_PREFIX";

/// A trust server: ours or Debian's.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
    prefix: Option<&'static str>,
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A certificate for localhost and its authority.
fn certificates(folder: &Path) {
    const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(folder, &format!("req -x509 {KEY} -keyout ca.key -out ca.pem -subj /CN=test-ca -days 9"));
    openssl(folder, &format!("req {KEY} -keyout server.key -out request -subj /CN=localhost"));
    openssl(folder, "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile names -out server.pem");
}

impl Server {
    fn prepare() -> Self {
        let folder = tempfile::Builder::new().prefix("brig-trust-").tempdir_in("/var/tmp").unwrap();
        certificates(folder.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder, port, child: None, prefix: None }
    }

    /// Ours.
    pub(crate) fn start() -> Self {
        let mut server = Self::prepare();
        server.run();
        server
    }

    /// Ours, with users and one prefix.
    pub(crate) fn guarded(users: &str, prefix: &'static str) -> Self {
        let mut server = Self::prepare();
        std::fs::write(server.path("users"), users).unwrap();
        server.prefix = Some(prefix);
        server.run();
        server
    }

    /// Debian's notary-server, with everything in memory.
    pub(crate) fn notary() -> Self {
        let mut server = Self::prepare();
        let at = |name: &str| server.path(name).display().to_string();
        let config = serde_json::json!({
            "server": {
                "http_addr": format!("127.0.0.1:{}", server.port),
                "tls_cert_file": at("server.pem"),
                "tls_key_file": at("server.key"),
            },
            "trust_service": { "type": "local", "key_algorithm": "ed25519" },
            "storage": { "backend": "memory" },
            "logging": { "level": "error" },
        });
        let path = server.path("notary.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let child = Command::new("notary-server")
            .arg("-config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("notary-server is installed");
        server.child = Some(child);
        server.wait();
        server
    }

    /// Starts it (again).
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["server_process", "--exact", "--nocapture"])
            .env(FOLDER, self.folder.path())
            .env(ADDRESS, format!("127.0.0.1:{}", self.port))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(prefix) = self.prefix {
            command.env(PREFIX, prefix);
        }
        self.child = Some(command.spawn().unwrap());
        self.wait();
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "the server did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn connector(&self) -> WebConnector {
        let ca = std::fs::read(self.path("ca.pem")).unwrap();
        WebConnector::new(&WebTrust::Verified { extra_roots: vec![ca] }, None).unwrap()
    }

    pub(crate) fn remote(&self) -> HttpRemote {
        let address = ServerAddress::parse(&self.url()).unwrap();
        HttpRemote::new(address, self.connector(), Credentials::default(), Action::All)
    }

    /// One request, one connection.
    pub(crate) async fn ask(&self, method: &str, path: &str, more: &[&str], body: &[u8]) -> Answer {
        let socket = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let mut stream = self.connector().connect("localhost", socket).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for line in more {
            head.push_str(&format!("{line}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        // A server need not say goodbye.
        let _ = stream.read_to_end(&mut answer).await;
        Answer::read(&answer)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The name of what an upload breaks.
    pub(crate) fn name(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["errors"][0]["detail"]["Name"].as_str().unwrap_or_default().to_owned()
    }
}

/// A body of these files.
pub(crate) fn upload(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in files {
        let head = format!("--B\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    body
}

pub(crate) const UPLOAD: &str = "Content-Type: multipart/form-data; boundary=B";
