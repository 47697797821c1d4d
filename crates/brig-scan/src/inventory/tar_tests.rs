use proptest::prelude::*;

use super::*;

/// One header and its padded content.
fn member(name: &str, kind: u8, link: &str, content: &[u8], mode: u32) -> Vec<u8> {
    let mut block = [0_u8; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    sum(&mut block);
    let mut out = block.to_vec();
    out.extend(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

fn sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

type Found = (String, Kind, u64, Vec<u8>);

fn walk_all(bytes: &[u8]) -> Result<Vec<Found>, ScanError> {
    let mut walker = Walker::new(ReadStream::new(bytes));
    let mut found = Vec::new();
    while let Some(entry) = walker.next()? {
        let content = walker.content(5)?;
        found.push((entry.path, entry.kind, entry.size, content));
    }
    Ok(found)
}

#[test]
fn entries_come_with_their_contents() {
    let long = format!("{}/file", "d".repeat(150));
    let bytes = [
        member("./etc/", b'5', "", b"", 0o755),
        member("./etc/a", b'0', "", b"hello world", 0o644),
        member("etc/link", b'2', "a", b"", 0o777),
        member("././@LongLink", b'L', "", format!("{long}\0").as_bytes(), 0),
        member("cut", b'0', "", b"x", 0o644),
        member("PaxHeader", b'x', "", b"17 path=from/pax\n19 SCHILY.xattr=ab\n", 0),
        member("short", b'0', "", b"yy", 0o644),
        vec![0; 1024],
    ]
    .concat();
    let found = walk_all(&bytes).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["etc", "etc/a", "etc/link", long.as_str(), "from/pax"]);
    assert_eq!(found[1].3, b"hello");
    assert_eq!(found[2].1, Kind::Symlink);
    // The same from a file, where contents are passed over without being read.
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let mut walker = Walker::new(FileStream::new(&file, 0, bytes.len() as u64));
    let mut again = Vec::new();
    while let Some(entry) = walker.next().unwrap() {
        let (_, at) = walker.place().unwrap();
        let inside = usize::try_from(at).unwrap();
        assert_eq!(walker.content(1).unwrap(), bytes[inside..][..entry.size.min(1) as usize]);
        again.push(entry.path);
    }
    assert_eq!(again, names);
}

#[test]
fn lying_and_broken_archives_are_refused() {
    let mut huge = member("a", b'0', "", b"", 0o644);
    huge[124..136]
        .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    sum(&mut huge[..BLOCK]);
    assert!(walk_all(&huge).is_err());
    let mut wrong = member("a", b'0', "", b"x", 0o644);
    wrong[0] = b'b';
    assert_eq!(
        walk_all(&wrong).unwrap_err().to_string(),
        "the archive is damaged: a header's checksum is wrong"
    );
    let cut = member("a", b'0', "", &[1; 600], 0o644);
    assert!(walk_all(&cut[..700]).is_err());
    let names = member("././@LongLink", b'L', "", &vec![b'a'; 2 << 20], 0);
    assert!(matches!(walk_all(&names), Err(ScanError::Limit { .. })));
    let pax = member("x", b'x', "", b"9999999999999999999999 path=a\n", 0);
    assert!(walk_all(&pax).is_err());
}

#[test]
fn names_stay_below_the_root() {
    for (raw, path, escapes) in [
        ("./a/b/", "a/b", false),
        ("/etc//x", "etc/x", false),
        ("a/./b", "a/b", false),
        ("a/../b", "b", false),
        ("../x", "x", true),
        ("a/../../x", "x", true),
        ("./", "", false),
        (".wh.x", ".wh.x", false),
        ("a/.hidden", "a/.hidden", false),
        ("a/...", "a/...", false),
    ] {
        assert_eq!(clean(raw.as_bytes()), (path.to_owned(), escapes), "{raw}");
    }
}

#[test]
fn devices_of_overlayfs_are_marks() {
    let mut mark = member("gone", b'3', "", b"", 0);
    mark[329..336].copy_from_slice(b"0000000");
    mark[337..344].copy_from_slice(b"0000000");
    sum(&mut mark[..BLOCK]);
    assert_eq!(walk_all(&mark).unwrap()[0].1, Kind::Removed);
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = walk_all(&bytes);
    }

    #[test]
    fn damaged_headers_end(at in 0_usize..512, byte: u8, kind: u8) {
        let mut bytes = member("etc/a", kind, "b", b"content", 0o644);
        bytes[at] = byte;
        sum(&mut bytes[..BLOCK]);
        let _ = walk_all(&bytes);
    }

    #[test]
    fn clean_names_have_no_special_part(raw in "[./a-c]{0,30}") {
        let (path, _) = clean(raw.as_bytes());
        prop_assert!(!path.starts_with('/'));
        if !path.is_empty() {
            for part in path.split('/') {
                prop_assert!(!matches!(part, "" | "." | ".."), "{raw} -> {path}");
            }
        }
    }
}
