//! Images of this node: list, look at, name, remove.

use std::collections::BTreeMap;
use std::sync::Arc;

use brig_api::container::{ContainerConfig, ContainerSummary, GraphDriver};
use brig_api::filters::Filters;
use brig_api::image::{
    HistoryItem, ImageDeleteItem, ImageInspect, ImageMetadata, ImageSummary, RootFs,
};
use brig_api::time::{rfc3339nano, zero};
use brig_engine::events::kind;
use brig_image::{ContainerUse, Deleted, Image};
use brig_types::digest::Digest;
use brig_types::error::{Categorized, ErrorKind};
use brig_types::reference::Reference;
use http::StatusCode;
use time::OffsetDateTime;

use super::blocking::blocking;
use super::{glob, times};
use crate::server::body;
use crate::server::{ApiError, Call, Response};
use crate::state::AppState;

const LIST_FILTERS: [&str; 7] =
    ["before", "dangling", "label", "label!", "reference", "since", "until"];

/// `GET /images/json`.
///
/// # Errors
/// Bad filters.
pub async fn list(call: Call) -> Result<Response, ApiError> {
    let filters = call.query.filters()?;
    filters.check_keys(&LIST_FILTERS)?;
    let store = call.state.engine.images().clone();
    let shared_size = call.query.flag("shared-size");
    let selection =
        Selection::new(&filters, |name| store.resolve(name).map(|image| image.created()))?;
    let mut images: Vec<ImageSummary> = store
        .list()
        .into_iter()
        .filter(|image| selection.takes(image))
        .map(|image| {
            let shared = if shared_size { size(store.shared_size(&image)) } else { -1 };
            let shown = selection.shown(&image);
            ImageSummary { shared_size: shared, ..summary(&shown, &call) }
        })
        .collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    body::ok(&images)
}

/// The image as lists show it, without what needs counting.
pub(super) fn summary(image: &Image, call: &Call) -> ImageSummary {
    let mut tags: Vec<String> = image.tags.iter().map(Reference::familiar).collect();
    let mut digests: Vec<String> = image.repo_digests.iter().map(Reference::familiar).collect();
    // COMPAT: older clients find dangling images by these words.
    if tags.is_empty() && digests.is_empty() && !call.speaks(1, 43) {
        tags.push("<none>:<none>".to_owned());
        digests.push("<none>@<none>".to_owned());
    }
    ImageSummary {
        containers: -1,
        created: image.created().unix_timestamp(),
        id: image.id.to_string(),
        labels: image.config.config.labels.clone(),
        parent_id: String::new(),
        repo_digests: digests,
        repo_tags: tags,
        shared_size: -1,
        size: size(image.size),
        virtual_size: (!call.speaks(1, 44)).then(|| size(image.size)),
    }
}

fn is_compose_1(agent: &str) -> bool {
    agent.starts_with("docker-compose/1.")
}

pub(super) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Which images a list or prune is about.
pub(super) struct Selection<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<OffsetDateTime>,
    since: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
}

impl<'a> Selection<'a> {
    pub(super) fn new<E: Into<ApiError>>(
        filters: &'a Filters,
        created: impl Fn(&str) -> Result<OffsetDateTime, E>,
    ) -> Result<Self, ApiError> {
        let mut before: Option<OffsetDateTime> = None;
        for name in filters.get("before") {
            let time = created(name).map_err(Into::into)?;
            before = Some(before.map_or(time, |known| known.min(time)));
        }
        let mut since: Option<OffsetDateTime> = None;
        for name in filters.get("since") {
            let time = created(name).map_err(Into::into)?;
            since = Some(since.map_or(time, |known| known.max(time)));
        }
        Ok(Self {
            filters,
            dangling: filters.boolean("dangling")?,
            before,
            since,
            until: until(filters)?,
        })
    }

    pub(super) fn takes(&self, image: &Image) -> bool {
        let created = image.created();
        let labels = &image.config.config.labels;
        let dangling = image.tags.is_empty() && image.repo_digests.is_empty();
        self.dangling.is_none_or(|wanted| wanted == dangling)
            && self.before.is_none_or(|time| created < time)
            && self.since.is_none_or(|time| created > time)
            && self.until.is_none_or(|time| created < time)
            && self.filters.matches_labels("label", labels)
            && self.filters.matches_no_label("label!", labels)
            && self.matches_reference(image)
    }

    fn matches_reference(&self, image: &Image) -> bool {
        !self.filters.contains("reference")
            || image.tags.iter().chain(&image.repo_digests).any(|name| self.takes_name(name))
    }

    fn takes_name(&self, name: &Reference) -> bool {
        !self.filters.contains("reference")
            || self.filters.get("reference").any(|pattern| {
                glob::matches(pattern, &name.familiar())
                    || glob::matches(pattern, &name.familiar_name())
                    || glob::matches(pattern, &name.to_string())
            })
    }

    /// The image with those of its names that were asked for.
    fn shown(&self, image: &Image) -> Image {
        let mut shown = image.clone();
        shown.tags.retain(|name| self.takes_name(name));
        shown.repo_digests.retain(|name| self.takes_name(name));
        shown
    }
}

/// The `until` filter of lists and prunes.
pub(super) fn until(filters: &Filters) -> Result<Option<OffsetDateTime>, ApiError> {
    let mut values = filters.get("until");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => times::timestamp(text, OffsetDateTime::now_utc()).map(Some),
        (Some(_), Some(_)) => Err(ApiError::invalid("more than one until filter specified")),
    }
}

/// `GET /images/{name}/json`.
///
/// # Errors
/// No such image.
pub async fn inspect(call: Call) -> Result<Response, ApiError> {
    let store = call.state.engine.images();
    let name = call.param("name");
    let image = store.resolve(name).map_err(|error| not_found_twice(name, error))?;
    let layers = store.snapshots().mounted_layers(&image);
    let mut paths = layers.iter().map(|path| path.display().to_string());
    let mut data = BTreeMap::new();
    if let Some(upper) = paths.next() {
        data.insert("UpperDir".to_owned(), upper);
        let lower = paths.collect::<Vec<_>>().join(":");
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower);
        }
    }
    let config: ContainerConfig =
        serde_json::to_value(&image.config.config).and_then(serde_json::from_value).map_err(
            |error| ApiError::system(format!("cannot convert the image's configuration: {error}")),
        )?;
    let old = !call.speaks(1, 44);
    // COMPAT: docker-compose 1.x asks in the newest version there is, and carries volumes over to
    // another container by a field that ended with 1.44.
    let container_config = if call.header("user-agent").is_some_and(is_compose_1) {
        Some(config.clone())
    } else {
        old.then(ContainerConfig::default)
    };
    body::ok(&ImageInspect {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().map(Reference::familiar).collect(),
        repo_digests: image.repo_digests.iter().map(Reference::familiar).collect(),
        parent: String::new(),
        comment: image.config.comment.clone(),
        created: image.config.created.clone().unwrap_or_else(zero),
        container: old.then(String::new),
        container_config,
        docker_version: image.config.docker_version.clone(),
        author: image.config.author.clone(),
        config: Some(config),
        architecture: image.architecture().to_owned(),
        variant: image.config.variant.clone(),
        os: image.os().to_owned(),
        size: size(image.size),
        virtual_size: old.then(|| size(image.size)),
        graph_driver: GraphDriver { data, name: "overlay2".to_owned() },
        root_fs: RootFs {
            kind: "layers".to_owned(),
            layers: image.layers.iter().map(Digest::to_string).collect(),
        },
        metadata: ImageMetadata { last_tag_time: image.last_tagged.map_or_else(zero, rfc3339nano) },
        descriptor: None,
    })
}

/// docker's inspect says it twice, and clients look for the second half.
fn not_found_twice(name: &str, error: brig_image::ImageError) -> ApiError {
    match error.kind() {
        ErrorKind::NotFound => ApiError::not_found(format!("no such image: {name}: {error}")),
        _ => error.into(),
    }
}

/// `GET /images/{name}/history`.
///
/// # Errors
/// No such image.
pub async fn history(call: Call) -> Result<Response, ApiError> {
    let store = call.state.engine.images();
    let image = store.resolve(call.param("name"))?;
    let items: Vec<HistoryItem> = store
        .history(&image)
        .into_iter()
        .map(|entry| HistoryItem {
            id: entry.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
            created: entry.created.unix_timestamp(),
            created_by: entry.created_by,
            tags: entry.tags.iter().map(Reference::familiar).collect(),
            size: size(entry.size),
            comment: entry.comment,
        })
        .collect();
    body::ok(&items)
}

/// `POST /images/{name}/tag`.
///
/// # Errors
/// No such image, a malformed name.
pub async fn tag(call: Call) -> Result<Response, ApiError> {
    let target =
        reference(call.query.text("repo").unwrap_or_default(), call.query.non_empty("tag"))?
            .with_default_tag();
    if target.familiar().starts_with("sha256:") {
        return Err(ApiError::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    let (store, source) = (call.state.engine.images().clone(), call.param("name").to_owned());
    let name = target.clone();
    let id = blocking(move || store.tag(&source, &name)).await?;
    emit(&call.state, "tag", id.as_str(), &target.familiar());
    Ok(body::empty(StatusCode::CREATED))
}

/// A repository and a tag or digest, as queries give them apart.
pub(crate) fn reference(repository: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let invalid =
        |error: brig_types::reference::InvalidReference| ApiError::invalid(error.to_string());
    let reference = Reference::parse(repository).map_err(invalid)?;
    match tag {
        None => Ok(reference),
        Some(tag) if tag.contains(':') => Digest::parse(tag)
            .map(|digest| reference.repository().with_digest(digest))
            .map_err(|error| ApiError::invalid(error.to_string())),
        Some(tag) => reference.with_tag(tag).map_err(invalid),
    }
}

/// `DELETE /images/{name}`.
///
/// # Errors
/// No such image, or containers use it.
pub async fn remove(call: Call) -> Result<Response, ApiError> {
    let name = call.param("name").to_owned();
    let (force, no_prune) = (call.query.flag("force"), call.query.flag("noprune"));
    let users = ImageUsers::of(&call.state).await?;
    let store = call.state.engine.images().clone();
    let deleted =
        blocking(move || store.remove(&name, force, no_prune, &|id: &Digest| users.of_image(id)))
            .await?;
    body::ok(&report(&call.state, &deleted))
}

/// The lines of a removal, told as events too.
pub(super) fn report(state: &AppState, deleted: &[Deleted]) -> Vec<ImageDeleteItem> {
    deleted
        .iter()
        .map(|line| match line {
            Deleted::Untagged(reference) => {
                let name = reference.familiar();
                emit(state, "untag", &name, &name);
                ImageDeleteItem { untagged: Some(name), deleted: None }
            }
            Deleted::Deleted(id) => {
                if state.engine.images().resolve(id.as_str()).is_err() {
                    emit(state, "delete", id.as_str(), id.as_str());
                }
                ImageDeleteItem { untagged: None, deleted: Some(id.to_string()) }
            }
        })
        .collect()
}

/// Tells what happened to an image.
pub(super) fn emit(state: &AppState, action: &str, id: &str, name: &str) {
    let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    state.engine.events().emit(kind::IMAGE, action, id, attributes);
}

/// Which containers were made from which image.
pub(super) struct ImageUsers(Arc<[ContainerSummary]>);

impl ImageUsers {
    pub(super) async fn of(state: &AppState) -> Result<Self, ApiError> {
        Ok(Self(super::containers::all(state).await?.into()))
    }

    pub(super) fn of_image(&self, id: &Digest) -> Vec<ContainerUse> {
        self.0
            .iter()
            .filter(|container| container.image_id == id.as_str())
            .map(|container| ContainerUse {
                id: container.id.clone(),
                running: matches!(container.state.as_str(), "running" | "paused" | "restarting"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_two_parts() {
        let digest = format!("sha256:{}", "1".repeat(64));
        for (repository, tag, expected) in [
            ("docker.io/library/b", Some("1"), "docker.io/library/b:1".to_owned()),
            ("b:2", None, "docker.io/library/b:2".to_owned()),
            ("b:2", Some("3"), "docker.io/library/b:3".to_owned()),
            ("h:5000/b", Some(&digest), format!("h:5000/b@{digest}")),
        ] {
            assert_eq!(reference(repository, tag).unwrap().to_string(), expected);
        }
        for (repository, tag) in [("B", None), ("", None), ("b", Some("a b")), ("b", Some("x:y"))] {
            assert!(reference(repository, tag).is_err(), "{repository} {tag:?}");
        }
    }

    #[test]
    fn until_is_one_time() {
        let filters = Filters::parse(r#"{"until":["1704067200"]}"#).unwrap();
        assert_eq!(until(&filters).unwrap().unwrap().unix_timestamp(), 1_704_067_200);
        assert!(until(&Filters::parse(r#"{"until":["1","2"]}"#).unwrap()).is_err());
        assert!(until(&Filters::parse(r#"{"until":["x"]}"#).unwrap()).is_err());
        assert_eq!(until(&Filters::default()).unwrap(), None);
    }
}
