//! Python's order (PEP 440): epoch, release, pre-, post- and development releases, local label.

use std::cmp::Ordering;

use super::{numbers, take_while};

#[derive(Debug, Default)]
struct Version {
    epoch: Vec<u8>,
    release: Vec<Vec<u8>>,
    /// 0 alpha, 1 beta, 2 release candidate; and its number.
    pre: Option<(u8, Vec<u8>)>,
    post: Option<Vec<u8>>,
    dev: Option<Vec<u8>>,
    local: Vec<Vec<u8>>,
}

pub(super) fn is_version(version: &str) -> bool {
    parse(version).is_some()
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => ordered(&a, &b),
        // Versions from before the rule are older than all that follow it.
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

fn ordered(a: &Version, b: &Version) -> Ordering {
    numbers(&a.epoch, &b.epoch)
        .then_with(|| releases(&a.release, &b.release))
        .then_with(|| {
            let (class_a, class_b) = (pre_class(a), pre_class(b));
            class_a.cmp(&class_b).then_with(|| match (&a.pre, &b.pre) {
                (Some((_, x)), Some((_, y))) => numbers(x, y),
                _ => Ordering::Equal,
            })
        })
        .then_with(|| match (&a.post, &b.post) {
            (Some(x), Some(y)) => numbers(x, y),
            (x, y) => x.is_some().cmp(&y.is_some()),
        })
        .then_with(|| match (&a.dev, &b.dev) {
            (Some(x), Some(y)) => numbers(x, y),
            (x, y) => x.is_none().cmp(&y.is_none()),
        })
        .then_with(|| locals(&a.local, &b.local))
}

/// `1.0.dev1` is before `1.0a1`; a release is after its candidates.
fn pre_class(version: &Version) -> u8 {
    match &version.pre {
        Some((kind, _)) => kind + 1,
        None if version.post.is_none() && version.dev.is_some() => 0,
        None => 4,
    }
}

fn releases(a: &[Vec<u8>], b: &[Vec<u8>]) -> Ordering {
    for at in 0..a.len().max(b.len()) {
        let number = |of: &[Vec<u8>]| of.get(at).cloned().unwrap_or_default();
        match numbers(&number(a), &number(b)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

fn locals(a: &[Vec<u8>], b: &[Vec<u8>]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let digits = |of: &[u8]| of.iter().all(u8::is_ascii_digit);
        let order = match (digits(a), digits(b)) {
            (true, true) => numbers(a, b),
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn parse(version: &str) -> Option<Version> {
    let text = version.trim().to_ascii_lowercase();
    let mut rest = text.as_bytes();
    rest = rest.strip_prefix(b"v").unwrap_or(rest);
    let mut parsed = Version::default();
    let (digits, after) = take_while(rest, |c| c.is_ascii_digit());
    if let Some(after) = after.strip_prefix(b"!")
        && !digits.is_empty()
    {
        parsed.epoch = digits.to_vec();
        rest = after;
    }
    loop {
        let (digits, after) = take_while(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            return None;
        }
        parsed.release.push(digits.to_vec());
        rest = after;
        match after.split_first() {
            Some((b'.', next)) if next.first().is_some_and(u8::is_ascii_digit) => rest = next,
            _ => break,
        }
    }
    const PRE: [(&[u8], u8); 8] = [
        (b"alpha", 0),
        (b"a", 0),
        (b"beta", 1),
        (b"b", 1),
        (b"preview", 2),
        (b"pre", 2),
        (b"rc", 2),
        (b"c", 2),
    ];
    for (word, kind) in PRE {
        if let Some((number, after)) = labelled(rest, word) {
            parsed.pre = Some((kind, number));
            rest = after;
            break;
        }
    }
    // `1.0-1` is a post release; `-` followed by a number only.
    if let Some(after) = rest.strip_prefix(b"-")
        && after.first().is_some_and(u8::is_ascii_digit)
    {
        let (digits, after) = take_while(after, |c| c.is_ascii_digit());
        parsed.post = Some(digits.to_vec());
        rest = after;
    } else {
        for word in [b"post".as_slice(), b"rev", b"r"] {
            if let Some((number, after)) = labelled(rest, word) {
                parsed.post = Some(number);
                rest = after;
                break;
            }
        }
    }
    if let Some((number, after)) = labelled(rest, b"dev") {
        parsed.dev = Some(number);
        rest = after;
    }
    if let Some(local) = rest.strip_prefix(b"+") {
        for part in local.split(|c| matches!(c, b'-' | b'_' | b'.')) {
            if part.is_empty() || !part.iter().all(u8::is_ascii_alphanumeric) {
                return None;
            }
            parsed.local.push(part.to_vec());
        }
        rest = &[];
    }
    rest.is_empty().then_some(parsed)
}

/// `[-_.]?word[-_.]?number?`: the number (none is 0) and what follows.
fn labelled<'a>(rest: &'a [u8], word: &[u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let after = match rest.split_first() {
        Some((b'-' | b'_' | b'.', after)) => after,
        _ => rest,
    };
    let after = after.strip_prefix(word)?;
    let numbered = match after.split_first() {
        Some((b'-' | b'_' | b'.', next)) => next,
        _ => after,
    };
    let (digits, end) = take_while(numbered, |c| c.is_ascii_digit());
    if digits.is_empty() {
        // The separator belongs to what follows: `1.0a.dev1`, and `1.0a-1` has a post release.
        return Some((b"0".to_vec(), after));
    }
    Some((digits.to_vec(), end))
}
