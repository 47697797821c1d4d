//! Layers as people make them, and as attackers do.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use brig_pki::hash::sha256;
use tar::{EntryType, Header};

use super::*;

struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Any name, unchecked; the builder's own calls refuse hostile ones.
    fn add(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_700_000_000);
        header.set_size(u64::try_from(data.len()).unwrap());
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.add(EntryType::Regular, name, "", data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name, target, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Link, name, target, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().map(|(k, v)| (*k, *v))).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn unpack_with(
    bytes: &[u8],
    expected: Expected<'_>,
    limits: &Limits,
) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("root")).unwrap();
    fs::write(base.path().join("outside"), "untouched").unwrap();
    let root = File::open(base.path().join("root")).unwrap();
    let notes = tempfile::tempdir().unwrap();
    let (log, attic) = (notes.path().join("log"), notes.path().join("attic"));
    fs::create_dir(&attic).unwrap();
    let attic_dir = File::open(&attic).unwrap();
    let taken = Notes { log: File::create(&log).unwrap(), attic: attic_dir.as_fd() };
    let result = super::unpack(bytes, root.as_fd(), expected, limits, Some(taken));
    if let Ok(unpacked) = &result {
        // Whatever was unpacked can be packed again, to the byte.
        let mut again = Vec::new();
        let attic = (unpacked.replaced > 0).then_some(attic.as_path());
        LayerTar::open(&log, &base.path().join("root"), attic, unpacked.diff_id.clone())
            .and_then(|mut tar| std::io::Read::read_to_end(&mut tar, &mut again))
            .unwrap();
        assert_eq!(u64::try_from(again.len()).unwrap(), unpacked.archive);
    }
    assert_eq!(fs::read(base.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2, "something was made outside");
    (base, result)
}

fn unpack(tar: Tar) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    unpack_with(&tar.bytes(), Expected::default(), &Limits::default())
}

fn good(tar: Tar) -> tempfile::TempDir {
    let (base, result) = unpack(tar);
    result.unwrap();
    base
}

fn refused(tar: Tar) -> String {
    unpack(tar).1.unwrap_err().to_string()
}

fn root(base: &tempfile::TempDir) -> std::path::PathBuf {
    base.path().join("root")
}

fn opaque(path: &Path) -> bool {
    let mut value = [0_u8; 4];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..])
        .is_ok_and(|len| value[..len] == *b"y")
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[test]
fn files_keep_what_they_had() {
    let mut setuid = Header::new_gnu();
    setuid.set_entry_type(EntryType::Regular);
    setuid.set_path("bin/su").unwrap();
    setuid.set_mode(0o4755);
    setuid.set_uid(0);
    setuid.set_gid(7);
    setuid.set_mtime(1_600_000_000);
    setuid.set_size(2);
    setuid.set_cksum();
    let mut tar = Tar::new().dir("./").dir("bin/");
    tar.0.append(&setuid, &b"su"[..]).unwrap();
    let tar = tar
        .symlink("sh", "/bin/su")
        .link("bin/su2", "./bin/su")
        .add(EntryType::Fifo, "pipe", "", b"")
        .pax(&[("mtime", b"1650000000.25"), ("SCHILY.xattr.user.x", b"value")])
        .file("note", "hi");
    let (base, result) = unpack(tar);
    let unpacked = result.unwrap();
    assert_eq!((unpacked.size, unpacked.entries), (4, 7));
    let root = root(&base);
    let su = fs::metadata(root.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 0, 7));
    assert_eq!((su.mtime(), su.nlink()), (1_600_000_000, 2));
    let bin = fs::metadata(root.join("bin")).unwrap();
    assert_eq!((bin.mtime(), bin.uid()), (1_700_000_000, 1000));
    assert_eq!(fs::metadata(&root).unwrap().uid(), 1000);
    assert_eq!(fs::read_link(root.join("sh")).unwrap(), Path::new("/bin/su"));
    let link = fs::symlink_metadata(root.join("sh")).unwrap();
    assert_eq!((link.uid(), link.mtime()), (1000, 1_700_000_000));
    assert!(fs::symlink_metadata(root.join("pipe")).unwrap().file_type().is_fifo());
    let note = fs::metadata(root.join("note")).unwrap();
    assert_eq!((note.mtime(), note.mtime_nsec()), (1_650_000_000, 250_000_000));
    let mut value = [0_u8; 16];
    let length = rustix::fs::getxattr(root.join("note"), "user.x", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"value");
}

#[test]
fn devices_and_capabilities_are_made() {
    let mut null = Header::new_gnu();
    null.set_entry_type(EntryType::Char);
    null.set_path("dev/null").unwrap();
    null.set_mode(0o666);
    null.set_uid(0);
    null.set_gid(0);
    null.set_mtime(0);
    null.set_size(0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    null.set_cksum();
    let capability = [1_u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut tar = Tar::new();
    tar.0.append(&null, &b""[..]).unwrap();
    let base = good(tar.pax(&[("SCHILY.xattr.security.capability", &capability)]).file("ping", ""));
    let null = fs::symlink_metadata(root(&base).join("dev/null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    let mut value = [0_u8; 32];
    let length =
        rustix::fs::getxattr(root(&base).join("ping"), "security.capability", &mut value[..])
            .unwrap();
    assert_eq!(value[..length], capability);
}

#[test]
fn long_names_and_implied_parents_work() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_cksum();
    let mut tar = Tar::new();
    tar.0.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let base = good(tar.file("a/b/c", "1").pax(&[("path", b"p/q/r")]).file("x", "2"));
    assert_eq!(fs::read(root(&base).join(long)).unwrap(), b"x");
    assert_eq!(fs::read(root(&base).join("p/q/r")).unwrap(), b"2");
    let parent = fs::metadata(root(&base).join("a/b")).unwrap();
    assert_eq!((parent.permissions().mode() & 0o777, parent.uid()), (0o755, 0));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let base = good(
        Tar::new()
            .file("a", "old")
            .file("a", "new")
            .dir("d")
            .file("d/x", "kept")
            .dir("d")
            .dir("tree")
            .file("tree/deep/x", "gone")
            .file("tree", "now a file")
            .symlink("s", "a")
            .file("s", "not through the link"),
    );
    let root = root(&base);
    assert_eq!(fs::read(root.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(root.join("d/x")).unwrap(), b"kept");
    assert_eq!(fs::read(root.join("tree")).unwrap(), b"now a file");
    assert!(fs::symlink_metadata(root.join("s")).unwrap().is_file());
}

#[test]
fn entries_that_escape_are_refused_by_name() {
    let text = |name: &str| format!("layer entry {name:?} escapes the root");
    for name in ["../outside", "a/../../outside", "../../../../../../tmp/x", ".."] {
        assert_eq!(refused(Tar::new().file(name, "x")), text(name));
    }
    assert_eq!(refused(Tar::new().link("l", "../outside")), text("l"));
    assert_eq!(refused(Tar::new().file(".wh...", "")), text(".wh..."));
    assert_eq!(refused(Tar::new().file("a/.wh..", "")), text("a/.wh.."));
    assert_eq!(refused(Tar::new().file(".wh.", "")), text(".wh."));
    assert_eq!(refused(Tar::new().file("../.wh.outside", "")), text("../.wh.outside"));
    assert_eq!(refused(Tar::new().file("../.wh..wh..opq", "")), text("../.wh..wh..opq"));
    assert_eq!(
        refused(Tar::new().pax(&[("path", b"../outside")]).file("x", "")),
        text("../outside")
    );
    let hidden = refused(Tar::new().pax(&[("linkpath", b"../outside")]).link("l", "x"));
    assert_eq!(hidden, text("l"));
}

#[test]
fn absolute_paths_stay_inside() {
    let base = good(Tar::new().file("/etc/passwd", "inside").link("/copy", "/etc/passwd"));
    assert_eq!(fs::read(root(&base).join("etc/passwd")).unwrap(), b"inside");
    assert_eq!(fs::read(root(&base).join("copy")).unwrap(), b"inside");
}

#[test]
fn symbolic_links_lead_within_the_layer() {
    // As in docker's chroot: the layer's root is `/`, and above it is itself.
    for (target, place) in
        [("/", ""), ("..", ""), ("../..", ""), ("/other", "other/"), ("other", "other/")]
    {
        let way = || Tar::new().dir("other").symlink("way", target).symlink("far", "way");
        let base = good(
            way()
                .file("way/outside", "inside")
                .dir("way/made")
                .file("far/a/b/c", "deep")
                .file("way/.wh.gone", "")
                .link("hard", "way/outside")
                .file("far/a/b/c", "again"),
        );
        let at = root(&base).join(place);
        assert_eq!(fs::read(at.join("outside")).unwrap(), b"inside", "{target}");
        assert!(at.join("made").is_dir());
        assert_eq!(fs::metadata(at.join("made")).unwrap().mtime(), 1_700_000_000);
        assert_eq!(fs::read(at.join("a/b/c")).unwrap(), b"again");
        assert!(is_whiteout(&at.join("gone")));
        assert_eq!(fs::metadata(root(&base).join("hard")).unwrap().nlink(), 2);
        assert!(opaque(&root(&good(way().file("far/.wh..wh..opq", ""))).join(place)));
    }
    // Not in the layer: there is nothing to go to, and nothing of the host's either.
    for target in ["/tmp", "/proc/self/root", "nowhere", "loop"] {
        let refused =
            refused(Tar::new().symlink("loop", "loop").symlink("way", target).file("way/x", ""));
        assert!(refused.contains("symbolic link to no directory"), "{target}: {refused}");
    }
    assert!(
        refused(Tar::new().symlink("way", "/etc").link("l", "way/passwd"))
            .contains("hard link to nothing")
    );
    // The link goes elsewhere in between.
    let base = good(
        Tar::new()
            .dir("one")
            .dir("two")
            .symlink("way", "one")
            .file("way/a", "1")
            .symlink("way", "two")
            .file("way/b", "2"),
    );
    assert_eq!(fs::read(root(&base).join("one/a")).unwrap(), b"1");
    assert_eq!(fs::read(root(&base).join("two/b")).unwrap(), b"2");
    // A link to a link links the link.
    let base = good(Tar::new().symlink("way", "/etc/passwd").link("hard", "way"));
    assert!(fs::symlink_metadata(root(&base).join("hard")).unwrap().is_symlink());
    // A directory over a link replaces the link.
    let base = good(Tar::new().symlink("way", "..").dir("way").file("way/outside", "inside"));
    assert_eq!(fs::read(root(&base).join("way/outside")).unwrap(), b"inside");
}

#[test]
fn whiteouts_become_overlay_marks() {
    let base = good(
        Tar::new()
            .file(".wh.gone", "")
            .dir("full")
            .file("full/.wh..wh..opq", "")
            .file("full/x", "")
            .file("a/b/.wh.deep", "")
            .file(".wh..wh.plnk", "")
            // The layer's own files win over its whiteouts, whichever comes first.
            .file("own", "stays")
            .file(".wh.own", "")
            .file(".wh.late", "")
            .file("late", "stays")
            .dir("owndir")
            .file(".wh.owndir", "")
            .file(".wh.latedir", "")
            .file("latedir/x", "stays"),
    );
    let root = root(&base);
    assert!(is_whiteout(&root.join("gone")));
    assert!(opaque(&root.join("full")));
    assert!(is_whiteout(&root.join("a/b/deep")));
    assert!(!root.join(".wh..wh.plnk").exists());
    assert_eq!(fs::read(root.join("own")).unwrap(), b"stays");
    assert_eq!(fs::read(root.join("late")).unwrap(), b"stays");
    assert!(opaque(&root.join("owndir")));
    assert!(opaque(&root.join("latedir")));
    assert_eq!(fs::read(root.join("latedir/x")).unwrap(), b"stays");
}

#[test]
fn overlay_attributes_of_the_layer_are_dropped() {
    let base = good(
        Tar::new()
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ])
            .dir("d"),
    );
    let mut list = [0_u8; 256];
    let length = rustix::fs::llistxattr(root(&base).join("d"), &mut list[..]).unwrap();
    let list = String::from_utf8_lossy(&list[..length]).into_owned();
    assert!(!list.contains("overlay"), "{list}");
}

#[test]
fn sparse_files_get_their_holes() {
    // GNU's PAX form 1.0: map, padding, data.
    let map = b"2\n0\n4\n1048576\n4\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend(b"headtail");
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"dir/real"),
            ("GNU.sparse.realsize", b"2097152"),
        ])
        .add(EntryType::Regular, "./GNUSparseFile.1/real", "", &data)
        // Form 0.1: map in the record.
        .pax(&[("GNU.sparse.map", b"4096,2"), ("GNU.sparse.size", b"8192")])
        .file("old", "xy");
    let (base, result) = unpack(tar);
    assert_eq!(result.unwrap().size, 2_097_152 + 8192);
    let real = fs::read(root(&base).join("dir/real")).unwrap();
    assert_eq!(
        (real.len(), &real[..4], &real[1_048_576..1_048_580]),
        (2_097_152, &b"head"[..], &b"tail"[..])
    );
    assert!(fs::metadata(root(&base).join("dir/real")).unwrap().blocks() < 100);
    let old = fs::read(root(&base).join("old")).unwrap();
    assert_eq!((old.len(), &old[4096..4098]), (8192, &b"xy"[..]));
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |map: &[u8], size: &[u8]| {
        Tar::new().pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", size)]).file("x", "ab")
    };
    assert!(refused(sparse(b"4096,2", b"100")).contains("sparse map"));
    assert!(refused(sparse(b"4,2,0,2", b"100")).contains("sparse map"));
    assert!(refused(sparse(b"x", b"100")).contains("sparse map"));
    assert!(unpack(sparse(b"0,3", b"100")).1.is_err(), "more data than there is");
    assert!(refused(sparse(b"0,2", b"99999999999999999")).contains("too large"));
}

#[test]
fn limits_hold() {
    let limits = Limits { layer_unpacked: 10_000, layer_entries: 3, ..Limits::default() };
    let text = |tar: Tar| {
        unpack_with(&tar.bytes(), Expected::default(), &limits).1.unwrap_err().to_string()
    };
    assert_eq!(
        text(Tar::new().file("a", "").file("b", "").file("c", "").file("d", "")),
        "layer is too large: more than 3 entries"
    );
    assert_eq!(
        text(Tar::new().file("a", &"x".repeat(20_000))),
        "layer is too large: more than 10000 bytes of files"
    );
    assert_eq!(
        text(Tar::new().add(EntryType::Directory, "d", "", &[0; 20_000])),
        "layer is too large: more than 10000 unpacked bytes"
    );
    // A header that claims more than any disk has.
    let mut huge = Header::new_gnu();
    huge.set_path("huge").unwrap();
    huge.set_size(1 << 60);
    huge.set_mode(0o600);
    huge.set_cksum();
    let bytes = [huge.as_bytes().as_slice(), &[0; 512]].concat();
    let (base, result) = unpack_with(&bytes, Expected::default(), &Limits::default());
    assert!(result.unwrap_err().to_string().contains("bytes of files"));
    assert!(!root(&base).join("huge").exists());

    let zeros = Tar::new().file("z", &"\0".repeat(4 << 20)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let gzip = gzip.finish().unwrap();
    let limits = Limits { ratio: 50, ratio_floor: 1 << 20, ..Limits::default() };
    let (_, result) = unpack_with(&gzip, Expected::default(), &limits);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("50 unpacked bytes for each compressed byte"), "{error}");
    unpack_with(&gzip, Expected::default(), &Limits::default()).1.unwrap();
}

#[test]
fn giant_headers_are_not_kept_in_memory() {
    // A PAX header of 64 MiB: refused after the budget, not read whole.
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_path("pax").unwrap();
    header.set_size(64 << 20);
    header.set_cksum();
    let source = std::io::Read::chain(&header.as_bytes()[..], std::io::repeat(b'a'));
    let base = tempfile::tempdir().unwrap();
    let root = File::open(base.path()).unwrap();
    let error =
        unpack_layer(source, root.as_fd(), Expected::default(), &Limits::default()).unwrap_err();
    assert_eq!(
        brig_types::error::chain(&error),
        "reading the layer archive: entry header is too large"
    );
}

#[test]
fn hashes_and_sizes_decide() {
    let content = Tar::new().file("a", "x").bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&content).unwrap();
    let blob = gzip.finish().unwrap();
    let digest = Digest::from_sha256(sha256(&blob));
    let diff_id = Digest::from_sha256(sha256(&content));
    let size = u64::try_from(blob.len()).unwrap();
    let check = |blob: &[u8], digest: &Digest, size: u64, diff_id: &Digest| {
        let expected = Expected { blob: Some((digest, size)), diff_id: Some(diff_id) };
        unpack_with(blob, expected, &Limits::default()).1
    };
    assert_eq!(check(&blob, &digest, size, &diff_id).unwrap().diff_id, diff_id);
    assert!(matches!(check(&blob, &diff_id, size, &diff_id), Err(UnpackError::WrongDigest { .. })));
    assert!(matches!(check(&blob, &digest, size, &digest), Err(UnpackError::WrongDiffId { .. })));
    assert!(matches!(
        check(&blob, &digest, size + 1, &diff_id),
        Err(UnpackError::WrongSize { .. })
    ));
    assert!(matches!(
        check(&blob, &digest, size - 1, &diff_id),
        Err(UnpackError::WrongSize { .. })
    ));
    assert!(matches!(
        check(&blob[..blob.len() - 6], &digest, size, &diff_id),
        Err(UnpackError::Read(_))
    ));
}

#[test]
fn nonsense_is_refused() {
    assert!(matches!(
        unpack_with(&[7; 2048], Expected::default(), &Limits::default()).1,
        Err(UnpackError::Read(_))
    ));
    assert!(refused(Tar::new().file("a", "").file("a/b", "")).contains("not a directory"));
    assert!(refused(Tar::new().link("l", "nothing")).contains("hard link to nothing"));
    assert!(refused(Tar::new().dir("d").link("l", "d")).contains("hard link to a directory"));
    assert!(refused(Tar::new().link("l", "l")).contains("hard link to itself"));
    assert!(refused(Tar::new().file("./", "").symlink(".", "x")).contains("root"));
    assert!(refused(Tar::new().add(EntryType::new(b'Z'), "z", "", b"")).contains("unknown type"));
    assert!(refused(Tar::new().pax(&[("path", b"a\0b")]).file("x", "")).contains("NUL"));
    // An empty layer is a layer.
    good(Tar::new());
}

fn hostile_path() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let component = prop_oneof![
        4 => Just("a"),
        4 => Just("b"),
        2 => Just(".."),
        1 => Just("."),
        1 => Just(""),
        1 => Just("outside"),
        1 => Just("root"),
        1 => Just(".wh.a"),
        1 => Just(".wh.outside"),
        1 => Just(".wh..wh..opq"),
    ];
    proptest::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"))
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// Whatever the entries are, nothing outside of the root changes.
    #[test]
    fn no_layer_reaches_outside(entries in proptest::collection::vec(
        (0..6_u8, hostile_path(), hostile_path()), 1..12)) {
        // One file for each layer: the first bad entry ends it.
        let mut tar = Tar::new();
        for (kind, name, target) in &entries {
            let kind = match kind {
                0 | 1 => EntryType::Regular,
                2 => EntryType::Directory,
                3 => EntryType::Symlink,
                4 => EntryType::Link,
                _ => EntryType::Fifo,
            };
            let data: &[u8] = if kind == EntryType::Regular { b"evil" } else { b"" };
            tar = tar.add(kind, name, target, data);
        }
        let (base, _) = unpack(tar);
        let outside = fs::symlink_metadata(base.path().join("outside")).unwrap();
        proptest::prop_assert!(outside.is_file());
        proptest::prop_assert_eq!((outside.nlink(), outside.uid()), (1, 0));
    }

    #[test]
    fn damaged_archives_end(at in 0..3000_usize, byte in proptest::prelude::any::<u8>()) {
        let mut bytes = Tar::new()
            .dir("d")
            .pax(&[("path", b"d/x"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
            .file("x", "content")
            .symlink("s", "d")
            .link("l", "d/x")
            .bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let limits = Limits { layer_unpacked: 1 << 20, ..Limits::default() };
        let _ = unpack_with(&bytes, Expected::default(), &limits);
    }
}

#[test]
fn archives_come_back_to_the_byte() {
    let mut sparse = Header::new_gnu();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_path("sparse").unwrap();
    sparse.set_mode(0o600);
    sparse.set_uid(0);
    sparse.set_gid(0);
    sparse.set_mtime(0);
    sparse.set_size(3);
    if let Some(gnu) = sparse.as_gnu_mut() {
        gnu.set_real_size(4099);
        gnu.sparse[0].set_offset(4096);
        gnu.sparse[0].set_length(3);
    }
    sparse.set_cksum();
    let big = "x".repeat(300_000);
    let mut tar = Tar::new()
        .dir("d")
        .file("d/a", "first")
        .file("d/a", "second, longer")
        .file("d/b", "below")
        .symlink("way", "d")
        .file("way/c", "by the link")
        .link("hard", "d/a")
        .file("d", "no directory any more")
        .dir("d")
        .file("d/a", "third")
        .file("big", &big)
        .pax(&[("SCHILY.xattr.user.x", b"value")])
        .file("note", "hi")
        .file(".wh.gone", "")
        .file("hard", "");
    tar.0.append(&sparse, &b"end"[..]).unwrap();
    let mut bytes = tar.bytes();
    // Tools pad to whole records.
    bytes.extend_from_slice(&[0; 10_240]);
    let (_, result) = unpack_with(&bytes, Expected::default(), &Limits::default());
    let unpacked = result.unwrap();
    assert_eq!(unpacked.archive, u64::try_from(bytes.len()).unwrap());
    assert_eq!(unpacked.replaced, 4);
}

#[test]
fn a_changed_tree_is_noticed() {
    let base = tempfile::tempdir().unwrap();
    let (tree, log, attic) =
        (base.path().join("tree"), base.path().join("log"), base.path().join("attic"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&attic).unwrap();
    let dirs = (File::open(&tree).unwrap(), File::open(&attic).unwrap());
    let notes = Notes { log: File::create(&log).unwrap(), attic: dirs.1.as_fd() };
    let bytes = Tar::new().file("a", "content").bytes();
    let unpacked = super::unpack(
        &bytes[..],
        dirs.0.as_fd(),
        Expected::default(),
        &Limits::default(),
        Some(notes),
    )
    .unwrap();
    let read = || {
        let mut again = Vec::new();
        LayerTar::open(&log, &tree, None, unpacked.diff_id.clone())
            .and_then(|mut tar| std::io::Read::read_to_end(&mut tar, &mut again))
            .map(|_| again)
    };
    assert_eq!(read().unwrap(), bytes);
    fs::write(tree.join("a"), "CONTENT").unwrap();
    assert!(read().unwrap_err().to_string().contains("was changed on disk"));
    fs::write(tree.join("a"), "short").unwrap();
    assert_eq!(read().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    fs::remove_file(tree.join("a")).unwrap();
    assert!(read().unwrap_err().to_string().contains("\"a\""));
    std::os::unix::fs::symlink("/etc/passwd", tree.join("a")).unwrap();
    assert!(read().is_err());
}
