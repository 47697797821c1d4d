//! What PAX records say beyond the plain header: attributes, times, sparse maps
//! (POSIX.1-2001 pax, GNU tar's "Sparse Formats").

use std::io::Read;

use rustix::fs::Timespec;

use super::path::invalid;
use crate::error::UnpackError;
use crate::limits::{MAX_SPARSE_SEGMENTS, MAX_XATTR, MAX_XATTRS};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
const BLOCK: u64 = 512;

/// The records of one entry that matter here.
#[derive(Debug, Default)]
pub(super) struct PaxRecords {
    /// Attributes to set, name and value.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Modification time with its fraction.
    pub(super) mtime: Option<Timespec>,
    /// The file has holes.
    pub(super) sparse: Option<PaxSparse>,
}

/// A sparse file in one of GNU tar's three PAX forms.
#[derive(Debug)]
pub(super) struct PaxSparse {
    /// The file's name, which the header replaces by another one in the newer forms.
    pub(super) name: Option<Vec<u8>>,
    /// Size with holes.
    pub(super) real_size: u64,
    /// Where data lies; `None` when the map precedes the data (form 1.0).
    map: Option<Vec<Segment>>,
}

/// Bytes of a sparse file that are not a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl PaxRecords {
    pub(super) fn read<R: Read>(
        entry: &mut tar::Entry<'_, R>,
        path: &[u8],
    ) -> Result<Self, UnpackError> {
        let mut records = Self::default();
        let Some(extensions) = entry.pax_extensions().map_err(UnpackError::Read)? else {
            return Ok(records);
        };
        let mut sparse = SparseRecords::default();
        for extension in extensions {
            let extension = extension.map_err(UnpackError::Read)?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                // SECURITY: `trusted.overlay.*` would let a layer redirect overlayfs; labels of
                // security modules are the host's. Only these two families are the layer's.
                // What begins with `user.overlay.` is the same to overlayfs of unprivileged users.
                if name != b"security.capability"
                    && (!name.starts_with(b"user.") || name.starts_with(b"user.overlay."))
                {
                    continue;
                }
                if records.xattrs.len() >= MAX_XATTRS || value.len() > MAX_XATTR {
                    return Err(invalid(path, "too many or too large extended attributes"));
                }
                if name.len() > 255 || name.contains(&0) {
                    return Err(invalid(path, "extended attribute name is invalid"));
                }
                records.xattrs.push((name.to_vec(), value.to_vec()));
            } else if key == b"mtime" {
                records.mtime =
                    Some(parse_time(value).ok_or_else(|| invalid(path, "time is invalid"))?);
            } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                sparse.add(key, value).ok_or_else(|| invalid(path, "sparse map is invalid"))?;
            }
        }
        records.sparse = sparse.finish().ok_or_else(|| invalid(path, "sparse map is invalid"))?;
        Ok(records)
    }
}

#[derive(Default)]
struct SparseRecords {
    major: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    numbers: Vec<u64>,
    seen: bool,
}

impl SparseRecords {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        self.seen = true;
        match key {
            b"major" => self.major = Some(number(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.real_size = Some(number(value)?),
            b"offset" | b"numbytes" => self.numbers.push(number(value)?),
            b"map" => {
                for part in value.split(|&b| b == b',') {
                    self.numbers.push(number(part)?);
                }
            }
            _ => {}
        }
        (self.numbers.len() <= 2 * MAX_SPARSE_SEGMENTS).then_some(())
    }

    #[allow(clippy::option_option)] // outer: the records make sense; inner: the file is sparse
    fn finish(self) -> Option<Option<PaxSparse>> {
        if !self.seen {
            return Some(None);
        }
        let real_size = self.real_size?;
        let map = match self.major {
            Some(1) => None,
            None | Some(0) => Some(segments(&self.numbers, real_size)?),
            Some(_) => return None,
        };
        Some(Some(PaxSparse { name: self.name, real_size, map }))
    }
}

impl PaxSparse {
    /// The data's places, and how many bytes of the entry were used to find out.
    pub(super) fn map<R: Read>(
        &self,
        data: &mut R,
        path: &[u8],
    ) -> Result<Vec<Segment>, UnpackError> {
        if let Some(map) = &self.map {
            return Ok(map.clone());
        }
        let bad = || invalid(path, "sparse map is invalid");
        let mut used = 0_u64;
        let mut next = || -> Result<u64, UnpackError> {
            let mut digits = Vec::new();
            loop {
                let mut byte = [0_u8];
                data.read_exact(&mut byte).map_err(UnpackError::Read)?;
                used += 1;
                match byte {
                    [b'\n'] => return number(&digits).ok_or_else(bad),
                    [digit] if digits.len() < 20 => digits.push(digit),
                    _ => return Err(bad()),
                }
            }
        };
        let count = usize::try_from(next()?).map_err(|_| bad())?;
        if count > MAX_SPARSE_SEGMENTS {
            return Err(bad());
        }
        let mut numbers = Vec::with_capacity(2 * count);
        for _ in 0..2 * count {
            numbers.push(next()?);
        }
        let padding = used.next_multiple_of(BLOCK) - used;
        let skipped = std::io::copy(&mut data.take(padding), &mut std::io::sink())
            .map_err(UnpackError::Read)?;
        if skipped != padding {
            return Err(bad());
        }
        segments(&numbers, self.real_size).ok_or_else(bad)
    }
}

fn segments(numbers: &[u64], real_size: u64) -> Option<Vec<Segment>> {
    let mut end = 0_u64;
    let mut out = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks(2) {
        let &[offset, length] = pair else { return None };
        if offset < end {
            return None;
        }
        end = offset.checked_add(length)?;
        if end > real_size {
            return None;
        }
        out.push(Segment { offset, length });
    }
    Some(out)
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`.
fn parse_time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some(match (whole.starts_with('-'), nanos) {
        (true, 1..) => Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanos },
        _ => Timespec { tv_sec: seconds, tv_nsec: nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        let time = |text: &str| parse_time(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time("1.1234567891"), Some((1, 123_456_789)));
        assert_eq!(time("x"), None);
        assert_eq!(time("1.x"), None);
    }

    #[test]
    fn maps_must_be_ordered_and_inside() {
        assert!(segments(&[0, 4, 8, 4], 12).is_some());
        assert!(segments(&[0, 4, 2, 4], 12).is_none());
        assert!(segments(&[0, 4, 8, 5], 12).is_none());
        assert!(segments(&[0], 12).is_none());
        assert!(segments(&[u64::MAX, 2], u64::MAX).is_none());
    }
}
