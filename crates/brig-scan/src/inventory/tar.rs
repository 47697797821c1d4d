//! A walker over tar archives (POSIX ustar and pax, GNU's long names and sparse files) that passes
//! over contents without reading them where the source allows it.

use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::ScanError;

const BLOCK: usize = 512;
/// Most bytes of long names and pax records before one entry.
const MAX_HEADERS: u64 = 1 << 20;
/// Longest path, in bytes.
const MAX_PATH: usize = 4096;

/// Bytes that come in order.
pub(super) trait Stream {
    /// Fills the buffer, or less at the end.
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Passes over bytes.
    fn skip(&mut self, count: u64) -> io::Result<()>;
    /// The file and the place in it where the next byte lies, when there is one.
    fn place(&self) -> Option<(&std::fs::File, u64)>;
}

/// A part of a file. Small reads come from a buffer; passing over costs nothing.
#[derive(Debug)]
pub(super) struct FileStream<'a> {
    file: &'a std::fs::File,
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    /// What of the buffer is still to come.
    at: usize,
    filled: usize,
}

/// Headers lie between contents of some kilobytes: more read ahead is mostly thrown away.
const READ_AHEAD: usize = 8 << 10;

impl<'a> FileStream<'a> {
    pub(super) fn new(file: &'a std::fs::File, offset: u64, size: u64) -> Self {
        Self {
            file,
            next: offset,
            end: offset.saturating_add(size),
            buffer: vec![0; READ_AHEAD],
            at: 0,
            filled: 0,
        }
    }

    fn buffered(&self) -> usize {
        self.filled - self.at
    }
}

impl Stream for FileStream<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            if self.buffered() == 0 {
                let left =
                    usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
                let wanted = buf.len() - done;
                // Contents go where they are wanted; only headers pass through the buffer.
                if wanted >= READ_AHEAD {
                    let to = done + wanted.min(left);
                    let Some(target) = buf.get_mut(done..to).filter(|target| !target.is_empty())
                    else {
                        break;
                    };
                    let count = self.file.read_at(target, self.next)?;
                    if count == 0 {
                        break;
                    }
                    self.next += count as u64;
                    done += count;
                    continue;
                }
                let most = left.min(READ_AHEAD);
                let target = self.buffer.get_mut(..most).unwrap_or_default();
                let count = if most == 0 { 0 } else { self.file.read_at(target, self.next)? };
                if count == 0 {
                    break;
                }
                self.next += count as u64;
                (self.at, self.filled) = (0, count);
            }
            let count = self.buffered().min(buf.len() - done);
            if let (Some(to), Some(from)) =
                (buf.get_mut(done..done + count), self.buffer.get(self.at..self.at + count))
            {
                to.copy_from_slice(from);
            }
            self.at += count;
            done += count;
        }
        Ok(done)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let inside = usize::try_from(count).unwrap_or(usize::MAX).min(self.buffered());
        self.at += inside;
        let beyond = count - inside as u64;
        if beyond > self.end.saturating_sub(self.next) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.next += beyond;
        Ok(())
    }

    fn place(&self) -> Option<(&std::fs::File, u64)> {
        Some((self.file, self.next - self.buffered() as u64))
    }
}

/// Any reader.
#[derive(Debug)]
pub(super) struct ReadStream<R> {
    inner: R,
    scratch: Vec<u8>,
}

impl<R: Read> ReadStream<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, scratch: vec![0; 64 << 10] }
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Stream for ReadStream<R> {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let most = usize::try_from(count).unwrap_or(usize::MAX).min(self.scratch.len());
            let target = self.scratch.get_mut(..most).unwrap_or_default();
            match self.inner.read(target) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => count -= read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn place(&self) -> Option<(&std::fs::File, u64)> {
        None
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    /// A character device 0/0: overlayfs' mark of something removed.
    Removed,
    Other,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Below the root, without leading slash, `.` or `..`; empty for the root.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) link: String,
    /// Its content has holes and is not stored as it reads.
    pub(super) sparse: bool,
    /// The name led above the root.
    pub(super) escapes: bool,
}

/// Walks an archive entry by entry.
#[derive(Debug)]
pub(super) struct Walker<S> {
    stream: S,
    /// Bytes of the current entry's content that were not read, and its padding.
    left: u64,
    padding: u64,
    ended: bool,
}

#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl<S: Stream> Walker<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, left: 0, padding: 0, ended: false }
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// The next entry; none at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ScanError> {
        if self.ended {
            return Ok(None);
        }
        let mut extra = Extra::default();
        let mut spent = 0_u64;
        loop {
            let rest = self.left + self.padding;
            if rest > 0 {
                self.stream.skip(rest).map_err(truncated)?;
                (self.left, self.padding) = (0, 0);
            }
            let mut block = [0_u8; BLOCK];
            let read = self.stream.fill(&mut block).map_err(ScanError::Read)?;
            // Archives without their closing blocks are common enough.
            if read == 0 || (read == BLOCK && block.iter().all(|&byte| byte == 0)) {
                self.ended = true;
                return Ok(None);
            }
            if read < BLOCK {
                return Err(ScanError::Tar("it ends inside a header"));
            }
            if !checksum_fits(&block) {
                return Err(ScanError::Tar("a header's checksum is wrong"));
            }
            let size = number(field(&block, 124, 12)).ok_or(ScanError::Tar("a size is invalid"))?;
            let kind = block.get(156).copied().unwrap_or(0);
            if matches!(kind, b'L' | b'K' | b'x' | b'g') {
                spent = spent.saturating_add(size).saturating_add(BLOCK as u64);
                if spent > MAX_HEADERS {
                    return Err(ScanError::Limit { what: "bytes of headers", limit: MAX_HEADERS });
                }
                self.frame(size);
                let content = self.content(size)?;
                match kind {
                    b'L' => extra.path = Some(until_nul(&content).to_vec()),
                    b'K' => extra.link = Some(until_nul(&content).to_vec()),
                    b'x' => pax(&content, &mut extra)?,
                    // Global records: nothing that matters here is ever global.
                    _ => {}
                }
                continue;
            }
            return self.entry(&block, size, kind, extra).map(Some);
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        size: u64,
        kind: u8,
        extra: Extra,
    ) -> Result<Entry, ScanError> {
        let raw = match &extra.path {
            Some(path) => path.clone(),
            None => {
                let name = until_nul(field(block, 0, 100));
                let ustar = field(block, 257, 6) == b"ustar\0";
                let prefix = if ustar { until_nul(field(block, 345, 155)) } else { b"" };
                if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
            }
        };
        let link = extra.link.unwrap_or_else(|| until_nul(field(block, 157, 100)).to_vec());
        if raw.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(ScanError::Limit { what: "bytes in a path", limit: MAX_PATH as u64 });
        }
        let device = (number(field(block, 329, 8)), number(field(block, 337, 8)));
        let folder = raw.ends_with(b"/");
        let what = match kind {
            b'0' | 0 if folder => Kind::Folder,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Folder,
            b'3' if device == (Some(0), Some(0)) => Kind::Removed,
            _ => Kind::Other,
        };
        // Links and folders have no content, whatever the size says.
        let size = match what {
            Kind::File => extra.size.unwrap_or(size),
            Kind::Other => size,
            _ if matches!(kind, b'0' | 0) => size,
            _ => 0,
        };
        if kind == b'S' {
            // More of the map of holes follows the header while a flag says so.
            let mut more = block.get(482) == Some(&1);
            let mut blocks = 0_u64;
            while more {
                let mut next = [0_u8; BLOCK];
                if self.stream.fill(&mut next).map_err(ScanError::Read)? < BLOCK {
                    return Err(ScanError::Tar("it ends inside a header"));
                }
                blocks += 1;
                if blocks * BLOCK as u64 > MAX_HEADERS {
                    return Err(ScanError::Limit { what: "bytes of headers", limit: MAX_HEADERS });
                }
                more = next.get(504) == Some(&1);
            }
        }
        self.frame(size);
        let (path, escapes) = clean(&raw);
        let mode = number(field(block, 100, 8)).unwrap_or(0);
        Ok(Entry {
            path,
            kind: what,
            size,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            link: String::from_utf8_lossy(&link).into_owned(),
            sparse: extra.sparse || kind == b'S',
            escapes,
        })
    }

    fn frame(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The first bytes of the current entry's content, at most this many.
    pub(super) fn content(&mut self, most: u64) -> Result<Vec<u8>, ScanError> {
        let count = most.min(self.left);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        // Grown as bytes come: sizes lie.
        let mut content = Vec::with_capacity(count.min(1 << 20));
        while content.len() < count {
            let done = content.len();
            content.resize(count.min(done + (1 << 20).max(done)), 0);
            let target = content.get_mut(done..).unwrap_or_default();
            let wanted = target.len();
            let read = self.stream.fill(target).map_err(ScanError::Read)?;
            self.left -= read as u64;
            if read < wanted {
                return Err(ScanError::Tar("it ends inside a file"));
            }
        }
        Ok(content)
    }

    /// More of the current entry's content; nothing at its end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, ScanError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let target = buf.get_mut(..most).unwrap_or_default();
        let read = self.stream.fill(target).map_err(ScanError::Read)?;
        self.left -= read as u64;
        if read < most {
            return Err(ScanError::Tar("it ends inside a file"));
        }
        Ok(read)
    }

    /// Where the current entry's content lies, when it is in a file as it is.
    pub(super) fn place(&self) -> Option<(&std::fs::File, u64)> {
        self.stream.place()
    }
}

fn truncated(error: io::Error) -> ScanError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ScanError::Tar("it ends inside a file")
    } else {
        ScanError::Read(error)
    }
}

fn field(block: &[u8; BLOCK], at: usize, size: usize) -> &[u8] {
    block.get(at..at + size).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.get(..memchr::memchr(0, bytes).unwrap_or(bytes.len())).unwrap_or_default()
}

/// Octal digits, or GNU's binary form.
fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        if bytes.first() != Some(&0x80) {
            return None;
        }
        return bytes.iter().skip(1).try_fold(0_u64, |number, &byte| {
            number.checked_mul(256)?.checked_add(u64::from(byte))
        });
    }
    let text = bytes.trim_ascii_start();
    let end = text.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(text.len());
    if text.get(end..).unwrap_or_default().iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    text.get(..end)?.iter().try_fold(0_u64, |number, &digit| {
        number.checked_mul(8)?.checked_add(u64::from(digit - b'0'))
    })
}

/// Whether a file begins as an archive does; an empty one has blocks of zeros.
pub(super) fn is_header(file: &std::fs::File) -> io::Result<bool> {
    let mut block = [0_u8; BLOCK];
    let read = file.read_at(&mut block, 0)?;
    Ok(read == BLOCK && (checksum_fits(&block) || block.iter().all(|&byte| byte == 0)))
}

fn checksum_fits(block: &[u8; BLOCK]) -> bool {
    let Some(expected) = number(field(block, 148, 8)) else { return false };
    let mut sum = 8 * u64::from(b' ');
    let mut signed = 8 * i64::from(b' ');
    for (at, &byte) in block.iter().enumerate() {
        if !(148..156).contains(&at) {
            sum += u64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
    }
    sum == expected || u64::try_from(signed).is_ok_and(|signed| signed == expected)
}

/// The records of a pax header that matter here.
fn pax(mut content: &[u8], extra: &mut Extra) -> Result<(), ScanError> {
    let damaged = || ScanError::Tar("a pax record is damaged");
    while content.first().is_some_and(|byte| *byte != 0) {
        let space = memchr::memchr(b' ', content).ok_or_else(damaged)?;
        let length: usize = content
            .get(..space)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(damaged)?;
        let record = content.get(space + 1..length).ok_or_else(damaged)?;
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let equals = memchr::memchr(b'=', record).ok_or_else(damaged)?;
        let (key, value) = record.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"path" if !extra.sparse || extra.path.is_none() => extra.path = Some(value.to_vec()),
            b"linkpath" => extra.link = Some(value.to_vec()),
            b"size" => {
                extra.size = Some(
                    std::str::from_utf8(value)
                        .ok()
                        .and_then(|digits| digits.parse().ok())
                        .ok_or_else(damaged)?,
                );
            }
            b"GNU.sparse.name" => {
                extra.path = Some(value.to_vec());
                extra.sparse = true;
            }
            key if key.starts_with(b"GNU.sparse.") => extra.sparse = true,
            _ => {}
        }
        content = content.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// A path below the root, and whether it led above it.
pub(super) fn clean(raw: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(raw);
    // Most are clean as they come.
    let plain = text.strip_prefix("./").unwrap_or(&text);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    if !plain.starts_with('/')
        && !plain.ends_with('/')
        && !plain.contains("//")
        && !plain.starts_with('.')
        && !plain.contains("/.")
    {
        return (plain.to_owned(), false);
    }
    let mut parts: Vec<&str> = Vec::new();
    let mut escapes = false;
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => escapes |= parts.pop().is_none(),
            part => parts.push(part),
        }
    }
    (parts.join("/"), escapes)
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
