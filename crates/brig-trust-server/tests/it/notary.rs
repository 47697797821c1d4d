//! The real notary CLI against the server.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::Server;

pub(crate) struct Notary<'a> {
    pub(crate) url: String,
    pub(crate) ca: &'a Path,
    pub(crate) folder: &'a Path,
}

impl Notary<'_> {
    /// Runs it; says what it printed and whether all was well.
    pub(crate) fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut child = Command::new("notary")
            .args(["-s", &self.url, "--tlscacert"])
            .arg(self.ca)
            .arg("-d")
            .arg(self.folder)
            .args(arguments)
            .env("NOTARY_ROOT_PASSPHRASE", "rootpassword")
            .env("NOTARY_TARGETS_PASSPHRASE", "password")
            .env("NOTARY_SNAPSHOT_PASSPHRASE", "password")
            .env("NOTARY_DELEGATION_PASSPHRASE", "password")
            .env("HOME", self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("notary is installed");
        // To every question.
        let _ = child.stdin.take().unwrap().write_all(b"yes\nyes\n");
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let (good, text) = self.run(arguments);
        assert!(good, "{arguments:?}: {text}");
        text
    }
}

#[test]
fn every_command_that_talks_to_a_server() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let ca = server.path("ca.pem");
    let notary = Notary { url: server.url(), ca: &ca, folder: folder.path() };
    let other = tempfile::tempdir().unwrap();
    let reader = Notary { url: server.url(), ca: &ca, folder: other.path() };
    let gun = "example.com/collection";
    let file = folder.path().join("file");
    std::fs::write(&file, "hello").unwrap();
    let file = file.display().to_string();
    let lists = |who: &Notary<'_>, expected: &[&str]| {
        let text = who.ok(&["list", gun]);
        for tag in ["v1", "v2", "v3"] {
            assert_eq!(text.contains(tag), expected.contains(&tag), "{tag}: {text}");
        }
    };
    // The snapshot key is the client's at first.
    notary.ok(&["init", gun]);
    notary.ok(&["add", gun, "v1", &file]);
    notary.ok(&["publish", gun]);
    lists(&reader, &["v1"]);
    for rotation in [
        &["snapshot", "-r"][..],
        &["snapshot"],
        &["timestamp", "-r"],
        &["snapshot", "-r"],
        &["root"],
        &["targets"],
        &["root"],
    ] {
        notary.ok(&[&["key", "rotate", gun][..], rotation].concat());
        // Each step, and several at once.
        if rotation.len() == 2 {
            lists(&reader, &["v1"]);
        }
    }
    lists(&reader, &["v1"]);
    // A delegation whose key is in a certificate, an authority's as openssl makes it.
    let (key, certificate) = (folder.path().join("d.key"), folder.path().join("d.crt"));
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=d -days 300".split(' '))
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success());
    notary.ok(&["delegation", "add", "-p", gun, "targets/releases", &certificate, "--all-paths"]);
    notary.ok(&["key", "import", "--role", "targets/releases", &key]);
    notary.ok(&["add", "-p", gun, "v2", &file, "-r", "targets/releases"]);
    lists(&reader, &["v1", "v2"]);
    notary.ok(&["remove", "-p", gun, "v1"]);
    notary.ok(&["add", "-p", gun, "v3", &file]);
    lists(&reader, &["v2", "v3"]);
    notary.ok(&["delegation", "remove", "-p", "-y", gun, "targets/releases"]);
    lists(&reader, &["v3"]);
    notary.ok(&["delete", "--remote", gun]);
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Notary { url: server.url(), ca: &ca, folder: stranger.path() };
    let (good, text) = stranger.run(&["list", gun]);
    assert!(!good && text.contains("does not have trust data for example.com/collection"), "{text}");
    // Another one of the same name is no successor.
    notary.ok(&["init", "-p", gun]);
    notary.ok(&["list", gun]);
    let (good, text) = reader.run(&["list", gun]);
    assert!(!good && text.contains("could not rotate trust to a new trusted root"), "{text}");
}
