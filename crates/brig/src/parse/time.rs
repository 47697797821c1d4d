//! Points in time for `--since` and `--until`: RFC 3339, a date, unix seconds, or "so long ago".

use time::OffsetDateTime;
use time::macros::format_description;
use time::{Date, PrimitiveDateTime};

use super::{BadValue, bad, duration};

/// The API's form: unix seconds, with nanoseconds where the text has them.
pub(crate) fn timestamp(text: &str, now: OffsetDateTime) -> Result<String, BadValue> {
    if brig_api::time::parse_unix(text).is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(nanos) = duration::nanoseconds(text) {
        let at = now - time::Duration::nanoseconds(nanos);
        return Ok(at.unix_timestamp().to_string());
    }
    if let Ok(at) = brig_api::time::parse(text) {
        return Ok(brig_api::time::unix_nanos(at));
    }
    let without_zone = text.strip_suffix('Z').unwrap_or(text);
    let at = [
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond]"),
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"),
        format_description!("[year]-[month]-[day]T[hour]:[minute]"),
    ]
    .iter()
    .find_map(|format| PrimitiveDateTime::parse(without_zone, format).ok())
    .or_else(|| {
        Date::parse(without_zone, format_description!("[year]-[month]-[day]"))
            .ok()
            .map(Date::midnight)
    });
    match at {
        Some(at) => Ok(brig_api::time::unix_nanos(at.assume_utc())),
        None => bad(format!("failed to parse value as time or duration: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_becomes_unix_time() {
        let now = brig_api::time::parse("2024-01-01T00:01:00Z").unwrap();
        for (text, unix) in [
            ("1704067200", "1704067200"),
            ("1704067200.5", "1704067200.5"),
            ("1m", "1704067200"),
            ("2024-01-01T00:00:00Z", "1704067200.000000000"),
            ("2024-01-01T01:00:00+01:00", "1704067200.000000000"),
            ("2024-01-01T00:00:00", "1704067200.000000000"),
            ("2024-01-01T00:00", "1704067200.000000000"),
            ("2024-01-01", "1704067200.000000000"),
        ] {
            assert_eq!(timestamp(text, now).unwrap(), unix, "{text}");
        }
        assert!(timestamp("yesterday", now).is_err());
    }
}
