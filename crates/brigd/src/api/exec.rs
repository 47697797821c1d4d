//! Processes in running containers.

use brig_api::exec::{ExecConfig, ExecStartRequest, IdResponse};
use brig_engine::ExecStart;
use http::StatusCode;

use super::attach;
use super::containers::window;
use crate::server::{ApiError, Call, Response, body};

type Answer = Result<Response, ApiError>;

/// `POST /containers/{id}/exec`.
///
/// # Errors
/// No such container, it doesn't run, or no command.
pub async fn create(mut call: Call) -> Answer {
    let config: ExecConfig = call.required_json().await?;
    let id = call.state.engine.create_exec(call.param("id"), config)?;
    body::json(StatusCode::CREATED, &IdResponse { id: id.to_string() })
}

/// `POST /exec/{id}/start`.
///
/// The answer's head comes before the process, which so has a client that is ready for its output.
/// One that can't be started says why there, because clients read nothing but the status of a
/// refused upgrade.
///
/// # Errors
/// No such exec, or it was started before; detached, what the runtime says.
pub async fn start(mut call: Call) -> Answer {
    let request: ExecStartRequest = call.json().await?.unwrap_or_default();
    let how = ExecStart { detach: request.detach, console_size: request.console_size };
    let pending = call.state.engine.begin_exec(call.param("id"), how)?;
    if request.detach {
        pending.detach().await?;
        return Ok(body::empty(StatusCode::OK));
    }
    let tty = pending.tty();
    attach::connect(call, tty, pending.attach()).await
}

/// `POST /exec/{id}/resize`.
///
/// # Errors
/// No such exec, or it doesn't run.
pub async fn resize(call: Call) -> Answer {
    let (height, width) = window(&call)?;
    call.state.engine.resize_exec(call.param("id"), height, width).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `GET /exec/{id}/json`.
///
/// # Errors
/// No such exec.
pub async fn inspect(call: Call) -> Answer {
    body::ok(&call.state.engine.inspect_exec(call.param("id"))?)
}
