//! The trust server in the daemon, with docker's and notary's CLIs: what is published survives the
//! daemon and follows the node into a swarm; there every manager serves the same and takes
//! publications, also at the same time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::notary::{Notary, PASSPHRASE};
use brig_e2e::{Brigd, Output, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const GUN: &str = "reg.example/team/app";

fn flags(notary: &Notary) -> Vec<String> {
    notary.daemon_flags()
}

/// Everything that was printed: the notary CLI says on standard output what went wrong.
fn told(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

/// Whether any file below has this text in it.
fn is_in_clear(folder: &Path, text: &str) -> bool {
    let found = Command::new("grep").args(["-rqa", text]).arg(folder).status().unwrap();
    found.success()
}

fn content(folder: &Path) -> PathBuf {
    let file = folder.join("content");
    std::fs::write(&file, "hello").unwrap();
    file
}

#[test]
fn trust_data_survives_the_daemon_and_follows_it_into_a_swarm() {
    let notary = Notary::reserved();
    let flags = flags(&notary);
    let mut daemon = Brigd::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = content(folder.path());
    let run = |args: &[&str]| notary.cli(folder.path(), args);
    let add = |tag: &str| run(&["add", "-p", GUN, tag, file.to_str().unwrap()]);
    let tags = || {
        let listed = run(&["list", GUN]);
        let rows = listed.stdout.lines().filter(|line| line.ends_with(" targets"));
        rows.filter_map(|row| Some(row.split_whitespace().next()?.to_owned())).collect::<Vec<_>>()
    };
    eventually("it serves", PATIENCE, || run(&["init", "-p", GUN]).code == 0);
    add("v1").ok();
    daemon.kill();
    daemon.spawn();
    eventually("what was there is there", PATIENCE, || tags() == ["v1"]);
    add("v2").ok();

    daemon.init_swarm();
    let trust = daemon.data_root().join("trust-server");
    eventually("the file is put aside", PATIENCE, || !trust.join("trust.redb").exists());
    eventually("the swarm has it", PATIENCE, || tags() == ["v1", "v2"]);
    add("v3").ok();
    assert!(!is_in_clear(&daemon.data_root().join("swarm"), "team/app"), "names are sealed");
    run(&["key", "rotate", GUN, "snapshot", "-r"]).ok();
    daemon.kill();
    daemon.spawn();
    eventually("it survives as well", PATIENCE, || tags() == ["v1", "v2", "v3"]);
    // It belongs to the swarm: a backup has it, and who leaves has not.
    daemon.brig().run(&["swarm", "leave", "--force"]).ok();
    eventually("what was the swarm's is gone with it", PATIENCE, || {
        let other = tempfile::tempdir_in("/var/tmp").unwrap();
        told(&notary.cli(other.path(), &["list", GUN])).contains("does not have trust data")
    });
}

/// A manager's trust server as a host of the world reaches it.
struct Manager {
    node: HostNode,
    namespace: PathBuf,
}

/// Somebody with keys, who asks any of them.
struct Publisher<'a> {
    folder: tempfile::TempDir,
    authority: &'a Path,
}

impl Publisher<'_> {
    fn at(&self, manager: &Manager, args: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        let url = format!("https://{}:4443", manager.node.address);
        command
            .arg(format!("--net={}", manager.namespace.display()))
            .args(["timeout", "-k", "5", "60", "notary", "-s", &url, "--tlscacert"])
            .arg(self.authority)
            .arg("-d")
            .arg(self.folder.path())
            .args(args);
        for role in ["ROOT", "TARGETS", "SNAPSHOT", "DELEGATION"] {
            command.env(format!("NOTARY_{role}_PASSPHRASE"), PASSPHRASE);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        Output::of(format!("notary at {}: {}", manager.node.address, args.join(" ")), &output)
    }

    /// Tags that a role has, read as somebody who never read before.
    fn tags(&self, manager: &Manager, role: &str) -> Vec<String> {
        let reader = Publisher { folder: tempfile::tempdir_in("/var/tmp").unwrap(), ..*self };
        let listed = reader.at(manager, &["list", GUN, "-r", role]);
        let rows = listed.stdout.lines().filter(|line| line.trim_end().ends_with(role));
        rows.filter_map(|row| Some(row.split_whitespace().next()?.to_owned())).collect()
    }
}

fn certificates(folder: &Path) {
    let names = (1..=3).map(|host| format!("IP:198.18.222.{host}")).collect::<Vec<_>>().join(",");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "9", "-subj", "/CN=trust", "-keyout", "key.pem", "-out", "cert.pem"])
        .arg("-addext")
        .arg(format!("subjectAltName={names}"))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Each publishes for a role of its own through a manager of its own, while one manager is killed and
/// comes back: every acknowledged tag is there at the end, on every manager.
#[test]
fn every_manager_serves_and_takes_trust_data() {
    let files = tempfile::tempdir_in("/var/tmp").unwrap();
    certificates(files.path());
    let at = |name: &str| files.path().join(name).display().to_string();
    let configuration = serde_json::json!({ "trust-server": {
        "listen": "0.0.0.0:4443", "tlscert": at("cert.pem"), "tlskey": at("key.pem"),
    }})
    .to_string();
    let hosts = Hosts::up(3);
    let start = |host| {
        let node = hosts.start_configured(host, Kind::Brigd, &[], &configuration);
        Manager { node, namespace: hosts.network_namespace(host) }
    };
    let mut managers: Vec<Manager> = (1..=3).map(start).collect();
    let authority = files.path().join("cert.pem");
    let publisher =
        || Publisher { folder: tempfile::tempdir_in("/var/tmp").unwrap(), authority: &authority };
    let owner = publisher();
    // Before there is a swarm.
    eventually("it serves", PATIENCE, || owner.at(&managers[0], &["init", "-p", GUN]).code == 0);
    owner.at(&managers[0], &["key", "rotate", GUN, "snapshot", "-r"]).ok();
    managers[0].node.init_swarm();
    let token = managers[0].node.ok(&["swarm", "join-token", "-q", "worker"]);
    let peer = format!("{}:2377", managers[0].node.address);
    managers[2].node.ok(&["swarm", "join", "--token", &token, &peer]);
    eventually("a worker says where to ask", PATIENCE, || {
        told(&publisher().at(&managers[2], &["list", GUN])).contains("503")
    });
    managers[2].node.ok(&["swarm", "leave"]);
    let token = managers[0].node.ok(&["swarm", "join-token", "-q", "manager"]);
    for manager in &managers[1..] {
        manager.node.ok(&["swarm", "join", "--token", &token, &peer]);
        eventually("it has what the first one had", PATIENCE, || {
            publisher().at(manager, &["list", GUN]).code == 0
        });
    }
    // A role for each of them, with a key of its own.
    let publishers: Vec<Publisher<'_>> = (0..3).map(|_| publisher()).collect();
    for (at, publisher) in publishers.iter().enumerate() {
        let key = publisher.folder.path().join("key.pem");
        let generated = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-days", "9", "-subj", "/CN=signer", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(publisher.folder.path().join("cert.pem"))
            .output()
            .unwrap();
        assert!(generated.status.success());
        let role = format!("targets/m{at}");
        publisher
            .at(&managers[0], &["key", "import", key.to_str().unwrap(), "--role", "user"])
            .ok();
        let certificate = publisher.folder.path().join("cert.pem");
        let add =
            ["delegation", "add", "-p", GUN, &role, certificate.to_str().unwrap(), "--all-paths"];
        owner.at(&managers[at], &add).ok();
    }
    let acknowledged: Vec<Mutex<Vec<String>>> = (0..3).map(|_| Mutex::default()).collect();
    let content = content(files.path());
    let publish = |at: usize, through: &Manager, from: usize, count: usize| {
        let role = format!("targets/m{at}");
        for number in from..from + count {
            let tag = format!("v{number}");
            let args = ["add", "-p", GUN, &tag, content.to_str().unwrap(), "-r", &role];
            // While another manager is lost nobody is told for a moment that anything is stored.
            eventually("it is published", PATIENCE, || {
                let added = publishers[at].at(through, &args);
                if added.code != 0 {
                    println!("{} {}", told(&added), added.command);
                    publishers[at].at(through, &["reset", GUN, "--all"]).ok();
                }
                added.code == 0
            });
            acknowledged[at].lock().unwrap().push(tag);
        }
    };
    std::thread::scope(|scope| {
        for (at, manager) in managers.iter().enumerate() {
            scope.spawn(move || publish(at, manager, 0, 5));
        }
    });
    // One of them loses power; the others go on.
    hosts.script(&["kill", "1"]).ok();
    std::thread::scope(|scope| {
        for (at, manager) in managers.iter().enumerate().skip(1) {
            scope.spawn(move || publish(at, manager, 5, 5));
        }
    });
    hosts.script(&["boot", "1"]).ok();
    managers[0] = start(1);
    publish(0, &managers[0], 5, 2);
    for (at, acknowledged) in acknowledged.iter().enumerate() {
        let mut acknowledged = acknowledged.lock().unwrap().clone();
        assert_eq!(acknowledged.len(), if at == 0 { 7 } else { 10 });
        acknowledged.sort();
        for manager in &managers {
            eventually("every manager has all of it", PATIENCE, || {
                let mut tags = owner.tags(manager, &format!("targets/m{at}"));
                tags.sort();
                tags == acknowledged
            });
        }
    }
}
