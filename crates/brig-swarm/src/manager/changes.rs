//! How control loops listen to the store: they sleep until something happens, then take all that
//! happened meanwhile. Nothing waits for a batch to fill; while a loop is busy the next one gathers
//! by itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brig_store::{Change, Commit, WatchError, Watcher};

use crate::wire_time;

/// Longest sleep of a loop that waits for a point in time, for clocks that are set back.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Why a loop woke up.
pub(crate) enum Wake {
    /// These transactions happened, in order.
    Changes(Vec<Arc<Commit>>),
    /// Some transactions were missed: look at everything again.
    Missed,
    /// The time has come.
    Time,
    /// The store is closed.
    Closed,
}

/// Sleeps until there are changes, or until `at`.
pub(crate) async fn wait(watcher: &mut Watcher, at: Option<SystemTime>) -> Wake {
    let sleep = at.map_or(MAX_SLEEP, |at| wire_time::until(at, SystemTime::now()).min(MAX_SLEEP));
    let first = tokio::select! {
        biased;
        next = watcher.next() => next,
        () = tokio::time::sleep(sleep) => return Wake::Time,
    };
    let mut commits = match first {
        Ok(commit) => vec![commit],
        Err(WatchError::Lagged) => return Wake::Missed,
        Err(WatchError::Closed) => return Wake::Closed,
    };
    loop {
        match watcher.try_next() {
            Ok(Some(commit)) => commits.push(commit),
            Ok(None) => return Wake::Changes(commits),
            Err(WatchError::Lagged) => return Wake::Missed,
            Err(WatchError::Closed) => return Wake::Closed,
        }
    }
}

/// The changes of all transactions.
pub(crate) fn of(commits: &[Arc<Commit>]) -> impl Iterator<Item = &Change> {
    commits.iter().flat_map(|commit| commit.changes.iter())
}
