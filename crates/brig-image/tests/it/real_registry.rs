//! Debian's docker-registry, filled by skopeo: other people's idea of a registry.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_image::{ImageStore, OpenOptions, RegistrySettings};

use crate::make::{docker_archive, no_progress, reference, settings, store, tar};

pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn start(dir: &Path, host: IpAddr, tls: &str) -> Registry {
    let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
    let address = format!("{host}:{port}");
    let config = dir.join("config.yml");
    let storage = dir.join("registry");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n{tls}",
            storage.display()
        ),
    )
    .unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let registry = Registry { child, address };
    let deadline = Instant::now() + Duration::from_secs(15);
    while std::net::TcpStream::connect(&registry.address).is_err() {
        assert!(Instant::now() < deadline, "docker-registry does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    registry
}

pub(crate) fn available(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn fill(archive: &Path, format: &str, name: &str) {
    let status = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--format", format])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{name}"))
        .status()
        .unwrap();
    assert!(status.success());
}

/// An address of this machine that is not loopback, where verified TLS is a must.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_with_the_hosts_own_authority() {
    let Some(host) =
        outer_address().filter(|_| available("docker-registry") && available("skopeo"))
    else {
        eprintln!("skipped: needs docker-registry, skopeo and a network address");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (key, crt) = (dir.path().join("key.pem"), dir.path().join("crt.pem"));
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=test", "-addext", &format!("subjectAltName=IP:{host}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&crt)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", crt.display(), key.display());
    let registry = start(dir.path(), host, &tls);
    let archive = dir.path().join("image.tar");
    std::fs::write(&archive, docker_archive(&[tar(&[("a", b"1")])], "x", &["x:1"])).unwrap();
    let name = format!("{}/x:1", registry.address);
    fill(&archive, "v2s2", &name);

    let open = |settings: RegistrySettings| {
        let root = tempfile::tempdir().unwrap();
        let options = OpenOptions { registry: settings, ..OpenOptions::default() };
        (ImageStore::open(root.path(), options).unwrap(), root)
    };
    let name = reference(&name);
    let (store, _root) = open(settings());
    let error = store.pull(&name, None, None, &no_progress).await.unwrap_err();
    let text = brig_types::error::chain(&error);
    assert!(text.starts_with(&format!("Head \"https://{}/v2/x", registry.address)), "{text}");

    let certificates = dir.path().join("certs.d");
    std::fs::create_dir_all(certificates.join(&registry.address)).unwrap();
    std::fs::copy(&crt, certificates.join(&registry.address).join("ca.crt")).unwrap();
    let with_authority = RegistrySettings { certificates: vec![certificates], ..settings() };
    let listed = RegistrySettings { insecure: vec![registry.address.clone()], ..settings() };
    for settings in [with_authority, listed] {
        let (store, _root) = open(settings);
        store.pull(&name, None, None, &no_progress).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_a_real_registry() {
    if !available("docker-registry") || !available("skopeo") || !Path::new("/bin/busybox").exists()
    {
        eprintln!("skipped: needs docker-registry, skopeo and busybox");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path(), IpAddr::V4(Ipv4Addr::LOCALHOST), "");
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let layers = [tar(&[("bin/busybox", &busybox)]), tar(&[("etc/motd", b"hello")])];
    let archive = dir.path().join("image.tar");
    std::fs::write(&archive, docker_archive(&layers, "x", &["x:1"])).unwrap();
    for (tag, format) in [("docker", "v2s2"), ("oci", "oci")] {
        fill(&archive, format, &format!("{}/x:{tag}", registry.address));
    }
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let mut digests = Vec::new();
    for tag in ["docker", "oci"] {
        let name = format!("{}/x:{tag}", registry.address);
        let pulled = store.pull(&reference(&name), None, None, &no_progress).await.unwrap();
        let info = store.distribution(&reference(&name), None).await.unwrap();
        assert_eq!(info.digest, pulled.digest);
        digests.push(pulled.digest);
        let image = store.resolve(&name).unwrap();
        let dirs = store.snapshots().mounted_layers(&image);
        assert_eq!(std::fs::read(dirs[1].join("bin/busybox")).unwrap(), busybox);
        assert_eq!(std::fs::read(dirs[0].join("etc/motd")).unwrap(), b"hello");
    }
    assert_ne!(digests[0], digests[1]);
    let missing = format!("{}/x:none", registry.address);
    let error = store.pull(&reference(&missing), None, None, &no_progress).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("manifest for {missing} not found: manifest unknown: manifest unknown")
    );
    let by_digest = format!("{}/x@{}", registry.address, digests[0]);
    assert!(store.pull(&reference(&by_digest), None, None, &no_progress).await.unwrap().up_to_date);
}
