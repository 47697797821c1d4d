//! Go's durations: `1h30m`, `1.5s`, `200ms`; nanoseconds inside.

use super::{BadValue, bad};

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration.
pub(crate) fn nanoseconds(text: &str) -> Result<i64, BadValue> {
    let invalid = || BadValue(format!("time: invalid duration {text:?}"));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| BadValue(format!("time: missing unit in duration {text:?}")))?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return bad(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let part = scaled(number, *scale).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = next;
    }
    Ok(if negative { -total } else { total })
}

/// `1.25` times `scale`, exactly.
fn scaled(number: &str, scale: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut value = whole.checked_mul(scale)?;
    let mut digit_scale = scale;
    for digit in fraction.bytes() {
        // Digits below a nanosecond are cut off.
        let step = i64::from(digit - b'0') * digit_scale / 10;
        digit_scale /= 10;
        value = value.checked_add(step)?;
    }
    Some(value)
}

/// A duration that is not negative; `30d` too, which Go does not know.
pub(crate) fn with_days(text: &str) -> Result<i64, BadValue> {
    const DAY: i64 = 86_400_000_000_000;
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => {
            let days = days.parse::<u32>().ok().and_then(|days| DAY.checked_mul(days.into()));
            let days = days.ok_or_else(|| BadValue(format!("time: invalid duration {text:?}")))?;
            (days, rest)
        }
        None => (0, text),
    };
    if days > 0 && rest.is_empty() {
        return Ok(days);
    }
    days.checked_add(positive(rest)?)
        .ok_or_else(|| BadValue(format!("time: invalid duration {text:?}")))
}

/// A duration that is not negative.
pub(crate) fn positive(text: &str) -> Result<i64, BadValue> {
    match nanoseconds(text)? {
        n if n < 0 => bad("duration cannot be negative"),
        n => Ok(n),
    }
}

/// Writes a duration as Go does: `1h30m0s`, `1.5s`, `200ms`, `0s`.
pub(crate) fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    if n == 0 {
        return "0s".to_owned();
    }
    for (unit, scale) in [("ns", 1_u64), ("µs", 1_000), ("ms", 1_000_000)] {
        if n < scale * 1000 && n < 1_000_000_000 {
            return format!("{sign}{}{unit}", decimal(n, scale));
        }
    }
    let (hours, rest) = (n / 3_600_000_000_000, n % 3_600_000_000_000);
    let (minutes, seconds) = (rest / 60_000_000_000, rest % 60_000_000_000);
    let mut text = sign.to_owned();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    text.push_str(&decimal(seconds, 1_000_000_000));
    text.push('s');
    text
}

fn decimal(n: u64, scale: u64) -> String {
    let (whole, fraction) = (n / scale, n % scale);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("1ns", 1),
            ("1.5s", 1_500_000_000),
            ("1h30m", 5_400_000_000_000),
            ("-2ms", -2_000_000),
            (".5s", 500_000_000),
            ("2160h0m0s", 7_776_000_000_000_000),
        ] {
            assert_eq!(nanoseconds(text).unwrap(), nanos, "{text}");
        }
        for text in ["", "5", "s", "1x", "1.2.3s", ".s", "-", "99999999999h", "1s2"] {
            assert!(nanoseconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_can_be_said() {
        const HOUR: i64 = 3_600_000_000_000;
        for (text, hours) in [("30d", 720), ("1d12h", 36), ("2h", 2), ("0", 0)] {
            assert_eq!(with_days(text).unwrap(), hours * HOUR, "{text}");
        }
        for text in ["", "d", "-1d", "1.5d", "1d1", "1dd", "-1h", "4294967295d", "106751d1000000h"]
        {
            assert!(with_days(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (7_776_000_000_000_000, "2160h0m0s"),
            (200_000_000, "200ms"),
            (1_500_000, "1.5ms"),
            (1_500, "1.5µs"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(format(nanos), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn reads_what_it_writes(nanos in -1_000_000_000_000_000_000_i64..1_000_000_000_000_000_000) {
            proptest::prop_assert_eq!(nanoseconds(&format(nanos)).unwrap(), nanos);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = nanoseconds(&text);
        }
    }
}
