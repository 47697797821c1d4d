//! `GET /containers/{id}/logs`.

use brig_engine::{LogLine, LogsRequest, Tail};
use futures_util::{StreamExt as _, stream};

use super::times;
use crate::server::query::Query;
use crate::server::{ApiError, Call, Response, body, hijack};

/// How a client wants log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// The time before each line.
    pub timestamps: bool,
    /// The container's log tags before each line.
    pub details: bool,
}

impl Prefixes {
    /// Reads them from the query.
    #[must_use]
    pub fn of(query: &Query) -> Self {
        Self { timestamps: query.flag("timestamps"), details: query.flag("details") }
    }
}

/// What of the log is wanted, from the query.
///
/// # Errors
/// Neither stream, or malformed times.
pub fn request(query: &Query) -> Result<LogsRequest, ApiError> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    // COMPAT: what is no number means all, as with docker.
    let tail = query.text("tail").and_then(|text| text.parse().ok()).map_or(Tail::All, Tail::Last);
    Ok(LogsRequest {
        stdout,
        stderr,
        follow: query.flag("follow"),
        tail,
        since: times::parameter(query.text("since"))?,
        until: times::parameter(query.text("until"))?,
    })
}

/// Streams a container's log.
///
/// # Errors
/// No such container, bad parameters, a log driver that can't be read.
pub async fn container(call: Call) -> Result<Response, ApiError> {
    let request = request(&call.query)?;
    let prefixes = Prefixes::of(&call.query);
    let logs = call.state.engine.logs(call.param("id"), request).await?;
    let tty = logs.tty;
    let details = prefixes.details.then(|| logs.details.clone());
    let lines = stream::unfold(logs, |mut logs| async move { Some((logs.next().await?, logs)) });
    let lines = lines.map(move |line: LogLine| {
        let bytes = line.render(prefixes.timestamps, details.as_deref());
        Ok(hijack::encode(tty, &(line.stream, bytes)))
    });
    let media_type = hijack::media_type(&call, tty);
    Ok(body::stream(Some(media_type), lines, call.state.stop.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_must_be_chosen() {
        let error = request(&Query::parse(Some("follow=1"))).unwrap_err();
        assert_eq!(error.message(), "Bad parameters: you must choose at least one stream");
        let query = Query::parse(Some("stdout=1&tail=5&since=1704067200.000000000&until=0"));
        let request = request(&query).unwrap();
        assert!(request.stdout && !request.stderr && !request.follow);
        assert_eq!(request.tail, Tail::Last(5));
        assert_eq!(request.since.unwrap().unix_timestamp(), 1_704_067_200);
        assert_eq!(request.until, None);
    }

    #[test]
    fn any_other_tail_is_all() {
        for text in ["stdout=1", "stdout=1&tail=all", "stdout=1&tail=-1", "stdout=1&tail="] {
            assert_eq!(request(&Query::parse(Some(text))).unwrap().tail, Tail::All, "{text}");
        }
    }
}
