//! Identities of the engine's own authority: issued, enrolled, renewed, taken away; SSH keys that
//! are worth a role.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brig_e2e::remote::{Sshd, User, port};
use brig_e2e::{Brigd, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A daemon that makes its own certificates.
pub(crate) fn listen() -> (Brigd, String) {
    let host = format!("tcp://127.0.0.1:{}", port());
    (Brigd::start_with(&["-H", &host, "--tlsauto"]), host)
}

/// Issues a certificate and gives it to a user as the context `lab`.
fn issue(daemon: &Brigd, user: &User, name: &str, more: &[&str]) {
    let file = user.home().join(format!("{name}.dockercontext"));
    let path = file.to_str().unwrap();
    let mut args = vec!["access", "issue", name, "--out", path];
    args.extend(more);
    assert_eq!(daemon.brig().run(&args).ok(), path);
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(user.run(&["context", "import", "lab", path]).ok(), "lab");
}

fn ends(mut child: Child) -> String {
    eventually("the stream ends", SOON, || child.try_wait().unwrap().is_some());
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn follow(user: &User, args: &[&str]) -> Child {
    user.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn an_issued_context_works_with_every_client_until_it_is_revoked() {
    let (mut daemon, _) = listen();
    daemon.load_busybox();
    let brig = daemon.brig();
    let script = "echo begun; while sleep 1; do echo on; done";
    let _ = brig.run(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]).ok();
    let users = User::all();
    for (number, user) in users.iter().enumerate() {
        let name = format!("ann{number}");
        issue(&daemon, user, &name, &["--role", "viewer"]);
        let ps = user.run(&["--context", "lab", "ps", "--format", "{{.Names}}"]);
        assert_eq!(ps.ok(), "box", "{ps:?}");
        let denied = user.run(&["--context", "lab", "rm", "-f", "box"]);
        assert!(denied.fails(1).contains("authorization denied by policy"), "{denied:?}");
        let again = brig.run(&["access", "issue", &name, "--role", "admin", "--out", "-"]);
        assert!(again.fails(1).contains(&format!("brig access revoke {name}")), "{again:?}");
        let path = user.home().join(format!("{name}.dockercontext"));
        let twice =
            brig.run(&["access", "issue", "x", "--role", "viewer", "-o", path.to_str().unwrap()]);
        assert!(twice.fails(1).contains("exists already"), "{twice:?}");

        // Streams that are open end within seconds, and nothing begins any more.
        let logs = follow(user, &["--context", "lab", "logs", "-f", "box"]);
        let events = follow(user, &["--context", "lab", "events"]);
        std::thread::sleep(Duration::from_secs(2));
        let at = Instant::now();
        assert_eq!(brig.run(&["access", "revoke", &name]).ok(), name);
        assert!(ends(logs).contains("begun"));
        let _ = ends(events);
        assert!(at.elapsed() < Duration::from_secs(8), "{:?}", at.elapsed());
        assert!(!user.run(&["--context", "lab", "ps"]).fails(1).contains("CONTAINER"));
        let _ = user.run(&["context", "rm", "-f", "lab"]).ok();
        issue(&daemon, user, &format!("bob{number}"), &["--role", "admin"]);
    }
    let listed =
        brig.run(&["access", "identities", "-a", "--format", "{{.Name}} {{.Status}} {{.Role}}"]);
    assert!(listed.ok().contains("ann0 revoked viewer"), "{listed:?}");
    let expiring = brig.run(&["system", "expiring", "--format", "{{.Kind}} {{.Name}}"]);
    assert!(expiring.ok().contains("access-ca access authority"), "{expiring:?}");
    assert!(expiring.stdout.contains("access-certificate bob0"), "{expiring:?}");
    assert!(!expiring.stdout.contains("ann0"), "{expiring:?}");
    let audit = brig.run(&["audit", "ls"]);
    assert!(
        audit.ok().contains("access.issue") && audit.stdout.contains("access.revoke"),
        "{audit:?}"
    );
    let explained = brig.run(&["auth", "explain", "--as", "cert:bob0", "container.remove"]);
    assert!(explained.ok().contains("role: admin"), "{explained:?}");

    // What was issued and what was taken away outlasts the daemon.
    daemon.stop();
    daemon.spawn();
    for (number, user) in users.iter().enumerate() {
        assert_eq!(user.run(&["--context", "lab", "ps", "-q", "--no-trunc"]).ok().len(), 64);
        let old = user.home().join(format!("ann{number}.dockercontext"));
        let _ = user.run(&["context", "import", "old", old.to_str().unwrap()]).ok();
        assert!(!user.run(&["--context", "old", "ps"]).fails(1).contains("CONTAINER"));
    }
    let _ = brig.run(&["rm", "-f", "box"]).ok();
}

#[test]
fn openssl_agrees_with_what_was_issued() {
    let (daemon, host) = listen();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let sh = |script: &str| {
        let output =
            Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let file = dir.path().join("c.tar");
    let args = ["access", "issue", "ci", "--role", "deployer", "--service", "web", "--out"];
    let _ = daemon.brig().run(&[&args[..], &[file.to_str().unwrap()]].concat()).ok();
    let _ = sh("tar xf c.tar");
    let verified = sh(
        "openssl verify -purpose sslclient -x509_strict -CAfile tls/docker/ca.pem tls/docker/cert.pem",
    );
    assert!(verified.contains("OK"), "{verified}");
    let subject = sh("openssl x509 -noout -subject -in tls/docker/cert.pem");
    assert!(subject.contains("CN = ci") && subject.contains("OU = deployer"), "{subject}");
    let port = daemon.data_root().join("access/port-cert.pem");
    let _ = sh(&format!(
        "openssl verify -purpose sslserver -verify_ip 127.0.0.1 -CAfile tls/docker/ca.pem {}",
        port.display()
    ));
    for file in ["authority", "port-key.pem"] {
        let mode = std::fs::metadata(daemon.data_root().join("access").join(file)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    // Whoever has no certificate gets nothing out of the port, whatever protocol they name.
    let address = host.trim_start_matches("tcp://");
    for alpn in ["http/1.1", "brig-enroll/1"] {
        let script = format!(
            "printf 'GET /_ping HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | timeout 10 openssl s_client -connect {address} -alpn {alpn} -quiet 2>/dev/null || true"
        );
        assert!(!sh(&script).contains("HTTP/1.1 200"), "{alpn}");
    }
    let listed =
        daemon.brig().run(&["access", "identities", "--format", "{{.Services}} {{.Fingerprint}}"]);
    let print = sh("openssl x509 -noout -fingerprint -sha256 -in tls/docker/cert.pem");
    let print = print.rsplit('=').next().unwrap().trim().replace(':', "").to_lowercase();
    assert_eq!(listed.ok(), format!("web {print}"));
}

#[test]
fn a_certificate_ends_in_time_unless_its_holder_renews_it() {
    let (daemon, _) = listen();
    let user = User::all().pop().unwrap();
    issue(&daemon, &user, "once", &["--role", "viewer", "--ttl", "3s"]);
    let _ = user.run(&["--context", "lab", "ps"]).ok();
    eventually("it is refused", SOON, || user.run(&["--context", "lab", "ps"]).code == 1);
    let _ = user.run(&["context", "rm", "-f", "lab"]).ok();
    issue(&daemon, &user, "long", &["--role", "viewer", "--ttl", "10s", "--renew"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        let _ = user.run(&["--context", "lab", "ps"]).ok();
        std::thread::sleep(Duration::from_secs(2));
    }
    let _ = daemon.brig().run(&["access", "revoke", "long"]).ok();
    assert!(!user.run(&["--context", "lab", "ps"]).fails(1).contains("CONTAINER"), "all of them");
}

pub(crate) fn enroll(user: &User, host: &str, context: &str) -> (Child, String) {
    let mut child = user
        .command(&["access", "enroll", host, "--name", "laptop", "--context", context])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let code = line.trim().strip_prefix("Code: ").unwrap_or_default().to_owned();
    (child, code)
}

#[test]
fn enrolment_takes_a_code_that_both_sides_show() {
    let (daemon, host) = listen();
    let brig = daemon.brig();
    let user = User::all().pop().unwrap();
    let closed = user.run(&["access", "enroll", &host]);
    assert!(closed.fails(1).contains("brig access open"), "{closed:?}");
    let _ = brig.run(&["access", "open", "--for", "5m"]).ok();
    let (mut child, code) = enroll(&user, &host, "engine");
    let pending = brig.run(&["access", "pending", "--format", "{{.Code}} {{.Name}}"]);
    assert_eq!(pending.ok(), format!("{code} laptop"));
    let wrong = brig.run(&["access", "approve", "0000-0000", "--role", "admin"]);
    assert!(wrong.fails(1).contains("in between"), "{wrong:?}");
    let approved = brig.run(&["access", "approve", &code, "--role", "viewer", "--ttl", "1h"]);
    assert_eq!(approved.ok(), "laptop", "{approved:?}");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"y\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");

    // The context is docker's too.
    let config = user.home().join("config");
    for client in User::all() {
        let env = [("DOCKER_CONFIG", config.to_str().unwrap())];
        let ps = client.run_env(&env, &["--context", "engine", "ps"]);
        assert!(ps.ok().starts_with("CONTAINER ID"), "{ps:?}");
    }
    assert!(!user.run(&["--context", "engine", "volume", "create", "v"]).fails(1).is_empty());
    // Whoever did not approve anything keeps nothing.
    let (mut child, code) = enroll(&user, &host, "other");
    let _ = brig.run(&["access", "approve", &code, "--role", "viewer", "--name", "second"]).ok();
    drop(child.stdin.take());
    assert!(!child.wait().unwrap().success());
    assert!(user.run(&["context", "inspect", "other"]).code != 0);
    let (mut child, code) = enroll(&user, &host, "third");
    assert_eq!(brig.run(&["access", "deny", &code]).ok(), code);
    assert!(!child.wait().unwrap().success());
    assert_eq!(brig.run(&["access", "open", "--close"]).ok(), "closed");
    let closed = user.run(&["access", "enroll", &host, "--context", "fourth"]);
    assert!(closed.fails(1).contains("brig access open"), "{closed:?}");
    // Whoever is led to another engine shows a code that this one does not know.
    let (other, elsewhere) = listen();
    let _ = other.brig().run(&["access", "open"]).ok();
    let _ = brig.run(&["access", "open"]).ok();
    let (mut led, code) = enroll(&user, &elsewhere, "led");
    let refused = brig.run(&["access", "approve", &code, "--role", "admin"]);
    assert!(refused.fails(1).contains("somebody in between"), "{refused:?}");
    // Told, not killed: it runs below `timeout`.
    assert!(Command::new("kill").arg(led.id().to_string()).status().unwrap().success());
    let _ = led.wait();
    eventually("its place is free", SOON, || {
        other.brig().run(&["access", "pending", "-q"]).ok().is_empty()
    });
    let _ = brig.run(&["access", "revoke", "laptop"]).ok();
    assert!(!user.run(&["--context", "engine", "ps"]).fails(1).contains("CONTAINER"));
}

#[test]
fn a_swarm_takes_the_identities_over_and_gives_them_back_when_it_ends() {
    let (mut daemon, _) = listen();
    let user = User::all().pop().unwrap();
    issue(&daemon, &user, "before", &["--role", "admin"]);
    let kept = std::fs::read(daemon.data_root().join("access/authority")).unwrap();
    let kept = String::from_utf8_lossy(&kept).into_owned();
    let key =
        kept.split("BEGIN PRIVATE KEY-----\n").nth(1).unwrap().lines().next().unwrap().to_owned();
    daemon.init_swarm();
    let ps = |context: &str| user.run(&["--context", context, "ps"]).code;
    assert_eq!(ps("lab"), 0);
    let file = daemon.data_root().join("access/authority");
    let has_key = || {
        let bytes = std::fs::read(&file).unwrap();
        bytes.windows(11).any(|part| part == b"PRIVATE KEY")
    };
    eventually("the key is in the sealed store only", SOON, || !has_key());
    let found = Command::new("grep").args(["-rlF", &key]).arg(daemon.data_root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "nowhere in the clear");
    let brig = daemon.brig();
    let args = ["access", "issue", "within", "--role", "viewer", "--out"];
    let path = user.home().join("within.tar");
    let _ = brig.run(&[&args[..], &[path.to_str().unwrap()]].concat()).ok();
    let _ = user.run(&["context", "import", "within", path.to_str().unwrap()]).ok();
    assert_eq!(ps("within"), 0);
    daemon.stop();
    daemon.spawn();
    assert_eq!((ps("lab"), ps("within")), (0, 0));
    let _ = brig.run(&["access", "revoke", "within"]).ok();
    assert_eq!((ps("lab"), ps("within")), (0, 1));
    let _ = brig.run(&["swarm", "leave", "--force"]).ok();
    eventually("the key is the engine's again", SOON, has_key);
    assert_eq!((ps("lab"), ps("within")), (0, 1), "what was revoked stays so");
}

/// A login of this host, for as long as a test runs.
struct LoginOfHost {
    name: String,
    home: tempfile::TempDir,
}

impl LoginOfHost {
    fn new() -> Self {
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        let name = format!("brig{}", port());
        let made = Command::new("useradd")
            .args(["-M", "-p", "*", "-s", "/bin/sh", "-d"])
            .args([home.path(), Path::new(&name)])
            .status()
            .unwrap();
        assert!(made.success());
        let own = Command::new("chown").args([&name, home.path().to_str().unwrap()]).status();
        assert!(own.unwrap().success());
        Self { name, home }
    }
}

impl Drop for LoginOfHost {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}

#[test]
fn an_ssh_key_is_worth_its_role_and_no_shell() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    std::fs::set_permissions(daemon.root(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let login = LoginOfHost::new();
    let sshd = Sshd::start_for_logins();
    let brig = daemon.brig();
    let key = sshd.public_key();
    let args = ["access", "ssh", "add", &key, "--role", "viewer", "--user", &login.name];
    let print = brig.run(&args).ok().to_owned();
    assert!(print.starts_with("SHA256:"), "{print}");
    assert!(brig.run(&args).fails(1).contains("already"));
    let listed =
        brig.run(&["access", "ssh", "ls", "--format", "{{.Fingerprint}} {{.User}} {{.Role}}"]);
    assert_eq!(listed.ok(), format!("{print} {} viewer", login.name));
    let line = std::fs::read_to_string(login.home.path().join(".ssh/authorized_keys")).unwrap();
    assert!(line.starts_with("restrict,command=\""), "{line}");

    let host = format!("ssh://{}@server", login.name);
    let users = User::all();
    for round in 0..2 {
        for user in &users {
            user.knows(&sshd);
            let images = user.run(&["-H", &host, "images", "-q"]);
            assert_eq!(images.ok().len(), 12, "{images:?}");
            let denied = user.run(&["-H", &host, "run", "--rm", "busybox", "true"]);
            assert!(denied.stderr.contains("authorization denied by policy"), "{denied:?}");
            for words in [&["id"][..], &["sh", "-c", "docker system dial-stdio"], &[]] {
                let tried = Command::new(user.home().join("bin/ssh"))
                    .arg(format!("{}@server", login.name))
                    .args(words)
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                assert!(!tried.status.success() && tried.stdout.is_empty(), "{tried:?}");
                assert!(
                    String::from_utf8_lossy(&tried.stderr).contains("not a shell"),
                    "{tried:?}"
                );
            }
        }
        if round == 0 {
            daemon.stop();
            daemon.spawn();
        }
    }
    let audit = brig.run(&["audit", "ls", "--denied"]);
    assert!(audit.ok().contains(&format!("ssh:{print}")), "{audit:?}");
    let events = follow(&users[0], &["-H", &host, "events"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(brig.run(&["access", "ssh", "rm", &print]).ok(), print);
    let _ = ends(events);
    for user in &users {
        assert_ne!(user.run(&["-H", &host, "images"]).code, 0);
    }
    let left = std::fs::read_to_string(login.home.path().join(".ssh/authorized_keys")).unwrap();
    assert_eq!(left, "");
}
