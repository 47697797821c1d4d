//! RPM's order: epoch, version, release; runs of digits or letters, other signs only separate.

use std::cmp::Ordering;

use super::{numbers, split_epoch, take_while};

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, rest_a) = split_epoch(a.trim());
    let (epoch_b, rest_b) = split_epoch(b.trim());
    let (version_a, release_a) = rest_a.rsplit_once('-').unwrap_or((rest_a, ""));
    let (version_b, release_b) = rest_b.rsplit_once('-').unwrap_or((rest_b, ""));
    numbers(epoch_a, epoch_b)
        .then_with(|| parts(version_a.as_bytes(), version_b.as_bytes()))
        .then_with(|| parts(release_a.as_bytes(), release_b.as_bytes()))
}

pub(super) fn parts(mut a: &[u8], mut b: &[u8]) -> Ordering {
    loop {
        a = take_while(a, separates).1;
        b = take_while(b, separates).1;
        match (a.split_first(), b.split_first()) {
            // A tilde sorts before everything, the end included.
            (Some((b'~', rest_a)), Some((b'~', rest_b))) => (a, b) = (rest_a, rest_b),
            (Some((b'~', _)), _) => return Ordering::Less,
            (_, Some((b'~', _))) => return Ordering::Greater,
            // A caret sorts after the end and before anything else.
            (Some((b'^', rest_a)), Some((b'^', rest_b))) => (a, b) = (rest_a, rest_b),
            (Some((b'^', _)), None) => return Ordering::Greater,
            (None, Some((b'^', _))) => return Ordering::Less,
            (Some((b'^', _)), Some(_)) => return Ordering::Less,
            (Some(_), Some((b'^', _))) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (Some(_), None) => return Ordering::Greater,
            (None, Some(_)) => return Ordering::Less,
            (Some((first_a, _)), Some((first_b, _))) => {
                match (first_a.is_ascii_digit(), first_b.is_ascii_digit()) {
                    // Numbers are newer than letters.
                    (true, false) => return Ordering::Greater,
                    (false, true) => return Ordering::Less,
                    (digits, _) => {
                        let run = |c: u8| {
                            if digits { c.is_ascii_digit() } else { c.is_ascii_alphabetic() }
                        };
                        let (run_a, rest_a) = take_while(a, run);
                        let (run_b, rest_b) = take_while(b, run);
                        let order = if digits { numbers(run_a, run_b) } else { run_a.cmp(run_b) };
                        if order != Ordering::Equal {
                            return order;
                        }
                        (a, b) = (rest_a, rest_b);
                    }
                }
            }
        }
    }
}

fn separates(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'~' && byte != b'^'
}
