//! Remote access: both engines over mutual TLS, with the same certificates, one after the other.

use std::time::{Duration, Instant};

use brig_e2e::remote::{Pki, port};
use brig_e2e::{Brigd, Client};
use brig_pki::engine::{EngineClient, EngineConnection, EngineTrust};
use brig_pki::web::ClientIdentity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::engines::{Docker, Engine as _};
use crate::{load, report};

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(3);
/// Connections that ask at the same time.
const CLIENTS: usize = 8;
/// Containers in the list.
const CONTAINERS: usize = 100;
/// Connections that are opened and left alone.
const IDLE: usize = 10_000;
const PING: &str = "/_ping";
const LIST: &str = "/v1.41/containers/json?all=1";

type Stream = EngineConnection<TcpStream>;

/// How one engine did.
struct Figures {
    pings: (f64, f64),
    lists: (f64, f64),
    handshakes: f64,
}

pub(crate) fn measure() {
    let pki = Pki::new();
    let client = client(&pki);
    let (docker_port, brig_port) = (port(), port());
    let docker_flags = flags(&pki, docker_port);
    let docker = Docker::start_with(&docker_flags.iter().map(String::as_str).collect::<Vec<_>>());
    let brig_flags = flags(&pki, brig_port);
    let brig = Brigd::start_with(&brig_flags.iter().map(String::as_str).collect::<Vec<_>>());
    fill(&docker.client());
    fill(&brig.brig());
    println!("over mutual TLS, {CLIENTS} connections, {CONTAINERS} containers\n");
    println!("{:<44}{:>14}{:>14}{:>8}", "what", "dockerd", "brigd", "ratio");
    // The engines were started before: they have all cores, the clients one.
    load::run(async {
        let theirs = figures(&client, docker_port).await;
        let ours = figures(&client, brig_port).await;
        compare(&theirs, &ours);
    });
    drop(docker);
    load::run(idle(&client, brig_port, brig.pid()));
}

fn compare(theirs: &Figures, ours: &Figures) {
    row("/_ping, requests/s", theirs.pings.0, ours.pings.0);
    row("/_ping, p99 ms", theirs.pings.1, ours.pings.1);
    row("/containers/json of 100, requests/s", theirs.lists.0, ours.lists.0);
    row("/containers/json of 100, p99 ms", theirs.lists.1, ours.lists.1);
    row("handshakes/s", theirs.handshakes, ours.handshakes);
}

fn row(what: &str, dockerd: f64, brigd: f64) {
    println!("{what:<44}{dockerd:>14.2}{brigd:>14.2}{:>7.2}x", brigd / dockerd);
    let unit = what.rsplit(' ').next().unwrap_or_default();
    report::pair(&format!("remote: {what}"), unit, dockerd, brigd, "");
}

fn flags(pki: &Pki, port: u16) -> Vec<String> {
    let host = format!("tcp://127.0.0.1:{port}");
    let (ca, cert, key) =
        (pki.path("ca.pem"), pki.path("server-cert.pem"), pki.path("server-key.pem"));
    ["-H", &host, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key]
        .map(str::to_owned)
        .to_vec()
}

fn client(pki: &Pki) -> EngineClient {
    let read = |name: &str| std::fs::read(pki.path(name)).unwrap();
    let identity = ClientIdentity { chain_pem: read("cert.pem"), key_pem: read("key.pem").into() };
    EngineClient::new(&EngineTrust::Authority(read("ca.pem")), Some(&identity)).unwrap()
}

fn fill(client: &Client) {
    let archive = brig_e2e::image::busybox().display().to_string();
    let _ = client.run(&["load", "-q", "-i", &archive]).ok();
    for _ in 0..CONTAINERS {
        let _ = client.run(&["create", "busybox", "true"]).ok();
    }
}

async fn connect(client: &EngineClient, port: u16) -> Stream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    client.connect("127.0.0.1", stream).await.unwrap()
}

/// One request; the connection can be used again.
async fn ask(stream: &mut Stream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::with_capacity(64 << 10);
    loop {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the engine hung up");
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let complete = match length {
            Some(length) => answer.len() >= end + 4 + length.trim().parse::<usize>().unwrap(),
            None => answer.ends_with(b"0\r\n\r\n"),
        };
        if complete {
            return;
        }
    }
}

async fn figures(client: &EngineClient, port: u16) -> Figures {
    Figures {
        pings: requests(client, port, PING).await,
        lists: requests(client, port, LIST).await,
        handshakes: handshakes(client, port).await,
    }
}

/// Requests each second, and the 99th percentile in milliseconds.
async fn requests(client: &EngineClient, port: u16, path: &'static str) -> (f64, f64) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = client.clone();
        tasks.spawn(async move {
            let mut stream = connect(&client, port).await;
            ask(&mut stream, path).await;
            let (end, mut taken) = (Instant::now() + SPAN, Vec::new());
            while Instant::now() < end {
                let start = Instant::now();
                ask(&mut stream, path).await;
                taken.push(start.elapsed().as_secs_f64() * 1000.0);
            }
            taken
        });
    }
    let mut all: Vec<f64> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_by(f64::total_cmp);
    (all.len() as f64 / SPAN.as_secs_f64(), all[all.len() * 99 / 100])
}

/// Full handshakes, each proved by an answer, a second.
async fn handshakes(client: &EngineClient, port: u16) -> f64 {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = client.clone();
        tasks.spawn(async move {
            let (end, mut count) = (Instant::now() + SPAN, 0_u32);
            while Instant::now() < end {
                ask(&mut connect(&client, port).await, PING).await;
                count += 1;
            }
            count
        });
    }
    f64::from(tasks.join_all().await.into_iter().sum::<u32>()) / SPAN.as_secs_f64()
}

/// Thousands of connections that were used once and are then left alone.
async fn idle(client: &EngineClient, port: u16, pid: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let before = resident_mib(pid);
    let mut kept = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = connect(client, port).await;
        ask(&mut stream, PING).await;
        kept.push(stream);
    }
    let grown = resident_mib(pid) - before;
    let start = Instant::now();
    ask(&mut connect(client, port).await, PING).await;
    let served = start.elapsed().as_secs_f64() * 1000.0;
    println!(
        "\n{IDLE} idle connections: {grown:.1} MiB more; a new one is served in {served:.1} ms"
    );
    report::load("remote: memory of 10,000 idle connections", grown, "MiB", None);
    report::load("remote: a new connection beside them", served, "ms", None);
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
