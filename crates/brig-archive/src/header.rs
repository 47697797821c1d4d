//! Entries of an archive as bytes: names of any length and form, extended attributes.
//!
//! The tar library refuses names from the root (`/bin`), which docker's clients expect for a copy
//! of `/`; so names are put into headers here, long ones as GNU tar does it.

use std::io::{self, Write};

use rustix::fs::{FileType, Stat};
use tar::{EntryType, Header};

/// Room for a name in a header.
const NAME_FIELD: usize = 100;
const BLOCK: usize = 512;
const LONG_NAME: &[u8] = b"././@LongLink";

/// What an entry is, beside its content.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: EntryType,
    pub(crate) link: &'a [u8],
    pub(crate) size: u64,
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// The kind of entry that a file of this type is; `None` for what no archive holds: sockets.
pub(crate) fn kind_of(kind: FileType) -> Option<EntryType> {
    Some(match kind {
        FileType::RegularFile => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    })
}

/// Writes everything of an entry that comes before its content.
pub(crate) fn write(out: &mut impl Write, entry: &Entry<'_>, stat: &Stat) -> io::Result<()> {
    if !entry.xattrs.is_empty() {
        let mut records = Vec::new();
        for (name, value) in entry.xattrs {
            let mut body = b" SCHILY.xattr.".to_vec();
            body.extend_from_slice(name);
            body.push(b'=');
            body.extend_from_slice(value);
            body.push(b'\n');
            push_record(&mut records, &body);
        }
        extension(out, EntryType::XHeader, b"PaxHeaders/xattr", &records)?;
    }
    if entry.name.len() > NAME_FIELD {
        extension(out, EntryType::GNULongName, LONG_NAME, &terminated(entry.name))?;
    }
    if entry.link.len() > NAME_FIELD {
        extension(out, EntryType::GNULongLink, LONG_NAME, &terminated(entry.link))?;
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(entry.kind);
    header.set_mode(u32::from(stat.st_mode as u16) & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header.set_size(entry.size);
    if matches!(entry.kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(rustix::fs::major(stat.st_rdev))?;
        header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
    }
    finish(out, header, entry.name, entry.link)
}

/// Fills the rest of the last block of an entry's content.
pub(crate) fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    if over == 0 {
        return Ok(());
    }
    out.write_all([0_u8; BLOCK].get(over..).unwrap_or_default())
}

/// Writes the two empty blocks at the end.
pub(crate) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0_u8; BLOCK * 2])
}

fn terminated(name: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.push(0);
    bytes
}

fn extension(out: &mut impl Write, kind: EntryType, name: &[u8], data: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let size = u64::try_from(data.len()).unwrap_or_default();
    header.set_size(size);
    finish(out, header, name, b"")?;
    out.write_all(data)?;
    pad(out, size)
}

fn finish(out: &mut impl Write, mut header: Header, name: &[u8], link: &[u8]) -> io::Result<()> {
    let fields = header.as_old_mut();
    fill(&mut fields.name, name);
    fill(&mut fields.linkname, link);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

fn fill(field: &mut [u8; NAME_FIELD], text: &[u8]) {
    for (place, byte) in field.iter_mut().zip(text) {
        *place = *byte;
    }
}

/// Adds `LENGTH body`, where the length counts itself.
fn push_record(records: &mut Vec<u8>, body: &[u8]) {
    let mut length = body.len() + 1;
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.extend_from_slice(body);
}
