//! Debian's docker-registry on a loopback port, with the busybox image pushed by skopeo.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::eventually;

/// The password file of a registry that takes `u` with `pw`; a cheap hash, as it is checked with
/// each request.
pub const LOGIN: &str = "u:$2b$04$abcdefghijklmnopqrstuuyvPXIbu7xe6/CED2DzX8z6Si09MlzlW\n";

/// `nigel:pw` in base64.
pub const NIGEL: &str = "bmlnZWw6cHc=";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    folder: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Registry {
    /// Has the clients with this configuration folder logged in, as `user:password` in base64.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn log_in(&self, folder: &Path, auth: &str) {
        let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", self.address);
        std::fs::write(folder.join("config.json"), config).expect("the client's configuration");
    }

    /// Starts an empty registry; with `htpasswd`, one that wants a login.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(htpasswd: Option<&str>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("brig-registry-")
            .tempdir_in("/var/tmp")
            .expect("a folder for the registry");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n  delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n",
            folder.path().display()
        );
        if let Some(line) = htpasswd {
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, line).expect("the password file");
            config.push_str(&format!(
                "auth:\n  htpasswd: {{realm: brig, path: {}}}\n",
                file.display()
            ));
        }
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).expect("the registry's configuration");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self { child, folder, address };
        eventually("the registry answers", Duration::from_secs(20), || {
            TcpStream::connect(&registry.address).is_ok()
        });
        registry
    }

    /// Pushes a docker archive as `name` (`repo:tag`), with `credentials` (`user:password`).
    ///
    /// # Panics
    /// When skopeo fails.
    pub fn push(&self, archive: &Path, name: &str, credentials: Option<&str>) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
        if let Some(credentials) = credentials {
            command.args(["--dest-creds", credentials]);
        }
        let output = command
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .expect("skopeo is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends it; nothing answers at its address any more.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Where the registry keeps its blobs.
    #[must_use]
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
