//! A task's log lines in the cluster's form.

use brig_api::stream::StdStream;
use brig_engine::{LogLine, LogStream, LogsRequest, Tail};
use brig_proto::swarm::{LogMessage, LogStream as Stream, LogSubscriptionOptions};
use brig_swarm::TaskError;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use time::OffsetDateTime;

use crate::swarm::convert::moment;

/// What of a container's log a subscription wants.
pub(super) fn request(options: &LogSubscriptionOptions) -> Result<LogsRequest, TaskError> {
    let wants =
        |stream: Stream| options.streams.is_empty() || options.streams.contains(&stream.into());
    let tail = match options.tail {
        0 => Tail::All,
        // The wire says -(n + 1) for the last n lines.
        lines if lines < 0 => Tail::Last((lines + 1).unsigned_abs()),
        _ => return Err(TaskError::fatal("log lines cannot be counted from the start")),
    };
    Ok(LogsRequest {
        stdout: wants(Stream::Stdout),
        stderr: wants(Stream::Stderr),
        follow: options.follow,
        tail,
        since: moment(options.since.as_ref()),
        until: None,
    })
}

/// The lines as messages; the context is the caller's to fill in.
pub(super) fn messages(lines: LogStream) -> BoxStream<'static, LogMessage> {
    stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((message(line), lines))
    })
    .boxed()
}

fn message(line: LogLine) -> LogMessage {
    let stream = match line.stream {
        StdStream::Stderr | StdStream::SystemErr => Stream::Stderr,
        StdStream::Stdin | StdStream::Stdout => Stream::Stdout,
    };
    LogMessage {
        context: None,
        timestamp: brig_api::time::parse(&line.time).ok().map(timestamp),
        stream: stream.into(),
        data: line.data.to_vec(),
        attrs: Vec::new(),
    }
}

fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_become_requests() {
        let all = request(&LogSubscriptionOptions::default()).unwrap();
        assert!(all.stdout && all.stderr && !all.follow);
        assert_eq!(all.tail, Tail::All);
        let some = LogSubscriptionOptions {
            streams: vec![Stream::Stderr.into()],
            follow: true,
            tail: -6,
            since: Some(prost_types::Timestamp { seconds: 5, nanos: 1 }),
        };
        let some = request(&some).unwrap();
        assert!(!some.stdout && some.stderr && some.follow);
        assert_eq!(some.tail, Tail::Last(5));
        assert_eq!(some.since.unwrap().unix_timestamp_nanos(), 5_000_000_001);
        let none = LogSubscriptionOptions { tail: -1, ..LogSubscriptionOptions::default() };
        assert_eq!(request(&none).unwrap().tail, Tail::Last(0));
        let forward = LogSubscriptionOptions { tail: 5, ..LogSubscriptionOptions::default() };
        assert!(request(&forward).is_err());
    }

    #[test]
    fn lines_become_messages() {
        let message = message(LogLine {
            stream: StdStream::Stderr,
            time: "1970-01-01T00:00:07.000000009Z".into(),
            data: "hello\n".into(),
            starts_line: true,
        });
        assert_eq!(message.stream, i32::from(Stream::Stderr));
        assert_eq!(message.timestamp, Some(prost_types::Timestamp { seconds: 7, nanos: 9 }));
        assert_eq!(message.data, b"hello\n");
    }
}
