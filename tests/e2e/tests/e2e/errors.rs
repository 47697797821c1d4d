//! What goes wrong is told clearly, and nothing half-made is left.

use std::fs;
use std::path::Path;
use std::process::Command;

use brig_e2e::{Brigd, image};

#[test]
fn unknown_things_have_dockers_texts_and_codes() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        assert!(client.run(&["inspect", "nope"]).fails(1).contains("nope"));
        assert!(client.run(&["start", "nope"]).fails(1).contains("No such container: nope"));
        assert!(client.run(&["rmi", "nope"]).fails(1).contains("No such image: nope"));
        let missing = client.run(&["run", "--rm", "busybox", "/nosuch"]);
        assert!(missing.fails(127).contains("no such file or directory"), "{}", missing.stderr);
        let missing = client.run(&["run", "--rm", "busybox", "nosuch"]);
        assert!(missing.fails(127).contains("executable file not found"), "{}", missing.stderr);
        let denied = client.run(&["run", "--rm", "busybox", "/etc/passwd"]);
        assert!(
            denied.fails(126).to_lowercase().contains("permission denied"),
            "{}",
            denied.stderr
        );
        assert!(
            client
                .run(&["run", "--rm", "--name", "x_!", "busybox"])
                .fails(125)
                .contains("Invalid container name")
        );
        let small = client.run(&["run", "--rm", "-m", "1m", "busybox", "true"]);
        assert!(
            small.fails(125).contains("Minimum memory limit allowed is 6MB"),
            "{}",
            small.stderr
        );
        let user = client.run(&["run", "--rm", "-u", "nosuch", "busybox", "true"]);
        assert!(user.fails(125).contains("unable to find user nosuch"), "{}", user.stderr);
        let _ = client.run(&["run", "-d", "--name", "one", "busybox", "sleep", "100"]).ok();
        let twice = client.run(&["run", "--rm", "--name", "one", "busybox", "true"]);
        assert!(twice.fails(125).contains("is already in use by container"), "{}", twice.stderr);
        assert!(client.run(&["rmi", "busybox"]).fails(1).contains("is using its referenced image"));
        let _ = client.run(&["rm", "-f", "one"]).ok();
        assert_eq!(client.run(&["ps", "-aq"]).ok(), "");
    }
}

fn layers_left(daemon: &Brigd) -> usize {
    fn count(folder: &Path) -> usize {
        fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let path = entry.path();
                if path.is_dir() && !path.is_symlink() { 1 + count(&path) } else { 1 }
            })
            .sum()
    }
    count(&daemon.data_root().join("image"))
}

#[test]
fn broken_and_hostile_archives_are_refused() {
    let daemon = Brigd::start();
    let brig = daemon.brig();
    let before = layers_left(&daemon);
    let good = fs::read(image::busybox()).unwrap();
    for (what, bytes) in [
        ("cut short", &good[..good.len() / 2]),
        ("no archive", &b"not a tar"[..]),
        ("empty", &b""[..]),
    ] {
        let loaded = brig.run_with(&["load"], bytes);
        assert_eq!(loaded.code, 1, "{what}: {}", loaded.stdout);
        assert!(!loaded.stderr.trim().is_empty(), "{what}");
    }
    let outside = daemon.root().join("outside");
    fs::create_dir(&outside).unwrap();
    let python = r#"
import io, sys, tarfile
kind, outside, out = sys.argv[1:4]
t = tarfile.open(out, "w")
def member(name, **kw):
    m = tarfile.TarInfo(name)
    for k, v in kw.items(): setattr(m, k, v)
    data = kw.pop("data", b"")
    m.size = len(data) if m.isreg() else 0
    t.addfile(m, io.BytesIO(data) if m.isreg() else None)
if kind == "dotdot": member("../../../../../../../../" + outside + "/owned")
if kind == "absolute-link": member("l", type=tarfile.SYMTYPE, linkname=outside); member("l/owned")
if kind == "hardlink": member("h", type=tarfile.LNKTYPE, linkname="../../../../../../../../etc/passwd")
t.close()
"#;
    let script = daemon.root().join("hostile.py");
    fs::write(&script, python).unwrap();
    for kind in ["dotdot", "absolute-link", "hardlink"] {
        let archive = daemon.root().join(format!("{kind}.tar"));
        let made = Command::new("python3")
            .arg(&script)
            .arg(kind)
            .arg(&outside)
            .arg(&archive)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let imported = brig.run_with(&["import", "-", "hostile:1"], &fs::read(&archive).unwrap());
        assert_eq!(imported.code, 1, "{kind}: {}", imported.stdout);
        // A link is followed within the layer, where there is nothing of that name.
        let text = if kind == "absolute-link" { "to no directory of the layer" } else { "escapes" };
        assert!(imported.stderr.contains(text), "{kind}: {}", imported.stderr);
        assert!(!outside.join("owned").exists(), "{kind}");
    }
    assert_eq!(brig.run(&["images", "-q"]).ok(), "");
    assert_eq!(layers_left(&daemon), before, "nothing half-made is left");
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let daemon = Brigd::prepare(&[]);
    let disk = daemon.data_root();
    fs::create_dir_all(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "brig-full"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(mounted.success());
    let mut daemon = scopeguard(daemon, disk);
    daemon.0.spawn();
    let brig = daemon.0.brig();
    fs::write(daemon.1.join("filler"), vec![0_u8; 1_500_000]).unwrap();
    let loaded = brig.run(&["load", "-i", &image::busybox().display().to_string()]);
    assert_eq!(loaded.code, 1, "{}", loaded.stdout);
    assert!(loaded.stderr.to_lowercase().contains("no space left on device"), "{}", loaded.stderr);
    assert_eq!(brig.run(&["images", "-q"]).ok(), "");
    fs::remove_file(daemon.1.join("filler")).unwrap();
    assert_eq!(brig.run(&["version", "--format", "{{.Server.Os}}"]).ok(), "linux");
}

/// Unmounts the small disk after the daemon that lives on it is gone.
struct OnDisk(Brigd, std::path::PathBuf);

fn scopeguard(daemon: Brigd, disk: std::path::PathBuf) -> OnDisk {
    OnDisk(daemon, disk)
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.0.purge();
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.1).status();
    }
}

#[test]
fn missing_programs_are_named_with_their_package() {
    // Programs are looked for where the system has them, whatever PATH says; the one that the
    // configuration names can be missing.
    let mut daemon = Brigd::prepare(&[]);
    daemon.configure(
        r#"{"runtimes": {"mine": {"path": "/nonexistent/crun"}}, "default-runtime": "mine"}"#,
    );
    daemon.spawn_unchecked();
    assert_eq!(daemon.wait_exit(), 1);
    let log = fs::read_to_string(daemon.log()).unwrap();
    assert!(log.contains("/nonexistent/crun (Debian package crun)"), "{log}");
    assert!(log.contains("apt-get install crun"), "{log}");
}

#[test]
fn wrong_configuration_and_plain_tcp_do_not_start() {
    for (args, expected) in
        [(vec!["-H", "tcp://127.0.0.1:0"], "tls"), (vec!["--log-level", "loud"], "log-level")]
    {
        let mut daemon = Brigd::prepare(&args);
        daemon.spawn_unchecked();
        assert_ne!(daemon.wait_exit(), 0);
        let log = fs::read_to_string(daemon.log()).unwrap().to_lowercase();
        assert!(log.contains(expected), "{args:?}: {log}");
    }
}

#[test]
fn who_still_sends_learns_why_it_was_refused() {
    let daemon = Brigd::start();
    let junk = daemon.root().join("junk");
    std::fs::write(&junk, vec![0x41; 8 << 20]).unwrap();
    for client in daemon.clients() {
        let loaded = client.run(&["load", "-i", junk.to_str().unwrap()]);
        assert!(loaded.fails(1).contains("not a tar"), "{}", loaded.stderr);
        let imported = client.run(&["import", "-c", "NOSUCH x", junk.to_str().unwrap()]);
        let text = "NOSUCH is not a valid change command";
        assert!(imported.fails(1).contains(text), "{}", imported.stderr);
    }
}
