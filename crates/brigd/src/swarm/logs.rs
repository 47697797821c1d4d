//! `/services/{id}/logs` and `/tasks/{id}/logs`.

use brig_api::stream::{StdStream, encode_frame};
use brig_api::swarm::TaskSpec;
use brig_api::time::rfc3339nano_fixed;
use brig_proto::swarm::{LogMessage, LogSelector, LogStream as Source, LogSubscriptionOptions};
use brig_swarm::LogStream;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use time::OffsetDateTime;

use super::{Answer, convert, local};
use crate::api::times;
use crate::server::query::Query;
use crate::server::{ApiError, Call, body, hijack};

/// Keys of the details that name where a line came from.
const NODE: &str = "com.docker.swarm.node.id";
const SERVICE: &str = "com.docker.swarm.service.id";
const TASK: &str = "com.docker.swarm.task.id";

/// `GET /services/{id}/logs`.
pub(super) async fn service(call: Call) -> Answer {
    let service = local::control(&call.state)?.service(call.param("id"))?;
    let spec = service.spec.as_ref().and_then(|spec| spec.task.as_ref());
    let tty = has_terminal(&spec.map(convert::template::json).unwrap_or_default());
    let service_ids = vec![service.id.clone()];
    answer(&call, LogSelector { service_ids, ..LogSelector::default() }, tty)
}

/// `GET /tasks/{id}/logs`.
pub(super) async fn task(call: Call) -> Answer {
    let task = local::control(&call.state)?.task(call.param("id"))?;
    let tty = has_terminal(&task.spec.as_ref().map(convert::template::json).unwrap_or_default());
    let task_ids = vec![task.id.clone()];
    answer(&call, LogSelector { task_ids, ..LogSelector::default() }, tty)
}

fn has_terminal(spec: &TaskSpec) -> bool {
    spec.container_spec.as_ref().is_some_and(|container| container.tty)
}

fn answer(call: &Call, selector: LogSelector, tty: bool) -> Answer {
    let options = options(&call.query)?;
    let shape = Shape {
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
        tty,
    };
    let lines = local::control(&call.state)?.service_logs(selector, options)?;
    let chunks = stream::unfold(Some(lines), move |lines| async move {
        let mut lines: LogStream = lines?;
        match lines.next().await {
            Some(message) => Some((Ok(shape.render(&message)), Some(lines))),
            // The last words, if something is missing.
            None => shape.missing(lines.missing_nodes()).map(|bytes| (Ok(bytes), None)),
        }
    });
    let media_type = hijack::media_type(call, tty);
    Ok(body::stream(Some(media_type), chunks, call.state.stop.clone()))
}

/// What of the logs is wanted.
fn options(query: &Query) -> Result<LogSubscriptionOptions, ApiError> {
    let mut streams = Vec::new();
    for (name, source) in [("stdout", Source::Stdout), ("stderr", Source::Stderr)] {
        if query.flag(name) {
            streams.push(source.into());
        }
    }
    if streams.is_empty() {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let tail = match query.text("tail") {
        None | Some("" | "all") => 0,
        Some(text) => {
            let lines: i64 = text.parse().map_err(|_| {
                ApiError::invalid("tail value must be a positive integer or \"all\"")
            })?;
            if lines < 0 {
                return Err(ApiError::invalid("negative tail values not supported"));
            }
            // On the wire 0 is everything and -(n + 1) the last n.
            -lines.saturating_add(1)
        }
    };
    let since = times::parameter(query.text("since"))?.map(timestamp);
    Ok(LogSubscriptionOptions { streams, follow: query.flag("follow"), tail, since })
}

fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or(0),
    }
}

/// How lines are written.
#[derive(Clone, Copy)]
struct Shape {
    timestamps: bool,
    details: bool,
    tty: bool,
}

impl Shape {
    fn render(self, message: &LogMessage) -> Bytes {
        let mut line = BytesMut::with_capacity(message.data.len() + 160);
        if self.timestamps {
            let at = convert::moment(message.timestamp.as_ref());
            let at = at.map_or_else(brig_api::time::zero, rfc3339nano_fixed);
            line.put_slice(at.as_bytes());
            line.put_u8(b' ');
        }
        if self.details {
            line.put_slice(details(message).as_bytes());
            line.put_u8(b' ');
        }
        line.put_slice(&message.data);
        let stream = match Source::try_from(message.stream) {
            Ok(Source::Stderr) => StdStream::Stderr,
            Ok(Source::Stdout | Source::Unknown) | Err(_) => StdStream::Stdout,
        };
        hijack::encode(self.tty, &(stream, line.freeze()))
    }

    /// Says which nodes could not be asked; clients show it as an error.
    fn missing(self, nodes: &[String]) -> Option<Bytes> {
        if nodes.is_empty() || self.tty {
            return None;
        }
        let reasons: Vec<_> =
            nodes.iter().map(|node| format!("node {node} is not available")).collect();
        let text = format!(
            "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}",
            reasons.join(", ")
        );
        Some(encode_frame(StdStream::SystemErr, text.as_bytes()))
    }
}

/// `key=value` pairs in the order of their keys, escaped as in a query.
fn details(message: &LogMessage) -> String {
    let context = message.context.clone().unwrap_or_default();
    let own = [NODE, SERVICE, TASK];
    let mut pairs: Vec<(&str, &str)> = message
        .attrs
        .iter()
        .map(|attr| (attr.key.as_str(), attr.value.as_str()))
        // Nobody but the cluster says where a line came from.
        .filter(|(key, _)| !own.contains(key))
        .collect();
    pairs.extend([
        (NODE, context.node_id.as_str()),
        (SERVICE, context.service_id.as_str()),
        (TASK, context.task_id.as_str()),
    ]);
    pairs.sort_unstable();
    let escape = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pairs: Vec<_> =
        pairs.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{LogAttr, LogContext};

    use super::*;

    fn message() -> LogMessage {
        LogMessage {
            context: Some(LogContext {
                service_id: "s".into(),
                node_id: "n".into(),
                task_id: "t".into(),
            }),
            timestamp: Some(prost_types::Timestamp { seconds: 0, nanos: 5 }),
            stream: Source::Stderr.into(),
            data: b"hello\n".to_vec(),
            attrs: vec![
                LogAttr { key: "env".into(), value: "a,b=c".into() },
                LogAttr { key: TASK.into(), value: "forged".into() },
            ],
        }
    }

    #[test]
    fn lines_carry_their_context() {
        let shape = Shape { timestamps: true, details: true, tty: false };
        let bytes = shape.render(&message());
        assert_eq!(bytes[0], 2, "standard error");
        let text = std::str::from_utf8(&bytes[8..]).unwrap();
        assert_eq!(
            text,
            "1970-01-01T00:00:00.000000005Z com.docker.swarm.node.id=n,\
             com.docker.swarm.service.id=s,com.docker.swarm.task.id=t,env=a%2Cb%3Dc hello\n"
        );
        let raw = Shape { timestamps: false, details: false, tty: true };
        assert_eq!(raw.render(&message()), &b"hello\n"[..]);
    }

    #[test]
    fn nodes_that_did_not_answer_are_named() {
        let shape = Shape { timestamps: false, details: false, tty: false };
        assert!(shape.missing(&[]).is_none());
        let bytes = shape.missing(&["n1".into()]).unwrap();
        assert_eq!(bytes[0], 3, "system error");
        assert!(bytes.ends_with(b"node n1 is not available"));
    }

    #[test]
    fn options_follow_dockers_rules() {
        let read = |text: &str| options(&Query::parse(Some(text)));
        assert!(read("follow=1").is_err());
        let all = read("stdout=1&stderr=1&tail=all").unwrap();
        assert_eq!((all.streams.len(), all.tail, all.follow), (2, 0, false));
        assert_eq!(read("stderr=1&tail=0&follow=1").unwrap().tail, -1);
        assert_eq!(read("stderr=1&tail=10").unwrap().tail, -11);
        assert!(read("stderr=1&tail=-1").is_err());
        assert!(read("stderr=1&tail=x").is_err());
        assert_eq!(read("stdout=1&since=7.5").unwrap().since.unwrap().seconds, 7);
    }
}
