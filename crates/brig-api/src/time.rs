//! Times: RFC 3339 with up to nine digits and `Z` in bodies, unix `seconds.nanoseconds` in queries.

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Go's zero time: "never".
pub const ZERO: &str = "0001-01-01T00:00:00Z";

/// Text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid time {0:?}")]
pub struct InvalidTime(String);

impl brig_types::error::Categorized for InvalidTime {
    fn kind(&self) -> brig_types::error::ErrorKind {
        brig_types::error::ErrorKind::InvalidParameter
    }
}

fn invalid(text: &str) -> InvalidTime {
    InvalidTime(text.chars().take(80).collect())
}

/// The zero time.
#[must_use]
pub fn zero() -> String {
    ZERO.to_owned()
}

/// The present time in UTC.
#[must_use]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// `2026-11-21T19:37:12.123456789Z`, trailing zeroes of the fraction left out.
#[must_use]
pub fn rfc3339nano(time: OffsetDateTime) -> String {
    // Only years beyond four digits cannot be written.
    time.to_offset(UtcOffset::UTC).format(&Rfc3339).unwrap_or_else(|_| zero())
}

/// With all nine digits, as `logs --timestamps` writes.
#[must_use]
pub fn rfc3339nano_fixed(time: OffsetDateTime) -> String {
    let t = time.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.nanosecond()
    )
}

/// Reads RFC 3339 with any offset.
///
/// # Errors
/// [`InvalidTime`].
pub fn parse(text: &str) -> Result<OffsetDateTime, InvalidTime> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| invalid(text))
}

/// Whether the text is Go's zero time, or empty.
#[must_use]
pub fn is_zero(text: &str) -> bool {
    text.is_empty() || text == ZERO
}

/// Reads `seconds` or `seconds.nanoseconds` (one to nine digits of fraction).
///
/// # Errors
/// [`InvalidTime`].
pub fn parse_unix(text: &str) -> Result<OffsetDateTime, InvalidTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| invalid(text))?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid(text));
    }
    let nanos: i128 = format!("{fraction:0<9}").parse().map_err(|_| invalid(text))?;
    let total = i128::from(seconds) * 1_000_000_000 + nanos;
    OffsetDateTime::from_unix_timestamp_nanos(total).map_err(|_| invalid(text))
}

/// Reads what `since` and `until` may be in a query: unix seconds, or RFC 3339.
///
/// # Errors
/// [`InvalidTime`].
pub fn parse_query(text: &str) -> Result<OffsetDateTime, InvalidTime> {
    parse_unix(text).or_else(|_| parse(text))
}

/// `seconds.nanoseconds` with nine digits.
#[must_use]
pub fn unix_nanos(time: OffsetDateTime) -> String {
    format!("{}.{:09}", time.unix_timestamp(), time.nanosecond())
}

/// A length of time in docker's words (`Less than a second`, `About an hour`, `2 weeks`) and with
/// its rounding, from seconds.
#[must_use]
pub fn in_words(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, everything else is cut.
    let hours = seconds.saturating_add(1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_written() {
        let t = parse("2024-01-01T01:00:00.5+01:00").unwrap();
        assert_eq!(rfc3339nano(t), "2024-01-01T00:00:00.5Z");
        assert_eq!(rfc3339nano_fixed(t), "2024-01-01T00:00:00.500000000Z");
        assert_eq!(unix_nanos(t), "1704067200.500000000");
        assert_eq!(parse_unix("1704067200.500000000").unwrap(), t);
        assert_eq!(parse_unix("1704067200.5").unwrap(), t);
        assert_eq!(parse_query("2024-01-01T00:00:00.5Z").unwrap(), t);
        assert_eq!(rfc3339nano(parse(ZERO).unwrap()), ZERO);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "x", "1.", "1.x", "1.0000000001", "99999999999999999999", "-"] {
            // "1." is what a careless client sends for 1.
            assert_eq!(parse_unix(text).is_ok(), text == "1.", "{text}");
        }
        assert!(parse("yesterday").is_err());
    }

    proptest::proptest! {
        #[test]
        fn unix_times_round_trip(nanos in -60_000_000_000_000_000_000_i128..250_000_000_000_000_000_000) {
            let t = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
            proptest::prop_assert_eq!(parse(&rfc3339nano(t)).unwrap(), t);
            if nanos >= 0 {
                proptest::prop_assert_eq!(parse_unix(&unix_nanos(t)).unwrap(), t);
            }
        }
    }

    #[test]
    fn lengths_of_time_read_like_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (5_399, "About an hour"),
            (5_400, "2 hours"),
            (47 * 3_600, "47 hours"),
            (48 * 3_600, "2 days"),
            (13 * 86_400, "13 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (729 * 86_400, "24 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(in_words(seconds), text, "{seconds}");
        }
    }
}
