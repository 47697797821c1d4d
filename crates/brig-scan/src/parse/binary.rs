//! Where the parts of a program lie: sections and segments of ELF, and as much of PE and Mach-O as
//! finding a Go program's build information takes.

use super::{ParseError, ReadAt, exact};

/// Most sections or segments that are looked at.
const MAX_PARTS: usize = 4096;
/// Longest table of section names, in bytes.
const MAX_NAMES: usize = 1 << 20;

/// A named part of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its size in the file.
    pub size: u64,
}

/// A part of the file that is mapped at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its address.
    pub address: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its size in the file.
    pub size: u64,
    /// Whether the program may write to it: data, not code.
    pub writable: bool,
}

/// The parts of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Named parts.
    pub sections: Vec<Section>,
    /// Mapped parts.
    pub segments: Vec<Segment>,
}

impl Program {
    /// The section of this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Where in the file an address lies, and how many bytes follow in its segment.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.address)?;
            let left = segment.size.checked_sub(inside).filter(|left| *left > 0)?;
            Some((segment.offset.checked_add(inside)?, left))
        })
    }
}

/// Whether these first bytes (four at least) are those of a program.
#[must_use]
pub fn is_program(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
        || head.starts_with(b"MZ")
        || matches!(
            head.get(..4),
            Some([0xcf | 0xce, 0xfa, 0xed, 0xfe] | [0xfe, 0xed, 0xfa, 0xce | 0xcf])
        )
}

/// Reads the tables of a program; `None` when it is none.
///
/// # Errors
/// [`ParseError`] when the tables are damaged.
pub fn program<R: ReadAt + ?Sized>(file: &R) -> Result<Option<Program>, ParseError> {
    let mut head = [0_u8; 64];
    let read = file.read_at(&mut head, 0).map_err(ParseError::Read)?;
    let head = head.get(..read).unwrap_or_default();
    if head.starts_with(b"\x7fELF") {
        elf(file, head).map(Some)
    } else if head.starts_with(b"MZ") {
        pe(file, head).map(Some)
    } else if is_program(head) {
        mach_o(file, head).map(Some)
    } else {
        Ok(None)
    }
}

/// Numbers of a record in one byte order.
struct Numbers<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl Numbers<'_> {
    fn number(&self, at: usize, size: usize) -> Result<u64, ParseError> {
        let bytes = at
            .checked_add(size)
            .and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| ParseError::malformed("the program's tables end early"))?;
        let join = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Ok(if self.big { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    }
}

fn elf<R: ReadAt + ?Sized>(file: &R, head: &[u8]) -> Result<Program, ParseError> {
    let wide = head.get(4) == Some(&2);
    let big = head.get(5) == Some(&2);
    let field = Numbers { bytes: head, big };
    let word = if wide { 8 } else { 4 };
    let (programs_at, sections_at, counts) = if wide { (32, 40, 54) } else { (28, 32, 42) };
    let segments_at = field.number(programs_at, word)?;
    let sections_at = field.number(sections_at, word)?;
    let [segment_size, segment_count, section_size, section_count, names_index] =
        [0, 2, 4, 6, 8].map(|at| field.number(counts + at, 2));
    let mut program = Program::default();

    for entry in table(file, segments_at, segment_size?, segment_count?)? {
        let entry = Numbers { bytes: &entry, big };
        // PT_LOAD.
        if entry.number(0, 4)? != 1 {
            continue;
        }
        let (flags, offset, address, size) = if wide { (4, 8, 16, 32) } else { (24, 4, 8, 16) };
        program.segments.push(Segment {
            address: entry.number(address, word)?,
            offset: entry.number(offset, word)?,
            size: entry.number(size, word)?,
            writable: entry.number(flags, 4)? & 2 != 0,
        });
    }

    let sections = table(file, sections_at, section_size?, section_count?)?;
    let (offset, size) = if wide { (24, 32) } else { (16, 20) };
    let names_index = usize::try_from(names_index?).unwrap_or(usize::MAX);
    let names = match sections.get(names_index) {
        Some(entry) => {
            let entry = Numbers { bytes: entry, big };
            let size = usize::try_from(entry.number(size, word)?).unwrap_or(usize::MAX);
            exact(file, entry.number(offset, word)?, size.min(MAX_NAMES))?
        }
        None => Vec::new(),
    };
    for entry in &sections {
        let entry = Numbers { bytes: entry, big };
        let name = usize::try_from(entry.number(0, 4)?).unwrap_or(usize::MAX);
        // SHT_NOBITS has no bytes in the file.
        if entry.number(4, 4)? == 8 {
            continue;
        }
        program.sections.push(Section {
            name: text_at(&names, name),
            offset: entry.number(offset, word)?,
            size: entry.number(size, word)?,
        });
    }
    Ok(program)
}

fn table<R: ReadAt + ?Sized>(
    file: &R,
    at: u64,
    entry: u64,
    count: u64,
) -> Result<Vec<Vec<u8>>, ParseError> {
    if at == 0 || count == 0 {
        return Ok(Vec::new());
    }
    let entry = usize::try_from(entry).unwrap_or(usize::MAX);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if !(16..=256).contains(&entry) || count > MAX_PARTS {
        return Err(ParseError::malformed("the program's tables are invalid"));
    }
    let bytes = exact(file, at, entry * count)?;
    Ok(bytes.chunks_exact(entry).map(<[u8]>::to_vec).collect())
}

fn text_at(names: &[u8], at: usize) -> String {
    let rest = names.get(at..).unwrap_or_default();
    let end = memchr::memchr(0, rest).unwrap_or(rest.len()).min(256);
    super::lossy(rest.get(..end).unwrap_or_default())
}

fn pe<R: ReadAt + ?Sized>(file: &R, head: &[u8]) -> Result<Program, ParseError> {
    let at = Numbers { bytes: head, big: false }.number(60, 4)?;
    let coff = exact(file, at, 24)?;
    if !coff.starts_with(b"PE\0\0") {
        return Err(ParseError::malformed("it is no program of Windows"));
    }
    let coff = Numbers { bytes: &coff, big: false };
    let (count, optional) = (coff.number(6, 2)?, coff.number(20, 2)?);
    let header = exact(file, at + 24, usize::try_from(optional).unwrap_or(0))?;
    let header = Numbers { bytes: &header, big: false };
    let base = match header.number(0, 2) {
        Ok(0x20b) => header.number(24, 8)?,
        Ok(0x10b) => header.number(28, 4)?,
        _ => 0,
    };
    let mut program = Program::default();
    for entry in table(file, at + 24 + optional, 40, count)? {
        let name = text_at(entry.get(..8).unwrap_or_default(), 0);
        let entry = Numbers { bytes: &entry, big: false };
        let (size, offset) = (entry.number(16, 4)?, entry.number(20, 4)?);
        program.sections.push(Section { name, offset, size });
        program.segments.push(Segment {
            address: base.wrapping_add(entry.number(12, 4)?),
            offset,
            size,
            writable: entry.number(36, 4)? & 0x8000_0000 != 0,
        });
    }
    Ok(program)
}

fn mach_o<R: ReadAt + ?Sized>(file: &R, head: &[u8]) -> Result<Program, ParseError> {
    let big = head.first() == Some(&0xfe);
    let wide = head.get(if big { 3 } else { 0 }) == Some(&0xcf);
    let field = Numbers { bytes: head, big };
    let (count, size) = (field.number(16, 4)?, field.number(20, 4)?);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if count > MAX_PARTS as u64 || size > MAX_NAMES {
        return Err(ParseError::malformed("the program's tables are invalid"));
    }
    let bytes = exact(file, if wide { 32 } else { 28 }, size)?;
    let commands = Numbers { bytes: &bytes, big };
    let mut program = Program::default();
    let mut at = 0_usize;
    for _ in 0..count {
        let (kind, length) = (commands.number(at, 4)?, commands.number(at + 4, 4)?);
        let word = if wide { 8 } else { 4 };
        // LC_SEGMENT, LC_SEGMENT_64.
        if kind == if wide { 0x19 } else { 1 } {
            let base = at + 24;
            program.segments.push(Segment {
                address: commands.number(base, word)?,
                offset: commands.number(base + 2 * word, word)?,
                size: commands.number(base + 3 * word, word)?,
                writable: commands.number(base + 4 * word + 4, 4)? & 2 != 0,
            });
            let sections = commands.number(base + 4 * word + 8, 4)?;
            let entry = if wide { 80 } else { 68 };
            for index in 0..usize::try_from(sections).unwrap_or(usize::MAX).min(MAX_PARTS) {
                let section = base + 4 * word + 16 + index * entry;
                let (size, offset) = (32 + word, 32 + 2 * word);
                let name = bytes.get(section..section + 16).unwrap_or_default();
                program.sections.push(Section {
                    name: text_at(name, 0),
                    offset: commands.number(section + offset, 4)?,
                    size: commands.number(section + size, word)?,
                });
            }
        }
        if program.sections.len() > MAX_PARTS {
            return Err(ParseError::malformed("the program's tables are invalid"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        at = at
            .checked_add(length.max(8))
            .ok_or_else(|| ParseError::malformed("the program's tables are invalid"))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_test_is_a_program() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = program(&bytes[..]).unwrap().unwrap();
        assert!(program.section(".text").is_some());
        let data = program.segments.iter().find(|segment| segment.writable).unwrap();
        assert_eq!(program.place(data.address), Some((data.offset, data.size)));
        assert_eq!(program.place(u64::MAX), None);
    }

    #[test]
    fn other_files_are_none() {
        assert_eq!(program(&b"#!/bin/sh\n"[..]).unwrap(), None);
        assert_eq!(program(&b""[..]).unwrap(), None);
        assert!(program(&b"\x7fELF\x02\x01"[..]).is_err());
        assert!(program(&[&b"MZ"[..], &[0xff; 100]].concat()[..]).is_err());
    }

    proptest! {
        #[test]
        fn any_tables_end(
            magic in prop_oneof![
                Just(b"\x7fELF\x02\x01".to_vec()), Just(b"\x7fELF\x01\x02".to_vec()),
                Just(b"MZ".to_vec()), Just(vec![0xcf, 0xfa, 0xed, 0xfe]),
                Just(vec![0xfe, 0xed, 0xfa, 0xce]),
            ],
            rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..400),
        ) {
            let _ = program(&[magic, rest].concat()[..]);
        }
    }
}
