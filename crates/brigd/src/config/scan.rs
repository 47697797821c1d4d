//! Where the daemon fetches its vulnerability database from, and how often.

use std::time::Duration;

use http::Uri;

use super::{ConfigError, value};

const URL: &str = "scan-database-url";
const INTERVAL: &str = "scan-database-interval";
const DEFAULT_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// A database is made once a day, or once an hour; nobody's server is asked more often than this.
const MIN_INTERVAL: Duration = Duration::from_secs(10 * 60);
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A database's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseSource {
    /// `https://…`
    pub url: String,
    /// Time between two attempts.
    pub interval: Duration,
}

pub(super) fn source(
    url: Option<String>,
    interval: Option<&str>,
) -> Result<Option<DatabaseSource>, ConfigError> {
    let interval = interval.map(|text| {
        let parsed = parse(text).filter(|time| (MIN_INTERVAL..=MAX_INTERVAL).contains(time));
        parsed.ok_or_else(|| {
            value(INTERVAL, format!("{text:?} is no time from 10m to 720h, such as 24h or 1h30m"))
        })
    });
    let interval = interval.transpose()?;
    let Some(url) = url else {
        return match interval {
            Some(_) => Err(value(INTERVAL, format!("it is given, but no {URL}"))),
            None => Ok(None),
        };
    };
    let parsed: Option<Uri> = url.parse().ok();
    let authority = parsed
        .as_ref()
        .filter(|uri| uri.scheme_str() == Some("https"))
        .and_then(Uri::authority)
        .ok_or_else(|| value(URL, format!("{url:?} is no https:// address")))?;
    // SECURITY: it is shown to whoever may see the database's status.
    if authority.as_str().contains('@') {
        return Err(value(URL, "an address must not contain a name or a password".to_owned()));
    }
    Ok(Some(DatabaseSource { url, interval: interval.unwrap_or(DEFAULT_INTERVAL) }))
}

/// `24h`, `1h30m`, `90m`, `7d`.
fn parse(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = match tail.bytes().next()? {
            b's' => 1,
            b'm' => 60,
            b'h' => 60 * 60,
            b'd' => 24 * 60 * 60,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = tail.get(1..)?;
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, interval: Option<&str>) -> Result<Option<DatabaseSource>, String> {
        source(Some(url.to_owned()), interval).map_err(|error| error.to_string())
    }

    #[test]
    fn only_https_and_no_secrets() {
        assert_eq!(source(None, None).unwrap(), None);
        let good = of("https://a.example/x.db?y", None).unwrap().unwrap();
        assert_eq!(good.interval, Duration::from_secs(86_400));
        for bad in ["http://a.example/x.db", "/x.db", "https://", "", "file:///x", "a.example/x"] {
            assert!(of(bad, None).unwrap_err().contains("scan-database-url"), "{bad}");
        }
        let error = of("https://ann:secret@a.example/x.db", None).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        assert!(source(None, Some("24h")).is_err());
    }

    #[test]
    fn intervals_have_bounds() {
        let interval =
            |text| of("https://a.example/", Some(text)).map(|some| some.unwrap().interval);
        assert_eq!(interval("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(interval("7d").unwrap(), Duration::from_secs(604_800));
        let huge = format!("{}h", u64::MAX);
        for bad in ["", "0h", "5m", "721h", "24", "h", "-1h", "1 h", "1x", "é", &huge] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
