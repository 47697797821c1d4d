//! `Packages`, a hash table of Berkeley DB: values lie on the hash's pages or in chains of overflow
//! pages.

use super::super::{ParseError, ReadAt, exact};
use super::{MAX_BLOB, u16_at, u32_at};

const MAGIC: u32 = 0x0006_1561;
const HASH_META: u8 = 8;
const HASH: u8 = 13;
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const PAGE_HEAD: usize = 26;
const KEY_DATA: u8 = 1;
const OFF_PAGE: u8 = 3;
/// Shorter values are counters.
const MIN_BLOB: usize = 24;

/// Calls `each` with every package's header.
///
/// # Errors
/// [`ParseError`] when the file is no such database or is damaged; what `each` returns.
pub fn blobs<R: ReadAt + ?Sized>(
    file: &R,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let damaged = || ParseError::malformed("a page is damaged");
    let head = exact(file, 0, 72)?;
    let big = if u32_at(&head, 12, false) == Some(MAGIC) {
        false
    } else if u32_at(&head, 12, true) == Some(MAGIC) {
        true
    } else {
        return Err(ParseError::malformed("it is no hash table of Berkeley DB"));
    };
    let size = usize::try_from(u32_at(&head, 20, big).unwrap_or(0)).unwrap_or(0);
    if !size.is_power_of_two() || !(512..=65536).contains(&size) {
        return Err(ParseError::malformed("its page size is invalid"));
    }
    if head.get(24).is_some_and(|&encryption| encryption != 0) {
        return Err(ParseError::malformed("it is encrypted"));
    }
    if head.get(25) != Some(&HASH_META) {
        return Err(ParseError::malformed("it is no hash table"));
    }
    let pages = file.size() / size as u64;
    let mut database = Database { file, size, big, budget: pages.saturating_mul(2) + 16 };
    for number in 0..pages {
        let kind = exact(file, number * size as u64 + 25, 1)?;
        if !matches!(kind.first(), Some(&(HASH | HASH_UNSORTED))) {
            continue;
        }
        let page = exact(file, number * size as u64, size)?;
        let entries = usize::from(u16_at(&page, 20, big).ok_or_else(damaged)?);
        let place = |index: usize| u16_at(&page, PAGE_HEAD + index * 2, big).map(usize::from);
        // Keys and values take turns.
        for index in (1..entries).step_by(2) {
            let at = place(index).ok_or_else(damaged)?;
            match page.get(at) {
                Some(&KEY_DATA) => {
                    let end = place(index - 1).ok_or_else(damaged)?;
                    let value = page.get(at + 1..end).ok_or_else(damaged)?;
                    if value.len() >= MIN_BLOB {
                        each(value)?;
                    }
                }
                Some(&OFF_PAGE) => {
                    let first = u32_at(&page, at + 4, big).ok_or_else(damaged)?;
                    let length = u32_at(&page, at + 8, big).ok_or_else(damaged)?;
                    each(&database.overflow(first, length)?)?;
                }
                _ => return Err(ParseError::malformed("an item is of an unknown kind")),
            }
        }
    }
    Ok(())
}

struct Database<'a, R: ?Sized> {
    file: &'a R,
    size: usize,
    big: bool,
    /// Overflow pages that may still be read: a sound file needs each once.
    budget: u64,
}

impl<R: ReadAt + ?Sized> Database<'_, R> {
    fn overflow(&mut self, first: u32, length: u32) -> Result<Vec<u8>, ParseError> {
        let damaged = || ParseError::malformed("a chain of pages is damaged");
        let length = usize::try_from(length).map_err(|_| damaged())?;
        if length > MAX_BLOB {
            return Err(ParseError::Limit { what: "bytes in a value", limit: MAX_BLOB as u64 });
        }
        let mut value = Vec::new();
        let mut next = first;
        while value.len() < length {
            self.budget = self
                .budget
                .checked_sub(1)
                .ok_or_else(|| ParseError::malformed("its pages form a loop"))?;
            if next == 0 {
                return Err(damaged());
            }
            let page = exact(self.file, u64::from(next) * self.size as u64, self.size)?;
            if page.get(25) != Some(&OVERFLOW) {
                return Err(damaged());
            }
            let here = usize::from(u16_at(&page, 22, self.big).ok_or_else(damaged)?);
            let data = page.get(PAGE_HEAD..PAGE_HEAD + here).ok_or_else(damaged)?;
            value.extend_from_slice(
                data.get(..data.len().min(length - value.len())).ok_or_else(damaged)?,
            );
            next = u32_at(&page, 16, self.big).ok_or_else(damaged)?;
        }
        Ok(value)
    }
}
