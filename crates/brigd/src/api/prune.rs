//! Removing what nobody uses.

use std::collections::BTreeMap;

use brig_api::container::ContainerSummary;
use brig_api::filters::Filters;
use brig_api::image::ImagesPruneReport;
use brig_api::network::NetworksPruneReport;
use brig_api::system::ContainersPruneReport;
use brig_api::volume::VolumesPruneReport;
use brig_engine::events::kind;
use brig_engine::volumes::VolumeInfo;
use brig_engine::{EngineError, ListOptions, RemoveOptions};
use brig_types::digest::Digest;
use time::OffsetDateTime;

use super::blocking::blocking;
use super::images::{ImageUsers, Selection, report, until};
use super::networks::{is_unused, remove_network};
use crate::server::{ApiError, Call, Response, body};

type Answer = Result<Response, ApiError>;

/// `POST /containers/prune`.
///
/// # Errors
/// Bad filters.
pub async fn containers(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&["label", "label!", "until"])?;
    let until = until(&filters)?;
    let options = ListOptions { all: true, limit: 0, size: true, filters: Filters::default() };
    let mut result = ContainersPruneReport::default();
    for container in call.state.engine.list(options).await? {
        if !matches!(container.state.as_str(), "created" | "exited" | "dead")
            || !selected(&container, &filters, until)
        {
            continue;
        }
        let options = RemoveOptions { force: false, volumes: false };
        match call.state.engine.remove(&container.id, options).await {
            Ok(()) => {
                let freed = container.size_rw.and_then(|size| u64::try_from(size).ok());
                result.space_reclaimed += freed.unwrap_or(0);
                result.containers_deleted.push(container.id);
            }
            // Started or removed by somebody else meanwhile.
            Err(error) => tracing::debug!(%error, "a container was not pruned"),
        }
    }
    pruned(&call, kind::CONTAINER, result.space_reclaimed);
    body::ok(&result)
}

fn selected(
    container: &ContainerSummary,
    filters: &Filters,
    until: Option<OffsetDateTime>,
) -> bool {
    until.is_none_or(|until| container.created < until.unix_timestamp())
        && filters.matches_labels("label", &container.labels)
        && filters.matches_no_label("label!", &container.labels)
}

/// Tells listeners of events that a prune is over.
fn pruned(call: &Call, kind: &str, reclaimed: u64) {
    let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
    call.state.engine.events().emit(kind, "prune", "", attributes);
}

/// `POST /images/prune`: images without a name, or with `dangling=false` all that no container
/// was made from.
///
/// # Errors
/// Bad filters.
pub async fn images(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&["dangling", "label", "label!", "until"])?;
    let dangling_only = filters.boolean("dangling")?.unwrap_or(true);
    // `dangling=false` means "dangling or not" here, other than for lists.
    let others = filters
        .iter()
        .filter(|(key, _)| *key != "dangling")
        .flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
        .fold(Filters::new(), |filters, (key, value)| filters.with(key, value));
    let users = ImageUsers::of(&call.state).await?;
    let store = call.state.engine.images().clone();
    let (deleted, reclaimed) = blocking(move || {
        let selection = Selection::new(&others, |_| Err(ApiError::invalid("no such filter")))?;
        let before = store.layers_size();
        let mut deleted = Vec::new();
        for image in store.list() {
            let named = !image.tags.is_empty() || !image.repo_digests.is_empty();
            if (dangling_only && named)
                || !selection.takes(&image)
                || !users.of_image(&image.id).is_empty()
            {
                continue;
            }
            let in_use = |id: &Digest| users.of_image(id);
            match store.remove(image.id.as_str(), true, false, &in_use) {
                Ok(lines) => deleted.extend(lines),
                Err(error) => tracing::debug!(%error, "an image was not pruned"),
            }
        }
        Ok::<_, ApiError>((deleted, before.saturating_sub(store.layers_size())))
    })
    .await?;
    let images_deleted = report(&call.state, &deleted);
    pruned(&call, kind::IMAGE, reclaimed);
    body::ok(&ImagesPruneReport { images_deleted, space_reclaimed: reclaimed })
}

/// `POST /volumes/prune`.
///
/// # Errors
/// Bad filters.
pub async fn volumes(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&["all", "label", "label!"])?;
    // COMPAT: before 1.42 a prune took named volumes too.
    let all = filters.boolean("all")?.unwrap_or(!call.speaks(1, 42));
    let engine = call.state.engine.clone();
    let result = blocking(move || {
        let mut result = VolumesPruneReport::default();
        for (info, users) in engine.volumes().list() {
            // COMPAT: what has options of its own was set up by somebody and is never pruned.
            let wanted = info.options.is_empty() && (all || info.is_anonymous());
            if !users.is_empty() || !wanted || !takes(&filters, &info) {
                continue;
            }
            let size = super::volumes::tree_size(&info.mountpoint);
            match engine.volumes().remove(&info.name) {
                Ok(()) => {
                    result.space_reclaimed += u64::try_from(size).unwrap_or(0);
                    result.volumes_deleted.push(info.name);
                }
                Err(error) => tracing::debug!(%error, "a volume was not pruned"),
            }
        }
        Ok::<_, EngineError>(result)
    })
    .await?;
    pruned(&call, kind::VOLUME, result.space_reclaimed);
    body::ok(&result)
}

fn takes(filters: &Filters, info: &VolumeInfo) -> bool {
    filters.matches_labels("label", &info.labels)
        && filters.matches_no_label("label!", &info.labels)
}

/// `POST /networks/prune`.
///
/// # Errors
/// Bad filters.
pub async fn networks(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&["label", "label!", "until"])?;
    let until = until(&filters)?;
    let mut result = NetworksPruneReport::default();
    for info in call.state.engine.networks().list() {
        let record = &info.record;
        let old = until.is_none_or(|until| OffsetDateTime::from(record.created()) < until);
        if !old
            || !is_unused(&info)
            || !filters.matches_labels("label", &record.labels)
            || !filters.matches_no_label("label!", &record.labels)
        {
            continue;
        }
        match remove_network(&call.state, record.id.as_str()).await {
            Ok(()) => result.networks_deleted.push(record.name.clone()),
            Err(error) => tracing::debug!(error = error.message(), "a network was not pruned"),
        }
    }
    pruned(&call, kind::NETWORK, 0);
    body::ok(&result)
}
