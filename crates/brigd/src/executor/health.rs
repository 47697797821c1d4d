//! Waiting for a container's health check.

use brig_api::container::ContainerState;
use brig_api::filters::Filters;
use brig_engine::Engine;
use brig_swarm::TaskError;

/// Text of a task whose health check failed.
pub(super) const UNHEALTHY: &str = "unhealthy container";

/// What a container's state says about its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has no health check, or the check says that all is well.
    Good,
    /// The check has not decided.
    Open,
    /// The check failed.
    Bad,
    /// It does not run.
    Ended,
}

pub(super) fn verdict(state: &ContainerState) -> Verdict {
    if !state.running {
        return Verdict::Ended;
    }
    match state.health.as_ref().map(|health| health.status.as_str()) {
        Some("starting") => Verdict::Open,
        Some("unhealthy") => Verdict::Bad,
        _ => Verdict::Good,
    }
}

/// Waits until a verdict satisfies `wanted` and returns it.
///
/// # Errors
/// When the container is gone or the engine shuts down.
pub(super) async fn wait_for(
    engine: &Engine,
    container: &str,
    wanted: impl Fn(Verdict) -> bool,
) -> Result<Verdict, TaskError> {
    // Listening begins before looking, so no change falls between the two.
    let filters = Filters::new().with("type", "container").with("container", container);
    let mut events = engine.events().subscribe(None, None, filters);
    loop {
        let inspect = engine
            .inspect(container, false)
            .await
            .map_err(|error| TaskError::fatal(brig_types::error::chain(&error)))?;
        let verdict = verdict(&inspect.state);
        if wanted(verdict) {
            return Ok(verdict);
        }
        if events.next().await.is_none() {
            return Err(TaskError::temporary("the engine is shutting down"));
        }
    }
}

#[cfg(test)]
mod tests {
    use brig_api::container::Health;

    use super::*;

    #[test]
    fn verdicts() {
        let state = |running, status: Option<&str>| ContainerState {
            running,
            health: status.map(|status| Health { status: status.to_owned(), ..Health::default() }),
            ..ContainerState::default()
        };
        for (state, expected) in [
            (state(true, None), Verdict::Good),
            (state(true, Some("none")), Verdict::Good),
            (state(true, Some("healthy")), Verdict::Good),
            (state(true, Some("starting")), Verdict::Open),
            (state(true, Some("unhealthy")), Verdict::Bad),
            (state(false, Some("healthy")), Verdict::Ended),
        ] {
            assert_eq!(verdict(&state), expected, "{state:?}");
        }
    }
}
