use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::*;
use crate::ns::{self, NsKind};

#[test]
fn lines_of_the_table() {
    let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:9 - ext3 /dev/root rw,x";
    let info = info::parse_line(line).unwrap();
    assert_eq!(info.mount_point, PathBuf::from("/mnt 2"));
    assert_eq!(info.propagation, ["master:1", "shared:9"]);
    assert_eq!((info.id, info.parent), (36, 35));
    assert_eq!(info.super_options, "rw,x");
    assert_eq!(info::parse_line(b"1 2 0:1 / /x rw - tmpfs  rw").unwrap().source, "");
    for bad in ["", "1", "1 2 3 4 5 6 7", "x 2 0:1 / /x rw - tmpfs s rw"] {
        assert_eq!(info::parse_line(bad.as_bytes()), None, "{bad}");
    }
    assert!(mountinfo(None).unwrap().iter().any(|m| m.mount_point == Path::new("/")));
}

#[test]
fn read_only_binds() {
    let top = tempfile::tempdir().unwrap();
    let (source, target) = (top.path().join("s"), top.path().join("t"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    bind(&source, &target, BindOptions { recursive: true, read_only: true }).unwrap();
    let write = fs::write(target.join("x"), "");
    let mounted = is_mountpoint(&target).unwrap();
    unmount(&target, false).unwrap();
    assert_eq!(write.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert!(mounted && !is_mountpoint(&target).unwrap());
    assert!(unmount(&target, false).is_err());
    assert!(is_mountpoint(&top.path().join("none")).is_err());
}

#[test]
fn hostile_places_lead_nowhere_else() {
    // The child sees the host's processes, as a container with `--pid host` does.
    let child = crate::ns::tests::Unshared::spawn(&["-m", "--propagation", "private"]);
    let ns = ns::open(child.pid(), NsKind::Mnt).unwrap();
    let top = tempfile::tempdir().unwrap();
    let outside = top.path().join("outside");
    fs::create_dir(&outside).unwrap();
    // As an image would have it: what is to be made lies behind a door to the host's files.
    let door = format!("/proc/{}/root{}", std::process::id(), outside.display());
    let run = top.path().join("run");
    std::os::unix::fs::symlink(&door, &run).unwrap();
    std::os::unix::fs::symlink(format!("{door}/new"), top.path().join("dangling")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let attach = |dir: &Path, file: &Path| {
        let memory = DetachedTmpfs::new("brig-hostile", 1 << 20, 16).unwrap();
        memory.add_file("one", b"secret", 0, 0, 0o400).unwrap();
        memory.attach_files_in(ns.as_fd(), dir, &[("one".to_owned(), file.to_owned())])
    };
    let safe = top.path().join("safe");
    attach(&run.join("secrets"), &safe.join("x")).unwrap_err();
    attach(&safe.join("a"), &run.join("deep/key")).unwrap_err();
    attach(&safe.join("b"), &run.join("key")).unwrap_err();
    attach(&safe.join("c"), &top.path().join("dangling")).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
    // Never opened, so nobody waits for its other end; the file is mounted over it.
    attach(&safe.join("d"), &top.path().join("pipe")).unwrap();
    let seen = format!("/proc/{}/root{}", child.pid(), top.path().join("pipe").display());
    assert_eq!(fs::read(seen).unwrap(), b"secret");
}

#[test]
fn a_detached_tmpfs_shows_only_in_the_other_namespace() {
    let child = crate::ns::tests::Unshared::spawn(&["-m", "--propagation", "private"]);
    let source = format!("brig-test-{}", child.pid());
    let memory = DetachedTmpfs::new(&source, 1 << 20, 16).unwrap();
    memory.add_file("one", b"secret", 1234, 4321, 0o400).unwrap();
    memory.add_file("two", b"other", 0, 0, 0o444).unwrap();
    for name in ["", ".", "..", "a/b"] {
        assert!(memory.add_file(name, b"", 0, 0, 0o400).is_err(), "{name:?}");
    }
    assert!(memory.add_file("one", b"again", 0, 0, 0o400).is_err());
    memory.seal_read_only().unwrap();
    assert!(memory.add_file("three", b"", 0, 0, 0o400).is_err());

    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("run/secrets");
    let elsewhere = top.path().join("etc/app/key");
    let ns = ns::open(child.pid(), NsKind::Mnt).unwrap();
    memory.attach_files_in(ns.as_fd(), &target, &[("two".to_owned(), elsewhere.clone())]).unwrap();

    let host = mountinfo(None).unwrap();
    assert!(!host.iter().any(|m| m.source == source));
    assert!(fs::read_dir(&target).unwrap().next().is_none());
    assert_eq!(fs::read(&elsewhere).unwrap(), b"");
    let inside = mountinfo(Some(child.pid())).unwrap();
    let mount = inside.iter().find(|m| m.mount_point == target).unwrap();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.options.split(',').any(|o| o == option), "{}", mount.options);
    }
    if mount.fs_type == "tmpfs" {
        assert!(mount.super_options.contains("noswap"));
    }
    let (data, meta, other) = ns::in_mount(ns.as_fd(), || {
        Ok((
            fs::read(target.join("one"))?,
            fs::metadata(target.join("one"))?,
            fs::read(&elsewhere)?,
        ))
    })
    .unwrap();
    assert_eq!((data.as_slice(), other.as_slice()), (&b"secret"[..], &b"other"[..]));
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 4321, 0o400));
    let write = ns::in_mount(ns.as_fd(), || fs::write(&elsewhere, "x"));
    assert!(write.is_err());
}

proptest::proptest! {
    #[test]
    fn any_line_is_parsed_or_refused(line in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
        let _ = info::parse_line(&line);
    }

    #[test]
    fn paths_survive_the_kernels_escapes(path in "/[a-z \\\\\t]{0,20}") {
        let escaped: String = path
            .chars()
            .map(|c| match c {
                ' ' | '\t' | '\\' => format!("\\{:03o}", u32::from(c)),
                other => other.to_string(),
            })
            .collect();
        let line = format!("1 2 0:1 / {escaped} rw - tmpfs s rw");
        let info = info::parse_line(line.as_bytes()).unwrap();
        proptest::prop_assert_eq!(info.mount_point, PathBuf::from(path));
    }
}
