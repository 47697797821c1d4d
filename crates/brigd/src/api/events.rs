//! `GET /events`.

use bytes::Bytes;
use futures_util::stream;

use super::times;
use crate::server::body::{self, JSON};
use crate::server::{ApiError, Call, Response};

/// Past events since a time, if one is given, and then those to come, one JSON object a line.
///
/// # Errors
/// Malformed times or filters. Unknown filters match nothing in particular, as with docker.
pub async fn stream(call: Call) -> Result<Response, ApiError> {
    let since = times::parameter(call.query.text("since"))?;
    let until = times::parameter(call.query.text("until"))?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(ApiError::invalid("`since` time cannot be after `until` time"));
    }
    let filters = call.query.filters()?;
    let subscription = call.state.engine.events().subscribe(since, until, filters);
    let lines = stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        let line = serde_json::to_vec(&event)
            .map(|mut text| {
                text.push(b'\n');
                Bytes::from(text)
            })
            .map_err(Into::into);
        Some((line, subscription))
    });
    Ok(body::stream(Some(JSON), lines, call.state.stop.clone()))
}
