//! The trust server inside the daemon. Where it keeps what is published follows this node: a file
//! while the node is in no swarm, the cluster's store on a manager, so that every manager serves the
//! same. A worker, and a manager that is locked, serve nothing.

mod cluster;
mod records;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use brig_swarm::{Swarm, SwarmError};
use brig_trust_server::auth::Authentication;
use brig_trust_server::storage::StorageError;
use brig_trust_server::{Config, ImportFailure, Place, ServerError, TrustServer, hand_over};
use brig_types::error::chain;

use crate::config::TrustServerConfig;
use crate::state::{AppState, State};
use cluster::ClusterStorage;

/// How often this node's part in a swarm is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the log repeats what does not work.
const TELL_EVERY: u32 = 120;

/// Listens where the configuration says so. What runs belongs to the daemon's tasks.
///
/// # Errors
/// Files that cannot be used, an address that cannot be had.
pub async fn start(state: &AppState) -> anyhow::Result<()> {
    let Some(config) = state.config.trust_server.clone() else { return Ok(()) };
    let listen = config.listen.clone();
    let opened = tokio::task::spawn_blocking(move || open(config)).await;
    let server = opened.context("its files were not read")??;
    let listener = TrustServer::listen(&listen).await?;
    let address = listener.local_addr().map_or(listen, |address| address.to_string());
    tracing::info!(address, certificate_end = %server.certificate_end(), "serving trust data");
    let place = server.place().clone();
    state.tasks.spawn(server.serve(listener, state.stop.clone()));
    let (following, stop) = (AppState::clone(state), state.stop.clone());
    state.tasks.spawn(async move {
        // Between two steps nothing is half done.
        let _ = stop.run_until_cancelled(follow(&following, &place)).await;
        place.nothing("the daemon is stopping");
    });
    Ok(())
}

fn open(config: TrustServerConfig) -> anyhow::Result<TrustServer> {
    let authentication = config.auth.load()?;
    if matches!(authentication, Authentication::Open) {
        tracing::warn!(
            "everybody who reaches the trust server may publish new repositories and delete any: set auth-htpasswd or auth-token-… in trust-server"
        );
    }
    Ok(TrustServer::new(Config {
        tls: config.tls,
        authentication,
        gun_prefixes: config.gun_prefixes,
        cache: config.cache,
    })?)
}

/// Where trust data is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Where {
    Folder,
    /// In the store of this cluster.
    Cluster(String),
    Nowhere(String),
}

fn wanted(swarm: &Swarm) -> Where {
    match swarm.control() {
        Ok(control) => match control.cluster() {
            Ok(cluster) => Where::Cluster(cluster.id.clone()),
            Err(error) => Where::Nowhere(chain(&error)),
        },
        Err(SwarmError::NotInSwarm) => Where::Folder,
        Err(SwarmError::NotManager) => {
            Where::Nowhere("this node is a swarm's worker: ask one of its managers".to_owned())
        }
        Err(error) => Where::Nowhere(chain(&error)),
    }
}

async fn follow(state: &State, place: &Place) {
    let (mut now, mut failures) = (None, 0_u32);
    loop {
        let wanted = wanted(&state.swarm);
        if now.as_ref() != Some(&wanted) {
            match go(state, place, &wanted).await {
                Ok(()) => (now, failures) = (Some(wanted), 0),
                // Requests that are under way still have the file open.
                Err(error) if is_busy(&error) && failures < TELL_EVERY => failures += 1,
                Err(error) => {
                    if failures.is_multiple_of(TELL_EVERY) {
                        tracing::error!(error = format!("{error:#}"), "no trust data is served");
                    }
                    now = None;
                    failures = failures.saturating_add(1);
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    let is_in_use =
        |error: &ServerError| matches!(error, ServerError::Storage(StorageError::InUse(_)));
    error.downcast_ref::<ServerError>().is_some_and(is_in_use)
        || matches!(error.downcast_ref::<ImportFailure>(), Some(ImportFailure::Open(error)) if is_in_use(error))
}

async fn go(state: &State, place: &Place, wanted: &Where) -> anyhow::Result<()> {
    let Some(config) = &state.config.trust_server else { return Ok(()) };
    let (folder, seal_key) = (config.folder.clone(), config.seal_key.clone());
    match wanted {
        Where::Nowhere(reason) => {
            place.nothing(reason.clone());
            Ok(())
        }
        Where::Folder => {
            place.nothing("the trust data is being opened");
            let place = place.clone();
            let opening =
                tokio::task::spawn_blocking(move || place.folder(&folder, seal_key.as_deref()));
            Ok(opening.await??)
        }
        Where::Cluster(_) => {
            place.nothing("the trust data is being moved into the cluster's store");
            let runtime = tokio::runtime::Handle::current();
            let storage = Arc::new(ClusterStorage::new(state.swarm.clone(), runtime));
            let to = Arc::clone(&storage);
            let moving =
                tokio::task::spawn_blocking(move || hand_over(&folder, seal_key.as_deref(), to));
            let moved = moving.await??;
            for gun in &moved.conflicts {
                tracing::warn!(%gun, "the cluster has a repository of that name: it is served; this node's own stays in the file");
            }
            if let Some(file) = moved.file {
                tracing::info!(repositories = moved.repositories, aside = %file.display(), "the trust data is in the cluster's store now");
            }
            place.shared(storage);
            Ok(())
        }
    }
}
