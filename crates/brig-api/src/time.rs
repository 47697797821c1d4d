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
}
