//! Certificates of every kind, made with openssl: the other side's own tool.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use brig_pki::csr::NodeKey;
use brig_pki::tls::TlsCredentials;
use time::{Duration, OffsetDateTime};

const CONFIG: &str = "
[ca]
default_ca = here
[here]
database = ./index
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = anything
[anything]
organizationName = optional
organizationalUnitName = optional
commonName = optional
[req]
distinguished_name = anything
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[node]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth,clientAuth
subjectAltName = DNS:swarm-manager,DNS:swarm-worker,DNS:swarm-ca
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth
";

/// What a certificate says.
#[derive(Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) role: &'a str,
    pub(crate) node: &'a str,
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    pub(crate) extensions: &'a str,
}

impl<'a> Wanted<'a> {
    /// A certificate that is valid now.
    pub(crate) fn worker(cluster: &'a str, node: &'a str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            cluster,
            role: "swarm-worker",
            node,
            from: now - Duration::HOUR,
            until: now + Duration::DAY,
            extensions: "node",
        }
    }

    /// One that ended so long ago, after so long a life.
    pub(crate) fn expired(self, since: Duration, lived: Duration) -> Self {
        let until = OffsetDateTime::now_utc() - since;
        Self { from: until - lived, until, ..self }
    }
}

/// A certificate authority in a directory.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    count: AtomicU32,
}

impl Authority {
    /// A new one with the common name of swarms' roots.
    pub(crate) fn new() -> Self {
        let new = Self::empty();
        new.openssl(&[
            "req",
            "-x509",
            "-config",
            "config",
            "-extensions",
            "root",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=swarm-ca",
            "-days",
            "3650",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        new
    }

    /// A cluster's.
    pub(crate) fn of(cert: &[u8], key: &[u8]) -> Self {
        let new = Self::empty();
        std::fs::write(new.path("ca.crt"), cert).unwrap();
        std::fs::write(new.path("ca.key"), key).unwrap();
        new
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), CONFIG).unwrap();
        std::fs::write(dir.path().join("index"), "").unwrap();
        Self { dir, count: AtomicU32::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        std::fs::read(self.path("ca.crt")).unwrap()
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        std::fs::read(self.path("ca.key")).unwrap()
    }

    /// A certificate for a key, PEM.
    pub(crate) fn issue(&self, wanted: &Wanted<'_>, key: &NodeKey) -> Vec<u8> {
        let name = self.count.fetch_add(1, Ordering::Relaxed);
        let (csr, out) = (format!("{name}.csr"), format!("{name}.crt"));
        std::fs::write(self.path(&csr), key.csr_pem().unwrap()).unwrap();
        self.openssl(&[
            "ca",
            "-config",
            "config",
            "-batch",
            "-notext",
            "-preserveDN",
            "-cert",
            "ca.crt",
            "-keyfile",
            "ca.key",
            "-extensions",
            wanted.extensions,
            "-subj",
            &subject(wanted),
            "-startdate",
            &date(wanted.from),
            "-enddate",
            &date(wanted.until),
            "-in",
            &csr,
            "-out",
            &out,
        ]);
        std::fs::read(self.path(&out)).unwrap()
    }

    /// A client with such a certificate and a key of its own; it trusts `roots`.
    pub(crate) fn client(&self, wanted: &Wanted<'_>, roots: &[u8]) -> (Vec<u8>, TlsCredentials) {
        let key = NodeKey::generate().unwrap();
        let chain = self.issue(wanted, &key);
        let credentials = TlsCredentials::new(roots, &chain, &key).unwrap();
        (chain, credentials)
    }

    fn openssl(&self, args: &[&str]) {
        openssl(self.dir.path(), args);
    }
}

/// A certificate signed with its own key.
pub(crate) fn self_signed(wanted: &Wanted<'_>, roots: &[u8]) -> TlsCredentials {
    let key = NodeKey::generate().unwrap();
    let own = Authority::empty();
    std::fs::write(own.path("ca.key"), key.key_pem().expose_secret()).unwrap();
    own.openssl(&[
        "req",
        "-x509",
        "-config",
        "config",
        "-extensions",
        "node",
        "-new",
        "-key",
        "ca.key",
        "-subj",
        &subject(wanted),
        "-days",
        "30",
        "-out",
        "ca.crt",
    ]);
    TlsCredentials::new(roots, &own.root(), &key).unwrap()
}

fn subject(wanted: &Wanted<'_>) -> String {
    format!("/O={}/OU={}/CN={}", wanted.cluster, wanted.role, wanted.node)
}

fn date(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year][month][day][hour][minute][second]Z");
    at.format(format).unwrap()
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
