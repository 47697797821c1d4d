//! A daemon reached from elsewhere: docker's tutorial as it is typed, and what must not work.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use brig_e2e::remote::{Pki, Sshd, User, port};
use brig_e2e::{Brigd, eventually};

/// A daemon on a port with mutual TLS.
fn listen(pki: &Pki, more: &[&str]) -> (Brigd, String) {
    let host = format!("tcp://127.0.0.1:{}", port());
    let (ca, cert, key) =
        (pki.path("ca.pem"), pki.path("server-cert.pem"), pki.path("server-key.pem"));
    let mut flags =
        vec!["-H", &host, "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    flags.extend(more);
    (Brigd::start_with(&flags), host)
}

fn tls_flags(pki: &Pki, host: &str, prefix: &str) -> Vec<String> {
    let file = |name: &str| pki.path(name);
    [
        "--host",
        host,
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file(&format!("{prefix}cert.pem")),
        "--tlskey",
        &file(&format!("{prefix}key.pem")),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn with<'a>(flags: &'a [String], args: &[&'a str]) -> Vec<&'a str> {
    flags.iter().map(String::as_str).chain(args.iter().copied()).collect()
}

#[test]
fn the_tutorial_as_it_is_typed() {
    let pki = Pki::new();
    let (daemon, host) = listen(&pki, &[]);
    daemon.load_busybox();
    let sshd = Sshd::start(&daemon.socket());
    let flags = tls_flags(&pki, &host, "");
    for user in User::all() {
        user.knows(&sshd);
        let listed = user.run(&with(&flags, &["container", "ls"]));
        assert!(listed.ok().starts_with("CONTAINER ID"), "{listed:?}");

        let endpoint = format!(
            "host={host},ca={},cert={},key={}",
            pki.path("ca.pem"),
            pki.path("cert.pem"),
            pki.path("key.pem")
        );
        let made = user.run(&["context", "create", "over-tls", "--docker", &endpoint]);
        assert_eq!(made.ok(), "over-tls");
        assert!(made.stderr.contains("Successfully created context \"over-tls\""), "{made:?}");
        let _ =
            user.run(&["context", "create", "over-ssh", "--docker", "host=ssh://root@server"]).ok();
        let list = user.run(&["context", "ls"]);
        assert!(list.ok().contains(&host) && list.stdout.contains("ssh://root@server"), "{list:?}");

        for context in ["over-tls", "over-ssh"] {
            assert_eq!(user.run(&["context", "use", context]).ok(), context);
            let list = user.run(&["context", "ls"]);
            assert!(list.ok().contains(&format!("{context} *")), "{list:?}");
            let through = user.run_with(&["run", "--rm", "-i", "busybox", "cat"], b"through");
            assert_eq!(through.ok(), "through", "{through:?}");
            let both =
                user.run(&["run", "--rm", "busybox", "sh", "-c", "echo o; echo e >&2; exit 5"]);
            assert_eq!((both.code, both.stdout.as_str(), both.stderr.as_str()), (5, "o\n", "e\n"));
            let term =
                user.run_in_terminal(&["run", "--rm", "-it", "busybox", "sh", "-c", "tty; exit 3"]);
            assert_eq!(term.code, 3, "{term:?}");
            assert!(term.stdout.contains("/dev/pts/0"), "{term:?}");

            let _ = user.run(&["run", "-di", "--name", "box", "busybox", "cat"]).ok();
            let bulk = vec![b'x'; 1 << 20];
            let echoed = user.run_with(&["exec", "-i", "box", "cat"], &bulk);
            assert_eq!(echoed.ok().len(), bulk.len(), "{}", user.name);
            let _ = user.run(&["rm", "-f", "box"]).ok();
            let script = "read line; echo $line";
            let _ = user.run(&["run", "-di", "--name", "box", "busybox", "sh", "-c", script]).ok();
            let attached = user.run_with(&["attach", "box"], b"last words\n");
            assert_eq!(attached.ok(), "last words", "{attached:?}");
            let _ = user.run(&["rm", "-f", "box"]).ok();
            let _ = user.run(&["context", "use", "default"]).ok();
        }
    }
    let log = std::fs::read_to_string(daemon.log()).unwrap();
    assert!(log.contains("certificate \"client\" (sha256:"), "the log names who asked");
}

#[test]
fn brig_logs_in_once_for_all_its_connections() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let sshd = Sshd::start(&daemon.socket());
    let user = User::all().pop().unwrap();
    user.knows(&sshd);
    let host = format!("ssh://root@127.0.0.1:{}", sshd.port);
    let ran = user.run_with(&["-H", &host, "run", "--rm", "-i", "busybox", "cat"], b"once");
    assert_eq!(ran.ok(), "once");
    assert_eq!(sshd.logins(), 1);
    let socket = format!("{host}{}", daemon.socket().display());
    assert!(user.run(&["-H", &socket, "ps"]).ok().starts_with("CONTAINER ID"));
    // What ssh says is what the user sees.
    let failed = user.run(&["-H", "ssh://root@127.0.0.1:1", "ps"]);
    let text = failed.fails(1);
    assert!(text.starts_with("error during connect: command [ssh -o ConnectTimeout=30 "), "{text}");
    assert!(text.contains("has exited with exit status 255, make sure the URL is valid"), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[test]
fn nobody_gets_in_without_a_certificate_that_counts() {
    let pki = Pki::new();
    let (_daemon, host) = listen(&pki, &[]);
    let stranger = Pki::new();
    let users = User::all();
    for user in &users {
        let ca = pki.path("ca.pem");
        let none = user.run(&["--host", &host, "--tlsverify", "--tlscacert", &ca, "ps"]);
        assert!(none.fails(1).contains("ertificate"), "{none:?}");
        let mut flags = tls_flags(&stranger, &host, "");
        flags[4].clone_from(&ca);
        let unknown = user.run(&with(&flags, &["ps"]));
        assert!(!unknown.fails(1).contains("CONTAINER"), "{unknown:?}");
        let plain = user.run(&["--host", &host, "ps"]);
        assert!(
            plain.fails(1).contains("Client sent an HTTP request to an HTTPS server."),
            "{plain:?}"
        );
        // The other way round: the client does not talk to a server that it does not know.
        let mut flags = tls_flags(&pki, &host, "");
        flags[4] = stranger.path("ca.pem");
        let _ = user.run(&with(&flags, &["ps"])).fails(1);
        let anyone = user.run(&with(
            &tls_flags(&pki, &host, "")[..2],
            &[
                "--tls",
                "--tlscacert",
                &ca,
                "--tlscert",
                &pki.path("cert.pem"),
                "--tlskey",
                &pki.path("key.pem"),
                "ps",
            ],
        ));
        assert!(anyone.ok().starts_with("CONTAINER"), "{anyone:?}");
        let by_variables = user.run_env(
            &[
                ("DOCKER_HOST", &host),
                ("DOCKER_TLS_VERIFY", "1"),
                ("DOCKER_CERT_PATH", std::path::Path::new(&ca).parent().unwrap().to_str().unwrap()),
            ],
            &["ps", "-q"],
        );
        assert_eq!(by_variables.ok(), "");
    }
}

#[test]
fn a_revoked_certificate_is_out_at_once_and_a_new_one_is_in() {
    let pki = Pki::new();
    pki.client("thief", "stolen-");
    let revoked = pki.path("revoked");
    std::fs::write(&revoked, "").unwrap();
    let (daemon, host) = listen(&pki, &["--tlsrevoked", &revoked]);
    daemon.load_busybox();
    let user = User::all().pop().unwrap();
    let (thief, owner) = (tls_flags(&pki, &host, "stolen-"), tls_flags(&pki, &host, ""));
    let _ =
        user.run(&with(&owner, &["run", "-d", "--name", "box", "busybox", "sleep", "1000"])).ok();
    let open = |flags: &[String]| {
        let script = ["exec", "box", "sh", "-c", "echo in; sleep 1000"];
        let mut child = user
            .command(&with(flags, &script))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "in\n");
        child
    };
    let (mut inside, mut stays) = (open(&thief), open(&owner));
    let print = pki.sh("openssl x509 -noout -fingerprint -sha256 -in stolen-cert.pem");
    std::fs::write(&revoked, print + "\n").unwrap();
    eventually("the open stream is cut", Duration::from_secs(20), || {
        inside.try_wait().unwrap().is_some()
    });
    let refused = user.run(&with(&thief, &["ps"]));
    assert!(refused.fails(1).contains("evoked"), "{refused:?}");
    assert!(stays.try_wait().unwrap().is_none());

    // Another certificate of the server, in place: new connections get it, old ones go on.
    pki.server("next", 200);
    pki.sh("mv next-key.pem server-key.pem; mv next-cert.pem server-cert.pem");
    let shown = format!(
        "openssl s_client -connect {} </dev/null 2>/dev/null | openssl x509 -noout -serial",
        host.trim_start_matches("tcp://")
    );
    let wanted = pki.sh("openssl x509 -noout -serial -in server-cert.pem");
    eventually("the new certificate is shown", Duration::from_secs(20), || {
        pki.sh(&shown) == wanted
    });
    assert!(stays.try_wait().unwrap().is_none());
    let _ = user.run(&with(&owner, &["ps"])).ok();
    // Files that are no good are not taken over.
    pki.sh("chmod 0644 server-key.pem");
    eventually("the exposed key is told about", Duration::from_secs(20), || {
        std::fs::read_to_string(daemon.log()).unwrap().contains("the TLS files are kept")
    });
    let _ = user.run(&with(&owner, &["rm", "-f", "box"])).ok();
    let _ = stays.kill();
    let _ = stays.wait();
}

#[test]
fn what_cannot_be_safe_does_not_start() {
    let pki = Pki::new();
    pki.server("other", 365);
    pki.server("late", 0);
    pki.sh("cp server-key.pem open.pem; chmod 0644 open.pem");
    let file = |name: &str| pki.path(name);
    let host = format!("tcp://127.0.0.1:{}", port());
    let tls = |cert: &str, key: &str| {
        format!(
            r#"{{"tlsverify":true,"tlscacert":"{}","tlscert":"{}","tlskey":"{}"}}"#,
            file("ca.pem"),
            file(cert),
            file(key)
        )
    };
    for (cert, key, part) in [
        ("server-cert.pem", "open.pem", "can be read by others (mode 0644)"),
        ("server-cert.pem", "other-key.pem", "does not belong to the certificate"),
        ("late-cert.pem", "late-key.pem", "has expired on"),
        ("missing.pem", "server-key.pem", "there is no server certificate at"),
    ] {
        let mut daemon = Brigd::prepare(&["-H", &host]);
        daemon.configure(&tls(cert, key));
        // A certificate of no days is over a moment later.
        std::thread::sleep(Duration::from_secs(u64::from(cert.starts_with("late"))));
        daemon.spawn_unchecked();
        assert_ne!(daemon.wait_exit(), 0, "{cert} {key}");
        let log = std::fs::read_to_string(daemon.log()).unwrap();
        assert!(log.contains(part), "{log}");
    }
    for json in [r#"{"tls":true,"labels":["a=b"]}"#, "{}"] {
        let mut daemon = Brigd::prepare(&["-H", &host]);
        daemon.configure(json);
        daemon.spawn_unchecked();
        assert_ne!(daemon.wait_exit(), 0);
        let log = std::fs::read_to_string(daemon.log()).unwrap();
        assert!(log.contains("without verified TLS") && log.contains("--tlsverify"), "{log}");
    }
}

/// Memory that a process holds, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// How many idle connections: `BRIG_IDLE=10000` (`make stress`), half of them on the port and half
/// on the socket. Without it twice as many as each has places.
fn idle_connections() -> usize {
    std::env::var("BRIG_IDLE").map_or(4_000, |text| text.parse().expect("BRIG_IDLE is a number"))
}

#[test]
fn thousands_of_idle_connections_take_little_and_others_are_served() {
    /// Most memory that connections may take, however many there are: those beyond the places
    /// wait, or take the place of one that idles.
    const MOST: u64 = 100 << 20;
    let idle_each = idle_connections() / 2;
    const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, enough).unwrap();

    let pki = Pki::new();
    let (daemon, host) = listen(&pki, &[]);
    let before = resident(daemon.pid());
    let address = host.trim_start_matches("tcp://");
    let ping = || {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(PING).unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stream
    };
    let since = Instant::now();
    // Half open TLS on the port, and requests answered on the socket: none of them goes away.
    let half_open: Vec<_> = (0..idle_each).map(|_| TcpStream::connect(address).unwrap()).collect();
    let idle: Vec<_> = (0..idle_each).map(|_| ping()).collect();
    let opened = since.elapsed();
    let grown = resident(daemon.pid()).saturating_sub(before);
    let count = half_open.len() + idle.len();
    let held = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let since = Instant::now();
    drop(ping());
    let user = User::all().pop().unwrap();
    let _ = user.run(&with(&tls_flags(&pki, &host, ""), &["ps"])).ok();
    let served = since.elapsed();
    eprintln!(
        "{count} idle connections in {opened:?}, {held} files open in the daemon: {} KiB before, {} KiB more; a ping and a ps beside them in {served:?}",
        before >> 10,
        grown >> 10,
    );
    assert!(grown < MOST, "{grown} bytes more for {count} connections");
    assert!(served < Duration::from_secs(10), "{served:?}");
    drop((half_open, idle));
}

#[test]
fn a_head_that_trickles_is_cut() {
    let daemon = Brigd::start();
    let mut slow = UnixStream::connect(daemon.socket()).unwrap();
    let mut patient = UnixStream::connect(daemon.socket()).unwrap();
    // A body may take longer, also one that is there right behind its head: that is as long as
    // what is read at once.
    let mut sending = UnixStream::connect(daemon.socket()).unwrap();
    let head = "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 4\r\nX: ";
    let head = format!("{head}{:x<1$}\r\n\r\n", "", (8 << 10) - head.len() - 4);
    sending.write_all(format!("{head}[").as_bytes()).unwrap();
    slow.write_all(b"GET /_ping HTTP/1.1\r\nX: ").unwrap();
    let since = Instant::now();
    while slow.write_all(b"x").is_ok() {
        assert!(since.elapsed() < Duration::from_secs(40), "still open");
        std::thread::sleep(Duration::from_millis(250));
    }
    sending.write_all(b"  ]").unwrap();
    let mut answer = String::new();
    sending.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // A connection that just waits is left alone.
    patient.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    patient.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    patient.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    // Heads that are too big are refused.
    for head in [
        format!("GET /_ping HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100 << 10)),
        format!("GET /_ping HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(200)),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100 << 10)),
    ] {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The daemon may close before all of it is sent.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
