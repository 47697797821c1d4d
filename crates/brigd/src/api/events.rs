//! `GET /events`.

use std::sync::Arc;

use brig_api::event::Event;
use bytes::Bytes;
use futures_util::stream;

use super::times;
use crate::access::object;
use crate::server::body::{self, JSON};
use crate::server::{ApiError, Call, Response};

/// Past events since a time, if one is given, and then those to come, one JSON object a line. Shows
/// what happens to objects that the caller may inspect.
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
    let sees_all = call.authorized.is_unrestricted();
    let (state, authorized) = (call.state.clone(), call.authorized.clone());
    let may_see = move |event: &Event| {
        let gate = &state.gate;
        // Cheap as long as nothing has changed; the rules of this moment count.
        if sees_all && Arc::ptr_eq(authorized.rules(), &gate.rules()) {
            return true;
        }
        let principal = authorized.principal();
        object::of_event(&state, event)
            .is_none_or(|(action, object)| gate.may_now(principal, action, &object))
    };
    let lines = stream::unfold((subscription, may_see), |(mut subscription, may_see)| async move {
        let event = loop {
            let event = subscription.next().await?;
            if may_see(&event) {
                break event;
            }
        };
        let line = serde_json::to_vec(&event)
            .map(|mut text| {
                text.push(b'\n');
                Bytes::from(text)
            })
            .map_err(Into::into);
        Some((line, (subscription, may_see)))
    });
    Ok(body::stream(Some(JSON), lines, call.state.stop.clone()))
}
