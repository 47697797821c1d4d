//! Time as the protocol writes it. Decisions take the time as an argument; only the shells that
//! call them look at the clock.

use std::time::{Duration, SystemTime};

/// The protobuf form of a point in time.
pub(crate) fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(at)
}

/// A point in time from the wire; the epoch when it is absent or cannot be represented.
pub(crate) fn instant(at: Option<&prost_types::Timestamp>) -> SystemTime {
    at.and_then(|at| SystemTime::try_from(*at).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The protobuf form of a duration; what does not fit becomes the longest there is.
pub(crate) fn wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A duration from the wire, `default` when absent, zero when negative.
pub(crate) fn duration(value: Option<&prost_types::Duration>, default: Duration) -> Duration {
    value.map_or(default, |value| Duration::try_from(*value).unwrap_or(Duration::ZERO))
}

/// How long until `at`; zero when it has passed.
pub(crate) fn until(at: SystemTime, now: SystemTime) -> Duration {
    at.duration_since(now).unwrap_or(Duration::ZERO)
}

/// How long since `at`; zero when it lies ahead.
pub(crate) fn since(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or(Duration::ZERO)
}
