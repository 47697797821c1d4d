//! The index as it lies in memory. Every read is held against the file's bounds, and each block
//! against its checksum the first time, so that a damaged file is an error and nothing else.

use std::cmp::Ordering;
use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering as Memory};

use brig_sys::mmap::Mapping;

use super::build::{Meta, checksum, replace};
use super::collect::State;
use super::format::{
    BLOCK, END_BEFORE, END_WITH, EXPLOITED, FIXED, FORMAT, FROM_EXCLUSIVE, HAS_EPSS, HAS_SCORE,
    HASH, MAGIC, MALICIOUS, MAX_INDEX, RANSOMWARE, SECTION, SECTIONS, Section,
};
use super::{DbError, Feed, Release, Support};
use crate::severity::Severity;
use crate::version::Scheme;

/// An opened database.
pub struct Index {
    bytes: Bytes,
    header: usize,
    sections: [(usize, usize); SECTIONS],
    checked: Vec<AtomicBool>,
    meta: Meta,
    digest: String,
}

enum Bytes {
    Mapped(Mapping),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("digest", &self.digest)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A space's packages.
#[derive(Debug, Clone, Copy)]
pub struct Space<'a> {
    index: &'a Index,
    /// Its name.
    pub name: &'a str,
    /// The order of its versions.
    pub scheme: Scheme,
    first: usize,
    count: usize,
}

/// A statement about a package.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The flaw's number.
    pub flaw: usize,
    /// The record it comes from.
    pub advisory: &'a str,
    /// Its module stream; empty for all.
    pub module: &'a str,
    /// The publisher's reason.
    pub note: &'a str,
    /// Number of the feed.
    pub feed: usize,
    /// What the publisher means to do.
    pub state: State,
    /// The publisher's own severity.
    pub severity: Severity,
    /// A malicious package.
    pub malicious: bool,
    first_range: usize,
    ranges: usize,
}

/// A run of affected versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval<'a> {
    /// The first; empty for the very first.
    pub from: &'a str,
    /// Whether `from` is left out.
    pub after: bool,
    /// The end, and whether it is affected itself; none when there is no end.
    pub end: Option<(&'a str, bool)>,
}

impl<'a> Interval<'a> {
    /// Whether it holds a version.
    #[must_use]
    pub fn contains(&self, version: &str, scheme: Scheme) -> bool {
        let starts = self.from.is_empty() || {
            let order = scheme.compare(version, self.from);
            order.is_gt() || (order.is_eq() && !self.after)
        };
        starts
            && self.end.is_none_or(|(end, inclusive)| {
                let order = scheme.compare(version, end);
                order.is_lt() || (order.is_eq() && inclusive)
            })
    }

    /// The version that is not affected any more.
    #[must_use]
    pub fn fixed(&self) -> Option<&'a str> {
        self.end.filter(|(_, inclusive)| !inclusive).map(|(version, _)| version)
    }
}

/// When a flaw got into the catalogue of exploited ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kev<'a> {
    /// The day.
    pub added: &'a str,
    /// The day by which those who must have to act.
    pub due: &'a str,
    /// Known from extortion.
    pub ransomware: bool,
}

/// What is known about a flaw.
#[derive(Debug, Clone)]
pub struct Vulnerability<'a> {
    /// The id it is filed under.
    pub id: &'a str,
    /// Its other names.
    pub aliases: Vec<&'a str>,
    /// One line.
    pub summary: &'a str,
    /// The day it was published.
    pub published: &'a str,
    /// CVSS vectors of versions 2, 3 and 4, the worst of each; empty where there is none.
    pub vectors: [&'a str; 3],
    /// CVSS base score.
    pub score: Option<f64>,
    /// Severity where the distribution says nothing.
    pub severity: Severity,
    /// Who says so.
    pub severity_source: &'a str,
    /// Whether it is exploited.
    pub kev: Option<Kev<'a>>,
    /// EPSS: probability within 30 days, and percentile.
    pub epss: Option<(f64, f64)>,
}

impl Index {
    /// Maps an index file.
    ///
    /// # Errors
    /// [`DbError`] when there is none, when another user may write to it, or when it is damaged or
    /// of another format.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DbError::Missing(path.to_owned()),
            _ => DbError::Open(path.to_owned(), error),
        })?;
        let mapping =
            Mapping::open(&file).map_err(|error| DbError::Open(path.to_owned(), error))?;
        Self::over(Bytes::Mapped(mapping))
    }

    /// Reads an index from memory.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, DbError> {
        Self::over(Bytes::Owned(bytes))
    }

    fn over(bytes: Bytes) -> Result<Self, DbError> {
        const SHORT: DbError = DbError::Damaged("it is too short");
        if !bytes.starts_with(MAGIC) {
            return Err(DbError::Foreign("it does not begin like one".to_owned()));
        }
        let short = || SHORT;
        let format = u32_at(&bytes, 8).ok_or_else(short)?;
        if format != FORMAT {
            return Err(DbError::Foreign(format!("format {format} and not {FORMAT}")));
        }
        let header = usize_at(&bytes, 12).ok_or_else(short)?;
        let total = u64_at(&bytes, 16).and_then(|n| usize::try_from(n).ok()).ok_or_else(short)?;
        let block = usize_at(&bytes, 24).ok_or_else(short)?;
        let blocks = usize_at(&bytes, 28).ok_or_else(short)?;
        if total != bytes.len() || total > MAX_INDEX {
            return Err(DbError::Damaged("its length is not what it says"));
        }
        let expected = blocks
            .checked_mul(4)
            .and_then(|sums| sums.checked_add(FIXED + SECTIONS * SECTION + HASH));
        if block != BLOCK
            || Some(header) != expected
            || header > total
            || (total - header).div_ceil(BLOCK) != blocks
        {
            return Err(DbError::Damaged("its header does not add up"));
        }
        let signed = bytes.get(..header - HASH).ok_or_else(short)?;
        let hash = brig_pki::hash::sha256(signed);
        if bytes.get(header - HASH..header) != Some(hash.as_slice()) {
            return Err(DbError::Damaged("its header's checksum is wrong"));
        }
        let mut sections = [(0, 0); SECTIONS];
        for (number, section) in sections.iter_mut().enumerate() {
            let at = FIXED + number * SECTION;
            let place =
                |at| u64_at(&bytes, at).and_then(|n| usize::try_from(n).ok()).ok_or_else(short);
            *section = (place(at)?, place(at + 8)?);
            if section.0 < header || section.0.checked_add(section.1).is_none_or(|end| end > total)
            {
                return Err(DbError::Damaged("a section lies outside of it"));
            }
        }
        let mut index = Self {
            bytes,
            header,
            sections,
            checked: (0..blocks).map(|_| AtomicBool::new(false)).collect(),
            meta: Meta::default(),
            digest: brig_pki::hash::hex(&hash),
        };
        let meta = index.section(Section::Meta);
        index.meta = serde_json::from_slice(index.slice(meta.0, meta.1)?)
            .map_err(|_| DbError::Damaged("its description cannot be read"))?;
        Ok(index)
    }

    /// Reads every block and holds it against its checksum.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn verify(&self) -> Result<(), DbError> {
        self.slice(self.header, self.bytes.len() - self.header).map(|_| ())
    }

    /// Verifies the index and puts a copy of it at `path`.
    ///
    /// # Errors
    /// [`DbError::Damaged`] and [`DbError::Write`].
    pub fn copy_to(&self, path: &Path) -> Result<(), DbError> {
        self.verify()?;
        replace(path, &self.bytes).map_err(|error| DbError::Write(path.to_owned(), error))
    }

    /// The hash that names this content.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> &str {
        &self.meta.created
    }

    /// What it was made from.
    #[must_use]
    pub fn feeds(&self) -> &[Feed] {
        &self.meta.feeds
    }

    /// What is known about distributions' releases.
    #[must_use]
    pub fn releases(&self) -> &[Release] {
        &self.meta.releases
    }

    /// Packages whose support ended or is limited.
    #[must_use]
    pub fn support(&self) -> &[Support] {
        &self.meta.support
    }

    /// Records of a table.
    #[must_use]
    fn count(&self, section: Section) -> usize {
        self.section(section).1 / section.record()
    }

    /// How many flaws, packages and rows it has.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.count(Section::Flaws), self.count(Section::Packages), self.count(Section::Rows))
    }

    /// Every space.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn spaces(&self) -> Result<Vec<Space<'_>>, DbError> {
        (0..self.count(Section::Spaces)).map(|at| self.space_at(at)).collect()
    }

    /// A space by its name.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn space(&self, name: &str) -> Result<Option<Space<'_>>, DbError> {
        let found =
            search(0, self.count(Section::Spaces), |at| Ok(self.space_at(at)?.name.cmp(name)))?;
        found.ok().map(|at| self.space_at(at)).transpose()
    }

    fn space_at(&self, at: usize) -> Result<Space<'_>, DbError> {
        let record = self.record(Section::Spaces, at)?;
        let number =
            |field: usize| usize_at(record, field * 4).ok_or(DbError::Damaged("a space is cut"));
        let scheme = Scheme::ALL
            .get(number(1)?)
            .copied()
            .ok_or(DbError::Damaged("a space has an order that is not known"))?;
        Ok(Space {
            index: self,
            name: self.string(record, 0)?,
            scheme,
            first: number(2)?,
            count: number(3)?,
        })
    }

    /// The number of the flaw that has this id as one of its names, however its letters are
    /// written: who types `cve-…` means the one that feeds call `CVE-…`.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn find(&self, id: &str) -> Result<Option<usize>, DbError> {
        let upper = id.to_ascii_uppercase();
        let ghsa = upper.strip_prefix("GHSA-").map(|rest| format!("GHSA-{}", rest.to_lowercase()));
        for written in [id, &ghsa.unwrap_or(upper)] {
            if let Some(number) = self.find_as_written(written)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn find_as_written(&self, id: &str) -> Result<Option<usize>, DbError> {
        let found = search(0, self.count(Section::Names), |at| {
            let record = self.record(Section::Names, at)?;
            Ok(self.string(record, 0)?.cmp(id))
        })?;
        match found {
            Ok(at) => Ok(usize_at(self.record(Section::Names, at)?, 4)),
            Err(_) => Ok(None),
        }
    }

    /// A flaw by its number.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn vulnerability(&self, number: usize) -> Result<Vulnerability<'_>, DbError> {
        let record = self.record(Section::Flaws, number)?;
        let text = |field: usize| self.string(record, field * 4);
        let byte = |at: usize| record.get(at).copied().unwrap_or_default();
        let flags = byte(50);
        let ratio = |field: usize| f64::from(u32_at(record, field * 4).unwrap_or_default()) / 1e6;
        Ok(Vulnerability {
            id: text(0)?,
            aliases: text(1)?.split(' ').filter(|name| !name.is_empty()).collect(),
            summary: text(2)?,
            published: text(3)?,
            vectors: [text(4)?, text(5)?, text(6)?],
            score: (flags & HAS_SCORE != 0).then(|| f64::from(byte(49)) / 10.0),
            severity: severity(byte(48)),
            severity_source: text(7)?,
            kev: if flags & EXPLOITED == 0 {
                None
            } else {
                Some(Kev { added: text(8)?, due: text(9)?, ransomware: flags & RANSOMWARE != 0 })
            },
            epss: (flags & HAS_EPSS != 0).then(|| (ratio(10), ratio(11))),
        })
    }

    /// The runs of versions that a row is about.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn intervals<'a>(&'a self, row: &Row<'a>) -> Result<Vec<Interval<'a>>, DbError> {
        (row.first_range..row.first_range.saturating_add(row.ranges))
            .map(|at| {
                let record = self.record(Section::Ranges, at)?;
                let flags = u32_at(record, 8).unwrap_or_default();
                let end = match flags & (END_BEFORE | END_WITH) {
                    0 => None,
                    kind => Some((self.string(record, 4)?, kind == END_WITH)),
                };
                Ok(Interval {
                    from: self.string(record, 0)?,
                    after: flags & FROM_EXCLUSIVE != 0,
                    end,
                })
            })
            .collect()
    }

    fn row(&self, at: usize) -> Result<Row<'_>, DbError> {
        let record = self.record(Section::Rows, at)?;
        let number = |at| usize_at(record, at).ok_or(DbError::Damaged("a row is cut"));
        let short =
            |at| u16_at(record, at).map(usize::from).ok_or(DbError::Damaged("a row is cut"));
        let byte = |at: usize| record.get(at).copied().unwrap_or_default();
        Ok(Row {
            flaw: number(0)?,
            advisory: self.string(record, 4)?,
            module: self.string(record, 8)?,
            note: self.string(record, 12)?,
            first_range: number(16)?,
            ranges: short(20)?,
            feed: short(22)?,
            state: State::ALL
                .get(usize::from(byte(24)))
                .copied()
                .ok_or(DbError::Damaged("a row has a state that is not known"))?,
            severity: severity(byte(25)),
            malicious: byte(26) & MALICIOUS != 0,
        })
    }

    fn section(&self, section: Section) -> (usize, usize) {
        self.sections.get(section as usize).copied().unwrap_or_default()
    }

    fn record(&self, section: Section, at: usize) -> Result<&[u8], DbError> {
        let (start, length) = self.section(section);
        let size = section.record();
        let offset = at
            .checked_mul(size)
            .filter(|offset| offset.checked_add(size).is_some_and(|end| end <= length));
        match offset {
            Some(offset) => self.slice(start + offset, size),
            None => Err(DbError::Damaged("a number points outside of its table")),
        }
    }

    /// The string whose place stands at `field` of a record.
    fn string(&self, record: &[u8], field: usize) -> Result<&str, DbError> {
        const OUTSIDE: DbError = DbError::Damaged("a text lies outside of its table");
        let at = usize_at(record, field).ok_or(OUTSIDE)?;
        let (start, length) = self.section(Section::Strings);
        if at.checked_add(2).is_none_or(|end| end > length) {
            return Err(OUTSIDE);
        }
        let size = u16_at(self.slice(start + at, 2)?, 0).map(usize::from).ok_or(OUTSIDE)?;
        if at + 2 + size > length {
            return Err(OUTSIDE);
        }
        std::str::from_utf8(self.slice(start + at + 2, size)?)
            .map_err(|_| DbError::Damaged("a text is not UTF-8"))
    }

    /// Bytes of the file, once the blocks that hold them are known to be whole.
    fn slice(&self, start: usize, length: usize) -> Result<&[u8], DbError> {
        const OUTSIDE: DbError = DbError::Damaged("a place lies outside of it");
        let end =
            start.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(OUTSIDE)?;
        let offset = start.checked_sub(self.header).ok_or(OUTSIDE)?;
        if length > 0 {
            for block in offset / BLOCK..=(end - self.header - 1) / BLOCK {
                self.check(block)?;
            }
        }
        self.bytes.get(start..end).ok_or(OUTSIDE)
    }

    fn check(&self, block: usize) -> Result<(), DbError> {
        let checked = self.checked.get(block).ok_or(DbError::Damaged("a block is missing"))?;
        // Nothing else is published by the flag: the bytes never change.
        if checked.load(Memory::Relaxed) {
            return Ok(());
        }
        let start = self.header + block * BLOCK;
        let bytes =
            self.bytes.get(start..(start + BLOCK).min(self.bytes.len())).unwrap_or_default();
        let expected = u32_at(&self.bytes, FIXED + SECTIONS * SECTION + block * 4);
        if expected != Some(checksum(bytes)) {
            return Err(DbError::Damaged("a block's checksum is wrong"));
        }
        checked.store(true, Memory::Relaxed);
        Ok(())
    }
}

impl<'a> Space<'a> {
    /// How many packages it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The statements about a package. `hint` is where the last one was found: asking in the order
    /// of names makes a join of two sorted lists of it.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn rows(&self, package: &str, hint: &mut usize) -> Result<Vec<Row<'a>>, DbError> {
        let order = |at: usize| Ok(self.package(at)?.0.cmp(package));
        let start = if *hint < self.count && order(*hint)?.is_le() { *hint } else { 0 };
        // Strides grow until they pass the name: near ones are found in few steps.
        let mut low = start;
        let mut stride = 1;
        while low + stride < self.count && order(low + stride)?.is_le() {
            low += stride;
            stride *= 2;
        }
        let found = search(low, self.count.min(low + stride), order)?;
        match found {
            Err(near) => {
                *hint = near.saturating_sub(1);
                Ok(Vec::new())
            }
            Ok(at) => {
                *hint = at;
                let (_, first, count) = self.package(at)?;
                (first..first.saturating_add(count)).map(|row| self.index.row(row)).collect()
            }
        }
    }

    /// Every package's name and statements, in the order of names.
    ///
    /// # Errors
    /// [`DbError::Damaged`].
    pub fn package_names(&self) -> Result<Vec<&'a str>, DbError> {
        (0..self.count).map(|at| Ok(self.package(at)?.0)).collect()
    }

    fn package(&self, at: usize) -> Result<(&'a str, usize, usize), DbError> {
        let record = self.index.record(Section::Packages, self.first.saturating_add(at))?;
        let number = |at| usize_at(record, at).ok_or(DbError::Damaged("a package is cut"));
        Ok((self.index.string(record, 0)?, number(4)?, number(8)?))
    }
}

/// Binary search: the place, or where it would be.
fn search(
    mut low: usize,
    mut high: usize,
    order: impl Fn(usize) -> Result<Ordering, DbError>,
) -> Result<Result<usize, usize>, DbError> {
    while low < high {
        let middle = low + (high - low) / 2;
        match order(middle)? {
            Ordering::Equal => return Ok(Ok(middle)),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Ok(Err(low))
}

fn severity(number: u8) -> Severity {
    Severity::ALL.get(usize::from(number)).copied().unwrap_or_default()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).and_then(|number| usize::try_from(number).ok())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
