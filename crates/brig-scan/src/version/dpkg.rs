//! Debian's order: epoch, upstream version, revision; each in turns of non-digits and digits, with
//! `~` before everything, the end included.

use std::cmp::Ordering;

use super::{numbers, split_epoch, take_while};

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, rest_a) = split_epoch(a.trim());
    let (epoch_b, rest_b) = split_epoch(b.trim());
    let (upstream_a, revision_a) = split_revision(rest_a);
    let (upstream_b, revision_b) = split_revision(rest_b);
    numbers(epoch_a, epoch_b)
        .then_with(|| parts(upstream_a.as_bytes(), upstream_b.as_bytes()))
        .then_with(|| parts(revision_a.as_bytes(), revision_b.as_bytes()))
}

/// A binary package's version without the mark of a rebuild (`+b2`): what its source's is where the
/// record does not say.
#[must_use]
pub fn source_version(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, build)) if !build.is_empty() && build.bytes().all(|b| b.is_ascii_digit()) => {
            source
        }
        _ => version,
    }
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// The order of one part. Also the fallback where another family's version is malformed.
pub(super) fn parts(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, rest_a) = take_while(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = take_while(b, |c| !c.is_ascii_digit());
        let length = text_a.len().max(text_b.len());
        for at in 0..length {
            match weight(text_a.get(at)).cmp(&weight(text_b.get(at))) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        let (digits_a, after_a) = take_while(rest_a, |c| c.is_ascii_digit());
        let (digits_b, after_b) = take_while(rest_b, |c| c.is_ascii_digit());
        match numbers(digits_a, digits_b) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
        (a, b) = (after_a, after_b);
    }
    Ordering::Equal
}

fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}
