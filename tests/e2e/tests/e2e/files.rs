//! Files in and out of containers, by every client.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use brig_e2e::{Brigd, Client};

/// A tree with everything that archives have.
fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::write(dir.join("f"), "hello\n").unwrap();
    fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(dir.join("f"), Some(1234), Some(4321)).unwrap();
    fs::write(dir.join("sub/deep").join("n".repeat(150)), vec![b'x'; 3 << 20]).unwrap();
    fs::hard_link(dir.join("f"), dir.join("h")).unwrap();
    symlink("f", dir.join("l")).unwrap();
    symlink("/etc/passwd", dir.join("abs")).unwrap();
}

fn same(a: &Path, b: &Path) -> bool {
    let status = std::process::Command::new("diff").arg("-r").arg(a).arg(b).status();
    status.unwrap().success()
}

fn exec(client: &Client, name: &str, line: &str) -> String {
    client.run(&["exec", name, "sh", "-c", line]).ok().to_owned()
}

/// One request over the socket: status, headers and body as they come.
fn request(daemon: &Brigd, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

#[test]
fn copies_go_both_ways_while_it_runs_and_when_it_is_stopped() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let top = tempfile::tempdir_in("/var/tmp").unwrap();
    let src = top.path().join("src");
    tree(&src);
    let text = |path: &Path| path.display().to_string();
    for (n, client) in daemon.clients().into_iter().enumerate() {
        let out = top.path().join(format!("out{n}"));
        fs::create_dir(&out).unwrap();
        let run = [
            "run",
            "-d",
            "--name",
            "ct",
            "-v",
            "data:/vol",
            "--tmpfs",
            "/mem",
            "--network",
            "none",
            "busybox",
            "sleep",
            "1000",
        ];
        let _ = client.run(&run).ok();
        let _ = client.run(&["cp", &text(&src), "ct:/new"]).ok();
        let _ = client.run(&["cp", &text(&src), "ct:/vol"]).ok();
        let _ = client.run(&["cp", &text(&src.join("f")), "ct:/mem/"]).ok();
        let _ = client.run(&["cp", &format!("{}/.", text(&src)), "ct:/root"]).ok();
        let seen = exec(
            &client,
            "ct",
            "cat /mem/f /root/f /vol/src/f; readlink /new/abs; stat -c '%u:%g %a %h' /new/f",
        );
        assert_eq!(seen, "hello\nhello\nhello\n/etc/passwd\n1234:4321 640 2");
        let owned = client.run(&["cp", "-a", &text(&src.join("f")), "ct:/owned"]);
        let _ = owned.ok();

        let _ = client.run(&["cp", "ct:/new", &text(&out)]).ok();
        assert!(same(&src, &out.join("new")), "{}", client.name);
        assert_eq!(fs::metadata(out.join("new/f")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(out.join("new/f")).unwrap().uid(), 0, "the caller's");
        let _ = client.run(&["cp", "ct:/new/.", &text(&out.join("dot"))]).ok();
        assert!(same(&src, &out.join("dot")));
        let _ = client.run(&["cp", "ct:/new/l", &text(&out)]).ok();
        assert_eq!(fs::read_link(out.join("l")).unwrap(), Path::new("f"));
        let _ = client.run(&["cp", "-L", "ct:/new/l", &text(&out.join("followed"))]).ok();
        assert_eq!(fs::read(out.join("followed")).unwrap(), b"hello\n");
        // A link in a container leads into the container.
        let _ = client.run(&["cp", "-L", "ct:/new/abs", &text(&out.join("passwd"))]).ok();
        assert_eq!(
            fs::read_to_string(out.join("passwd")).unwrap().trim_end(),
            exec(&client, "ct", "cat /etc/passwd")
        );
        let archive = client.command(&["cp", "ct:/vol/src/f", "-"]).output().unwrap();
        assert!(archive.status.success());
        fs::write(out.join("f.tar"), &archive.stdout).unwrap();
        let mut fed = client.command(&["cp", "-", "ct:/mem/sub"]);
        let _ = exec(&client, "ct", "mkdir /mem/sub");
        fed.stdin(fs::File::open(out.join("f.tar")).unwrap());
        assert!(fed.output().unwrap().status.success());
        assert_eq!(exec(&client, "ct", "cat /mem/sub/f"), "hello");

        let missing = client.run(&["cp", "ct:/nope", &text(&out)]);
        assert!(missing.fails(1).contains("ct"), "{}", missing.stderr);
        assert!(client.run(&["cp", "/no/such/file", "ct:/"]).fails(1).contains("lstat /no"));
        assert!(
            client
                .run(&["cp", &text(&src), "ct:/root/f"])
                .fails(1)
                .contains("cannot copy directory")
        );
        assert!(
            client
                .run(&["cp", &text(&src.join("f")), "ct:/none/"])
                .fails(1)
                .contains("no such directory")
        );
        assert!(
            client
                .run(&["cp", "ct:/x", "ct:/y"])
                .fails(1)
                .contains("copying between containers is not supported")
        );
        assert!(
            client
                .run(&["cp", "a", "b"])
                .fails(1)
                .contains("must specify at least one container source")
        );

        let _ = client.run(&["kill", "ct"]).ok();
        let _ = client.run(&["cp", &text(&src.join("f")), "ct:/vol/late"]).ok();
        let _ = client.run(&["cp", "ct:/vol/late", &text(&out)]).ok();
        let _ = client.run(&["cp", "ct:/etc/hosts", &text(&out)]).ok();
        assert_eq!(fs::read(out.join("late")).unwrap(), b"hello\n");
        assert!(fs::metadata(out.join("hosts")).unwrap().len() > 0);
        let _ = client.run(&["start", "ct"]).ok();
        assert_eq!(exec(&client, "ct", "cat /vol/late"), "hello");
        let _ = client.run(&["rm", "-f", "ct"]).ok();
        // One that never ran.
        let _ = client
            .run(&["create", "--name", "ct", "-v", "/fresh", "busybox", "cat", "/fresh/f"])
            .ok();
        let _ = client.run(&["cp", &text(&src.join("f")), "ct:/fresh/"]).ok();
        assert_eq!(client.run(&["start", "-a", "ct"]).ok(), "hello");
        let _ = client.run(&["rm", "-fv", "ct"]).ok();
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let rootfs = daemon.exec_root().join("rootfs").display().to_string();
    assert_eq!(mounts.matches(&format!("{rootfs}/")).count(), 0, "no view stays mounted");
}

#[test]
fn hostile_paths_stay_in_the_container() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let outside = daemon.root().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "host").unwrap();
    let target = outside.display().to_string();
    let _ = brig.run(&["run", "-d", "--name", "ct", "busybox", "sleep", "1000"]).ok();
    let up = "../".repeat(20);
    let script = format!(
        "ln -s {target} /abs; ln -s {up}{target} /rel; ln -s /proc/1/root /magic; mkfifo /pipe; ln -s loop /loop"
    );
    let _ = exec(&brig, "ct", &script);
    let file = daemon.root().join("f");
    fs::write(&file, "mine").unwrap();
    let file = file.display().to_string();
    let local = daemon.root().join("got").display().to_string();
    for path in [
        "/abs/secret",
        "/rel/secret",
        &format!("/{up}{target}/secret"),
        "/magic/etc/passwd",
        "/loop/x",
    ] {
        let got = brig.run(&["cp", &format!("ct:{path}"), &local]);
        assert_eq!(got.code, 1, "{path}");
        let put = brig.run(&["cp", &file, &format!("ct:{path}")]);
        assert_eq!(put.code, 1, "{path}");
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "host");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    // A pipe is copied as one: nobody waits for its other end.
    let _ = brig.run(&["cp", "ct:/pipe", &local]).ok();
    // An archive that makes a link and then writes through it, as a hostile image would hand it
    // to the one who copies.
    let _ = exec(&brig, "ct", &format!("mkdir /evil; ln -s {target} /evil/link"));
    let into = daemon.root().join("into");
    fs::create_dir(&into).unwrap();
    symlink(&target, into.join("evil")).unwrap();
    let _ = brig.run(&["cp", "ct:/evil", &into.display().to_string()]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing is written through a link");
}

#[test]
fn places_that_cannot_be_written_say_so() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let file = daemon.root().join("f");
    fs::write(&file, "x").unwrap();
    let file = file.display().to_string();
    for client in daemon.clients() {
        let run = [
            "run",
            "-d",
            "--name",
            "ct",
            "--read-only",
            "-v",
            "ro:/ro:ro",
            "-v",
            "rw:/rw",
            "busybox",
            "sleep",
            "1000",
        ];
        let _ = client.run(&run).ok();
        for _ in ["running", "stopped"] {
            let root = client.run(&["cp", &file, "ct:/etc"]);
            assert!(
                root.fails(1).contains("container rootfs is marked read-only"),
                "{}",
                root.stderr
            );
            let volume = client.run(&["cp", &file, "ct:/ro"]);
            assert!(
                volume.fails(1).contains("mounted volume is marked read-only"),
                "{}",
                volume.stderr
            );
            let _ = client.run(&["cp", &file, "ct:/rw"]).ok();
            let _ = client.run(&["kill", "ct"]);
        }
        let _ = client.run(&["rm", "-fv", "ct"]).ok();
    }
}

#[test]
fn the_archive_routes_themselves() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ =
        brig.run(&["run", "-d", "--name", "ct", "-u", "33:33", "busybox", "sleep", "1000"]).ok();
    let head = |path: &str| {
        request(&daemon, &format!("HEAD /v1.41/containers/ct/archive?path={path}"), b"").0
    };
    let found = head("/bin");
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    assert!(
        found
            .to_lowercase()
            .contains("x-docker-container-path-stat: eyJuYW1lIjoiYmluIi".to_lowercase().as_str()),
        "{found}"
    );
    assert!(head("/nope").starts_with("HTTP/1.1 404"));
    assert!(head("").starts_with("HTTP/1.1 400"));
    let (answer, body) = request(&daemon, "GET /v1.41/containers/ct/archive?path=/nope", b"");
    assert!(answer.starts_with("HTTP/1.1 404"));
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(text.contains("Could not find the file /nope in container ct"), "{text}");
    // Compressed, and given to the container's user.
    let packed = std::process::Command::new("sh")
        .args(["-c", "cd /etc && tar cz hostname"])
        .output()
        .unwrap()
        .stdout;
    let put = |query: &str, body: &[u8]| {
        request(&daemon, &format!("PUT /v1.41/containers/ct/archive?{query}"), body).0
    };
    let made = put("path=/tmp&copyUIDGID=true", &packed);
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    assert_eq!(exec(&brig, "ct", "stat -c %u:%g /tmp/hostname"), "33:33");
    assert!(put("path=/etc/passwd", &packed).starts_with("HTTP/1.1 400"), "no directory");
    assert!(
        put("path=/tmp", b"not a tar at all, but long enough to be one")
            .starts_with("HTTP/1.1 400")
    );
    let _ = exec(&brig, "ct", "rm /tmp/hostname; mkdir /tmp/hostname");
    assert!(put("path=/tmp&noOverwriteDirNonDir=true", &packed).starts_with("HTTP/1.1 400"));
    assert!(put("path=/tmp", &packed).starts_with("HTTP/1.1 200"));
}

#[test]
fn secrets_do_not_leave_by_copying() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    let brig = daemon.brig();
    let _ = brig.run_with(&["secret", "create", "token", "-"], b"very-secret-value").ok();
    let create = [
        "service",
        "create",
        "-d",
        "--name",
        "s",
        "--secret",
        "token",
        "--secret",
        "source=token,target=/opt/token",
        "busybox",
        "sleep",
        "1000",
    ];
    let _ = brig.run(&create).ok();
    let id = daemon.service_containers("s", 1).remove(0);
    assert_eq!(exec(&brig, &id, "cat /run/secrets/token"), "very-secret-value");
    let _ = exec(&brig, &id, "ln -s /run/secrets /way; mkdir -p /opt/d");
    for client in daemon.clients() {
        for path in [
            "/run/secrets",
            "/run/secrets/token",
            "/run",
            "/",
            "/opt/token",
            "/opt",
            "/way/token",
            "/way/",
        ] {
            let got = client.command(&["cp", &format!("{id}:{path}"), "-"]).output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&got.stdout), String::from_utf8_lossy(&got.stderr));
            assert!(!got.status.success(), "{path}: {err}");
            assert!(!out.contains("very-secret"), "{path}");
            assert!(err.contains("secrets are mounted at"), "{path}: {err}");
        }
        let _ = client.run(&["cp", &format!("{id}:/etc/passwd"), "-"]).ok();
        let exported = client.command(&["export", &id]).output().unwrap();
        assert!(exported.status.success());
        assert!(!String::from_utf8_lossy(&exported.stdout).contains("very-secret"));
    }
}

#[test]
fn export_and_diff_show_the_root_file_system_alone() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let script =
            "echo 1 > /new; rm /bin/bc; echo x >> /etc/passwd; echo v > /vol/v; mkdir -p /a/b";
        let _ =
            client.run(&["run", "--name", "ct", "-v", "/vol", "busybox", "sh", "-c", script]).ok();
        let changes = client.run(&["diff", "ct"]);
        let want = "A /a\nA /a/b\nC /bin\nD /bin/bc\nC /etc\nC /etc/passwd\nA /new\nA /vol";
        let mut lines: Vec<&str> = changes.ok().lines().collect();
        lines.sort_by_key(|line| line[2..].to_owned());
        assert_eq!(lines.join("\n"), want, "{}", client.name);
        let archive = daemon.root().join("export.tar").display().to_string();
        let _ = client.run(&["export", "-o", &archive, "ct"]).ok();
        let listed = std::process::Command::new("tar").args(["tf", &archive]).output().unwrap();
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let has = |name: &str| names.lines().any(|line| line == name);
        assert!(has("new") && has("bin/") && has("vol/") && has("a/b/"), "{names}");
        assert!(!has("vol/v") && !has("bin/bc"));
        let _ = client.run(&["rm", "-v", "ct"]).ok();
        let clean = client.run(&["run", "-d", "--name", "ct", "busybox", "sleep", "100"]);
        let _ = clean.ok();
        assert_eq!(client.run(&["diff", "ct"]).ok(), "", "nothing was changed");
        let running = client.command(&["export", "ct"]).output().unwrap();
        assert!(running.status.success() && running.stdout.len() > 100_000);
        let _ = client.run(&["rm", "-f", "ct"]).ok();
    }
}

/// A memory file system with a propagation of its own.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: PathBuf, propagation: &str) -> Self {
        fs::create_dir(&place).unwrap();
        let mount = |args: &[&str]| {
            let status = Command::new("mount").args(args).arg(&place).status().unwrap();
            assert!(status.success(), "mount {args:?}");
        };
        mount(&["-t", "tmpfs", "brig-e2e"]);
        mount(&[propagation]);
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.0).status();
    }
}

#[test]
fn binds_propagate_only_from_mounts_that_do() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let private = Mounted::new(daemon.root().join("private"), "--make-private");
    let shared = Mounted::new(daemon.root().join("shared"), "--make-shared");
    for client in daemon.clients() {
        let run = |place: &Mounted, propagation: &str| {
            let source = place.0.join("source");
            let _ = fs::create_dir(&source);
            let bind = format!(
                "type=bind,source={},target=/x,bind-propagation={propagation}",
                source.display()
            );
            client.run(&["run", "--rm", "--mount", &bind, "busybox", "true"])
        };
        let place = private.0.display();
        for (propagation, kind) in [
            ("shared", "shared"),
            ("rshared", "shared"),
            ("slave", "shared or slave"),
            ("rslave", "shared or slave"),
        ] {
            let refused = run(&private, propagation);
            let text =
                format!("path {place}/source is mounted on {place} but it is not a {kind} mount");
            assert!(refused.fails(125).contains(&text), "{}", refused.stderr);
            assert_eq!(run(&shared, propagation).ok(), "");
        }
        for propagation in ["private", "rprivate"] {
            assert_eq!(run(&private, propagation).ok(), "");
        }
    }
}
