//! Volumes.

use std::path::PathBuf;

use brig_api::filters::Filters;
use brig_api::time::rfc3339nano;
use brig_api::volume::{UsageData, Volume, VolumeCreateRequest, VolumeListResponse};
use brig_engine::events::kind;
use brig_engine::volumes::{LOCAL_DRIVER, VolumeInfo};
use brig_types::error::ErrorKind;
use http::StatusCode;

use super::blocking::blocking;
use crate::access::{Action, object};
use crate::server::body;
use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

const LIST_FILTERS: [&str; 4] = ["dangling", "driver", "label", "name"];

/// `GET /volumes`.
///
/// # Errors
/// Bad filters.
pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&LIST_FILTERS)?;
    let dangling = filters.boolean("dangling")?;
    let engine = call.state.engine.clone();
    let found = blocking(move || Ok::<_, ApiError>(engine.volumes().list())).await?;
    let volumes = found
        .into_iter()
        .filter(|(info, users)| {
            dangling.is_none_or(|wanted| wanted == users.is_empty()) && matches(&filters, info)
        })
        .filter(|(info, _)| call.authorized.may(Action::VolumeInspect, &object::of_volume(info)))
        .map(|(info, _)| volume(&info))
        .collect();
    body::ok(&VolumeListResponse { volumes, warnings: Vec::new() })
}

fn matches(filters: &Filters, info: &VolumeInfo) -> bool {
    filters.matches_exactly("driver", LOCAL_DRIVER)
        && filters.matches_labels("label", &info.labels)
        && filters.matches_part("name", &info.name)
}

fn volume(info: &VolumeInfo) -> Volume {
    Volume {
        created_at: rfc3339nano(info.created),
        driver: LOCAL_DRIVER.to_owned(),
        labels: info.labels.clone(),
        mountpoint: info.mountpoint.display().to_string(),
        name: info.name.clone(),
        options: info.options.clone(),
        scope: "local".to_owned(),
        ..Volume::default()
    }
}

/// `POST /volumes/create`.
///
/// # Errors
/// A bad name, an unknown driver, options that the name's volume doesn't have.
pub async fn create(mut call: Call) -> Answer {
    let request: VolumeCreateRequest = call.json().await?.unwrap_or_default();
    if request.cluster_volume_spec.is_some() {
        return Err(ApiError::not_implemented("cluster volumes are not available in this version"));
    }
    let engine = call.state.engine.clone();
    let (info, created) = blocking(move || {
        let VolumeCreateRequest { name, driver, driver_opts, labels, .. } = request;
        engine.volumes().create(&name, &driver, &driver_opts, &labels)
    })
    .await?;
    if created {
        emit(&call, "create", &info.name);
    }
    body::json(StatusCode::CREATED, &volume(&info))
}

fn emit(call: &Call, action: &str, name: &str) {
    let attributes = [("driver".to_owned(), LOCAL_DRIVER.to_owned())].into();
    call.state.engine.events().emit(kind::VOLUME, action, name, attributes);
}

/// `GET /volumes/{name}`.
///
/// # Errors
/// No such volume.
pub async fn inspect(call: Call) -> Answer {
    let (engine, name) = (call.state.engine.clone(), call.param("name").to_owned());
    // A mount that hangs, of a server that is gone, holds up all volumes but nothing else.
    body::ok(&volume(&blocking(move || engine.volumes().get(&name)).await?))
}

/// `PUT /volumes/{name}`: only volumes of the cluster can be changed, and there are none.
///
/// # Errors
/// Always: this node is no manager, the version is no number, or the cluster has no such volume.
pub async fn update(call: Call) -> Answer {
    if !call.state.swarm.status().control_available {
        return Err(ApiError::new(
            ErrorKind::Unavailable,
            "volume update only valid for cluster volumes, but swarm is unavailable",
        ));
    }
    crate::swarm::required_version(&call.query, "swarm object")?;
    Err(ApiError::not_found(format!("volume {} not found", call.param("name"))))
}

/// `DELETE /volumes/{name}`.
///
/// # Errors
/// No such volume (unless `force` is given), or containers have it.
pub async fn remove(call: Call) -> Answer {
    let (engine, name) = (call.state.engine.clone(), call.param("name").to_owned());
    let removed = blocking(move || engine.volumes().remove(&name)).await;
    match removed {
        Ok(()) => emit(&call, "destroy", call.param("name")),
        Err(error) if error.status() == StatusCode::NOT_FOUND && call.query.flag("force") => {}
        Err(error) => return Err(error),
    }
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// Volumes with their use of the disk. Walks their files.
pub(super) async fn with_usage(call: &Call) -> Result<Vec<Volume>, ApiError> {
    let engine = call.state.engine.clone();
    blocking(move || {
        let list = engine.volumes().list();
        Ok::<_, ApiError>(
            list.into_iter()
                .map(|(info, users)| {
                    let usage = UsageData {
                        ref_count: i64::try_from(users.len()).unwrap_or(i64::MAX),
                        size: tree_size(&info.mountpoint),
                    };
                    Volume { usage_data: Some(usage), ..volume(&info) }
                })
                .collect(),
        )
    })
    .await
}

/// Bytes that the files below a directory take, hard links once for each name.
pub(super) fn tree_size(root: &std::path::Path) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut total: u64 = 0;
    let mut pending: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        // What vanishes meanwhile takes no space.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else {
                total = total.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
    }
    i64::try_from(total).unwrap_or(i64::MAX)
}
