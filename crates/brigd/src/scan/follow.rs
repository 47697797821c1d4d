//! One database for all managers: who gets a new one tells the others which file it is, and they
//! fetch it. Workers fetch it from managers once there is a policy that it is needed for.

use std::sync::Arc;
use std::time::Duration;

use brig_proto::brig::ScanDatabase;
use brig_store::{Change, Object};
use brig_swarm::{Control, ControlError, LocalNodeState};
use brig_types::error::{Categorized as _, ErrorKind, chain};
use tokio::sync::MutexGuard;

use super::database::{Loaded, MAX_DATABASE};
use crate::admission::policies::Scope;
use crate::state::{AppState, State};
use crate::swarm::local;

/// How often this node looks whether it has become a manager, or whether a file can be had now.
const PAUSE: Duration = Duration::from_secs(3);
/// How often a worker looks whether the swarm has another one.
const WORKER_PAUSE: Duration = Duration::from_secs(15);
/// How often a commit is tried that somebody else's came before.
const ATTEMPTS: usize = 10;

/// Keeps this node's database and the cluster's the same until the daemon stops.
pub async fn follow(state: AppState) {
    let stop = state.stop.clone();
    let _ = stop.run_until_cancelled(run(&state)).await;
}

async fn run(state: &State) {
    let mut changed = state.vulnerabilities.watch();
    let mut complained = String::new();
    loop {
        if let Ok(control) = local::control(state) {
            // Before the object is read, so that no change is missed.
            let mut commits = control.watch();
            control.offer_scan_files(state.vulnerabilities.dir().to_owned());
            match agree(state, &control).await {
                Ok(()) => complained.clear(),
                Err(error) if error == complained => {}
                Err(error) => {
                    tracing::warn!(%error, "the swarm's vulnerability database is not here yet");
                    complained = error;
                }
            }
            let news = async {
                while let Ok(commit) = commits.next().await {
                    if commit.changes.iter().any(is_about_it) {
                        return;
                    }
                }
                // The swarm was left, or this is no manager any more.
                tokio::time::sleep(PAUSE).await;
            };
            tokio::select! {
                () = news => {}
                _ = changed.changed() => {}
                () = tokio::time::sleep(PAUSE * 4), if complained.is_empty() => {}
                () = tokio::time::sleep(PAUSE), if !complained.is_empty() => {}
            }
        } else {
            let pause = match as_worker(state).await {
                Ok(pause) => {
                    complained.clear();
                    pause
                }
                Err(error) => {
                    if error != complained {
                        tracing::warn!(%error, "the swarm's vulnerability database is not here yet");
                        complained = error;
                    }
                    WORKER_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// What a node does that is no manager; answers when to look again.
async fn as_worker(state: &State) -> Result<Duration, String> {
    if state.swarm.status().local_node_state != LocalNodeState::Active {
        return Ok(PAUSE);
    }
    // Without a policy nothing is judged.
    let policy = state.admission.policies.find("scan").await.ok().flatten();
    if policy.is_none_or(|policy| policy.scope != Scope::Swarm) {
        return Ok(WORKER_PAUSE);
    }
    let wanted = match state.swarm.scan_database().await {
        Ok(Some(wanted)) => wanted,
        // What somebody gave to this engine counts where the swarm has none.
        Ok(None) => return Ok(WORKER_PAUSE),
        Err(error) if matches!(error.kind(), ErrorKind::NotImplemented | ErrorKind::Forbidden) => {
            // Managers of before workers were given any.
            return Ok(WORKER_PAUSE);
        }
        Err(error) => return Err(chain(&error)),
    };
    let changing = state.vulnerabilities.change().await;
    take_over(state, &wanted, &changing).await?;
    Ok(WORKER_PAUSE)
}

fn is_about_it(change: &Change) -> bool {
    let (Change::Created(object) | Change::Removed(object) | Change::Updated { new: object, .. }) =
        change;
    matches!(object, Object::ScanDatabase(_))
}

/// Takes the cluster's over, or gives the cluster this node's where it has none.
async fn agree(state: &State, control: &Control) -> Result<(), String> {
    let database = &state.vulnerabilities;
    let changing = database.change().await;
    let Some(wanted) = control.scan_database() else {
        if let Some(own) = database.current() {
            match control.put_scan_database(record(&own), 0).await {
                Ok(_) | Err(ControlError::OutOfSequence) => {}
                Err(error) => return Err(chain(&error)),
            }
        }
        return Ok(());
    };
    take_over(state, &wanted, &changing).await
}

/// Fetches the cluster's from a manager, unless it is here; what is here is used until then.
async fn take_over(
    state: &State,
    wanted: &ScanDatabase,
    changing: &MutexGuard<'_, ()>,
) -> Result<(), String> {
    let database = &state.vulnerabilities;
    if database.current().is_some_and(|own| own.digest == wanted.digest) {
        return Ok(());
    }
    if wanted.size > MAX_DATABASE {
        return Err(format!("it is larger than {MAX_DATABASE} bytes"));
    }
    let path = database.incoming();
    state.swarm.fetch_scan_file(wanted, &path).await.map_err(|error| chain(&error))?;
    let arrived = database.adopt(path, wanted.digest.clone());
    let loaded = database.install(arrived, changing).await.map_err(|error| chain(&error))?;
    tracing::info!(
        digest = loaded.digest,
        created = loaded.index.created(),
        "took the swarm's vulnerability database over"
    );
    Ok(())
}

/// Tells the cluster that this is the one from now on. Does nothing on a node that is no manager.
///
/// # Errors
/// What the store says.
pub(super) async fn share(state: &State, loaded: &Arc<Loaded>) -> Result<(), ControlError> {
    let Ok(control) = local::control(state) else { return Ok(()) };
    let mut attempt = 1;
    loop {
        let version = control.scan_database().map_or(0, |stored| {
            stored.meta.as_ref().and_then(|meta| meta.version).map_or(0, |version| version.index)
        });
        match control.put_scan_database(record(loaded), version).await {
            Err(ControlError::OutOfSequence) if attempt < ATTEMPTS => attempt += 1,
            other => return other.map(drop),
        }
    }
}

fn record(loaded: &Loaded) -> ScanDatabase {
    ScanDatabase {
        digest: loaded.digest.clone(),
        size: u64::try_from(loaded.index.size()).unwrap_or(u64::MAX),
        created: loaded.index.created().to_owned(),
        received: loaded.received,
        ..ScanDatabase::default()
    }
}
