//! Sizes (`64m`, `1.5GiB`: powers of 1024) and CPU counts (`0.5`).

use super::{BadValue, bad};

/// Reads a size in bytes.
pub(crate) fn bytes(text: &str) -> Result<i64, BadValue> {
    let invalid = || BadValue(format!("invalid size: '{text}'"));
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let number: f64 = match number.parse() {
        Ok(n) if number.starts_with(|c: char| c.is_ascii_digit()) => n,
        _ => return Err(invalid()),
    };
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let size = number * 1024_f64.powi(power);
    if size < i64::MAX as f64 { Ok(size as i64) } else { Err(invalid()) }
}

/// A size, or -1 for "unlimited".
pub(crate) fn bytes_or_unlimited(text: &str) -> Result<i64, BadValue> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// Reads a number of CPUs as billionths.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, BadValue> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return bad(format!("failed to parse {text} as a rational number"));
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return bad("value is too precise");
    }
    let whole: i64 = if whole.is_empty() { Ok(0) } else { whole.parse() }
        .map_err(|_| BadValue(format!("failed to parse {text} as a rational number")))?;
    let nanos: i64 = format!("{fraction:0<9}").parse().unwrap_or_default();
    whole
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(nanos))
        .ok_or_else(|| BadValue(format!("failed to parse {text} as a rational number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [
            ("0", 0),
            ("64m", 67_108_864),
            ("64MB", 67_108_864),
            ("1.5KiB", 1536),
            ("1 g", 1_073_741_824),
            ("5b", 5),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for text in ["", "m", "-1", "1x", "1.2.3", "1mm", "99999999p", ".5m"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn cpus_are_billionths() {
        assert_eq!(nano_cpus("0.5"), Ok(500_000_000));
        assert_eq!(nano_cpus("2"), Ok(2_000_000_000));
        assert_eq!(nano_cpus(".25"), Ok(250_000_000));
        for text in ["", ".", "x", "-1", "0.0000000001", "99999999999999"] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = (bytes(&text), nano_cpus(&text));
        }
    }
}
