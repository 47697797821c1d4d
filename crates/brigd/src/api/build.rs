//! `POST /build`: the classic builder's API.

use std::collections::BTreeMap;

use brig_api::auth::{CONFIG_HEADER, RegistryAuth, configs_from_header};
use brig_api::progress::{ErrorDetail, JsonMessage};
use brig_image::{Credentials, Progress};
use brig_types::reference::{DEFAULT_DOMAIN, Reference};
use tokio::sync::mpsc;

use super::image_transfer::credentials_of;
use super::images::emit;
use super::progress::{self, Lines};
use crate::build::request::BuildRequest;
use crate::build::{BuildError, Told};
use crate::server::{ApiError, Call, Response, body};
use crate::state::AppState;

type Answer = Result<Response, ApiError>;

/// The name under which clients keep Docker Hub's credentials.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const TOLD: usize = 64;

/// Builds from the tar in the body.
///
/// # Errors
/// A malformed query, no builder; what fails later is the stream's last line.
pub async fn build(mut call: Call) -> Answer {
    let request = BuildRequest::read(&call.query)?;
    let auths = match call.header(CONFIG_HEADER) {
        Some(text) => configs_from_header(text)?,
        None => BTreeMap::new(),
    };
    let reader = call.reader();
    let state = call.state.clone();
    let context = state.engine.images().build_context(reader).await?;
    let bases = state.builder.base_images(&context, &request)?;
    progress::stream(&call.state, move |lines| async move {
        let work = async {
            let quiet = request.quiet;
            fetch(&state, &request, &bases, &auths, &lines).await?;
            // What a build runs is run here too.
            for base in &bases {
                for warning in state.admission.judge_local(base).await? {
                    lines.send(JsonMessage::stream(format!("Warning: {warning}\n"))).await;
                }
            }
            let (told, mut telling) = mpsc::channel(TOLD);
            let forward = async {
                while let Some(Told::Text(text)) = telling.recv().await {
                    if !quiet {
                        lines.send(JsonMessage::stream(text)).await;
                    }
                }
            };
            let networks = state.engine.networks();
            let images = state.engine.images();
            let build = state.builder.build(images, networks, context, &request, &bases, told);
            let (id, ()) = tokio::join!(build, forward);
            id
        };
        let id = match work.await {
            Ok(id) => id,
            Err(BuildError::Failed { message, code }) => {
                let detail = ErrorDetail { code, message: message.clone() };
                let line = JsonMessage {
                    error_detail: Some(detail),
                    error: message,
                    ..JsonMessage::default()
                };
                lines.send(line).await;
                return Ok(());
            }
            Err(error) => {
                lines.send(JsonMessage::error(0, brig_types::error::chain(&error))).await;
                return Ok(());
            }
        };
        emit(&state, "build", id.as_str(), id.as_str());
        lines
            .send(JsonMessage {
                aux: Some(serde_json::json!({ "ID": id.as_str() })),
                ..JsonMessage::default()
            })
            .await;
        if request.quiet {
            lines.send(JsonMessage::stream(format!("{id}\n"))).await;
        } else {
            lines.send(JsonMessage::stream(format!("Successfully built {}\n", id.short()))).await;
        }
        for tag in &request.tags {
            let (store, source, name) =
                (state.engine.images().clone(), id.to_string(), tag.clone());
            super::blocking::blocking(move || store.tag(&source, &name)).await?;
            emit(&state, "tag", id.as_str(), &tag.familiar());
            if !request.quiet {
                let text = format!("Successfully tagged {}\n", tag.familiar());
                lines.send(JsonMessage::stream(text)).await;
            }
        }
        Ok(())
    })
    .await
}

/// Pulls the base images that are not here, or all with `pull`.
async fn fetch(
    state: &AppState,
    request: &BuildRequest,
    bases: &[String],
    auths: &BTreeMap<String, RegistryAuth>,
    lines: &Lines,
) -> Result<(), BuildError> {
    let images = state.engine.images();
    for base in bases {
        let here = images.resolve(base);
        if here.is_ok() && !request.pull {
            continue;
        }
        let Ok(reference) = Reference::parse(base) else {
            here?;
            continue;
        };
        let (quiet, lines) = (request.quiet, lines.clone());
        let report = move |step: Progress| {
            if !quiet {
                lines.report(&step);
            }
        };
        let credentials = credentials(auths, &reference);
        match images.pull(&reference, request.platform.clone(), credentials, &report).await {
            Ok(_) => emit(state, "pull", &reference.familiar(), &reference.familiar_name()),
            // Something that was only built here, or an id.
            Err(_) if here.is_ok() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn credentials(
    auths: &BTreeMap<String, RegistryAuth>,
    reference: &Reference,
) -> Option<Credentials> {
    let key = match reference.domain() {
        DEFAULT_DOMAIN => HUB_KEY,
        domain => domain,
    };
    let auth = auths.get(key).filter(|auth| !auth.is_anonymous())?;
    Some(credentials_of(auth))
}

/// `POST /build/prune`: throws the build cache away.
///
/// # Errors
/// While something is built.
pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    if let Some((key, _)) = filters.iter().next() {
        return Err(ApiError::not_implemented(format!(
            "the build cache is kept as a whole: it can't be pruned by {key:?}"
        )));
    }
    let size = call.state.builder.prune().await?;
    let deleted = (size > 0).then(|| vec!["buildah"]);
    body::ok(&serde_json::json!({ "CachesDeleted": deleted, "SpaceReclaimed": size }))
}

/// `POST /build/cancel`: a build ends when its client hangs up.
///
/// # Errors
/// Always 501.
pub async fn cancel(_: Call) -> Answer {
    Err(ApiError::not_implemented("a build ends when its client hangs up"))
}
