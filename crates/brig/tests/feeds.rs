//! `scan db update` by address, against a server that does what servers do.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const BRIG: &str = env!("CARGO_BIN_EXE_brig");
const FEED: &str = r#"{"id":"GHSA-aaaa-bbbb-cccc","aliases":["CVE-2026-1"],"modified":"2026-01-01T00:00:00Z",
"affected":[{"package":{"ecosystem":"npm","name":"a"},
"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.2.3"}]}]}]}"#;

struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done =
        Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("brig-feeds").tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            path,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
        );
        openssl(
            path,
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=localhost",
        );
        openssl(
            path,
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out leaf.pem -days 2",
        );
        let pair = [fs::read(path.join("leaf.pem")), fs::read(path.join("leaf.key"))];
        fs::write(path.join("pair.pem"), pair.map(Result::unwrap).concat()).unwrap();
        fs::write(path.join("feed.json"), FEED).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/feeds.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args([path.join("pair.pem"), path.join("feed.json")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        Self { child, lines, port: line.trim().parse().unwrap(), folder }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// Updates from feeds of these names; whether that worked, and all that was said.
    fn update(&self, names: &[&str], more: &[&str]) -> (bool, String) {
        let mut command = Command::new(BRIG);
        command.args(["scan", "db", "update", "--db"]).arg(self.database()).args(more);
        for name in names {
            command.arg("--feed").arg(format!("https://localhost:{}/{name}/a.json", self.port));
        }
        let output = command
            .env("SSL_CERT_FILE", self.folder.path().join("ca.pem"))
            .env_remove("DOCKER_HOST")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The next requests, as the server noted them.
    fn asked(&mut self, count: usize) -> Vec<String> {
        (0..count)
            .map(|_| {
                let mut line = String::new();
                self.lines.read_line(&mut line).unwrap();
                line.trim().to_owned()
            })
            .collect()
    }

    fn status(&self) -> String {
        let output = Command::new(BRIG)
            .args(["scan", "db", "status", "--verify", "--db"])
            .arg(self.database())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn what_did_not_change_is_not_fetched_again() {
    let mut server = Server::start();
    let (worked, text) = server.update(&["whole"], &[]);
    assert!(worked, "{text}");
    assert!(text.contains("1 vulnerabilities in 1 packages"), "{text}");
    assert!(server.status().contains("/whole/a.json"));
    let (worked, text) = server.update(&["whole", "moved"], &[]);
    assert!(worked, "{text}");
    assert!(text.contains("not changed"), "{text}");
    assert_eq!(
        server.asked(4),
        [
            "/whole/a.json - - 200",
            "/whole/a.json - \"1\" 304",
            "/moved/a.json - - 302",
            "/whole/a.json - - 200"
        ]
    );
    // Damaged where it is kept: fetched anew.
    let feeds = server.folder.path().join("a.db.feeds");
    for entry in fs::read_dir(feeds).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|ending| ending == "feed") {
            fs::write(entry.path(), "{}").unwrap();
        }
    }
    let (worked, text) = server.update(&["whole"], &[]);
    assert!(worked, "{text}");
    assert_eq!(server.asked(1), ["/whole/a.json - - 200"]);
}

#[test]
fn what_broke_off_goes_on_where_it_ended() {
    let mut server = Server::start();
    let half = FEED.len() / 2;
    let (worked, text) = server.update(&["half"], &[]);
    assert!(worked, "{text}");
    assert_eq!(
        server.asked(2),
        ["/half/a.json - - 200".to_owned(), format!("/half/a.json bytes={half}- - 206")]
    );
    // What changed in between is not put together.
    let (worked, text) = server.update(&["changing"], &[]);
    assert!(worked, "{text}");
    assert_eq!(
        server.asked(2),
        ["/changing/a.json - - 200".to_owned(), format!("/changing/a.json bytes={half}- - 200")]
    );
    // A server that sends another part than was asked for is asked for all.
    let (worked, text) = server.update(&["wrong-part"], &[]);
    assert!(worked, "{text}");
    assert_eq!(
        server.asked(3),
        [
            "/wrong-part/a.json - - 200".to_owned(),
            format!("/wrong-part/a.json bytes={half}- - 206"),
            "/wrong-part/a.json - - 200".to_owned()
        ]
    );
    server.status();
}

#[test]
fn a_feed_that_cannot_be_had_leaves_the_database_as_it_is() {
    let server = Server::start();
    let (worked, text) = server.update(&["whole"], &[]);
    assert!(worked, "{text}");
    let before = fs::read(server.database()).unwrap();
    for (name, reason) in [
        ("page", "a.json"),
        ("gone", "status 404"),
        ("always-half", "fetching https://"),
        ("circle", "redirects more than"),
        ("plain", "is not https"),
        ("large", "is larger than"),
    ] {
        let (worked, text) = server.update(&["whole", name], &[]);
        assert!(!worked, "{name}: {text}");
        assert!(text.contains(reason), "{name}: {text}");
        assert!(text.contains("the database stays as it is: a could not be read"), "{text}");
        assert_eq!(fs::read(server.database()).unwrap(), before, "{name}");
    }
    let (worked, text) = server.update(&["whole", "gone"], &["--allow-missing"]);
    assert!(worked, "{text}");
    // A page that a server sends in a feed's place is not kept as the feed.
    let (_, text) = server.update(&["page"], &[]);
    assert!(!text.contains("not changed"), "{text}");
    // Nobody whom the system does not know is listened to.
    let output = Command::new(BRIG)
        .args(["scan", "db", "update", "--db"])
        .arg(server.database())
        .args(["--feed", &format!("https://localhost:{}/whole/a.json", server.port)])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("certificate"));
}
