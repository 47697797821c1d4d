//! Debian's notary-server in memory, on a loopback port, with a certificate of its own; and the
//! notary CLI that goes with it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Output, eventually};

/// A running trust server.
#[derive(Debug)]
pub struct Notary {
    child: Option<Child>,
    folder: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Notary {
    /// Starts an empty one.
    ///
    /// # Panics
    /// When it is not installed or does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::run(|folder, address| {
            let at = |name: &str| folder.join(name);
            let config = serde_json::json!({
                "server": {
                    "http_addr": address,
                    "tls_cert_file": at("cert.pem"),
                    "tls_key_file": at("key.pem"),
                },
                "trust_service": { "type": "local", "key_algorithm": "ed25519" },
                "storage": { "backend": "memory" },
                "logging": { "level": "error" },
            });
            fs::write(at("server.json"), config.to_string()).expect("its configuration");
            let mut command = Command::new("notary-server");
            command.arg("-config").arg(at("server.json"));
            command
        })
    }

    /// Starts brig's own trust server in its place.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn brig() -> Self {
        let mut server = Self::reserved();
        server.start_brig(None);
        server
    }

    /// Starts brig's own trust server as it was `ago` (of faketime's) before now.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn brig_before(ago: &str) -> Self {
        let mut server = Self::reserved();
        server.start_brig(Some(ago));
        server
    }

    /// Starts, or starts again, brig's own trust server; with `ago` its clock is so much behind.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_brig(&mut self, ago: Option<&str>) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let mut command = Command::new(crate::daemon::built("brig"));
        if let Some(ago) = ago {
            command.env("LD_PRELOAD", crate::faults::clock_shifter()).env("FAKETIME", ago);
        }
        command.args(["trust", "serve", "--listen", &self.address]);
        for (flag, name) in
            [("--tlscert", "cert.pem"), ("--tlskey", "key.pem"), ("--data-root", "data")]
        {
            command.arg(flag).arg(self.folder.path().join(name));
        }
        self.spawn(command);
    }

    /// Certificate and address for a server that somebody else runs.
    ///
    /// # Panics
    /// When they cannot be had.
    #[must_use]
    pub fn reserved() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("brig-notary-")
            .tempdir_in("/var/tmp")
            .expect("a folder for the trust server");
        let at = |name: &str| folder.path().join(name);
        let address = format!("127.0.0.1:{}", crate::daemon::free_port());
        // Valid for servers whose clock is behind.
        let made = Command::new("faketime")
            .args([
                "-f",
                "-40d",
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "199", "-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(at("key.pem"))
            .arg("-out")
            .arg(at("cert.pem"))
            .output()
            .expect("openssl starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { child: None, folder, address }
    }

    /// What a brigd is told to be this server.
    #[must_use]
    pub fn daemon_flags(&self) -> Vec<String> {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let flags = [
            ("--trust-listen", self.address.clone()),
            ("--trust-tlscert", at("cert.pem")),
            ("--trust-tlskey", at("key.pem")),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn run(command: impl FnOnce(&Path, &str) -> Command) -> Self {
        let mut server = Self::reserved();
        let command = command(server.folder.path(), &server.address);
        server.spawn(command);
        server
    }

    fn spawn(&mut self, mut command: Command) {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the trust server is missing: apt-get install notary");
        self.child = Some(child);
        eventually("the trust server answers", Duration::from_secs(30), || {
            TcpStream::connect(&self.address).is_ok()
        });
    }

    /// Ends it; nothing answers at its address any more.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What a client of docker's has to know of it: where it is, and the passphrases.
    #[must_use]
    pub fn introduction(&self) -> [(&'static str, String); 3] {
        [
            ("DOCKER_CONTENT_TRUST_SERVER", self.url()),
            ("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", ROOT_PASSPHRASE.to_owned()),
            ("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", PASSPHRASE.to_owned()),
        ]
    }

    /// Whether brig's own server says that it serves.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.get("/_notary_server/health").is_some()
    }

    /// What it answers, if that is a success.
    fn get(&self, path: &str) -> Option<String> {
        let output = Command::new("curl")
            .args(["-sS", "--fail", "--max-time", "10", "--cacert"])
            .arg(self.certificate())
            .arg(format!("{}{path}", self.url()))
            .output()
            .expect("curl is installed");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How many requests for metadata brig's own server has answered.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn lookups(&self) -> u64 {
        let text = self.get("/metrics").expect("the server's counters");
        let is_lookup = |line: &&str| {
            ["newest", "version", "hash"].iter().any(|route| {
                line.starts_with(&format!("brig_trust_requests_total{{route=\"{route}\""))
            })
        };
        let counts = text.lines().filter(is_lookup).filter_map(|line| line.rsplit(' ').next());
        counts.map(|count| count.parse::<u64>().expect("a count")).sum()
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Runs the notary CLI with its files in `dir`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn cli(&self, dir: &Path, args: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "60", "notary", "-s", &self.url(), "--tlscacert"]);
        command.arg(self.certificate()).arg("-d").arg(dir).args(args);
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            let pass = if role == "ROOT" { ROOT_PASSPHRASE } else { PASSPHRASE };
            command.env(format!("NOTARY_{role}_PASSPHRASE"), pass);
        }
        let output = command.stdin(Stdio::null()).output().expect("notary starts");
        Output::of(format!("notary {}", args.join(" ")), &output)
    }
}

/// The passphrase of root keys in tests.
pub const ROOT_PASSPHRASE: &str = "root passphrase";
/// The passphrase of all other keys.
pub const PASSPHRASE: &str = "other passphrase";

impl Drop for Notary {
    fn drop(&mut self) {
        self.stop();
    }
}
