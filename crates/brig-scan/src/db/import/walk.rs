//! Files, folders and archives of documents: plain, gzip and zstd, tar and zip, one document a
//! line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::{Collector, DbError, Feed, finish, import_document};

/// Largest single document, in bytes: Debian's tracker is the largest that exists.
pub const MAX_DOCUMENT: u64 = 512 << 20;

/// Largest feed after decompression, in bytes.
pub const MAX_FEED: u64 = 32 << 30;

/// Largest zip: it is read from its end, and held for that.
const MAX_ZIP: u64 = 2 << 30;

/// Deepest folder below a feed's own.
const MAX_DEPTH: u32 = 16;

/// Reads a file or a folder as one feed.
///
/// # Errors
/// [`DbError`] when it cannot be read or nothing in it is understood. Single records that are
/// wrong are counted in the feed, and do not end it.
pub fn import_path(into: &mut Collector, feed: Feed, path: &Path) -> Result<Feed, DbError> {
    let origin = feed.origin.clone();
    into.feed(feed);
    folder_or_file(into, path, 0)
        .map_err(|error| DbError::Feed(path.display().to_string(), error))?;
    finish(into, &origin)
}

/// Reads a feed from a stream; its name tells tar and lines apart.
///
/// # Errors
/// As [`import_path`].
pub fn import_reader(
    into: &mut Collector,
    feed: Feed,
    name: &str,
    reader: impl Read,
) -> Result<Feed, DbError> {
    let origin = feed.origin.clone();
    into.feed(feed);
    stream(into, name, Box::new(BufReader::new(reader)))
        .map_err(|error| DbError::Feed(name.to_owned(), error))?;
    finish(into, &origin)
}

fn folder_or_file(into: &mut Collector, path: &Path, depth: u32) -> io::Result<()> {
    let name = path.to_string_lossy().into_owned();
    if !path.is_dir() {
        return stream(into, &name, Box::new(BufReader::new(File::open(path)?)));
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other("folders are nested too deep"));
    }
    let mut entries = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    // Equal folders give equal databases.
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if entry.file_name().to_string_lossy().starts_with('.') || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() || kind.is_file() {
            folder_or_file(into, &entry.path(), depth + 1)?;
        }
    }
    Ok(())
}

fn stream(into: &mut Collector, name: &str, mut reader: Box<dyn BufRead + '_>) -> io::Result<()> {
    let magic = reader.fill_buf()?;
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let inner = zstd::stream::read::Decoder::with_buffer(reader)?;
        return plain(into, name.strip_suffix(".zst").unwrap_or(name), BufReader::new(inner));
    }
    if magic.starts_with(&[0x1f, 0x8b]) {
        let inner = flate2::bufread::MultiGzDecoder::new(reader);
        return plain(into, name.strip_suffix(".gz").unwrap_or(name), BufReader::new(inner));
    }
    plain(into, name, reader)
}

fn plain(into: &mut Collector, name: &str, reader: impl BufRead) -> io::Result<()> {
    let mut reader = reader.take(MAX_FEED);
    if name.ends_with(".tar") || name.ends_with(".tgz") {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let path = entry.path()?.to_string_lossy().into_owned();
                if path.ends_with(".jsonl") {
                    lines(into, BufReader::new(entry))?;
                } else {
                    whole(into, &path, entry)?;
                }
            }
        }
        return Ok(());
    }
    if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
        return lines(into, reader);
    }
    if reader.fill_buf()?.starts_with(b"PK\x03\x04") {
        let mut bytes = Vec::new();
        reader.take(MAX_ZIP + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_ZIP {
            return Err(io::Error::other(format!("a zip of more than {MAX_ZIP} bytes")));
        }
        return zip(into, &bytes);
    }
    whole(into, name, reader)
}

fn lines(into: &mut Collector, mut reader: impl BufRead) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(MAX_DOCUMENT).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !line.trim_ascii().is_empty() {
            document(into, ".json", &line);
        }
    }
}

fn whole(into: &mut Collector, path: &str, reader: impl Read) -> io::Result<()> {
    let mut bytes = Vec::new();
    reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_DOCUMENT {
        return Err(io::Error::other(format!("{path} is larger than {MAX_DOCUMENT} bytes")));
    }
    document(into, path, &bytes);
    Ok(())
}

/// OSV's bulk files: a zip of one record a member.
fn zip(into: &mut Collector, bytes: &[u8]) -> io::Result<()> {
    let archive = rawzip::ZipArchive::from_slice(bytes).map_err(io::Error::other)?;
    for entry in archive.entries() {
        let entry = entry.map_err(io::Error::other)?;
        if entry.is_dir() {
            continue;
        }
        let path = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        let member = archive.get_entry(entry.wayfinder()).map_err(io::Error::other)?;
        match entry.compression_method() {
            rawzip::CompressionMethod::STORE => whole(into, &path, member.data())?,
            rawzip::CompressionMethod::DEFLATE => {
                whole(into, &path, flate2::read::DeflateDecoder::new(member.data()))?;
            }
            other => {
                into.skipped(|| format!("{path}: packed in a way that is not known ({other:?})"))
            }
        }
    }
    Ok(())
}

fn document(into: &mut Collector, path: &str, bytes: &[u8]) {
    match import_document(into, path, bytes) {
        Ok(true) => {}
        Ok(false) => into.skipped(|| format!("{path}: not a format that is known here")),
        Err(why) => into.skipped(|| format!("{path}: {why}")),
    }
}
