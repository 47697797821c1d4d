//! The version in front of a path: `/v1.47/containers/json`.

use brig_api::version::{ApiVersion, MAX, MIN};

use super::error::ApiError;

/// Splits the version off a path. Without one it is the newest that we speak.
///
/// # Errors
/// A version that we don't speak, with docker's texts.
pub fn split(path: &str) -> Result<(ApiVersion, &str), ApiError> {
    let Some((text, rest)) = prefix(path) else { return Ok((MAX, path)) };
    let asked = parse(text);
    if asked > MAX {
        return Err(ApiError::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {MAX}"
        )));
    }
    if asked < MIN {
        return Err(ApiError::invalid(format!(
            "client version {text} is too old. Minimum supported API version is {MIN}, \
             please upgrade your client to a newer version"
        ))
        .as_plain_text());
    }
    Ok((asked, rest))
}

/// The digits and dots after `/v`, and the path from the next slash on.
fn prefix(path: &str) -> Option<(&str, &str)> {
    let after = path.strip_prefix("/v")?;
    let end = after.find('/')?;
    let (version, rest) = after.split_at_checked(end)?;
    let numeric = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (numeric && version.bytes().next().is_some_and(|b| b.is_ascii_digit()))
        .then_some((version, rest))
}

/// Reads `major.minor`; further parts don't count, and what is too large for a number is newer
/// than everything.
fn parse(text: &str) -> ApiVersion {
    let mut parts = text.split('.').map(|part| match part {
        "" => 0,
        digits => digits.parse().unwrap_or(u16::MAX),
    });
    ApiVersion::new(parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_optional() {
        assert_eq!(split("/info").unwrap(), (MAX, "/info"));
        assert_eq!(split("/v1.41/info").unwrap(), (ApiVersion::new(1, 41), "/info"));
        assert_eq!(split("/v1.24/").unwrap(), (MIN, "/"));
        assert_eq!(split("/v1.50/x/y").unwrap(), (MAX, "/x/y"));
    }

    #[test]
    fn what_is_no_version_stays_in_the_path() {
        for path in ["/volumes", "/volumes/v1.2", "/v1.41", "/vx/info", "/v/info", "/v.1/x", ""] {
            assert_eq!(split(path).unwrap(), (MAX, path));
        }
    }

    #[test]
    fn foreign_versions_get_dockers_texts() {
        let error = split("/v1.99/info").unwrap_err();
        assert_eq!(
            error.message(),
            "client version 1.99 is too new. Maximum supported API version is 1.50"
        );
        assert_eq!(error.into_response().headers()["content-type"], "application/json");
        let error = split("/v1.11/info").unwrap_err();
        assert_eq!(
            error.message(),
            "client version 1.11 is too old. Minimum supported API version is 1.24, \
             please upgrade your client to a newer version"
        );
        assert!(
            error.into_response().headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/plain")
        );
        assert!(split("/v99999999999.1/info").is_err());
        assert!(split("/v1/info").is_err());
    }
}
