//! The one table that matters of `rpmdb.sqlite`, read from bytes (SQLite, "Database File Format" and
//! "WAL-mode File Format").

use std::collections::HashMap;

use super::super::{ParseError, ReadAt, exact};
use super::{MAX_BLOB, u16_at, u32_at};

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Deepest tree: SQLite's own bound.
const MAX_DEPTH: usize = 20;
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;

/// Calls `each` with every package's header.
///
/// # Errors
/// [`ParseError`] when the file is no such database or is damaged; what `each` returns.
pub fn blobs<R: ReadAt + ?Sized>(
    file: &R,
    log: Option<&[u8]>,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let mut database = Database::open(file, log)?;
    let mut root = None;
    database.walk(1, 0, &mut |record| {
        let columns = columns(record)?;
        if columns.first().is_some_and(|kind| *kind == Column::Bytes(b"table"))
            && columns.get(1).is_some_and(|name| *name == Column::Bytes(b"Packages"))
            && let Some(Column::Number(page)) = columns.get(3)
        {
            root = u32::try_from(*page).ok();
        }
        Ok(())
    })?;
    let root = root.ok_or_else(|| ParseError::malformed("it has no table of packages"))?;
    database.walk(root, 0, &mut |record| match columns(record)?.get(1) {
        Some(Column::Bytes(blob)) => each(blob),
        _ => Err(ParseError::malformed("a row has no header")),
    })
}

struct Database<'a, R: ?Sized> {
    file: &'a R,
    log: &'a [u8],
    /// Places in the log of pages that are newer there.
    newer: HashMap<u32, usize>,
    page_size: usize,
    /// What is left of a page but its reserved end.
    usable: usize,
    pages: u32,
    /// Pages that may still be read: a sound file needs each once or twice.
    budget: u64,
}

impl<'a, R: ReadAt + ?Sized> Database<'a, R> {
    fn open(file: &'a R, log: Option<&'a [u8]>) -> Result<Self, ParseError> {
        let head = exact(file, 0, 100)?;
        if !head.starts_with(MAGIC) {
            return Err(ParseError::malformed("it is no SQLite file"));
        }
        let page_size = match u16_at(&head, 16, true).unwrap_or(0) {
            1 => 65536,
            size => usize::from(size),
        };
        if !page_size.is_power_of_two() || page_size < 512 {
            return Err(ParseError::malformed("its page size is invalid"));
        }
        let reserved = usize::from(head.get(20).copied().unwrap_or(0));
        let usable = page_size
            .checked_sub(reserved)
            .filter(|usable| *usable >= 480)
            .ok_or_else(|| ParseError::malformed("its pages have no room"))?;
        let log = log.unwrap_or_default();
        let newer = newer_pages(log, page_size)?;
        let pages = u32::try_from(file.size() / page_size as u64).unwrap_or(u32::MAX);
        let pages = pages.max(newer.keys().copied().max().unwrap_or(0));
        let budget = u64::from(pages) * 3 + 16;
        Ok(Self { file, log, newer, page_size, usable, pages, budget })
    }

    fn page(&mut self, number: u32) -> Result<Vec<u8>, ParseError> {
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or_else(|| ParseError::malformed("its pages form a loop"))?;
        if number == 0 || number > self.pages {
            return Err(ParseError::malformed("it points to a page that it has not"));
        }
        if let Some(&at) = self.newer.get(&number) {
            return exact(self.log, at as u64, self.page_size);
        }
        exact(self.file, u64::from(number - 1) * self.page_size as u64, self.page_size)
    }

    /// Calls `each` with every row of the tree that begins at this page.
    fn walk(
        &mut self,
        number: u32,
        depth: usize,
        each: &mut dyn FnMut(&[u8]) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        let damaged = || ParseError::malformed("a page is damaged");
        if depth > MAX_DEPTH {
            return Err(ParseError::malformed("its tree is too deep"));
        }
        let page = self.page(number)?;
        let start = if number == 1 { 100 } else { 0 };
        let kind = *page.get(start).ok_or_else(damaged)?;
        let cells = usize::from(u16_at(&page, start + 3, true).ok_or_else(damaged)?);
        let array = start + if kind == INTERIOR { 12 } else { 8 };
        let cell_at = |index: usize| -> Result<usize, ParseError> {
            u16_at(&page, array + index * 2, true).map(usize::from).ok_or_else(damaged)
        };
        match kind {
            INTERIOR => {
                for index in 0..cells {
                    let child = u32_at(&page, cell_at(index)?, true).ok_or_else(damaged)?;
                    self.walk(child, depth + 1, each)?;
                }
                let last = u32_at(&page, start + 8, true).ok_or_else(damaged)?;
                self.walk(last, depth + 1, each)
            }
            LEAF => {
                for index in 0..cells {
                    let at = cell_at(index)?;
                    let record = self.payload(page.get(at..).ok_or_else(damaged)?)?;
                    each(&record)?;
                }
                Ok(())
            }
            _ => Err(damaged()),
        }
    }

    /// The payload of a leaf's cell, its overflow pages included.
    fn payload(&mut self, cell: &[u8]) -> Result<Vec<u8>, ParseError> {
        let damaged = || ParseError::malformed("a row is damaged");
        let (size, used) = varint(cell).ok_or_else(damaged)?;
        let rest = cell.get(used..).ok_or_else(damaged)?;
        let (_, used) = varint(rest).ok_or_else(damaged)?;
        let rest = rest.get(used..).ok_or_else(damaged)?;
        let size = usize::try_from(size).map_err(|_| damaged())?;
        if size > MAX_BLOB {
            return Err(ParseError::Limit { what: "bytes in a row", limit: MAX_BLOB as u64 });
        }
        let most = self.usable - 35;
        if size <= most {
            return Ok(rest.get(..size).ok_or_else(damaged)?.to_vec());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let local = least + (size - least) % (self.usable - 4);
        let local = if local <= most { local } else { least };
        let mut payload = rest.get(..local).ok_or_else(damaged)?.to_vec();
        let mut next = u32_at(rest, local, true).ok_or_else(damaged)?;
        while payload.len() < size {
            let page = self.page(next)?;
            next = u32_at(&page, 0, true).ok_or_else(damaged)?;
            let take = (size - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(page.get(4..4 + take).ok_or_else(damaged)?);
        }
        Ok(payload)
    }
}

#[derive(Debug, PartialEq)]
enum Column<'a> {
    Null,
    Number(u64),
    Bytes(&'a [u8]),
}

/// The columns of a record.
fn columns(record: &[u8]) -> Result<Vec<Column<'_>>, ParseError> {
    let damaged = || ParseError::malformed("a row is damaged");
    let (head, used) = varint(record).ok_or_else(damaged)?;
    let head = usize::try_from(head).map_err(|_| damaged())?;
    let mut types = record.get(used..head).ok_or_else(damaged)?;
    let mut body = record.get(head..).ok_or_else(damaged)?;
    let mut columns = Vec::new();
    while !types.is_empty() && columns.len() < 16 {
        let (kind, used) = varint(types).ok_or_else(damaged)?;
        types = types.get(used..).unwrap_or_default();
        let size = match kind {
            0 | 8..=11 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            long => (long - 12) / 2,
        };
        let size = usize::try_from(size).map_err(|_| damaged())?;
        if size > body.len() {
            return Err(damaged());
        }
        let (value, rest) = body.split_at(size);
        body = rest;
        columns.push(match kind {
            1..=6 => Column::Number(
                value.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte)),
            ),
            8 => Column::Number(0),
            9 => Column::Number(1),
            0 | 7 | 10 | 11 => Column::Null,
            _ => Column::Bytes(value),
        });
    }
    Ok(columns)
}

/// SQLite's variable-length number, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(9).enumerate() {
        if index == 8 {
            return Some(((value << 8) | u64::from(byte), 9));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;

/// Which pages the write-ahead log has in a newer form: those of frames that were committed and
/// whose checksums are right.
fn newer_pages(log: &[u8], page_size: usize) -> Result<HashMap<u32, usize>, ParseError> {
    let mut committed = HashMap::new();
    if log.len() < LOG_HEAD {
        return Ok(committed);
    }
    let damaged = || ParseError::malformed("its write-ahead log is damaged");
    let big = match u32_at(log, 0, true) {
        Some(0x377f_0682) => false,
        Some(0x377f_0683) => true,
        _ => return Err(damaged()),
    };
    if u32_at(log, 8, true).and_then(|size| usize::try_from(size).ok()) != Some(page_size) {
        return Err(damaged());
    }
    let salt = log.get(16..24).ok_or_else(damaged)?;
    let mut sum = checksum((0, 0), log.get(..24).ok_or_else(damaged)?, big);
    if (u32_at(log, 24, true), u32_at(log, 28, true)) != (Some(sum.0), Some(sum.1)) {
        return Err(damaged());
    }
    let mut pending = HashMap::new();
    let mut at = LOG_HEAD;
    while let Some(frame) = log.get(at..at + FRAME_HEAD + page_size) {
        let (head, page) = frame.split_at(FRAME_HEAD);
        if head.get(8..16) != Some(salt) {
            break;
        }
        sum = checksum(sum, head.get(..8).unwrap_or_default(), big);
        sum = checksum(sum, page, big);
        if (u32_at(head, 16, true), u32_at(head, 20, true)) != (Some(sum.0), Some(sum.1)) {
            break;
        }
        if let Some(number) = u32_at(head, 0, true) {
            pending.insert(number, at + FRAME_HEAD);
        }
        if u32_at(head, 4, true).is_some_and(|size| size != 0) {
            committed.extend(pending.drain());
        }
        at += FRAME_HEAD + page_size;
    }
    Ok(committed)
}

fn checksum(start: (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let (mut first, mut second) = start;
    for pair in bytes.chunks_exact(8) {
        let (Some(a), Some(b)) = (u32_at(pair, 0, big), u32_at(pair, 4, big)) else { break };
        first = first.wrapping_add(a).wrapping_add(second);
        second = second.wrapping_add(b).wrapping_add(first);
    }
    (first, second)
}
