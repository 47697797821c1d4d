//! When a container that ended is started again, and after how long.

use std::time::Duration;

use brig_api::container::RestartPolicy;

use crate::error::EngineError;

/// The wait before the first automatic start; doubled with each further one.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait.
pub const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A run that lasted this long makes the next wait the first one again.
pub const RESET_AFTER: Duration = Duration::from_secs(10);

/// A restart policy that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// Whatever the exit code.
    Always,
    /// Like always, but not over a restart of the daemon once it was stopped by hand.
    UnlessStopped,
    /// When the exit code is not zero, at most so often (0: without limit).
    OnFailure(i64),
}

impl Policy {
    /// Reads the API's form.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with docker's text.
    pub fn parse(policy: &RestartPolicy) -> Result<Self, EngineError> {
        let retries = policy.maximum_retry_count;
        let parsed = match policy.name.as_str() {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure(retries),
            other => {
                return Err(EngineError::Invalid(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                )));
            }
        };
        if retries != 0 && !matches!(parsed, Self::OnFailure(_)) {
            return Err(EngineError::Invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .to_owned(),
            ));
        }
        if retries < 0 {
            return Err(EngineError::Invalid(
                "invalid restart policy: maximum retry count cannot be negative".to_owned(),
            ));
        }
        Ok(parsed)
    }

    /// Whether a container that just ended is started again.
    #[must_use]
    pub fn restarts(self, exit_code: i32, stopped_by_hand: bool, restarts_so_far: i64) -> bool {
        if stopped_by_hand {
            return false;
        }
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(limit) => exit_code != 0 && (limit == 0 || restarts_so_far < limit),
        }
    }

    /// Whether a container that is down is started when the daemon starts.
    #[must_use]
    pub fn starts_with_daemon(
        self,
        exit_code: i32,
        stopped_by_hand: bool,
        restarts_so_far: i64,
    ) -> bool {
        match self {
            Self::Always => true,
            other => other.restarts(exit_code, stopped_by_hand, restarts_so_far),
        }
    }
}

/// The growing wait between automatic starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The wait after a run that lasted `ran`.
    pub fn next(&mut self, ran: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if ran < RESET_AFTER => last.saturating_mul(2).min(MAX_BACKOFF),
            _ => FIRST_BACKOFF,
        };
        self.last = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, retries: i64) -> RestartPolicy {
        RestartPolicy { name: name.to_owned(), maximum_retry_count: retries }
    }

    #[test]
    fn policies_are_checked() {
        assert_eq!(Policy::parse(&policy("", 0)).unwrap(), Policy::No);
        assert_eq!(Policy::parse(&policy("on-failure", 3)).unwrap(), Policy::OnFailure(3));
        for (name, retries) in [("sometimes", 0), ("always", 2), ("on-failure", -1)] {
            assert!(Policy::parse(&policy(name, retries)).is_err(), "{name}");
        }
    }

    #[test]
    fn who_restarts() {
        assert!(!Policy::No.restarts(1, false, 0));
        assert!(Policy::Always.restarts(0, false, 100));
        assert!(!Policy::Always.restarts(0, true, 0));
        assert!(Policy::Always.starts_with_daemon(0, true, 0));
        assert!(!Policy::UnlessStopped.starts_with_daemon(0, true, 0));
        assert!(Policy::OnFailure(2).restarts(1, false, 1));
        assert!(!Policy::OnFailure(2).restarts(1, false, 2));
        assert!(!Policy::OnFailure(0).restarts(0, false, 0));
    }

    #[test]
    fn backoff_doubles_to_a_minute_and_resets() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000]
        );
        assert_eq!(backoff.next(RESET_AFTER), FIRST_BACKOFF);
    }
}
