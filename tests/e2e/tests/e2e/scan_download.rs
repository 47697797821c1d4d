//! The daemon fetches its vulnerability database by itself, from a server that has a new one, the same
//! one, something else, an older one, and is gone.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use brig_e2e::{Brigd, eventually, http};
use serde_json::Value;

/// Serves one file as it is at the time, and writes a line for each request: what version was asked
/// for, and the answer's status.
const SERVER: &str = r#"
import hashlib, http.server, ssl, sys
pair, served, log = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_GET(self):
        content = open(served, "rb").read()
        tag = '"' + hashlib.sha256(content).hexdigest()[:8] + '"'
        status = 304 if self.headers.get("If-None-Match") == tag else 200
        with open(log, "a") as lines:
            lines.write(f"{self.path} {status}\n")
        self.send_response(status)
        self.send_header("ETag", tag)
        if status == 200:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status == 200:
            self.wfile.write(content)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
    folder: tempfile::TempDir,
}

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

impl Server {
    fn start() -> Self {
        let folder =
            tempfile::Builder::new().prefix("brig-scan-download-").tempdir_in("/var/tmp").unwrap();
        let path = folder.path();
        std::fs::write(path.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        for arguments in [
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=localhost",
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out leaf.pem -days 2",
        ] {
            openssl(path, arguments);
        }
        let pair = ["leaf.pem", "leaf.key"].map(|name| std::fs::read(path.join(name)).unwrap());
        std::fs::write(path.join("pair.pem"), pair.concat()).unwrap();
        let mut child = Command::new("python3")
            .args(["-c", SERVER])
            .args(["pair.pem", "served.db", "requests"].map(|name| path.join(name)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap(), folder }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, content: &[u8]) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path("served.db")).unwrap();
    }

    /// A database that knows one flaw, fixed in this version.
    fn build(&self, daemon: &Brigd, fixed: &str) -> Vec<u8> {
        let (feed, database) = (self.path("tracker.json"), self.path("built.db"));
        let text = format!(
            r#"{{"openssl":{{"CVE-2026-4242":{{"releases":{{"bookworm":{{"status":"resolved","fixed_version":"{fixed}","urgency":"high"}}}}}}}}}}"#
        );
        std::fs::write(&feed, text).unwrap();
        let [feed, to] = [&feed, &database].map(|path| path.display().to_string());
        let _ = daemon.brig().run(&["scan", "db", "build", "--db", &to, &feed]).ok();
        std::fs::read(&database).unwrap()
    }

    fn requests(&self) -> Vec<String> {
        let lines = std::fs::read_to_string(self.path("requests")).unwrap_or_default();
        lines.lines().map(str::to_owned).collect()
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
    let old = server.build(&daemon, "3.0.1-1");
    // It is made in another second.
    std::thread::sleep(Duration::from_millis(1100));
    let new = server.build(&daemon, "3.0.2-1");
    server.serve(&new);
    daemon.set_variable("SSL_CERT_FILE", &server.path("ca.pem").display().to_string());
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
    assert_eq!(server.requests(), ["/x.db 200"]);

    // A restart is no reason to ask again.
    daemon.stop();
    daemon.spawn();
    eventually("it is known when", PATIENCE, || {
        shown(&daemon)["Fetch"]["Next"] == first["Fetch"]["Next"]
    });
    assert_eq!(server.requests().len(), 1);

    again(&mut daemon);
    assert_eq!(server.requests().last().unwrap(), "/x.db 304");
    assert_eq!(shown(&daemon)["Digest"], first["Digest"]);

    for (content, reason) in
        [(&b"this is no database"[..], "another kind"), (&old, "before the one that is in use")]
    {
        server.serve(content);
        again(&mut daemon);
        let after = shown(&daemon);
        assert_eq!(after["Digest"], first["Digest"]);
        let error = after["Fetch"]["Error"].as_str().unwrap_or_default();
        assert!(error.contains(reason), "{after}");
    }
    // Half of one, which is damaged.
    server.serve(&new[..new.len() - 1]);
    again(&mut daemon);
    assert_eq!(shown(&daemon)["Digest"], first["Digest"]);
    // What is good again is taken.
    let newest = server.build(&daemon, "3.0.3-1");
    server.serve(&newest);
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
