use proptest::prelude::*;

use super::super::{names, path_key};
use super::*;

/// A header blob with these tags; numbers are four bytes, lists of texts end each with a NUL.
pub(super) fn blob(tags: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut index = Vec::new();
    let mut data: Vec<u8> = Vec::new();
    for (tag, kind, count, value) in tags {
        for number in [*tag, *kind, u32::try_from(data.len()).unwrap(), *count] {
            index.extend(number.to_be_bytes());
        }
        data.extend(value);
    }
    let mut blob = Vec::new();
    blob.extend(u32::try_from(tags.len()).unwrap().to_be_bytes());
    blob.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    blob.extend(index);
    blob.extend(data);
    blob
}

fn text(tag: u32, value: &str) -> (u32, u32, u32, Vec<u8>) {
    (tag, 6, 1, [value.as_bytes(), b"\0"].concat())
}

fn bash(padding: usize) -> Vec<u8> {
    blob(&[
        text(1000, "bash"),
        text(1001, "5.1.8"),
        text(1002, "6.el9"),
        (1003, 4, 1, 2_u32.to_be_bytes().to_vec()),
        text(1011, "AlmaLinux"),
        text(1022, "x86_64"),
        text(1044, "bash-5.1.8-6.el9.src.rpm"),
        (1116, 4, 2, [0_u32.to_be_bytes(), 1_u32.to_be_bytes()].concat()),
        (1117, 8, 2, b"bash\0README\0".to_vec()),
        (1118, 8, 2, b"/usr/bin/\0/usr/share/doc/bash/\0".to_vec()),
        text(5096, "m:1"),
        text(9999, &"x".repeat(padding)),
    ])
}

fn key() -> Vec<u8> {
    blob(&[text(1000, "gpg-pubkey"), text(1001, "1"), text(1002, "2")])
}

fn is_bash(parsed: &Parsed) {
    assert_eq!(names(parsed), ["bash 2:5.1.8-6.el9"]);
    let package = &parsed.packages[0];
    let source = package.source.as_ref().unwrap();
    assert_eq!((source.name.as_str(), source.version.as_str()), ("bash", "2:5.1.8-6.el9"));
    assert_eq!(package.vendor.as_deref(), Some("AlmaLinux"));
    assert_eq!(package.module.as_deref(), Some("m:1"));
    assert_eq!(parsed.owned.get("bash"), Some(&vec![path_key("usr/bin/bash")]));
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
}

fn ndb(blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0_u8; 4096];
    file[..4].copy_from_slice(b"RpmP");
    file[12..16].copy_from_slice(&1_u32.to_le_bytes());
    for slot in file[32..].chunks_exact_mut(16) {
        slot[..4].copy_from_slice(b"Slot");
    }
    for (number, blob) in blobs.iter().enumerate() {
        let offset = u32::try_from(file.len() / 16).unwrap();
        let index = u32::try_from(number + 1).unwrap();
        let slot = 32 + number * 16;
        file[slot + 4..slot + 8].copy_from_slice(&index.to_le_bytes());
        file[slot + 8..slot + 12].copy_from_slice(&offset.to_le_bytes());
        file.extend(b"BlbS");
        file.extend(index.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(u32::try_from(blob.len()).unwrap().to_le_bytes());
        file.extend(blob);
        file.resize(file.len().next_multiple_of(16), 0);
    }
    file
}

#[test]
fn ndb_is_read() {
    let file = ndb(&[bash(10), key()]);
    is_bash(&from_ndb(&file[..], "x").unwrap());
    assert!(from_ndb(&file[..4200], "x").is_err());
    assert!(from_ndb(&b"RpmQ"[..], "x").is_err());
}

/// A hash table with one value on the page and one in a chain of overflow pages.
fn bdb(small: &[u8], large: &[u8], big: bool) -> Vec<u8> {
    const PAGE: usize = 1024;
    let four = |number: usize| {
        let number = u32::try_from(number).unwrap();
        if big { number.to_be_bytes() } else { number.to_le_bytes() }
    };
    let two = |number: usize| {
        let number = u16::try_from(number).unwrap();
        if big { number.to_be_bytes() } else { number.to_le_bytes() }
    };
    let mut file = vec![0_u8; PAGE * 2];
    file[12..16].copy_from_slice(&four(0x061561));
    file[20..24].copy_from_slice(&four(PAGE));
    file[25] = 8;
    let page = &mut file[PAGE..];
    page[25] = 13;
    page[20..22].copy_from_slice(&two(4));
    let mut end = PAGE;
    let mut put = |page: &mut [u8], index: usize, item: &[u8]| {
        end -= item.len();
        page[end..end + item.len()].copy_from_slice(item);
        page[26 + index * 2..28 + index * 2].copy_from_slice(&two(end));
    };
    put(page, 0, &[1, 1, 0, 0, 0]);
    put(page, 1, &[&[1][..], small].concat());
    put(page, 2, &[1, 2, 0, 0, 0]);
    let mut off = vec![3_u8, 0, 0, 0];
    off.extend(four(2));
    off.extend(four(large.len()));
    put(page, 3, &off);
    let chunks: Vec<&[u8]> = large.chunks(PAGE - 26).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut page = vec![0_u8; PAGE];
        page[25] = 7;
        page[22..24].copy_from_slice(&two(chunk.len()));
        if index + 1 < chunks.len() {
            page[16..20].copy_from_slice(&four(3 + index));
        }
        page[26..26 + chunk.len()].copy_from_slice(chunk);
        file.extend(page);
    }
    file
}

#[test]
fn berkeley_db_is_read_in_both_byte_orders() {
    for big in [false, true] {
        let file = bdb(&key(), &bash(4000), big);
        is_bash(&from_bdb(&file[..], "x").unwrap());
        assert!(from_bdb(&file[..file.len() - 1024], "x").is_err());
    }
    let mut looped = bdb(&key(), &bash(4000), false);
    // The second overflow page points to itself.
    looped[3 * 1024 + 16..3 * 1024 + 20].copy_from_slice(&3_u32.to_le_bytes());
    looped[3 * 1024 + 22..3 * 1024 + 24].copy_from_slice(&0_u16.to_le_bytes());
    let error = from_bdb(&looped[..], "x").unwrap_err();
    assert_eq!(error.to_string(), "its pages form a loop");
}

/// A database that SQLite itself wrote, with its log when `wal` says so.
fn sqlite(blobs: &[Vec<u8>], wal: bool) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpmdb.sqlite");
    let script = "
import sqlite3, sys, os, shutil
path, wal = sys.argv[1], sys.argv[2] == '1'
db = sqlite3.connect(path, isolation_level=None)
db.execute('PRAGMA page_size=1024')
if wal:
    db.execute('PRAGMA journal_mode=WAL')
    db.execute('PRAGMA wal_autocheckpoint=0')
db.execute('CREATE TABLE Name(key TEXT, hnum INTEGER)')
db.execute('CREATE TABLE Packages(hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')
for blob in sys.argv[3:]:
    db.execute('INSERT INTO Packages(blob) VALUES (?)', (bytes.fromhex(blob),))
shutil.copy(path, path + '.copy')
if os.path.exists(path + '-wal'):
    shutil.copy(path + '-wal', path + '-wal.copy')
";
    let status = std::process::Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(&path)
        .arg(if wal { "1" } else { "0" })
        .args(blobs.iter().map(hex::encode))
        .status()
        .unwrap();
    assert!(status.success());
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap_or_default();
    (read("rpmdb.sqlite.copy"), read("rpmdb.sqlite-wal.copy"))
}

#[test]
fn sqlite_is_read_with_overflow_and_log() {
    let (file, log) = sqlite(&[key(), bash(9000)], false);
    assert!(log.is_empty());
    is_bash(&from_sqlite(&file[..], None, "x").unwrap());
    assert!(from_sqlite(&file[..file.len() / 2], None, "x").is_err());

    let (file, log) = sqlite(&[key(), bash(9000)], true);
    assert!(!log.is_empty());
    is_bash(&from_sqlite(&file[..], Some(&log), "x").unwrap());
    // A frame that was not written to its end does not count, nor do those after it.
    let mut torn = log;
    let at = torn.len() - 10;
    torn[at] ^= 1;
    let left = from_sqlite(&file[..], Some(&torn), "x").map(|parsed| parsed.packages.len());
    assert!(matches!(left, Ok(0) | Err(_)), "{left:?}");
}

#[test]
fn many_rows_make_a_tree() {
    let blobs: Vec<Vec<u8>> = (0..60)
        .map(|n| blob(&[text(1000, &format!("p{n}")), text(1001, "1"), text(1002, "2")]))
        .collect();
    let (file, _) = sqlite(&blobs, false);
    let parsed = from_sqlite(&file[..], None, "x").unwrap();
    assert_eq!(parsed.packages.len(), 60);
    assert_eq!(names(&parsed)[59], "p59 1-2");
}

#[test]
fn a_manifest_of_an_image_without_database() {
    let text = b"bash\t5.1-1.cm2\t1\t2\tMicrosoft Corporation\t(none)\t7\tx86_64\t0\tbash-5.1-1.cm2.src.rpm\nbad\n";
    let parsed = from_manifest(text, "x").unwrap();
    assert_eq!(names(&parsed), ["bash 5.1-1.cm2"]);
    assert_eq!(parsed.problems, ["a line has not ten fields"]);
}

proptest! {
    #[test]
    fn damaged_databases_end(at in 0_usize..8192, byte: u8, cut in 0_usize..9000) {
        let mut files = [ndb(&[bash(10), key()]), bdb(&key(), &bash(4000), false)];
        for file in &mut files {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            let end = file.len().min(cut.max(64));
            let _ = from_ndb(&file[..end], "x");
            let _ = from_bdb(&file[..end], "x");
            let _ = from_ndb(&file[..], "x");
            let _ = from_bdb(&file[..], "x");
        }
    }

    #[test]
    fn any_header_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut parsed = Parsed::default();
        let _ = header::add(&bytes, "x", &mut parsed);
        let mut file = b"SQLite format 3\0".to_vec();
        file.extend(&bytes);
        let _ = from_sqlite(&file[..], Some(&bytes), "x");
    }
}
