//! Points in time as queries and filters give them.

use brig_api::time::parse_query;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime};

use crate::server::ApiError;

/// Reads unix seconds (with a fraction), RFC 3339, a date with or without time (UTC), or a span
/// before `now` in Go's notation (`1h30m`).
///
/// # Errors
/// 400 for anything else.
pub fn timestamp(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime, ApiError> {
    if let Ok(time) = parse_query(text) {
        return Ok(time);
    }
    if let Some(time) = span(text).and_then(|span| now.checked_sub(span)) {
        return Ok(time);
    }
    let date = format_description!("[year]-[month]-[day]");
    let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let seconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    Date::parse(text, date)
        .map(Date::midnight)
        .or_else(|_| PrimitiveDateTime::parse(text, minutes))
        .or_else(|_| PrimitiveDateTime::parse(text, seconds))
        .map(PrimitiveDateTime::assume_utc)
        .map_err(|_| {
            let shown: String = text.chars().take(80).collect();
            ApiError::invalid(format!("cannot parse {shown:?} as a time or a span of time"))
        })
}

/// The time of a query's parameter; `None` when it is absent or `0`, which clients send for
/// "from the beginning".
///
/// # Errors
/// As [`timestamp`].
pub fn parameter(text: Option<&str>) -> Result<Option<OffsetDateTime>, ApiError> {
    match text {
        None | Some("" | "0") => Ok(None),
        Some(text) => timestamp(text, OffsetDateTime::now_utc()).map(Some),
    }
}

/// Go's `time.ParseDuration` without fractions below a nanosecond.
fn span(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(number_end)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit_end)?;
        let nanoseconds = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let count: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::checked_seconds_f64(count * nanoseconds / 1e9)?)?;
        rest = after;
    }
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_is_read() {
        let now = OffsetDateTime::from_unix_timestamp(1_704_153_600).unwrap();
        for (text, seconds) in [
            ("1704067200", 1_704_067_200),
            ("1704067200.5", 1_704_067_200),
            ("2024-01-01T00:00:00Z", 1_704_067_200),
            ("2024-01-01T01:00:00+01:00", 1_704_067_200),
            ("2024-01-01", 1_704_067_200),
            ("2024-01-01T00:01", 1_704_067_260),
            ("24h", 1_704_067_200),
            ("23h59m60s", 1_704_067_200),
            ("1.5h", 1_704_148_200),
        ] {
            assert_eq!(timestamp(text, now).unwrap().unix_timestamp(), seconds, "{text}");
        }
        for text in ["", "x", "1", "24", "24x", "h", "-", "1h2", "1e400h", "99999999999999h"] {
            if text != "1" && text != "24" {
                assert!(timestamp(text, now).is_err(), "{text}");
            }
        }
        assert_eq!(parameter(Some("0")).unwrap(), None);
        assert_eq!(parameter(None).unwrap(), None);
    }
}
