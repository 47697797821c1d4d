//! Reads a container's log from disk: the rotated files first, from the start or from the last N
//! lines, and over rotations that happen meanwhile. Blocking.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::part::Part;
use super::record::{Joiner, LogLine, parse};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// A record longer than this is no record: conmon cuts at 8 KiB.
const MAX_RECORD: usize = 128 * 1024;
/// Rotated files that are looked at.
const MAX_FILES: u32 = 1000;

/// Where to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// With the first line there is.
    #[default]
    All,
    /// With the last lines, so many of them.
    Last(u64),
}

/// What one read gave.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The lines, oldest first.
    pub(super) lines: Vec<LogLine>,
    /// Nothing more is there now.
    pub(super) at_end: bool,
}

/// A place in a log.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    /// Opened files still to read, oldest first; the first one is being read.
    files: VecDeque<Part>,
    buffer: Vec<u8>,
    joiner: Joiner,
}

impl Reader {
    /// Opens the log at `path`. One that isn't there yet is an empty one.
    pub(super) fn open(path: &Path, tail: Tail) -> io::Result<Self> {
        let mut files = VecDeque::new();
        for index in 0..MAX_FILES {
            match Part::open(path, index) {
                Ok(part) => files.push_front(part),
                // The current one may be missing for a moment: between rename and reopen.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if index > 0 {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Tail::Last(count) = tail {
            skip_to_last(&mut files, count, folder(path))?;
        }
        Ok(Self { path: path.to_owned(), files, buffer: Vec::new(), joiner: Joiner::default() })
    }

    /// Reads on. At the end, what is held of an unfinished line is given too.
    pub(super) fn next(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::default();
        let start = self.buffer.len();
        self.buffer.resize(start + CHUNK, 0);
        let got = loop {
            let Some(part) = self.files.front_mut() else {
                if self.open_next()? {
                    continue;
                }
                break 0;
            };
            let space = self.buffer.get_mut(start..).unwrap_or_default();
            match part.plain(folder(&self.path))?.read(space)? {
                0 if self.files.len() > 1 => {
                    self.files.pop_front();
                }
                0 => {
                    if !self.open_next()? {
                        break 0;
                    }
                }
                got => break got,
            }
        };
        self.buffer.truncate(start + got);
        batch.at_end = got == 0;
        let consumed = self.buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let records = self.buffer.get(..consumed).unwrap_or_default();
        for line in records.split(|byte| *byte == b'\n') {
            batch.lines.extend(parse(line).and_then(|record| self.joiner.push(record)));
        }
        self.buffer.drain(..consumed);
        if self.buffer.len() > MAX_RECORD {
            self.buffer.clear();
        }
        if batch.at_end {
            batch.lines.extend(self.joiner.flush());
        }
        Ok(batch)
    }

    /// Opens the file that follows the one being read, if the log was rotated since.
    ///
    /// conmon goes on with the old file for a moment after the rename, so the old one stays in
    /// front and is read to its end once more before it is left.
    fn open_next(&mut self) -> io::Result<bool> {
        let current = self.files.back().map(Part::identity);
        let mut newer: Option<Part> = None;
        for index in 0..MAX_FILES {
            match Part::open(&self.path, index) {
                Ok(part) if Some(part.identity()) == current => break,
                Ok(part) => newer = Some(part),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if index > 0 {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let found = newer.is_some();
        self.files.extend(newer);
        Ok(found)
    }
}

/// Where a log lies.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Drops whole files and seeks in the first one left, so that `count` lines remain.
fn skip_to_last(files: &mut VecDeque<Part>, count: u64, dir: &Path) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut counter = Counter { wanted: count, found: 0, at_end: true };
    for index in (0..files.len()).rev() {
        let Some(part) = files.get_mut(index) else { break };
        let file = part.plain(dir)?;
        if let Some(offset) = counter.search(file)? {
            files.drain(..index);
            if let Some(first) = files.front_mut() {
                first.plain(dir)?.seek(SeekFrom::Start(offset))?;
            }
            return Ok(());
        }
    }
    Ok(())
}

struct Counter {
    wanted: u64,
    found: u64,
    /// No record was seen yet: an unfinished line at the very end counts as one.
    at_end: bool,
}

impl Counter {
    /// Goes through a file backwards; the offset behind the first record that is one too many.
    fn search(&mut self, file: &File) -> io::Result<Option<u64>> {
        let mut block_start = file.metadata()?.len();
        // The bytes from `block_start` to the first newline after it: a record's end whose
        // beginning lies in front.
        let mut carry: Vec<u8> = Vec::new();
        while block_start > 0 {
            let size = u64::min(block_start, CHUNK as u64);
            block_start -= size;
            let mut block = vec![0; usize::try_from(size).unwrap_or(CHUNK)];
            file.read_exact_at(&mut block, block_start)?;
            block.extend_from_slice(&carry);
            let mut end = block.len();
            while let Some(newline) =
                block.get(..end).and_then(|rest| rest.iter().rposition(|byte| *byte == b'\n'))
            {
                let record = block.get(newline + 1..end).unwrap_or_default();
                let behind = block_start + end as u64;
                if self.count(record) {
                    return Ok(Some(behind + 1));
                }
                end = newline;
            }
            block.truncate(end);
            carry = block;
            if carry.len() > MAX_RECORD {
                carry.clear();
            }
        }
        Ok(self.count(&carry).then_some(carry.len() as u64 + 1))
    }

    fn count(&mut self, record: &[u8]) -> bool {
        let Some(record) = parse(record) else { return false };
        if record.complete || self.at_end {
            self.found += 1;
        }
        self.at_end = false;
        self.found > self.wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::part::{compress, rotated, shift};
    use super::*;

    const T: &str = "2026-11-21T19:20:30.566783201+00:00";

    fn read_all(reader: &mut Reader) -> String {
        let mut out = String::new();
        loop {
            let batch = reader.next().unwrap();
            for line in batch.lines {
                out.push_str(std::str::from_utf8(&line.data).unwrap());
            }
            if batch.at_end {
                return out;
            }
        }
    }

    fn log(path: &Path, numbers: std::ops::Range<u32>) {
        let text: String = numbers.map(|n| format!("{T} stdout F {n}\n")).collect();
        std::fs::write(path, text).unwrap();
    }

    fn numbers(range: std::ops::Range<u32>) -> String {
        range.map(|n| format!("{n}\n")).collect()
    }

    #[test]
    fn rotated_files_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ctr.log");
        log(&rotated(&path, 2), 0..3);
        log(&rotated(&path, 1), 3..5);
        log(&path, 5..9);
        assert_eq!(read_all(&mut Reader::open(&path, Tail::All).unwrap()), numbers(0..9));
        assert_eq!(read_all(&mut Reader::open(&path, Tail::Last(2)).unwrap()), numbers(7..9));
        assert_eq!(read_all(&mut Reader::open(&path, Tail::Last(5)).unwrap()), numbers(4..9));
        assert_eq!(read_all(&mut Reader::open(&path, Tail::Last(0)).unwrap()), "");
        assert_eq!(read_all(&mut Reader::open(&path, Tail::Last(99)).unwrap()), numbers(0..9));
    }

    #[test]
    fn a_rotation_while_following_loses_nothing() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ctr.log");
        log(&path, 0..3);
        let mut reader = Reader::open(&path, Tail::All).unwrap();
        assert_eq!(read_all(&mut reader), numbers(0..3));
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        assert_eq!(read_all(&mut reader), "");
        let mut old = std::fs::OpenOptions::new().append(true).open(rotated(&path, 1)).unwrap();
        writeln!(old, "{T} stdout F 3").unwrap();
        log(&path, 4..6);
        assert_eq!(read_all(&mut reader), numbers(3..6));
        std::fs::rename(rotated(&path, 1), rotated(&path, 2)).unwrap();
        std::fs::rename(&path, rotated(&path, 1)).unwrap();
        log(&path, 6..7);
        assert_eq!(read_all(&mut reader), numbers(6..7));
    }

    #[test]
    fn compressed_files_are_read_like_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ctr.log");
        log(&path, 0..3);
        let mut slow = Reader::open(&path, Tail::All).unwrap();
        let mut quick = Reader::open(&path, Tail::All).unwrap();
        assert_eq!(read_all(&mut quick), numbers(0..3));
        for n in 3..6 {
            shift(&path, 9).unwrap();
            log(&path, n..n + 1);
            compress(&path, 9).unwrap();
        }
        assert_eq!(read_all(&mut Reader::open(&path, Tail::All).unwrap()), numbers(0..6));
        assert_eq!(read_all(&mut Reader::open(&path, Tail::Last(4)).unwrap()), numbers(2..6));
        // Whoever is in a file that was compressed since goes on with the one that follows it.
        assert_eq!(read_all(&mut quick), numbers(3..6));
        assert_eq!(read_all(&mut slow), numbers(0..6));
    }

    #[test]
    fn a_missing_log_is_empty_and_found_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ctr.log");
        let mut reader = Reader::open(&path, Tail::Last(3)).unwrap();
        assert_eq!(read_all(&mut reader), "");
        log(&path, 0..2);
        assert_eq!(read_all(&mut reader), numbers(0..2));
    }

    proptest! {
        #[test]
        fn the_last_lines_are_the_last_lines(
            lines in prop::collection::vec(("[a-z]{0,30}", 1..4_usize), 0..60),
            open_end in any::<bool>(),
            count in 0..70_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ctr.log");
            let mut text = String::new();
            let mut expected: Vec<String> = Vec::new();
            for (word, pieces) in &lines {
                for _ in 1..*pieces {
                    text.push_str(&format!("{T} stdout P {word}\n"));
                }
                text.push_str(&format!("{T} stdout F {word}\n"));
                expected.push(format!("{}\n", word.repeat(*pieces)));
            }
            if open_end {
                text.push_str(&format!("{T} stdout P tail\n"));
                expected.push("tail".to_owned());
            }
            std::fs::write(&path, text).unwrap();
            let got = read_all(&mut Reader::open(&path, Tail::Last(count as u64)).unwrap());
            let from = expected.len().saturating_sub(count);
            prop_assert_eq!(got, expected[from..].concat());
        }
    }
}
