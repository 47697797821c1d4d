//! `POST /containers/{id}/wait`.

use brig_api::container::{WaitError, WaitResponse};
use brig_engine::WaitCondition;
use bytes::Bytes;
use futures_util::stream;

use crate::server::body::{self, JSON};
use crate::server::{ApiError, Call, Response};

/// Answers at once and tells the exit code when the condition is met: clients register the wait,
/// and start the container only when they have the answer's headers.
///
/// # Errors
/// No such container, no such condition.
pub async fn container(call: Call) -> Result<Response, ApiError> {
    let condition = WaitCondition::parse(call.query.text("condition").unwrap_or_default())?;
    let handle = call.state.engine.wait(call.param("id"), condition)?;
    let outcome = stream::once(async move {
        let outcome = handle.wait().await;
        let response = WaitResponse {
            status_code: outcome.exit_code,
            error: outcome.error.map(|message| WaitError { message }),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        Ok(Bytes::from(text))
    });
    Ok(body::stream(Some(JSON), outcome, call.state.stop.clone()))
}
