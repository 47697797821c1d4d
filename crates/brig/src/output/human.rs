//! Sizes and times as people read them, in docker's words.

use brig_api::progress::human_size_with_precision;
use brig_api::time::in_words;
use time::OffsetDateTime;

/// `2 weeks ago`, from unix seconds.
pub(crate) fn since_unix(unix: i64, now: OffsetDateTime) -> String {
    format!("{} ago", in_words(now.unix_timestamp() - unix))
}

/// `2 weeks ago`, from RFC 3339; empty for the zero time.
pub(crate) fn since(text: &str, now: OffsetDateTime) -> String {
    match brig_api::time::parse(text) {
        Ok(at) if !brig_api::time::is_zero(text) => since_unix(at.unix_timestamp(), now),
        _ => String::new(),
    }
}

/// `2026-11-21 19:37:12 +0000 UTC`, from unix seconds.
pub(crate) fn timestamp(unix: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(unix) {
        Ok(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} +0000 UTC",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => String::new(),
    }
}

/// A size with three significant digits: `4.26MB`.
pub(crate) fn size(bytes: i64) -> String {
    human_size_with_precision(bytes as f64, 3)
}

/// A size in powers of 1024 with four significant digits: `7.629MiB`.
pub(crate) fn binary_size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in UNITS.iter().skip(1) {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    let decimals = if size >= 1000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{size:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// The first twelve characters of an id, without the algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    bare.get(..12).unwrap_or(bare)
}

/// At most `max` characters, the last one an ellipsis when something was cut.
pub(crate) fn ellipsis(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The first letter in upper case.
pub(crate) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Compares names with their numbers as numbers: `web2` before `web10`.
pub(crate) fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (mut a, mut b) = (a.chars().peekable(), b.chars().peekable());
    loop {
        match (a.peek().copied(), b.peek().copied()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
                    let mut digits = String::new();
                    while let Some(c) = chars.next_if(char::is_ascii_digit) {
                        digits.push(c);
                    }
                    let digits = digits.trim_start_matches('0').to_owned();
                    (digits.len(), digits)
                };
                match number(&mut a).cmp(&number(&mut b)) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
            (Some(x), Some(y)) => {
                if x != y {
                    return x.cmp(&y);
                }
                a.next();
                b.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_or_four_digits() {
        assert_eq!(size(4_261_574), "4.26MB");
        assert_eq!(size(0), "0B");
        assert_eq!(size(123_456_789), "123MB");
        assert_eq!(binary_size(8_000_000), "7.629MiB");
        assert_eq!(binary_size(64 << 20), "64MiB");
        assert_eq!(binary_size(25_241_489_408), "23.51GiB");
    }

    #[test]
    fn names_sort_by_their_numbers() {
        let mut names = ["web10", "web2", "a", "web", "web02b"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["a", "web", "web2", "web02b", "web10"]);
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(ellipsis("äöü", 3), "äöü");
        assert_eq!(ellipsis("äöüx", 3), "äö…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(capitalized("running"), "Running");
        assert_eq!(timestamp(1_704_067_200), "2024-01-01 00:00:00 +0000 UTC");
    }
}
