//! The database by itself: fetched from the address that the configuration names, as often as it says,
//! and taken over when it is whole and newer. In a swarm the leader fetches, and the others have it
//! from there.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use brig_api::event::{Actor, Event};
use brig_files::Durability;
use brig_scan::fetch::{self, Fetched, Kept};
use brig_swarm::LocalNodeState;
use brig_types::error::chain;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::api;
use super::database::{DatabaseError, MAX_DATABASE};
use super::follow::share;
use crate::config::DatabaseSource;
use crate::state::{AppState, State};
use crate::swarm::local;

/// What became of it, kept over restarts.
const NOTE: &str = "download.json";
/// Largest such note.
const MAX_NOTE: u64 = 16 << 10;
/// What is fetched is kept beside this name.
const KEPT: &str = "download";
/// First pause after a failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);
/// How often the clock is looked at, and who leads the swarm.
const GLANCE: Duration = Duration::from_secs(15);
/// Longest reason that is kept.
const MAX_REASON: usize = 2048;

/// What became of fetching the database. Times are Unix seconds, 0 for never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// From where.
    pub url: String,
    /// Seconds between two attempts that work.
    #[serde(skip)]
    pub interval: u64,
    /// The last one.
    pub attempted: i64,
    /// The last one that worked.
    pub succeeded: i64,
    /// How many have failed since.
    pub failures: u32,
    /// Why the last one did.
    pub error: String,
    /// When it is tried again.
    pub next: i64,
}

impl Attempts {
    fn of(source: &DatabaseSource, kept: Option<Self>, now: i64) -> Self {
        let mut attempts = kept
            .filter(|kept| kept.url == source.url)
            .unwrap_or_else(|| Self { url: source.url.clone(), ..Self::default() });
        attempts.interval = source.interval.as_secs();
        // The clock was wrong, or the time between attempts is shorter now.
        attempts.next = attempts.next.min(after(now, source.interval + source.interval / 10));
        attempts
    }

    fn worked(&mut self, now: i64, chance: u64) {
        self.attempted = now;
        self.succeeded = now;
        self.failures = 0;
        self.error.clear();
        // Engines that were started together do not ask together for ever.
        let spread = self.interval / 10;
        let more = if spread == 0 { 0 } else { chance % spread };
        self.next = after(now, Duration::from_secs(self.interval + more));
    }

    fn failed(&mut self, now: i64, chance: u64, error: &str) {
        self.attempted = now;
        self.error = error.chars().take(MAX_REASON).collect();
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        let pause = doubled.min(MAX_PAUSE).min(Duration::from_secs(self.interval));
        self.failures = self.failures.saturating_add(1);
        let more = chance % (pause.as_secs() / 4).max(1);
        self.next = after(now, pause + Duration::from_secs(more));
    }
}

fn after(now: i64, time: Duration) -> i64 {
    now.saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Any number.
fn chance() -> u64 {
    let text = brig_types::id::random_hex();
    text.get(..8).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// Fetches the database again and again until the daemon stops, where the configuration says from
/// where.
pub async fn follow(state: AppState) {
    let Some(source) = state.config.scan_database.clone() else {
        let dir = state.vulnerabilities.dir().to_owned();
        let _ = tokio::task::spawn_blocking(move || forget(&dir)).await;
        return;
    };
    let stop = state.stop.clone();
    let _ = stop.run_until_cancelled(run(&state, &source)).await;
}

async fn run(state: &State, source: &DatabaseSource) {
    let database = &state.vulnerabilities;
    let path = database.dir().join(NOTE);
    let kept = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_default()
    };
    let mut attempts = Attempts::of(source, kept, now());
    loop {
        if !is_ours(state) {
            database.note(None);
            tokio::time::sleep(GLANCE).await;
            continue;
        }
        let due = attempts.next.max(shared_until(state, &attempts));
        database.note(Some(Attempts { next: due, ..attempts.clone() }));
        let left = u64::try_from(due.saturating_sub(now())).unwrap_or_default();
        if left > 0 {
            tokio::time::sleep(GLANCE.min(Duration::from_secs(left))).await;
            continue;
        }
        match attempt(state, source).await {
            Ok(()) => attempts.worked(now(), chance()),
            Err(error) => {
                tracing::warn!(url = source.url, %error, "the vulnerability database cannot be fetched; the one that is here stays");
                if attempts.failures == 0 {
                    announce_failure(state, source, &error);
                }
                attempts.failed(now(), chance(), &error);
            }
        }
        let (path, note) = (path.clone(), attempts.clone());
        let written = tokio::task::spawn_blocking(move || write(&path, &note)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "when the vulnerability database was fetched is not kept");
        }
    }
}

/// Whether it is this engine that fetches: alone, or as the leader of its swarm.
fn is_ours(state: &State) -> bool {
    let status = state.swarm.status();
    let Ok(control) = local::control(state) else {
        return status.local_node_state == LocalNodeState::Inactive;
    };
    let leads = |node: &brig_proto::swarm::Node| {
        node.manager_status.as_ref().is_some_and(|manager| manager.leader)
    };
    control.nodes().iter().any(|node| node.id == status.node_id && leads(node))
}

/// Until when somebody else's attempt counts: a leader that has just begun does not ask again.
fn shared_until(state: &State, attempts: &Attempts) -> i64 {
    let shared = local::control(state).ok().and_then(|control| control.scan_database());
    match shared {
        Some(shared) if attempts.attempted == 0 => {
            let until = after(shared.received, Duration::from_secs(attempts.interval));
            until.min(after(now(), Duration::from_secs(attempts.interval)))
        }
        _ => 0,
    }
}

async fn attempt(state: &State, source: &DatabaseSource) -> Result<(), String> {
    let database = &state.vulnerabilities;
    let (folder, url, stop) = (database.dir().join(KEPT), source.url.clone(), state.stop.clone());
    let handle = Handle::current();
    // What is kept is read to its end to know that it is whole.
    let work = move || {
        let kept = Kept::open(&folder)
            .map_err(|error| format!("cannot use {}.feeds: {error}", folder.display()))?;
        kept.keep_only(std::iter::once(url.as_str()));
        let fetch = stop.run_until_cancelled(fetch::fetch(&url, &kept, MAX_DATABASE));
        match handle.block_on(fetch) {
            Some(Ok(fetched)) => Ok((kept, fetched)),
            Some(Err(error)) => Err(chain(&error)),
            None => Err("the daemon is stopping".to_owned()),
        }
    };
    let (kept, Fetched { file, unchanged }) =
        tokio::task::spawn_blocking(work).await.map_err(|_| "interrupted".to_owned())??;
    if unchanged && database.current().is_some() {
        return Ok(());
    }
    let taken = take(state, file).await;
    if taken.is_err() {
        // Otherwise it would pass as unchanged the next time.
        kept.forget(&source.url);
    }
    taken
}

/// Checks what was fetched and uses it, when it is another one and not older.
async fn take(state: &State, file: File) -> Result<(), String> {
    let told = |error: DatabaseError| chain(&error);
    let database = &state.vulnerabilities;
    let arrived = database.receive(tokio::fs::File::from_std(file)).await.map_err(told)?;
    // Until the swarm knows: whoever compares meanwhile would take the old one back.
    let changing = database.change().await;
    let arrived = match database.current() {
        Some(current) if current.digest == arrived.digest => return Ok(()),
        Some(current) => {
            let looked = tokio::task::spawn_blocking(move || (arrived.created(), arrived));
            let (created, arrived) = looked.await.map_err(|_| "interrupted".to_owned())?;
            let (created, current) = (created.map_err(told)?, current.index.created().to_owned());
            // SECURITY: an old one that somebody puts in the new one's place would hide flaws.
            if created < current {
                return Err(format!(
                    "it was made on {created}, before the one that is in use, of {current}"
                ));
            }
            arrived
        }
        None => arrived,
    };
    let loaded = database.install(arrived, &changing).await.map_err(told)?;
    share(state, &loaded).await.map_err(|error| chain(&error))?;
    drop(changing);
    tracing::info!(
        digest = loaded.digest,
        created = loaded.index.created(),
        "fetched a vulnerability database"
    );
    api::announce(state, &loaded);
    Ok(())
}

/// Once for each row of failures.
fn announce_failure(state: &State, source: &DatabaseSource, error: &str) {
    state.engine.events().publish(Event {
        kind: "daemon".to_owned(),
        action: "scan-database-failed".to_owned(),
        actor: Actor {
            id: state.engine_id.clone(),
            attributes: [
                ("url".to_owned(), source.url.clone()),
                ("error".to_owned(), error.to_owned()),
            ]
            .into(),
        },
        scope: "local".to_owned(),
        ..Event::default()
    });
}

/// Nothing is fetched any more: what was kept for it goes. What is in use stays.
fn forget(dir: &Path) {
    let _ = fs::remove_file(dir.join(NOTE));
    let _ = fs::remove_dir_all(dir.join(format!("{KEPT}.feeds")));
}

fn read(path: &Path) -> Option<Attempts> {
    let text = brig_files::read(path, MAX_NOTE).ok().flatten()?;
    serde_json::from_slice(&text).ok()
}

fn write(path: &Path, attempts: &Attempts) -> io::Result<()> {
    brig_files::replace(path, &serde_json::to_vec(attempts)?, 0o600, Durability::Synced)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_800_000_000;

    fn source() -> DatabaseSource {
        DatabaseSource {
            url: "https://a.example/x.db".to_owned(),
            interval: Duration::from_secs(86_400),
        }
    }

    #[test]
    fn the_next_attempt_is_after_the_interval_and_not_for_all_at_once() {
        let mut attempts = Attempts::of(&source(), None, NOW);
        assert_eq!(attempts.next, 0, "the first is at once");
        for chance in [0, 1, 8_639, 8_640, u64::MAX] {
            attempts.worked(NOW, chance);
            assert!((NOW + DAY..NOW + DAY + DAY / 10).contains(&attempts.next), "{chance}");
        }
        let kept = attempts.clone();
        assert_eq!(Attempts::of(&source(), Some(kept.clone()), NOW + 5), kept, "a restart");
        let elsewhere = DatabaseSource { url: "https://b.example/".to_owned(), ..source() };
        assert_eq!(Attempts::of(&elsewhere, Some(kept.clone()), NOW).next, 0);
        let back = Attempts::of(&source(), Some(kept), NOW - 900 * DAY).next;
        assert!(back <= NOW - 900 * DAY + DAY + DAY / 10, "a clock that was wrong");
    }

    #[test]
    fn failures_are_further_and_further_apart_and_end() {
        let mut attempts = Attempts::of(&source(), None, NOW);
        let mut before = 0;
        for count in 1..80 {
            attempts.failed(NOW, 0, "gone");
            let pause = attempts.next - NOW;
            assert!(pause >= before && (60..=4_500).contains(&pause), "{pause}");
            assert_eq!((attempts.failures, attempts.error.as_str()), (count, "gone"));
            before = pause;
        }
        assert_eq!(before, 3_600);
        attempts.worked(NOW, 0);
        assert_eq!((attempts.failures, attempts.error.as_str()), (0, ""));
        let mut often = Attempts { interval: 600, ..Attempts::default() };
        for _ in 0..9 {
            often.failed(NOW, 0, &"x".repeat(9_000));
        }
        assert_eq!(often.next, NOW + 600);
        assert_eq!(often.error.len(), MAX_REASON);
    }
}
