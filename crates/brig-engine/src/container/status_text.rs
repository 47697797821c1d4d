//! The `Status` text of listings (`Up 2 seconds`, `Exited (0) 3 minutes ago`), in docker's words.

use time::{Duration, OffsetDateTime};

use super::state::{State, Status};

/// A length of time as people say it; docker's rounding.
#[must_use]
pub fn human_duration(length: Duration) -> String {
    let seconds = length.whole_seconds();
    let minutes = length.whole_minutes();
    // Hours are rounded, everything else is cut.
    let hours = (length + Duration::minutes(30)).whole_hours();
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
        () => format!("{} years", length.whole_hours() / 24 / 365),
    }
}

/// The text for `state` at `now`; `health` is the health status, if there is a health check.
#[must_use]
pub fn status_text(state: &State, health: Option<&str>, now: OffsetDateTime) -> String {
    let since = |at: Option<OffsetDateTime>| human_duration(now - at.unwrap_or(now));
    match state.status {
        Status::Running => match health {
            Some("starting") => format!("Up {} (health: starting)", since(state.started_at)),
            Some(health) => format!("Up {} ({health})", since(state.started_at)),
            None => format!("Up {}", since(state.started_at)),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at))
        }
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_dockers() {
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
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::seconds(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn states_read_like_dockers() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::hours(5);
        let mut state = State {
            started_at: Some(now - Duration::seconds(9)),
            finished_at: Some(now - Duration::minutes(3)),
            exit_code: 2,
            ..State::default()
        };
        assert_eq!(status_text(&state, None, now), "Created");
        state.status = Status::Running;
        assert_eq!(status_text(&state, None, now), "Up 9 seconds");
        assert_eq!(status_text(&state, Some("healthy"), now), "Up 9 seconds (healthy)");
        assert_eq!(status_text(&state, Some("starting"), now), "Up 9 seconds (health: starting)");
        state.status = Status::Paused;
        assert_eq!(status_text(&state, None, now), "Up 9 seconds (Paused)");
        state.status = Status::Exited;
        assert_eq!(status_text(&state, None, now), "Exited (2) 3 minutes ago");
        state.status = Status::Restarting;
        assert_eq!(status_text(&state, None, now), "Restarting (2) 3 minutes ago");
    }
}
