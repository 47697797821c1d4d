//! Content trust: our trust server beside notary-server, and `trust sign` from end to end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_e2e::daemon::built;
use brig_e2e::eventually;
use brig_e2e::registry::Registry;
use brig_e2e::remote::{Pki, port};
use brig_pki::web::{WebConnector, WebTrust};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::engines::{Brig, Docker, Engine};
use crate::measure::{Comparison, millis, print};
use crate::{load, report};

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(4);
/// Clients that ask at the same time.
const CLIENTS: usize = 8;
const GUN: &str = "bench.example/team/app";
const PASSPHRASE: &str = "a long passphrase";

type Stream = brig_pki::tls::ClientStream<TcpStream>;

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn started(mut command: Command, port: u16) -> Self {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = silent.spawn().unwrap();
        eventually("the trust server answers", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, port }
    }

    fn brig(pki: &Pki, data: &Path) -> Self {
        let port = port();
        let mut command = Command::new(built("brig"));
        command
            .args(["trust", "serve", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--tlscert", &pki.path("server-cert.pem")])
            .args(["--tlskey", &pki.path("server-key.pem")])
            .arg("--data-root")
            .arg(data);
        Self::started(command, port)
    }

    fn notary(pki: &Pki) -> Self {
        let port = port();
        let config = serde_json::json!({
            "server": {
                "http_addr": format!("127.0.0.1:{port}"),
                "tls_cert_file": pki.path("server-cert.pem"),
                "tls_key_file": pki.path("server-key.pem"),
            },
            "trust_service": { "type": "local", "key_algorithm": "ed25519" },
            "storage": { "backend": "memory" },
            "logging": { "level": "error" },
        });
        let path = pki.path("notary.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new("notary-server");
        command.args(["-config", &path]);
        Self::started(command, port)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A repository with one tag, made by the notary CLI.
    fn publish(&self, pki: &Pki) {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "hello").unwrap();
        let notary = |arguments: &[&str]| {
            let mut command = Command::new("notary");
            command
                .args(["-s", &self.url(), "--tlscacert", &pki.path("ca.pem"), "-d"])
                .arg(folder.path())
                .args(arguments)
                .env("HOME", folder.path())
                .stdin(Stdio::null());
            for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
                command.env(format!("NOTARY_{role}_PASSPHRASE"), PASSPHRASE);
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        notary(&["init", GUN]);
        notary(&["add", "-p", GUN, "v1", &file.display().to_string()]);
    }

    async fn connect(&self, connector: &WebConnector) -> Stream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        connector.connect("localhost", socket).await.unwrap()
    }
}

/// A connection that costs its client little, so that the server is what is measured.
struct Connection {
    stream: Stream,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(server: &Server, connector: &WebConnector) -> Self {
        Self { stream: server.connect(connector).await, answer: Vec::with_capacity(16 << 10) }
    }

    /// The body that answers a request.
    async fn get(&mut self, request: &str) -> &[u8] {
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.answer.clear();
        let mut whole = None;
        loop {
            assert!(self.stream.read_buf(&mut self.answer).await.unwrap() > 0, "{request}: cut");
            if whole.is_none() {
                whole = body(&self.answer);
            }
            if let Some(body) = &whole
                && self.answer.len() >= body.end
            {
                return &self.answer[body.clone()];
            }
        }
    }
}

/// Where the body of a good answer is, once its head is there.
fn body(answer: &[u8]) -> Option<Range<usize>> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).unwrap();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap();
    assert!(status.starts_with("HTTP/1.1 200"), "{text}");
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    Some(head + 4..head + 4 + length.expect("a length"))
}

fn request(path: &str, close: bool) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n")
}

/// The paths of a lookup and what was found there, each file verified by the one before.
async fn chain(server: &Server, connector: &WebConnector) -> Vec<(String, Vec<u8>)> {
    let base = format!("/v2/{GUN}/_trust/tuf/");
    let fetch = async |path: String| {
        let mut connection = Connection::open(server, connector).await;
        let content = connection.get(&request(&path, true)).await.to_vec();
        (path, content)
    };
    let hash = |content: &[u8], role: &str| {
        let file: serde_json::Value = serde_json::from_slice(content).unwrap();
        let text = file["signed"]["meta"][role]["hashes"]["sha256"].as_str().unwrap().to_owned();
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        brig_pki::hash::hex(&bytes)
    };
    let timestamp = fetch(format!("{base}timestamp.json")).await;
    let snapshot = fetch(format!("{base}snapshot.{}.json", hash(&timestamp.1, "snapshot"))).await;
    let targets = fetch(format!("{base}targets.{}.json", hash(&snapshot.1, "targets"))).await;
    vec![timestamp, snapshot, targets]
}

/// Lookups a second: a tag's three files, each the very bytes that were verified at the start.
async fn lookups(server: &Server, connector: &WebConnector, fresh: bool) -> f64 {
    let chain = chain(server, connector).await;
    let asked = chain.iter().map(|(path, content)| (request(path, fresh), content));
    let asked = asked.collect::<Vec<_>>();
    let end = Instant::now() + SPAN;
    let clients = (0..CLIENTS).map(|_| async {
        let (mut done, mut kept) = (0_u32, None);
        while Instant::now() < end {
            for (request, expected) in &asked {
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => Connection::open(server, connector).await,
                };
                assert!(connection.get(request).await == expected.as_slice());
                if !fresh {
                    kept = Some(connection);
                }
            }
            done += 1;
        }
        done
    });
    let mut all = 0;
    for done in futures_util::future::join_all(clients).await {
        all += done;
    }
    f64::from(all) / SPAN.as_secs_f64()
}

pub(crate) fn measure(rounds: usize) {
    let pki = Pki::new();
    pki.server("server", 9);
    let data = tempfile::tempdir_in("/var/tmp").unwrap();
    let (notary, brig) = (Server::notary(&pki), Server::brig(&pki, &data.path().join("trust")));
    let ca = std::fs::read(pki.path("ca.pem")).unwrap();
    let trust = WebTrust::Verified { extra_roots: vec![ca] };
    // One each: both are called localhost, and sessions are remembered by name.
    let connectors = [(); 2].map(|()| WebConnector::new(&trust, None).unwrap());
    for server in [&notary, &brig] {
        server.publish(&pki);
    }
    println!("\ntrust servers, {CLIENTS} clients; a lookup is timestamp, snapshot and targets\n");
    println!("{:<44}{:>14}{:>14}{:>8}", "what", "notary-server", "brig", "ratio");
    // The servers were started before: they have all cores, the clients one.
    load::run(async {
        for (what, fresh) in
            [("lookups/s, a connection each request", true), ("lookups/s, kept connections", false)]
        {
            let theirs = lookups(&notary, &connectors[0], fresh).await;
            let ours = lookups(&brig, &connectors[1], fresh).await;
            println!("{what:<44}{theirs:>14.0}{ours:>14.0}{:>7.1}x", ours / theirs);
            report::rates(&format!("trust: {what}"), "1/s", theirs, ours, "5.0x");
        }
    });
    sign(&pki, [&notary, &brig], rounds);
}

/// A user of one engine and one trust server.
struct Signer {
    program: PathBuf,
    environment: BTreeMap<&'static str, String>,
    image: String,
    _home: tempfile::TempDir,
}

impl Signer {
    fn new(
        engine: &dyn Engine,
        program: PathBuf,
        pki: &Pki,
        server: &Server,
        image: String,
    ) -> Self {
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        let tls = home.path().join("tls").join(format!("localhost:{}", server.port));
        std::fs::create_dir_all(&tls).unwrap();
        std::fs::copy(pki.path("ca.pem"), tls.join("ca.crt")).unwrap();
        let path = |path: &Path| path.display().to_string();
        let environment = BTreeMap::from([
            ("HOME", path(home.path())),
            ("DOCKER_CONFIG", path(home.path())),
            ("DOCKER_HOST", format!("unix://{}", path(&engine.socket()))),
            ("DOCKER_CONTENT_TRUST_SERVER", server.url()),
            ("DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", PASSPHRASE.to_owned()),
            ("DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", PASSPHRASE.to_owned()),
        ]);
        let signer = Self { program, environment, image, _home: home };
        let home = signer.environment["HOME"].clone();
        signer.run(&["trust", "key", "generate", "me", "--dir", &home]);
        let key = format!("{home}/me.pub");
        signer.run(&["trust", "signer", "add", "--key", &key, "me", &signer.image]);
        signer
    }

    fn run(&self, arguments: &[&str]) -> Duration {
        let start = Instant::now();
        let output = Command::new(&self.program)
            .args(arguments)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let took = start.elapsed();
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}{}",
            self.program.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        took
    }

    /// A pull of what is there already, with its signatures verified or without.
    fn pull(&self, verified: bool) -> Duration {
        let mut command = Command::new(&self.program);
        command.args(["pull", &format!("{}:t0", self.image)]).envs(&self.environment);
        command.env("DOCKER_CONTENT_TRUST", if verified { "1" } else { "0" });
        let start = Instant::now();
        let output = command.stdin(Stdio::null()).output().unwrap();
        let took = start.elapsed();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        took
    }

    /// A new tag of an image whose layers the registry has.
    fn sign(&self, round: usize) -> Duration {
        let name = format!("{}:t{round}", self.image);
        self.run(&["tag", &format!("{}:base", self.image), &name]);
        self.run(&["trust", "sign", &name])
    }
}

fn sign(pki: &Pki, [notary, brig]: [&Server; 2], rounds: usize) {
    let registry = Registry::start(None);
    let (docker_engine, brig_engine) = (Docker::start(), Brig::start());
    let archive = brig_e2e::image::busybox();
    let image = |name: &str| format!("{}/{name}", registry.address);
    let docker = Path::new("/usr/local/bin/docker");
    let docker = if docker.exists() { docker } else { Path::new("/usr/bin/docker") };
    let signers = [
        Signer::new(&docker_engine, docker.to_owned(), pki, notary, image("docker")),
        Signer::new(&brig_engine, built("brig"), pki, brig, image("brig")),
    ];
    for (signer, name) in signers.iter().zip(["docker", "brig"]) {
        registry.push(&archive, &format!("{name}:base"), None);
        signer.run(&["pull", &format!("{}:base", signer.image)]);
    }
    println!("\n{}", Comparison::header());
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (signer, times) in signers.iter().zip(&mut taken) {
            times.push(millis(signer.sign(round)));
        }
    }
    print("trust sign of a new tag, ms", taken, "3.0x");
    let mut extra = Vec::new();
    for (signer, name) in signers.iter().zip(["docker", "brig"]) {
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (times, verified) in taken.iter_mut().zip([false, true]) {
                times.push(millis(signer.pull(verified)));
            }
        }
        let [plain, verified] = taken.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        println!("{name}: pull of what is there {plain:.1} ms, verified {verified:.1} ms");
        extra.push(verified - plain);
    }
    let what = "trust: a verified pull's extra time";
    println!("{what:<50}{:>20.1}{:>20.1}   (goal: below 5 ms)", extra[0], extra[1]);
    report::pair(what, "ms", extra[0], extra[1], "5 ms");
}
