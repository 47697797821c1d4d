//! Containers: make, look at, start, stop, remove.

use brig_api::container::{ContainerCreateRequest, ContainerSummary, HostConfig, UpdateRequest};
use brig_engine::{ListOptions, RemoveOptions, StartOptions};
use http::StatusCode;

use super::defaults;
use crate::access::{Action, lend, mask, object};
use crate::server::body;
use crate::server::{ApiError, Call, Response};
use crate::state::AppState;

type Answer = Result<Response, ApiError>;

/// `GET /containers/json`.
///
/// # Errors
/// Bad filters.
pub async fn list(call: Call) -> Answer {
    let limit = call.query.number::<i64>("limit")?;
    let options = ListOptions {
        all: call.query.flag("all"),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
        size: call.query.flag("size"),
        filters: call.query.filters()?,
    };
    let mut list = call.state.engine.list(options).await?;
    list.retain(|found| call.authorized.may(Action::ContainerInspect, &object::summary(found)));
    body::ok(&list)
}

/// All containers, running or not.
pub(super) async fn all(state: &AppState) -> Result<Vec<ContainerSummary>, ApiError> {
    let options = ListOptions { all: true, ..ListOptions::default() };
    Ok(state.engine.list(options).await?)
}

/// `POST /containers/create`.
///
/// # Errors
/// A bad configuration, a taken name, no such image.
pub async fn create(mut call: Call) -> Answer {
    let mut request: ContainerCreateRequest = call.required_json().await?;
    if request == ContainerCreateRequest::default() {
        return Err(ApiError::invalid("Config cannot be empty in order to create a container"));
    }
    check_platform(&call, &request)?;
    let binds = &call.state.config.socket_binds;
    binds
        .settle(&request.config.labels, &mut request.host_config)
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    lend::check_role(&call.state.gate, request.host_config.engine_access.as_ref())?;
    fill(&call.state, &mut request.host_config);
    let name = call.query.non_empty("name");
    let response = call.state.engine.create_container(name, request).await?;
    body::json(StatusCode::CREATED, &response)
}

/// What the configuration says for containers that don't.
fn fill(state: &AppState, host: &mut HostConfig) {
    defaults::fill(host, &state.config.containers, &state.config.network);
}

/// The image that is here must be for the platform asked for; else the client pulls that one.
fn check_platform(call: &Call, request: &ContainerCreateRequest) -> Result<(), ApiError> {
    let Some(text) = call.query.non_empty("platform") else { return Ok(()) };
    let wanted = super::image_transfer::platform(text)?;
    let Ok(image) = call.state.engine.images().resolve(&request.config.image) else {
        return Ok(());
    };
    let actual = image.config.platform();
    if actual.os == wanted.os
        && actual.architecture == wanted.architecture
        && (wanted.variant.is_none() || wanted.variant == actual.variant)
    {
        return Ok(());
    }
    Err(ApiError::not_found(format!(
        "image with reference {} was found but does not match the specified platform: \
         wanted {wanted}, actual: {actual}",
        request.config.image
    )))
}

fn is_predefined(network: &str) -> bool {
    matches!(network, "bridge" | "host" | "none")
}

/// `GET /containers/{id}/json`.
///
/// # Errors
/// No such container.
pub async fn inspect(call: Call) -> Answer {
    let size = call.query.flag("size");
    let mut found = call.state.engine.inspect(call.param("id"), size).await?;
    if !call.speaks(1, 45) {
        // COMPAT: before there were `DNSNames`, the short id was among the aliases.
        let short: String = found.id.chars().take(12).collect();
        let networks = found.network_settings.networks.iter_mut();
        for (_, endpoint) in networks.filter(|(name, _)| !is_predefined(name)) {
            if !endpoint.aliases.contains(&short) {
                endpoint.aliases.push(short.clone());
            }
        }
    }
    body::ok(&mask::container(&call.authorized, found))
}

/// `GET /containers/{id}/top`.
///
/// # Errors
/// No such container, or it doesn't run.
pub async fn top(call: Call) -> Answer {
    let arguments = call.query.text("ps_args").unwrap_or_default();
    body::ok(&call.state.engine.top(call.param("id"), arguments).await?)
}

/// `POST /containers/{id}/start`.
///
/// # Errors
/// No such container, what the runtime says, a body; 304 when it runs.
pub async fn start(call: Call) -> Answer {
    // COMPAT: `null` and `{}` are none; a host configuration, as clients before 1.24 sent it, would
    // be passed over.
    let length = call.header("content-length").and_then(|length| length.parse::<u64>().ok());
    if call.header("transfer-encoding").is_some() || length.is_some_and(|length| length > 7) {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    call.state.engine.start_container(call.param("id"), StartOptions::default()).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/stop`.
///
/// # Errors
/// No such container; 304 when it doesn't run.
pub async fn stop(call: Call) -> Answer {
    let timeout = call.query.number("t")?;
    let signal = call.query.non_empty("signal");
    call.state.engine.stop(call.param("id"), timeout, signal).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/restart`.
///
/// # Errors
/// No such container, what the runtime says.
pub async fn restart(call: Call) -> Answer {
    let timeout = call.query.number("t")?;
    let signal = call.query.non_empty("signal");
    call.state.engine.restart(call.param("id"), timeout, signal).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/kill`.
///
/// # Errors
/// No such container, no such signal, or it doesn't run.
pub async fn kill(call: Call) -> Answer {
    call.state.engine.kill(call.param("id"), call.query.non_empty("signal")).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/pause`.
///
/// # Errors
/// No such container, or it doesn't run.
pub async fn pause(call: Call) -> Answer {
    call.state.engine.pause(call.param("id")).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/unpause`.
///
/// # Errors
/// No such container, or it isn't paused.
pub async fn unpause(call: Call) -> Answer {
    call.state.engine.unpause(call.param("id")).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/update`.
///
/// # Errors
/// No such container, values that cannot be, what the kernel refuses.
pub async fn update(mut call: Call) -> Answer {
    let request: UpdateRequest = call.required_json().await?;
    body::ok(&call.state.engine.update(call.param("id"), request).await?)
}

/// `POST /containers/{id}/rename`.
///
/// # Errors
/// No such container, a bad or taken name.
pub async fn rename(call: Call) -> Answer {
    let name = call.query.text("name").unwrap_or_default();
    call.state.engine.rename(call.param("id"), name).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/resize`.
///
/// # Errors
/// No such container, or it doesn't run.
pub async fn resize(call: Call) -> Answer {
    let (height, width) = window(&call)?;
    call.state.engine.resize(call.param("id"), height, width).await?;
    Ok(body::empty(StatusCode::OK))
}

/// Rows and columns of a terminal, from the query.
pub(super) fn window(call: &Call) -> Result<(u16, u16), ApiError> {
    let side = |key| -> Result<u16, ApiError> {
        let number: Option<u32> = call.query.number(key)?;
        number.and_then(|n| u16::try_from(n).ok()).ok_or_else(|| {
            ApiError::invalid(format!("invalid resize: {key} is missing or too large"))
        })
    };
    Ok((side("h")?, side("w")?))
}

/// `DELETE /containers/{id}`.
///
/// # Errors
/// No such container, or it runs and `force` wasn't given.
pub async fn remove(call: Call) -> Answer {
    if call.query.flag("link") {
        return Err(ApiError::not_implemented("legacy container links are not available"));
    }
    let options = RemoveOptions { force: call.query.flag("force"), volumes: call.query.flag("v") };
    call.state.engine.remove(call.param("id"), options).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}
