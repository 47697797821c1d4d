//! The daemon fetches its vulnerability database by itself, from a server that has a new one, the same
//! one, something else, an older one, and is gone. Of several managers the leader alone does.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{Brigd, Client, eventually, http};
use serde_json::Value;

/// Serves one file as it is at the time, and writes a line for each request: who asks, what for, and
/// the answer's status.
const SERVER: &str = r#"
import hashlib, http.server, ssl, sys
pair, served, log, address, port = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_GET(self):
        content = open(served, "rb").read()
        tag = '"' + hashlib.sha256(content).hexdigest()[:8] + '"'
        status = 304 if self.headers.get("If-None-Match") == tag else 200
        with open(log, "a") as lines:
            lines.write(f"{self.client_address[0]} {self.path} {status}\n")
        self.send_response(status)
        self.send_header("ETag", tag)
        if status == 200:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status == 200:
            self.wfile.write(content)
server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pair)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    child: Child,
    port: u16,
    files: Files,
}

/// What a server serves, and with which certificate.
struct Files(tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done =
        Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

impl Files {
    fn new(name: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("brig-scan-download-").tempdir_in("/var/tmp").unwrap();
        let path = folder.path();
        std::fs::write(path.join("names"), format!("subjectAltName={name}\n")).unwrap();
        for arguments in [
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=localhost",
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out leaf.pem -days 2",
        ] {
            openssl(path, arguments);
        }
        let pair = ["leaf.pem", "leaf.key"].map(|name| std::fs::read(path.join(name)).unwrap());
        std::fs::write(path.join("pair.pem"), pair.concat()).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What python3 is started with to serve them at this place.
    fn server(&self, address: &str, port: u16) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            "-c".to_owned(),
            SERVER.to_owned(),
            path("pair.pem"),
            path("served.db"),
            path("requests"),
            address.to_owned(),
            port.to_string(),
        ]
    }

    fn serve(&self, content: &[u8]) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path("served.db")).unwrap();
    }

    /// A database that knows one flaw, fixed in this version.
    fn build(&self, brig: &Client, fixed: &str) -> Vec<u8> {
        let (feed, database) = (self.path("tracker.json"), self.path("built.db"));
        let text = format!(
            r#"{{"openssl":{{"CVE-2026-4242":{{"releases":{{"bookworm":{{"status":"resolved","fixed_version":"{fixed}","urgency":"high"}}}}}}}}}}"#
        );
        std::fs::write(&feed, text).unwrap();
        let [feed, to] = [&feed, &database].map(|path| path.display().to_string());
        let _ = brig.run(&["scan", "db", "build", "--db", &to, &feed]).ok();
        std::fs::read(&database).unwrap()
    }

    /// Who asked, for what, and what was answered.
    fn requests(&self) -> Vec<String> {
        let lines = std::fs::read_to_string(self.path("requests")).unwrap_or_default();
        lines.lines().map(str::to_owned).collect()
    }
}

impl Server {
    fn start() -> Self {
        let files = Files::new("DNS:localhost");
        let mut child = Command::new("python3")
            .args(files.server("127.0.0.1", 0))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap(), files }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shown(daemon: &Brigd) -> Value {
    http::get(&daemon.socket(), "/brig/scan/database")
}

/// Makes it time for another attempt.
fn again(daemon: &mut Brigd) {
    daemon.stop();
    let note = daemon.data_root().join("scan/download.json");
    let mut attempts: Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    attempts["next"] = 0.into();
    attempts["attempted"] = 1.into();
    std::fs::write(&note, attempts.to_string()).unwrap();
    daemon.spawn();
    eventually("it was tried again", PATIENCE, || {
        let attempted = shown(daemon)["Fetch"]["Attempted"].as_str().map(str::to_owned);
        attempted.is_some_and(|time| !time.starts_with("1970"))
    });
}

#[test]
fn the_daemon_fetches_what_is_new_and_keeps_what_is_good() {
    let mut server = Server::start();
    let mut daemon = Brigd::prepare(&[]);
    let old = server.files.build(&daemon.brig(), "3.0.1-1");
    // It is made in another second.
    std::thread::sleep(Duration::from_millis(1100));
    let new = server.files.build(&daemon.brig(), "3.0.2-1");
    server.files.serve(&new);
    daemon.set_variable("SSL_CERT_FILE", &server.files.path("ca.pem").display().to_string());
    let url = format!("https://localhost:{}/x.db", server.port);
    daemon.configure(&format!(
        r#"{{"scan-database-url": "{url}", "scan-database-interval": "1h30m"}}"#
    ));
    daemon.spawn();
    eventually("the database is here", PATIENCE, || {
        shown(&daemon)["Fetch"]["Succeeded"].as_str().is_some_and(|time| !time.is_empty())
    });
    let first = shown(&daemon);
    assert_eq!(first["Vulnerabilities"], 1);
    assert_eq!(first["Fetch"]["Url"], url.as_str(), "{first}");
    assert_eq!(first["Fetch"]["Interval"], 5400);
    assert_eq!(first["Fetch"].get("Error"), None);
    assert_eq!(server.files.requests(), ["127.0.0.1 /x.db 200"]);

    // A restart is no reason to ask again.
    daemon.stop();
    daemon.spawn();
    eventually("it is known when", PATIENCE, || {
        shown(&daemon)["Fetch"]["Next"] == first["Fetch"]["Next"]
    });
    assert_eq!(server.files.requests().len(), 1);

    again(&mut daemon);
    assert_eq!(server.files.requests().last().unwrap(), "127.0.0.1 /x.db 304");
    assert_eq!(shown(&daemon)["Digest"], first["Digest"]);

    for (content, reason) in
        [(&b"this is no database"[..], "another kind"), (&old, "before the one that is in use")]
    {
        server.files.serve(content);
        again(&mut daemon);
        let after = shown(&daemon);
        assert_eq!(after["Digest"], first["Digest"]);
        let error = after["Fetch"]["Error"].as_str().unwrap_or_default();
        assert!(error.contains(reason), "{after}");
    }
    // Half of one, which is damaged.
    server.files.serve(&new[..new.len() - 1]);
    again(&mut daemon);
    assert_eq!(shown(&daemon)["Digest"], first["Digest"]);
    // What is good again is taken.
    let newest = server.files.build(&daemon.brig(), "3.0.3-1");
    server.files.serve(&newest);
    again(&mut daemon);
    let after = shown(&daemon);
    assert_eq!(after["Fetch"].get("Error"), None, "{after}");
    assert_ne!(after["Digest"], first["Digest"]);

    server.stop();
    again(&mut daemon);
    let brig = daemon.brig();
    let status = brig.run(&["scan", "db", "status", "--engine"]);
    for part in [&url, "the last attempt failed", "connecting to localhost"] {
        assert!(status.ok().contains(part), "{part:?} is not in\n{}", status.stdout);
    }
    assert_eq!(shown(&daemon)["Digest"], after["Digest"]);
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (until.as_secs() + 1).to_string();
    let filter = "event=scan-database-failed";
    let told = brig.run(&["events", "--since", "1", "--until", &until, "--filter", filter]);
    assert!(told.ok().contains(&url), "{}", told.stdout);
}

#[test]
fn an_address_that_is_not_https_is_refused() {
    for (url, interval) in [("http://localhost/x.db", "24h"), ("https://localhost/x.db", "1m")] {
        let mut daemon = Brigd::prepare(&[]);
        daemon.configure(&format!(
            r#"{{"scan-database-url": "{url}", "scan-database-interval": "{interval}"}}"#
        ));
        daemon.spawn_unchecked();
        assert_ne!(daemon.wait_exit(), 0);
        let log = std::fs::read_to_string(daemon.log()).unwrap();
        assert!(log.contains("scan-database-"), "{log}");
    }
}

/// The host that serves the database.
const SHELF: usize = 4;
const SHELF_PORT: u16 = 8443;

fn stop(hosts: &Hosts, node: &HostNode) {
    let script = "p=$(cat /run/d.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.05; done";
    let _ = hosts.exec(node.host, &["sh", "-c", script]).ok();
}

fn fetching(node: &HostNode) -> Option<Value> {
    http::get(&node.socket(), "/brig/scan/database").get("Fetch").cloned()
}

fn leads(node: &HostNode) -> bool {
    let own = http::get(&node.socket(), "/v1.41/nodes/self");
    own["ManagerStatus"]["Leader"] == true
}

#[test]
fn the_leader_fetches_for_its_swarm_and_another_one_after_it() {
    let hosts = Hosts::up(4);
    let nodes: Vec<HostNode> = (1..4).map(|host| hosts.start(host, Kind::Brigd)).collect();
    let [first, second, third] = &nodes[..] else { panic!("three hosts") };
    first.init_swarm();
    let token = first.ok(&["swarm", "join-token", "-q", "manager"]);
    for node in [second, third] {
        let peer = format!("{}:2377", first.address);
        let _ = node.ok(&["swarm", "join", "--token", &token, &peer]);
    }

    let address = format!("{}.{SHELF}", first.address.rsplit_once('.').unwrap().0);
    let files = Files::new(&format!("IP:{address}"));
    let brig = Client::brig(&first.socket(), files.0.path());
    files.serve(&files.build(&brig, "3.0.1-1"));
    let program = files.server("0.0.0.0", SHELF_PORT);
    let program: Vec<&str> =
        std::iter::once("python3").chain(program.iter().map(String::as_str)).collect();
    hosts.spawn(SHELF, "server.log", &program);
    eventually("the server listens", PATIENCE, || {
        let script = format!("ss -ltn | grep -q :{SHELF_PORT}");
        hosts.exec(SHELF, &["sh", "-c", &script]).code == 0
    });

    let url = format!("https://{address}:{SHELF_PORT}/x.db");
    let configuration =
        format!(r#"{{"scan-database-url": "{url}", "scan-database-interval": "1h"}}"#);
    let variables = [format!("SSL_CERT_FILE={}", files.path("ca.pem").display())];
    let start = |node: &HostNode| {
        let _ = hosts.start_configured(node.host, Kind::Brigd, &variables, &configuration);
    };
    // Nobody fetches before all may.
    for node in &nodes {
        stop(&hosts, node);
    }
    for node in &nodes {
        start(node);
    }
    let leader = || nodes.iter().find(|node| leads(node));
    eventually("everybody has the database", PATIENCE, || {
        nodes
            .iter()
            .all(|node| http::get(&node.socket(), "/brig/scan/database")["Vulnerabilities"] == 1)
            && leader().is_some_and(|node| fetching(node).is_some())
    });
    let old = leader().unwrap();
    assert_eq!(files.requests(), [format!("{} /x.db 200", old.address)]);

    // It is time for the others, and they do not lead.
    let others: Vec<&HostNode> = nodes.iter().filter(|node| node.host != old.host).collect();
    for node in &others {
        assert_eq!(fetching(node), None, "host {} does not lead", node.host);
        stop(&hosts, node);
        let note = serde_json::json!({"url": url, "attempted": 1, "next": 0});
        std::fs::write(node.data().join("scan/download.json"), note.to_string()).unwrap();
        start(node);
        eventually("it is a manager again", PATIENCE, || {
            let own = http::get(&node.socket(), "/v1.41/nodes/self");
            own["ManagerStatus"]["Reachability"] == "reachable"
        });
    }
    assert!(leads(old), "the leader stayed");
    assert_eq!(files.requests().len(), 1);

    let _ = hosts.script(&["kill", &old.host.to_string()]).ok();
    eventually("another one fetches", Duration::from_secs(60), || files.requests().len() == 2);
    let new = others.iter().find(|node| leads(node)).unwrap();
    assert!(files.requests()[1].starts_with(&new.address), "{:?}", files.requests());
    eventually("it says so", PATIENCE, || {
        fetching(new).is_some_and(|fetch| {
            fetch["Succeeded"].as_str().is_some_and(|at| !at.starts_with("1970"))
        })
    });
    assert_eq!(files.requests().len(), 2, "the other one does not");
}
