//! The clocks of two nodes held against each other.
//!
//! Certificates are only as good as the clocks that read them. Nodes of ours write their time into
//! the metadata of requests and answers, under a key that other implementations pass over; from
//! the heartbeats both ends know how far apart they are. When a handshake fails because a
//! certificate is not valid now, the manager's time is asked for without trusting it, to be able
//! to say more than that.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use brig_pki::identity::CertInfo;
use brig_pki::tls::{Connector, TlsCredentials, Validity};
use brig_proto::swarm::{GetRootCaCertificateRequest, ca_client::CaClient};
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tower::{Layer, Service};

use super::client;

/// Milliseconds since 1970, in requests and answers.
const TIME: &str = "brig-time";
/// A clock that is this far off is told about, ...
const OFF: Duration = Duration::from_secs(60);
/// ... and told about once more when it is back within this.
const BACK: Duration = Duration::from_secs(30);
/// Shortest time between two lines about one clock.
const QUIET: Duration = Duration::from_secs(600);
/// Longest time that asking a manager for its time may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a clock is from ours, in milliseconds; above zero when it is ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockOffset(i64);

impl ClockOffset {
    /// How far `there` is from `here`.
    pub(crate) fn between(here: SystemTime, there: SystemTime) -> Self {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Self(match there.duration_since(here) {
            Ok(ahead) => millis(ahead),
            Err(behind) => -millis(behind.duration()),
        })
    }

    /// What an answer says that was on its way from `sent` to `received`: nothing, as far as the
    /// way explains it.
    pub(crate) fn measured(there: SystemTime, sent: SystemTime, received: SystemTime) -> Self {
        if there < sent {
            Self::between(sent, there)
        } else if there > received {
            Self::between(received, there)
        } else {
            Self::default()
        }
    }

    /// The same seen from the other clock.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self(self.0.saturating_neg())
    }

    /// Milliseconds; above zero when the clock is ahead.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whether it is large enough to be told about.
    #[must_use]
    pub fn is_off(self) -> bool {
        self.size() > OFF
    }

    fn size(self) -> Duration {
        Duration::from_millis(self.0.unsigned_abs())
    }
}

/// `2m5s ahead`.
impl fmt::Display for ClockOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.size().as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3600 % 24, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
        ];
        // Two parts say enough.
        let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
        for (n, unit) in parts.iter().skip(first).take(2).filter(|(n, _)| *n > 0) {
            write!(f, "{n}{unit}")?;
        }
        if seconds == 0 {
            f.write_str("0s")?;
        }
        f.write_str(if self.0 < 0 { " behind" } else { " ahead" })
    }
}

/// What is known of one other clock.
#[derive(Debug, Default)]
pub(crate) struct OtherClock {
    offset: ClockOffset,
    told_off: bool,
    told_at: Option<Instant>,
}

impl OtherClock {
    /// Takes a measurement; whether it is worth a line in the log.
    pub(crate) fn observe(&mut self, offset: ClockOffset, now: Instant) -> bool {
        self.offset = offset;
        let off = if self.told_off { offset.size() > BACK } else { offset.is_off() };
        let lately = self.told_at.is_some_and(|at| now.duration_since(at) < QUIET);
        if off == self.told_off || lately {
            return false;
        }
        self.told_off = off;
        self.told_at = Some(now);
        true
    }

    /// The last measurement.
    pub(crate) const fn offset(&self) -> ClockOffset {
        self.offset
    }
}

/// Writes our time into the metadata of a request.
pub(crate) fn stamp(metadata: &mut MetadataMap) {
    metadata.insert(TIME, tonic::metadata::MetadataValue::from(unix_millis(SystemTime::now())));
}

/// The other end's time; `None` from other implementations.
pub(crate) fn read(metadata: &MetadataMap) -> Option<SystemTime> {
    let millis: u64 = metadata.get(TIME)?.to_str().ok()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

fn unix_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes our time into every answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StampLayer;

impl<S> Layer<S> for StampLayer {
    type Service = Stamp<S>;

    fn layer(&self, inner: S) -> Stamp<S> {
        Stamp(inner)
    }
}

/// The service behind [`StampLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Stamp<S>(S);

impl<S> Service<Request<Body>> for Stamp<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            answer.headers_mut().insert(TIME, HeaderValue::from(unix_millis(SystemTime::now())));
            Ok(answer)
        })
    }
}

/// A handshake failed because a certificate is not valid now, by one of the clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongClock {
    manager: String,
    here: SystemTime,
    there: Option<SystemTime>,
    whose: &'static str,
    from: SystemTime,
    until: SystemTime,
}

impl WrongClock {
    /// Whether the clocks are as far apart as would explain it, as far as that is known.
    pub(crate) fn is_off(&self) -> bool {
        self.there.is_none_or(|there| ClockOffset::between(self.here, there).is_off())
    }
}

impl std::error::Error for WrongClock {}

impl fmt::Display for WrongClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manager, here, whose, from, until, .. } = self;
        let valid =
            format!("the certificate of {whose} is valid from {} to {}", text(*from), text(*until));
        let here_text = text(*here);
        match self.there {
            Some(there) => {
                let offset = ClockOffset::between(*here, there);
                let there_text = text(there);
                if offset.is_off() {
                    write!(
                        f,
                        "the clocks differ: here it is {here_text}, at manager {manager} it is {there_text}, {offset}, and {valid}. Set the clock that is wrong"
                    )
                } else {
                    write!(
                        f,
                        "{valid}; here it is {here_text}, at manager {manager} {there_text}: the clocks agree and the certificate has ended. See \"brig system expiring\" on a manager"
                    )
                }
            }
            None => write!(
                f,
                "{valid}, and here it is {here_text}. Compare this clock with that of manager {manager} and set the one that is wrong"
            ),
        }
    }
}

/// A time as people read it.
pub(crate) fn text(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let whole = at.replace_nanosecond(0).unwrap_or(at);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}

/// Says more about a connection to a manager that failed because of a certificate's validity:
/// `None` only when the manager cannot even be asked.
pub(crate) async fn diagnose(
    address: &str,
    credentials: &Arc<TlsCredentials>,
    failure: Validity,
) -> Option<WrongClock> {
    let (shown, time) = tokio::time::timeout(PATIENCE, ask(address)).await.unwrap_or_default();
    let (whose, certificate) = match failure {
        Validity::Theirs => ("the manager", shown?),
        Validity::Ours => ("this node", credentials.certificate()),
    };
    Some(WrongClock {
        manager: address.to_owned(),
        here: SystemTime::now(),
        there: time,
        whose,
        from: certificate.not_before.into(),
        until: certificate.not_after.into(),
    })
}

/// The certificate that a manager shows and the time that it says it has. Nothing of it is
/// verified, and it is used for nothing but a text.
async fn ask(address: &str) -> (Option<CertInfo>, Option<SystemTime>) {
    let host = crate::node::address::host(address);
    let Ok(connector) = Connector::insecure_for_pinned_content(host) else {
        return (None, None);
    };
    let Ok((channel, shown)) = client::connect_anonymously(address, connector).await else {
        return (None, None);
    };
    let answer =
        CaClient::new(channel).get_root_ca_certificate(GetRootCaCertificateRequest {}).await;
    (shown, answer.ok().and_then(|answer| read(answer.metadata())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_the_way_explains_is_no_offset() {
        let measured = |there| ClockOffset::measured(at(there), at(100), at(110)).millis();
        assert_eq!(measured(100), 0);
        assert_eq!(measured(110), 0);
        assert_eq!(measured(111), 1000);
        assert_eq!(measured(90), -10_000);
        // The clock was set between the two looks at it.
        assert_eq!(ClockOffset::measured(at(105), at(110), at(100)).millis(), -5000);
    }

    #[test]
    fn offsets_are_told_in_two_parts() {
        for (millis, text) in [
            (0, "0s ahead"),
            (999, "0s ahead"),
            (125_000, "2m5s ahead"),
            (-3_600_000, "1h behind"),
            (90_061_000, "1d1h ahead"),
            (i64::MIN, "106751991167d7h behind"),
        ] {
            assert_eq!(ClockOffset(millis).to_string(), text);
        }
        assert_eq!(ClockOffset(i64::MIN).reversed(), ClockOffset(i64::MAX));
    }

    #[test]
    fn a_clock_is_told_about_when_it_goes_off_and_when_it_is_back() {
        let mut clock = OtherClock::default();
        let start = Instant::now();
        let mut see = |seconds: i64, minutes: u64| {
            clock.observe(ClockOffset(seconds * 1000), start + Duration::from_secs(minutes * 60))
        };
        assert!(!see(60, 0), "within the bound");
        assert!(see(-61, 1), "off");
        assert!(!see(-61, 20), "told already");
        assert!(!see(-45, 30), "not back yet");
        assert!(see(10, 40), "back");
        assert!(!see(1000, 41), "told a moment ago");
        assert!(see(1000, 51), "off again");
    }

    #[test]
    fn the_time_travels_as_metadata() {
        let mut metadata = MetadataMap::new();
        assert_eq!(read(&metadata), None);
        stamp(&mut metadata);
        let read_back = read(&metadata).unwrap();
        assert!(!ClockOffset::between(SystemTime::now(), read_back).is_off());
        for odd in ["", "-1", "1e3", "99999999999999999999", "18446744073709551615"] {
            metadata.insert(TIME, odd.parse().unwrap());
            let _ = read(&metadata).map(|there| ClockOffset::between(at(0), there).to_string());
        }
    }

    #[test]
    fn both_times_and_their_difference_are_told() {
        let wrong = WrongClock {
            manager: "10.0.0.1:2377".to_owned(),
            here: at(1_000_000),
            there: Some(at(1_000_125)),
            whose: "the manager",
            from: at(1_000_100),
            until: at(2_000_000),
        };
        assert_eq!(
            wrong.to_string(),
            "the clocks differ: here it is 1970-01-12T13:46:40Z, at manager 10.0.0.1:2377 it is 1970-01-12T13:48:45Z, 2m5s ahead, and the certificate of the manager is valid from 1970-01-12T13:48:20Z to 1970-01-24T03:33:20Z. Set the clock that is wrong"
        );
        let silent = WrongClock { there: None, ..wrong.clone() }.to_string();
        assert!(silent.contains("here it is 1970-01-12T13:46:40Z. Compare"), "{silent}");
        let agree = WrongClock { there: Some(at(1_000_001)), ..wrong }.to_string();
        assert!(agree.contains("the clocks agree"), "{agree}");
    }
}
