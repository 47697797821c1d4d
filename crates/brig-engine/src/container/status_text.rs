//! The `Status` text of listings (`Up 2 seconds`, `Exited (0) 3 minutes ago`), in docker's words.

use brig_api::time::in_words;
use time::OffsetDateTime;

use super::state::{State, Status};

/// The text for `state` at `now`; `health` is the health status, if there is a health check.
#[must_use]
pub fn status_text(state: &State, health: Option<&str>, now: OffsetDateTime) -> String {
    let since = |at: Option<OffsetDateTime>| in_words((now - at.unwrap_or(now)).whole_seconds());
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
    use time::Duration;

    use super::*;

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
