//! Images that mean harm, and containers that do: what they bring stays in the container.
//!
//! What archives, manifests and configurations try is with the image store's tests; here is what
//! only a running container shows.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use brig_e2e::{Brigd, Client, eventually, image};
use rustix::fs::{Mode, OFlags};

/// Imports busybox' files with what `python` adds: it has `put`, which takes a name, the fields of
/// the entry and its content.
fn import(daemon: &Brigd, name: &str, python: &str) {
    let script = format!(
        r#"
import io, sys, tarfile
source, out = tarfile.open(sys.argv[1]), tarfile.open(sys.argv[2], "w", format=tarfile.PAX_FORMAT)
def keep(member): return True
added = []
def put(name, data=b"", **fields):
    entry = tarfile.TarInfo(name)
    for field, value in fields.items(): setattr(entry, field, value)
    entry.size = len(data)
    added.append((entry, data))
busybox = source.extractfile("./bin/busybox").read()
{python}
for member in source:
    if keep(member.name[2:]): out.addfile(member, source.extractfile(member) if member.isreg() else None)
for entry, data in added: out.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
out.close()
"#
    );
    let archive = daemon.root().join("hostile.tar");
    let made = Command::new("python3")
        .args(["-c", &script])
        .arg(image::busybox_rootfs())
        .arg(&archive)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let _ = daemon.brig().run(&["import", &archive.display().to_string(), name]).ok();
}

fn run(brig: &Client, name: &str, options: &[&str], script: &str) -> brig_e2e::Output {
    let mut args = vec!["run", "--rm"];
    args.extend_from_slice(options);
    args.extend_from_slice(&[name, "sh", "-c", script]);
    brig.run(&args)
}

#[test]
fn device_nodes_of_an_image_open_nothing_of_the_host() {
    let daemon = Brigd::start();
    let brig = daemon.brig();
    // The disk that the daemon's own files lie on, memory, and the kernel's log.
    let device = fs::metadata(daemon.root()).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let node = |name: &str, kind: &str, major: u32, minor: u32| {
        format!(
            "put('{name}', type=tarfile.{kind}, devmajor={major}, devminor={minor}, mode=0o666)\n"
        )
    };
    let nodes = node("disk", "BLKTYPE", major, minor)
        + &node("whole", "BLKTYPE", major, 0)
        + &node("mem", "CHRTYPE", 1, 1)
        + &node("kmsg", "CHRTYPE", 1, 11)
        + &node("null", "CHRTYPE", 1, 3);
    import(&daemon, "nodes", &nodes);
    let script = "for node in disk whole mem kmsg; do \
        ls -l /$node | cut -c1; head -c 1 /$node; echo x >/$node; done; \
        mknod /own b $0 $1 && head -c 1 /own; echo fine >/null";
    for options in [&[][..], &["-u", "nobody"], &["--cap-add", "ALL"], &["--read-only"]] {
        let said = run(&brig, "nodes", options, script);
        let kinds: Vec<&str> = said.stdout.split_whitespace().collect();
        assert_eq!(kinds, ["b", "b", "c", "c"], "{options:?}: {}", said.stderr);
        let denied = said.stderr.matches("Operation not permitted").count()
            + said.stderr.matches("Permission denied").count();
        assert!(denied >= 8, "{options:?}: {}", said.stderr);
        // What every container may use works from there too.
        assert_eq!(said.code, 0, "{options:?}: {}", said.stderr);
    }
    let _ = brig.run(&["run", "-d", "--name", "up", "nodes", "sleep", "100"]).ok();
    let said = brig.run(&["exec", "--privileged", "up", "head", "-c", "1", "/disk"]);
    assert!(said.stderr.contains("Operation not permitted"), "{}", said.stderr);
    // A copy of the node is a node, not the disk.
    let copied = daemon.root().join("copied");
    let _ = brig.run(&["cp", "up:/disk", &copied.display().to_string()]);
    assert!(fs::symlink_metadata(&copied).map_or(0, |meta| meta.len()) == 0);
    let _ = brig.run(&["rm", "-f", "up"]).ok();
}

#[test]
fn setuid_and_file_capabilities_end_where_they_are_told_to() {
    let daemon = Brigd::start();
    let brig = daemon.brig();
    // cap_chown, permitted and effective.
    import(
        &daemon,
        "caps",
        r#"
cap = b"\x01\0\0\x02\x01" + b"\0" * 15
put("cap/chown", busybox, mode=0o755, pax_headers={"SCHILY.xattr.security.capability": cap.decode("latin-1")})
put("cap/id", busybox, mode=0o6755)
"#,
    );
    assert_eq!(run(&brig, "caps", &[], "stat -c %a /cap/id").ok(), "6755");
    let chown = "touch /tmp/f; /cap/chown 0 /tmp/f && stat -c %u /tmp/f";
    assert_eq!(run(&brig, "caps", &["-u", "nobody"], chown).ok(), "0");
    let refused = |options: &[&str]| {
        let said = run(&brig, "caps", options, chown);
        assert_ne!(said.code, 0, "{options:?}: {}", said.stdout);
        assert!(said.stderr.contains("not permitted"), "{options:?}: {}", said.stderr);
    };
    refused(&["-u", "nobody", "--security-opt", "no-new-privileges"]);
    refused(&["-u", "nobody", "--cap-drop", "CHOWN"]);
    refused(&["-u", "nobody", "--cap-drop", "ALL"]);
}

#[test]
fn links_in_the_way_of_what_the_engine_makes_stay_inside() {
    let daemon = Brigd::start();
    let brig = daemon.brig();
    let outside = daemon.root().join("outside");
    fs::create_dir_all(outside.join("dir")).unwrap();
    for file in ["hosts", "resolv.conf", "hostname", "passwd"] {
        fs::write(outside.join(file), "untouched").unwrap();
    }
    let link = |name: &str, target: &str| {
        format!("put('{name}', type=tarfile.SYMTYPE, linkname='{target}')\n")
    };
    let out = outside.display().to_string();
    let up = format!("../../../../../../../..{out}");
    let drop = "def keep(name): return not name.startswith(('etc/', 'home'))\n";
    let links = drop.to_owned()
        + &link("etc/hosts", &format!("{out}/hosts"))
        + &link("etc/resolv.conf", &format!("{up}/resolv.conf"))
        + &link("etc/hostname", &format!("/proc/1/root{out}/hostname"))
        + &link("etc/passwd", &format!("{up}/passwd"))
        + &link("home", &format!("{up}/dir"))
        + &link("work", &format!("{out}/dir"));
    import(&daemon, "links", &links);
    let mount = "type=tmpfs,destination=/home/tmpfs";
    let options =
        ["-w", "/work/made", "-v", "/home/volume", "-v", "named:/work/named", "--mount", mount];
    let said = run(&brig, "links", &options, "touch /home/volume/x /work/named/y; cat /etc/passwd");
    // Either it runs, with everything at its place inside, or it is refused.
    assert!(said.code == 0 || !said.stderr.is_empty());
    assert!(!said.stdout.contains("untouched"), "{}", said.stdout);
    let unknown = run(&brig, "links", &["-u", "nobody"], "true");
    assert!(unknown.stderr.contains("unable to find user nobody"), "{}", unknown.stderr);
    for file in ["hosts", "resolv.conf", "hostname", "passwd"] {
        assert_eq!(fs::read_to_string(outside.join(file)).unwrap(), "untouched", "{file}");
    }
    assert_eq!(fs::read_dir(outside.join("dir")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 5);
    let _ = brig.run(&["volume", "rm", "-f", "named"]);
}

#[test]
fn files_that_do_not_end_stop_nothing() {
    let daemon = Brigd::start();
    let brig = daemon.brig();
    for (name, passwd) in [
        ("pipe", "type=tarfile.FIFOTYPE"),
        ("endless", "type=tarfile.CHRTYPE, devmajor=1, devminor=5"),
        ("folder", "type=tarfile.DIRTYPE"),
        ("loop", "type=tarfile.SYMTYPE, linkname='passwd'"),
    ] {
        let python =
            format!("def keep(name): return name != 'etc/passwd'\nput('etc/passwd', {passwd})\n");
        import(&daemon, name, &python);
        let said = run(&brig, name, &["-u", "nobody"], "true");
        assert_eq!(said.code, 125, "{name}: {}", said.stderr);
        assert_eq!(run(&brig, name, &["-u", "65534"], "echo $HOME").ok(), "/", "{name}");
    }
}

#[test]
fn what_runc_would_wait_for_is_refused() {
    let daemon = Brigd::start_with(&["--default-runtime", "runc"]);
    let brig = daemon.brig();
    for (name, file) in [("users", "etc/passwd"), ("groups", "etc/group")] {
        let python = format!(
            "def keep(name): return name != '{file}'\nput('{file}', type=tarfile.FIFOTYPE)\n"
        );
        import(&daemon, name, &python);
        let said = run(&brig, name, &["-u", "65534"], "true");
        assert_eq!(said.code, 125, "{name}: {}", said.stderr);
        assert!(said.stderr.contains(&format!("/{file} in the container is no file")), "{said:?}");
    }
    daemon.load_busybox();
    let script = "rm /etc/passwd; mkfifo /etc/passwd; touch /done; sleep 1000";
    let _ = brig.run(&["run", "-d", "--name", "later", "busybox", "sh", "-c", script]).ok();
    eventually("the pipe is there", Duration::from_secs(30), || {
        brig.run(&["cp", "later:/done", "-"]).code == 0
    });
    let said = brig.run(&["exec", "later", "true"]);
    assert_eq!(said.code, 126, "{said:?}");
    assert!(said.stdout.contains("which runc would wait for"), "{said:?}");
    let _ = brig.run(&["rm", "-f", "later"]).ok();
}

#[test]
fn a_tree_without_end_ends_nothing_but_itself() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let id = brig.run(&["create", "--name", "deep", "busybox", "true"]).ok().to_owned();
    // What `while mkdir d && cd d` does in the container, in less time.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper = daemon.data_root().join("overlay").join(&id).join("upper");
    let upper = File::open(upper).unwrap();
    let mut at = rustix::fs::openat(upper.as_fd(), c".", flags, Mode::empty()).unwrap();
    for _ in 0..25_000 {
        rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, c"d", flags, Mode::empty()).unwrap();
    }
    drop((at, upper));
    let pid = daemon.pid();
    let committed = brig.run(&["commit", "deep", "deep:1"]);
    assert!(committed.fails(1).contains("too deep"), "{}", committed.stderr);
    let _ = brig.run(&["diff", "deep"]);
    let _ = brig.run(&["ps", "-as"]).ok();
    let _ = brig.run(&["export", "-o", "/dev/null", "deep"]);
    let _ = brig.run(&["cp", "deep:/d", "-"]);
    let _ = brig.run(&["system", "df", "-v"]).ok();
    let _ = brig.run(&["rm", "deep"]).ok();
    let trash = daemon.data_root().join("image/trash");
    let empty = |trash: &Path| fs::read_dir(trash).is_ok_and(|mut names| names.next().is_none());
    eventually("the tree is gone", Duration::from_secs(60), || empty(&trash));
    assert_eq!(brig.run(&["images", "-q", "deep"]).ok(), "");
    assert_eq!(daemon.pid(), pid);
    // It is the same daemon, and it starts again.
    daemon.stop();
    daemon.spawn();
    let _ = daemon.brig().run(&["version"]).ok();
}
