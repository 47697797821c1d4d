//! Images on their way out: save, push; and images of containers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brig_api::container::ContainerConfig;
use brig_api::progress::JsonMessage;
use brig_engine::CommitRequest;
use brig_image::{ImageError, Progress};
use futures_util::stream;
use http::{HeaderValue, StatusCode};

use super::blocking::blocking;
use super::image_transfer::{credentials, platform};
use super::images::{emit, reference};
use super::progress;
use crate::server::{ApiError, Call, Response, body};

type Answer = Result<Response, ApiError>;

const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");

/// `GET /images/get` and `GET /images/{name}/get`.
///
/// # Errors
/// No such image. An error after the first bytes cuts the connection.
pub async fn save(call: Call) -> Answer {
    let mut names: Vec<String> = call.query.all("names").map(str::to_owned).collect();
    let name = call.param("name");
    if !name.is_empty() {
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return Err(ApiError::invalid("no image was named"));
    }
    let wanted = call.query.all("platform").map(platform).collect::<Result<Vec<_>, _>>()?;
    let store = call.state.engine.images().clone();
    let save = blocking(move || {
        let save = store.save(&names)?;
        for (id, _) in save.images() {
            let actual = store.resolve(id.as_str())?.config.platform();
            if let Some(wanted) = wanted.iter().find(|p| p.accepts(&actual).is_none()) {
                return Err(ImageError::WrongPlatform {
                    reference: id.short().to_owned(),
                    wanted: wanted.to_string(),
                    actual: actual.to_string(),
                });
            }
        }
        Ok(save)
    })
    .await?;
    for (id, tags) in save.images() {
        let name = tags.first().map_or_else(|| id.to_string(), |tag| tag.familiar());
        emit(&call.state, "save", id.as_str(), &name);
    }
    let mut pieces = save.stream();
    let items = stream::poll_fn(move |context| {
        pieces.poll_recv(context).map(|piece| {
            piece.map(|piece| {
                piece.map_err(|error| {
                    tracing::error!(%error, "saving an image broke off");
                    error.into()
                })
            })
        })
    });
    Ok(body::stream(Some(TAR), items, call.state.stop.clone()))
}

/// `POST /images/{name}/push`: one tag, or without `tag` all of the repository.
///
/// # Errors
/// A malformed name; what the registry says is the stream's last line.
pub async fn push(call: Call) -> Answer {
    let name = reference(call.param("name"), call.query.non_empty("tag"))?;
    let credentials = credentials(&call)?;
    if let Some(wanted) = call.query.non_empty("platform").map(platform).transpose()? {
        let image = call.state.engine.images().resolve(&name.familiar())?;
        let actual = image.config.platform();
        if wanted.accepts(&actual).is_none() {
            return Err(ApiError::not_found(format!(
                "image with reference {} was found but does not match the specified platform: \
                 wanted {wanted}, actual: {actual}",
                name.familiar()
            )));
        }
    }
    let state = call.state.clone();
    progress::stream(&call.state, move |lines| async move {
        let sink_lines = lines.clone();
        let begun = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&begun);
        let sink = move |step: Progress| {
            told.store(true, Ordering::Relaxed);
            sink_lines.report(&step);
        };
        match state.engine.images().push(&name, credentials, &sink).await {
            Ok(pushed) => {
                for pushed in pushed {
                    let full = pushed.reference.familiar();
                    emit(&state, "push", &full, &pushed.reference.familiar_name());
                }
                Ok(())
            }
            Err(error) if begun.load(Ordering::Relaxed) => {
                let message = brig_types::error::chain(&error);
                lines.send(JsonMessage::error(0, message)).await;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// `POST /commit`.
///
/// # Errors
/// No such container, a malformed name, wrong directives.
pub async fn commit(mut call: Call) -> Answer {
    let config: Option<ContainerConfig> = call.json().await?;
    let name = match call.query.non_empty("repo") {
        Some(name) => Some(reference(name, call.query.non_empty("tag"))?.with_default_tag()),
        None => None,
    };
    let text = |key: &str| call.query.text(key).unwrap_or_default().to_owned();
    let request = CommitRequest {
        container: text("container"),
        reference: name,
        author: text("author"),
        message: text("comment"),
        pause: call.query.flag_or("pause", true),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        config,
    };
    let id = call.state.engine.commit(request).await?;
    body::json(StatusCode::CREATED, &serde_json::json!({ "Id": id.as_str() }))
}
