//! The version that an update has to name.

use crate::server::ApiError;
use crate::server::query::Query;

/// Reads `version=N`; `kind` is for the text of the error, which is Go's.
///
/// # Errors
/// No version, or something that is none.
pub fn required(query: &Query, kind: &str) -> Result<u64, ApiError> {
    let text = query.text("version").unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let reason = if digits { "value out of range" } else { "invalid syntax" };
        ApiError::invalid(format!(
            "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: {reason}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_gos() {
        let read = |text: &str| required(&Query::parse(Some(text)), "service");
        assert_eq!(read("version=7").unwrap(), 7);
        for (query, message) in [
            ("", "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax"),
            (
                "version=%2B1",
                "invalid service version '+1': strconv.ParseUint: parsing \"+1\": invalid syntax",
            ),
            (
                "version=99999999999999999999",
                "invalid service version '99999999999999999999': strconv.ParseUint: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(read(query).unwrap_err().message(), message);
        }
    }
}
