//! Semantic versions: any count of numbers, a pre-release below its release, build data ignored.

use std::cmp::Ordering;

use super::{numbers, take_while};

/// Who reads the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// npm, Cargo, Hex, Pub.
    Plain,
    /// Go modules (`v1.2.3+incompatible`) and its toolchain (`go1.21rc2`).
    Go,
    /// Case does not matter.
    NuGet,
}

struct Version<'a> {
    numbers: Vec<&'a [u8]>,
    /// Empty for a release.
    pre: Vec<&'a [u8]>,
}

pub(super) fn is_version(version: &str, flavour: Flavour) -> bool {
    parse(version, flavour).is_some()
}

pub(super) fn compare(a: &str, b: &str, flavour: Flavour) -> Ordering {
    match (parse(a, flavour), parse(b, flavour)) {
        (Some(a), Some(b)) => {
            let length = a.numbers.len().max(b.numbers.len());
            for at in 0..length {
                let number =
                    |of: &Version<'_>| of.numbers.get(at).copied().unwrap_or(b"0").to_vec();
                match numbers(&number(&a), &number(&b)) {
                    Ordering::Equal => {}
                    unequal => return unequal,
                }
            }
            match (a.pre.is_empty(), b.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => pre_releases(&a.pre, &b.pre, flavour),
            }
        }
        // What is no version is older than all that are.
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

fn pre_releases(a: &[&[u8]], b: &[&[u8]], flavour: Flavour) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (is_number(a), is_number(b)) {
            (true, true) => numbers(a, b),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) if flavour == Flavour::NuGet => {
                a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase())
            }
            (false, false) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn is_number(identifier: &[u8]) -> bool {
    !identifier.is_empty() && identifier.iter().all(u8::is_ascii_digit)
}

fn parse(version: &str, flavour: Flavour) -> Option<Version<'_>> {
    // `go1.24.1 X:nocoverageredesign` names an experiment after the version.
    let version = version.split_whitespace().next()?;
    let mut rest = version.trim_start_matches('=').as_bytes();
    if flavour == Flavour::Go {
        rest = rest.strip_prefix(b"go").unwrap_or(rest);
    }
    rest = rest.strip_prefix(b"v").or_else(|| rest.strip_prefix(b"V")).unwrap_or(rest);
    rest = take_while(rest, |c| c != b'+').0;
    let mut parsed = Version { numbers: Vec::new(), pre: Vec::new() };
    loop {
        let (digits, after) = take_while(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            // `1.2.x` and `1.`: only what starts with a number is a version.
            if parsed.numbers.is_empty() {
                return None;
            }
            break;
        }
        parsed.numbers.push(digits);
        rest = after;
        match rest.strip_prefix(b".") {
            Some(next) => rest = next,
            None => break,
        }
    }
    if !rest.is_empty() {
        let pre = rest.strip_prefix(b"-").unwrap_or(rest);
        if flavour == Flavour::Go && !rest.starts_with(b"-") {
            // `1.21rc2` is 1.21.0-rc.2.
            let (word, number) = take_while(pre, |c| !c.is_ascii_digit());
            parsed.pre = vec![word];
            if !number.is_empty() {
                parsed.pre.push(number);
            }
        } else {
            parsed.pre = pre.split(|c| *c == b'.').collect();
        }
    }
    Some(parsed)
}
