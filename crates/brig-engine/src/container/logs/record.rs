//! One record of a container's log, in conmon's `k8s-file` form:
//! `2026-11-21T19:20:30.566783201+00:00 stdout F text`.
//!
//! `F` ends a line, `P` is a piece whose line goes on. The text may hold any byte but a newline.

use brig_api::stream::StdStream;
use bytes::{Bytes, BytesMut};

/// A record as it lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The time as conmon printed it.
    pub(super) time: &'a str,
    /// Which of the two streams.
    pub(super) stream: StdStream,
    /// Whether it ends its line.
    pub(super) complete: bool,
    /// The text without a newline.
    pub(super) text: &'a [u8],
}

/// Reads one record without its newline; `None` for anything else.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok().filter(|time| time.len() >= 20)?;
    let stream = match fields.next()? {
        b"stdout" => StdStream::Stdout,
        b"stderr" => StdStream::Stderr,
        _ => return None,
    };
    let complete = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record { time, stream, complete, text: fields.next()? })
}

/// A piece of output to hand to a client: a whole line wherever it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Which stream it came from.
    pub stream: StdStream,
    /// When its first byte was logged: RFC 3339, nanoseconds, `Z`.
    pub time: String,
    /// The bytes, with the newline if the line ended.
    pub data: Bytes,
    /// Whether it begins a line. Prefixes (timestamps, details) belong only there.
    pub starts_line: bool,
}

impl LogLine {
    /// The bytes for a client, with the prefixes it asked for.
    #[must_use]
    pub fn render(&self, timestamps: bool, details: Option<&str>) -> Bytes {
        if !self.starts_line || (!timestamps && details.is_none()) {
            return self.data.clone();
        }
        let mut out = BytesMut::with_capacity(self.data.len() + 64);
        if timestamps {
            out.extend_from_slice(self.time.as_bytes());
            out.extend_from_slice(b" ");
        }
        if let Some(details) = details {
            out.extend_from_slice(details.as_bytes());
            out.extend_from_slice(b" ");
        }
        out.extend_from_slice(&self.data);
        out.freeze()
    }
}

/// conmon's time (UTC, numeric zone) in the API's form.
pub(super) fn api_time(time: &str) -> String {
    match time.strip_suffix("+00:00") {
        Some(bare) => format!("{bare}Z"),
        None => time.to_owned(),
    }
}

/// A line that joins no more than this many bytes; longer ones come in pieces.
pub(super) const MAX_JOIN: usize = 256 * 1024;

/// Joins the pieces of lines, each stream by itself.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    held: [Option<Held>; 2],
    mid_line: [bool; 2],
}

#[derive(Debug)]
struct Held {
    time: String,
    data: BytesMut,
    starts_line: bool,
}

fn slot(stream: StdStream) -> usize {
    usize::from(stream == StdStream::Stderr)
}

impl Joiner {
    /// Takes a record; gives a line when one is complete or too long to hold.
    pub(super) fn push(&mut self, record: Record<'_>) -> Option<LogLine> {
        let slot = slot(record.stream);
        let mid_line = self.mid_line.get(slot).copied().unwrap_or(false);
        let place = self.held.get_mut(slot)?;
        let held = place.get_or_insert_with(|| Held {
            time: api_time(record.time),
            data: BytesMut::with_capacity(record.text.len() + 1),
            starts_line: !mid_line,
        });
        held.data.extend_from_slice(record.text);
        if record.complete {
            held.data.extend_from_slice(b"\n");
        }
        if record.complete || held.data.len() >= MAX_JOIN {
            self.release(record.stream, !record.complete)
        } else {
            None
        }
    }

    /// Gives what is held though its line goes on: at the end of what is there.
    pub(super) fn flush(&mut self) -> impl Iterator<Item = LogLine> {
        [StdStream::Stdout, StdStream::Stderr]
            .map(|stream| self.release(stream, true))
            .into_iter()
            .flatten()
    }

    fn release(&mut self, stream: StdStream, mid_line: bool) -> Option<LogLine> {
        let slot = slot(stream);
        let held = self.held.get_mut(slot)?.take()?;
        if let Some(flag) = self.mid_line.get_mut(slot) {
            *flag = mid_line;
        }
        Some(LogLine {
            stream,
            time: held.time,
            data: held.data.freeze(),
            starts_line: held.starts_line,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: &str = "2026-11-21T19:20:30.566783201+00:00";

    fn lines(log: &[u8]) -> Vec<LogLine> {
        let mut joiner = Joiner::default();
        let mut out: Vec<LogLine> = log
            .split(|byte| *byte == b'\n')
            .filter_map(parse)
            .filter_map(|record| joiner.push(record))
            .collect();
        out.extend(joiner.flush());
        out
    }

    #[test]
    fn pieces_are_joined_by_stream() {
        let log = format!("{T} stdout P he\n{T} stderr F err\n{T} stdout F llo\n{T} stdout P end");
        let got = lines(log.as_bytes());
        let texts: Vec<&[u8]> = got.iter().map(|line| line.data.as_ref()).collect();
        assert_eq!(texts, [&b"err\n"[..], b"hello\n", b"end"]);
        assert_eq!(got[0].time, "2026-11-21T19:20:30.566783201Z");
    }

    #[test]
    fn a_flushed_piece_goes_on_without_prefix() {
        let mut joiner = Joiner::default();
        let line = format!("{T} stdout P a");
        assert_eq!(joiner.push(parse(line.as_bytes()).unwrap()), None);
        let first: Vec<LogLine> = joiner.flush().collect();
        assert!(first[0].starts_line);
        let line = format!("{T} stdout F b");
        let second = joiner.push(parse(line.as_bytes()).unwrap()).unwrap();
        assert!(!second.starts_line);
        assert_eq!(second.render(true, Some("k=v")), "b\n");
        assert_eq!(first[0].render(true, Some("k=v")), "2026-11-21T19:20:30.566783201Z k=v a");
    }

    #[test]
    fn foreign_lines_are_skipped() {
        for line in
            ["", "x", "2026 stdout F x", &format!("{T} stdfoo F x"), &format!("{T} stdout X x")]
        {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(format!("{T} stdout F ").as_bytes()).unwrap().text, b"");
    }

    proptest! {
        #[test]
        fn text_is_kept_byte_for_byte(pieces in prop::collection::vec((prop::collection::vec(any::<u8>().prop_filter("no newline", |b| *b != b'\n'), 0..40), any::<bool>()), 0..20)) {
            let mut log = Vec::new();
            let mut expected = Vec::new();
            for (text, complete) in &pieces {
                log.extend(format!("{T} stdout {} ", if *complete { 'F' } else { 'P' }).bytes());
                log.extend(text);
                log.push(b'\n');
                expected.extend(text);
                if *complete { expected.push(b'\n'); }
            }
            let got: Vec<u8> = lines(&log).into_iter().flat_map(|line| line.data.to_vec()).collect();
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
