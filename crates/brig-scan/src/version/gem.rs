//! RubyGems' order: segments of numbers or letters; any letter makes a pre-release.

use std::cmp::Ordering;

use super::numbers;

/// First words of the platforms that a gem's file name carries after its version.
const PLATFORMS: [&str; 18] = [
    "x86_64",
    "x86",
    "x64",
    "i386",
    "i486",
    "i586",
    "i686",
    "aarch64",
    "arm64",
    "arm",
    "universal",
    "java",
    "jruby",
    "mswin32",
    "mswin64",
    "mingw32",
    "ppc64le",
    "s390x",
];

#[derive(Debug, PartialEq, Eq)]
enum Segment<'a> {
    Word(&'a [u8]),
    Number(&'a [u8]),
}

impl Segment<'_> {
    fn is_zero(&self) -> bool {
        matches!(self, Self::Number(digits) if digits.iter().all(|d| *d == b'0'))
    }
}

pub(super) fn is_version(version: &str) -> bool {
    version.trim().bytes().next().is_some_and(|b| b.is_ascii_digit())
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    match (is_version(a), is_version(b)) {
        (true, true) => {}
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => return a.cmp(b),
    }
    let (a, b) = (canonical(a), canonical(b));
    for at in 0..a.len().max(b.len()) {
        let (a, b) = (
            a.get(at).unwrap_or(&Segment::Number(b"")),
            b.get(at).unwrap_or(&Segment::Number(b"")),
        );
        let order = match (a, b) {
            (Segment::Word(a), Segment::Word(b)) => a.cmp(b),
            (Segment::Word(_), Segment::Number(_)) => Ordering::Less,
            (Segment::Number(_), Segment::Word(_)) => Ordering::Greater,
            (Segment::Number(a), Segment::Number(b)) => numbers(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Cuts the platform off: `1.13.6-x86_64-linux` is 1.13.6.
fn without_platform(version: &str) -> &str {
    match version.split_once('-') {
        Some((before, after))
            if PLATFORMS.contains(&after.split('-').next().unwrap_or_default())
                || after
                    .split('-')
                    .next_back()
                    .is_some_and(|os| os.starts_with("linux") || os.starts_with("darwin")) =>
        {
            before
        }
        _ => version,
    }
}

fn canonical(version: &str) -> Vec<Segment<'_>> {
    let version = without_platform(version.trim());
    let mut segments = Vec::new();
    let mut rest = version.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first.is_ascii_digit() {
            let (digits, end) = super::take_while(rest, |c| c.is_ascii_digit());
            segments.push(Segment::Number(digits));
            rest = end;
        } else if first.is_ascii_alphabetic() {
            let (word, end) = super::take_while(rest, |c| c.is_ascii_alphabetic());
            segments.push(Segment::Word(word));
            rest = end;
        } else {
            // A dash reads as `.pre.`.
            if first == b'-' {
                segments.push(Segment::Word(b"pre"));
            }
            rest = after;
        }
    }
    let words =
        segments.iter().position(|s| matches!(s, Segment::Word(_))).unwrap_or(segments.len());
    let mut tail = segments.split_off(words);
    for part in [&mut segments, &mut tail] {
        while part.last().is_some_and(Segment::is_zero) {
            part.pop();
        }
    }
    segments.append(&mut tail);
    segments
}
