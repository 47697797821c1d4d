//! `Packages.db`, SUSE's container: slots that point to blobs, all little-endian.

use super::super::{ParseError, ReadAt, exact};
use super::{MAX_BLOB, u32_at};

const PAGE: usize = 4096;
const SLOT: usize = 16;
const BLOCK: u64 = 16;
const BLOB_HEAD: usize = 16;
/// Most pages of slots: a million packages.
const MAX_SLOT_PAGES: u32 = 4096;
const MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
const SLOT_MAGIC: u32 = u32::from_le_bytes(*b"Slot");
const BLOB_MAGIC: u32 = u32::from_le_bytes(*b"BlbS");

/// Calls `each` with every package's header.
///
/// # Errors
/// [`ParseError`] when the file is no such database or is damaged; what `each` returns.
pub fn blobs<R: ReadAt + ?Sized>(
    file: &R,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let head = exact(file, 0, 32)?;
    if u32_at(&head, 0, false) != Some(MAGIC) {
        return Err(ParseError::malformed("it is no ndb file"));
    }
    if u32_at(&head, 4, false) != Some(0) {
        return Err(ParseError::malformed("its version is unknown"));
    }
    let pages = u32_at(&head, 12, false).unwrap_or(0);
    if pages == 0 || pages > MAX_SLOT_PAGES {
        return Err(ParseError::malformed("its number of slots is invalid"));
    }
    // Blobs of a sound file do not overlap.
    let mut budget = file.size();
    for page in 0..u64::from(pages) {
        let slots = exact(file, page * PAGE as u64, PAGE)?;
        // The head takes the first two slots.
        for slot in slots.chunks_exact(SLOT).skip(if page == 0 { 2 } else { 0 }) {
            if u32_at(slot, 0, false) != Some(SLOT_MAGIC) {
                return Err(ParseError::malformed("a slot is damaged"));
            }
            let index = u32_at(slot, 4, false).unwrap_or(0);
            let offset = u64::from(u32_at(slot, 8, false).unwrap_or(0)) * BLOCK;
            if index == 0 {
                continue;
            }
            let blob = exact(file, offset, BLOB_HEAD)?;
            let length = u32_at(&blob, 12, false).unwrap_or(0);
            if u32_at(&blob, 0, false) != Some(BLOB_MAGIC) || u32_at(&blob, 4, false) != Some(index)
            {
                return Err(ParseError::malformed("a slot points to no blob"));
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MAX_BLOB {
                return Err(ParseError::Limit { what: "bytes in a blob", limit: MAX_BLOB as u64 });
            }
            budget = budget
                .checked_sub(length as u64)
                .ok_or_else(|| ParseError::malformed("its blobs overlap"))?;
            each(&exact(file, offset + BLOB_HEAD as u64, length)?)?;
        }
    }
    Ok(())
}
