//! Round trips, hostile archives, docker's rules for paths.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use tempfile::TempDir;

use super::*;

fn root(dir: &Path) -> std::os::fd::OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    rustix::fs::open(dir, flags, Mode::empty()).unwrap()
}

fn in_root() -> ExtractOptions {
    ExtractOptions { links: Links::InRoot, owner: Owner::Archive, keep_kinds: false, rename: None }
}

fn packed(dir: &Path, path: &str) -> Vec<u8> {
    let wanted = Wanted::parse(path);
    let fd = wanted.open(&root(dir)).unwrap();
    pack(fd, wanted.name(), Vec::new(), &|_| false).unwrap()
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let tree = from.path().join("tree");
    let long = "n".repeat(180);
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::write(tree.join("a/file"), "content").unwrap();
    fs::set_permissions(tree.join("a/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::write(tree.join("a").join(&long), vec![7_u8; 1000]).unwrap();
    fs::hard_link(tree.join("a/file"), tree.join("z")).unwrap();
    symlink(format!("/nowhere/{long}"), tree.join("link")).unwrap();
    rustix::fs::mknodat(CWD, tree.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0)
        .unwrap();
    rustix::fs::mknodat(
        CWD,
        tree.join("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    std::os::unix::fs::chown(tree.join("a/b"), Some(12), Some(34)).unwrap();
    let xattr = rustix::fs::setxattr(
        tree.join("a/file"),
        "user.brig",
        b"v\0w",
        rustix::fs::XattrFlags::empty(),
    );
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
    };
    rustix::fs::utimensat(CWD, tree.join("a"), &times, rustix::fs::AtFlags::empty()).unwrap();

    extract(
        Cursor::new(packed(from.path(), "/tree")),
        &root(to.path()),
        Path::new("/"),
        &in_root(),
    )
    .unwrap();
    let back = to.path().join("tree");
    assert_eq!(fs::read(back.join("a/file")).unwrap(), b"content");
    assert_eq!(fs::metadata(back.join("a/file")).unwrap().mode() & 0o7777, 0o4751);
    assert_eq!(
        fs::metadata(back.join("a/file")).unwrap().ino(),
        fs::metadata(back.join("z")).unwrap().ino()
    );
    assert_eq!(fs::read(back.join("a").join(&long)).unwrap().len(), 1000);
    assert_eq!(fs::read_link(back.join("link")).unwrap(), Path::new(&format!("/nowhere/{long}")));
    assert!(fs::symlink_metadata(back.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(back.join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    let b = fs::metadata(back.join("a/b")).unwrap();
    assert_eq!((b.uid(), b.gid()), (12, 34));
    assert_eq!(fs::metadata(back.join("a")).unwrap().mtime(), 5);
    if xattr.is_ok() {
        let mut value = [0_u8; 16];
        let length =
            rustix::fs::getxattr(back.join("a/file"), "user.brig", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"v\0w");
    }
}

#[test]
fn names_in_the_archive_are_dockers() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), "").unwrap();
    symlink("d", dir.path().join("l")).unwrap();
    assert_eq!(names(&packed(dir.path(), "d")), ["d/", "d/f"]);
    assert_eq!(names(&packed(dir.path(), "/d/.")), ["./", "./f"]);
    assert_eq!(names(&packed(dir.path(), "/d/")), ["d/", "d/f"]);
    assert_eq!(names(&packed(dir.path(), "/")), ["/", "/d/", "/d/f", "/l"]);
    assert_eq!(names(&packed(dir.path(), "/l")), ["l"]);
    assert_eq!(names(&packed(dir.path(), "/l/")), ["l/", "l/f"]);
    assert_eq!(names(&packed(dir.path(), "/x/../d/f")), ["f"]);
    assert!(Wanted::parse("/d/f/").open(&root(dir.path())).is_err());
}

#[test]
fn links_stay_in_the_root() {
    let top = TempDir::new().unwrap();
    let dir = top.path().join("root");
    fs::create_dir_all(dir.join("etc")).unwrap();
    fs::create_dir_all(dir.join("data")).unwrap();
    fs::write(top.path().join("secret"), "outside").unwrap();
    symlink("../../../../../../secret", dir.join("up")).unwrap();
    symlink("/etc", dir.join("data/absolute")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    let fd = root(&dir);
    assert!(open(&fd, Path::new("up"), Links::InRoot, OFlags::empty()).is_err());
    assert_eq!(evaluate(&fd, Path::new("/up")).unwrap(), Path::new("/secret"));
    assert_eq!(evaluate(&fd, Path::new("/data/absolute/x")).unwrap(), Path::new("/etc/x"));
    assert!(evaluate(&fd, Path::new("/loop")).is_err());

    // An entry below a link goes where the link leads inside of the root.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, "absolute/new", &b"hi"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    extract(Cursor::new(&archive), &fd, Path::new("/data"), &in_root()).unwrap();
    assert_eq!(fs::read(dir.join("etc/new")).unwrap(), b"hi");
    // In a folder among others it is refused.
    let beneath = ExtractOptions { links: Links::Beneath, ..in_root() };
    let error = extract(Cursor::new(&archive), &root(&dir.join("data")), Path::new(""), &beneath);
    assert!(matches!(error, Err(ExtractError::Write { .. })), "{error:?}");
}

fn single(name: &[u8], kind: tar::EntryType, link: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(0);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(&[0; 1024]);
    archive
}

#[test]
fn hostile_archives_make_nothing_outside() {
    let top = TempDir::new().unwrap();
    let dir = top.path().join("dest");
    fs::create_dir(&dir).unwrap();
    fs::write(top.path().join("victim"), "whole").unwrap();
    for links in [Links::InRoot, Links::Beneath] {
        let options = ExtractOptions { links, ..in_root() };
        for archive in [
            single(b"../victim", tar::EntryType::Regular, b""),
            single(b"a/../../victim", tar::EntryType::Regular, b""),
            single(b"h", tar::EntryType::Link, b"../victim"),
        ] {
            let error = extract(Cursor::new(archive), &root(&dir), Path::new("."), &options);
            assert!(matches!(error, Err(ExtractError::Outside(_))), "{error:?}");
        }
        // A link out, and then a file below it.
        let mut two = single(b"out", tar::EntryType::Symlink, b"..");
        two.truncate(512);
        two.extend(single(b"out/victim", tar::EntryType::Regular, b""));
        let _ = extract(Cursor::new(two), &root(&dir), Path::new("."), &options);
        let _ = fs::remove_file(dir.join("out"));
        assert_eq!(fs::read(top.path().join("victim")).unwrap(), b"whole");
    }
    let unknown = single(b"x", tar::EntryType::new(b'Q'), b"");
    let error = extract(Cursor::new(unknown), &root(&dir), Path::new("."), &in_root()).unwrap_err();
    assert_eq!(error.to_string(), "unhandled tar header type 81 of \"x\"");
}

#[test]
fn kinds_are_kept_when_asked_for() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("d/full")).unwrap();
    fs::write(dir.path().join("f"), "old").unwrap();
    let keep = ExtractOptions { keep_kinds: true, ..in_root() };
    let run = |archive: Vec<u8>, options: &ExtractOptions| {
        extract(Cursor::new(archive), &root(dir.path()), Path::new("/"), options)
    };
    let file = single(b"d", tar::EntryType::Regular, b"");
    let folder = single(b"f", tar::EntryType::Directory, b"");
    assert_eq!(
        run(file.clone(), &keep).unwrap_err().to_string(),
        "cannot overwrite directory \"/d\" with non-directory \"/d\""
    );
    assert!(matches!(run(folder.clone(), &keep), Err(ExtractError::OverFile { .. })));
    run(file, &in_root()).unwrap();
    run(folder, &in_root()).unwrap();
    assert!(dir.path().join("d").is_file() && dir.path().join("f").is_dir());
}

#[test]
fn a_copy_under_another_name() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir(from.path().join("old")).unwrap();
    fs::write(from.path().join("old/x"), "").unwrap();
    fs::hard_link(from.path().join("old/x"), from.path().join("old/y")).unwrap();
    let options = ExtractOptions {
        rename: Some((b"old".to_vec(), b"new".to_vec())),
        owner: Owner::Caller,
        links: Links::Beneath,
        keep_kinds: true,
    };
    extract(Cursor::new(packed(from.path(), "old")), &root(to.path()), Path::new(""), &options)
        .unwrap();
    assert_eq!(fs::metadata(to.path().join("new/y")).unwrap().nlink(), 2);
}

#[test]
fn what_may_not_be_read_ends_the_archive() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a"), "").unwrap();
    let error = pack(root(dir.path()), b".", Vec::new(), &|stat| {
        FileType::from_raw_mode(stat.st_mode).is_file()
    });
    assert!(matches!(error, Err(PackError::Refused { name }) if name == "./a"));
}

#[test]
fn a_header_without_end_is_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless =
        std::io::Read::chain(Cursor::new(header.as_bytes().to_vec()), std::io::repeat(b'a'));
    let dir = TempDir::new().unwrap();
    let error = extract(endless, &root(dir.path()), Path::new("/"), &in_root());
    assert!(matches!(error, Err(ExtractError::Read(_))), "{error:?}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2048)) {
        let dir = TempDir::new().unwrap();
        let _ = extract(Cursor::new(bytes), &root(dir.path()), Path::new("/"), &in_root());
    }

    #[test]
    fn wanted_paths_are_clean(text in "[a-c./]{0,12}") {
        let wanted = Wanted::parse(&text);
        let path = wanted.path().to_str().unwrap();
        proptest::prop_assert!(path.starts_with('/') && !path.contains("//") && !path.split('/').any(|part| part == ".."));
    }
}
