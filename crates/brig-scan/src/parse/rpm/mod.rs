//! rpm's database in its three containers, and the header blobs inside.

pub mod bdb;
pub mod header;
pub mod ndb;
pub mod sqlite;

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::{MAX_FIELD, ParseError, Parsed, ReadAt};

/// Largest header of one package, in bytes. Headers of packages with very many files reach some
/// tens of megabytes.
pub const MAX_BLOB: usize = 64 << 20;

/// Reads `rpmdb.sqlite` with the write-ahead log beside it.
///
/// # Errors
/// [`ParseError`] when the container cannot be walked.
pub fn from_sqlite<R: ReadAt + ?Sized>(
    file: &R,
    log: Option<&[u8]>,
    path: &str,
) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    sqlite::blobs(file, log, &mut |blob| header::add(blob, path, &mut parsed))?;
    Ok(parsed)
}

/// Reads `Packages.db`.
///
/// # Errors
/// [`ParseError`] when the container cannot be walked.
pub fn from_ndb<R: ReadAt + ?Sized>(file: &R, path: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    ndb::blobs(file, &mut |blob| header::add(blob, path, &mut parsed))?;
    Ok(parsed)
}

/// Reads `Packages`.
///
/// # Errors
/// [`ParseError`] when the container cannot be walked.
pub fn from_bdb<R: ReadAt + ?Sized>(file: &R, path: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    bdb::blobs(file, &mut |blob| header::add(blob, path, &mut parsed))?;
    Ok(parsed)
}

/// Reads `container-manifest-2` of images that have no database: tab-separated name, version-release,
/// two times, vendor, an unused column, size, architecture, epoch, source rpm.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn from_manifest(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, version, _, _, vendor, _, _, arch, epoch, source, ..] = fields.as_slice() else {
            parsed.problem("a line has not ten fields");
            continue;
        };
        let epoch = epoch.parse::<u32>().unwrap_or(0);
        let full = if epoch == 0 { (*version).to_owned() } else { format!("{epoch}:{version}") };
        let mut found = Package::new(Ecosystem::Rpm, *name, full, path, EvidenceKind::Database);
        found.arch = some(arch);
        found.vendor = some(vendor);
        found.source = header::source(source, epoch);
        parsed.push(found)?;
    }
    Ok(parsed)
}

fn some(field: &str) -> Option<String> {
    let none = field.is_empty() || field == "(none)" || field.len() > MAX_FIELD;
    (!none).then(|| field.to_owned())
}

/// A little- or big-endian number at a place of a buffer.
pub(crate) fn u32_at(bytes: &[u8], at: usize, big: bool) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
}

/// As [`u32_at`], two bytes.
pub(crate) fn u16_at(bytes: &[u8], at: usize, big: bool) -> Option<u16> {
    let two: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(if big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) })
}

#[cfg(test)]
mod tests;
