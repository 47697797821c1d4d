//! A CFSSL server with a root of its own.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SIGNING: &str = r#"{"signing": {
  "default": {
    "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
    "expiry": "2160h"WHITELIST
  },
  "profiles": {
    "CA": {
      "usages": ["cert sign", "crl sign"],
      "expiry": "43800h",
      "ca_constraint": {"is_ca": true}
    }
  }
}}"#;

/// A server that signs, or does not.
pub(crate) struct Cfssl {
    dir: tempfile::TempDir,
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Cfssl {
    /// Makes a root and a server for 127.0.0.1, and starts it.
    pub(crate) fn start() -> Self {
        let mut cfssl = Self::prepare();
        cfssl.serve();
        cfssl
    }

    /// Makes a root, and a certificate for the server.
    pub(crate) fn prepare() -> Self {
        let dir = tempfile::Builder::new().prefix("brig-cfssl-").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cfssl = Self { dir, port, args: Vec::new(), child: None };
        cfssl.policy(None);
        let key = r#""key": {"algo": "ecdsa", "size": 256}"#;
        let root = format!(r#"{{"CN": "Our root", {key}, "ca": {{"expiry": "87600h"}}}}"#);
        cfssl.generate("ca", &root, &["-initca"]);
        let server = format!(r#"{{"CN": "cfssl", "hosts": ["127.0.0.1"], {key}}}"#);
        let signer = ["-ca", "ca.pem", "-ca-key", "ca-key.pem", "-config", "config.json"];
        cfssl.generate("server", &server, &signer);
        cfssl
    }

    fn generate(&self, name: &str, request: &str, args: &[&str]) {
        std::fs::write(self.path(&format!("{name}.json")), request).unwrap();
        let made = Command::new("cfssl")
            .arg("gencert")
            .args(args)
            .arg(format!("{name}.json"))
            .current_dir(self.dir.path())
            .output()
            .expect("cfssl: scripts/setup.sh test installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut split = Command::new("cfssljson")
            .args(["-bare", name])
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        split.stdin.take().unwrap().write_all(&made.stdout).unwrap();
        assert!(split.wait().unwrap().success());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs for names that match only; takes effect with the next start.
    pub(crate) fn policy(&self, names: Option<&str>) {
        let whitelist =
            names.map(|names| format!(r#", "name_whitelist": "{names}""#)).unwrap_or_default();
        std::fs::write(self.path("config.json"), SIGNING.replace("WHITELIST", &whitelist)).unwrap();
    }

    /// Demands a client certificate of these roots whose common name matches; takes effect with
    /// the next start.
    pub(crate) fn demand(&mut self, roots: &[u8], names: &str) {
        std::fs::write(self.path("clients.pem"), roots).unwrap();
        self.args =
            ["-mutual-tls-ca", "clients.pem", "-mutual-tls-cn", names].map(str::to_owned).to_vec();
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        std::fs::read(self.path("ca.pem")).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}/api/v1/cfssl/sign", self.port)
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn serve(&mut self) {
        self.stop();
        let log = std::fs::File::create(self.path("log")).unwrap();
        let child = Command::new("cfssl")
            .args(["serve", "-address", "127.0.0.1", "-port", &self.port.to_string()])
            .args(["-ca", "ca.pem", "-ca-key", "ca-key.pem", "-config", "config.json"])
            .args(["-tls-cert", "server.pem", "-tls-key", "server-key.pem"])
            .args(&self.args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let give_up = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = std::fs::read_to_string(self.path("log")).unwrap();
            assert!(Instant::now() < give_up, "cfssl does not listen: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Cfssl {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What openssl says to a chain: its end's subject.
pub(crate) fn openssl_verifies(root: &Path, chain: &Path) -> String {
    for purpose in ["sslclient", "sslserver"] {
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(root)
            .arg("-untrusted")
            .arg(chain)
            .arg(chain)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"])
        .arg(chain)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
