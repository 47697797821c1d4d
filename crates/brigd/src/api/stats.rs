//! `GET /containers/{id}/stats`.

use brig_api::stats::ContainerStats;
use brig_engine::StatsRequest;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::server::body::{self, JSON};
use crate::server::{ApiError, Call, Response};

/// Streams a container's statistics, or answers once.
///
/// # Errors
/// No such container, contradicting parameters.
pub async fn container(call: Call) -> Result<Response, ApiError> {
    let request = StatsRequest {
        stream: call.query.flag_or("stream", true),
        one_shot: call.query.flag("one-shot"),
    };
    if request.stream && request.one_shot {
        return Err(ApiError::invalid("cannot have stream=true and one-shot=true"));
    }
    let stats = call.state.engine.stats(call.param("id"), request)?;
    let lines = ReceiverStream::new(stats).map(|stats: ContainerStats| {
        let mut line = serde_json::to_vec(&stats)?;
        line.push(b'\n');
        Ok(Bytes::from(line))
    });
    Ok(body::stream(Some(JSON), lines, call.state.stop.clone()))
}
